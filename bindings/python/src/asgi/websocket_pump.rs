//! The task that drives one WebSocket: it answers pings whether or not the application receives, and notices the end.

use std::future::Future as _;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::{Sink, Stream};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Message as Frame};

use super::websocket::WebSocketExchange;

/// How often a silent client is asked whether it is still there, and how long its answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// How long the client may take to confirm the end.
const CLOSING: Duration = Duration::from_secs(10);

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// Runs until the WebSocket is over.
pub(super) async fn pump(exchange: Arc<WebSocketExchange>, upgrade: OnUpgrade, max_message: usize) {
    let end = match upgrade.await {
        Ok(upgraded) => {
            let config = WebSocketConfig::default()
                .max_message_size(Some(max_message))
                .max_frame_size(Some(max_message));
            let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
            drive(&exchange, socket).await
        }
        // The client was gone before it heard of its acceptance.
        Err(_) => (1006, String::new()),
    };
    exchange.state().over(end.0, end.1);
}

/// The code and reason of the end.
async fn drive(exchange: &WebSocketExchange, mut socket: Socket) -> (u16, String) {
    let mut timer = pin!(tokio::time::sleep(KEEP_ALIVE));
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
                    timer.as_mut().reset(tokio::time::Instant::now() + CLOSING);
                }
                if let Err(error) = Pin::new(&mut socket).start_send(frame) {
                    end = Some(failed(error));
                }
            }
            if is_full {
                exchange.state().pump = Some(cx.waker().clone());
            }
            if let Poll::Ready(Err(error)) = Pin::new(&mut socket).poll_flush(cx) {
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
                            timer.as_mut().reset(tokio::time::Instant::now() + KEEP_ALIVE);
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
                if is_closing || is_asked || end.is_some() {
                    end.get_or_insert((1006, String::new()));
                    return Poll::Ready(());
                }
                is_asked = true;
                timer.as_mut().reset(tokio::time::Instant::now() + KEEP_ALIVE);
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
