//! What the machine allows: packets of QUIC's size and protection over UDP, with segmentation offload on both sides, and nothing
//! else of QUIC: no acknowledgements, no streams, no congestion control. `upload-1` only. What the receiver cannot take is
//! lost, and counts for nobody.
//!
//! The control connection is TCP, on the UDP port's number.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::quic::{DirectionalKeys, Keys, Version};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::client::{self, Options, Sample};
use crate::load::Tally;
use crate::report::{Report, Stats};
use crate::{Result, Side, exit, print, quic, server};

const PROGRAM: &str = "sealed-udp";

/// The packets of one send call: as many as an IP datagram holds.
const SEGMENTS: usize = 44;
const PACKET: usize = 1452;
/// A short header: flags, a connection id of 8 bytes, a packet number of 4 (RFC 9000 section 17.3.1).
const NUMBER_AT: usize = 9;
const HEADER: usize = NUMBER_AT + 4;
const TAG: usize = 16;
/// "the sample [...] starting 4 bytes after the start of the Packet Number field" (RFC 9001 section 5.4.2).
const SAMPLE: std::ops::Range<usize> = NUMBER_AT + 4..NUMBER_AT + 4 + 16;

/// Runs one side.
pub fn run(side: Side) -> ExitCode {
    exit(PROGRAM, async {
        match side {
            Side::Server { bind, .. } => server::until_told(serve(bind)).await,
            Side::Client(options) => print(&options, measure(&options)).await,
        }
    })
}

/// One direction's keys; both sides make the same ones.
fn keys() -> Result<DirectionalKeys> {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().ok_or("no suite of TLS 1.3")?;
    let quic = suite.quic.ok_or("no QUIC keys")?;
    Ok(Keys::initial(Version::V1, suite, quic, b"wireloom", rustls::Side::Client).local)
}

fn seal(keys: &DirectionalKeys, number: u32, packet: &mut [u8]) -> Result {
    packet[0] = 0x43;
    packet[NUMBER_AT..HEADER].copy_from_slice(&number.to_be_bytes());
    let (header, rest) = packet.split_at_mut(HEADER);
    let (payload, tag) = rest.split_at_mut(PACKET - HEADER - TAG);
    let made = keys.packet.encrypt_in_place(number.into(), header, payload)?;
    tag.copy_from_slice(made.as_ref());
    let (header, rest) = packet.split_at_mut(SAMPLE.start);
    let (first, number) = header.split_at_mut(1);
    let number = &mut number[NUMBER_AT - 1..];
    Ok(keys
        .header
        .encrypt_in_place(&rest[..SAMPLE.len()], &mut first[0], number)?)
}

/// The length of the payload.
fn open(keys: &DirectionalKeys, packet: &mut [u8]) -> Result<usize> {
    if packet.len() < SAMPLE.end {
        return Err("a packet is too short".into());
    }
    let (header, rest) = packet.split_at_mut(SAMPLE.start);
    let (first, number) = header.split_at_mut(1);
    let number = &mut number[NUMBER_AT - 1..];
    keys.header
        .decrypt_in_place(&rest[..SAMPLE.len()], &mut first[0], number)?;
    let number = u32::from_be_bytes(number.try_into()?);
    let (header, payload) = packet.split_at_mut(HEADER);
    Ok(keys.packet.decrypt_in_place(number.into(), header, payload)?.len())
}

async fn serve(bind: SocketAddr) -> Result {
    let start = Instant::now();
    let tcp = TcpListener::bind(bind).await?;
    let address = tcp.local_addr()?;
    let socket = UdpSocket::from_std(quic::socket(address)?)?;
    server::announce(address, "none");
    let bytes = Arc::new(AtomicU64::new(0));
    let counted = bytes.clone();
    let control = async move {
        loop {
            let mut lines = BufReader::new(tcp.accept().await?.0);
            let mut line = String::new();
            while lines.read_line(&mut line).await? > 0 {
                let mut answer = serde_json::to_vec(&server::stats(start, counted.load(Relaxed), 0, 0)?)?;
                answer.push(b'\n');
                lines.write_all(&answer).await?;
                line.clear();
            }
        }
    };
    tokio::select! {
        done = receive(&socket, &bytes) => done,
        done = control => done,
    }
}

async fn receive(socket: &UdpSocket, bytes: &AtomicU64) -> Result {
    let state = UdpSocketState::new(socket.into())?;
    let keys = keys()?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        socket.readable().await?;
        let mut meta = [RecvMeta::default()];
        let received = socket.try_io(Interest::READABLE, || {
            state.recv(socket.into(), &mut [std::io::IoSliceMut::new(&mut buffer)], &mut meta)
        });
        match received {
            Ok(_) => {
                let [RecvMeta { len, stride, .. }] = meta;
                let mut opened = 0;
                for packet in buffer[..len].chunks_mut(stride.max(1)) {
                    opened += open(&keys, packet)?;
                }
                bytes.fetch_add(opened as u64, Relaxed);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        tokio::task::yield_now().await;
    }
}

async fn send(server: SocketAddr) -> Result {
    let socket = UdpSocket::from_std(quic::client_socket()?)?;
    let state = UdpSocketState::new((&socket).into())?;
    let keys = keys()?;
    let mut buffer = vec![0x5a; SEGMENTS * PACKET];
    let mut number = 0_u32;
    loop {
        for packet in buffer.chunks_mut(PACKET) {
            number = number.wrapping_add(1);
            seal(&keys, number, packet)?;
        }
        let transmit = Transmit {
            destination: server,
            ecn: None,
            contents: &buffer,
            segment_size: Some(PACKET),
            src_ip: None,
        };
        loop {
            socket.writable().await?;
            let sent = socket.try_io(Interest::WRITABLE, || state.try_send((&socket).into(), &transmit));
            match sent {
                Ok(()) => break,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        tokio::task::yield_now().await;
    }
}

async fn measure(options: &Options) -> Result<Report> {
    if options.workload != "upload-1" {
        return Err(format!("sealed UDP does not run {}", options.workload).into());
    }
    let mut control = BufReader::new(TcpStream::connect(options.server).await?);
    let tally = Tally::new()?;
    tally.spawn(send(options.server));
    tokio::time::sleep(Duration::from_secs_f64(options.warmup)).await;
    let a = Sample::new(ask(&mut control).await?, &tally)?;
    tokio::time::sleep(Duration::from_secs_f64(options.seconds)).await;
    let b = Sample::new(ask(&mut control).await?, &tally)?;
    client::report(PROGRAM, &options.workload, &a, &b, &tally)
}

async fn ask(control: &mut BufReader<TcpStream>) -> Result<Stats> {
    control.write_all(b"{\"stats\":true}\n").await?;
    let mut line = String::new();
    control.read_line(&mut line).await?;
    Ok(serde_json::from_str(&line)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_and_what_was_changed_does_not() {
        let keys = keys().expect("keys");
        let mut packet = vec![0x5a; PACKET];
        seal(&keys, 7, &mut packet).expect("sealed");
        let mut changed = packet.clone();
        changed[100] ^= 1;
        assert_eq!(open(&keys, &mut packet).expect("opened"), PACKET - HEADER - TAG);
        assert!(packet[HEADER..PACKET - TAG].iter().all(|byte| *byte == 0x5a));
        assert!(open(&keys, &mut changed).is_err());
    }
}
