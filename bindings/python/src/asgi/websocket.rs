//! WebSockets: the `websocket` scope, over HTTP/1.1 and the extended CONNECT of HTTP/2 and HTTP/3.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode, Version};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::access::Entry;
use super::body::ResponseBody;
use super::exchange::{Exchange, Reply, is_turn, run, sent, was_ready};
use super::message::Message;
use super::scope::{Ends, Kind};
use super::site::{Active, Guest, Site};
use super::websocket_pump::pump;
use crate::awaitable::{Await, Operation};
use crate::errors::ClientDisconnected;
use crate::hub::Start;
use crate::waiters::Waiters;

/// Bytes that wait to be sent; above this `send` waits.
const HIGH_WATER: usize = 64 * 1024;

/// Bytes of messages that wait for the application, besides one: beyond that the client is not read from.
const RECEIVE_AHEAD: usize = 64 * 1024;

/// Counted for each message besides its bytes, so that empty ones are bounded too.
const PER_MESSAGE: usize = 64;

/// Bytes of a close's reason: a control frame has 125, and two are the code (RFC 6455 section 5.5).
const MAX_REASON: usize = 123;

/// The code of a close because the server shuts down.
const SERVICE_RESTART: u16 = 1012;

/// Bytes of a response that denies a WebSocket.
const MAX_DENIAL: usize = 1 << 20;

/// What a client's handshake holds.
pub(crate) struct Handshake {
    upgrade: OnUpgrade,
    /// HTTP/1.1 only.
    accept: Option<String>,
    subprotocols: Vec<String>,
}

impl Handshake {
    /// `None` if the request is no handshake.
    pub(crate) fn of(parts: &mut Parts) -> Option<Self> {
        let is_extended = parts
            .extensions
            .get::<Protocol>()
            .is_some_and(|protocol| protocol.as_str().eq_ignore_ascii_case("websocket"));
        let is_upgrade = parts.version == Version::HTTP_11
            && parts.method == Method::GET
            && has_token(&parts.headers, &header::UPGRADE, "websocket")
            && has_token(&parts.headers, &header::CONNECTION, "upgrade");
        if !is_extended && !is_upgrade {
            return None;
        }
        let accept = if is_extended {
            None
        } else {
            let key = parts.headers.get(header::SEC_WEBSOCKET_KEY)?;
            Some(derive_accept_key(key.as_bytes()))
        };
        let upgrade = parts.extensions.remove::<OnUpgrade>()?;
        let subprotocols = tokens(&parts.headers, &header::SEC_WEBSOCKET_PROTOCOL).map(str::to_owned);
        Some(Self {
            upgrade,
            accept,
            subprotocols: subprotocols.collect(),
        })
    }
}

fn tokens<'a>(fields: &'a HeaderMap, name: &header::HeaderName) -> impl Iterator<Item = &'a str> {
    fields
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

fn has_token(fields: &HeaderMap, name: &header::HeaderName, wanted: &str) -> bool {
    tokens(fields, name).any(|token| token.eq_ignore_ascii_case(wanted))
}

/// One WebSocket.
pub(crate) struct WebSocketExchange {
    pub(super) site: Arc<Site>,
    version: Version,
    state: Mutex<State>,
}

pub(super) struct State {
    request: Option<(Parts, Ends)>,
    entry: Option<Entry>,
    active: Option<Active>,
    /// The application has ended.
    is_ended: bool,
    handshake: Option<Handshake>,
    phase: Phase,
    ready: u32,
    reply: Reply,
    /// Received, for the application.
    pub(super) incoming: VecDeque<Frame>,
    pub(super) incoming_size: usize,
    /// The end, after what is in `incoming`.
    pub(super) end: Option<(u16, String)>,
    /// The server is shutting down.
    is_leaving: bool,
    /// From the application.
    pub(super) outgoing: VecDeque<Frame>,
    pub(super) outgoing_size: usize,
    /// Drives the socket.
    pub(super) pump: Option<Waker>,
    receivers: Waiters,
    senders: Waiters,
}

#[derive(Debug, PartialEq)]
enum Phase {
    /// `websocket.connect` was not received yet.
    New,
    /// The application decides.
    Deciding,
    /// The application denies, in pieces.
    Denying {
        status: StatusCode,
        headers: Box<HeaderMap>,
        body: Vec<u8>,
    },
    Open,
    /// The application has closed it.
    Closed,
    /// It never was a WebSocket.
    Denied,
}

impl WebSocketExchange {
    pub(crate) fn new(site: Arc<Site>, active: Active, parts: Parts, ends: Ends, handshake: Handshake) -> Arc<Self> {
        let entry = site.entry(&parts, &ends);
        Arc::new(Self {
            version: parts.version,
            state: Mutex::new(State {
                request: Some((parts, ends)),
                entry,
                active: Some(active),
                is_ended: false,
                handshake: Some(handshake),
                phase: Phase::New,
                ready: 0,
                reply: Reply::default(),
                incoming: VecDeque::new(),
                incoming_size: 0,
                end: None,
                is_leaving: false,
                outgoing: VecDeque::new(),
                outgoing_size: 0,
                pump: None,
                receivers: Waiters::default(),
                senders: Waiters::default(),
            }),
            site,
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, state: &mut State, mut head: Response<()>, body: ResponseBody) {
        let always = &self.site.settings.headers;
        if head.status() == StatusCode::SWITCHING_PROTOCOLS {
            // `Upgrade` and `Connection` are the point of it.
            super::fields::add(head.headers_mut(), always);
        } else {
            super::fields::prepare(head.headers_mut(), self.version, always);
        }
        self.site.note(state.entry.take(), head.status(), 0);
        state.reply.give(head.map(|()| body));
    }

    fn deny(&self, state: &mut State, status: StatusCode, headers: HeaderMap, body: Bytes) {
        state.phase = Phase::Denied;
        let mut head = Response::new(());
        *head.status_mut() = status;
        *head.headers_mut() = headers;
        self.answer(state, head, ResponseBody::Full(body));
    }

    fn accept(self: &Arc<Self>, message: &Message<'_, '_>) -> PyResult<()> {
        let py = message.py();
        let subprotocol = message.text(intern!(py, "subprotocol"))?;
        let mut headers = HeaderMap::new();
        message.headers(&mut headers)?;
        let mut state = self.state();
        if !matches!(state.phase, Phase::New | Phase::Deciding) {
            return Err(message.unexpected("'websocket.send' or 'websocket.close'"));
        }
        let Some(handshake) = state.handshake.take() else {
            return Err(PyRuntimeError::new_err("the WebSocket was accepted before"));
        };
        let mut head = Response::new(());
        *head.headers_mut() = headers;
        if let Some(subprotocol) = subprotocol {
            let value = HeaderValue::try_from(subprotocol)
                .map_err(|_| PyValueError::new_err("'subprotocol' cannot be sent in a header"))?;
            head.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, value);
        }
        if let Some(accept) = &handshake.accept {
            *head.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let fields = head.headers_mut();
            fields.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            fields.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            let accept = HeaderValue::try_from(accept).map_err(|error| PyValueError::new_err(error.to_string()))?;
            fields.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        }
        state.phase = Phase::Open;
        self.site.counts.websockets.fetch_add(1, Ordering::Relaxed);
        self.answer(&mut state, head, ResponseBody::Empty);
        if state.is_leaving {
            self.leave(&mut state);
        }
        drop(state);
        self.site.hub.runtime().spawn(pump(self.clone(), handshake.upgrade));
        Ok(())
    }

    fn push(&self, state: &mut State, frame: Frame) {
        state.outgoing_size += frame.len() + PER_MESSAGE;
        state.outgoing.push_back(frame);
        if let Some(pump) = state.pump.take() {
            pump.wake();
        }
    }

    fn push_close(&self, state: &mut State, code: u16, reason: &str) {
        let end = (0..=reason.len().min(MAX_REASON))
            .rev()
            .find(|end| reason.is_char_boundary(*end));
        let reason = &reason[..end.unwrap_or(0)];
        let frame = CloseFrame {
            code: CloseCode::from(code),
            reason: reason.into(),
        };
        self.push(state, Frame::Close(Some(frame)));
    }

    fn close(&self, state: &mut State, code: u16, reason: &str) {
        state.phase = Phase::Closed;
        self.push_close(state, code, reason);
    }

    /// Closes it because the server shuts down: both sides are told (1012 is "Service Restart" in IANA's registry of close codes).
    fn leave(&self, state: &mut State) {
        self.push_close(state, SERVICE_RESTART, "");
        state.end = Some((SERVICE_RESTART, String::new()));
        state.wake();
    }

    /// What the application sends.
    fn send<'py>(self: &Arc<Self>, message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = message.py();
        let message = Message::new(message)?;
        let mut must_wait = false;
        match message.kind()? {
            "websocket.accept" => self.accept(&message)?,
            "websocket.send" => must_wait = self.send_message(&message)?,
            "websocket.close" => self.send_close(&message)?,
            "websocket.http.response.start" => self.start_denial(&message)?,
            "websocket.http.response.body" => self.send_denial(&message)?,
            _ => return Err(message.unexpected("'websocket.accept', 'websocket.send' or 'websocket.close'")),
        }
        if must_wait {
            let waiting = Await::new(&self.site.hub, Sending(self.clone()));
            return Ok(Bound::new(py, waiting)?.into_any());
        }
        let is_turn = was_ready(&mut self.state().ready);
        sent(py, &self.site, is_turn)
    }

    fn send_message(&self, message: &Message<'_, '_>) -> PyResult<bool> {
        let py = message.py();
        let frame = match message.get(intern!(py, "bytes"))? {
            Some(data) => Frame::Binary(super::message::bytes(&data)?),
            None => match message.text(intern!(py, "text"))? {
                Some(text) => Frame::Text(text.into()),
                None => return Err(PyValueError::new_err("'websocket.send' has 'bytes' or 'text'")),
            },
        };
        let mut state = self.state();
        match state.phase {
            Phase::Open => {}
            Phase::Closed => {
                return Err(PyRuntimeError::new_err(
                    "'websocket.send' after 'websocket.close', or after the response was completed",
                ));
            }
            _ => return Err(message.unexpected("'websocket.accept' or 'websocket.close'")),
        }
        if state.end.is_some() {
            return Err(ClientDisconnected::new_err("the WebSocket is closed"));
        }
        self.push(&mut state, frame);
        Ok(state.outgoing_size >= HIGH_WATER)
    }

    fn send_close(&self, message: &Message<'_, '_>) -> PyResult<()> {
        let py = message.py();
        let code = message.integer(intern!(py, "code"))?.unwrap_or(1000);
        let reason = message.text(intern!(py, "reason"))?.unwrap_or_default();
        let code = u16::try_from(code)
            .ok()
            .filter(|code| CloseCode::from(*code).is_allowed())
            .ok_or_else(|| PyValueError::new_err("'code' is no close code that may be sent"))?;
        let mut state = self.state();
        match state.phase {
            Phase::New | Phase::Deciding => {
                self.deny(&mut state, StatusCode::FORBIDDEN, HeaderMap::new(), Bytes::new());
            }
            // Closing what the client has closed is no mistake.
            Phase::Open if state.end.is_some() => state.phase = Phase::Closed,
            Phase::Open => self.close(&mut state, code, &reason),
            _ => return Err(PyRuntimeError::new_err("the WebSocket is closed already")),
        }
        Ok(())
    }

    fn start_denial(&self, message: &Message<'_, '_>) -> PyResult<()> {
        let status = message.status()?;
        let mut headers = Box::<HeaderMap>::default();
        message.headers(&mut headers)?;
        super::fields::content_length(&headers)?;
        // What is sent is known as a whole.
        headers.remove(header::CONTENT_LENGTH);
        let mut state = self.state();
        if !matches!(state.phase, Phase::New | Phase::Deciding) {
            return Err(message.unexpected("'websocket.send' or 'websocket.close'"));
        }
        // RFC 8441 and RFC 9220: it is how the extended CONNECT of HTTP/2 and HTTP/3 is accepted.
        if status.is_success() && self.version >= Version::HTTP_2 {
            return Err(PyValueError::new_err(
                "a WebSocket over HTTP/2 or HTTP/3 is denied with a status from 300 to 599",
            ));
        }
        state.phase = Phase::Denying {
            status,
            headers,
            body: Vec::new(),
        };
        Ok(())
    }

    fn send_denial(&self, message: &Message<'_, '_>) -> PyResult<()> {
        let piece = message.bytes(intern!(message.py(), "body"))?;
        let more = message.bool(intern!(message.py(), "more_body"), false)?;
        let mut state = self.state();
        let Phase::Denying { status, headers, body } = &mut state.phase else {
            return Err(message.unexpected("'websocket.http.response.start'"));
        };
        if body.len() + piece.len() > MAX_DENIAL {
            return Err(PyValueError::new_err(
                "a response that denies a WebSocket has at most 1 MiB",
            ));
        }
        body.extend_from_slice(&piece);
        if !more {
            let (status, headers, body) = (*status, std::mem::take(headers), std::mem::take(body));
            self.deny(&mut state, status, *headers, body.into());
        }
        Ok(())
    }

    fn poll_receive(&self, py: Python<'_>, cx: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>> {
        let mut state = self.state();
        if is_turn(&mut state.ready, cx) {
            return Poll::Pending;
        }
        state.ready += 1;
        if state.phase == Phase::New {
            state.phase = Phase::Deciding;
            drop(state);
            return Poll::Ready(event(py, "websocket.connect", |_| Ok(())));
        }
        if let Some(frame) = state.incoming.pop_front() {
            let had_room = state.has_room();
            state.incoming_size -= frame.len() + PER_MESSAGE;
            // It waits for room only where there was none.
            let pump = if had_room { None } else { state.pump.take() };
            drop(state);
            if let Some(pump) = pump {
                pump.wake();
            }
            return Poll::Ready(event(py, "websocket.receive", |message| match frame {
                Frame::Text(text) => message.set_item(intern!(py, "text"), text.as_str()),
                frame => message.set_item(intern!(py, "bytes"), PyBytes::new(py, &frame.into_data())),
            }));
        }
        let end = match &state.phase {
            // The handshake was refused, so there is nothing to come.
            Phase::Denied => Some((1006, String::new())),
            _ => state.end.clone(),
        };
        let Some((code, reason)) = end else {
            state.receivers.add(cx.waker());
            return Poll::Pending;
        };
        drop(state);
        Poll::Ready(event(py, "websocket.disconnect", |message| {
            message.set_item(intern!(py, "code"), code)?;
            message.set_item(intern!(py, "reason"), reason)
        }))
    }
}

impl State {
    /// Whether the client may be read from.
    pub(super) fn has_room(&self) -> bool {
        self.incoming_size < RECEIVE_AHEAD
    }

    pub(super) fn received(&mut self, frame: Frame) {
        self.incoming_size += frame.len() + PER_MESSAGE;
        self.incoming.push_back(frame);
        self.receivers.take().wake();
    }

    pub(super) fn take_outgoing(&mut self) -> Option<Frame> {
        let frame = self.outgoing.pop_front()?;
        self.outgoing_size -= frame.len() + PER_MESSAGE;
        if self.outgoing_size < HIGH_WATER {
            self.senders.take().wake();
        }
        Some(frame)
    }

    /// Nothing more comes or goes.
    pub(super) fn over(&mut self, code: u16, reason: String) {
        self.end.get_or_insert((code, reason));
        self.outgoing.clear();
        self.outgoing_size = 0;
        self.wake();
        self.settle();
    }

    /// From then on the call counts no more, whoever in Python still has its `receive` and `send`.
    fn settle(&mut self) {
        if self.is_ended && (self.end.is_some() || self.phase == Phase::Denied) {
            self.active = None;
        }
    }

    /// Whoever waits has news.
    fn wake(&mut self) {
        self.receivers.take().wake();
        self.senders.take().wake();
    }
}

impl Guest for WebSocketExchange {
    fn drain(&self) {
        let mut state = self.state();
        state.is_leaving = true;
        if state.phase == Phase::Open && state.end.is_none() {
            self.leave(&mut state);
        }
    }
}

fn event(py: Python<'_>, kind: &str, fill: impl FnOnce(&Bound<'_, PyDict>) -> PyResult<()>) -> PyResult<Py<PyAny>> {
    let message = PyDict::new(py);
    message.set_item(intern!(py, "type"), kind)?;
    fill(&message)?;
    Ok(message.into_any().unbind())
}

impl Start for WebSocketExchange {
    fn start(self: Arc<Self>, py: Python<'_>) {
        let mut state = self.state();
        let request = state.request.take();
        let subprotocols = state
            .handshake
            .as_ref()
            .map(|handshake| handshake.subprotocols.clone())
            .unwrap_or_default();
        drop(state);
        let Some((parts, ends)) = request else { return };
        let site = self.site.clone();
        let begun = site
            .templates
            .scope(py, Kind::WebSocket, &parts, &site.settings, &ends)
            .and_then(|scope| {
                scope.set_item(intern!(py, "subprotocols"), PyList::new(py, subprotocols)?)?;
                let receive = Bound::new(py, WebSocketReceive(self.clone()))?.into_any();
                let send = Bound::new(py, WebSocketSend(self.clone()))?.into_any();
                Ok((scope, receive, send))
            });
        match begun {
            Ok((scope, receive, send)) => {
                site.enter(&self);
                run(&site, self, scope.into_any(), receive, send);
            }
            Err(error) => self.finished(py, Err(error)),
        }
    }
}

impl Exchange for WebSocketExchange {
    fn finished(&self, py: Python<'_>, outcome: PyResult<()>) {
        let mut state = self.state();
        let is_over = state.end.is_some();
        let is_decided = !matches!(state.phase, Phase::New | Phase::Deciding | Phase::Denying { .. });
        match state.phase {
            Phase::Open if !is_over => self.close(&mut state, if outcome.is_ok() { 1000 } else { 1011 }, ""),
            Phase::New | Phase::Deciding | Phase::Denying { .. } if !is_over => {
                let text = Bytes::from_static(b"Internal Server Error");
                self.deny(&mut state, StatusCode::INTERNAL_SERVER_ERROR, HeaderMap::new(), text);
            }
            _ => {}
        }
        state.incoming.clear();
        state.incoming_size = 0;
        state.is_ended = true;
        state.settle();
        drop(state);
        match outcome {
            Ok(()) if is_decided || is_over => {}
            Ok(()) => self
                .site
                .report(py, "the ASGI application returned without answering a WebSocket", None),
            Err(error) if is_over && error.is_instance_of::<ClientDisconnected>(py) => {}
            Err(error) => self.site.report(py, "exception in the ASGI application", Some(&error)),
        }
    }
}

/// The response to the handshake, for the connection.
pub(crate) struct Answer(pub(crate) Arc<WebSocketExchange>);

impl Answer {
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Response<ResponseBody>> {
        self.0.state().reply.poll(cx)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if matches!(state.phase, Phase::New | Phase::Deciding | Phase::Denying { .. }) {
            state.over(1006, String::new());
        }
    }
}

/// `receive`
#[pyclass(module = "wireloom._wireloom", frozen)]
struct WebSocketReceive(Arc<WebSocketExchange>);

#[pymethods]
impl WebSocketReceive {
    fn __call__(&self) -> Await {
        Await::new(&self.0.site.hub, Receiving(self.0.clone()))
    }
}

/// `send`
#[pyclass(module = "wireloom._wireloom", frozen)]
struct WebSocketSend(Arc<WebSocketExchange>);

#[pymethods]
impl WebSocketSend {
    fn __call__<'py>(&self, message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.0.send(message)
    }
}

struct Receiving(Arc<WebSocketExchange>);

impl Operation for Receiving {
    fn poll(&mut self, py: Python<'_>, cx: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>> {
        self.0.poll_receive(py, cx)
    }

    fn cancel(&mut self, waker: &Waker) {
        self.0.state().receivers.remove(waker);
    }
}

/// Waits until there is room again.
struct Sending(Arc<WebSocketExchange>);

impl Operation for Sending {
    fn poll(&mut self, py: Python<'_>, cx: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>> {
        let mut state = self.0.state();
        if state.end.is_some() {
            return Poll::Ready(Err(ClientDisconnected::new_err("the WebSocket is closed")));
        }
        if state.outgoing_size < HIGH_WATER {
            return Poll::Ready(Ok(py.None()));
        }
        state.senders.add(cx.waker());
        Poll::Pending
    }

    fn cancel(&mut self, waker: &Waker) {
        self.0.state().senders.remove(waker);
    }
}
