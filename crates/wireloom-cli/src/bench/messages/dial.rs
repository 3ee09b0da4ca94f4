//! Opening connections of each kind.

use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, Join};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use wireloom::{RecvStream, SendStream, Session};

use super::framing::Framing;
use super::meter::{Meter, Schedule};
use super::stream::Connection;
use super::streams;
use super::{Error, Load};
use crate::bench::websocket;

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

async fn upgrade<T: Io>(mut io: T, authority: &str, path: &str) -> Result<Connection<T>, Error> {
    let received = websocket::upgrade(&mut io, authority, path).await?;
    Connection::accepted(io, Framing::WebSocket, received).await
}
