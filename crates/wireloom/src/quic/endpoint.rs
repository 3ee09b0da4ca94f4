//! The handle of one UDP socket with its connections, and what its task is told through it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use quinn_proto as qp;
use tokio::sync::{oneshot, watch};

use super::Application;
use super::config::ServerConfig;
use super::ready::{ReadyQueue, Slot};
use super::routing::Routing;
use super::socket::Socket;
use super::task::EndpointTask;

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

pub(super) enum Command<A> {
    Connect {
        config: Box<qp::ClientConfig>,
        remote: SocketAddr,
        server_name: String,
        app: A,
        reply: oneshot::Sender<Result<Arc<Slot<A>>, qp::ConnectError>>,
    },
    /// Refuse newcomers.
    StopAccepting,
    /// Replace the socket: every connection migrates.
    Rebind(Box<Socket>),
    /// End the task once the connections are closed.
    Shutdown,
}

/// Handle to an endpoint task. The task ends when this is dropped and its last connection is closed.
pub(crate) struct Endpoint<A: Application> {
    queue: Arc<ReadyQueue<A>>,
    local_addr: SocketAddr,
    done: watch::Receiver<bool>,
}

impl<A: Application> Endpoint<A> {
    /// Spawns the task on the current tokio runtime.
    pub(crate) fn spawn(
        socket: std::net::UdpSocket,
        config: Arc<qp::EndpointConfig>,
        server: Option<ServerConfig>,
        acceptor: impl Acceptor<A>,
    ) -> io::Result<Self> {
        let socket = Socket::new(socket)?;
        let local_addr = socket.local_addr()?;
        let queue = Arc::new(ReadyQueue::new());
        let (ended, done) = watch::channel(false);
        let server_config = server.as_ref().map(|server| server.config.clone());
        let endpoint = qp::Endpoint::new(config, server_config, !socket.may_fragment(), None);
        let task = EndpointTask::new(
            socket,
            Routing::new(endpoint, server, acceptor, queue.clone()),
            queue.clone(),
            ended,
        );
        tokio::spawn(task);
        Ok(Self {
            queue,
            local_addr,
            done,
        })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Starts a handshake. `None` if the endpoint is gone.
    pub(crate) async fn connect(
        &self,
        config: qp::ClientConfig,
        remote: SocketAddr,
        server_name: &str,
        app: A,
    ) -> Option<Result<Arc<Slot<A>>, qp::ConnectError>> {
        let (reply, answer) = oneshot::channel();
        let server_name = server_name.to_owned();
        let command = Command::Connect {
            config: Box::new(config),
            remote,
            server_name,
            app,
            reply,
        };
        self.queue.command(command).ok()?;
        answer.await.ok()
    }

    /// Refuses newcomers from now on.
    pub(crate) fn stop_accepting(&self) {
        let _ = self.queue.command(Command::StopAccepting);
    }

    /// Moves every connection to another socket (RFC 9000 section 9).
    pub(crate) fn rebind(&self, socket: std::net::UdpSocket) -> io::Result<()> {
        let _ = self.queue.command(Command::Rebind(Box::new(Socket::new(socket)?)));
        Ok(())
    }

    /// Closes unused connections, waits until the others are closed too, and ends the task.
    pub(crate) async fn shut_down(&self) {
        let _ = self.queue.command(Command::Shutdown);
        let mut done = self.done.clone();
        // An error means that the task, which owns the sender, is gone.
        let _ = done.wait_for(|done| *done).await;
    }
}

impl<A: Application> Drop for Endpoint<A> {
    fn drop(&mut self) {
        let _ = self.queue.command(Command::Shutdown);
    }
}
