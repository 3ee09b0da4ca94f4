//! Several sockets on one port, each with a task of its own: which of them a connection is at home at.
//!
//! The kernel distributes what arrives by the addresses of both ends (`SO_REUSEPORT`), so a client's packets all come to one
//! task, which gives its connections ids that say so. When the client's address changes they may come to another one: that
//! reads the id, and hands them over.

use std::sync::Arc;

use super::ready::ReadyQueue;
use super::routed_ids::RoutedIds;

/// The tasks of a port as one of them sees them.
pub(super) struct Shards<A> {
    queues: Arc<[Arc<ReadyQueue<A>>]>,
    own: usize,
    /// Which of how many processes on the port this is.
    process: (u8, u8),
}

impl<A> Shards<A> {
    pub(super) fn new(queues: Arc<[Arc<ReadyQueue<A>>]>, own: usize, process: Option<(u8, u8)>) -> Self {
        Self {
            queues,
            own,
            process: process.unwrap_or((0, 1)),
        }
    }

    pub(super) fn own_queue(&self) -> &Arc<ReadyQueue<A>> {
        &self.queues[self.own]
    }

    /// The ids of this task's connections; `None` if there is nobody to tell them from.
    pub(super) fn ids(&self) -> Option<impl Fn() -> RoutedIds + use<A>> {
        let (process, processes) = self.process;
        // No more than fits: see `QuicConfig::possible_shards`.
        let servers = self.queues.len() as u8 * processes;
        let index = self.own as u8 * processes + process;
        (servers > 1).then_some(move || RoutedIds::new(index, servers))
    }

    /// Who has the connection that a datagram belongs to, if that is another task.
    pub(super) fn home_of(&self, datagram: &[u8]) -> Option<&ReadyQueue<A>> {
        if self.queues.len() == 1 {
            return None;
        }
        // Long headers belong to handshakes, and these to the task that they came to: the id may be the client's, and "An
        // endpoint MUST NOT initiate connection migration before the handshake is confirmed" (RFC 9000 section 9). In short
        // headers our id follows the first byte (section 17.3).
        let &[first, id, ..] = datagram else { return None };
        if first & 0x80 != 0 {
            return None;
        }
        let (process, processes) = (usize::from(self.process.0), usize::from(self.process.1));
        let index = usize::from(id) % (processes * self.queues.len());
        let home = index / processes;
        (home != self.own && index % processes == process).then(|| &*self.queues[home])
    }
}

#[cfg(test)]
mod tests {
    use quinn_proto::ConnectionIdGenerator;

    use super::*;

    fn shards(count: usize, process: Option<(u8, u8)>) -> Vec<Shards<()>> {
        let queues: Arc<[_]> = (0..count).map(|_| Arc::new(ReadyQueue::new())).collect();
        (0..count)
            .map(|own| Shards::new(queues.clone(), own, process))
            .collect()
    }

    #[test]
    fn every_task_finds_the_home_of_every_id() {
        for (count, process) in [(2, None), (3, Some((1, 2))), (7, Some((0, 5))), (85, Some((2, 3)))] {
            let shards = shards(count, process);
            for home in &shards {
                let id = home.ids().expect("several")().generate_cid();
                let (k, n) = process.unwrap_or((0, 1));
                assert_eq!(id[0] % n, k, "the right process");
                let mut datagram = [&[0x40], &id[..], &[0; 30]].concat();
                for here in &shards {
                    let found = here.home_of(&datagram).map(std::ptr::from_ref);
                    let expected = (here.own != home.own).then(|| Arc::as_ptr(home.own_queue()));
                    assert_eq!(found, expected, "{} to {}", here.own, home.own);
                }
                datagram[0] = 0xc0;
                assert!(
                    shards.iter().all(|here| here.home_of(&datagram).is_none()),
                    "a handshake"
                );
            }
        }
    }

    #[test]
    fn one_has_nobody_to_hand_to() {
        let alone = &shards(1, None)[0];
        assert!(alone.ids().is_none());
        assert!((0..=255).all(|id| alone.home_of(&[0x40, id, 0]).is_none()));
        // Another process's ids.
        let shards = shards(2, Some((0, 2)));
        assert!(shards[0].home_of(&[0x40, 1, 0]).is_none() && shards[0].home_of(&[0x40, 2, 0]).is_some());
        assert!(shards[0].home_of(&[0x40]).is_none() && shards[0].home_of(&[]).is_none());
    }
}
