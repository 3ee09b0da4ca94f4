//! Opening connections of each kind.

use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Join};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use wireloom::{RecvStream, SendStream, Session};

use super::framing::Framing;
use super::meter::{Meter, Schedule};
use super::stream::Connection;
use super::streams;
use super::{Error, Load};

/// Where to connect, and how.
pub(super) enum Target {
    WebSocket {
        authority: String,
        host: String,
        port: u16,
        path: String,
        tls: Option<Arc<rustls::ClientConfig>>,
    },
    /// One stream for all, or one for each request.
    WebTransport {
        client: wireloom::Client,
        url: String,
        streams: bool,
    },
}

trait Io: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

/// What is open.
pub(super) enum Opened {
    Plain(Connection<TcpStream>),
    Tls(Box<Connection<tokio_rustls::client::TlsStream<TcpStream>>>),
    /// The session is there to keep it.
    Single(Session, Connection<Join<RecvStream, SendStream>>),
    Streams(Session, Connection<Join<RecvStream, SendStream>>),
}

impl Target {
    pub(super) async fn open(&self) -> Result<Opened, Error> {
        match self {
            Self::WebSocket {
                authority,
                host,
                port,
                path,
                tls,
            } => {
                let tcp = TcpStream::connect((host.as_str(), *port)).await?;
                tcp.set_nodelay(true)?;
                match tls {
                    None => Ok(Opened::Plain(upgrade(tcp, authority, path).await?)),
                    Some(config) => {
                        let name = ServerName::try_from(host.clone())?;
                        let stream = TlsConnector::from(config.clone()).connect(name, tcp).await?;
                        Ok(Opened::Tls(Box::new(upgrade(stream, authority, path).await?)))
                    }
                }
            }
            Self::WebTransport { client, url, streams } => {
                let protocols: &[&str] = if *streams { &["webwire.v2m"] } else { &["webwire.v2"] };
                let session = client
                    .session(url)
                    .protocols(protocols.iter().copied())
                    .connect()
                    .await?;
                if *streams && session.protocol() != Some("webwire.v2m") {
                    return Err("the server does not speak profile M".into());
                }
                let (mut send, recv) = session.open_bi().await?;
                // The preface: a framed heartbeat (appendix A.2).
                send.write_all(&[0x01, 0x21]).await?;
                let io = tokio::io::join(recv, send);
                let connection = Connection::accepted(io, Framing::Lengths, BytesMut::new()).await?;
                Ok(if *streams {
                    Opened::Streams(session, connection)
                } else {
                    Opened::Single(session, connection)
                })
            }
        }
    }
}

impl Opened {
    /// Stays connected, until something fails.
    pub(super) async fn hold(self) -> Result<(), Error> {
        match self {
            Self::Plain(connection) => connection.hold().await,
            Self::Tls(connection) => connection.hold().await,
            Self::Single(_session, connection) | Self::Streams(_session, connection) => connection.hold().await,
        }
    }

    /// Sends requests and counts their replies, until something fails.
    pub(super) async fn run(self, load: Rc<Load>, schedule: Schedule, meter: Rc<Meter>) -> Result<(), Error> {
        match self {
            Self::Plain(connection) => connection.run(&load, schedule, meter).await,
            Self::Tls(connection) => connection.run(&load, schedule, meter).await,
            Self::Single(_session, connection) => connection.run(&load, schedule, meter).await,
            Self::Streams(session, _control) => streams::run(session, load, schedule, meter).await,
        }
    }
}

/// The handshake of RFC 6455, section 4.1.
async fn upgrade<T: Io>(mut io: T, authority: &str, path: &str) -> Result<Connection<T>, Error> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: d2lyZWxvb20gYmVuY2ghIQ==\r\n\r\n"
    );
    io.write_all(request.as_bytes()).await?;
    // TLS may keep the last record to itself.
    io.flush().await?;
    let mut received = BytesMut::with_capacity(4096);
    let end = loop {
        if let Some(at) = received.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if received.len() > 16 * 1024 || io.read_buf(&mut received).await? == 0 {
            return Err("the server's answer to the upgrade is incomplete".into());
        }
    };
    let head = received.split_to(end);
    if !head.starts_with(b"HTTP/1.1 101 ") {
        let line = head[..].split(|byte| *byte == b'\r').next().unwrap_or_default();
        return Err(format!("no WebSocket: {}", String::from_utf8_lossy(line)).into());
    }
    Connection::accepted(io, Framing::WebSocket, received).await
}
