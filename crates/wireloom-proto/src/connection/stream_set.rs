//! Which of the peer's streams have been dealt with, for as long as the connection lives, in little memory.

/// A set of stream indices of one kind, as ranges. Indices come nearly in order, so there is usually one range.
///
/// A gap is a stream that is still undecided, which QUIC's stream limits keep few. Beyond [`MAX_RANGES`] the oldest gap is
/// given up: its stream is then taken for one that is over.
#[derive(Debug, Default)]
pub(super) struct StreamSet {
    /// Half-open, ascending, neither touching nor overlapping.
    ranges: Vec<(u64, u64)>,
}

const MAX_RANGES: usize = 1024;

impl StreamSet {
    pub(super) fn contains(&self, index: u64) -> bool {
        match self.ranges.last() {
            Some(&(start, end)) if index >= start => index < end,
            Some(_) => {
                let at = self.ranges.partition_point(|&(start, _)| start <= index);
                at > 0 && index < self.ranges[at - 1].1
            }
            None => false,
        }
    }

    pub(super) fn insert(&mut self, index: u64) {
        if let Some(last) = self.ranges.last_mut()
            && index == last.1
        {
            last.1 += 1;
            return;
        }
        if self.contains(index) {
            return;
        }
        // `at` is the first range after `index`.
        let at = self.ranges.partition_point(|&(start, _)| start <= index);
        let joins_left = at > 0 && self.ranges[at - 1].1 == index;
        let joins_right = self.ranges.get(at).is_some_and(|range| range.0 == index + 1);
        match (joins_left, joins_right) {
            (true, true) => {
                self.ranges[at - 1].1 = self.ranges[at].1;
                self.ranges.remove(at);
            }
            (true, false) => self.ranges[at - 1].1 += 1,
            (false, true) => self.ranges[at].0 = index,
            (false, false) => self.ranges.insert(at, (index, index + 1)),
        }
        if self.ranges.len() > MAX_RANGES {
            self.ranges[1].0 = self.ranges[0].0;
            self.ranges.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn agrees_with_a_plain_set_in_any_order() {
        let (mut set, mut plain, mut seed) = (StreamSet::default(), BTreeSet::new(), 1u64);
        for _ in 0..2000 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let index = (seed >> 33) % 600;
            set.insert(index);
            plain.insert(index);
            assert!(
                set.ranges.windows(2).all(|pair| pair[0].1 < pair[1].0),
                "{:?}",
                set.ranges
            );
        }
        assert!((0..700).all(|index| set.contains(index) == plain.contains(&index)));
    }

    #[test]
    fn memory_is_bounded() {
        let mut set = StreamSet::default();
        (0..5000).for_each(|index| set.insert(2 * index));
        assert_eq!(set.ranges.len(), MAX_RANGES);
        assert!((0..5000).all(|index| set.contains(2 * index)));
        assert!(!set.contains(9997) && !set.contains(9999));
    }
}
