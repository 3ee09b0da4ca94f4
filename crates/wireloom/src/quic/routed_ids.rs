//! Connection ids that say which of several servers on one port they belong to.

use std::time::Duration;

use quinn_proto::{ConnectionId, ConnectionIdGenerator, RandomConnectionIdGenerator};

/// As long as quinn-proto's own.
const LENGTH: usize = 8;

/// Random ids, but for what the first byte leaves when it is divided by the number of servers.
pub(super) struct RoutedIds {
    index: u8,
    servers: u8,
    random: RandomConnectionIdGenerator,
}

impl RoutedIds {
    pub(super) fn new(index: u8, servers: u8) -> Self {
        let servers = servers.max(1);
        Self {
            index: index % servers,
            servers,
            random: RandomConnectionIdGenerator::new(LENGTH),
        }
    }

    /// The nearest byte below or at `first` with the right remainder, or the lowest one.
    fn routed(&self, first: u8) -> u8 {
        let base = first - first % self.servers;
        base.checked_add(self.index).unwrap_or(self.index)
    }
}

impl ConnectionIdGenerator for RoutedIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; LENGTH];
        id.copy_from_slice(&self.random.generate_cid());
        id[0] = self.routed(id[0]);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        LENGTH
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_leads_home() {
        for servers in [1, 2, 3, 7, 64, 200, 255] {
            for index in [0, servers / 2, servers - 1] {
                let ids = RoutedIds::new(index, servers);
                assert!(
                    (0..=255).all(|first| ids.routed(first) % servers == index),
                    "{index} of {servers}"
                );
            }
        }
    }

    #[test]
    fn ids_differ() {
        let mut ids = RoutedIds::new(1, 4);
        let (a, b) = (ids.generate_cid(), ids.generate_cid());
        assert_eq!((a[0] % 4, b[0] % 4, a.len()), (1, 1, LENGTH));
        assert_ne!(a, b);
    }
}
