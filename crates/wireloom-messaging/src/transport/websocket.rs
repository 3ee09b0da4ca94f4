//! Messages over WebSocket (RFC 6455): each is one binary message, without sub-protocol and extensions (section 5).

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::{Sink as _, Stream as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::handshake::machine::TryParse as _;
use tokio_tungstenite::tungstenite::handshake::server::{
    ErrorResponse, Request, Response, create_response, write_response,
};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};

use super::unsent::Unsent;
use super::{Ended, HIGH_WATER, Incoming, Link, Route, Signals, TransportKind};
use crate::engine::CloseCode;

/// What is read at once, and held for as long as the connection lives.
const READ_BUFFER: usize = 4 * 1024;

/// What a peer may still send after it was told that the connection is over; it is thrown away.
const MAX_DRAINED: usize = 1 << 20;

/// What the protocol can allow a server at most (section 4.1). tungstenite's limit cannot be changed when the server's first message
/// has said which it is, so that [`Buffered`] refuses what is larger than that: before tungstenite makes room for it.
const MAX_MESSAGE: usize = u32::MAX as usize;

/// The head of a client's handshake, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// The error of a handshake.
pub use tungstenite::Error as HandshakeError;

/// Anything that bytes go through both ways.
trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// One end of a WebSocket connection. Dropping it cuts the connection off.
pub struct WebSocketLink {
    socket: WebSocketStream<Buffered>,
    limit: usize,
    closing: Closing,
    alive: Alive,
    remote: Option<SocketAddr>,
    is_client: bool,
}

/// Whether the peer has shown that it is alive.
#[derive(Clone, Copy)]
enum Alive {
    /// The count of bytes when that was last asked.
    At(u64),
    /// Nothing had come: a Ping was sent at this count.
    Pinged(u64),
}

enum Closing {
    No,
    /// The Close frame is on its way out.
    Saying,
    /// Waiting for the peer's.
    Listening,
    /// The peer broke the protocol, so that its Close cannot be found: it is let talk until it hears ours. Closing at once
    /// would reset the connection, and could take our Close with it.
    Draining(usize),
    Done,
}

fn config(limit: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        // Into our buffer at once, where ready-made frames go too.
        .write_buffer_size(0)
        .max_message_size(Some(limit))
        .max_frame_size(Some(limit))
}

/// A client's handshake that has been read and not answered: [`accept`](Self::accept) or [`refuse`](Self::refuse) it. Dropping it drops
/// the connection.
pub struct Handshake<T> {
    io: T,
    request: Request,
    response: Response,
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Handshake<T> {
    /// Reads the handshake on a fresh connection: at most 64 KiB. There is no deadline here.
    ///
    /// # Errors
    /// It is no handshake, or the connection is lost.
    pub async fn read(mut io: T) -> Result<Self, HandshakeError> {
        const END: &[u8] = b"\r\n\r\n";
        let mut head = Vec::with_capacity(1024);
        loop {
            let new = head.len().saturating_sub(END.len() - 1);
            if io.read_buf(&mut head).await? == 0 {
                return Err(ProtocolError::HandshakeIncomplete.into());
            }
            if head[new..].windows(END.len()).any(|window| window == END) {
                break;
            }
            if head.len() > MAX_HEAD {
                return Err(CapacityError::TooManyHeaders.into());
            }
        }
        let (size, request) = Request::try_parse(&head)?.ok_or(ProtocolError::HandshakeIncomplete)?;
        if size < head.len() {
            return Err(ProtocolError::JunkAfterRequest.into());
        }
        let response = create_response(&request)?;
        Ok(Self { io, request, response })
    }

    /// What the client asks for. May be taken away; the answer is known already.
    pub fn request_mut(&mut self) -> &mut Request {
        &mut self.request
    }

    /// Accepts the connection. Messages of more than `limit` bytes end it.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn accept(mut self, limit: usize) -> Result<WebSocketLink, HandshakeError> {
        let mut head = Vec::new();
        write_response(&mut head, &self.response)?;
        self.io.write_all(&head).await?;
        self.io.flush().await?;
        Ok(WebSocketLink::upgraded(self.io, limit).await)
    }

    /// Answers with another status, which closes the connection. Answers the error that this handshake ends with.
    pub async fn refuse(mut self, response: ErrorResponse) -> HandshakeError {
        let mut answer = Vec::new();
        if let Err(error) = write_response(&mut answer, &response) {
            return error;
        }
        answer.extend_from_slice(response.body().as_deref().unwrap_or_default().as_bytes());
        let written = async {
            self.io.write_all(&answer).await?;
            self.io.flush().await
        };
        match written.await {
            Ok(()) => HandshakeError::Http(response.map(|body| body.map(String::into_bytes)).into()),
            Err(error) => error.into(),
        }
    }
}

impl<T> std::fmt::Debug for Handshake<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshake")
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}

/// Does the client's handshake on a fresh connection, which is TLS already if `request` is for `wss://`. Messages of more
/// than `limit` bytes end the connection.
///
/// There is no deadline here.
///
/// # Errors
/// The server answered anything but a switch of protocols, or the connection is lost.
pub async fn connect<T, R>(io: T, request: R, limit: usize) -> Result<WebSocketLink, HandshakeError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    R: tungstenite::client::IntoClientRequest + Unpin,
{
    let io = Buffered::new(io, Frames::after_head());
    let (socket, _) = tokio_tungstenite::client_async_with_config(request, io, Some(config(MAX_MESSAGE))).await?;
    Ok(WebSocketLink::new(socket, limit, true))
}

impl WebSocketLink {
    fn new(mut socket: WebSocketStream<Buffered>, limit: usize, is_client: bool) -> Self {
        if is_client {
            socket.get_mut().limit = limit;
        }
        Self {
            socket,
            limit,
            closing: Closing::No,
            alive: Alive::At(0),
            remote: None,
            is_client,
        }
    }

    /// The server's end of a connection whose handshake somebody else has answered. Messages of more than `limit` bytes
    /// end the connection.
    pub async fn upgraded<T>(io: T, limit: usize) -> Self
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let socket =
            WebSocketStream::from_raw_socket(Buffered::new(io, Frames::default()), Role::Server, Some(config(limit)))
                .await;
        Self::new(socket, limit, false)
    }

    /// Says where the peer is.
    #[must_use]
    pub fn with_remote_address(mut self, remote: Option<SocketAddr>) -> Self {
        self.remote = remote;
        self
    }

    fn too_large(&self) -> Ended {
        Ended::violation(
            CloseCode::TooBig,
            format!("a message of more than {} bytes", self.limit),
        )
    }

    fn drain(&mut self, cx: &mut Context<'_>) -> Closing {
        // The peer hears the Close, and then the end.
        let _ = Pin::new(self.socket.get_mut()).poll_shutdown(cx);
        Closing::Draining(MAX_DRAINED)
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>, mut left: usize) -> Poll<()> {
        let mut scratch = [0; 1024];
        while left > 0 {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(self.socket.get_mut()).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => left = left.saturating_sub(buffer.filled().len()),
                Poll::Ready(_) => break,
                Poll::Pending => {
                    self.closing = Closing::Draining(left);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(())
    }
}

fn ended(error: tungstenite::Error) -> Ended {
    match error {
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => Ended::new(CloseCode::Normal, ""),
        tungstenite::Error::Capacity(error) => Ended::violation(CloseCode::TooBig, error.to_string()),
        tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) | tungstenite::Error::Io(_) => {
            Ended::lost(error)
        }
        error => Ended::violation(CloseCode::Malformed, error.to_string()),
    }
}

impl Link for WebSocketLink {
    fn poll_recv(&mut self, cx: &mut Context<'_>, want: bool) -> Poll<Result<Incoming, Ended>> {
        if !want {
            // What the peer sends waits in TCP, and its Close behind it.
            return Poll::Pending;
        }
        if self.socket.get_mut().refuses_message() {
            return Poll::Ready(Err(self.too_large()));
        }
        let message = ready!(Pin::new(&mut self.socket).poll_next(cx));
        if let Some(Ok(Message::Binary(_) | Message::Text(_))) = &message {
            self.socket.get_mut().heard += 1;
        }
        Poll::Ready(match message {
            Some(Ok(Message::Binary(bytes))) if bytes.len() > self.limit => Err(Ended::violation(
                CloseCode::TooBig,
                format!("a message of {} bytes", bytes.len()),
            )),
            Some(Ok(Message::Binary(bytes))) => Ok(Incoming::Message {
                route: Route::CONTROL,
                bytes,
            }),
            // Pings are answered by the next flush.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(Incoming::Activity),
            Some(Ok(Message::Text(_))) => Err(Ended::violation(CloseCode::NotAcceptable, "a text message")),
            Some(Ok(Message::Close(frame))) => Err(frame.map_or_else(
                || Ended::new(CloseCode::Normal, ""),
                |frame| {
                    Ended::new(
                        CloseCode::from_websocket(Some(frame.code.into())),
                        frame.reason.as_str(),
                    )
                },
            )),
            Some(Err(_)) if self.socket.get_ref().is_too_large => Err(self.too_large()),
            Some(Err(error)) => Err(ended(error)),
            None => Err(Ended::lost("the connection is closed")),
        })
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        let io = self.socket.get_mut();
        if io.out.len() < HIGH_WATER {
            return Poll::Ready(Ok(()));
        }
        io.poll_write_out(cx).map_err(Ended::lost)
    }

    fn send(&mut self, _: Route, message: Bytes) -> Result<(), Ended> {
        debug_assert!(!message.is_empty(), "an empty message kills clients of the original");
        Pin::new(&mut self.socket)
            .start_send(Message::Binary(message))
            .map_err(ended)
    }

    fn send_signals(&mut self, signals: &Signals, range: Range<usize>) -> Result<(), Ended> {
        if self.is_client || !matches!(self.closing, Closing::No) {
            // A client's frames are masked, each differently.
            let messages = signals.messages()[range].iter();
            return messages
                .cloned()
                .try_for_each(|message| self.send(Route::CONTROL, message));
        }
        // Between whole messages: what was sent before is in the buffer already, because that takes everything.
        self.socket
            .get_mut()
            .out
            .end()
            .extend_from_slice(&signals.websocket(range));
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(ended)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>, code: CloseCode, reason: &str) -> Poll<()> {
        loop {
            match self.closing {
                Closing::No => {
                    let frame = CloseFrame {
                        code: code.websocket().into(),
                        reason: cut(reason, 123).into(),
                    };
                    // Fails if the peer closed first; then its own Close is answered by the flush.
                    let _ = Pin::new(&mut self.socket).start_send(Message::Close(Some(frame)));
                    self.closing = Closing::Saying;
                }
                Closing::Saying => {
                    let said = ready!(Pin::new(&mut self.socket).poll_flush(cx));
                    // Fails once the peer has closed, and may leave the answer to that in the buffer.
                    let written = ready!(self.socket.get_mut().poll_write_out(cx));
                    self.closing = if said.is_err() || written.is_err() {
                        Closing::Done
                    } else if self.socket.get_ref().is_too_large {
                        self.drain(cx)
                    } else {
                        Closing::Listening
                    };
                }
                Closing::Listening => match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                    Some(Ok(_)) => {}
                    None | Some(Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed)) => {
                        self.closing = Closing::Done;
                    }
                    Some(Err(_)) => self.closing = self.drain(cx),
                },
                Closing::Draining(left) => {
                    ready!(self.poll_drain(cx, left));
                    self.closing = Closing::Done;
                }
                Closing::Done => return Poll::Ready(()),
            }
        }
    }

    fn set_message_limit(&mut self, limit: usize) {
        self.limit = limit;
        if self.is_client {
            self.socket.get_mut().limit = limit;
        }
    }

    fn check_alive(&mut self) -> bool {
        let read = self.socket.get_ref().read;
        self.alive = match self.alive {
            Alive::Pinged(at) if at == read => return false,
            Alive::At(at) if at == read => {
                // If it fails, that is what is received next.
                let _ = Pin::new(&mut self.socket).start_send(Message::Ping(Bytes::new()));
                Alive::Pinged(read)
            }
            _ => Alive::At(read),
        };
        true
    }

    fn taken(&self) -> u64 {
        self.socket.get_ref().out.taken()
    }

    fn is_receiving(&self) -> bool {
        self.socket.get_ref().frames.is_in_message()
    }

    fn remote_address(&self) -> Option<SocketAddr> {
        self.remote
    }

    fn kind(&self) -> TransportKind {
        TransportKind::WebSocket
    }
}

impl std::fmt::Debug for WebSocketLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebSocketLink")
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}

/// At most `max` bytes of `text`, at a character boundary.
pub(super) fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Follows the frames that are read (RFC 6455 section 5.2), so that a message that has come in part is noticed: a Ping may be between
/// its frames, and one that has come in part is no message.
#[derive(Default)]
struct Frames {
    /// Of the frame that has begun.
    header: [u8; 14],
    header_len: usize,
    /// What is missing of its payload.
    missing: u64,
    /// A message has had frames, and not its last.
    unfinished: bool,
    /// Bytes of the last message, as its frames have announced them so far.
    announced: u64,
    /// How many messages were whole.
    whole: u64,
    /// How much has come of what ends the handshake's head, with which frames may come: CR LF CR LF.
    head: Option<usize>,
}

impl Frames {
    /// The other's half of the handshake comes first.
    fn after_head() -> Self {
        Self {
            head: Some(0),
            ..Self::default()
        }
    }

    fn follow(&mut self, mut bytes: &[u8]) {
        while let Some(ending) = &mut self.head {
            let [first, rest @ ..] = bytes else { return };
            bytes = rest;
            *ending = match (*ending, first) {
                (0 | 2, b'\r') | (1, b'\n') => *ending + 1,
                (3, b'\n') => {
                    self.head = None;
                    break;
                }
                (_, b'\r') => 1,
                _ => 0,
            };
        }
        loop {
            let skipped = bytes.len().min(usize::try_from(self.missing).unwrap_or(usize::MAX));
            self.missing -= skipped as u64;
            bytes = &bytes[skipped..];
            if skipped > 0 {
                self.note_whole();
            }
            let [first, rest @ ..] = bytes else { return };
            if self.is_header_whole() {
                self.header_len = 0;
            }
            self.header[self.header_len] = *first;
            self.header_len += 1;
            bytes = rest;
            if self.is_header_whole() {
                self.missing = match self.header[1] & 0x7f {
                    126 => u64::from(u16::from_be_bytes([self.header[2], self.header[3]])),
                    127 => self.header[2..10]
                        .iter()
                        .fold(0, |len, byte| len << 8 | u64::from(*byte)),
                    len => u64::from(len),
                };
                if self.is_data() {
                    let before = if self.unfinished { self.announced } else { 0 };
                    self.announced = before.saturating_add(self.missing);
                    self.unfinished = self.header[0] & 0x80 == 0;
                }
                self.note_whole();
            }
        }
    }

    /// After the frame's header or a part of its payload.
    fn note_whole(&mut self) {
        self.whole += u64::from(self.missing == 0 && self.is_data() && !self.unfinished);
    }

    fn exceeds(&self, limit: usize) -> bool {
        self.is_in_message() && usize::try_from(self.announced).map_or(true, |announced| announced > limit)
    }

    fn is_header_whole(&self) -> bool {
        let extended = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if self.header[1] & 0x80 == 0 { 0 } else { 4 };
        self.header_len >= 2 && self.header_len == 2 + extended + mask
    }

    /// Not a Close, Ping or Pong.
    fn is_data(&self) -> bool {
        self.header[0] & 0x08 == 0
    }

    fn is_in_message(&self) -> bool {
        let in_frame = self.header_len > 0 && (!self.is_header_whole() || self.missing > 0);
        self.unfinished || (in_frame && self.is_data())
    }
}

/// Takes everything that is written, and writes it when it is flushed; [`WebSocketLink::poll_ready`] bounds it. Counts what is
/// read.
struct Buffered {
    io: Box<dyn Io>,
    read: u64,
    frames: Frames,
    /// How many whole messages were taken.
    heard: u64,
    /// Bytes of a message, where tungstenite's own limit is another.
    limit: usize,
    /// Within a message that is larger: what follows it cannot be found.
    is_too_large: bool,
    out: Unsent,
}

impl Buffered {
    fn new(io: impl Io + 'static, frames: Frames) -> Self {
        Self {
            io: Box::new(io),
            read: 0,
            frames,
            heard: 0,
            limit: usize::MAX,
            is_too_large: false,
            out: Unsent::default(),
        }
    }

    /// Looks whether the message that is being read is too large, unless one is still to be heard that may set another limit.
    fn refuses_message(&mut self) -> bool {
        self.is_too_large |= self.frames.whole == self.heard && self.frames.exceeds(self.limit);
        self.is_too_large
    }

    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.out.poll_write(cx, &mut self.io)
    }
}

impl AsyncRead for Buffered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, out))?;
        let new = &out.filled()[before..];
        self.read += new.len() as u64;
        if !self.is_too_large {
            self.frames.follow(new);
            if self.refuses_message() {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Buffered {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.out.end().extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_out(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Whoever shuts down has flushed what the peer is to hear, as far as it took it.
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, len: usize) -> Vec<u8> {
        let mut frame = vec![first];
        match len {
            0..126 => frame.push(0x80 | len as u8),
            126..0x1_0000 => {
                frame.push(0x80 | 126);
                frame.extend((len as u16).to_be_bytes());
            }
            _ => {
                frame.push(0x80 | 127);
                frame.extend((len as u64).to_be_bytes());
            }
        }
        // The mask, and a payload that looks like frames.
        frame.extend([0x82; 4]);
        frame.extend(std::iter::repeat_n(0x02, len));
        frame
    }

    /// First byte, length, and whether a message has begun behind it that is not whole.
    const FRAMES: [(u8, usize, bool); 8] = [
        (0x82, 1, false),
        (0x89, 3, false),
        (0x02, 126, true),
        (0x8a, 0, true),
        (0x00, 0x1_0000, true),
        (0x80, 0, false),
        (0x82, 0xffff, false),
        (0x88, 2, false),
    ];

    #[test]
    fn a_message_in_parts_is_noticed() {
        for chunk in [1, 7, usize::MAX] {
            let (mut frames, mut unfinished) = (Frames::default(), false);
            for (first, len, behind) in FRAMES {
                let bytes = frame(first, len);
                let mut left = bytes.len();
                for part in bytes.chunks(chunk) {
                    frames.follow(part);
                    left -= part.len();
                    let expected = if left == 0 {
                        behind
                    } else {
                        unfinished || first & 0x08 == 0
                    };
                    assert_eq!(
                        frames.is_in_message(),
                        expected,
                        "{left} bytes before the end of {first:#x}"
                    );
                }
                unfinished = behind;
            }
        }
        // All at once.
        let mut frames = Frames::default();
        let all: Vec<u8> = FRAMES.iter().flat_map(|(first, len, _)| frame(*first, *len)).collect();
        frames.follow(&all[..all.len() - 1]);
        assert!(!frames.is_in_message(), "a Close");
        frames.follow(&all[all.len() - 1..]);
        frames.follow(&[0x82]);
        assert!(frames.is_in_message());
    }
}
