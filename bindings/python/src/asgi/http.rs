//! HTTP requests: the `http` scope.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode, Version};
use http_body::{Body as _, Frame};
use pyo3::exceptions::{PyBaseException, PyBaseExceptionGroup, PyRuntimeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use wireloom::{Body, EarlyHints, EarlyHintsError};

use super::access::Entry;
use super::body::{FileBody, ResponseBody};
use super::exchange::{Exchange, Reply, is_turn, run, sent, was_ready};
use super::message::Message;
use super::scope::{Ends, Kind};
use super::site::{Active, Site};
use crate::awaitable::{Await, Operation};
use crate::errors::ClientDisconnected;
use crate::hub::Start;
use crate::waiters::{Waiters, is_nobody};

/// Bytes of a response that wait to be sent; above this `send` waits.
const HIGH_WATER: usize = 64 * 1024;

/// One request and its response.
pub(crate) struct HttpExchange {
    site: Arc<Site>,
    is_head: bool,
    version: Version,
    state: Mutex<State>,
    /// With a lock of its own: the connection wakes them while the body is polled.
    receivers: Mutex<Waiters>,
}

struct State {
    /// Until the application is called.
    request: Option<(Parts, Ends)>,
    entry: Option<Entry>,
    active: Option<Active>,
    /// The application has ended.
    is_ended: bool,
    /// The response is a stream, in the hands of the connection.
    is_streamed: bool,
    /// The connection is done with it.
    is_delivered: bool,
    body: Option<Body>,
    /// The application has received the end of the body.
    is_received: bool,
    received: u64,
    /// Awaits that were ready at once, in a row.
    ready: u32,
    phase: Phase,
    status: StatusCode,
    sent: u64,
    /// Content-Length, less what was sent.
    left: Option<u64>,
    reply: Reply,
    frames: VecDeque<Frame<Bytes>>,
    queued: usize,
    /// The response ends in the middle.
    is_broken: bool,
    streamer: Option<Waker>,
    /// The client has given up.
    is_gone: bool,
    senders: Waiters,
    hints: Option<EarlyHints>,
}

/// How far the application's response is.
enum Phase {
    Waiting,
    Started {
        head: Box<Response<()>>,
        trailers: bool,
    },
    Streaming {
        trailers: bool,
    },
    /// Answered without a body, which the application goes on to send: HEAD, 204, 304.
    Discarding,
    /// The body is complete, trailers are to come.
    Trailers(HeaderMap),
    Complete,
}

impl Phase {
    /// For the client the response is complete, or will be with what waits to be sent.
    fn is_answered(&self) -> bool {
        matches!(self, Self::Discarding | Self::Complete)
    }
}

impl HttpExchange {
    pub(crate) fn new(site: Arc<Site>, active: Active, parts: Parts, ends: Ends, body: Body) -> Arc<Self> {
        let entry = site.entry(&parts, &ends);
        let body = (!body.is_end_stream()).then_some(body);
        Arc::new(Self {
            site,
            is_head: parts.method == Method::HEAD,
            version: parts.version,
            state: Mutex::new(State {
                request: Some((parts, ends)),
                entry,
                active: Some(active),
                is_ended: false,
                is_streamed: false,
                is_delivered: false,
                body,
                is_received: false,
                received: 0,
                ready: 0,
                phase: Phase::Waiting,
                status: StatusCode::OK,
                sent: 0,
                left: None,
                reply: Reply::default(),
                frames: VecDeque::new(),
                queued: 0,
                is_broken: false,
                streamer: None,
                is_gone: false,
                senders: Waiters::default(),
                hints: None,
            }),
            receivers: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn receivers(&self) -> MutexGuard<'_, Waiters> {
        self.receivers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever receives has news.
    fn wake_receivers(&self) {
        let receivers = self.receivers().take();
        receivers.wake();
    }

    /// The next frame of a streamed response, for the connection.
    pub(crate) fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let mut state = self.state();
        if let Some(frame) = state.frames.pop_front() {
            state.queued -= frame.data_ref().map_or(0, Bytes::len);
            if state.queued < HIGH_WATER {
                let senders = state.senders.take();
                drop(state);
                senders.wake();
            }
            return Poll::Ready(Some(Ok(frame)));
        }
        if state.is_broken {
            return Poll::Ready(Some(Err(io::Error::other(
                "the application did not complete its response",
            ))));
        }
        if matches!(state.phase, Phase::Complete) {
            return Poll::Ready(None);
        }
        state.streamer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The connection wants no more of a streamed response.
    pub(crate) fn body_dropped(&self) {
        let mut state = self.state();
        if !matches!(state.phase, Phase::Complete) || !state.frames.is_empty() {
            self.client_gone(&mut state);
        }
        state.is_delivered = true;
        state.settle();
    }

    fn client_gone(&self, state: &mut State) {
        state.is_gone = true;
        state.frames.clear();
        state.queued = 0;
        self.wake_receivers();
        state.senders.take().wake();
    }

    /// The head is complete; hands the response to the connection.
    fn answer(&self, state: &mut State, head: Response<()>, body: ResponseBody) {
        let (mut parts, ()) = head.into_parts();
        super::fields::prepare(&mut parts.headers, self.version, &self.site.settings.headers);
        state.status = parts.status;
        state.is_streamed = matches!(body, ResponseBody::Stream(_));
        state.reply.give(Response::from_parts(parts, body));
    }

    /// Answers in the application's place, and is done.
    fn refuse(&self, state: &mut State, status: StatusCode, text: &'static str) {
        let mut head = Response::new(());
        *head.status_mut() = status;
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        head.headers_mut().insert(header::CONTENT_TYPE, plain);
        state.phase = Phase::Complete;
        state.sent = text.len() as u64;
        let body = if self.is_head {
            head.headers_mut().insert(header::CONTENT_LENGTH, text.len().into());
            ResponseBody::Empty
        } else {
            ResponseBody::Full(Bytes::from_static(text.as_bytes()))
        };
        self.answer(state, head, body);
        self.note(state);
    }

    /// The request ends in the middle, and with it everything. hyper looks at a connection whose body has broken off again only
    /// when it has an answer, or has to break one off.
    fn give_up(&self, state: &mut State, status: StatusCode, text: &'static str) {
        state.body = None;
        self.client_gone(state);
        match state.phase {
            Phase::Waiting | Phase::Started { .. } => self.refuse(state, status, text),
            Phase::Streaming { .. } | Phase::Trailers(_) => self.break_off(state),
            Phase::Discarding | Phase::Complete => {}
        }
    }

    fn note(&self, state: &mut State) {
        self.site.note(state.entry.take(), state.status, state.sent);
    }

    fn poll_receive(self: &Arc<Self>, py: Python<'_>, cx: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>> {
        let may_wait = !is_nobody(cx.waker());
        let mut state = self.state();
        if is_turn(&mut state.ready, cx) {
            return Poll::Pending;
        }
        let event = loop {
            if state.is_gone || state.phase.is_answered() {
                break None;
            }
            if may_wait {
                // Before the body is looked at, whose news another thread may bring at any time.
                self.receivers().add(cx.waker());
            }
            if state.is_received {
                return Poll::Pending;
            }
            let Some(body) = &mut state.body else {
                state.is_received = true;
                break Some((Bytes::new(), false));
            };
            // The news is for all who receive, one of whom may give up.
            let waker = Waker::from(self.clone());
            match Pin::new(&mut *body).poll_frame(&mut Context::from_waker(&waker)) {
                Poll::Ready(Some(Ok(frame))) => {
                    if body.is_end_stream() {
                        state.body = None;
                    }
                    let Ok(data) = frame.into_data() else {
                        // Trailers of requests are nothing that ASGI knows.
                        continue;
                    };
                    state.received += data.len() as u64;
                    if self.site.settings.max_body.is_some_and(|limit| state.received > limit) {
                        self.give_up(&mut state, StatusCode::PAYLOAD_TOO_LARGE, "Content Too Large");
                        continue;
                    }
                    state.is_received = state.body.is_none();
                    break Some((data, state.body.is_some()));
                }
                Poll::Ready(None) => state.body = None,
                Poll::Ready(Some(Err(_))) => self.give_up(&mut state, StatusCode::BAD_REQUEST, "Bad Request"),
                Poll::Pending => return Poll::Pending,
            }
        };
        state.ready += 1;
        drop(state);
        if may_wait {
            self.receivers().remove(cx.waker());
        }
        Poll::Ready(event_of(py, event))
    }

    /// What the application sends.
    fn send<'py>(self: &Arc<Self>, message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = message.py();
        let must_wait = self.carry_out(&Message::new(message)?);
        let mut state = self.state();
        let is_turn = matches!(must_wait, Ok(false)) && was_ready(&mut state.ready);
        let unread = self.take_unread(&mut state);
        drop(state);
        drop(unread);
        if must_wait? {
            let waiting = Await::new(&self.site.hub, Sending(self.clone()));
            return Ok(Bound::new(py, waiting)?.into_any());
        }
        sent(py, &self.site, is_turn)
    }

    /// Whether `send` has to wait then.
    fn carry_out(self: &Arc<Self>, message: &Message<'_, '_>) -> PyResult<bool> {
        let py = message.py();
        match message.kind()? {
            "http.response.start" => self.start_response(message),
            "http.response.body" => {
                let body = message.bytes(intern!(py, "body"))?;
                let more = message.bool(intern!(py, "more_body"), false)?;
                self.send_body(message, body, more)
            }
            "http.response.trailers" => self.send_trailers(message),
            "http.response.pathsend" => self.send_file(message),
            "http.response.early_hint" => self.send_hints(message),
            _ => Err(message.unexpected("'http.response.start' or 'http.response.body'")),
        }
    }

    /// What nobody will read of the request once it is answered: kept, it would hold up the next one of its connection.
    #[must_use = "it is dropped after the lock is released"]
    fn take_unread(&self, state: &mut State) -> Option<Body> {
        if !state.phase.is_answered() {
            return None;
        }
        self.wake_receivers();
        state.body.take()
    }

    fn start_response(self: &Arc<Self>, message: &Message<'_, '_>) -> PyResult<bool> {
        let py = message.py();
        let status = message.status()?;
        let mut head = Response::new(());
        *head.status_mut() = status;
        message.headers(head.headers_mut())?;
        let trailers = message.bool(intern!(py, "trailers"), false)?;
        let left = super::fields::content_length(head.headers())?;
        let mut state = self.state();
        if state.is_gone {
            return Err(ClientDisconnected::new_err("the client is gone"));
        }
        if !matches!(state.phase, Phase::Waiting) {
            return Err(message.unexpected("'http.response.body'"));
        }
        state.left = left;
        state.phase = Phase::Started {
            head: Box::new(head),
            trailers,
        };
        Ok(false)
    }

    fn send_body(self: &Arc<Self>, message: &Message<'_, '_>, body: Bytes, more: bool) -> PyResult<bool> {
        let mut state = self.state();
        if state.is_gone {
            return Err(ClientDisconnected::new_err("the client is gone"));
        }
        match std::mem::replace(&mut state.phase, Phase::Complete) {
            Phase::Started { head, trailers } => self.begin_body(&mut state, *head, trailers, body, more),
            Phase::Streaming { trailers } => {
                if let Err(problem) = state.count(&body, more) {
                    self.break_off(&mut state);
                    return Err(PyRuntimeError::new_err(problem));
                }
                state.queue(body);
                state.phase = match (more, trailers) {
                    (true, _) => Phase::Streaming { trailers },
                    (false, true) => Phase::Trailers(HeaderMap::new()),
                    (false, false) => Phase::Complete,
                };
                if !more && !trailers {
                    self.note(&mut state);
                }
                Ok(more && state.queued >= HIGH_WATER)
            }
            Phase::Discarding => {
                if more {
                    state.phase = Phase::Discarding;
                    // It may go on for ever.
                    return Err(ClientDisconnected::new_err("the client wants no body"));
                }
                self.note(&mut state);
                Ok(false)
            }
            Phase::Waiting => {
                state.phase = Phase::Waiting;
                Err(message.unexpected("'http.response.start'"))
            }
            Phase::Trailers(trailers) => {
                state.phase = Phase::Trailers(trailers);
                Err(message.unexpected("'http.response.trailers'"))
            }
            Phase::Complete => Err(PyRuntimeError::new_err("the response is complete")),
        }
    }

    /// The first piece of the body, with which the head leaves.
    fn begin_body(
        self: &Arc<Self>,
        state: &mut State,
        mut head: Response<()>,
        trailers: bool,
        body: Bytes,
        more: bool,
    ) -> PyResult<bool> {
        if self.is_head || !super::fields::may_have_content(head.status()) {
            if self.is_head && !more && state.left.is_none() && !body.is_empty() {
                head.headers_mut().insert(header::CONTENT_LENGTH, body.len().into());
            }
            self.answer(state, head, ResponseBody::Empty);
            if more {
                state.phase = Phase::Discarding;
            } else {
                self.note(state);
            }
            return Ok(false);
        }
        if let Err(problem) = state.count(&body, more) {
            self.refuse(state, StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error");
            return Err(PyRuntimeError::new_err(problem));
        }
        if more || trailers {
            state.phase = if more {
                Phase::Streaming { trailers }
            } else {
                Phase::Trailers(HeaderMap::new())
            };
            state.queue(body);
            self.answer(state, head, ResponseBody::Stream(self.clone()));
            return Ok(more && state.queued >= HIGH_WATER);
        }
        state.sent += body.len() as u64;
        self.answer(state, head, ResponseBody::Full(body));
        self.note(state);
        Ok(false)
    }

    fn send_trailers(&self, message: &Message<'_, '_>) -> PyResult<bool> {
        let mut fields = HeaderMap::new();
        message.headers(&mut fields)?;
        let more = message.bool(intern!(message.py(), "more_trailers"), false)?;
        let mut state = self.state();
        if state.is_gone {
            return Err(ClientDisconnected::new_err("the client is gone"));
        }
        match std::mem::replace(&mut state.phase, Phase::Complete) {
            Phase::Trailers(mut trailers) => {
                trailers.extend(fields);
                if more {
                    state.phase = Phase::Trailers(trailers);
                } else {
                    state.push(Frame::trailers(trailers));
                    self.note(&mut state);
                }
                Ok(false)
            }
            // Answered without a body, so without trailers.
            Phase::Complete if self.is_head => Ok(false),
            other => {
                state.phase = other;
                Err(message.unexpected("'http.response.body'"))
            }
        }
    }

    fn send_hints(&self, message: &Message<'_, '_>) -> PyResult<bool> {
        let mut fields = HeaderMap::new();
        if let Some(links) = message.get(intern!(message.py(), "links"))? {
            for link in links.try_iter()? {
                let link = HeaderValue::from_maybe_shared(super::message::bytes(&link?)?)
                    .map_err(|_| PyValueError::new_err("one of 'links' cannot be sent"))?;
                fields
                    .try_append(header::LINK, link)
                    .map_err(|_| PyValueError::new_err("too many links"))?;
            }
        }
        let state = self.state();
        if state.is_gone {
            return Err(ClientDisconnected::new_err("the client is gone"));
        }
        if !matches!(state.phase, Phase::Waiting) {
            return Err(message.unexpected("'http.response.body'"));
        }
        let hints = state.hints.clone();
        drop(state);
        let Some(hints) = hints else {
            return Err(PyRuntimeError::new_err(
                "early hints cannot be sent here: the scope's extensions have no 'http.response.early_hint'",
            ));
        };
        match hints.send(&fields) {
            // Late: the client has just given up, as `receive` will say.
            Ok(()) | Err(EarlyHintsError::Late) => Ok(false),
            Err(error) => Err(PyValueError::new_err(error.to_string())),
        }
    }

    fn send_file(self: &Arc<Self>, message: &Message<'_, '_>) -> PyResult<bool> {
        let path = message
            .text(intern!(message.py(), "path"))?
            .ok_or_else(|| PyValueError::new_err("'path' is missing"))?;
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(PyValueError::new_err("'path' is no file"));
        }
        let mut state = self.state();
        if state.is_gone {
            return Err(ClientDisconnected::new_err("the client is gone"));
        }
        match std::mem::replace(&mut state.phase, Phase::Complete) {
            Phase::Started { mut head, .. } => {
                // The announced length is what is sent, whatever has become of the file since.
                let length = state.left.unwrap_or(metadata.len()).min(metadata.len());
                head.headers_mut().insert(header::CONTENT_LENGTH, length.into());
                let body = if self.is_head || !super::fields::may_have_content(head.status()) {
                    ResponseBody::Empty
                } else {
                    state.sent = length;
                    ResponseBody::File(FileBody::new(file, length))
                };
                self.answer(&mut state, *head, body);
                self.note(&mut state);
                Ok(false)
            }
            other => {
                state.phase = other;
                Err(message.unexpected("'http.response.start'"))
            }
        }
    }

    /// The response ends where it is, so that the client sees that it is not complete.
    fn break_off(&self, state: &mut State) {
        state.phase = Phase::Complete;
        state.is_broken = true;
        if let Some(streamer) = state.streamer.take() {
            streamer.wake();
        }
        self.note(state);
    }
}

impl State {
    /// The application has to keep to the length that it announced: the protocol cannot take it back.
    fn count(&mut self, body: &Bytes, more: bool) -> Result<(), &'static str> {
        let Some(left) = self.left else { return Ok(()) };
        self.left = left.checked_sub(body.len() as u64);
        match self.left {
            None => Err("the response is longer than its Content-Length"),
            Some(1..) if !more => Err("the response is shorter than its Content-Length"),
            _ => Ok(()),
        }
    }

    /// From then on the call counts no more, whoever in Python still has its `receive` and `send`.
    fn settle(&mut self) {
        if self.is_ended && self.is_delivered {
            self.active = None;
        }
    }

    fn queue(&mut self, data: Bytes) {
        self.sent += data.len() as u64;
        if !data.is_empty() {
            self.queued += data.len();
            self.push(Frame::data(data));
        } else if let Some(streamer) = self.streamer.take() {
            streamer.wake();
        }
    }

    fn push(&mut self, frame: Frame<Bytes>) {
        self.frames.push_back(frame);
        if let Some(streamer) = self.streamer.take() {
            streamer.wake();
        }
    }
}

/// How many causes of an exception are looked at.
const MAX_CHAIN: usize = 16;

/// Whether an exception is there because the client has left. Frameworks wrap `ClientDisconnected`, and Starlette makes its
/// `ClientDisconnect` of `http.disconnect`.
fn is_of_leaving(error: &Bound<'_, PyBaseException>, depth: usize) -> bool {
    let kind = error.get_type();
    if error.is_instance_of::<ClientDisconnected>()
        || (kind.name()).is_ok_and(|name| name == "CancelledError" || name == "ClientDisconnect")
    {
        return true;
    }
    let py = error.py();
    let is_that = |other: &Bound<'_, PyAny>| {
        let other = other.cast::<PyBaseException>();
        depth > 0 && other.is_ok_and(|other| is_of_leaving(other, depth - 1))
    };
    if let Ok(group) = error.cast::<PyBaseExceptionGroup>() {
        let members = group
            .getattr(intern!(py, "exceptions"))
            .and_then(|members| members.try_iter());
        return members.is_ok_and(|mut members| members.all(|member| member.is_ok_and(|member| is_that(&member))));
    }
    let cause = error.getattr(intern!(py, "__cause__")).ok();
    let cause = cause.filter(|cause| !cause.is_none());
    cause
        .or_else(|| error.getattr(intern!(py, "__context__")).ok())
        .is_some_and(|cause| is_that(&cause))
}

/// What the log says of requests whose client did not wait for the response, as nginx has it.
fn client_closed_request() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST)
}

fn event_of(py: Python<'_>, event: Option<(Bytes, bool)>) -> PyResult<Py<PyAny>> {
    let message = PyDict::new(py);
    match event {
        Some((data, more)) => {
            message.set_item(intern!(py, "type"), intern!(py, "http.request"))?;
            message.set_item(intern!(py, "body"), PyBytes::new(py, &data))?;
            message.set_item(intern!(py, "more_body"), more)?;
        }
        None => message.set_item(intern!(py, "type"), intern!(py, "http.disconnect"))?,
    }
    Ok(message.into_any().unbind())
}

impl Wake for HttpExchange {
    fn wake(self: Arc<Self>) {
        self.wake_receivers();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_receivers();
    }
}

impl Start for HttpExchange {
    fn start(self: Arc<Self>, py: Python<'_>) {
        let request = self.state().request.take();
        let Some((mut parts, ends)) = request else { return };
        let mut state = self.state();
        if state.is_gone {
            return;
        }
        state.hints = parts.extensions.remove::<EarlyHints>();
        let kind = Kind::Http {
            has_hints: state.hints.is_some(),
        };
        drop(state);
        let site = self.site.clone();
        let begun = site
            .templates
            .scope(py, kind, &parts, &site.settings, &ends)
            .and_then(|scope| {
                let receive = Bound::new(py, HttpReceive(self.clone()))?.into_any();
                let send = Bound::new(py, HttpSend(self.clone()))?.into_any();
                Ok((scope, receive, send))
            });
        match begun {
            Ok((scope, receive, send)) => {
                run(&site, self, scope.into_any(), receive, send);
            }
            Err(error) => self.finished(py, Err(error)),
        }
    }
}

impl Exchange for HttpExchange {
    fn finished(&self, py: Python<'_>, outcome: PyResult<()>) {
        let mut state = self.state();
        let is_gone = state.is_gone || matches!(state.phase, Phase::Discarding);
        let is_complete = matches!(state.phase, Phase::Complete);
        if !is_complete {
            if is_gone {
                if matches!(state.phase, Phase::Waiting | Phase::Started { .. }) {
                    state.status = client_closed_request();
                }
                state.phase = Phase::Complete;
                self.note(&mut state);
            } else if matches!(state.phase, Phase::Waiting | Phase::Started { .. }) {
                self.refuse(&mut state, StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error");
            } else {
                self.break_off(&mut state);
            }
        }
        let unread = self.take_unread(&mut state);
        state.is_ended = true;
        state.settle();
        drop(state);
        drop(unread);
        match outcome {
            Ok(()) if is_complete || is_gone => {}
            Ok(()) => self
                .site
                .report(py, "the ASGI application returned without a complete response", None),
            // What came of sending to a client that is gone is no fault of the application.
            Err(error) if is_gone && is_of_leaving(error.value(py), MAX_CHAIN) => {}
            Err(error) => self.site.report(py, "exception in the ASGI application", Some(&error)),
        }
    }
}

/// The response, for the connection. Dropped without it: the client gave up.
pub(crate) struct Answer(pub(crate) Arc<HttpExchange>);

impl Answer {
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Response<ResponseBody>> {
        self.0.state().reply.poll(cx)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if matches!(state.phase, Phase::Waiting | Phase::Started { .. }) {
            self.0.client_gone(&mut state);
        }
        let untaken = state.reply.withdraw();
        state.is_delivered |= !state.is_streamed;
        state.settle();
        drop(state);
        drop(untaken);
    }
}

/// `receive`
#[pyclass(module = "wireloom._wireloom", frozen)]
struct HttpReceive(Arc<HttpExchange>);

#[pymethods]
impl HttpReceive {
    fn __call__(&self) -> Await {
        Await::new(&self.0.site.hub, Receiving(self.0.clone()))
    }
}

/// `send`
#[pyclass(module = "wireloom._wireloom", frozen)]
struct HttpSend(Arc<HttpExchange>);

#[pymethods]
impl HttpSend {
    fn __call__<'py>(&self, message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.0.send(message)
    }
}

struct Receiving(Arc<HttpExchange>);

impl Operation for Receiving {
    fn poll(&mut self, py: Python<'_>, cx: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>> {
        self.0.poll_receive(py, cx)
    }

    fn cancel(&mut self, waker: &Waker) {
        self.0.receivers().remove(waker);
    }
}

/// Waits until the response has room again.
struct Sending(Arc<HttpExchange>);

impl Operation for Sending {
    fn poll(&mut self, py: Python<'_>, cx: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>> {
        let mut state = self.0.state();
        if state.is_gone {
            return Poll::Ready(Err(ClientDisconnected::new_err("the client is gone")));
        }
        if state.queued < HIGH_WATER {
            return Poll::Ready(Ok(py.None()));
        }
        state.senders.add(cx.waker());
        Poll::Pending
    }

    fn cancel(&mut self, waker: &Waker) {
        self.0.state().senders.remove(waker);
    }
}
