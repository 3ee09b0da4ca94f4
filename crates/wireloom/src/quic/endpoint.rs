//! The handle of one UDP socket with its connections, and what its task is told through it.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use quinn_proto as qp;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use super::Application;
use super::config::{QuicConfig, ServerConfig, endpoint_config};
use super::ready::{ReadyQueue, Slot};
use super::routing::Routing;
use super::shards::Shards;
use super::socket::Socket;
use super::task::EndpointTask;
use crate::threads::Home;

/// What to do with a connection attempt.
pub(crate) enum Admission<A> {
    /// Go on with the handshake.
    Accept(A),
    /// Have the client prove its address first (RFC 9000 section 8.1.2).
    Retry,
    /// CONNECTION_REFUSED.
    Refuse,
    /// No answer at all.
    Ignore,
}

/// Decides about connection attempts, and gives each connection its application.
pub(crate) trait Acceptor<A>: Send + 'static {
    /// `validated`: the client's address is proven.
    fn admit(&mut self, remote: SocketAddr, validated: bool) -> Admission<A>;
    /// The new connection, so that its application can hand out handles to itself.
    fn accepted(&mut self, slot: &Arc<Slot<A>>);
}

/// An endpoint that only dials.
pub(crate) struct NoAcceptor;

impl<A> Acceptor<A> for NoAcceptor {
    fn admit(&mut self, _: SocketAddr, _: bool) -> Admission<A> {
        Admission::Ignore
    }
    fn accepted(&mut self, _: &Arc<Slot<A>>) {}
}

/// Why no handshake was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DialError {
    /// TLS takes no such server name.
    Name,
    /// Nobody can be at this address: it has port 0, or is the unspecified one.
    Address,
    /// The endpoint is gone.
    Gone,
}

type Connected<A> = Result<Arc<Slot<A>>, qp::ConnectError>;

pub(super) enum Command<A> {
    Connect {
        config: Box<qp::ClientConfig>,
        remote: SocketAddr,
        server_name: String,
        app: A,
        reply: oneshot::Sender<Connected<A>>,
    },
    /// Refuse newcomers.
    StopAccepting,
    /// Replace the socket: every connection migrates.
    Rebind(Box<Socket>),
    /// End the task once the connections are closed.
    Shutdown,
}

/// Waits for the connection that was dialled.
struct Answer<A: Application>(oneshot::Receiver<Connected<A>>);

impl<A: Application> Drop for Answer<A> {
    fn drop(&mut self) {
        self.0.close();
        if let Ok(Ok(slot)) = self.0.try_recv() {
            abandon(&slot);
        }
    }
}

/// Ends a new connection that nobody wants any more.
pub(super) fn abandon<A: Application>(slot: &Arc<Slot<A>>) {
    slot.with(|quic, app, wakes| app.wind_down(Instant::now(), quic, wakes));
}

/// Handle to the tasks of one address, of which each has a socket. They end when this is dropped and their last connections are
/// closed.
pub(crate) struct Endpoint<A: Application> {
    queues: Arc<[Arc<ReadyQueue<A>>]>,
    local_addr: Mutex<SocketAddr>,
    done: Vec<watch::Receiver<bool>>,
    /// Of the first task.
    runtime: Handle,
}

impl<A: Application> Endpoint<A> {
    /// Spawns a task for each of `sockets`, at least one, at its home. They are bound to the same address.
    pub(crate) fn spawn(
        sockets: Vec<(std::net::UdpSocket, Home, impl Acceptor<A>)>,
        quic: &QuicConfig,
        server: Option<&ServerConfig>,
    ) -> io::Result<Self> {
        let (first, home, _) = sockets.first().ok_or(io::ErrorKind::InvalidInput)?;
        let (local_addr, runtime) = (first.local_addr()?, home.handle.clone());
        let queues: Arc<[_]> = sockets.iter().map(|_| Arc::new(ReadyQueue::new())).collect();
        // All of them before the first task: a task would go on, and hold the port, when a later socket fails.
        let sockets = sockets.into_iter().map(|(socket, home, acceptor)| {
            let socket = {
                // It registers with the runtime that is entered.
                let _home = home.handle.enter();
                Socket::new(socket)?
            };
            Ok((socket, home, acceptor))
        });
        let sockets = sockets.collect::<io::Result<Vec<_>>>()?;
        let config = endpoint_config(quic);
        let mut done = Vec::new();
        for (index, (socket, home, acceptor)) in sockets.into_iter().enumerate() {
            let shards = Shards::new(queues.clone(), index, quic.route);
            let mut config = config.clone();
            if let Some(ids) = shards.ids() {
                config.cid_generator(move || Box::new(ids()));
            }
            let server_config = server.map(|server| server.config.clone());
            let endpoint = qp::Endpoint::new(Arc::new(config), server_config, !socket.may_fragment(), None);
            let routing = Routing::new(endpoint, server.cloned(), acceptor, shards);
            let (ended, end) = watch::channel(false);
            home.run(EndpointTask::new(socket, routing, ended));
            done.push(end);
        }
        Ok(Self {
            queues,
            local_addr: Mutex::new(local_addr),
            done,
            runtime,
        })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        *self.local_addr.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its first task is over, as when the runtime has ended.
    pub(crate) fn is_gone(&self) -> bool {
        self.queues[0].is_closed()
    }

    /// Starts a handshake.
    pub(crate) async fn connect(
        &self,
        config: qp::ClientConfig,
        remote: SocketAddr,
        server_name: &str,
        app: A,
    ) -> Result<Arc<Slot<A>>, DialError> {
        let (reply, answer) = oneshot::channel();
        let mut answer = Answer(answer);
        let server_name = server_name.to_owned();
        let command = Command::Connect {
            config: Box::new(config),
            remote,
            server_name,
            app,
            reply,
        };
        // Who dials has one task.
        self.queues[0].command(command).map_err(|_| DialError::Gone)?;
        let connected = (&mut answer.0).await.map_err(|_| DialError::Gone)?;
        connected.map_err(|error| match error {
            qp::ConnectError::InvalidServerName(_) => DialError::Name,
            qp::ConnectError::InvalidRemoteAddress(_) => DialError::Address,
            // It stops, or has no connection ids left. The others are of configurations that we do not make.
            _ => DialError::Gone,
        })
    }

    /// Refuses newcomers from now on.
    pub(crate) fn stop_accepting(&self) {
        for queue in &*self.queues {
            let _ = queue.command(Command::StopAccepting);
        }
    }

    /// Prepares to move every connection of an endpoint that only dials to another socket (RFC 9000 section 9): what is returned does
    /// so, and cannot fail.
    pub(crate) fn rebind(&self, socket: std::net::UdpSocket) -> io::Result<impl FnOnce()> {
        let _entered = self.runtime.enter();
        let local_addr = socket.local_addr()?;
        let socket = Box::new(Socket::new(socket)?);
        Ok(move || {
            if self.queues[0].command(Command::Rebind(socket)).is_ok() {
                *self.local_addr.lock().unwrap_or_else(PoisonError::into_inner) = local_addr;
            }
        })
    }

    /// Closes unused connections, waits until the others are closed too, and ends the tasks.
    pub(crate) async fn shut_down(&self) {
        self.end();
        for mut done in self.done.iter().cloned() {
            // An error means that the task, which owns the sender, is gone.
            let _ = done.wait_for(|done| *done).await;
        }
    }

    /// Resolves when one of the tasks has ended.
    pub(crate) async fn lost(&self) {
        let ends = self.done.iter().cloned().map(|mut done| {
            Box::pin(async move {
                let _ = done.wait_for(|done| *done).await;
            })
        });
        futures_util::future::select_all(ends).await;
    }

    fn end(&self) {
        for queue in &*self.queues {
            let _ = queue.command(Command::Shutdown);
        }
    }
}

impl<A: Application> Drop for Endpoint<A> {
    fn drop(&mut self) {
        self.end();
    }
}
