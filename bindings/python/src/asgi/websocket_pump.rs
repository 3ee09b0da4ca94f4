//! The task that drives one WebSocket: it answers pings whether or not the application receives, and notices the end.

use std::future::Future as _;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Sink, Stream};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Message as Frame};

use super::websocket::WebSocketExchange;

/// Instead of never.
const FAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How long the client may take to confirm the end.
const CLOSING: Duration = Duration::from_secs(10);

type Socket = WebSocketStream<Counted>;

/// Runs until the WebSocket is over.
pub(super) async fn pump(exchange: Arc<WebSocketExchange>, upgrade: OnUpgrade) {
    let max_message = exchange.site.settings.max_message;
    let end = match upgrade.await {
        Ok(upgraded) => {
            let config = WebSocketConfig::default()
                .max_message_size(Some(max_message))
                .max_frame_size(Some(max_message));
            let socket = WebSocketStream::from_raw_socket(Counted::new(upgraded), Role::Server, Some(config)).await;
            drive(&exchange, socket).await
        }
        // The client was gone before it heard of its acceptance.
        Err(_) => (1006, String::new()),
    };
    exchange.state().over(end.0, end.1);
}

/// The code and reason of the end.
async fn drive(exchange: &WebSocketExchange, mut socket: Socket) -> (u16, String) {
    let settings = &exchange.site.settings;
    let (interval, patience) = (settings.ping_interval, settings.ping_timeout);
    let after = |pause: Option<Duration>| tokio::time::Instant::now() + pause.unwrap_or(FAR).min(FAR);
    let mut timer = pin!(tokio::time::sleep_until(after(interval)));
    // Asked, and not answered yet.
    let mut is_asked = false;
    let mut is_closing = false;
    let mut end = None;
    std::future::poll_fn(|cx| {
        loop {
            // Out.
            let mut is_full = false;
            while end.is_none() {
                match Pin::new(&mut socket).poll_ready(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => end = Some(failed(error)),
                    Poll::Pending => {
                        is_full = true;
                        break;
                    }
                }
                let mut state = exchange.state();
                state.pump = Some(cx.waker().clone());
                let Some(frame) = state.take_outgoing() else { break };
                drop(state);
                if matches!(frame, Frame::Close(_)) {
                    is_closing = true;
                    timer.as_mut().reset(after(Some(CLOSING)));
                }
                if let Err(error) = Pin::new(&mut socket).start_send(frame) {
                    end = Some(failed(error));
                }
            }
            if is_full {
                exchange.state().pump = Some(cx.waker().clone());
            }
            let flushed = Pin::new(&mut socket).poll_flush(cx);
            let is_behind = flushed.is_pending();
            if let Poll::Ready(Err(error)) = flushed {
                end.get_or_insert_with(|| failed(error));
            }
            // In.
            let mut is_progress = false;
            while exchange.state().has_room() {
                match Pin::new(&mut socket).poll_next(cx) {
                    Poll::Ready(Some(Ok(frame))) => {
                        is_progress = true;
                        if !is_closing {
                            is_asked = false;
                            socket.get_mut().take_moved();
                            timer.as_mut().reset(after(interval));
                        }
                        match frame {
                            Frame::Text(_) | Frame::Binary(_) if !is_closing => exchange.state().received(frame),
                            Frame::Close(close) => {
                                end.get_or_insert_with(|| closed(close));
                            }
                            _ => {}
                        }
                    }
                    Poll::Ready(Some(Err(error))) => {
                        if let Some(close) = complaint(&error) {
                            // Where it cannot be said the connection ends without it.
                            let _ = Pin::new(&mut socket).start_send(Frame::Close(Some(close)));
                            let _ = Pin::new(&mut socket).poll_flush(cx);
                        }
                        end.get_or_insert_with(|| failed(error));
                        return Poll::Ready(());
                    }
                    Poll::Ready(None) => {
                        end.get_or_insert((1006, String::new()));
                        return Poll::Ready(());
                    }
                    Poll::Pending => break,
                }
            }
            if let Some((code, reason)) = &end {
                // The application learns it now; the rest of the farewell goes on.
                exchange.state().over(*code, reason.clone());
            }
            if timer.as_mut().poll(cx).is_ready() {
                let moved = socket.get_mut().take_moved();
                // Where this side does not read, it cannot see an answer; and pings wait behind a long message, either way.
                let is_alive = !exchange.state().has_room() || moved.read || (is_behind && moved.written);
                if is_closing || (is_asked && !is_alive) || end.is_some() {
                    end.get_or_insert((1006, String::new()));
                    return Poll::Ready(());
                }
                if is_alive {
                    is_asked = false;
                    timer.as_mut().reset(after(interval));
                    continue;
                }
                is_asked = patience.is_some();
                timer.as_mut().reset(after(patience.or(interval)));
                if let Err(error) = Pin::new(&mut socket).start_send(Frame::Ping(Bytes::new())) {
                    end.get_or_insert_with(|| failed(error));
                }
                continue;
            }
            if !is_progress {
                return Poll::Pending;
            }
        }
    })
    .await;
    end.unwrap_or((1006, String::new()))
}

/// The client's bytes, which notes that some were moved: a message may take longer than a ping may.
struct Counted {
    io: TokioIo<Upgraded>,
    moved: Moved,
}

/// What has happened since it was last asked for.
#[derive(Default)]
struct Moved {
    read: bool,
    written: bool,
}

impl Counted {
    fn new(upgraded: Upgraded) -> Self {
        Self {
            io: TokioIo::new(upgraded),
            moved: Moved::default(),
        }
    }

    fn take_moved(&mut self) -> Moved {
        std::mem::take(&mut self.moved)
    }
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, out);
        self.moved.read |= out.filled().len() > before;
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, data);
        self.moved.written |= matches!(written, Poll::Ready(Ok(1..)));
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

fn closed(close: Option<CloseFrame>) -> (u16, String) {
    close.map_or((1005, String::new()), |close| {
        (close.code.into(), close.reason.to_string())
    })
}

/// What the client did wrong, in the words of RFC 6455 section 7.4.1.
fn complaint(error: &Error) -> Option<CloseFrame> {
    let code = match error {
        Error::Utf8(_) => CloseCode::Invalid,
        Error::Capacity(CapacityError::MessageTooLong { .. }) => CloseCode::Size,
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return None,
        Error::Protocol(_) => CloseCode::Protocol,
        _ => return None,
    };
    Some(CloseFrame {
        code,
        reason: "".into(),
    })
}

fn failed(error: Error) -> (u16, String) {
    match complaint(&error) {
        Some(close) => (close.code.into(), error.to_string()),
        None => (1006, String::new()),
    }
}
