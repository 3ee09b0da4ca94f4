//! A connection's shared state and the queue by which application tasks ask the endpoint to drive it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use super::endpoint::Command;
use super::inbox::Message;
use super::routing::Received;
use super::{Application, Transport};
use crate::wake::WakeList;

/// One connection: QUIC and what runs on it, behind one lock that the endpoint task and application tasks share.
pub(crate) struct Slot<A> {
    state: Mutex<SlotState<A>>,
    /// Whether the slot is in the ready queue already: a burst of writes wakes the endpoint once.
    queued: AtomicBool,
    queue: Arc<ReadyQueue<A>>,
}

pub(crate) struct SlotState<A> {
    pub(crate) quic: Transport,
    pub(crate) app: A,
}

impl<A: Application> Slot<A> {
    pub(super) fn new(quic: Transport, app: A, queue: Arc<ReadyQueue<A>>) -> Self {
        Self {
            state: Mutex::new(SlotState { quic, app }),
            queued: AtomicBool::new(false),
            queue,
        }
    }

    /// A panic under the lock would have been ours; the state is still the best there is.
    pub(crate) fn lock(&self) -> MutexGuard<'_, SlotState<A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `f` under the lock, then wakes whom it woke and, if it left QUIC something to send, has the endpoint send it.
    pub(crate) fn with<T>(self: &Arc<Self>, f: impl FnOnce(&mut Transport, &mut A, &mut WakeList) -> T) -> T {
        let mut wakes = WakeList::new();
        let (out, transmit) = {
            let mut guard = self.lock();
            let SlotState { quic, app } = &mut *guard;
            let out = f(quic, app, &mut wakes);
            (out, quic.take_pending())
        };
        wakes.wake();
        if transmit {
            self.schedule();
        }
        out
    }

    /// Has the endpoint drive this connection.
    fn schedule(self: &Arc<Self>) {
        // Read first, which is cheaper. Who reads `true` here changed the connection under a lock that the endpoint has not
        // taken yet: it takes it after `unqueue`.
        if !self.queued.load(Ordering::Acquire) && !self.queued.swap(true, Ordering::AcqRel) {
            self.queue.push(self.clone());
        }
    }

    pub(super) fn unqueue(&self) {
        self.queued.store(false, Ordering::Release);
    }
}

/// Bytes of datagrams that may wait in being handed over.
const HANDED_OVER: usize = 1 << 20;

/// What others have for the endpoint task: application tasks, and the tasks of the port's other sockets.
pub(crate) struct ReadyQueue<A> {
    inner: Mutex<ReadyInner<A>>,
}

struct ReadyInner<A> {
    ready: Vec<Arc<Slot<A>>>,
    commands: VecDeque<Command<A>>,
    /// Datagrams of this endpoint's connections that reached another socket of the port, and their bytes.
    handed_over: Vec<Received>,
    handed_bytes: usize,
    waker: Option<Waker>,
    /// The endpoint task is gone.
    closed: bool,
}

impl<A> ReadyQueue<A> {
    pub(super) fn new() -> Self {
        Self {
            inner: Mutex::new(ReadyInner {
                ready: Vec::new(),
                commands: VecDeque::new(),
                handed_over: Vec::new(),
                handed_bytes: 0,
                waker: None,
                closed: false,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, ReadyInner<A>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds something, and wakes the task if that waits.
    fn add<T>(&self, add: impl FnOnce(&mut ReadyInner<A>) -> T) -> T {
        let (out, waker) = {
            let mut inner = self.lock();
            (add(&mut inner), inner.waker.take())
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        out
    }

    fn push(&self, slot: Arc<Slot<A>>) {
        self.add(|inner| {
            if !inner.closed {
                inner.ready.push(slot);
            }
        });
    }

    /// `Err` gives the command back where the endpoint is gone.
    pub(super) fn command(&self, command: Command<A>) -> Result<(), Command<A>> {
        self.add(|inner| {
            if inner.closed {
                return Err(command);
            }
            inner.commands.push_back(command);
            Ok(())
        })
    }

    /// Gives a datagram to the endpoint that has its connection; it is lost if too many wait.
    pub(super) fn hand_over(&self, datagram: Received) {
        self.add(|inner| {
            let bytes = inner.handed_bytes + datagram.len() + size_of::<Received>();
            if !inner.closed && bytes <= HANDED_OVER {
                inner.handed_bytes = bytes;
                inner.handed_over.push(datagram);
            }
        });
    }

    /// Takes all that there is into `ready` and `handed_over` (which are empty), and the commands; registers for the next.
    pub(super) fn take(
        &self,
        waker: &Waker,
        ready: &mut Vec<Arc<Slot<A>>>,
        handed_over: &mut Vec<Received>,
    ) -> VecDeque<Command<A>> {
        let mut inner = self.lock();
        std::mem::swap(&mut inner.ready, ready);
        std::mem::swap(&mut inner.handed_over, handed_over);
        inner.handed_bytes = 0;
        match &inner.waker {
            Some(old) if old.will_wake(waker) => {}
            _ => inner.waker = Some(waker.clone()),
        }
        std::mem::take(&mut inner.commands)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.ready.clear();
        inner.handed_over.clear();
        inner.waker = None;
        let commands = std::mem::take(&mut inner.commands);
        drop(inner);
        drop(commands);
    }
}
