//! Streams and datagrams that arrived before their session (draft-ietf-webtrans-http3-16 section 4.6).

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

use crate::connection::{Config, deadline};
use crate::stream_id::{SessionId, StreamId};

/// What waits.
#[derive(Debug)]
pub(crate) enum Item {
    /// A stream with what followed its header.
    Stream {
        stream: StreamId,
        payload: Bytes,
        fin: bool,
    },
    /// A datagram's payload.
    Datagram(Bytes),
}

impl Item {
    fn len(&self) -> usize {
        match self {
            Self::Stream { payload, .. } | Self::Datagram(payload) => payload.len(),
        }
    }
}

#[derive(Debug)]
struct Entry {
    session: SessionId,
    expires: Instant,
    item: Item,
}

/// One queue in the order of arrival, which is also the order of expiry since all wait equally long.
///
/// "endpoints MUST limit the number of buffered streams and datagrams" (draft 16 section 4.6): by count of either, by
/// bytes of both together and by time from each one's own arrival. What comes when it is full is the one that is
/// refused.
#[derive(Debug, Default)]
pub(crate) struct Parked {
    queue: VecDeque<Entry>,
    streams: usize,
    datagrams: usize,
    bytes: usize,
}

impl Parked {
    /// Keeps `item`, or refuses it with `false`. Its bytes are copied: a slice would keep the whole packet alive, which no
    /// limit here could count.
    pub(crate) fn push(&mut self, now: Instant, session: SessionId, item: Item, config: &Config) -> bool {
        let (count, limit) = match item {
            Item::Stream { .. } => (&mut self.streams, config.max_parked_streams),
            Item::Datagram(_) => (&mut self.datagrams, config.max_parked_datagrams),
        };
        if *count >= limit || item.len() > config.max_parked_bytes.saturating_sub(self.bytes) {
            return false;
        }
        *count += 1;
        self.bytes += item.len();
        let item = match item {
            Item::Stream { stream, payload, fin } => Item::Stream {
                stream,
                payload: Bytes::copy_from_slice(&payload),
                fin,
            },
            Item::Datagram(payload) => Item::Datagram(Bytes::copy_from_slice(&payload)),
        };
        self.queue.push_back(Entry {
            session,
            expires: deadline(now, config.parked_timeout),
            item,
        });
        true
    }

    /// Removes all that waits for `session`, in the order of arrival.
    #[inline]
    pub(crate) fn take(&mut self, session: SessionId) -> Vec<Item> {
        if self.queue.iter().any(|entry| entry.session == session) {
            self.take_all(session)
        } else {
            Vec::new()
        }
    }

    #[cold]
    fn take_all(&mut self, session: SessionId) -> Vec<Item> {
        let mut taken = Vec::new();
        for entry in std::mem::take(&mut self.queue) {
            if entry.session == session {
                self.forget(&entry.item);
                taken.push(entry.item);
            } else {
                self.queue.push_back(entry);
            }
        }
        taken
    }

    /// Removes one stream.
    pub(crate) fn remove_stream(&mut self, wanted: StreamId) {
        let is_it = |entry: &Entry| matches!(entry.item, Item::Stream { stream, .. } if stream == wanted);
        if let Some(entry) = self.queue.iter().position(is_it).and_then(|at| self.queue.remove(at)) {
            self.forget(&entry.item);
        }
    }

    /// Removes the oldest entry if its time is over.
    pub(crate) fn pop_expired(&mut self, now: Instant) -> Option<Item> {
        if self.next_expiry()? > now {
            return None;
        }
        let entry = self.queue.pop_front()?;
        self.forget(&entry.item);
        Some(entry.item)
    }

    /// When the oldest entry's time is over.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.queue.front().map(|entry| entry.expires)
    }

    fn forget(&mut self, item: &Item) {
        match item {
            Item::Stream { .. } => self.streams -= 1,
            Item::Datagram(_) => self.datagrams -= 1,
        }
        self.bytes -= item.len();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn session(index: u64) -> SessionId {
        SessionId::new(StreamId::from_u64(4 * index)).expect("a request stream")
    }

    fn stream(id: u64, len: usize) -> Item {
        Item::Stream {
            stream: StreamId::from_u64(id),
            payload: vec![0; len].into(),
            fin: false,
        }
    }

    /// "endpoints MUST limit the number of buffered streams and datagrams" (draft 16 section 4.6).
    #[test]
    fn bounded_by_count_bytes_and_time() {
        let config = Config {
            max_parked_streams: 2,
            max_parked_datagrams: 1,
            max_parked_bytes: 10,
            ..Config::default()
        };
        let (mut parked, now) = (Parked::default(), Instant::now());
        assert!(parked.push(now, session(0), stream(2, 4), &config));
        assert!(!parked.push(now, session(0), stream(6, 7), &config), "bytes");
        let later = now + Duration::from_secs(1);
        assert!(parked.push(later, session(1), stream(6, 6), &config));
        assert!(!parked.push(later, session(0), stream(10, 0), &config), "streams");
        assert!(parked.push(later, session(0), Item::Datagram(Bytes::new()), &config));
        assert!(
            !parked.push(later, session(0), Item::Datagram(Bytes::new()), &config),
            "datagrams"
        );

        assert_eq!(parked.next_expiry(), Some(now + config.parked_timeout));
        assert!(parked.pop_expired(now + config.parked_timeout).is_some());
        assert!(
            parked.pop_expired(now + config.parked_timeout).is_none(),
            "each expires by its own arrival"
        );
        assert_eq!(parked.take(session(1)).len(), 1);
        assert_eq!(parked.take(session(1)).len(), 0);
        assert_eq!(parked.take(session(0)).len(), 1);
        assert_eq!(
            (parked.streams, parked.datagrams, parked.bytes, parked.queue.len()),
            (0, 0, 0, 0)
        );
    }

    #[test]
    fn order_survives_taking_and_removing() {
        let (mut parked, now, config) = (Parked::default(), Instant::now(), Config::default());
        for (owner, id) in [(0, 2), (1, 6), (0, 10), (0, 14)] {
            assert!(parked.push(now, session(owner), stream(id, 1), &config));
        }
        parked.remove_stream(StreamId::from_u64(10));
        parked.remove_stream(StreamId::from_u64(99));
        let ids: Vec<_> = parked
            .take(session(0))
            .into_iter()
            .map(|item| match item {
                Item::Stream { stream, .. } => stream.into_u64(),
                Item::Datagram(_) => 0,
            })
            .collect();
        assert_eq!(ids, [2, 14]);
        assert_eq!((parked.streams, parked.bytes), (1, 1));
    }
}
