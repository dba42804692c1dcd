//! A shard: the queues that share one Raft group, and the operations that wait to be logged for them.
//!
//! Whoever has an operation appends it to the entry that is being put together. The proposer, one task per shard, hands
//! entries to the log, a few at a time, so that all operations that arrive during a sync form the next entry. Publishers
//! are told when their entry was applied.
//!
//! An entry is handed in once the log has room for it. While the log has no room for publishes, the publishes wait (they
//! are *held*), and settlements overtake them, because settlements are what makes room.
use crate::entry;
use bytes::Bytes;
use leveret_engine::catalog::QueueId;
use leveret_engine::queue::{DeliveryChanges, Publish};
use leveret_engine::shard::BatchId;
use leveret_replication::{GroupId, Groups, SubmitOutcome};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Receives the news that publishes are durable.
pub trait Confirm: Send + Sync {
    /// Called when the publish that `token` stands for on `channel` is durable.
    fn confirmed(&self, channel: u16, token: u64);
}

/// A publisher that waits until its publish is durable.
#[derive(Clone)]
pub struct Waiter {
    /// The connection that is told.
    pub to: Arc<dyn Confirm>,
    /// The number of the channel that published.
    pub channel: u16,
    /// The connection's own number for the publish.
    pub token: u64,
}

/// The declaration or deletion of a queue, which its shard's log gets after that of the definitions has it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ShardDefinition {
    /// The queue was declared.
    Declare {
        /// The identity of the queue.
        queue: QueueId,
        /// The declaration, encoded as a fact of `definitions`.
        fact: Box<[u8]>,
    },
    /// The queue was deleted.
    Delete(QueueId),
}

impl ShardDefinition {
    /// Returns the identity of the queue.
    pub(crate) fn queue(&self) -> QueueId {
        match self {
            Self::Declare { queue, .. } | Self::Delete(queue) => *queue,
        }
    }
}

/// A shard of the node: its pending entries and those on their way.
pub(crate) struct Shard {
    pub(crate) group: GroupId,
    pending: Mutex<PendingEntries>,
    wake: Notify,
    room: Notify,
    progress: Notify,
    full: AtomicBool,
    /// The term in which this node leads the shard; 0 while it does not.
    led: AtomicU64,
}

/// The entries that wait to be logged, and those that were handed in and are not applied yet.
#[derive(Default)]
struct PendingEntries {
    /// The entries that are being put together; operations are appended to the last one.
    entries: VecDeque<Draft>,
    /// Settlements that overtake the publishes in `entries`, for which there is no room.
    relief: VecDeque<Draft>,
    /// Set while publishes wait for room.
    held: bool,
    /// Set while even settlements wait for room.
    stuck: bool,
    /// The length of all entries in `entries` and `relief`, in bytes.
    bytes: usize,
    /// Length of the entry that was handed in last, in bytes: the next will be about as long.
    last_len: usize,
    /// The entries that were handed in and are not applied yet, in order.
    waiting: VecDeque<InFlight>,
    /// The length of all entries in `waiting`, in bytes.
    in_flight_bytes: usize,
    /// The number of the next entry.
    next_number: u64,
    /// Entries below this number are applied.
    applied: u64,
    /// All entries that change which messages are ready have numbers below this one.
    visible: u64,
    /// The number of operations other than publishes, how many of these are applied, and the number of the last one that
    /// returned messages.
    settles: u64,
    settles_applied: u64,
    last_return: u64,
}

/// An entry that is being put together.
struct Draft {
    bytes: Vec<u8>,
    waiters: Vec<Waiter>,
    /// Set if someone waits for this entry. An entry of settlements alone is handed in a little later, so that it can be
    /// shared: nobody is told when it is logged, and a crash before that looks like a crash before the consumer
    /// acknowledged.
    urgent: bool,
    since: Instant,
    /// Set if the entry contains publishes.
    publishes: bool,
    /// The number of the last operation in the entry that is not a publish, if there is any.
    settles: Option<u64>,
}

impl Draft {
    fn new(bytes: Vec<u8>) -> Self {
        let since = Instant::now();
        Self { bytes, waiters: Vec::new(), urgent: false, since, publishes: false, settles: None }
    }
}

/// An entry that was handed in and is not applied yet.
struct InFlight {
    number: u64,
    /// The length of the entry in bytes.
    len: usize,
    waiters: Vec<Waiter>,
    settles: Option<u64>,
}

/// The result of [`PendingEntries::take`].
enum Choice {
    Entry(Draft),
    /// The log has no room for the next entry.
    NoRoom,
    Nothing,
}

/// The next step of the proposer.
enum Next {
    Entry(Bytes),
    /// The next entry may wait until this time.
    Later(Instant),
    Nothing,
}

impl Shard {
    pub(crate) fn new(group: GroupId) -> Self {
        let (wake, room, progress) = (Notify::new(), Notify::new(), Notify::new());
        let (full, led) = (AtomicBool::new(false), AtomicU64::new(0));
        Self { group, pending: Mutex::default(), wake, room, progress, full, led }
    }

    /// Returns the term in which this node leads the shard and serves its queues, or `None` if it does not.
    #[inline]
    pub(crate) fn term(&self) -> Option<u64> {
        Some(self.led.load(Acquire)).filter(|term| *term > 0)
    }

    /// Notes that this node leads the shard.
    pub(crate) fn lead(&self, term: u64) {
        self.led.store(term, Release);
        self.wake.notify_one();
    }

    /// Notes that this node does not lead the shard any more.
    pub(crate) fn follow(&self) {
        self.led.store(0, Release);
    }

    /// Appends the publish of one run to queues of this shard. `waiter` is told once all of the run is applied.
    pub(crate) fn publish(&self, queues: &[QueueId], publish: &Publish<'_>, waiter: Option<Waiter>) {
        let mut pieces = entry::pieces(queues, publish.messages).peekable();
        let mut waiter = waiter;
        while let Some((queues, messages)) = pieces.next() {
            let piece = Publish { messages, ..*publish };
            let waiter = if pieces.peek().is_none() { waiter.take() } else { None };
            let room = entry::room_for(queues, &piece);
            self.push(|bytes| entry::enqueue(bytes, queues, &piece), room, waiter, true);
        }
    }

    /// Appends the settlements and returns of a queue of this shard, of messages that were delivered in `epoch`.
    pub(crate) fn changes(&self, queue: QueueId, epoch: u64, changes: &DeliveryChanges) {
        let visible = !changes.returned.is_empty();
        entry::changes(queue, epoch, changes, |append| self.push(append, 0, None, visible));
    }

    /// Appends the declaration or deletion of a queue of this shard.
    pub(crate) fn define(&self, definition: &ShardDefinition) {
        match definition {
            ShardDefinition::Declare { fact, .. } => {
                self.push(|bytes| entry::declare(bytes, fact), fact.len(), None, true);
            }
            ShardDefinition::Delete(queue) => self.push(|bytes| entry::delete(bytes, *queue), 0, None, false),
        }
    }

    /// Appends an operation to the entry that is being put together. `room` is about the length of the operation in bytes;
    /// 0 if it is short. `visible` says whether the operation changes which messages are ready.
    fn push(&self, append: impl FnOnce(&mut Vec<u8>), room: usize, waiter: Option<Waiter>, visible: bool) {
        let mut locked = self.pending.lock();
        let state = &mut *locked;
        if state.entries.back().is_none_or(|last| last.bytes.len() >= ENTRY_BYTES) {
            let begun = entry::begin(state.last_len.max(room));
            state.bytes += begun.len();
            state.entries.push_back(Draft::new(begun));
        }
        let first = state.entries.len() == 1;
        let Some(last) = state.entries.back_mut() else { return };
        let before = last.bytes.len();
        last.urgent |= visible || waiter.is_some();
        let wakes = last.urgent || before == entry::EMPTY || !first;
        append(&mut last.bytes);
        let added = last.bytes.len() - before;
        let publishes = entry::is_publish(&last.bytes[before..]);
        last.publishes |= publishes;
        last.waiters.extend(waiter);
        state.bytes += added;
        if !publishes {
            state.settles += 1;
            last.settles = Some(state.settles);
        }
        if visible && !publishes {
            state.last_return = state.settles;
        }
        if visible {
            state.visible = state.next_number + (state.relief.len() + state.entries.len()) as u64;
        }
        if state.bytes > PENDING_BYTES_MAX {
            self.full.store(true, Relaxed);
        }
        drop(locked);
        if wakes {
            self.wake.notify_one();
        }
    }

    /// Returns whether publishers should wait because too many operations are waiting to be handed in.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Relaxed)
    }

    /// Waits while [`is_full`](Self::is_full).
    pub(crate) async fn until_room(&self) {
        loop {
            let room = self.room.notified();
            if !self.is_full() {
                return;
            }
            room.await;
        }
    }

    /// Hands entries to the log while this node leads the shard, until the node stops. `origin` identifies this start of the
    /// node. Calls `on_failure` if the group refuses an entry.
    pub(crate) async fn propose(
        self: Arc<Self>,
        groups: Groups,
        origin: BatchId,
        stopping: CancellationToken,
        on_failure: Arc<dyn Fn(String) + Send + Sync>,
    ) {
        loop {
            let woken = self.wake.notified();
            let Some(term) = self.term() else {
                tokio::select! {
                    biased;
                    () = woken => continue,
                    () = stopping.cancelled() => return,
                }
            };
            let bytes = match self.next(origin, |bytes, control| groups.has_room_for(bytes, control)) {
                Next::Entry(bytes) => bytes,
                Next::Later(at) => tokio::select! {
                    biased;
                    () = woken => continue,
                    () = tokio::time::sleep_until(at) => continue,
                    () = stopping.cancelled() => return,
                },
                Next::Nothing => tokio::select! {
                    biased;
                    () = woken => continue,
                    () = stopping.cancelled() => return,
                },
            };
            let on_failure = on_failure.clone();
            let answer = Box::new(move |outcome: SubmitOutcome| {
                // That a group has stopped is noticed elsewhere.
                if let Err(refused) = outcome.as_ref()
                    && !refused.is_open
                {
                    on_failure(refused.to_string());
                }
            });
            groups.submit(self.group, term, bytes, answer).await;
        }
    }

    /// Returns the next entry to hand in. `has_room` is called with the length of an entry in bytes and whether the entry
    /// is free of publishes; if it returns true, the room is reserved for that entry.
    fn next(&self, origin: BatchId, has_room: impl Fn(usize, bool) -> bool) -> Next {
        let mut state = self.pending.lock();
        if !state.may_hand_in() {
            return Next::Nothing;
        }
        if state.relief.is_empty()
            && let Some(first) = state.entries.front()
        {
            let due = first.since + LINGER;
            if !first.urgent && state.entries.len() == 1 && Instant::now() < due {
                return Next::Later(due);
            }
        }
        let Draft { mut bytes, waiters, settles, .. } = match state.take(has_room) {
            Choice::Entry(entry) => entry,
            Choice::Nothing => return Next::Nothing,
            Choice::NoRoom => {
                self.progress.notify_waiters();
                return Next::Later(Instant::now() + ASK_AGAIN);
            }
        };
        let number = state.next_number;
        state.next_number += 1;
        state.bytes = state.bytes.saturating_sub(bytes.len());
        state.last_len = bytes.len().min(ENTRY_BYTES * 5 / 4);
        if state.bytes < PENDING_BYTES_MAX / 2 && self.full.swap(false, Relaxed) {
            self.room.notify_waiters();
        }
        state.in_flight_bytes += bytes.len();
        state.waiting.push_back(InFlight { number, len: bytes.len(), waiters, settles });
        drop(state);
        entry::seal(&mut bytes, BatchId { number, ..origin });
        Next::Entry(bytes.into())
    }

    /// Notes that the batch with this number, one of this start of the node, was applied, and tells its publishers.
    pub(crate) fn applied(&self, number: u64) {
        let waiters = {
            let mut state = self.pending.lock();
            state.applied = number + 1;
            match state.waiting.pop_front() {
                Some(first) => {
                    assert!(first.number == number, "entries of shard {} are applied in their order", self.group);
                    state.in_flight_bytes -= first.len;
                    state.settles_applied = first.settles.unwrap_or(state.settles_applied);
                    first.waiters
                }
                None => Vec::new(),
            }
        };
        self.wake.notify_one();
        self.progress.notify_waiters();
        for waiter in waiters {
            waiter.to.confirmed(waiter.channel, waiter.token);
        }
    }

    /// Waits until all operations pushed so far are applied that change which messages are ready; does not wait for
    /// publishes that wait for room.
    pub(crate) async fn until_visible(&self) {
        let (visible, last_return) = {
            let state = self.pending.lock();
            (state.visible, state.last_return)
        };
        self.until(|state| state.applied >= visible || state.held && state.has_settled(last_return)).await;
    }

    /// Waits until all settlements and returns pushed so far are applied; does not wait for those that wait for room.
    pub(crate) async fn until_settled(&self) {
        let upto = {
            let mut state = self.pending.lock();
            if let Some(last) = state.entries.back_mut() {
                last.urgent = true;
            }
            state.settles
        };
        self.wake.notify_one();
        self.until(|state| state.has_settled(upto)).await;
    }

    async fn until(&self, done: impl Fn(&PendingEntries) -> bool) {
        loop {
            let progress = self.progress.notified();
            if done(&self.pending.lock()) {
                return;
            }
            progress.await;
        }
    }

    /// Returns whether publishes wait for room.
    #[cfg(test)]
    pub(crate) fn is_held(&self) -> bool {
        self.pending.lock().held
    }

    /// Returns whether all operations that were pushed are applied.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.pending.lock();
        state.waiting.is_empty() && state.entries.is_empty() && state.relief.is_empty()
    }
}

impl PendingEntries {
    /// Returns whether a further entry may be handed in beside those on their way. A large entry gains nothing by waiting.
    fn may_hand_in(&self) -> bool {
        let is_large = || self.entries.front().is_some_and(|first| first.bytes.len() >= LARGE_BYTES);
        self.waiting.len() < IN_FLIGHT_MAX || self.in_flight_bytes < IN_FLIGHT_BYTES_MAX && is_large()
    }

    /// Returns whether all operations up to number `upto`, not counting publishes, are applied or have to wait for room.
    fn has_settled(&self, upto: u64) -> bool {
        self.stuck || self.settles_applied >= upto
    }

    fn take(&mut self, has_room: impl Fn(usize, bool) -> bool) -> Choice {
        if self.relief.is_empty() {
            let Some(first) = self.entries.front() else { return Choice::Nothing };
            if has_room(first.bytes.len(), !first.publishes) {
                (self.held, self.stuck) = (false, false);
                return self.entries.pop_front().map_or(Choice::Nothing, Choice::Entry);
            }
            self.hold();
        }
        let Some(first) = self.relief.front() else { return Choice::NoRoom };
        self.stuck = !has_room(first.bytes.len(), true);
        if self.stuck {
            return Choice::NoRoom;
        }
        self.relief.pop_front().map_or(Choice::NoRoom, Choice::Entry)
    }

    /// Moves settlements and returns from `entries` to `relief`, so that they overtake the publishes. An entry that is
    /// empty afterwards stays, because the entries are numbered.
    fn hold(&mut self) {
        self.held = true;
        for gathered in self.entries.iter_mut().filter(|gathered| gathered.settles.is_some()) {
            if self.relief.back().is_none_or(|last| last.bytes.len() >= ENTRY_BYTES) {
                // A further entry in `relief` raises the numbers of all entries in `entries` by one.
                self.visible += u64::from(self.visible > self.next_number + self.relief.len() as u64);
                self.relief.push_back(Draft::new(entry::begin(0)));
                self.bytes += entry::EMPTY;
            }
            if let Some(relief) = self.relief.back_mut() {
                gathered.bytes = entry::split(&gathered.bytes, &mut relief.bytes);
                relief.settles = gathered.settles.take();
            }
        }
    }
}

/// An entry of this many bytes takes no further operation. The value is small enough for a publisher's window to be several
/// entries: some are on their way to the disk while others are put together.
const ENTRY_BYTES: usize = 128 << 10;
/// The largest number of entries on their way; operations that arrive meanwhile form the next one.
const IN_FLIGHT_MAX: usize = 8;
/// A large entry (a large message, as a rule) is handed in beside these, while the entries on their way have fewer bytes
/// than this.
const IN_FLIGHT_BYTES_MAX: usize = 8 << 20;
const LARGE_BYTES: usize = 2 * ENTRY_BYTES;
/// The interval at which a full log is asked for room.
const ASK_AGAIN: Duration = Duration::from_millis(20);
/// The longest time that settlements wait for an operation that someone waits for, to share its entry.
const LINGER: Duration = Duration::from_millis(2);
/// Publishers wait while more bytes than this are not handed in, until only half of them are left.
const PENDING_BYTES_MAX: usize = 2 << 20;

#[cfg(test)]
#[path = "shard_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "shard_parts_tests.rs"]
mod parts_tests;
