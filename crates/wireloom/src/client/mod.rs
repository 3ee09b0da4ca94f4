//! Dialling servers.

mod builder;
mod connection;
mod dial;
mod early;
mod error;
mod known;
mod priority;
mod request;
mod sockets;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

pub use builder::{ClientBuilder, DangerousClientBuilder};
pub use connection::Connection;
pub use early::EarlySession;
pub use error::ConnectError;
pub use priority::RequestPriority;
pub use request::SessionBuilder;

use self::known::KnownServers;
use self::sockets::LocalSockets;
use crate::driver::{Driver, DriverConfig};
use crate::quic::{Endpoint, NoAcceptor, QuicConfig};
use crate::resolve::Resolve;
use crate::session::Session;
use crate::threads::Home;
use crate::tls::ClientTls;

/// Dials WebTransport servers over HTTP/3. A cheap handle; clones share sockets.
///
/// Its sockets belong to the Tokio runtime on which they are first needed: its connections end with that one. It can be used on
/// another one then.
///
/// ```no_run
/// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
/// let client = wireloom::Client::builder().build()?;
/// let session = client.connect("https://example.com:4433/live").await?;
/// session.send_datagram(b"hello")?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    tls: ClientTls,
    /// The servers that are come back to with early data.
    known: Option<KnownServers>,
    resolver: Arc<dyn Resolve>,
    quic: QuicConfig,
    driver: Arc<DriverConfig>,
    connect_timeout: Duration,
    sockets: LocalSockets,
    /// IPv4 and IPv6, bound when first needed, and anew where the runtime of the last has ended.
    endpoints: [Mutex<Option<Arc<Endpoint<Driver>>>>; 2],
}

/// What comes of `future` until `deadline`, if there is one.
async fn until<T>(deadline: Option<Instant>, future: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, future).await.ok(),
        None => Some(future.await),
    }
}

/// Never, where the clock does not reach that far.
fn deadline(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}

impl Client {
    /// A client with the platform's roots unless the builder says otherwise.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Opens a session at `url` (`https://host[:port]/path`), without subprotocols or further fields.
    ///
    /// # Errors
    /// See [`ConnectError`]: each says what failed and whose fault it was.
    pub async fn connect(&self, url: &str) -> Result<Session, ConnectError> {
        self.session(url).connect().await
    }

    /// Prepares a session at `url` with subprotocols, fields or an origin.
    pub fn session(&self, url: &str) -> SessionBuilder {
        SessionBuilder::new(self.clone(), url)
    }

    /// Dials the server of `url` and waits for its SETTINGS, for several sessions ([`Connection::session`]) and requests on one
    /// connection.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn dial(&self, url: &str) -> Result<Connection, ConnectError> {
        let mut target = dial::Target::parse(url)?;
        // Sessions wait for the server anyway, at whichever address it answers.
        target.early = true;
        dial::dial(self, &target, self.deadline()).await
    }

    /// Closes the connections that nobody uses, waits until the others are closed too and the closing words are out; dial no
    /// more after it.
    ///
    /// Without it, a program that ends right after `Session::close` may end before the peer hears of it.
    pub async fn shut_down(&self) {
        // Both at once: neither keeps what nobody uses as long as the other is in use.
        let bound = [0, 1].map(|family| self.bound(family).clone());
        let ends = bound.iter().flatten().map(|endpoint| endpoint.shut_down());
        futures_util::future::join_all(ends).await;
    }

    /// Moves the client's connections to new sockets, as when the network changed (RFC 9000 section 9). Sessions go on, except
    /// at servers that forbid migration: those hear nothing more, and the connection times out. Any thread may ask for it. The
    /// new sockets come from where the old ones came from ([`ClientBuilder::bind`], [`ClientBuilder::sockets`]).
    ///
    /// # Errors
    /// A socket cannot be bound, and no connection has moved, or the runtime has ended.
    pub fn rebind(&self) -> std::io::Result<()> {
        let bound = [0, 1].map(|family| (family, self.bound(family).clone()));
        let bound = bound
            .into_iter()
            .filter_map(|(family, endpoint)| Some((family, endpoint?)));
        // Of a runtime that has ended there is nothing to move.
        let (gone, alive): (Vec<_>, Vec<_>) = bound.partition(|(_, endpoint)| endpoint.is_gone());
        if alive.is_empty() && !gone.is_empty() {
            return Err(std::io::Error::other("the runtime has ended"));
        }
        let moves = alive
            .iter()
            .map(|(family, endpoint)| endpoint.rebind(self.0.sockets.bind(*family)?));
        let moves = moves.collect::<std::io::Result<Vec<_>>>()?;
        for go in moves {
            go();
        }
        Ok(())
    }

    /// The addresses of the client's sockets now, that of IPv4 first. Each is bound when the first server of its family is
    /// dialled.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        let bound = [0, 1].map(|family| self.bound(family).clone());
        let bound = bound.iter().flatten().filter(|endpoint| !endpoint.is_gone());
        bound.map(|endpoint| endpoint.local_addr()).collect()
    }

    /// When a connection attempt that begins now is given up.
    fn deadline(&self) -> Option<Instant> {
        deadline(self.0.connect_timeout)
    }

    fn bound(&self, family: usize) -> MutexGuard<'_, Option<Arc<Endpoint<Driver>>>> {
        self.0.endpoints[family].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn endpoint(&self, family: usize) -> std::io::Result<Arc<Endpoint<Driver>>> {
        let mut bound = self.bound(family);
        if let Some(endpoint) = bound.as_ref().filter(|endpoint| !endpoint.is_gone()) {
            return Ok(endpoint.clone());
        }
        let socket = self.0.sockets.bind(family)?;
        let endpoint = Endpoint::spawn(vec![(socket, Home::current(), NoAcceptor)], &self.0.quic, None)?;
        Ok(bound.insert(Arc::new(endpoint)).clone())
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::UdpSocket;

    use super::*;
    use crate::identity::Identity;

    #[tokio::test]
    async fn all_sockets_move_or_none() {
        let made = Arc::new(Mutex::new(Vec::new()));
        let making = made.clone();
        let client = Client::builder().dangerous().accept_any_certificate();
        let client = client.sockets(move |address| {
            let mut made = making.lock().expect("no panic");
            if made.len() == 3 {
                return Err(io::ErrorKind::AddrNotAvailable.into());
            }
            let socket = UdpSocket::bind(address)?;
            made.push(socket.local_addr()?);
            Ok(socket)
        });
        let client = client.build().expect("a client");
        for family in 0..2 {
            client.endpoint(family).expect("a socket");
        }
        let before = client.local_addrs();
        let moving = client.rebind();
        assert_eq!(moving.expect_err("no IPv6").kind(), io::ErrorKind::AddrNotAvailable);
        assert_eq!(client.local_addrs(), before);
        let made = made.lock().expect("no panic");
        assert_eq!((&made[..2], made[2].is_ipv4()), (&before[..], true));
        UdpSocket::bind(made[2]).expect("nobody uses it");
    }

    #[tokio::test]
    async fn what_nobody_uses_is_closed_whatever_the_other_family_does() {
        let identity = Identity::self_signed(["localhost"]).expect("a name");
        let hash = identity.certificate_hashes().current;
        let server = crate::Server::builder().bind("127.0.0.1:0").identity(identity);
        let server = server.listen().await.expect("a free port");
        let client = Client::builder().server_certificate_hash(hash);
        let client = client.build().expect("a client");
        let url = format!("https://{}/", server.local_addrs()[0]);
        let accept = async { server.accept().await.expect("a session").accept().await };
        let (accepted, session) = tokio::join!(accept, client.connect(&url));
        let (_accepted, _session) = (accepted.expect("accepted"), session.expect("a session"));
        let v6 = client.endpoint(1).expect("a socket");
        tokio::select! {
            () = client.shut_down() => panic!("a session is open"),
            ended = tokio::time::timeout(Duration::from_secs(60), v6.lost()) => ended.expect("in time"),
        }
    }

    #[test]
    fn sockets_of_a_runtime_that_has_ended_hold_up_no_others() {
        let client = Client::builder().dangerous().accept_any_certificate();
        let client = client.build().expect("a client");
        let runtimes = [(); 2].map(|()| tokio::runtime::Runtime::new().expect("a runtime"));
        for (family, runtime) in runtimes.iter().enumerate() {
            let _entered = runtime.enter();
            client.endpoint(family).expect("a socket");
        }
        let [v4, v6] = runtimes;
        drop(v6);
        client.rebind().expect("IPv4 moves");
        drop(v4);
        client.rebind().expect_err("nothing is left to move");
    }
}
