//! WebSocket over HTTP/3 (RFC 9220): the stream of an extended CONNECT, offered to the service the way hyper offers those of
//! HTTP/1.1 and HTTP/2.
//!
//! Only hyper can make an [`OnUpgrade`], and only out of a connection that it serves. So it serves one for every handshake: a
//! constant upgrade request, whose answer goes nowhere. As soon as the service has accepted that is over, and hyper hands out
//! what was behind it, which is the stream: nothing is copied in between.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use crate::driver::{RequestBody, RequestError, ResponseSender};

/// What hyper believes to be asked for.
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

/// What ends hyper's answer.
const END: &[u8] = b"\r\n\r\n";

/// Bytes of one DATA frame.
const MAX_WRITE: usize = 64 * 1024;

/// An upgrade that the service may accept. Dropped, it fails.
pub(super) struct Offer {
    connection: Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>,
    accepted: oneshot::Sender<()>,
    tunnel: oneshot::Sender<Tunnel>,
}

impl Offer {
    /// `None` if hyper will not have it, which is not expected.
    pub(super) async fn new() -> Option<(Self, OnUpgrade)> {
        let (accepted, acceptance) = oneshot::channel();
        let (tunnel, behind) = oneshot::channel();
        let (asked, on_upgrade) = oneshot::channel();
        let once = Mutex::new(Some((acceptance, asked)));
        let service = service_fn(move |mut request: Request<Incoming>| {
            let once = once.lock().unwrap_or_else(PoisonError::into_inner).take();
            async move {
                let (acceptance, asked) = once.ok_or("one request")?;
                let _ = asked.send(hyper::upgrade::on(&mut request));
                acceptance.await.map_err(|_| "refused")?;
                let mut response = Response::new(Empty::<Bytes>::new());
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                Ok::<_, &'static str>(response)
            }
        });
        let io = Front {
            request: REQUEST,
            matched: 0,
            behind,
            tunnel: None,
        };
        let mut offer = Self {
            connection: Box::pin(
                http1::Builder::new()
                    .serve_connection(TokioIo::new(io), service)
                    .with_upgrades(),
            ),
            accepted,
            tunnel,
        };
        let mut on_upgrade = Box::pin(on_upgrade);
        let on_upgrade = poll_fn(|cx| {
            if offer.connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            on_upgrade.as_mut().poll(cx).map(Result::ok)
        });
        let on_upgrade = on_upgrade.await?;
        Some((offer, on_upgrade))
    }

    /// Hands the stream to whoever awaits the upgrade, and waits until it is dropped there.
    pub(super) async fn accept(self, recv: RequestBody, send: ResponseSender) {
        let (open, mut closed) = oneshot::channel();
        let tunnel = Tunnel {
            recv,
            rest: Bytes::new(),
            send,
            is_over: false,
            _open: open,
        };
        if self.tunnel.send(tunnel).is_err() || self.accepted.send(()).is_err() {
            return;
        }
        if let Err(error) = self.connection.await {
            tracing::debug!(%error, "the upgrade failed");
        }
        let _ = (&mut closed).await;
    }
}

/// What hyper reads and writes: its request and its answer first, then the stream.
struct Front {
    request: &'static [u8],
    /// How much of [`END`] the last bytes of the answer were.
    matched: usize,
    behind: oneshot::Receiver<Tunnel>,
    tunnel: Option<Tunnel>,
}

impl Front {
    fn poll_tunnel(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Pin<&mut Tunnel>>> {
        if self.tunnel.is_none() {
            let tunnel = ready!(Pin::new(&mut self.behind).poll(cx));
            self.tunnel = Some(tunnel.map_err(|_| io::ErrorKind::ConnectionAborted)?);
        }
        match &mut self.tunnel {
            Some(tunnel) => Poll::Ready(Ok(Pin::new(tunnel))),
            None => Poll::Pending,
        }
    }

    /// How much of `data` is still hyper's answer.
    fn skip(&mut self, data: &[u8]) -> usize {
        let mut skipped = 0;
        for byte in data {
            if self.matched == END.len() {
                break;
            }
            self.matched = if *byte == END[self.matched] {
                self.matched + 1
            } else {
                usize::from(*byte == END[0])
            };
            skipped += 1;
        }
        skipped
    }
}

impl AsyncRead for Front {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.request.is_empty() {
            let (now, later) = self.request.split_at(self.request.len().min(buf.remaining()));
            buf.put_slice(now);
            self.request = later;
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_tunnel(cx))?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Front {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let skipped = self.skip(data);
        if skipped > 0 {
            return Poll::Ready(Ok(skipped));
        }
        ready!(self.poll_tunnel(cx))?.poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Everything is on its way as soon as it is written.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.tunnel {
            Some(tunnel) => Pin::new(tunnel).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

/// The stream as bytes, which is what the payload of its DATA frames is (RFC 9220 section 3).
struct Tunnel {
    recv: RequestBody,
    /// Received, and not read yet.
    rest: Bytes,
    send: ResponseSender,
    /// Our half has ended.
    is_over: bool,
    /// Dropped with this.
    _open: oneshot::Sender<Infallible>,
}

fn failed(error: RequestError) -> io::Error {
    let kind = match error {
        RequestError::Cancelled(_) => io::ErrorKind::ConnectionReset,
        RequestError::Malformed(_) => io::ErrorKind::InvalidData,
        RequestError::Connection(_) => io::ErrorKind::ConnectionAborted,
        RequestError::Invalid(_) | RequestError::Body => io::ErrorKind::BrokenPipe,
    };
    io::Error::new(kind, error)
}

impl AsyncRead for Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.recv.poll_frame(cx)) {
                // The core lets no trailers into a tunnel.
                Some(Ok(frame)) => self.rest = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let now = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest[..now]);
        self.rest.advance(now);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_over {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let data = &data[..data.len().min(MAX_WRITE)];
        let sent = match ready!(self.send.poll_ready(cx)) {
            Ok(()) => self.send.send_now(Bytes::copy_from_slice(data)),
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            self.is_over = true;
            return Poll::Ready(Err(failed(error)));
        }
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(if std::mem::replace(&mut self.is_over, true) {
            Ok(())
        } else {
            self.send.finish().map_err(failed)
        })
    }
}

impl Drop for Tunnel {
    /// FIN, which stands for the orderly end of a TCP connection (RFC 9220 section 3), as hyper has it over TCP and HTTP/2: that
    /// something is missing shows in WebSocket's own frames.
    fn drop(&mut self) {
        if !self.is_over {
            let _ = self.send.finish();
        }
    }
}
