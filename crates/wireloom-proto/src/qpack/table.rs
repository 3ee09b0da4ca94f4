//! The dynamic table (RFC 9204 section 3.2), as both ends keep it.

use std::collections::VecDeque;

use bytes::Bytes;

/// What an entry counts beyond its name and value, in bytes (section 3.2.1).
pub(super) const ENTRY_OVERHEAD: usize = 32;

/// A field line in the table: one piece of memory of its own, so that it keeps no received packet alive. A copy shares it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    text: Bytes,
    name_len: usize,
}

impl Entry {
    pub(super) fn new(name: &[u8], value: &[u8]) -> Self {
        let mut text = Vec::with_capacity(name.len() + value.len());
        text.extend_from_slice(name);
        text.extend_from_slice(value);
        Self {
            text: text.into(),
            name_len: name.len(),
        }
    }

    pub(super) fn name(&self) -> &[u8] {
        &self.text[..self.name_len]
    }

    pub(super) fn value(&self) -> &[u8] {
        &self.text[self.name_len..]
    }

    /// The name, shared with the table.
    pub(super) fn shared_name(&self) -> Bytes {
        self.text.slice(..self.name_len)
    }

    /// The value, shared with the table.
    pub(super) fn shared_value(&self) -> Bytes {
        self.text.slice(self.name_len..)
    }

    pub(super) fn size(&self) -> usize {
        self.text.len() + ENTRY_OVERHEAD
    }
}

/// Entries by absolute index (section 3.2.4), the oldest leaving first. Takes no memory before the first entry.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: VecDeque<Entry>,
    /// How many entries have left: the absolute index of the oldest that is there.
    dropped: u64,
    size: usize,
    capacity: usize,
}

impl Table {
    /// How many entries were ever inserted: the absolute index of the next one.
    pub(super) fn inserted(&self) -> u64 {
        self.dropped + self.entries.len() as u64
    }

    pub(super) const fn capacity(&self) -> usize {
        self.capacity
    }

    /// The entry with this absolute index, unless it has left or is yet to come.
    pub(super) fn get(&self, index: u64) -> Option<&Entry> {
        let at = index.checked_sub(self.dropped)?;
        self.entries.get(usize::try_from(at).ok()?)
    }

    /// The entry that a relative index on the encoder stream means: 0 is the newest (section 3.2.5).
    pub(super) fn newest(&self, relative: u64) -> Option<&Entry> {
        self.get(self.inserted().checked_sub(relative)?.checked_sub(1)?)
    }

    /// From the newest to the oldest, with absolute indices.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Entry)> {
        (self.dropped..self.inserted()).rev().zip(self.entries.iter().rev())
    }

    /// Entries leave until the rest fits (section 3.2.2).
    pub(super) fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
        self.make_room(0);
    }

    /// Whether `size` bytes fit if entries may leave whose absolute index is below `limit`.
    pub(super) fn fits(&self, size: usize, limit: u64) -> bool {
        let mut free = self.capacity - self.size;
        let leaving = usize::try_from(limit.saturating_sub(self.dropped)).unwrap_or(usize::MAX);
        let mut leaving = self.entries.iter().take(leaving);
        while free < size {
            match leaving.next() {
                Some(entry) => free += entry.size(),
                None => return false,
            }
        }
        true
    }

    /// Adds an entry, for which old ones leave; false if it is larger than the capacity.
    pub(super) fn insert(&mut self, entry: Entry) -> bool {
        let size = entry.size();
        if size > self.capacity {
            return false;
        }
        self.make_room(size);
        self.size += size;
        self.entries.push_back(entry);
        true
    }

    fn make_room(&mut self, size: usize) {
        while self.size + size > self.capacity
            && let Some(oldest) = self.entries.pop_front()
        {
            self.size -= oldest.size();
            self.dropped += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(capacity: usize, values: &[&[u8]]) -> Table {
        let mut table = Table::default();
        table.set_capacity(capacity);
        for value in values {
            assert!(table.insert(Entry::new(b"n", value)));
        }
        table
    }

    #[test]
    fn the_oldest_leave_first() {
        let mut table = table(3 * 34, &[b"0", b"1", b"2", b"3"]);
        assert_eq!((table.inserted(), table.size), (4, 3 * 34));
        assert!(table.get(0).is_none() && table.get(4).is_none());
        assert_eq!(table.get(1).map(Entry::value), Some(&b"1"[..]));
        assert_eq!(table.newest(0).map(Entry::value), Some(&b"3"[..]));
        assert!(table.newest(3).is_none() && table.newest(u64::MAX).is_none());
        assert_eq!(table.iter().map(|(index, _)| index).collect::<Vec<_>>(), [3, 2, 1]);
        table.set_capacity(40);
        assert_eq!(table.iter().map(|(index, _)| index).collect::<Vec<_>>(), [3]);
        assert!(!table.insert(Entry::new(b"name", b"value")) && table.get(3).is_some());
        table.set_capacity(0);
        assert_eq!((table.inserted(), table.size), (4, 0));
    }

    #[test]
    fn only_what_may_leave_makes_room() {
        let table = table(3 * 34, &[b"0", b"1", b"2", b"3"]);
        assert!(table.fits(0, 0) && !table.fits(1, 0) && !table.fits(34, 1));
        assert!(table.fits(34, 2) && !table.fits(35, 2) && table.fits(102, 4));
        assert!(!table.fits(103, u64::MAX));
    }
}
