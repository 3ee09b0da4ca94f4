//! QUIC packets made by hand, for what no QUIC library sends: a client whose every frame is chosen by the test. It never
//! retransmits and acknowledges nothing but what a test makes it: on loopback a packet that is sent arrives.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::pki_types::ServerName;
use rustls::quic::{ClientConnection, DirectionalKeys, KeyChange, Keys, Version};
use rustls::{ClientConfig, Side};
use tokio::net::UdpSocket;

use super::raw::{int, tls_config};

const V1: [u8; 4] = [0, 0, 0, 1];
/// Of every packet number field: the longest, so that header protection always has its sample.
const NUMBER_LEN: usize = 4;
/// The sample begins so far behind the packet number's first byte (RFC 9001 section 5.4.2).
const SAMPLE_AT: usize = 4;

/// Packet number spaces, in the order of their keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    Initial,
    Handshake,
    Data,
}

/// How the server answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// CONNECTION_CLOSE of QUIC with this code.
    Closed(u64),
    /// CONNECTION_CLOSE of the application.
    ClosedByApplication(u64),
    Retry,
    /// Anything else.
    Packets,
}

pub struct Handmade {
    pub socket: UdpSocket,
    tls: ClientConnection,
    keys: [Option<Keys>; 3],
    numbers: [u64; 3],
    /// The server's connection id, and ours.
    remote: Vec<u8>,
    local: Vec<u8>,
    token: Vec<u8>,
    /// Offsets of what TLS has written and read, by space.
    written: [u64; 3],
    read: [u64; 3],
    pub handshake_done: bool,
    pub bytes_sent: usize,
    pub bytes_heard: usize,
}

/// Transport parameters (RFC 9000 section 18): those that a server needs, and `more`.
pub fn parameters(local: &[u8], more: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let streams = int(100);
    let mut list = vec![
        (0x04, int(1 << 20)),
        (0x05, int(1 << 18)),
        (0x06, int(1 << 18)),
        (0x07, int(1 << 18)),
        (0x08, streams.clone()),
        (0x09, streams),
        (0x0f, local.to_vec()),
        (0x20, int(65_535)),
    ];
    list.retain(|(id, _)| more.iter().all(|(other, _)| other != id));
    list.extend_from_slice(more);
    list.into_iter()
        .flat_map(|(id, value)| [int(id), int(value.len() as u64), value].concat())
        .collect()
}

fn initial_keys(destination: &[u8]) -> Keys {
    let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let suite = suite.tls13().unwrap().quic_suite().unwrap();
    suite.keys(destination, Side::Client, Version::V1)
}

impl Handmade {
    pub async fn new(source: &str, server: SocketAddr) -> Self {
        Self::with_parameters(source, server, |local| parameters(local, &[])).await
    }

    /// From the address `source`, to whose connection id the `parameters` belong.
    pub async fn with_parameters(source: &str, server: SocketAddr, parameters: impl FnOnce(&[u8]) -> Vec<u8>) -> Self {
        let socket = UdpSocket::bind((source, 0)).await.unwrap();
        socket.connect(server).await.unwrap();
        // No two of a process' connections have the same: the kernel gives a port to each source address anew.
        static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
        let local = CONNECTIONS.fetch_add(1, Ordering::Relaxed).to_be_bytes().to_vec();
        let remote = [&local[..], &local[..]].concat();
        let config: Arc<ClientConfig> = tls_config();
        let name = ServerName::try_from("localhost").unwrap();
        let tls = ClientConnection::new(config, Version::V1, name, parameters(&local)).unwrap();
        Self {
            socket,
            tls,
            keys: [Some(initial_keys(&remote)), None, None],
            numbers: [0; 3],
            remote,
            local,
            token: Vec::new(),
            written: [0; 3],
            read: [0; 3],
            handshake_done: false,
            bytes_sent: 0,
            bytes_heard: 0,
        }
    }

    /// The ClientHello in a CRYPTO frame.
    pub fn hello(&mut self) -> Vec<u8> {
        let mut hello = Vec::new();
        assert!(self.tls.write_hs(&mut hello).is_none());
        self.written[0] = hello.len() as u64;
        crypto(0, &hello)
    }

    /// A packet with these frames.
    fn packet(&mut self, space: Space, frames: &[u8]) -> Vec<u8> {
        let keys = &self.keys[space as usize].as_ref().expect("no keys yet").local;
        let number = self.numbers[space as usize];
        self.numbers[space as usize] += 1;
        let mut header = Vec::new();
        match space {
            Space::Data => {
                header.push(0x40 | (NUMBER_LEN - 1) as u8);
                header.extend_from_slice(&self.remote);
            }
            Space::Initial | Space::Handshake => {
                let ty = if space == Space::Initial { 0xc0 } else { 0xe0 };
                header.push(ty | (NUMBER_LEN - 1) as u8);
                header.extend_from_slice(&V1);
                for id in [&self.remote, &self.local] {
                    header.push(id.len() as u8);
                    header.extend_from_slice(id);
                }
                if space == Space::Initial {
                    header.extend_from_slice(&int(self.token.len() as u64));
                    header.extend_from_slice(&self.token);
                }
                header.extend_from_slice(&int((NUMBER_LEN + frames.len() + 16) as u64));
            }
        }
        protect(keys, header, number, frames)
    }

    /// Sends one packet in a datagram of its own.
    pub async fn send(&mut self, space: Space, frames: &[u8]) {
        let packet = self.packet(space, frames);
        self.send_bytes(&packet).await;
    }

    /// Sends an Initial that is padded to 1200 bytes, as it has to be.
    pub async fn send_initial(&mut self, frames: &[u8]) {
        let overhead = 1 + 4 + 2 + self.remote.len() + self.local.len() + int(self.token.len() as u64).len();
        let overhead = overhead + self.token.len() + 2 + NUMBER_LEN + 16;
        let mut padded = frames.to_vec();
        padded.resize(padded.len().max(1200 - overhead), 0);
        self.send(Space::Initial, &padded).await;
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        // A refusal of something earlier shows here, once.
        if self.socket.send(bytes).await.is_err() {
            self.socket.send(bytes).await.unwrap();
        }
        self.bytes_sent += bytes.len();
    }

    /// Waits for the next datagram and handles its packets. What TLS has to say is sent.
    pub async fn hear(&mut self) -> Heard {
        let mut datagram = vec![0; 2048];
        let len = self.socket.recv(&mut datagram).await.unwrap();
        datagram.truncate(len);
        self.take(&datagram).await
    }

    /// As `hear`, for what has arrived already.
    pub async fn hear_now(&mut self) -> Option<Heard> {
        let mut datagram = vec![0; 2048];
        let len = self.socket.try_recv(&mut datagram).ok()?;
        datagram.truncate(len);
        Some(self.take(&datagram).await)
    }

    async fn take(&mut self, datagram: &[u8]) -> Heard {
        self.bytes_heard += datagram.len();
        let mut rest = datagram;
        let mut heard = Heard::Packets;
        while let Some(&first) = rest.first() {
            if first & 0xf0 == 0xf0 {
                self.retry(rest);
                return Heard::Retry;
            }
            let Some((space, packet, len)) = self.open(rest) else {
                break;
            };
            rest = &rest[len..];
            if let Some(closed) = self.frames(space, &packet) {
                heard = closed;
            }
            // The next packet of the datagram may need the keys.
            self.continue_handshake().await;
        }
        heard
    }

    /// Takes the token and the new connection id of a Retry (RFC 9000 section 17.2.5).
    fn retry(&mut self, packet: &[u8]) {
        let mut at = 5;
        at += 1 + usize::from(packet[at]);
        let len = usize::from(packet[at]);
        self.remote = packet[at + 1..at + 1 + len].to_vec();
        self.token = packet[at + 1 + len..packet.len() - 16].to_vec();
        self.keys[0] = Some(initial_keys(&self.remote));
    }

    /// Decrypts the first packet: its space, its frames, and how long it is.
    fn open(&mut self, bytes: &[u8]) -> Option<(Space, Vec<u8>, usize)> {
        let (space, number_at, len) = if bytes[0] & 0x80 == 0 {
            (Space::Data, 1 + self.local.len(), bytes.len())
        } else {
            let space = if bytes[0] & 0x30 == 0 {
                Space::Initial
            } else {
                Space::Handshake
            };
            let mut at = 5;
            at += 1 + usize::from(bytes[at]);
            let id = usize::from(bytes[at]);
            // From its first packet on, the server is called as it calls itself.
            self.remote = bytes[at + 1..at + 1 + id].to_vec();
            at += 1 + id;
            let mut rest = bytes::Bytes::copy_from_slice(&bytes[at..]);
            if space == Space::Initial {
                let token = wireloom_proto::varint::take(&mut rest)?;
                rest = rest.slice(usize::try_from(token).ok()?..);
            }
            let length = usize::try_from(wireloom_proto::varint::take(&mut rest)?).ok()?;
            let number_at = bytes.len() - rest.len();
            (space, number_at, number_at + length)
        };
        let keys = &self.keys[space as usize].as_ref()?.remote;
        let mut packet = bytes[..len].to_vec();
        let (header, body) = packet.split_at_mut(number_at);
        let (number, body) = body.split_at_mut(SAMPLE_AT);
        let sample = &body[..keys.header.sample_len()];
        keys.header.decrypt_in_place(sample, &mut header[0], number).ok()?;
        let number_len = usize::from(header[0] & 3) + 1;
        let number = number[..number_len].iter().fold(0, |n, &b| n << 8 | u64::from(b));
        let (header, payload) = packet.split_at_mut(number_at + number_len);
        let frames = keys.packet.decrypt_in_place(number, header, payload).ok()?.to_vec();
        Some((space, frames, len))
    }

    /// Reads frames as far as this client knows them.
    fn frames(&mut self, space: Space, frames: &[u8]) -> Option<Heard> {
        let mut rest = bytes::Bytes::copy_from_slice(frames);
        let take = |rest: &mut bytes::Bytes| wireloom_proto::varint::take(rest);
        while let Some(ty) = take(&mut rest) {
            match ty {
                0x00 | 0x01 => {}
                0x02 | 0x03 => {
                    take(&mut rest)?;
                    take(&mut rest)?;
                    let ranges = take(&mut rest)?;
                    let ecn = if ty == 3 { 3 } else { 0 };
                    for _ in 0..1 + 2 * ranges + ecn {
                        take(&mut rest)?;
                    }
                }
                0x06 => {
                    let offset = take(&mut rest)?;
                    let len = usize::try_from(take(&mut rest)?).ok()?;
                    let data = rest.split_to(len);
                    let read = &mut self.read[space as usize];
                    // Repeated where the server has had no acknowledgement.
                    if offset == *read {
                        *read += data.len() as u64;
                        self.tls.read_hs(&data).unwrap();
                    }
                }
                0x1c => {
                    let code = take(&mut rest)?;
                    return Some(Heard::Closed(code));
                }
                0x1d => {
                    let code = take(&mut rest)?;
                    return Some(Heard::ClosedByApplication(code));
                }
                0x1e => self.handshake_done = true,
                // Streams, tokens, connection ids: what follows is of no interest.
                _ => return None,
            }
        }
        None
    }

    async fn continue_handshake(&mut self) {
        loop {
            let space = if self.keys[1].is_some() {
                Space::Handshake
            } else {
                Space::Initial
            };
            let mut out = Vec::new();
            let change = self.tls.write_hs(&mut out);
            if !out.is_empty() {
                let written = &mut self.written[space as usize];
                let frame = crypto(*written, &out);
                *written += out.len() as u64;
                self.send(space, &frame).await;
            }
            match change {
                Some(KeyChange::Handshake { keys }) => self.keys[1] = Some(keys),
                Some(KeyChange::OneRtt { keys, .. }) => self.keys[2] = Some(keys),
                None if out.is_empty() => return,
                None => {}
            }
        }
    }

    /// Goes through the handshake, Retry included; whether Retry was asked for.
    pub async fn handshake(&mut self) -> bool {
        let hello = self.hello();
        let mut retried = false;
        self.send_initial(&hello).await;
        while !self.handshake_done {
            match self.hear().await {
                Heard::Retry => {
                    retried = true;
                    self.send_initial(&hello).await;
                }
                Heard::Packets => {}
                closed => panic!("{closed:?}"),
            }
        }
        retried
    }

    /// Closes the connection.
    pub async fn close(mut self) {
        let goodbye = [int(0x1c), int(0), int(0), int(0)].concat();
        match &self.keys {
            [.., Some(_)] => self.send(Space::Data, &goodbye).await,
            [_, Some(_), _] => self.send(Space::Handshake, &goodbye).await,
            _ => self.send_initial(&goodbye).await,
        }
    }

    /// Waits until the server closes the connection.
    pub async fn closed(&mut self) -> Heard {
        loop {
            let heard = self.hear().await;
            if matches!(heard, Heard::Closed(_) | Heard::ClosedByApplication(_)) {
                return heard;
            }
        }
    }
}

/// Encrypts `frames` and protects the header (RFC 9001 section 5).
fn protect(keys: &DirectionalKeys, mut header: Vec<u8>, number: u64, frames: &[u8]) -> Vec<u8> {
    let number_at = header.len();
    header.extend_from_slice(&u32::try_from(number).unwrap().to_be_bytes());
    let mut payload = frames.to_vec();
    // Enough for the sample.
    payload.resize(payload.len().max(4), 0);
    let tag = keys.packet.encrypt_in_place(number, &header, &mut payload).unwrap();
    payload.extend_from_slice(tag.as_ref());
    let sample = payload[..keys.header.sample_len()].to_vec();
    let (first, rest) = header.split_at_mut(1);
    let number = &mut rest[number_at - 1..];
    keys.header.encrypt_in_place(&sample, &mut first[0], number).unwrap();
    [header, payload].concat()
}

/// A CRYPTO frame.
pub fn crypto(offset: u64, data: &[u8]) -> Vec<u8> {
    [int(0x06), int(offset), int(data.len() as u64), data.to_vec()].concat()
}

/// A STREAM frame with offset and length.
pub fn stream(id: u64, offset: u64, data: &[u8], fin: bool) -> Vec<u8> {
    let ty = 0x0e | u64::from(fin);
    [int(ty), int(id), int(offset), int(data.len() as u64), data.to_vec()].concat()
}

/// A RESET_STREAM frame.
pub fn reset_stream(id: u64, code: u64, final_size: u64) -> Vec<u8> {
    [int(0x04), int(id), int(code), int(final_size)].concat()
}

/// An ACK frame of one packet.
pub fn ack(number: u64) -> Vec<u8> {
    [int(0x02), int(number), int(0), int(0), int(0)].concat()
}

/// A NEW_CONNECTION_ID frame that retires none.
pub fn new_connection_id(sequence: u64) -> Vec<u8> {
    let id = [sequence as u8; 8];
    [
        int(0x18),
        int(sequence),
        int(0),
        vec![8],
        id.to_vec(),
        vec![sequence as u8; 16],
    ]
    .concat()
}
