//! Profile M: a stream for each request, streams and datagrams for signals.

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use wireloom::{RecvStream, SendStream, Session, SessionError};

use super::framing::{Unframer, put, read_single, write_single};
use super::{CANCELLED, ended};
use crate::codec::{Message, RequestId, kind};
use crate::engine::CloseCode;
use crate::transport::{Delivery, Ended, Incoming, Route};

/// Streams from the peer that are read at once. Those beyond wait in QUIC, whose own limits bound them.
const MAX_READING: usize = 32;

/// How long a request or signal may take to arrive on its stream.
const READ_DEADLINE: Duration = Duration::from_secs(60);

/// Requests, or replies, that wait until their streams take them. Beyond, the link is not ready.
const MAX_WRITING: usize = 64;

/// Bytes of a reply that are written at once, so that one that is taken slowly is seen to be taken.
const PIECE: usize = 16 * 1024;

/// Unordered signals that wait for a stream of their own; those beyond go the ordered way.
const MAX_SENDING: usize = 256;

type Task = Pin<Box<dyn Future<Output = Event> + Send>>;

enum Event {
    /// Nothing to tell.
    Done,
    /// The same, of a stream that was being read.
    ReadFailed(Option<Ended>),
    /// Server: the peer opened a stream.
    Stream(Result<(SendStream, RecvStream), SessionError>),
    UniStream(Result<RecvStream, SessionError>),
    Datagram(Result<Bytes, SessionError>),
    /// Server: a request, and where its reply goes.
    Request(Bytes, SendStream),
    Signal(Bytes),
    /// Server: the client gave the request up.
    Cancelled(Route),
    /// Server: the last of a request's answers is written, or cannot be.
    Answered(Route),
    /// Client: a request is on its way.
    Asked(RequestId, Box<Exchange>),
    /// Client: a request that could not be sent, or was given up before.
    Unasked(RequestId, u64),
    /// Client: a message on a request's stream, or its end.
    Answer(RequestId, Box<Exchange>, Result<Option<Bytes>, Ended>),
    Sent,
}

/// Client: a request whose reply is awaited.
struct Exchange {
    number: u64,
    recv: RecvStream,
    unframer: Unframer,
    /// The reply was there: only the end is missing.
    replied: bool,
    cancel: oneshot::Receiver<()>,
}

pub(super) struct Multi {
    session: Session,
    tasks: FuturesUnordered<Task>,
    /// What arrived while something was written. While there is much of it the link is not ready, so that it does not grow.
    arrived: VecDeque<Event>,
    limit: usize,
    is_client: bool,
    /// Whether a stream, signal stream or datagram is waited for.
    accepting: [bool; 3],
    reading: usize,
    sending: usize,
    /// Client: requests that are not written yet.
    asking: usize,
    /// Server: whose replies are not written yet.
    answering: HashSet<Route>,
    /// Server: bytes of answers that the client's streams have taken.
    answered: Arc<AtomicU64>,
    last_route: u64,
    /// Server: where answers go.
    answers: HashMap<Route, mpsc::UnboundedSender<Bytes>>,
    /// Client: how requests are given up.
    requests: HashMap<RequestId, (u64, oneshot::Sender<()>)>,
    last_request: u64,
    /// Datagrams that were dropped because they are no signal.
    dropped: u64,
}

impl Multi {
    pub(super) fn new(session: Session, is_client: bool, limit: usize) -> Self {
        Self {
            session,
            tasks: FuturesUnordered::new(),
            arrived: VecDeque::new(),
            limit,
            is_client,
            accepting: [false; 3],
            reading: 0,
            sending: 0,
            asking: 0,
            answering: HashSet::new(),
            answered: Arc::default(),
            last_route: 0,
            answers: HashMap::new(),
            requests: HashMap::new(),
            last_request: 0,
            dropped: 0,
        }
    }

    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    fn spawn(&self, task: impl Future<Output = Event> + Send + 'static) {
        self.tasks.push(Box::pin(task));
    }

    /// Waits for what the peer may open next, as far as it is wanted.
    fn accept(&mut self) {
        let [stream, uni, datagram] = &mut self.accepting;
        let room = self.reading < MAX_READING;
        if room && !self.is_client && !*stream {
            *stream = true;
            let session = self.session.clone();
            self.tasks
                .push(Box::pin(async move { Event::Stream(session.accept_bi().await) }));
        }
        if room && !*uni {
            *uni = true;
            let session = self.session.clone();
            self.tasks
                .push(Box::pin(async move { Event::UniStream(session.accept_uni().await) }));
        }
        if !*datagram {
            *datagram = true;
            let session = self.session.clone();
            self.tasks
                .push(Box::pin(async move { Event::Datagram(session.recv_datagram().await) }));
        }
    }

    pub(super) fn poll_recv(&mut self, cx: &mut Context<'_>, want: bool) -> Poll<Result<Incoming, Ended>> {
        loop {
            if want {
                self.accept();
            }
            let event = match self.arrived.pop_front() {
                Some(event) => event,
                None => match self.tasks.poll_next_unpin(cx) {
                    Poll::Ready(Some(event)) => event,
                    _ => return Poll::Pending,
                },
            };
            if let Some(incoming) = self.handle(event) {
                return Poll::Ready(incoming);
            }
        }
    }

    fn handle(&mut self, event: Event) -> Option<Result<Incoming, Ended>> {
        let control = |bytes| {
            let route = Route::CONTROL;
            Some(Ok(Incoming::Message { route, bytes }))
        };
        match event {
            Event::Done => None,
            Event::Sent => {
                self.sending -= 1;
                None
            }
            Event::ReadFailed(why) => {
                self.reading -= 1;
                why.map(Err)
            }
            Event::Stream(stream) => {
                self.accepting[0] = false;
                match stream {
                    Ok((send, recv)) => {
                        self.reading += 1;
                        self.spawn(read_request(send, recv, self.limit));
                        None
                    }
                    Err(error) => Some(Err(ended(&error))),
                }
            }
            Event::UniStream(stream) => {
                self.accepting[1] = false;
                match stream {
                    Ok(recv) => {
                        self.reading += 1;
                        self.spawn(read_signal(recv, self.limit));
                        None
                    }
                    Err(error) => Some(Err(ended(&error))),
                }
            }
            Event::Datagram(datagram) => {
                self.accepting[2] = false;
                match datagram {
                    Ok(bytes) if bytes.len() <= self.limit && is_datagram(&bytes) => control(bytes),
                    Ok(_) => {
                        self.dropped += 1;
                        None
                    }
                    Err(error) => Some(Err(ended(&error))),
                }
            }
            Event::Request(bytes, send) => {
                self.reading -= 1;
                self.last_route += 1;
                let route = Route::own(self.last_route);
                let (answers, outbox) = mpsc::unbounded_channel();
                self.answers.insert(route, answers);
                self.spawn(write_answers(route, send, outbox, self.answered.clone()));
                Some(Ok(Incoming::Message { route, bytes }))
            }
            Event::Signal(bytes) => {
                self.reading -= 1;
                control(bytes)
            }
            Event::Cancelled(route) => {
                // Its reply may be under way, or nobody be left who would give one.
                self.answering.remove(&route);
                let open = self.answers.remove(&route).is_some();
                open.then_some(Ok(Incoming::Cancelled(route)))
            }
            Event::Answered(route) => {
                self.answering.remove(&route);
                None
            }
            Event::Asked(id, exchange) => {
                self.asking -= 1;
                self.spawn(read_answer(id, exchange, self.limit));
                None
            }
            Event::Unasked(id, number) => {
                self.asking -= 1;
                self.unanswered(id, number)
            }
            Event::Answer(id, mut exchange, Ok(Some(bytes))) => {
                exchange.replied |= is_reply(&bytes);
                self.spawn(read_answer(id, exchange, self.limit));
                control(bytes)
            }
            Event::Answer(_, _, Err(why)) if why.violation => Some(Err(why)),
            Event::Answer(id, exchange, _) if exchange.replied => {
                self.forget(id, exchange.number);
                None
            }
            Event::Answer(id, exchange, _) => self.unanswered(id, exchange.number),
        }
    }

    /// Server: queues a message on the stream of a request; a reply ends it. Gives the message back if the stream is gone
    /// and the message is still worth sending.
    pub(super) fn answer(&mut self, route: Route, message: Bytes) -> Option<Bytes> {
        let is_reply = is_reply(&message);
        let lost = match self.answers.get(&route) {
            // The task may be gone: the client gave up.
            Some(answers) => answers.send(message).err().map(|error| error.0),
            None => Some(message),
        };
        if is_reply && self.answers.remove(&route).is_some() {
            self.answering.insert(route);
        }
        lost.filter(|_| !is_reply)
    }

    /// Client: sends a request on a stream of its own.
    pub(super) fn request(&mut self, message: Bytes) {
        let Some(id) = message.get(1..9).and_then(|id| id.try_into().ok()).map(RequestId) else {
            return;
        };
        let (give_up, cancel) = oneshot::channel();
        self.last_request += 1;
        self.asking += 1;
        self.requests.insert(id, (self.last_request, give_up));
        let ask = ask(self.session.clone(), id, self.last_request, message, cancel);
        self.spawn(ask);
    }

    /// Client: gives a request up.
    pub(super) fn cancel(&mut self, id: RequestId) {
        if let Some((_, give_up)) = self.requests.remove(&id) {
            let _ = give_up.send(());
        }
    }

    /// A request is over. There may be a younger one of the same identifier. Answers whether it was waited for.
    fn forget(&mut self, id: RequestId, number: u64) -> bool {
        let waited = self.requests.get(&id).is_some_and(|(of, _)| *of == number);
        if waited {
            self.requests.remove(&id);
        }
        waited
    }

    /// Client: no reply comes any more. If the session is over the link says so, and why.
    fn unanswered(&mut self, id: RequestId, number: u64) -> Option<Result<Incoming, Ended>> {
        let tell = self.forget(id, number) && self.session.close_reason().is_none();
        tell.then_some(Ok(Incoming::Cancelled(Route::of(id))))
    }

    /// Whether the peer has taken enough for one more message on a stream of its own, and this end what has arrived.
    pub(super) fn has_room(&self) -> bool {
        self.asking < MAX_WRITING && self.answering.len() < MAX_WRITING && self.arrived.len() < MAX_WRITING
    }

    pub(super) fn taken(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Client: whether replies are awaited.
    pub(super) fn has_requests(&self) -> bool {
        !self.requests.is_empty()
    }

    /// Sends a signal beside the control stream; `false` if there is no way.
    pub(super) fn signal(&mut self, message: &Bytes, delivery: Delivery) -> bool {
        if delivery == Delivery::Unreliable && self.session.send_datagram(message).is_ok() {
            return true;
        }
        if self.sending >= MAX_SENDING {
            return false;
        }
        self.sending += 1;
        let (session, message) = (self.session.clone(), message.clone());
        self.spawn(async move {
            if let Ok(mut stream) = session.open_uni().await {
                // After everything else (appendix A.3).
                stream.set_priority(-1);
                let _ = write_single(&mut stream, &message).await;
            }
            Event::Sent
        });
        true
    }

    /// Lets what is being written go on; what arrives meanwhile is kept for `poll_recv`.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(event)) = self.tasks.poll_next_unpin(cx) {
            match event {
                Event::Done => {}
                Event::Sent => self.sending -= 1,
                Event::Answered(_) | Event::Asked(..) => drop(self.handle(event)),
                event => {
                    self.arrived.push_back(event);
                    cx.waker().wake_by_ref();
                }
            }
        }
    }

    /// Waits until all answers and signals are written; what arrives meanwhile is dropped.
    pub(super) fn poll_answered(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Handlers are done, and what was not handled is not answered.
        self.answers.clear();
        while !self.answering.is_empty() || self.sending > 0 {
            let event = match self.arrived.pop_front() {
                Some(event) => event,
                None => match self.tasks.poll_next_unpin(cx) {
                    Poll::Ready(Some(event)) => event,
                    Poll::Ready(None) => break,
                    Poll::Pending => return Poll::Pending,
                },
            };
            if let Some(Ok(Incoming::Message { route, .. })) = self.handle(event) {
                self.answers.remove(&route);
            }
        }
        Poll::Ready(())
    }
}

/// Signals and heartbeats may come in datagrams; everything else there is dropped.
fn is_datagram(bytes: &[u8]) -> bool {
    matches!(Message::decode(bytes), Ok(Message::Signal { .. } | Message::Heartbeat))
}

/// A stream that failed: what the peer did wrong ends the link, a reset or a slow stream only itself.
fn read_failed(why: Ended) -> Event {
    Event::ReadFailed(why.violation.then_some(why))
}

async fn read_request(send: SendStream, mut recv: RecvStream, limit: usize) -> Event {
    match tokio::time::timeout(READ_DEADLINE, read_single(&mut recv, limit)).await {
        Ok(Ok(bytes)) if matches!(bytes.first(), Some(kind::REQUEST..=129)) => Event::Request(bytes, send),
        Ok(Ok(_)) => read_failed(Ended::violation(
            CloseCode::NotAcceptable,
            "a request stream with another message",
        )),
        Ok(Err(why)) => read_failed(why),
        Err(_) => Event::ReadFailed(None),
    }
}

async fn read_signal(mut recv: RecvStream, limit: usize) -> Event {
    match tokio::time::timeout(READ_DEADLINE, read_single(&mut recv, limit)).await {
        Ok(Ok(bytes)) if matches!(bytes.first(), Some(kind::SIGNAL..=65)) => Event::Signal(bytes),
        Ok(Ok(_)) => read_failed(Ended::violation(
            CloseCode::NotAcceptable,
            "a signal stream with another message",
        )),
        Ok(Err(why)) => read_failed(why),
        Err(_) => Event::ReadFailed(None),
    }
}

/// Server: writes what a request is answered with, until the reply, or the client gives up.
async fn write_answers(
    route: Route,
    mut send: SendStream,
    mut outbox: mpsc::UnboundedReceiver<Bytes>,
    answered: Arc<AtomicU64>,
) -> Event {
    let mut replied = false;
    loop {
        let message = tokio::select! {
            biased;
            message = outbox.recv() => message,
            _ = send.stopped() => return Event::Cancelled(route),
        };
        let Some(message) = message else {
            if replied {
                let _ = send.finish();
                return Event::Answered(route);
            }
            // Nobody will answer: the drop resets it.
            return Event::Done;
        };
        replied = is_reply(&message);
        let mut framed = Vec::new();
        put(&message, &mut framed);
        let mut framed = Bytes::from(framed);
        while !framed.is_empty() {
            let piece = framed.split_to(framed.len().min(PIECE));
            let size = piece.len() as u64;
            if send.write_chunk(piece).await.is_err() {
                return Event::Cancelled(route);
            }
            answered.fetch_add(size, Ordering::Relaxed);
        }
    }
}

/// Client: sends a request on a stream of its own.
async fn ask(session: Session, id: RequestId, number: u64, message: Bytes, mut cancel: oneshot::Receiver<()>) -> Event {
    let opened = tokio::select! {
        opened = session.open_bi() => opened.ok(),
        () = given_up(&mut cancel) => None,
    };
    let Some((mut send, mut recv)) = opened else {
        return Event::Unasked(id, number);
    };
    let is_sent = tokio::select! {
        written = write_single(&mut send, &message) => written.is_ok(),
        () = given_up(&mut cancel) => {
            send.reset(CANCELLED);
            recv.stop(CANCELLED);
            false
        }
    };
    if !is_sent {
        return Event::Unasked(id, number);
    }
    Event::Asked(
        id,
        Box::new(Exchange {
            number,
            recv,
            unframer: Unframer::default(),
            replied: false,
            cancel,
        }),
    )
}

/// Client: waits for the next message of an answer.
async fn read_answer(id: RequestId, mut exchange: Box<Exchange>, limit: usize) -> Event {
    let Exchange {
        recv, unframer, cancel, ..
    } = &mut *exchange;
    let message = tokio::select! {
        biased;
        message = std::future::poll_fn(|cx| unframer.poll_next(cx, recv, limit)) => message,
        () = given_up(cancel) => {
            recv.stop(CANCELLED);
            return Event::Done;
        }
    };
    if let Err(why) = &message {
        tracing::debug!(%why, "a reply stream failed");
    }
    Event::Answer(id, exchange, message)
}

/// Waits until a request is given up, which a younger one of the same identifier makes impossible.
async fn given_up(cancel: &mut oneshot::Receiver<()>) {
    if cancel.is_terminated() || cancel.await.is_err() {
        std::future::pending().await
    }
}

fn is_reply(message: &[u8]) -> bool {
    matches!(message.first(), Some(..=5 | kind::REPLY..=193))
}
