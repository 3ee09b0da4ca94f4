//! The messages of the `webtransport` scope: what the application receives, and what it may send.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use pyo3::exceptions::{PyAssertionError, PyNotImplementedError, PyRuntimeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use wireloom::{DatagramError, WriteError};

use super::exchange::{Exchange, run, sent, was_ready};
use super::message::Message;
use super::scope::Kind as ScopeKind;
use super::webtransport::{End, MAX_OPENINGS, Phase, State, WebTransportExchange, end_session, poll_once};
use crate::awaitable::{Await, Operation};
use crate::errors::ClientDisconnected;
use crate::hub::{Delivery, Start};
use crate::library::failure;

/// The longest reason of a close, in bytes (draft-ietf-webtrans-http3 section 6).
const MAX_REASON: usize = 1024;

/// Pieces of one stream that wait for QUIC; above this a send is refused instead of kept: its application does not await.
const MAX_WAITING: usize = 4096;

/// Something that the application receives.
#[derive(Debug)]
pub(super) enum Event {
    Connect,
    Data { id: u64, data: Bytes, more: bool },
    Opened { id: u64, bidirectional: bool },
    Reset { id: u64, code: Option<u32> },
    Stopped { id: u64, code: Option<u32> },
    Datagram(Bytes),
    Drain,
    Disconnect(End),
}

impl Event {
    fn into_message(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let message = PyDict::new(py);
        let set = |kind: &Bound<'_, pyo3::types::PyString>| message.set_item(intern!(py, "type"), kind);
        match self {
            Self::Connect => set(intern!(py, "webtransport.connect"))?,
            Self::Data { id, data, more } => {
                set(intern!(py, "webtransport.stream.receive"))?;
                message.set_item(intern!(py, "stream"), id)?;
                message.set_item(intern!(py, "data"), PyBytes::new(py, &data))?;
                message.set_item(intern!(py, "more_data"), more)?;
            }
            Self::Opened { id, bidirectional } => {
                set(intern!(py, "webtransport.stream.opened"))?;
                message.set_item(intern!(py, "stream"), id)?;
                message.set_item(intern!(py, "bidirectional"), bidirectional)?;
            }
            Self::Reset { id, code } => {
                set(intern!(py, "webtransport.stream.reset"))?;
                message.set_item(intern!(py, "stream"), id)?;
                message.set_item(intern!(py, "code"), code)?;
            }
            Self::Stopped { id, code } => {
                set(intern!(py, "webtransport.stream.stopped"))?;
                message.set_item(intern!(py, "stream"), id)?;
                message.set_item(intern!(py, "code"), code)?;
            }
            Self::Datagram(data) => {
                set(intern!(py, "webtransport.datagram.receive"))?;
                message.set_item(intern!(py, "data"), PyBytes::new(py, &data))?;
            }
            Self::Drain => set(intern!(py, "webtransport.drain"))?,
            Self::Disconnect(End { code, reason, clean }) => {
                set(intern!(py, "webtransport.disconnect"))?;
                message.set_item(intern!(py, "code"), code)?;
                message.set_item(intern!(py, "reason"), reason)?;
                message.set_item(intern!(py, "clean"), clean)?;
            }
        }
        Ok(message.into_any().unbind())
    }
}

fn gone() -> PyErr {
    ClientDisconnected::new_err("the WebTransport session is over")
}

/// There is no session yet.
fn not_yet() -> PyErr {
    PyRuntimeError::new_err("the client does not know yet that it is accepted: the acceptance is to be awaited first")
}

impl WebTransportExchange {
    /// What the application sends.
    fn send<'py>(self: &Arc<Self>, message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = message.py();
        let message = Message::new(message)?;
        match message.kind()? {
            "webtransport.stream.send" => {
                if let Some(waiting) = self.send_data(&message)? {
                    return Ok(Bound::new(py, Await::new(&self.site.hub, waiting))?.into_any());
                }
            }
            "webtransport.datagram.send" => self.send_datagram(&message)?,
            "webtransport.stream.open" => self.open_stream(&message)?,
            "webtransport.stream.reset" => self.reset_stream(&message)?,
            "webtransport.stream.stop" => self.stop_stream(&message)?,
            "webtransport.stream.pause" => self.pause_stream(&message, true)?,
            "webtransport.stream.resume" => self.pause_stream(&message, false)?,
            "webtransport.accept" => {
                self.send_accept(&message)?;
                let waiting = Await::new(&self.site.hub, Accepting(self.clone()));
                return Ok(Bound::new(py, waiting)?.into_any());
            }
            "webtransport.close" => self.send_close(&message)?,
            _ => return Err(message.unexpected("'webtransport.…'")),
        }
        let is_turn = was_ready(&mut self.state().ready);
        sent(py, &self.site, is_turn)
    }

    fn send_accept(self: &Arc<Self>, message: &Message<'_, '_>) -> PyResult<()> {
        let subprotocol = message.text(intern!(message.py(), "subprotocol"))?;
        let mut headers = HeaderMap::new();
        message.headers(&mut headers)?;
        super::fields::prepare(&mut headers, http::Version::HTTP_3, &self.site.settings.headers);
        let mut state = self.state();
        if state.end.is_some() {
            return Err(gone());
        }
        let Some(upgrade) = state.upgrade.take() else {
            return Err(message.unexpected("'webtransport.stream.send' or another of an open session"));
        };
        let mut upgrade = upgrade;
        if let Some(subprotocol) = subprotocol {
            if !upgrade.offered_protocols().contains(&subprotocol) {
                let offered = upgrade.offered_protocols().join(", ");
                state.upgrade = Some(upgrade);
                return Err(PyValueError::new_err(format!(
                    "the client did not offer the subprotocol {subprotocol:?}, but: {offered}"
                )));
            }
            upgrade = upgrade.protocols([subprotocol]);
        }
        let mut name = None;
        for (next, value) in headers {
            // A name is given once for all of its values.
            name = next.or(name);
            if let Some(name) = &name {
                upgrade = upgrade.response_header(name.clone(), value);
            }
        }
        self.accept(&mut state, upgrade);
        Ok(())
    }

    fn send_close(self: &Arc<Self>, message: &Message<'_, '_>) -> PyResult<()> {
        let py = message.py();
        let code = message.code(intern!(py, "code"))?.unwrap_or(0);
        let reason = message.text(intern!(py, "reason"))?.unwrap_or_default();
        if reason.len() > MAX_REASON {
            return Err(PyValueError::new_err("'reason' has at most 1024 bytes"));
        }
        let status = message.integer(intern!(py, "status"))?;
        let mut headers = HeaderMap::new();
        message.headers(&mut headers)?;
        let mut state = self.state();
        match state.phase {
            Phase::New | Phase::Deciding => {
                if state.end.is_some() {
                    return Err(gone());
                }
                let refusing = |status: &u64, range: std::ops::Range<u64>| range.contains(status);
                let status = match status {
                    Some(status) if refusing(&status, 300..600) => status,
                    Some(_) => return Err(PyValueError::new_err("'status' is a number from 300 to 599")),
                    None if refusing(&u64::from(code), 400..600) => u64::from(code),
                    None => 403,
                };
                let status = u16::try_from(status)
                    .ok()
                    .and_then(|status| StatusCode::from_u16(status).ok())
                    .unwrap_or(StatusCode::FORBIDDEN);
                self.deny(&mut state, status, headers);
                self.cancel_after_grace();
                Ok(())
            }
            Phase::Denied => Err(PyRuntimeError::new_err("the session was refused before")),
            Phase::Accepting if state.end.is_none() => Err(not_yet()),
            Phase::Accepting | Phase::Open | Phase::Over => {
                let session = state.session.clone();
                let is_over = state.end.is_some();
                drop(state);
                match session {
                    Some(session) if !is_over => {
                        session.close(code, &reason);
                        Ok(())
                    }
                    _ => Err(gone()),
                }
            }
        }
    }

    /// The state, if the session is open.
    fn open_state(&self, message: &Message<'_, '_>) -> PyResult<std::sync::MutexGuard<'_, State>> {
        let state = self.state();
        if state.end.is_some() {
            return Err(gone());
        }
        match state.phase {
            Phase::New | Phase::Deciding => Err(message.unexpected("'webtransport.accept' or 'webtransport.close'")),
            _ => Ok(state),
        }
    }

    fn send_data(self: &Arc<Self>, message: &Message<'_, '_>) -> PyResult<Option<Sending>> {
        let py = message.py();
        let id = stream_id(message)?;
        let data = message.get(intern!(py, "data"))?;
        let ends = message.bool(intern!(py, "end_stream"), false)?;
        let copied;
        let data: &[u8] = match &data {
            None => &[],
            Some(data) => match data.cast::<PyBytes>() {
                Ok(data) => data.as_bytes(),
                Err(_) => {
                    copied = super::message::bytes(data)?;
                    &copied
                }
            },
        };
        let mut state = self.open_state(message)?;
        if id % 4 == 2 {
            return Err(PyValueError::new_err(format!("stream {id} is the client's to send on")));
        }
        let state = &mut *state;
        let Some(stream) = state.streams.get_mut(&id) else {
            return if state.stopped.contains(&id) {
                Ok(None)
            } else {
                Err(no_such_stream(id))
            };
        };
        if stream.is_stopped {
            return Ok(None);
        }
        if stream.ends || stream.send.is_none() {
            return Err(PyRuntimeError::new_err(format!(
                "stream {id} was ended or reset before"
            )));
        }
        if stream.waiting.len() >= MAX_WAITING {
            return Err(PyRuntimeError::new_err("too much is sent without awaiting it"));
        }
        let mut rest = data;
        if stream.waiting.is_empty()
            && let Some(send) = &mut stream.send
        {
            while !rest.is_empty() {
                match poll_once(send.write(rest), stream.writable.waker()) {
                    Poll::Ready(Ok(n)) => rest = &rest[n..],
                    Poll::Ready(Err(WriteError::Stopped(_))) => {
                        // The event of it is on its way.
                        stream.writable.fire();
                        return Ok(None);
                    }
                    Poll::Ready(Err(_)) => {
                        stream.send = None;
                        return Err(gone());
                    }
                    Poll::Pending => break,
                }
            }
        }
        stream.ends = ends;
        if !rest.is_empty() {
            stream.waiting.push_back(Bytes::copy_from_slice(rest));
            stream.queued += 1;
            let until = stream.queued;
            return Ok(Some(Sending {
                exchange: self.clone(),
                id,
                until,
            }));
        }
        if ends {
            stream.flush();
            state.forget_if_over(id);
        }
        Ok(None)
    }

    fn send_datagram(&self, message: &Message<'_, '_>) -> PyResult<()> {
        let data = message.bytes(intern!(message.py(), "data"))?;
        let state = self.open_state(message)?;
        let (session, is_early) = (state.session.clone(), state.phase == Phase::Accepting);
        drop(state);
        let session = session.ok_or_else(if is_early { not_yet } else { gone })?;
        match session.send_datagram(&data) {
            Ok(()) => Ok(()),
            Err(error @ DatagramError::TooLarge { .. }) => Err(failure::datagram(&error)),
            Err(DatagramError::Session(_)) => Err(gone()),
            Err(error) => Err(PyRuntimeError::new_err(error.to_string())),
        }
    }

    fn open_stream(&self, message: &Message<'_, '_>) -> PyResult<()> {
        let bidirectional = message.bool(intern!(message.py(), "bidirectional"), true)?;
        let mut state = self.open_state(message)?;
        if state.openings.len() >= MAX_OPENINGS {
            return Err(PyRuntimeError::new_err("more than 1024 streams wait to be opened"));
        }
        state.openings.push_back(bidirectional);
        drop(state);
        self.own.opening.fire();
        Ok(())
    }

    fn reset_stream(&self, message: &Message<'_, '_>) -> PyResult<()> {
        let id = stream_id(message)?;
        let code = message.code(intern!(message.py(), "code"))?.unwrap_or(0);
        let mut state = self.open_state(message)?;
        if id % 4 == 2 {
            return Err(PyValueError::new_err(format!("stream {id} is the client's to send on")));
        }
        let stream = state.streams.get_mut(&id).ok_or_else(|| no_such_stream(id))?;
        if let Some(mut send) = stream.send.take() {
            send.reset(code);
        }
        stream.ends = true;
        stream.flush();
        // Whoever waits to send on it has nothing to wait for.
        stream.writable.fire();
        state.forget_if_over(id);
        Ok(())
    }

    fn stop_stream(&self, message: &Message<'_, '_>) -> PyResult<()> {
        let id = stream_id(message)?;
        let code = message.code(intern!(message.py(), "code"))?.unwrap_or(0);
        let mut state = self.open_state(message)?;
        if id % 4 == 3 {
            return Err(PyValueError::new_err(format!("nothing is received on stream {id}")));
        }
        let stream = state.streams.get_mut(&id).ok_or_else(|| no_such_stream(id))?;
        stream.stop(code);
        state.forget_if_over(id);
        Ok(())
    }

    fn pause_stream(&self, message: &Message<'_, '_>, pause: bool) -> PyResult<()> {
        let id = stream_id(message)?;
        let mut state = self.open_state(message)?;
        let stream = state.streams.get_mut(&id).ok_or_else(|| no_such_stream(id))?;
        stream.is_paused = pause;
        if !pause {
            stream.readable.fire();
        }
        Ok(())
    }

    /// After the grace period: what the application still does is of no use to anybody.
    pub(super) fn cancel_later(self: &Arc<Self>) {
        self.site.hub.push(Delivery::Start(Arc::new(Cancel(self.clone()))));
    }
}

fn stream_id(message: &Message<'_, '_>) -> PyResult<u64> {
    message
        .integer(intern!(message.py(), "stream"))?
        .ok_or_else(|| PyValueError::new_err("'stream' is missing"))
}

fn no_such_stream(id: u64) -> PyErr {
    PyValueError::new_err(format!("the session has no stream {id}, or it is over"))
}

impl Start for WebTransportExchange {
    fn start(self: Arc<Self>, py: Python<'_>) {
        let mut state = self.state();
        let request = state.request.take();
        let (subprotocols, max_datagram_size) = match &state.upgrade {
            Some(upgrade) => (upgrade.offered_protocols().to_vec(), upgrade.max_datagram_size()),
            None => (Vec::new(), None),
        };
        drop(state);
        let Some((parts, ends)) = request else { return };
        let site = self.site.clone();
        let begun = site
            .templates
            .scope(py, ScopeKind::WebTransport, &parts, &site.settings, &ends)
            .and_then(|scope| {
                scope.set_item(intern!(py, "subprotocols"), PyList::new(py, subprotocols)?)?;
                let extension = PyDict::new(py);
                extension.set_item(intern!(py, "version"), 1)?;
                extension.set_item(intern!(py, "max_datagram_size"), max_datagram_size.unwrap_or(0))?;
                let extensions = scope.as_any().get_item(intern!(py, "extensions"))?;
                extensions.set_item(intern!(py, "webtransport"), extension)?;
                let receive = Bound::new(py, WebTransportReceive(self.clone()))?.into_any();
                let send = Bound::new(py, WebTransportSend(self.clone()))?.into_any();
                Ok((scope, receive, send))
            });
        match begun {
            Ok((scope, receive, send)) => {
                site.enter(&self);
                let task = run(&site, self.clone(), scope.into_any(), receive, send);
                let mut state = self.state();
                let before = std::mem::replace(&mut state.task, task);
                drop(state);
                drop(before);
            }
            Err(error) => self.finished(py, Err(error)),
        }
    }
}

impl Exchange for WebTransportExchange {
    fn finished(&self, py: Python<'_>, outcome: PyResult<()>) {
        let mut state = self.state();
        let (phase, is_over) = (state.phase, state.end.is_some());
        let session = state.session.clone();
        if matches!(phase, Phase::New | Phase::Deciding) && !is_over {
            let status = match &outcome {
                Ok(()) => StatusCode::FORBIDDEN,
                Err(error) if phase == Phase::New && is_unknown_scope(py, error) => StatusCode::METHOD_NOT_ALLOWED,
                Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            self.deny(&mut state, status, HeaderMap::new());
        }
        if phase == Phase::Accepting {
            state.left = Some(outcome.is_ok());
        }
        let released = self.release(&mut state);
        drop(state);
        if let (Some(session), false) = (session, is_over) {
            end_session(&session, outcome.is_ok());
        }
        drop(released);
        match outcome {
            Ok(()) => {}
            Err(error) if is_over && error.is_instance_of::<ClientDisconnected>(py) => {}
            Err(error) if is_over && error.get_type(py).name().is_ok_and(|name| name == "CancelledError") => {}
            Err(error) => self.site.report(py, "exception in the ASGI application", Some(&error)),
        }
    }
}

/// How frameworks say that they do not know a type of scope.
fn is_unknown_scope(py: Python<'_>, error: &PyErr) -> bool {
    let text = error.value(py).to_string().to_ascii_lowercase();
    error.is_instance_of::<PyAssertionError>(py)
        || error.is_instance_of::<PyNotImplementedError>(py)
        || text.contains("scope")
        || text.contains("webtransport")
}

/// `receive`
#[pyclass(module = "wireloom._wireloom", frozen)]
struct WebTransportReceive(Arc<WebTransportExchange>);

#[pymethods]
impl WebTransportReceive {
    fn __call__(&self) -> Await {
        Await::new(&self.0.site.hub, Receiving(self.0.clone()))
    }
}

/// `send`
#[pyclass(module = "wireloom._wireloom", frozen)]
struct WebTransportSend(Arc<WebTransportExchange>);

#[pymethods]
impl WebTransportSend {
    fn __call__<'py>(&self, message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.0.send(message)
    }
}

struct Receiving(Arc<WebTransportExchange>);

impl Operation for Receiving {
    fn poll(&mut self, py: Python<'_>, cx: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>> {
        self.0.poll_event(cx).map(|event| event.into_message(py))
    }

    fn cancel(&mut self, waker: &Waker) {
        self.0.ring.forget(waker);
    }
}

/// Waits until the client has been answered and the session is there.
struct Accepting(Arc<WebTransportExchange>);

impl Operation for Accepting {
    fn poll(&mut self, py: Python<'_>, cx: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>> {
        // A client that is gone meanwhile is told by `webtransport.disconnect`.
        self.0.poll_accepted(cx).map(|()| Ok(py.None()))
    }
}

/// Waits until QUIC has taken a piece.
struct Sending {
    exchange: Arc<WebTransportExchange>,
    id: u64,
    until: u64,
}

impl Operation for Sending {
    fn poll(&mut self, py: Python<'_>, cx: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>> {
        let mut state = self.exchange.state();
        if state.end.is_some() {
            return Poll::Ready(Err(gone()));
        }
        let Some(stream) = state.streams.get_mut(&self.id) else {
            return Poll::Ready(Ok(py.None()));
        };
        // A second time, as what became writable meanwhile has told only those who waited.
        for _ in 0..2 {
            stream.flush();
            if stream.written >= self.until {
                state.forget_if_over(self.id);
                return Poll::Ready(Ok(py.None()));
            }
            stream.writable.also(cx.waker());
        }
        Poll::Pending
    }
}

/// Cancels a task whose session is long over.
struct Cancel(Arc<WebTransportExchange>);

impl Start for Cancel {
    fn start(self: Arc<Self>, py: Python<'_>) {
        let task = self.0.state().task.take();
        if let Some(task) = task
            && let Err(error) = task.call_method0(py, intern!(py, "cancel"))
        {
            error.write_unraisable(py, None);
        }
    }
}
