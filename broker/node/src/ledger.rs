//! The ledger of a channel: its unacknowledged deliveries, from delivery tag to message.
//!
//! The ledger is part of the channel's output, under the same lock: a delivery is entered where it is written. An
//! outstanding delivery takes 18 bytes; a delivery that needs no acknowledgement only uses up a tag. When all consumers
//! together have as many outstanding deliveries as the limit allows, those that could take more wait in a line, and take
//! turns when there is room again.
mod blocks;

use crate::connections::ChannelView;
use crate::memory::Memory;
use crate::queue::{Queue, QueueId};
use blocks::{Blocks, Outstanding};
use leveret_engine::queue::{ConsumerId, DeliveryId, MessageId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// The unacknowledged deliveries of a channel by delivery tag, and an account for each consumer and for the gets from each
/// queue.
pub struct Ledger {
    blocks: Blocks,
    next_tag: u64,
    outstanding: u64,
    /// The number of outstanding deliveries that answered a get: they do not count against the limit, as in RabbitMQ.
    got: u64,
    limit: u64,
    subscribers: slab::Slab<Subscriber>,
    /// The numbers of the accounts for gets, by queue.
    gets: BTreeMap<QueueId, u32>,
    line: Line,
    /// Shows the number of outstanding deliveries to the management API.
    view: Arc<ChannelView>,
    /// The budget that the memory of older blocks and of many accounts is reported to; set when the first account is
    /// opened.
    memory: Option<Arc<Memory>>,
    accounted: u64,
    /// Bytes reported for the places of accounts if there are more than 64.
    accounted_places: u64,
}

/// The accounts that wait for room under the limit, and the account whose turn it is.
#[derive(Default)]
struct Line {
    /// The accounts by their place in the line.
    waiting: BTreeMap<LinePlace, u32>,
    /// The number of accounts that have joined the line so far.
    came: u64,
    /// The account whose turn it is.
    turn: Option<u32>,
    /// The turn lasts while fewer deliveries than this are outstanding.
    turn_below: u64,
    /// The number of deliveries of one turn.
    share: u64,
    /// The number of deliveries that were outstanding when the last turn began.
    outstanding_before: u64,
    /// The number of turns in a row in which no delivery was made.
    idle_turns: usize,
    /// Set when all accounts had a turn and none took anything. Then turns are not kept: the accounts in the line are told
    /// one after the other, and each takes as much as the limit allows.
    is_open_to_all: bool,
}

/// An account: the consumer of a queue, or the gets from a queue, that deliveries went through.
#[derive(Clone)]
pub struct Subscriber {
    /// The queue.
    pub queue: Arc<Queue>,
    /// The consumer; `None` for gets.
    pub consumer: Option<ConsumerId>,
    /// Set if the deliveries count against the limit.
    is_limited: bool,
    outstanding: u64,
    ended: bool,
    /// The tag of the last delivery.
    last_tag: u64,
    /// The epoch of the queue in which the last delivery was made.
    epoch: u64,
    /// The tag of the first delivery of that epoch. Those before it were made in earlier ones.
    epoch_from: u64,
    /// The account's place in the line if it waits.
    place: Option<LinePlace>,
}

/// A place in the line. The account that was served longest ago comes first; among equals the one that joined first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct LinePlace {
    last_tag: u64,
    came: u64,
}

/// The error for a tag that names no outstanding delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownTag;

impl Ledger {
    /// Creates an empty ledger; `view` shows how many deliveries are outstanding.
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

    /// Opens an account for a consumer of `queue`. Returns the number with which deliveries are entered.
    pub fn open(&mut self, queue: Arc<Queue>) -> u32 {
        self.insert(queue, true)
    }

    /// Opens the account for gets from `queue`, which are not limited, and returns its number. An account that has ended
    /// but still has outstanding deliveries is opened again.
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
        let account = Subscriber {
            queue,
            consumer: None,
            is_limited,
            outstanding: 0,
            ended: false,
            last_tag: 0,
            epoch: 0,
            epoch_from: 0,
            place: None,
        };
        let number = self.subscribers.insert(account) as u32;
        self.account_places();
        number
    }

    /// Removes an account that has ended and has no outstanding deliveries.
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

    /// Sets the consumer that the account `subscriber` belongs to.
    pub fn set_consumer(&mut self, subscriber: u32, id: ConsumerId) {
        if let Some(account) = self.subscribers.get_mut(subscriber as usize) {
            account.consumer = Some(id);
        }
    }

    /// Returns whether the account was opened for `queue` and has not ended.
    pub fn is_open(&self, subscriber: u32, queue: &Arc<Queue>) -> bool {
        let account = self.subscribers.get(subscriber as usize);
        account.is_some_and(|account| !account.ended && Arc::ptr_eq(&account.queue, queue))
    }

    /// Ends an account: no more deliveries are entered for it, and it is removed with its last outstanding delivery.
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

    /// Limits the outstanding deliveries of all consumers together; 0 means no limit. The caller then has to let waiting
    /// accounts take their [turns](Self::next_turn).
    pub fn set_limit(&mut self, limit: u32) {
        self.limit = if limit == 0 { u64::MAX } else { u64::from(limit) };
    }

    /// Returns whether the limit allows a further delivery to a consumer.
    pub fn has_room(&self) -> bool {
        self.limited() < self.limit
    }

    /// Returns whether the account must not get a further delivery now, because the limit is reached or others wait. The
    /// account is put in the line then.
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
            let place = LinePlace { last_tag: account.last_tag, came: self.line.came };
            account.place = Some(place);
            self.line.waiting.insert(place, subscriber);
            self.line.came += 1;
        }
        true
    }

    /// Returns whether accounts wait for room. Whoever made room has to let them take their [turns](Self::next_turn).
    pub fn has_waiting(&self) -> bool {
        !self.line.waiting.is_empty()
    }

    /// Begins the turn of the next account in the line. Returns its queue and consumer, which has to be told; the caller
    /// then calls again, until `None` says that the line is empty or that there is no room. Each turn is for an equal share
    /// of the room that there was before the first turn.
    pub fn next_turn(&mut self) -> Option<(Arc<Queue>, ConsumerId)> {
        let goes_on = self.line.turn.take().is_some();
        if goes_on {
            self.line.idle_turns =
                if self.limited() == self.line.outstanding_before { self.line.idle_turns + 1 } else { 0 };
            // All had their turns and none took anything: the next messages have to be read from the disk.
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

    /// Returns the number of outstanding deliveries that count against the limit.
    fn limited(&self) -> u64 {
        self.outstanding - self.got
    }

    /// Returns the number of outstanding deliveries.
    pub fn outstanding(&self) -> u64 {
        self.outstanding
    }

    /// Enters a delivery for the account `subscriber` and returns its tag.
    #[inline]
    pub fn deliver(&mut self, subscriber: u32, id: DeliveryId) -> u64 {
        let DeliveryId { message: MessageId { sequence, offset }, epoch } = id;
        let tag = self.deliver_settled();
        self.blocks.push(tag, Outstanding { sequence, offset, subscriber });
        self.outstanding += 1;
        self.view.unacked.store(self.outstanding, Relaxed);
        if let Some(account) = self.subscribers.get_mut(subscriber as usize) {
            account.outstanding += 1;
            account.last_tag = tag;
            if account.epoch < epoch {
                (account.epoch, account.epoch_from) = (epoch, tag);
            }
            self.got += u64::from(!account.is_limited);
        }
        if self.blocks.bytes() != self.accounted {
            self.account();
        }
        tag
    }

    /// Returns the tag for a delivery that needs no acknowledgement.
    #[inline]
    pub fn deliver_settled(&mut self) -> u64 {
        self.next_tag += 1;
        self.next_tag - 1
    }

    /// Removes the delivery `tag` and hands it to `taken`.
    ///
    /// # Errors
    /// [`UnknownTag`] if the delivery is not outstanding.
    pub fn take(&mut self, tag: u64, mut taken: impl FnMut(&Subscriber, DeliveryId)) -> Result<(), UnknownTag> {
        let entry = self.blocks.take(tag).ok_or(UnknownTag)?;
        self.taken(tag, entry, &mut taken);
        self.is_changed();
        Ok(())
    }

    /// Returns the last tag that an acknowledgement of `tag` with `multiple` covers: `tag` itself, or the last tag used if
    /// it is 0.
    ///
    /// # Errors
    /// [`UnknownTag`] if the delivery `tag` is not outstanding.
    pub fn last_of(&self, tag: u64) -> Result<u64, UnknownTag> {
        match tag {
            0 => Ok(self.next_tag - 1),
            _ if self.blocks.contains(tag) => Ok(tag),
            _ => Err(UnknownTag),
        }
    }

    /// Removes outstanding deliveries up to and including the tag `last` and hands them to `taken` in order: about 8192 in
    /// one call. Returns whether there may be more.
    pub fn take_up_to(&mut self, last: u64, mut taken: impl FnMut(&Subscriber, DeliveryId)) -> bool {
        let mut blocks = std::mem::take(&mut self.blocks);
        let more = blocks.take_up_to(last, TAKEN_AT_ONCE, &mut |tag, entry| self.taken(tag, entry, &mut taken));
        self.blocks = blocks;
        self.is_changed();
        more
    }

    #[inline]
    fn taken(&mut self, tag: u64, entry: Outstanding, taken: &mut impl FnMut(&Subscriber, DeliveryId)) {
        self.outstanding -= 1;
        let index = entry.subscriber as usize;
        let Some(account) = self.subscribers.get_mut(index) else { return };
        let message = MessageId { sequence: entry.sequence, offset: entry.offset };
        // Each epoch is later than the one before: it is enough to know that a delivery is not of the last one.
        let epoch = if tag >= account.epoch_from { account.epoch } else { 0 };
        taken(account, DeliveryId { message, epoch });
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

/// Reports to the memory budget that something now takes `bytes` bytes instead of `accounted`, which is updated.
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

/// The number of places for accounts that are kept when all accounts are gone, and are not reported as memory.
const PLACES_KEPT: usize = 64;
/// The number of deliveries, about, that are removed in one call: the output that the ledger is part of is locked
/// meanwhile.
const TAKEN_AT_ONCE: usize = 8192;

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
