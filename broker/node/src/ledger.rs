//! What a channel was delivered and has not settled: delivery tags to messages.
//!
//! A tag is the position in the ledger, so that taking one is an index and taking many a walk; 16 bytes a delivery.
//! The ledger lives in the channel's output, under its lock: a delivery is entered where it is written.
use crate::connections::ChannelView;
use crate::queue::Queue;
use leveret_engine::queue::{ConsumerId, MessageId};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Deliveries by tag, and whom they came through.
pub struct Ledger {
    entries: VecDeque<Entry>,
    /// Tag of the first entry.
    first: u64,
    outstanding: u64,
    limit: u64,
    subscribers: slab::Slab<Subscriber>,
    /// Shows how many are outstanding.
    view: Arc<ChannelView>,
}

/// Where deliveries come from: a consumer of a queue, or gets from it.
#[derive(Clone)]
pub struct Subscriber {
    /// The queue.
    pub queue: Arc<Queue>,
    /// The consumer, unless they are gets.
    pub consumer: Option<ConsumerId>,
    outstanding: u64,
    ended: bool,
}

struct Entry {
    sequence: u64,
    offset: u32,
    subscriber: u32,
}

/// The tag names no delivery that is outstanding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownTag;

impl Ledger {
    /// An empty ledger; `view` shows how many deliveries are outstanding.
    #[must_use]
    pub fn new(view: Arc<ChannelView>) -> Self {
        let (entries, subscribers) = (VecDeque::new(), slab::Slab::new());
        Self { entries, first: 1, outstanding: 0, limit: u64::MAX, subscribers, view }
    }

    /// Opens an account; deliveries are entered with its number.
    pub fn open(&mut self, queue: Arc<Queue>) -> u32 {
        self.subscribers.insert(Subscriber { queue, consumer: None, outstanding: 0, ended: false }) as u32
    }

    /// The account is that of a consumer.
    pub fn set_consumer(&mut self, subscriber: u32, id: ConsumerId) {
        self.subscribers[subscriber as usize].consumer = Some(id);
    }

    /// No more deliveries come with this account; it goes with its last outstanding one.
    pub fn end(&mut self, subscriber: u32) {
        let account = &mut self.subscribers[subscriber as usize];
        account.ended = true;
        if account.outstanding == 0 {
            self.subscribers.remove(subscriber as usize);
        }
    }

    /// Queues of the accounts that are open.
    pub fn queues(&self) -> impl Iterator<Item = &Arc<Queue>> {
        self.subscribers.iter().map(|(_, account)| &account.queue)
    }

    /// All accounts together may have this many outstanding; 0: no limit.
    pub fn set_limit(&mut self, limit: u32) {
        self.limit = if limit == 0 { u64::MAX } else { u64::from(limit) };
    }

    /// Whether there is a limit for all accounts together.
    pub fn has_limit(&self) -> bool {
        self.limit != u64::MAX
    }

    /// Whether the limit allows no further delivery.
    #[inline]
    pub fn is_at_limit(&self) -> bool {
        self.outstanding >= self.limit
    }

    /// Deliveries not settled.
    pub fn outstanding(&self) -> u64 {
        self.outstanding
    }

    /// Enters a delivery: its tag.
    #[inline]
    pub fn deliver(&mut self, subscriber: u32, id: MessageId) -> u64 {
        self.entries.push_back(Entry { sequence: id.sequence, offset: id.offset, subscriber });
        self.outstanding += 1;
        self.view.unacked.store(self.outstanding, Relaxed);
        self.subscribers[subscriber as usize].outstanding += 1;
        self.first + self.entries.len() as u64 - 1
    }

    /// A delivery that needs no settling: its tag.
    #[inline]
    pub fn deliver_settled(&mut self) -> u64 {
        if self.entries.is_empty() {
            self.first += 1;
            return self.first - 1;
        }
        self.entries.push_back(Entry { sequence: 0, offset: 0, subscriber: SETTLED });
        self.first + self.entries.len() as u64 - 1
    }

    /// Takes the delivery `tag`, or with `multiple` all up to it (0: all), in order.
    ///
    /// # Errors
    /// [`UnknownTag`] when `tag` is not outstanding; nothing was taken then.
    pub fn take(
        &mut self,
        tag: u64,
        multiple: bool,
        mut taken: impl FnMut(&Subscriber, MessageId),
    ) -> Result<(), UnknownTag> {
        if tag == 0 && multiple {
            let all = self.entries.len();
            self.take_range(0..all, &mut taken);
            return Ok(());
        }
        let at = tag.checked_sub(self.first).ok_or(UnknownTag)? as usize;
        if self.entries.get(at).is_none_or(|entry| entry.subscriber == SETTLED) {
            return Err(UnknownTag);
        }
        self.take_range(if multiple { 0 } else { at }..at + 1, &mut taken);
        Ok(())
    }

    fn take_range(&mut self, range: std::ops::Range<usize>, taken: &mut impl FnMut(&Subscriber, MessageId)) {
        for entry in self.entries.range_mut(range) {
            if entry.subscriber == SETTLED {
                continue;
            }
            let index = std::mem::replace(&mut entry.subscriber, SETTLED) as usize;
            let account = &mut self.subscribers[index];
            taken(account, MessageId { sequence: entry.sequence, offset: entry.offset });
            account.outstanding -= 1;
            self.outstanding -= 1;
            if account.ended && account.outstanding == 0 {
                self.subscribers.remove(index);
            }
        }
        self.view.unacked.store(self.outstanding, Relaxed);
        while self.entries.front().is_some_and(|entry| entry.subscriber == SETTLED) {
            self.entries.pop_front();
            self.first += 1;
        }
    }
}

const SETTLED: u32 = u32::MAX;

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
