//! The client's task: from connection to connection.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::connection::{Connection, Restored};
use super::dial::Dial;
use super::hooks::Hooks;
use super::request::{Call, Command};
use super::{Backoff, ConnectError, RequestError, SharedSession, Status, backoff};
use crate::engine::{ClientConfig, CloseCode};
use crate::session::Session;
use crate::transport::Ended;

/// What the task is given, and what lives longer than a connection.
pub(super) struct Driver {
    pub(super) dial: Arc<dyn Dial>,
    pub(super) config: ClientConfig,
    pub(super) hooks: Arc<Hooks>,
    pub(super) backoff: Backoff,
    /// For one attempt, from dialling to the restored session.
    pub(super) attempt_timeout: Duration,
    pub(super) request_timeout: Duration,
    /// How often to look whether a server over WebSocket is alive.
    pub(super) liveness: Duration,
    pub(super) session: SharedSession,
    pub(super) status: watch::Sender<Status>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) closes: mpsc::Receiver<Closing>,
    pub(super) cancels: mpsc::UnboundedReceiver<u64>,
    /// Sent before what waits in `commands`.
    pub(super) replay: VecDeque<Call>,
}

/// Who waits for the client to be closed.
pub(super) type Closing = oneshot::Sender<()>;

/// Why a connection is over.
pub(super) enum End {
    /// It was lost, or the server ended it.
    Lost(Ended),
    /// The application wants no more; nobody waits for it if the last handle was dropped.
    Closed(Option<Closing>),
}

impl Driver {
    /// Runs until the client is closed.
    pub(super) async fn run(mut self) {
        let mut failures = 0;
        let (error, waiting) = loop {
            let (mut connection, had_session) = match self.connect(&mut failures).await {
                Ok(connected) => connected,
                Err(end) => break end,
            };
            let (since, kind) = (Instant::now(), connection.kind());
            self.hooks.topics.connections.fetch_add(1, Ordering::Relaxed);
            self.status.send_replace(Status::Connected(kind));
            self.hooks.connected(kind);
            connection.close_if_forgotten(&self, had_session);
            match connection.serve(&mut self).await {
                End::Lost(ended) => {
                    connection.give_up(&mut self, &ended);
                    let error = ConnectError::from(ended.clone());
                    if error.is_final() {
                        connection.end(&ended).await;
                        self.hooks.disconnected(&ended);
                        break (error, None);
                    }
                    failures = if since.elapsed() >= self.backoff.stable {
                        1
                    } else {
                        failures + 1
                    };
                    self.set_connecting(failures, error);
                    self.hooks.disconnected(&ended);
                    connection.end(&ended).await;
                }
                End::Closed(waiting) => {
                    let why = Ended::new(CloseCode::Normal, "closed by the application");
                    connection.give_up(&mut self, &why);
                    connection.end(&why).await;
                    self.hooks.disconnected(&why);
                    break (ConnectError::Closed, waiting);
                }
            }
        };
        self.finish(&error);
        if let Some(waiting) = waiting {
            // Nobody may wait any more.
            let _ = waiting.send(());
        }
    }

    /// Tries until there is a connection; fails with a final error, or when the client is closed.
    /// Answers whether the client had the session that the connection has.
    async fn connect(&mut self, failures: &mut u32) -> Result<(Connection, bool), (ConnectError, Option<Closing>)> {
        loop {
            if *failures > 0 {
                let pause = self.backoff.pause(*failures - 1, backoff::random());
                self.unless_closed(tokio::time::sleep(pause)).await?;
            }
            let (dial, config, hooks) = (self.dial.clone(), self.config.clone(), self.hooks.clone());
            let session = self.current_session();
            let (timeout, patience) = (self.attempt_timeout, self.request_timeout);
            let attempt = async move {
                let opening = async { Connection::open(dial.dial().await?, config, hooks, session, patience).await };
                let opened = tokio::time::timeout(timeout, opening).await;
                opened.unwrap_or(Err(ConnectError::TimedOut))
            };
            let error = match self.unless_closed(attempt).await? {
                Ok((mut connection, restored)) => {
                    let had_session = self.take_restored(restored, &mut connection);
                    return Ok((connection, had_session));
                }
                Err(error) => error,
            };
            tracing::debug!(%error, failures, "no connection");
            if error.is_final() {
                return Err((error, None));
            }
            *failures = failures.saturating_add(1);
            self.set_connecting(*failures, error);
        }
    }

    /// Waits for `future` while there is no connection.
    async fn unless_closed<T>(
        &mut self,
        future: impl Future<Output = T>,
    ) -> Result<T, (ConnectError, Option<Closing>)> {
        let mut future = std::pin::pin!(future);
        loop {
            tokio::select! {
                biased;
                done = &mut future => return Ok(done),
                closing = self.closes.recv() => return Err((ConnectError::Closed, closing)),
                // What is in the queue is looked at again when it is taken; what is to be sent again, here.
                Some(token) = self.cancels.recv() => self.replay.retain(|call| call.token != token),
            }
        }
    }

    /// Answers whether it is the client's session.
    fn take_restored(&mut self, restored: Restored, connection: &mut Connection) -> bool {
        match restored {
            Restored::Nothing => {}
            Restored::Session(session) => {
                {
                    // Compared and replaced at once: the application may be logging out.
                    let mut current = self.session.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(current) = current.as_mut().filter(|current| current.key == session.key) {
                        current.clone_from(&session);
                    } else {
                        drop(current);
                        connection.close_forgotten_session();
                        return false;
                    }
                }
                self.hooks.session_created(&session);
                return true;
            }
            Restored::Gone => self.forget_session(),
        }
        false
    }

    fn set_connecting(&self, failures: u32, error: ConnectError) {
        self.status.send_replace(Status::Connecting {
            failures,
            last_error: Some(error),
        });
    }

    /// Nothing will be sent any more: whoever waits is told.
    fn finish(mut self, error: &ConnectError) {
        self.status.send_replace(Status::Closed(error.clone()));
        self.commands.close();
        for call in self.replay.drain(..) {
            let error = if call.was_sent {
                RequestError::Disconnected(Ended::lost(error))
            } else {
                RequestError::Closed(error.clone())
            };
            let _ = call.reply.send(Err(error));
        }
        while let Ok(command) = self.commands.try_recv() {
            command.fail(RequestError::Closed(error.clone()));
        }
    }

    pub(super) fn current_session(&self) -> Option<Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_session(&self, session: Session) {
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(session.clone());
        self.hooks.session_created(&session);
    }

    pub(super) fn forget_session(&self) {
        let had = self.session.lock().unwrap_or_else(PoisonError::into_inner).take();
        if had.is_some() {
            self.hooks.session_closed();
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // A hook has panicked, or the runtime is over: nobody shall go on believing that there is a connection.
        self.status.send_if_modified(|status| {
            let was_open = !matches!(status, Status::Closed(_));
            if was_open {
                *status = Status::Closed(ConnectError::Closed);
            }
            was_open
        });
        self.hooks.listeners.close();
    }
}
