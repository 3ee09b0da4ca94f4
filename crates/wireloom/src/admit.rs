//! Which clients may begin a handshake.

use std::fmt;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

/// What becomes of a connection attempt, decided by the client's address before anything is kept for it
/// ([`ServerBuilder::admit`](crate::ServerBuilder::admit)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admit {
    /// The handshake goes on, within the limits of connections.
    Yes,
    /// Over QUIC the client proves first that the address is its own (Retry, RFC 9000 section 8.1.2), for a round trip, and is
    /// then taken. Over TCP it has proven it already.
    Retry,
    /// The client is told: CONNECTION_REFUSED over QUIC, over TCP the connection is closed at once.
    Refuse,
    /// No answer over QUIC, so that the client tries until it gives up; over TCP as [`Refuse`](Self::Refuse), since the system
    /// has answered already.
    Ignore,
}

type Decide = dyn Fn(SocketAddr) -> Admit + Send + Sync;

/// The application's rule.
#[derive(Clone)]
pub(crate) struct Filter(Arc<Decide>);

impl Filter {
    pub(crate) fn new(decide: impl Fn(SocketAddr) -> Admit + Send + Sync + 'static) -> Self {
        Self(Arc::new(decide))
    }

    /// Sockets that take both families have IPv4 addresses in their IPv6 form.
    pub(crate) fn ask(&self, remote: SocketAddr) -> Admit {
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        // With it would end the task of a socket, and all connections on that.
        std::panic::catch_unwind(AssertUnwindSafe(|| (self.0)(remote))).unwrap_or_else(|_| {
            tracing::error!(%remote, "admit panicked, and the client is refused");
            Admit::Refuse
        })
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Filter")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_in_their_own_family() {
        let filter = Filter::new(|client| if client.is_ipv4() { Admit::Yes } else { Admit::Refuse });
        let ask = |address: &str| filter.ask(address.parse().expect("an address"));
        assert_eq!(ask("[::ffff:192.0.2.1]:443"), Admit::Yes);
        assert_eq!(ask("192.0.2.1:443"), Admit::Yes);
        assert_eq!(ask("[2001:db8::1]:443"), Admit::Refuse);
    }

    #[test]
    fn a_panic_refuses_one_client() {
        let filter = Filter::new(|client| match client.port() {
            1 => panic!("a bug of the application"),
            _ => Admit::Yes,
        });
        let ask = |address: &str| filter.ask(address.parse().expect("an address"));
        assert_eq!(ask("192.0.2.1:1"), Admit::Refuse);
        assert_eq!(ask("192.0.2.1:2"), Admit::Yes);
    }
}
