//! How many connections there may be at once, over TCP and QUIC together.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::metrics::OpenConnection;

/// Counts connections in total and per address. Clones share one count, so that one set of limits spans every listener.
///
/// An IPv6 host usually owns a whole /64 network, so that one of these counts as one address; an IPv4 address in its
/// IPv6 form (`::ffff:192.0.2.1`) counts as the IPv4 address. Memory: some 40 bytes per address that is connected.
#[derive(Clone)]
pub struct ConnectionLimits {
    shared: Arc<Shared>,
    exempt: Option<Arc<Exempt>>,
}

type Exempt = dyn Fn(IpAddr) -> bool + Send + Sync;

#[derive(Debug)]
struct Shared {
    total: usize,
    per_address: usize,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    // std's keyed hash, not a faster one: peers choose among the addresses of their network.
    per_address: HashMap<IpAddr, usize>,
}

/// Why a connection was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The total is reached: the server is full.
    #[error("the limit of connections is reached")]
    Total,
    /// This peer's address has too many.
    #[error("the limit of connections per address is reached")]
    PerAddress,
}

impl fmt::Debug for ConnectionLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ConnectionLimits").field(&self.shared).finish()
    }
}

impl Default for ConnectionLimits {
    /// [`DEFAULT_TOTAL`](Self::DEFAULT_TOTAL) and [`DEFAULT_PER_ADDRESS`](Self::DEFAULT_PER_ADDRESS).
    fn default() -> Self {
        Self::new(Self::DEFAULT_TOTAL, Self::DEFAULT_PER_ADDRESS)
    }
}

impl ConnectionLimits {
    /// Connections at once that a server has by default.
    pub const DEFAULT_TOTAL: usize = 100_000;
    /// Connections at once that one address has by default. Behind a proxy all clients share one: [`exempt`](Self::exempt) it.
    pub const DEFAULT_PER_ADDRESS: usize = 1_000;

    /// At most `total` connections, and `per_address` from any one address. Zero refuses all.
    pub fn new(total: usize, per_address: usize) -> Self {
        let shared = Arc::new(Shared {
            total,
            per_address,
            counts: Mutex::default(),
        });
        Self { shared, exempt: None }
    }

    /// For addresses of which `exempt` is true only the total holds, as for proxies, behind which many clients share one. An IPv4
    /// address in its IPv6 form, which sockets for both have, is shown to it as the IPv4 address. This does not concern clones
    /// that were made before, with which the count is shared all the same.
    ///
    /// ```
    /// let limits = wireloom::ConnectionLimits::default().exempt(|address| address.is_loopback());
    /// ```
    pub fn exempt(mut self, exempt: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        self.exempt = Some(Arc::new(exempt));
        self
    }

    /// Counts one connection until the permit is dropped.
    ///
    /// # Errors
    /// When a limit is reached; nothing was counted then.
    pub fn acquire(&self, address: IpAddr) -> Result<ConnectionPermit, Refused> {
        let is_exempt = self
            .exempt
            .as_ref()
            .is_some_and(|exempt| exempt(address.to_canonical()));
        let address = (!is_exempt).then(|| host_of(address));
        let mut counts = self.shared.lock();
        if counts.total >= self.shared.total {
            return Err(Refused::Total);
        }
        if let Some(address) = address {
            let count = counts.per_address.get(&address).copied().unwrap_or(0);
            if count >= self.shared.per_address {
                return Err(Refused::PerAddress);
            }
            counts.per_address.insert(address, count + 1);
        }
        counts.total += 1;
        Ok(ConnectionPermit {
            shared: self.shared.clone(),
            address,
            _open: OpenConnection::new(),
        })
    }

    /// What may use up the places of one address.
    pub(crate) fn smallest(&self) -> usize {
        self.shared.total.min(self.shared.per_address)
    }

    /// Connections at this moment.
    pub fn connections(&self) -> usize {
        self.shared.lock().total
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        // Nothing between two changes of the counts can panic.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One counted connection; dropping it makes room for another.
#[derive(Debug)]
#[must_use = "the connection is counted only as long as this lives"]
pub struct ConnectionPermit {
    shared: Arc<Shared>,
    /// `None` where only the total counts.
    address: Option<IpAddr>,
    _open: OpenConnection,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut counts = self.shared.lock();
        counts.total -= 1;
        if let Some(address) = self.address
            && let Entry::Occupied(mut entry) = counts.per_address.entry(address)
        {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

/// The address that stands for one host.
fn host_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn for_exempt_addresses_only_the_total_holds() {
        let limits = ConnectionLimits::new(3, 1);
        let exempting = limits.clone().exempt(|address| address == ip("192.0.2.1"));
        let proxied = [(); 2].map(|()| exempting.acquire(ip("192.0.2.1")).expect("room"));
        let other = exempting.acquire(ip("192.0.2.2")).expect("room");
        assert_eq!(limits.acquire(ip("192.0.2.3")).err(), Some(Refused::Total));
        drop(proxied);
        assert_eq!(limits.connections(), 1);
        assert_eq!(exempting.acquire(ip("192.0.2.2")).err(), Some(Refused::PerAddress));
        drop(other);
        assert_eq!(limits.connections(), 0);
    }

    #[test]
    fn an_exempt_ipv4_address_is_so_in_its_ipv6_form() {
        let limits = ConnectionLimits::new(9, 1).exempt(|address| address.is_loopback());
        let _proxied = [(); 2].map(|()| limits.acquire(ip("::ffff:127.0.0.1")).expect("room"));
    }

    #[test]
    fn limits_hold_and_permits_give_back() {
        let limits = ConnectionLimits::new(3, 2);
        let first = limits.acquire(ip("192.0.2.1")).expect("room");
        let _second = limits.clone().acquire(ip("::ffff:192.0.2.1")).expect("room");
        assert_eq!(limits.acquire(ip("192.0.2.1")).expect_err("full"), Refused::PerAddress);
        let _third = limits.acquire(ip("192.0.2.2")).expect("room");
        assert_eq!(limits.acquire(ip("192.0.2.3")).expect_err("full"), Refused::Total);
        drop(first);
        assert_eq!(limits.connections(), 2);
        let _fourth = limits.acquire(ip("192.0.2.1")).expect("room again");
    }

    #[test]
    fn one_ipv6_network_is_one_host() {
        let limits = ConnectionLimits::new(9, 1);
        let permit = limits.acquire(ip("2001:db8::1")).expect("room");
        assert_eq!(
            limits.acquire(ip("2001:db8::ffff:2")).expect_err("full"),
            Refused::PerAddress
        );
        let _other = limits.acquire(ip("2001:db8:0:1::1")).expect("another network");
        drop(permit);
        assert_eq!(
            limits.shared.lock().per_address.len(),
            1,
            "addresses that left are forgotten"
        );
    }
}
