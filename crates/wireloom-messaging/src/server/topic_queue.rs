//! Messages of topics that wait to be sent on one connection, with what happens when there are too many.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::topics::{SlowSubscriber, Subscription};
use crate::transport::Signals;

/// Signals of one subscription.
#[derive(Debug, Clone)]
pub(crate) struct TopicItem {
    subscription: Arc<Subscription>,
    pub(super) signals: Arc<Signals>,
    /// Which of them.
    pub(super) range: Range<usize>,
    pub(super) kind: TopicItemKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TopicItemKind {
    /// What was asked for, of the past or of who is present: never dropped. The topic's history and the number of its members bound
    /// it, and those who get it share it.
    Past,
    Messages,
    /// Nobody misses it.
    Ephemeral,
    /// Nobody misses it, and it may travel in a datagram.
    Unreliable,
    /// Joins and leaves. Where one is dropped, a reset makes it good.
    Presence,
    /// Says that something was dropped.
    Reset,
}

impl TopicItem {
    pub(crate) fn new(
        subscription: Arc<Subscription>,
        signals: Arc<Signals>,
        range: Range<usize>,
        kind: TopicItemKind,
    ) -> Self {
        Self {
            subscription,
            signals,
            range,
            kind,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.signals.bytes(self.range.clone())
    }

    fn is_ephemeral(&self) -> bool {
        matches!(self.kind, TopicItemKind::Ephemeral | TopicItemKind::Unreliable)
    }

    /// Takes away as many of the first as fit.
    fn split(&mut self, bytes: usize) -> Self {
        let mut first = self.clone();
        first.cut_to(bytes);
        self.range.start = first.range.end;
        first
    }

    /// Keeps as many of the first as fit.
    fn cut_to(&mut self, bytes: usize) {
        while !self.range.is_empty() && self.bytes() > bytes {
            self.range.end -= 1;
        }
    }

    /// Drops as many of the first as it takes to get rid of so many bytes. Answers how many bytes that were.
    fn drop_first(&mut self, bytes: usize) -> usize {
        let before = self.bytes();
        while !self.range.is_empty() && before - self.bytes() < bytes {
            self.range.start += 1;
        }
        before - self.bytes()
    }
}

/// Messages, or items of topics, for which a connection with nothing to send keeps room.
pub(super) const KEPT: usize = 64;

/// What waits, in order.
#[derive(Debug, Default)]
pub(super) struct TopicQueue {
    items: VecDeque<TopicItem>,
    /// Of all but [`TopicItemKind::Past`].
    bytes: usize,
    /// How many items are ephemeral.
    ephemerals: usize,
}

/// The connection is to be closed.
pub(super) struct TooSlow;

impl TopicQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Queues an item, if what waits is at most `limit` bytes with it, or nothing waits. Otherwise room is made: ephemeral
    /// messages go first, then what the topic's policy says.
    pub(super) fn push(&mut self, mut item: TopicItem, limit: usize) -> Result<(), TooSlow> {
        if item.range.is_empty() {
            return Ok(());
        }
        if matches!(item.kind, TopicItemKind::Messages | TopicItemKind::Reset) && item.subscription.is_reset() {
            // Its client will ask for this, too.
            return Ok(());
        }
        let counts = !matches!(item.kind, TopicItemKind::Past | TopicItemKind::Reset);
        if counts && self.bytes > 0 && self.bytes + item.bytes() > limit {
            if item.is_ephemeral() {
                return Ok(());
            }
            self.drop_ephemerals();
            let over = (self.bytes + item.bytes()).saturating_sub(limit);
            if over > 0 && self.bytes > 0 {
                match item.subscription.policy() {
                    SlowSubscriber::Disconnect => return Err(TooSlow),
                    SlowSubscriber::DropOldest => self.drop_oldest(&mut item, over),
                    SlowSubscriber::DropNewest => {
                        item.cut_to(limit.saturating_sub(self.bytes));
                        self.push_with_reset(item);
                        return Ok(());
                    }
                }
            }
        }
        self.append(item);
        Ok(())
    }

    fn append(&mut self, item: TopicItem) {
        if item.range.is_empty() {
            return;
        }
        if item.kind != TopicItemKind::Past {
            self.bytes += item.bytes();
        }
        self.ephemerals += usize::from(item.is_ephemeral());
        if item.kind == TopicItemKind::Reset {
            item.subscription.set_reset(true);
        }
        self.items.push_back(item);
    }

    /// Some of the item was cut: its client is told when it has taken the rest.
    fn push_with_reset(&mut self, item: TopicItem) {
        let subscription = item.subscription.clone();
        if !subscription.is_reset() {
            self.append(item);
            self.append_reset(&subscription);
        }
    }

    fn append_reset(&mut self, subscription: &Arc<Subscription>) {
        if subscription.can_reset() && !subscription.is_reset() {
            self.append(subscription.reset_item());
        }
    }

    fn drop_ephemerals(&mut self) {
        if self.ephemerals > 0 {
            self.items.retain(|item| !item.is_ephemeral());
            self.count();
        }
    }

    fn count(&mut self) {
        let counted = self.items.iter().filter(|item| item.kind != TopicItemKind::Past);
        self.bytes = counted.map(TopicItem::bytes).sum();
        self.ephemerals = self.items.iter().filter(|item| item.is_ephemeral()).count();
    }

    /// Makes room among the messages of all topics that have this policy, oldest first; what is still missing, at the front of
    /// the new ones. Presence of a subscription is not dropped by itself: its client has to ask again. So has one whose last message
    /// is dropped, because no gap before the next would tell it.
    fn drop_oldest(&mut self, new: &mut TopicItem, mut over: usize) {
        let (mut at, mut gone) = (0, Vec::<Arc<Subscription>>::new());
        while over > 0
            && let Some(item) = self.items.get_mut(at)
        {
            if item.kind != TopicItemKind::Messages || item.subscription.policy() != SlowSubscriber::DropOldest {
                at += 1;
                continue;
            }
            let dropped = item.drop_first(over);
            self.bytes -= dropped;
            over = over.saturating_sub(dropped);
            if !item.range.is_empty() {
                break;
            }
            // Near the front, where this moves few.
            if let Some(TopicItem { subscription, .. }) = self.items.remove(at)
                && !gone.iter().any(|other| Arc::ptr_eq(other, &subscription))
            {
                gone.push(subscription);
            }
        }
        if over > 0 && self.bytes > 0 {
            if new.kind == TopicItemKind::Presence {
                new.range = 0..0;
            } else {
                new.drop_first(over);
            }
            if new.range.is_empty() {
                self.append_reset(&new.subscription);
            }
        }
        for subscription in gone {
            let is_of = |item: &TopicItem| {
                item.kind == TopicItemKind::Messages
                    && !item.range.is_empty()
                    && Arc::ptr_eq(&item.subscription, &subscription)
            };
            if !is_of(new) && !self.items.iter().any(is_of) {
                self.append_reset(&subscription);
            }
        }
    }

    /// The subscription is over: what waits for it is not sent.
    pub(super) fn drop_topic(&mut self, subscription: &Arc<Subscription>) {
        self.items.retain(|item| !Arc::ptr_eq(&item.subscription, subscription));
        self.count();
    }

    /// Moves what has waited longest to `out`, at most so many bytes, or one message.
    pub(super) fn take(&mut self, out: &mut VecDeque<TopicItem>, bytes: usize) {
        let mut taken = 0;
        while taken < bytes
            && let Some(mut item) = self.items.pop_front()
        {
            let mut size = item.bytes();
            if taken + size > bytes && (taken > 0 || item.range.len() > 1) {
                let mut first = item.split(bytes - taken);
                if first.range.is_empty() && taken == 0 {
                    first.range.end += 1;
                    item.range.start += 1;
                }
                self.items.push_front(item);
                if first.range.is_empty() {
                    return;
                }
                size = first.bytes();
                item = first;
            }
            self.forget(&item);
            taken += size;
            out.push_back(item);
        }
        if self.items.is_empty() && self.items.capacity() > KEPT {
            // What a burst needed is not kept for the next.
            self.items = VecDeque::new();
        }
    }

    fn forget(&mut self, item: &TopicItem) {
        if item.kind != TopicItemKind::Past {
            self.bytes -= item.bytes();
        }
        self.ephemerals -= usize::from(item.is_ephemeral());
        if item.kind == TopicItemKind::Reset {
            item.subscription.set_reset(false);
        }
    }
}
