//! What a channel was delivered and has not settled: delivery tags to messages.
//!
//! The ledger lives in the channel's output, under its lock: a delivery is entered where it is written. It costs 18 bytes
//! for each delivery that is outstanding; those that need no settling only have a tag. When all consumers together have as
//! many outstanding as they may, those that want more wait in line, and take their turns as there is room again.
mod blocks;

use crate::connections::ChannelView;
use crate::memory::Memory;
use crate::queue::{Queue, QueueId};
use blocks::{Blocks, Entry};
use leveret_engine::queue::{ConsumerId, MessageId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Deliveries by tag, and whom they came through.
pub struct Ledger {
    blocks: Blocks,
    next_tag: u64,
    outstanding: u64,
    /// How many of those outstanding came through gets: they do not count against the limit, as in RabbitMQ.
    got: u64,
    limit: u64,
    subscribers: slab::Slab<Subscriber>,
    /// The account for gets of each queue that has one.
    gets: BTreeMap<QueueId, u32>,
    line: Line,
    /// Shows how many are outstanding.
    view: Arc<ChannelView>,
    /// The budget that a ledger of more than one block is accounted to, once an account was opened.
    memory: Option<Arc<Memory>>,
    accounted: u64,
    /// What is accounted for places of accounts, beyond a few.
    accounted_places: u64,
}

/// The accounts that wait for room under the limit, and whose turn it is.
#[derive(Default)]
struct Line {
    /// The accounts by their place in the line.
    waiting: BTreeMap<Place, u32>,
    /// The number of accounts that have joined the line so far.
    came: u64,
    /// The account whose turn it is.
    turn: Option<u32>,
    /// Its turn lasts while fewer deliveries than this are outstanding.
    turn_below: u64,
    /// Deliveries of one turn.
    share: u64,
    /// The number of deliveries that were outstanding when the last turn began.
    outstanding_before: u64,
    /// The number of turns in a row in which no delivery was made.
    idle_turns: usize,
    /// Whether nobody waits for a turn of others: the accounts in the line are told to take what they can, one after the
    /// other.
    is_open_to_all: bool,
}

/// Where deliveries come from: a consumer of a queue, or gets from it.
#[derive(Clone)]
pub struct Subscriber {
    /// The queue.
    pub queue: Arc<Queue>,
    /// The consumer, unless they are gets.
    pub consumer: Option<ConsumerId>,
    /// Its deliveries count against the limit.
    is_limited: bool,
    outstanding: u64,
    ended: bool,
    /// Tag of its last delivery.
    last_tag: u64,
    /// Its place in the line of those that wait.
    place: Option<Place>,
}

/// A place in the line: whoever was served longest ago is first, then whoever came first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    last_tag: u64,
    came: u64,
}

/// The tag names no delivery that is outstanding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownTag;

impl Ledger {
    /// An empty ledger; `view` shows how many deliveries are outstanding.
    #[must_use]
    pub fn new(view: Arc<ChannelView>) -> Self {
        Self {
            blocks: Blocks::default(),
            next_tag: 1,
            outstanding: 0,
            got: 0,
            limit: u64::MAX,
            subscribers: slab::Slab::new(),
            gets: BTreeMap::new(),
            line: Line::default(),
            view,
            memory: None,
            accounted: 0,
            accounted_places: 0,
        }
    }

    /// Opens an account for a consumer; deliveries are entered with its number.
    pub fn open(&mut self, queue: Arc<Queue>) -> u32 {
        self.insert(queue, true)
    }

    /// The account for gets from a queue, whatever the limit: one that has deliveries outstanding is opened again.
    pub fn open_for_gets(&mut self, queue: Arc<Queue>) -> u32 {
        if let Some(&number) = self.gets.get(&queue.id)
            && let Some(account) = self.subscribers.get_mut(number as usize)
        {
            account.ended = false;
            return number;
        }
        let id = queue.id;
        let number = self.insert(queue, false);
        self.gets.insert(id, number);
        number
    }

    fn insert(&mut self, queue: Arc<Queue>, is_limited: bool) -> u32 {
        self.memory.get_or_insert_with(|| queue.memory.clone());
        let account =
            Subscriber { queue, consumer: None, is_limited, outstanding: 0, ended: false, last_tag: 0, place: None };
        let number = self.subscribers.insert(account) as u32;
        self.account_places();
        number
    }

    /// An account that has ended goes with its last delivery.
    fn remove(&mut self, index: usize) {
        let account = self.subscribers.remove(index);
        if !account.is_limited {
            self.gets.remove(&account.queue.id);
        }
        if self.subscribers.is_empty() && self.subscribers.capacity() > PLACES_KEPT {
            self.subscribers = slab::Slab::new();
            self.account_places();
        }
    }

    /// The account is that of a consumer.
    pub fn set_consumer(&mut self, subscriber: u32, id: ConsumerId) {
        if let Some(account) = self.subscribers.get_mut(subscriber as usize) {
            account.consumer = Some(id);
        }
    }

    /// Whether the account was opened for `queue` and has not ended.
    pub fn is_open(&self, subscriber: u32, queue: &Arc<Queue>) -> bool {
        let account = self.subscribers.get(subscriber as usize);
        account.is_some_and(|account| !account.ended && Arc::ptr_eq(&account.queue, queue))
    }

    /// No more deliveries come with this account; it goes with its last outstanding one.
    pub fn end(&mut self, subscriber: u32) {
        let Some(account) = self.subscribers.get_mut(subscriber as usize) else { return };
        account.ended = true;
        if let Some(place) = account.place.take() {
            self.line.waiting.remove(&place);
        }
        self.line.turn = self.line.turn.filter(|turn| *turn != subscriber);
        if account.outstanding == 0 {
            self.remove(subscriber as usize);
        }
    }

    /// All accounts of consumers together may have this many outstanding; 0: no limit. See [`next_turn`](Self::next_turn) then.
    pub fn set_limit(&mut self, limit: u32) {
        self.limit = if limit == 0 { u64::MAX } else { u64::from(limit) };
    }

    /// Whether all accounts of consumers together may have a further delivery.
    pub fn has_room(&self) -> bool {
        self.limited() < self.limit
    }

    /// Whether the account may have no further delivery now: the limit is reached, or others wait. It is in line then.
    #[inline]
    pub fn must_wait(&mut self, subscriber: u32) -> bool {
        self.limit != u64::MAX && self.wait(subscriber)
    }

    fn wait(&mut self, subscriber: u32) -> bool {
        let below = match self.line.turn {
            Some(turn) if turn == subscriber => self.line.turn_below,
            None if self.line.is_open_to_all || self.line.waiting.is_empty() => self.limit,
            _ => 0,
        };
        if self.limited() < below {
            return false;
        }
        if let Some(account) = self.subscribers.get_mut(subscriber as usize).filter(|account| account.place.is_none()) {
            let place = Place { last_tag: account.last_tag, came: self.line.came };
            account.place = Some(place);
            self.line.waiting.insert(place, subscriber);
            self.line.came += 1;
        }
        true
    }

    /// Whether accounts wait for room. Whoever made some has to let them take their [turns](Self::next_turn).
    pub fn has_waiting(&self) -> bool {
        !self.line.waiting.is_empty()
    }

    /// The consumer that comes first, if there is room: it has to be told, and then it is the next one's turn, until
    /// there is none. A turn is for an equal share of the room that there was at first.
    pub fn next_turn(&mut self) -> Option<(Arc<Queue>, ConsumerId)> {
        let goes_on = self.line.turn.take().is_some();
        if goes_on {
            self.line.idle_turns =
                if self.limited() == self.line.outstanding_before { self.line.idle_turns + 1 } else { 0 };
            // All had their turns and none took anything: what comes next has to be read from the disk.
            self.line.is_open_to_all |= self.line.idle_turns > self.line.waiting.len();
        } else if !self.line.is_open_to_all {
            let room = self.limit.saturating_sub(self.limited());
            self.line.share = (room / (self.line.waiting.len() as u64).max(1)).max(1);
            self.line.idle_turns = 0;
        }
        while self.limited() < self.limit
            && let Some((_, subscriber)) = self.line.waiting.pop_first()
        {
            let Some(account) = self.subscribers.get_mut(subscriber as usize) else { continue };
            account.place = None;
            let Some(id) = account.consumer else { continue };
            let queue = account.queue.clone();
            if !self.line.is_open_to_all {
                self.line.turn = Some(subscriber);
                self.line.turn_below = self.limit.min(self.limited().saturating_add(self.line.share));
                self.line.outstanding_before = self.limited();
            }
            return Some((queue, id));
        }
        self.line.is_open_to_all = false;
        None
    }

    /// Deliveries not settled that count against the limit.
    fn limited(&self) -> u64 {
        self.outstanding - self.got
    }

    /// Deliveries not settled.
    pub fn outstanding(&self) -> u64 {
        self.outstanding
    }

    /// Enters a delivery: its tag.
    #[inline]
    pub fn deliver(&mut self, subscriber: u32, id: MessageId) -> u64 {
        let tag = self.deliver_settled();
        self.blocks.push(tag, Entry { sequence: id.sequence, offset: id.offset, subscriber });
        self.outstanding += 1;
        self.view.unacked.store(self.outstanding, Relaxed);
        if let Some(account) = self.subscribers.get_mut(subscriber as usize) {
            account.outstanding += 1;
            account.last_tag = tag;
            self.got += u64::from(!account.is_limited);
        }
        if self.blocks.bytes() != self.accounted {
            self.account();
        }
        tag
    }

    /// A delivery that needs no settling: its tag.
    #[inline]
    pub fn deliver_settled(&mut self) -> u64 {
        self.next_tag += 1;
        self.next_tag - 1
    }

    /// Takes the delivery `tag`.
    ///
    /// # Errors
    /// [`UnknownTag`] when it is not outstanding.
    pub fn take(&mut self, tag: u64, mut taken: impl FnMut(&Subscriber, MessageId)) -> Result<(), UnknownTag> {
        let entry = self.blocks.take(tag).ok_or(UnknownTag)?;
        self.taken(entry, &mut taken);
        self.is_changed();
        Ok(())
    }

    /// The last tag of those that `tag` and `multiple` mean: all up to `tag`, or all that there are if it is 0.
    ///
    /// # Errors
    /// [`UnknownTag`] when `tag` is not outstanding.
    pub fn last_of(&self, tag: u64) -> Result<u64, UnknownTag> {
        match tag {
            0 => Ok(self.next_tag - 1),
            _ if self.blocks.contains(tag) => Ok(tag),
            _ => Err(UnknownTag),
        }
    }

    /// Takes deliveries up to the tag `last`, in order: a bounded part of them. Whether there may be more.
    pub fn take_up_to(&mut self, last: u64, mut taken: impl FnMut(&Subscriber, MessageId)) -> bool {
        let mut blocks = std::mem::take(&mut self.blocks);
        let more = blocks.take_up_to(last, TAKEN_AT_ONCE, &mut |entry| self.taken(entry, &mut taken));
        self.blocks = blocks;
        self.is_changed();
        more
    }

    #[inline]
    fn taken(&mut self, entry: Entry, taken: &mut impl FnMut(&Subscriber, MessageId)) {
        self.outstanding -= 1;
        let index = entry.subscriber as usize;
        let Some(account) = self.subscribers.get_mut(index) else { return };
        taken(account, MessageId { sequence: entry.sequence, offset: entry.offset });
        account.outstanding -= 1;
        self.got -= u64::from(!account.is_limited);
        if account.ended && account.outstanding == 0 {
            self.remove(index);
        }
    }

    fn is_changed(&mut self) {
        self.view.unacked.store(self.outstanding, Relaxed);
        if self.blocks.bytes() != self.accounted {
            self.account();
        }
    }

    fn account(&mut self) {
        account(self.memory.as_deref(), &mut self.accounted, self.blocks.bytes());
    }

    fn account_places(&mut self) {
        let places = self.subscribers.capacity();
        let bytes = if places > PLACES_KEPT { places * size_of::<Subscriber>() } else { 0 };
        account(self.memory.as_deref(), &mut self.accounted_places, bytes as u64);
    }
}

/// Something that is accounted for takes so many bytes now.
fn account(memory: Option<&Memory>, accounted: &mut u64, bytes: u64) {
    let before = std::mem::replace(accounted, bytes);
    if let Some(memory) = memory {
        memory.account(before, bytes);
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        if let Some(memory) = &self.memory {
            memory.account(self.accounted + self.accounted_places, 0);
        }
    }
}

/// Places for accounts that are not accounted for, and are kept.
const PLACES_KEPT: usize = 64;
/// Deliveries that are taken at a time: the output that they belong to is held meanwhile.
const TAKEN_AT_ONCE: usize = 8192;

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
