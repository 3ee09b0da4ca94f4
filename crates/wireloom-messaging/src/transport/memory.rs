//! Two ends within one process: for tests, and for services that talk to themselves.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::{Ended, HIGH_WATER, Incoming, Link, Route, TransportKind};
use crate::engine::CloseCode;

/// Two ends of one connection. Each buffers up to 64 KiB, and one message more, that the other has not taken.
pub fn pair() -> (MemoryLink, MemoryLink) {
    let (a, b) = (Arc::<Mutex<Pipe>>::default(), Arc::<Mutex<Pipe>>::default());
    let first = MemoryLink {
        incoming: a.clone(),
        outgoing: b.clone(),
        limit: usize::MAX,
    };
    let second = MemoryLink {
        incoming: b,
        outgoing: a,
        limit: usize::MAX,
    };
    (first, second)
}

/// One direction.
#[derive(Debug, Default)]
struct Pipe {
    queue: VecDeque<Bytes>,
    bytes: usize,
    /// How many bytes the reader has taken.
    taken: u64,
    /// Why nothing more will come.
    ended: Option<Ended>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn end(&mut self, why: Ended) {
        self.ended.get_or_insert(why);
        self.wake();
    }

    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

/// One end of a connection within the process. Dropping it looks to the other end like a lost connection.
#[derive(Debug)]
pub struct MemoryLink {
    incoming: Arc<Mutex<Pipe>>,
    outgoing: Arc<Mutex<Pipe>>,
    limit: usize,
}

fn lock(pipe: &Mutex<Pipe>) -> MutexGuard<'_, Pipe> {
    pipe.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link for MemoryLink {
    fn poll_recv(&mut self, cx: &mut Context<'_>, want: bool) -> Poll<Result<Incoming, Ended>> {
        let mut pipe = lock(&self.incoming);
        if want && let Some(bytes) = pipe.queue.pop_front() {
            pipe.bytes -= bytes.len();
            pipe.taken += bytes.len() as u64;
            if pipe.bytes < HIGH_WATER
                && let Some(writer) = pipe.writer.take()
            {
                writer.wake();
            }
            if bytes.len() > self.limit {
                let reason = format!("a message of {} bytes", bytes.len());
                return Poll::Ready(Err(Ended::violation(CloseCode::TooBig, reason)));
            }
            return Poll::Ready(Ok(Incoming::Message {
                route: Route::CONTROL,
                bytes,
            }));
        }
        // What was sent before the end is read first, unless the end was a loss: then nobody waits for answers.
        if let Some(ended) = &pipe.ended
            && (pipe.queue.is_empty() || ended.code == CloseCode::Lost)
        {
            return Poll::Ready(Err(ended.clone()));
        }
        pipe.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        let mut pipe = lock(&self.outgoing);
        if let Some(ended) = &pipe.ended {
            return Poll::Ready(Err(ended.clone()));
        }
        if pipe.bytes < HIGH_WATER {
            return Poll::Ready(Ok(()));
        }
        pipe.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    fn send(&mut self, _: Route, message: Bytes) -> Result<(), Ended> {
        let mut pipe = lock(&self.outgoing);
        if let Some(ended) = &pipe.ended {
            return Err(ended.clone());
        }
        pipe.bytes += message.len();
        pipe.queue.push_back(message);
        if let Some(reader) = pipe.reader.take() {
            reader.wake();
        }
        Ok(())
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        Poll::Ready(lock(&self.outgoing).ended.clone().map_or(Ok(()), Err))
    }

    fn poll_close(&mut self, _: &mut Context<'_>, code: CloseCode, reason: &str) -> Poll<()> {
        lock(&self.outgoing).end(Ended::new(code, reason));
        lock(&self.incoming).end(Ended::new(code, reason));
        Poll::Ready(())
    }

    fn set_message_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    fn taken(&self) -> u64 {
        lock(&self.outgoing).taken
    }

    fn kind(&self) -> TransportKind {
        TransportKind::Memory
    }
}

impl Drop for MemoryLink {
    fn drop(&mut self) {
        lock(&self.outgoing).end(Ended::lost("the other end was dropped"));
        lock(&self.incoming).end(Ended::lost("this end was dropped"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{close, recv, send};

    fn message(bytes: Bytes) -> Incoming {
        Incoming::Message {
            route: Route::CONTROL,
            bytes,
        }
    }

    #[tokio::test]
    async fn messages_arrive_before_the_end() {
        let (mut a, mut b) = pair();
        send(&mut a, Bytes::from_static(b"one")).await.expect("room");
        close(&mut a, CloseCode::Shutdown, "bye").await;
        assert_eq!(recv(&mut b).await, Ok(message(Bytes::from_static(b"one"))));
        assert_eq!(recv(&mut b).await, Err(Ended::new(CloseCode::Shutdown, "bye")));
        assert!(send(&mut b, Bytes::from_static(b"late")).await.is_err());
    }

    #[tokio::test]
    async fn a_full_pipe_waits_for_its_reader() {
        let (mut a, mut b) = pair();
        let big = Bytes::from(vec![7; HIGH_WATER]);
        send(&mut a, big.clone()).await.expect("room");
        let blocked = tokio::spawn(async move {
            send(&mut a, Bytes::from_static(b"second")).await.expect("room again");
            a
        });
        tokio::task::yield_now().await;
        assert!(!blocked.is_finished(), "there is no room");
        assert_eq!(recv(&mut b).await, Ok(message(big)));
        let a = blocked.await.expect("no panic");
        assert_eq!(recv(&mut b).await, Ok(message(Bytes::from_static(b"second"))));
        drop(a);
        assert_eq!(recv(&mut b).await.expect_err("gone").code, CloseCode::Lost);
    }

    #[tokio::test]
    async fn a_message_above_the_limit_is_a_violation() {
        let (mut a, mut b) = pair();
        b.set_message_limit(4);
        send(&mut a, Bytes::from_static(b"four")).await.expect("room");
        send(&mut a, Bytes::from_static(b"five!")).await.expect("room");
        assert!(recv(&mut b).await.is_ok());
        let ended = recv(&mut b).await.expect_err("too big");
        assert_eq!((ended.code, ended.violation), (CloseCode::TooBig, true));
    }
}
