//! How many connections there may be at once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts connections in total and per address: an IPv6 /64 network counts as one, and connections within the process
/// count in total only. Memory: some 40 bytes for each address that is connected.
pub(super) struct Limits {
    total: usize,
    per_address: usize,
    exempt: Option<Box<Exempt>>,
    counts: Mutex<Counts>,
}

/// Of which addresses only the total counts.
pub(super) type Exempt = dyn Fn(IpAddr) -> bool + Send + Sync;

#[derive(Default)]
struct Counts {
    total: usize,
    // The keyed hash: peers choose among the addresses of their network.
    per_address: HashMap<IpAddr, usize>,
}

/// One counted connection; dropping it makes room for another.
pub(super) struct Permit {
    limits: Arc<Limits>,
    address: Option<IpAddr>,
}

impl Limits {
    pub(super) fn new(total: usize, per_address: usize, exempt: Option<Box<Exempt>>) -> Self {
        Self {
            total,
            per_address,
            exempt,
            counts: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more, if there is room.
    pub(super) fn acquire(self: &Arc<Self>, address: Option<IpAddr>) -> Option<Permit> {
        let counts_alone = |address: &IpAddr| {
            !self
                .exempt
                .as_ref()
                .is_some_and(|exempt| exempt(address.to_canonical()))
        };
        let address = address.filter(counts_alone).map(host_of);
        let mut counts = self.lock();
        if counts.total >= self.total {
            return None;
        }
        if let Some(address) = address {
            let of_address = counts.per_address.entry(address).or_default();
            if *of_address >= self.per_address {
                if *of_address == 0 {
                    counts.per_address.remove(&address);
                }
                return None;
            }
            *of_address += 1;
        }
        counts.total += 1;
        Some(Permit {
            limits: self.clone(),
            address,
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.limits.lock();
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

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn limits_hold_and_permits_give_back() {
        let limits = Arc::new(Limits::new(3, 2, None));
        let first = limits.acquire(ip("192.0.2.1")).expect("room");
        let _second = limits.acquire(ip("::ffff:192.0.2.1")).expect("room");
        assert!(limits.acquire(ip("192.0.2.1")).is_none(), "two of one address");
        let _third = limits.acquire(None).expect("room");
        assert!(limits.acquire(ip("192.0.2.3")).is_none(), "three in all");
        drop(first);
        let again = limits.acquire(ip("192.0.2.3")).expect("room again");
        drop(again);
        assert_eq!(limits.lock().per_address.len(), 1, "addresses that left are forgotten");
    }

    #[test]
    fn of_proxies_the_total_counts() {
        let proxy: IpAddr = "192.0.2.1".parse().expect("an address");
        let limits = Arc::new(Limits::new(3, 1, Some(Box::new(move |address| address == proxy))));
        let _first = limits.acquire(ip("192.0.2.1")).expect("room");
        let _second = limits.acquire(ip("::ffff:192.0.2.1")).expect("room");
        let _other = limits.acquire(ip("192.0.2.2")).expect("room");
        assert!(limits.acquire(ip("192.0.2.1")).is_none(), "three in all");
        assert_eq!(limits.lock().per_address.len(), 1);
    }
}
