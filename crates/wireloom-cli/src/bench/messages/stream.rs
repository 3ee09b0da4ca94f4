//! Requests over one stream of bytes: a WebSocket, or the control stream of a WebTransport session (profile S).

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use wireloom_messaging::codec::{Message, Name, Payload, RequestId, kind};

use super::framing::{Framing, Next};
use super::meter::{Meter, Schedule};
use super::{Error, Load};

/// A connection that the server has accepted.
pub(super) struct Connection<T> {
    io: T,
    framing: Framing,
    received: BytesMut,
    /// The server leaves who is silent for as long; zero if it never does.
    read_timeout: Duration,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Connection<T> {
    /// Waits for the server's first message. `received` is what was read too much.
    pub(super) async fn accepted(io: T, framing: Framing, received: BytesMut) -> Result<Self, Error> {
        let mut this = Self {
            io,
            framing,
            received,
            read_timeout: Duration::ZERO,
        };
        loop {
            match this.framing.next(&this.received)? {
                Next::Message(range) => {
                    let first = Message::decode(&this.received[range.clone()])?;
                    let Message::AcceptConf(conf) = first else {
                        return Err("the server's first message is no AcceptConf".into());
                    };
                    this.read_timeout = Duration::from_millis(conf.read_timeout_ms.into());
                    this.received.advance(range.end);
                    return Ok(this);
                }
                Next::Incomplete => this.read().await?,
                _ => return Err("the server's first frame is no message".into()),
            }
        }
    }

    async fn read(&mut self) -> Result<(), Error> {
        match self.io.read_buf(&mut self.received).await? {
            0 => Err("the server closed the connection".into()),
            _ => Ok(()),
        }
    }

    /// Does nothing but stay connected, until something fails.
    pub(super) async fn hold(mut self) -> Result<(), Error> {
        let mut out = Vec::new();
        let may_be_silent = self.read_timeout.is_zero();
        // An interval of zero cannot be.
        let mut beat = tokio::time::interval(self.read_timeout.max(Duration::from_secs(1)) / 2);
        beat.tick().await;
        loop {
            tokio::select! {
                read = self.read() => read?,
                _ = beat.tick(), if !may_be_silent => self.framing.push(&[kind::HEARTBEAT], &mut out),
            }
            self.take(&mut out, |_| Ok(()))?;
            self.write(&mut out).await?;
        }
    }

    async fn write(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        if !out.is_empty() {
            self.io.write_all(out).await?;
            self.io.flush().await?;
            out.clear();
        }
        Ok(())
    }

    /// Sends requests and counts their replies, until something fails.
    pub(super) async fn run(mut self, load: &Load, mut schedule: Schedule, meter: Rc<Meter>) -> Result<(), Error> {
        let mut started = vec![Instant::now(); load.in_flight];
        let mut free: Vec<usize> = (0..load.in_flight).collect();
        let (mut message, mut out) = (Vec::new(), Vec::new());
        loop {
            let now = Instant::now();
            while !free.is_empty()
                && let Some(due) = schedule.take(now)
                && let Some(slot) = free.pop()
            {
                started[slot] = due;
                message.clear();
                encode(slot, load, &mut message)?;
                self.framing.push(&message, &mut out);
            }
            self.write(&mut out).await?;
            if schedule.interval.is_some() && !free.is_empty() {
                tokio::select! {
                    read = self.read() => read?,
                    () = tokio::time::sleep_until(schedule.next.into()) => continue,
                }
            } else {
                self.read().await?;
            }
            let now = Instant::now();
            self.take(&mut out, |message| {
                let (slot, is_error) = read_reply(message)?;
                let started = started.get(slot).ok_or("a reply to no request")?;
                meter.reply(*started, now, is_error);
                free.push(slot);
                Ok(())
            })?;
        }
    }

    /// What was read so far: messages are given away, pings answered.
    fn take(&mut self, out: &mut Vec<u8>, mut message: impl FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
        let mut taken = 0;
        loop {
            let rest = &self.received[taken..];
            match self.framing.next(rest)? {
                Next::Message(range) => {
                    message(&rest[range.clone()])?;
                    taken += range.end;
                }
                Next::Ping(range) => {
                    self.framing.push_pong(&rest[range.clone()], out);
                    taken += range.end;
                }
                Next::Skip(length) => taken += length,
                Next::Incomplete => break,
            }
        }
        self.received.advance(taken);
        Ok(())
    }
}

/// Appends the request of a slot.
pub(super) fn encode(slot: usize, load: &Load, out: &mut Vec<u8>) -> Result<(), Error> {
    let request = Message::Request {
        id: RequestId::from_u64(slot as u64),
        name: Name::new(&load.request)?,
        payload: Payload::binary(&load.payload),
    };
    Ok(request.encode(out)?)
}

/// Which slot a reply is for, and whether it says that the request failed.
pub(super) fn read_reply(message: &[u8]) -> Result<(usize, bool), Error> {
    let message = Message::decode(message)?;
    let id = message.id().ok_or("the server sent something else than a reply")?;
    let slot = usize::try_from(id.to_u64())?;
    Ok((slot, !matches!(message, Message::Reply { .. })))
}
