//! Profile M: a stream for each request, streams and datagrams for signals.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use wireloom::{RecvStream, SendStream, Session, SessionError};

use super::framing::{Unframer, read_single, write_single};
use super::{CANCELLED, ended};
use crate::codec::{Message, RequestId, kind};
use crate::engine::CloseCode;
use crate::transport::{Delivery, Ended, Incoming, Route};

/// Streams from the peer that are read at once. Those beyond wait in QUIC, whose own limits bound them.
const MAX_READING: usize = 32;

/// How long a request or signal may take to arrive on its stream.
const READ_DEADLINE: Duration = Duration::from_secs(60);

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
    /// Client: a message on a request's stream.
    Answer(RequestId, Box<Exchange>, Option<Bytes>),
    Sent,
}

/// Client: a request whose reply is awaited.
struct Exchange {
    recv: RecvStream,
    unframer: Unframer,
    cancel: oneshot::Receiver<()>,
}

pub(super) struct Multi {
    session: Session,
    tasks: FuturesUnordered<Task>,
    /// At most one event of each task.
    arrived: VecDeque<Event>,
    limit: usize,
    is_client: bool,
    /// Whether a stream, signal stream or datagram is waited for.
    accepting: [bool; 3],
    reading: usize,
    sending: usize,
    last_route: u64,
    /// Server: where answers go.
    answers: HashMap<Route, mpsc::UnboundedSender<Bytes>>,
    /// Client: how requests are given up.
    requests: HashMap<RequestId, oneshot::Sender<()>>,
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
            last_route: 0,
            answers: HashMap::new(),
            requests: HashMap::new(),
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
                self.spawn(write_answers(route, send, outbox));
                Some(Ok(Incoming::Message { route, bytes }))
            }
            Event::Signal(bytes) => {
                self.reading -= 1;
                control(bytes)
            }
            Event::Cancelled(route) => {
                let open = self.answers.remove(&route).is_some();
                open.then_some(Ok(Incoming::Cancelled(route)))
            }
            Event::Answer(id, exchange, message) => {
                let Some(bytes) = message else {
                    self.requests.remove(&id);
                    return None;
                };
                self.spawn(read_answer(id, exchange, self.limit));
                control(bytes)
            }
        }
    }

    /// Server: queues a message on the stream of a request; a reply ends it. Gives the message back if the stream is gone
    /// and the message is still worth sending.
    pub(super) fn answer(&mut self, route: Route, message: Bytes) -> Option<Bytes> {
        let is_reply = matches!(message.first(), Some(..=5 | kind::REPLY..=193));
        let lost = match self.answers.get(&route) {
            // The task may be gone: the client gave up.
            Some(answers) => answers.send(message).err().map(|error| error.0),
            None => Some(message),
        };
        if is_reply {
            self.answers.remove(&route);
        }
        lost.filter(|_| !is_reply)
    }

    /// Client: sends a request on a stream of its own.
    pub(super) fn request(&mut self, message: Bytes) {
        let Some(id) = message.get(1..9).and_then(|id| id.try_into().ok()).map(RequestId) else {
            return;
        };
        let (give_up, cancel) = oneshot::channel();
        self.requests.insert(id, give_up);
        self.spawn(ask(self.session.clone(), id, message, cancel, self.limit));
    }

    /// Client: gives a request up.
    pub(super) fn cancel(&mut self, id: RequestId) {
        if let Some(give_up) = self.requests.remove(&id) {
            let _ = give_up.send(());
        }
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
                event => {
                    self.arrived.push_back(event);
                    cx.waker().wake_by_ref();
                }
            }
        }
    }

    /// Waits until all answers and signals are written; what arrives meanwhile is dropped.
    pub(super) fn poll_answered(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.answers.is_empty() && self.sending == 0 && self.writing() == 0 {
                return Poll::Ready(());
            }
            match self.tasks.poll_next_unpin(cx) {
                Poll::Ready(Some(event)) => {
                    if let Some(Ok(Incoming::Message { route, .. })) = self.handle(event) {
                        self.answers.remove(&route);
                    }
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Tasks that are neither waiting for the peer nor reading from it.
    fn writing(&self) -> usize {
        let waiting = self.accepting.iter().filter(|accepting| **accepting).count();
        let asked = self.requests.len();
        self.tasks.len().saturating_sub(waiting + self.reading + asked)
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
async fn write_answers(route: Route, mut send: SendStream, mut outbox: mpsc::UnboundedReceiver<Bytes>) -> Event {
    loop {
        let message = tokio::select! {
            biased;
            message = outbox.recv() => message,
            _ = send.stopped() => return Event::Cancelled(route),
        };
        let Some(message) = message else {
            let _ = send.finish();
            return Event::Done;
        };
        let mut framed = Vec::new();
        super::framing::put(&message, &mut framed);
        if send.write_chunk(framed.into()).await.is_err() {
            return Event::Cancelled(route);
        }
    }
}

/// Client: sends a request and waits for the first message of its answer.
async fn ask(
    session: Session,
    id: RequestId,
    message: Bytes,
    mut cancel: oneshot::Receiver<()>,
    limit: usize,
) -> Event {
    let sent = async {
        let (mut send, recv) = session.open_bi().await.ok()?;
        Some((write_single(&mut send, &message).await.is_ok(), send, recv))
    };
    let stream = tokio::select! {
        stream = sent => stream,
        // Not yet sent in full: the drop resets it.
        _ = &mut cancel => return Event::Done,
    };
    let Some((true, _, recv)) = stream else {
        // The session is over, which the link notices by itself.
        return Event::Done;
    };
    let exchange = Exchange {
        recv,
        unframer: Unframer::default(),
        cancel,
    };
    read_answer(id, Box::new(exchange), limit).await
}

async fn read_answer(id: RequestId, mut exchange: Box<Exchange>, limit: usize) -> Event {
    let Exchange { recv, unframer, cancel } = &mut *exchange;
    let message = tokio::select! {
        biased;
        message = std::future::poll_fn(|cx| unframer.poll_next(cx, recv, limit)) => message,
        _ = cancel => {
            recv.stop(CANCELLED);
            return Event::Done;
        }
    };
    match message {
        Ok(message) => Event::Answer(id, exchange, message),
        Err(why) if why.violation => {
            // It counts as no stream that is read from the peer's side.
            tracing::debug!(%why, "a reply stream failed");
            Event::Answer(id, exchange, None)
        }
        Err(_) => Event::Answer(id, exchange, None),
    }
}
