//! The bytes of each protocol: how to connect, subscribe and publish, and where a delivered message begins.

use std::ops::Range;

use bytes::{Buf as _, BytesMut};
use clap::ValueEnum;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Error;
use crate::bench::websocket::{payload, push_frame, upgrade};
use crate::trust::dialable;

/// The topic, subject or event.
const TOPIC: &str = "bench";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Protocol {
    Wireloom,
    /// Engine.IO 4 over WebSocket; the server's handler of `publish` emits `bench` to all.
    SocketIo,
    /// Core NATS over TCP.
    Nats,
}

/// A connection after its handshake, with what was read behind that.
pub(super) struct Peer {
    pub(super) tcp: TcpStream,
    pub(super) read: BytesMut,
}

/// What was received.
pub(super) enum Frame {
    /// A message of the topic, up to this length of the buffer, with the payload at the given place.
    Delivery {
        end: usize,
        payload: usize,
    },
    /// Something to be answered.
    Ping {
        end: usize,
    },
    Other {
        end: usize,
    },
}

impl Protocol {
    /// What is wrong with a URL, if anything is.
    pub(super) fn check(self, url: &str) -> Result<(), String> {
        let scheme = match self {
            Self::Wireloom => "ws",
            Self::SocketIo | Self::Nats => "http",
        };
        let wrong = format!("only {scheme}://host:port is possible here, without TLS");
        let checked = dialable(url, &[scheme], &wrong);
        checked.map(drop).map_err(|why| format!("{url}: {why}"))
    }

    pub(super) async fn connect(self, url: &str) -> Result<Peer, Error> {
        let uri: http::Uri = url.parse()?;
        let authority = uri
            .authority()
            .ok_or("a URL with a host is needed")?
            .as_str()
            .to_owned();
        let port = uri.port_u16().unwrap_or(80);
        let tcp = TcpStream::connect((uri.host().unwrap_or_default().trim_matches(['[', ']']), port)).await?;
        tcp.set_nodelay(true)?;
        let mut peer = Peer {
            tcp,
            read: BytesMut::with_capacity(4096),
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        match self {
            Self::Wireloom => {
                peer.read = upgrade(&mut peer.tcp, &authority, path).await?;
                // The server's first message, and ours.
                peer.skip_frame().await?;
                peer.send(&masked(0x82, &[0x21])).await?;
            }
            Self::SocketIo => {
                peer.read = upgrade(&mut peer.tcp, &authority, "/socket.io/?EIO=4&transport=websocket").await?;
                peer.skip_frame().await?;
                peer.send(&masked(0x81, b"40")).await?;
                peer.skip_frame().await?;
            }
            Self::Nats => {
                peer.send(b"CONNECT {\"verbose\":false,\"pedantic\":false,\"echo\":true}\r\nPING\r\n")
                    .await?;
                while !peer.read.windows(6).any(|six| six == b"PONG\r\n") {
                    peer.fill().await?;
                }
                peer.read.clear();
            }
        }
        Ok(peer)
    }

    pub(super) fn subscribe(self) -> Vec<u8> {
        match self {
            Self::Wireloom => masked(0x82, &request(&format!("$subscribe/{TOPIC}"), b"")),
            // Everybody is in the room of all.
            Self::SocketIo => Vec::new(),
            Self::Nats => format!("SUB {TOPIC} 1\r\n").into_bytes(),
        }
    }

    pub(super) fn publish(self, payload: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Wireloom => out.extend(masked(0x82, &request(&format!("$publish//{TOPIC}"), payload))),
            Self::SocketIo => {
                let event = format!("42[\"publish\",\"{}\"]", String::from_utf8_lossy(payload));
                out.extend(masked(0x81, event.as_bytes()));
            }
            Self::Nats => {
                out.extend(format!("PUB {TOPIC} {}\r\n", payload.len()).into_bytes());
                out.extend_from_slice(payload);
                out.extend_from_slice(b"\r\n");
            }
        }
    }

    pub(super) fn pong(self) -> Vec<u8> {
        match self {
            Self::Wireloom => masked(0x8a, b""),
            Self::SocketIo => masked(0x81, b"3"),
            Self::Nats => b"PONG\r\n".to_vec(),
        }
    }

    /// The first frame of `read`, if it is there whole.
    pub(super) fn next(self, read: &[u8]) -> Result<Option<Frame>, Error> {
        if self == Self::Nats {
            return Ok(next_nats(read));
        }
        let Some(Range { start: head, end }) = payload(read)? else {
            return Ok(None);
        };
        let body = &read[head..end];
        Ok(Some(match self {
            // A UTF-8 or binary signal: name length, name, payload.
            Self::Wireloom if matches!(body, [63 | 64, _, ..]) => Frame::Delivery {
                end,
                payload: head + 2 + usize::from(body[1]),
            },
            Self::Wireloom if read[0] & 15 == 9 => Frame::Ping { end },
            Self::SocketIo if body.starts_with(b"42[\"bench\",\"") => Frame::Delivery {
                end,
                payload: head + 12,
            },
            Self::SocketIo if body == b"2" => Frame::Ping { end },
            _ => Frame::Other { end },
        }))
    }
}

fn next_nats(read: &[u8]) -> Option<Frame> {
    let line = read.iter().position(|byte| *byte == b'\n')?;
    if read.starts_with(b"MSG ") {
        let head = std::str::from_utf8(&read[..line]).ok()?;
        let len: usize = head.trim_end().rsplit(' ').next()?.parse().ok()?;
        let end = line + 1 + len + 2;
        return (read.len() >= end).then_some(Frame::Delivery { end, payload: line + 1 });
    }
    let end = line + 1;
    Some(if read.starts_with(b"PING") {
        Frame::Ping { end }
    } else {
        Frame::Other { end }
    })
}

/// A client's frame.
fn masked(head: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    push_frame(head, payload, &mut frame);
    frame
}

/// A UTF-8 request of WebWire 2.0. Its identifier does not matter.
fn request(name: &str, payload: &[u8]) -> Vec<u8> {
    let mut message = vec![128, 1, 0, 0, 0, 0, 0, 0, 0, name.len() as u8];
    message.extend_from_slice(name.as_bytes());
    message.extend_from_slice(payload);
    message
}

impl Peer {
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        Ok(self.tcp.write_all(bytes).await?)
    }

    async fn fill(&mut self) -> Result<(), Error> {
        if self.read.len() > 64 * 1024 || self.tcp.read_buf(&mut self.read).await? == 0 {
            return Err("the server ended the connection, or does not speak this protocol".into());
        }
        Ok(())
    }

    async fn skip_frame(&mut self) -> Result<(), Error> {
        loop {
            if let Some(payload) = payload(&self.read)? {
                self.read.advance(payload.end);
                return Ok(());
            }
            self.fill().await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deliveries_are_found_in_each_protocol() {
        let find = |protocol: Protocol, read: &[u8]| match protocol.next(read).expect("frames") {
            Some(Frame::Delivery { end, payload }) => String::from_utf8_lossy(&read[payload..end]).into_owned(),
            Some(Frame::Ping { .. }) => "ping".to_owned(),
            Some(Frame::Other { .. }) => "other".to_owned(),
            None => "part".to_owned(),
        };
        let signal = b"\x82\x09\x40\x03abchihi";
        assert_eq!(find(Protocol::Wireloom, signal), "hihi");
        assert_eq!(find(Protocol::Wireloom, &signal[..10]), "part");
        assert_eq!(find(Protocol::Wireloom, b"\x82\x01\x16"), "other");
        assert_eq!(find(Protocol::SocketIo, b"\x81\x1042[\"bench\",\"hi\"]"), "hi\"]");
        assert_eq!(find(Protocol::SocketIo, b"\x81\x012"), "ping");
        assert_eq!(find(Protocol::Nats, b"MSG bench 1 2\r\nhi\r\nMSG"), "hi\r\n");
        assert_eq!(find(Protocol::Nats, b"MSG bench 1 2\r\nhi"), "part");
        assert_eq!(find(Protocol::Nats, b"PING\r\n"), "ping");
    }
}
