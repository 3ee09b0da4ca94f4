//! A WebTransport session.

use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use wireloom_proto::h3::priority::Priority;
use wireloom_proto::webtransport::negotiate::Dialect;
use wireloom_proto::{Dir, SessionId, datagram};

use crate::datagrams::{DatagramCounts, DatagramPolicy};
use crate::driver::{Conn, Driver};
use crate::error::{ConnectionError, DatagramError, SessionError};
use crate::quic::Transport;
use crate::send_group::SendGroup;
use crate::statistics::{SessionStats, Traffic};
use crate::stream::{RecvStream, SendStream};
use crate::tls::TlsInfo;
use crate::wake::{Signals, Topic, WakeList};

/// What a session's handles and the connection's driver share.
pub(crate) struct SessionState {
    pub(crate) id: SessionId,
    unique_id: u64,
    pub(crate) signals: Arc<Signals>,
    answer: OnceLock<Box<Answer>>,
    ended: OnceLock<SessionError>,
    draining: AtomicBool,
    /// What may wait of datagrams on their way out, or how long, is less than by default.
    datagram_policy: AtomicBool,
    /// How many send groups there were.
    groups: AtomicU64,
    /// The peer reads no more of the CONNECT stream; the end of the session follows.
    stopped: AtomicBool,
    pub(crate) traffic: Traffic,
    pub(crate) span: tracing::Span,
    /// The quarter stream id that every datagram begins with (RFC 9297 section 2.1), and its length.
    prefix: ([u8; 8], usize),
}

/// What the server answered to the CONNECT.
pub(crate) struct Answer {
    /// Client only.
    pub(crate) response: Option<http::Response<()>>,
    pub(crate) protocol: Option<String>,
}

/// How many sessions this process has had.
static SESSIONS: AtomicU64 = AtomicU64::new(0);

impl SessionState {
    pub(crate) fn new(id: SessionId, span: tracing::Span) -> Self {
        let mut prefix = [0; 8];
        let mut rest = &mut prefix[..];
        datagram::encode_prefix(id.stream(), &mut rest);
        let len = 8 - rest.len();
        Self {
            id,
            unique_id: SESSIONS.fetch_add(1, Ordering::Relaxed),
            signals: Arc::default(),
            answer: OnceLock::new(),
            ended: OnceLock::new(),
            draining: AtomicBool::new(false),
            datagram_policy: AtomicBool::new(false),
            groups: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            traffic: Traffic::default(),
            span,
            prefix: (prefix, len),
        }
    }

    pub(crate) fn datagram_prefix(&self) -> &[u8] {
        &self.prefix.0[..self.prefix.1]
    }

    pub(crate) fn has_datagram_policy(&self) -> bool {
        self.datagram_policy.load(Ordering::Relaxed)
    }

    pub(crate) fn answer(&self) -> Option<&Answer> {
        self.answer.get().map(|answer| &**answer)
    }

    pub(crate) fn set_answer(&self, answer: Answer) {
        // There is one.
        let _ = self.answer.set(Box::new(answer));
    }

    pub(crate) fn ended(&self) -> Option<&SessionError> {
        self.ended.get()
    }

    pub(crate) fn set_ended(&self, error: SessionError) {
        // The first reason is the reason.
        let _ = self.ended.set(error);
    }

    pub(crate) fn set_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    pub(crate) fn set_stopped(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(crate) async fn closed(&self) -> SessionError {
        loop {
            let mut notified = pin!(self.signals.notified(Topic::State));
            notified.as_mut().enable();
            if let Some(ended) = self.ended() {
                return ended.clone();
            }
            notified.await;
        }
    }

    /// The reason for the end, which HTTP/3 knew before it was told here.
    pub(crate) fn end_or_gone(&self) -> SessionError {
        self.ended()
            .cloned()
            .unwrap_or(SessionError::Connection(ConnectionError::LocallyClosed))
    }
}

/// A WebTransport session: streams and datagrams between this program and one peer.
///
/// A cheap handle: clone it and use it from any task. The session is closed, with code 0 and no reason, when the last clone
/// and the last of its streams are dropped; [`Session::close`] says more. Closing it never closes the connection, which
/// may carry other sessions and requests.
///
/// Every `async` method is cancel safe: dropping its future before it resolves takes nothing and loses nothing.
///
/// ```no_run
/// # async fn f(session: wireloom::Session) -> Result<(), Box<dyn std::error::Error>> {
/// let (mut send, mut recv) = session.open_bi().await?;
/// send.write_all(b"hello").await?;
/// send.finish()?;
/// let answer = recv.read_to_end(64 * 1024).await?;
/// session.send_datagram(&answer)?;
/// session.close(0, "done");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Session(Arc<Handle>);

/// Closes the session when the last clone is dropped.
pub(crate) struct Handle {
    pub(crate) conn: Arc<Conn>,
    pub(crate) state: Arc<SessionState>,
    dialect: Dialect,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.state.ended().is_none() {
            self.conn.with(|quic, driver, wakes| {
                driver.abandon_session(Instant::now(), quic, wakes, self.state.id);
            });
        }
    }
}

impl Session {
    pub(crate) fn new(conn: Arc<Conn>, state: Arc<SessionState>, dialect: Dialect) -> Self {
        Self(Arc::new(Handle { conn, state, dialect }))
    }

    pub(crate) fn state(&self) -> &SessionState {
        &self.0.state
    }

    /// Opens a bidirectional stream. The peer sees it at once, before anything is written.
    ///
    /// Waits while the peer's limit on open streams is reached.
    ///
    /// # Errors
    /// The session or its connection is over.
    pub async fn open_bi(&self) -> Result<(SendStream, RecvStream), SessionError> {
        let id = self.open(Dir::Bi).await?;
        Ok((SendStream::new(self.0.clone(), id), RecvStream::new(self.0.clone(), id)))
    }

    /// Opens a unidirectional stream. The peer sees it at once, before anything is written.
    ///
    /// Waits while the peer's limit on open streams is reached.
    ///
    /// # Errors
    /// The session or its connection is over.
    pub async fn open_uni(&self) -> Result<SendStream, SessionError> {
        let id = self.open(Dir::Uni).await?;
        Ok(SendStream::new(self.0.clone(), id))
    }

    async fn open(&self, dir: Dir) -> Result<wireloom_proto::StreamId, SessionError> {
        let topic = match dir {
            Dir::Bi => Topic::Bi,
            Dir::Uni => Topic::Uni,
        };
        let Handle { conn, state, .. } = &*self.0;
        let try_open = || conn.with(|quic, driver, _| driver.open_stream(quic, state, dir).transpose());
        if let Some(opened) = try_open() {
            return opened;
        }
        let signals = conn.with(|_, driver, _| driver.signals.clone());
        loop {
            let mut ended = pin!(state.signals.notified(Topic::State));
            ended.as_mut().enable();
            {
                let mut room = pin!(signals.notified(topic));
                room.as_mut().enable();
                if let Some(opened) = try_open() {
                    // There may be room for the next in line too.
                    signals.one(topic);
                    return opened;
                }
                if !state.is_stopped() {
                    tokio::select! {
                        () = room => {}
                        () = ended => {}
                    }
                    continue;
                }
            }
            // Nothing but the end can follow: the room is for the sessions beside this one.
            signals.one(topic);
            ended.await;
        }
    }

    /// A new send group. The groups of a session share evenly; see [`SendGroup`].
    ///
    /// ```no_run
    /// # async fn f(session: wireloom::Session) -> Result<(), Box<dyn std::error::Error>> {
    /// let audio = session.create_send_group();
    /// let frame = session.open_uni().await?;
    /// frame.set_send_group(&audio)?;
    /// frame.set_send_order(7); // before frame 6, if that still waits
    /// # Ok(()) }
    /// ```
    pub fn create_send_group(&self) -> SendGroup {
        let before = self.0.state.groups.fetch_add(1, Ordering::Relaxed);
        SendGroup::new(&self.0.state, NonZeroU64::MIN.saturating_add(before))
    }

    /// Sets how urgent the session is among the sessions and requests of its connection, on this end (RFC 9218); a client
    /// tells the server, too (PRIORITY_UPDATE). Data of a more urgent one goes first; among equals sessions share evenly,
    /// [`incremental`](Priority::incremental) or not. Does nothing once the session is over.
    ///
    /// A server that wants to tell the client uses the field `priority` of the response that accepts the session.
    pub fn set_priority(&self, priority: Priority) {
        let Handle { conn, state, .. } = &*self.0;
        conn.with(|quic, driver, wakes| driver.set_priority(quic, wakes, state.id.stream(), priority));
    }

    /// How urgent the session is on this end: as the request said (a server honours its field `priority`, and the client's later
    /// updates), or [`set_priority`](Self::set_priority). The default once the session is over.
    pub fn priority(&self) -> Priority {
        let Handle { conn, state, .. } = &*self.0;
        conn.with(|_, driver, _| driver.session_priority(state.id))
            .unwrap_or_default()
    }

    /// The next bidirectional stream that the peer opens.
    ///
    /// # Errors
    /// The session or its connection is over. Streams that were not accepted by then are gone: the end of a session resets
    /// all of its streams.
    pub async fn accept_bi(&self) -> Result<(SendStream, RecvStream), SessionError> {
        let (stream, handle) = (self.accept(Dir::Bi).await?, &self.0);
        Ok((
            SendStream::new(handle.clone(), stream.id),
            RecvStream::incoming(handle.clone(), stream),
        ))
    }

    /// The next unidirectional stream that the peer opens.
    ///
    /// # Errors
    /// As [`accept_bi`](Self::accept_bi).
    pub async fn accept_uni(&self) -> Result<RecvStream, SessionError> {
        let stream = self.accept(Dir::Uni).await?;
        Ok(RecvStream::incoming(self.0.clone(), stream))
    }

    async fn accept(&self, dir: Dir) -> Result<crate::driver::IncomingStream, SessionError> {
        let topic = match dir {
            Dir::Bi => Topic::Bi,
            Dir::Uni => Topic::Uni,
        };
        self.wait(topic, |quic, driver, wakes, id| {
            driver.take_stream(quic, wakes, id, dir)
        })
        .await
    }

    /// The next datagram. Those that the application does not take in time are dropped, the oldest first
    /// ([`datagram_queue`](crate::ServerBuilder::datagram_queue)).
    ///
    /// # Errors
    /// The session or its connection is over.
    pub async fn recv_datagram(&self) -> Result<Bytes, SessionError> {
        self.wait(Topic::Datagram, |_, driver, _, id| driver.take_datagram(id))
            .await
    }

    /// Appends the datagrams that have come to `into`, at most `limit`, and answers how many; waits for the first. Cheaper than one
    /// call for each where many come. Cancel safe: what is not appended stays.
    ///
    /// # Errors
    /// As [`recv_datagram`](Self::recv_datagram).
    ///
    /// ```no_run
    /// # async fn f(session: wireloom::Session) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut datagrams = Vec::new();
    /// while session.recv_datagrams(&mut datagrams, 256).await.is_ok() {
    ///     for datagram in datagrams.drain(..) {
    ///         println!("{} bytes", datagram.len());
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn recv_datagrams(&self, into: &mut Vec<Bytes>, limit: usize) -> Result<usize, SessionError> {
        if limit == 0 {
            return Ok(0);
        }
        self.wait(Topic::Datagram, |_, driver, _, id| {
            driver.take_datagrams(id, into, limit)
        })
        .await
    }

    /// Takes one thing from a queue of the session, waiting for it; `take` says whether there is more, for the next waiter.
    async fn wait<T>(
        &self,
        topic: Topic,
        mut take: impl FnMut(&mut Transport, &mut Driver, &mut WakeList, SessionId) -> Option<(T, bool)>,
    ) -> Result<T, SessionError> {
        let Handle { conn, state, .. } = &*self.0;
        let mut attempt = |waited: bool| -> Option<Result<T, SessionError>> {
            let taken = conn.with(|quic, driver, wakes| take(quic, driver, wakes, state.id));
            match taken {
                Some((thing, more)) => {
                    // Who was woken passes the baton on; who never waited holds none.
                    if more && waited {
                        state.signals.one(topic);
                    }
                    Some(Ok(thing))
                }
                None => state.ended().cloned().map(Err),
            }
        };
        if let Some(result) = attempt(false) {
            return result;
        }
        loop {
            let mut notified = pin!(state.signals.notified(topic));
            notified.as_mut().enable();
            if let Some(result) = attempt(true) {
                return result;
            }
            notified.await;
        }
    }

    /// Sends a datagram, unreliably and unordered. Returns at once: where datagrams are queued faster than the network takes
    /// them, the session's oldest that still wait here are dropped ([`DatagramPolicy`]). Datagrams go ahead of stream data;
    /// the sessions of a connection take turns with theirs.
    ///
    /// # Errors
    /// It is larger than [`max_datagram_size`](Self::max_datagram_size), the peer takes no datagrams, or the session is over.
    pub fn send_datagram(&self, payload: &[u8]) -> Result<(), DatagramError> {
        self.0
            .conn
            .with(|quic, driver, wakes| driver.send_datagram(quic, wakes, &self.0.state, payload, true))
            .map(drop)
    }

    /// What becomes of datagrams that have to wait. The default once the session is over.
    pub fn datagram_policy(&self) -> DatagramPolicy {
        let found = self.0.conn.with(|_, driver, _| driver.datagram_policy(self.0.state.id));
        found.map(|(policy, _)| policy).unwrap_or_default()
    }

    /// Changes what becomes of datagrams that have to wait, from now on.
    pub fn set_datagram_policy(&self, policy: DatagramPolicy) {
        let Handle { conn, state, .. } = &*self.0;
        state.datagram_policy.store(policy.limits_outgoing(), Ordering::Relaxed);
        conn.with(|_, driver, _| driver.set_datagram_policy(state.id, policy));
    }

    /// How many datagrams were dropped on this end. Zeros once the session is over.
    pub fn datagram_counts(&self) -> DatagramCounts {
        let found = self.0.conn.with(|_, driver, _| driver.datagram_policy(self.0.state.id));
        found.map(|(_, counts)| counts).unwrap_or_default()
    }

    /// Sends a datagram, waiting for room instead of dropping older ones.
    ///
    /// # Errors
    /// As [`send_datagram`](Self::send_datagram).
    pub async fn send_datagram_wait(&self, payload: &[u8]) -> Result<(), DatagramError> {
        let Handle { conn, state, .. } = &*self.0;
        let attempt = || conn.with(|quic, driver, wakes| driver.send_datagram(quic, wakes, state, payload, false));
        if attempt()? {
            return Ok(());
        }
        let signals = conn.with(|_, driver, _| driver.signals.clone());
        loop {
            let mut room = pin!(signals.notified(Topic::Datagram));
            let mut own_room = pin!(state.signals.notified(Topic::DatagramRoom));
            let mut ended = pin!(state.signals.notified(Topic::State));
            room.as_mut().enable();
            own_room.as_mut().enable();
            ended.as_mut().enable();
            // There may be room for the next in line, too, also where this one could make no use of it.
            let pass_on = || {
                signals.one(Topic::Datagram);
                state.signals.one(Topic::DatagramRoom);
            };
            if attempt().inspect_err(|_| pass_on())? {
                pass_on();
                return Ok(());
            }
            tokio::select! {
                () = room => {}
                () = own_room => {}
                () = ended => {}
            }
        }
    }

    /// The largest payload that a datagram can carry now, in bytes; it follows the path's MTU. `None` if the peer takes no
    /// datagrams or the session is over.
    pub fn max_datagram_size(&self) -> Option<usize> {
        let Handle { conn, state, .. } = &*self.0;
        if state.ended().is_some() {
            return None;
        }
        max_datagram_size(conn, state)
    }

    /// Closes the session, with a code and a reason for the peer (WT_CLOSE_SESSION, draft-ietf-webtrans-http3 section 6).
    ///
    /// The reason is cut at 1024 bytes, at a character boundary. Open streams are reset. The first close counts; later ones
    /// do nothing. Returns at once: the peer's confirmation is awaited in the background, as long as the endpoint lives.
    pub fn close(&self, code: u32, reason: &str) {
        self.0.conn.with(|quic, driver, wakes| {
            driver.close_session(Instant::now(), quic, wakes, self.0.state.id, code, reason);
        });
    }

    /// Ends the session as one that failed here: the CONNECT stream is reset (H3_INTERNAL_ERROR), and the peer is told no code
    /// and no reason. Open streams are reset. Does nothing once the session is over.
    pub fn abort(&self) {
        self.0.conn.with(|quic, driver, wakes| {
            driver.abort_session(Instant::now(), quic, wakes, self.0.state.id);
        });
    }

    /// Waits until the session is over and says why.
    pub async fn closed(&self) -> SessionError {
        self.0.state.closed().await
    }

    /// Why the session is over, if it is.
    pub fn close_reason(&self) -> Option<SessionError> {
        self.0.state.ended().cloned()
    }

    /// Asks the peer to end the session soon (WT_DRAIN_SESSION, section 4.7). Everything goes on working.
    pub fn drain(&self) {
        self.0.conn.with(|quic, driver, wakes| {
            driver.drain_session(Instant::now(), quic, wakes, self.0.state.id);
        });
    }

    /// Waits until the peer asks that the session be ended soon (WT_DRAIN_SESSION or GOAWAY), or it is over.
    pub async fn draining(&self) {
        let state = &self.0.state;
        loop {
            let mut notified = pin!(state.signals.notified(Topic::State));
            notified.as_mut().enable();
            if state.draining.load(Ordering::Acquire) || state.ended().is_some() {
                return;
            }
            notified.await;
        }
    }

    /// The subprotocol that was agreed on (WT-Protocol, section 3.3).
    pub fn protocol(&self) -> Option<&str> {
        self.0.state.answer()?.protocol.as_deref()
    }

    /// The draft in which the session speaks.
    pub fn dialect(&self) -> Dialect {
        self.0.dialect
    }

    /// Client: the server's response, status and fields.
    pub fn response(&self) -> Option<&http::Response<()>> {
        self.0.state.answer()?.response.as_ref()
    }

    /// Counters of the session, and counters and estimates of the connection under it. They can still be read when it is over.
    pub fn stats(&self) -> SessionStats {
        let Handle { conn, state, .. } = &*self.0;
        conn.with(|quic, _, _| state.traffic.stats(quic.stats()))
    }

    /// The session's span (level DEBUG, named `session`, with `id`, `path` and `draft`, in that of its connection), for tasks
    /// that work for it: `task.instrument(session.span().clone())`. Handlers given to
    /// [`on_upgrade`](crate::WebTransportUpgrade::on_upgrade) run in it.
    pub fn span(&self) -> &tracing::Span {
        &self.0.state.span
    }

    /// Keying material bound to this session (draft-ietf-webtrans-http3-16 section 4.8): a TLS exporter whose context names the
    /// session, the label and the context. Both ends get the same `N` bytes; other sessions on the connection get others.
    ///
    /// # Errors
    /// `None` if the label is empty, label or context are longer than 255 bytes, or TLS refuses the length.
    pub fn export_keying_material<const N: usize>(&self, label: &[u8], context: &[u8]) -> Option<[u8; N]> {
        if label.is_empty() {
            return None;
        }
        let mut bound = Vec::with_capacity(10 + label.len() + context.len());
        // "the resulting exporter MUST be a TLS exporter" (draft 16 section 4.8) with this label and context.
        bound.extend_from_slice(&self.0.state.id.into_u64().to_be_bytes());
        bound.push(u8::try_from(label.len()).ok()?);
        bound.extend_from_slice(label);
        bound.push(u8::try_from(context.len()).ok()?);
        bound.extend_from_slice(context);
        let mut out = [0; N];
        let done = self
            .0
            .conn
            .with(|quic, _, _| quic.export_keying_material(&mut out, b"EXPORTER-WebTransport", &bound));
        done.then_some(out)
    }

    /// What TLS has agreed on, and the peer's certificates: on a client those of the server, on a server those of a client that
    /// has shown one ([`client_auth`](crate::ServerBuilder::client_auth)).
    pub fn tls_info(&self) -> TlsInfo {
        self.0.conn.with(|quic, driver, _| driver.tls_info(quic))
    }

    /// Where the peer is now; it changes when the peer migrates.
    pub fn remote_address(&self) -> SocketAddr {
        self.0.conn.with(|quic, _, _| quic.remote_address())
    }

    /// A number that no other session of this process has, or ever had: the key for a map of sessions. Clones have the same one.
    ///
    /// ```
    /// # fn joined(session: wireloom::Session) {
    /// let mut members = std::collections::HashMap::new();
    /// members.insert(session.unique_id(), session);
    /// # }
    /// ```
    #[doc(alias = "stable_id")]
    pub fn unique_id(&self) -> u64 {
        self.0.state.unique_id
    }

    /// The session's identifier on the wire: the number of its CONNECT stream on the connection. The first session of every
    /// connection has 0, and browsers open no second one: [`unique_id`](Self::unique_id) is what tells sessions apart.
    pub fn id(&self) -> u64 {
        self.0.state.id.into_u64()
    }
}

/// What fits into a datagram of the session now.
pub(crate) fn max_datagram_size(conn: &Arc<Conn>, state: &SessionState) -> Option<usize> {
    let max = conn.with(|quic, _, _| quic.max_datagram_size())?;
    Some(max.saturating_sub(state.datagram_prefix().len()))
}

/// Clones are equal, and no others: sessions are compared by [`unique_id`](Session::unique_id).
impl PartialEq for Session {
    fn eq(&self, other: &Self) -> bool {
        self.unique_id() == other.unique_id()
    }
}

impl Eq for Session {}

/// By [`unique_id`](Session::unique_id), which never changes: Clippy's `mutable_key_type` is a false alarm for sets of sessions.
impl Hash for Session {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.unique_id().hash(state);
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("unique_id", &self.unique_id())
            .field("id", &self.id())
            .field("ended", &self.0.state.ended())
            .finish_non_exhaustive()
    }
}
