//! The operations of this node that wait for the log of a group, and those that are on their way into it.
//!
//! Whoever has an operation appends it to the batch that is being put together. The proposer, one task per group, hands
//! batches in, a few at a time, so that all operations that arrive during a sync form the next batch. Publishers are told
//! when their batch was applied on this node.
//!
//! There are two rows of batches, each numbered by itself: publishes, and all other operations. A batch is handed in once
//! the log has room for it. While the log has no room for publishes, these wait (they are *held*), and the others overtake
//! them, because settlements are what makes room.
//!
//! A batch that was handed in is kept until it is applied. If the leader of the group changes before that, or a connection
//! to it breaks, nobody knows whether the log has the batch: it is handed in again, in order ([`Outbox::rewind`]), and the
//! log's reader skips what it has applied before.
use crate::entry::{self, Row};
use crate::waiter::Waiter;
use bytes::Bytes;
use leveret_engine::catalog::NodeRun;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The operations of this node for one group.
pub(crate) struct Outbox {
    state: Mutex<OutboxState>,
    /// Notified when there may be something to hand in.
    pub(crate) wake: Notify,
    room: Notify,
    progress: Notify,
    full: AtomicBool,
    /// Set once the leader could not take a batch.
    refused: AtomicBool,
    /// The term in which this node leads the group; 0 while it does not.
    led: AtomicU64,
}

#[derive(Default)]
struct OutboxState {
    publishes: VecDeque<Draft>,
    others: VecDeque<Draft>,
    /// Set while publishes wait for room.
    held: bool,
    /// Set while even other operations wait for room.
    stuck: bool,
    /// The length of all drafts, in bytes.
    bytes: usize,
    /// The length of the batch of publishes that was handed in last, in bytes: the next will be about as long.
    last_len: usize,
    rows: [InFlight; 2],
    /// The number of operations other than publishes, how many of these are applied, and the number of the last one that
    /// changes which messages are ready.
    settles: u64,
    settles_applied: u64,
    last_visible: u64,
}

/// A batch that is being put together, in an entry of its own.
struct Draft {
    bytes: Vec<u8>,
    waiters: Vec<Waiter>,
    /// Set if someone waits for this batch. A batch of settlements alone is handed in a little later, so that its entry can
    /// be shared: nobody is told when it is logged, and a crash before that looks like a crash before the consumer
    /// acknowledged.
    urgent: bool,
    since: Instant,
    /// The number of the last operation in it that is not a publish.
    settles: u64,
}

/// The batches of one row that were handed in and are not applied yet.
#[derive(Default)]
struct InFlight {
    /// The number of the next batch.
    next: u64,
    batches: VecDeque<Sent>,
    /// The number of `batches`, from the first on, that need not be handed in again.
    sent: usize,
    /// The length of `batches` in bytes.
    bytes: usize,
}

/// A batch that was handed in.
struct Sent {
    number: u64,
    /// An entry that holds this batch alone.
    entry: Bytes,
    waiters: Vec<Waiter>,
    settles: u64,
}

/// An operation to append.
pub(crate) struct Addition<F> {
    /// Appends the operation to a batch.
    pub(crate) append: F,
    pub(crate) row: Row,
    /// About the length of the operation in bytes; 0 if it is short.
    pub(crate) room: usize,
    /// The publisher that is told when it is applied.
    pub(crate) waiter: Option<Waiter>,
    /// True if the operation changes which messages are ready, or somebody waits for it.
    pub(crate) visible: bool,
}

/// The next step of the proposer.
#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    /// An entry to hand in.
    Entry(Bytes),
    /// The next entry may wait until this time.
    Later(Instant),
    Nothing,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        let (wake, room, progress) = (Notify::new(), Notify::new(), Notify::new());
        let (full, refused, led) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
        Self { state: Mutex::default(), wake, room, progress, full, refused, led }
    }

    /// Returns the term in which this node leads the group, or `None` if it does not.
    #[inline]
    pub(crate) fn term(&self) -> Option<u64> {
        Some(self.led.load(Acquire)).filter(|term| *term > 0)
    }

    /// Notes that this node leads the group.
    pub(crate) fn lead(&self, term: u64) {
        self.led.store(term, Release);
        self.wake.notify_one();
    }

    /// Notes that this node does not lead the group any more.
    pub(crate) fn follow(&self) {
        self.led.store(0, Release);
        self.wake.notify_one();
    }

    /// Appends an operation to the batch that is being put together.
    pub(crate) fn push(&self, Addition { append, row, room, waiter, visible }: Addition<impl FnOnce(&mut Vec<u8>)>) {
        let mut locked = self.state.lock();
        let state = &mut *locked;
        let last_len = state.last_len;
        let drafts = if row == Row::Publishes { &mut state.publishes } else { &mut state.others };
        if drafts.back().is_none_or(|last| last.bytes.len() >= BATCH_BYTES) {
            let expected = if row == Row::Publishes { last_len } else { 0 };
            let begun = entry::begin(expected.max(room));
            state.bytes += begun.len();
            drafts.push_back(Draft::new(begun));
        }
        let first = drafts.len() == 1;
        let Some(last) = drafts.back_mut() else { return };
        let before = last.bytes.len();
        last.urgent |= visible || waiter.is_some();
        let wakes = last.urgent || before == entry::EMPTY || !first;
        append(&mut last.bytes);
        last.waiters.extend(waiter);
        state.bytes += last.bytes.len() - before;
        if row == Row::Others {
            state.settles += 1;
            last.settles = state.settles;
            if visible {
                state.last_visible = state.settles;
            }
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

    /// Returns the next entry to hand in. `of` identifies this start of the node. `has_room` is called with the length of an
    /// entry in bytes and whether the entry is free of publishes; if it returns true, the room is reserved for that entry.
    pub(crate) fn next(&self, of: NodeRun, has_room: impl Fn(usize, bool) -> bool) -> Next {
        let mut locked = self.state.lock();
        let state = &mut *locked;
        let mut is_blocked = false;
        for row in [Row::Others, Row::Publishes] {
            let in_flight = &mut state.rows[row as usize];
            let Some(unsent) = in_flight.batches.get(in_flight.sent) else { continue };
            if has_room(unsent.entry.len(), row == Row::Others) {
                in_flight.sent += 1;
                return Next::Entry(in_flight.batches[in_flight.sent - 1].entry.clone());
            }
            if row == Row::Others {
                return Next::Later(Instant::now() + ASK_AGAIN);
            }
            is_blocked = true;
        }
        let publishes = !is_blocked && state.may_hand_in(Row::Publishes) && !state.publishes.is_empty();
        let others = state.may_hand_in(Row::Others) && !state.others.is_empty();
        if let (false, true, Some(first)) = (publishes, others, state.others.front()) {
            let due = first.since + LINGER;
            if !first.urgent && state.others.len() == 1 && Instant::now() < due {
                return Next::Later(due);
            }
        }
        if !publishes && !others && !is_blocked {
            return Next::Nothing;
        }
        let len =
            |row: &VecDeque<Draft>, taken: bool| row.front().filter(|_| taken).map_or(0, |draft| draft.bytes.len());
        let (published, settled) = (len(&state.publishes, publishes), len(&state.others, others));
        let has_publishes = publishes && has_room(published + settled, false);
        let has_others = others && (has_publishes || has_room(settled, true));
        (state.held, state.stuck) = (is_blocked || publishes && !has_publishes, others && !has_others);
        if !has_publishes && !has_others {
            self.progress.notify_waiters();
            return Next::Later(Instant::now() + ASK_AGAIN);
        }
        let publishes = if has_publishes { state.publishes.pop_front() } else { None };
        let others = if has_others { state.others.pop_front() } else { None };
        for draft in [&publishes, &others].into_iter().flatten() {
            state.bytes = state.bytes.saturating_sub(draft.bytes.len());
        }
        if state.bytes < PENDING_BYTES_MAX / 2 && self.full.swap(false, Relaxed) {
            self.room.notify_waiters();
        }
        Next::Entry(state.hand_in(of, publishes, others))
    }

    /// Has everything handed in again that is not applied.
    pub(crate) fn rewind(&self) {
        self.resend();
        self.wake.notify_one();
    }

    /// Does the same, but not at once.
    pub(crate) fn resend(&self) {
        self.state.lock().rows.iter_mut().for_each(|row| row.sent = 0);
    }

    /// Notes that the leader could not take a batch.
    pub(crate) fn refused(&self) {
        self.refused.store(true, Relaxed);
        self.wake.notify_one();
    }

    /// Returns whether the leader could not take a batch since the last call.
    pub(crate) fn take_refused(&self) -> bool {
        self.refused.load(Relaxed) && self.refused.swap(false, Relaxed)
    }

    /// Returns the number of the first batch of each row that was handed in and is not applied.
    pub(crate) fn unapplied(&self) -> [Option<u64>; 2] {
        self.state.lock().rows.each_ref().map(|row| row.batches.front().map(|sent| sent.number))
    }

    /// Notes that the batches of a row up to this number, which are of this start of the node, were applied, and tells their
    /// publishers.
    pub(crate) fn applied(&self, row: Row, number: u64) {
        let waiters = {
            let mut state = self.state.lock();
            let in_flight = &mut state.rows[row as usize];
            let (mut waiters, mut settles) = (Vec::new(), None);
            // A snapshot may have brought several batches at once.
            while let Some(first) = in_flight.batches.pop_front_if(|first| first.number <= number) {
                in_flight.sent = in_flight.sent.saturating_sub(1);
                in_flight.bytes -= first.entry.len();
                settles = Some(first.settles);
                waiters.extend(first.waiters);
            }
            if row == Row::Others {
                state.settles_applied = settles.unwrap_or(state.settles_applied);
            }
            waiters
        };
        self.wake.notify_one();
        self.progress.notify_waiters();
        for waiter in waiters {
            waiter.to.confirmed(waiter.channel, waiter.token);
        }
    }

    /// Notes that all batches of a row below `next` are applied, because a snapshot covers them. Returns their entries, each
    /// of which holds one batch.
    pub(crate) fn applied_below(&self, row: Row, next: u64) -> Vec<Bytes> {
        let covered: Vec<Bytes> = {
            let state = self.state.lock();
            let batches = state.rows[row as usize].batches.iter();
            batches.take_while(|sent| sent.number < next).map(|sent| sent.entry.clone()).collect()
        };
        if !covered.is_empty() {
            self.applied(row, next - 1);
        }
        covered
    }

    /// Waits until all operations pushed so far are applied that change which messages are ready; does not wait for
    /// publishes that wait for room.
    pub(crate) async fn until_visible(&self) {
        let (publishes, last_visible) = {
            let state = self.state.lock();
            (state.rows[Row::Publishes as usize].next + state.publishes.len() as u64, state.last_visible)
        };
        let visible =
            |state: &OutboxState| (state.held || state.has_published(publishes)) && state.has_settled(last_visible);
        loop {
            let before = self.unapplied();
            match self.term() {
                Some(_) => return self.until(visible).await,
                // The leader may have no room, and does not say so.
                None => match tokio::time::timeout(STANDSTILL_MAX, self.until(visible)).await {
                    Err(_) if self.unapplied() != before => {}
                    _ => return,
                },
            }
        }
    }

    /// Waits until all operations other than publishes pushed so far are applied; does not wait for those that wait for
    /// room.
    pub(crate) async fn until_settled(&self) {
        let upto = {
            let mut state = self.state.lock();
            if let Some(last) = state.others.back_mut() {
                last.urgent = true;
            }
            state.settles
        };
        self.wake.notify_one();
        self.until(|state| state.has_settled(upto)).await;
    }

    async fn until(&self, done: impl Fn(&OutboxState) -> bool) {
        loop {
            let progress = self.progress.notified();
            if done(&self.state.lock()) {
                return;
            }
            progress.await;
        }
    }

    /// Returns whether publishes wait for room.
    #[cfg(test)]
    pub(crate) fn is_held(&self) -> bool {
        self.state.lock().held
    }

    /// Returns whether all operations that were pushed are applied.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state.lock();
        let nothing = state.rows.iter().all(|row| row.batches.is_empty());
        nothing && state.publishes.is_empty() && state.others.is_empty()
    }
}

impl Draft {
    fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, waiters: Vec::new(), urgent: false, since: Instant::now(), settles: 0 }
    }
}

impl OutboxState {
    /// Returns whether a further batch may be handed in beside those on their way. A large one gains nothing by waiting.
    fn may_hand_in(&self, row: Row) -> bool {
        let in_flight = &self.rows[row as usize];
        let first = if row == Row::Publishes { self.publishes.front() } else { self.others.front() };
        let is_large = || first.is_some_and(|first| first.bytes.len() >= LARGE_BYTES);
        in_flight.batches.len() < IN_FLIGHT_MAX || in_flight.bytes < IN_FLIGHT_BYTES_MAX && is_large()
    }

    /// Numbers the batches and notes that they are on their way. Returns the entry of both.
    fn hand_in(&mut self, of: NodeRun, publishes: Option<Draft>, others: Option<Draft>) -> Bytes {
        if let Some(draft) = &publishes {
            self.last_len = draft.bytes.len().min(BATCH_BYTES * 5 / 4);
        }
        let others = others.map(|draft| self.send(of, Row::Others, draft, &[]));
        match publishes {
            Some(draft) => self.send(of, Row::Publishes, draft, others.as_deref().unwrap_or_default()),
            None => others.unwrap_or_default(),
        }
    }

    /// Numbers a batch and notes that it is on its way. Returns an entry of it and of the batch in the entry `beside`, if
    /// that is not empty.
    fn send(&mut self, of: NodeRun, row: Row, draft: Draft, beside: &[u8]) -> Bytes {
        let Draft { mut bytes, waiters, settles, .. } = draft;
        let in_flight = &mut self.rows[row as usize];
        let (number, len) = (in_flight.next, bytes.len());
        entry::seal(&mut bytes, entry::batch_of(of, row, number));
        bytes.extend_from_slice(beside.get(1..).unwrap_or_default()); // without the version, which the entry has
        let whole = Bytes::from(bytes);
        in_flight.next += 1;
        in_flight.bytes += len;
        in_flight.batches.push_back(Sent { number, entry: whole.slice(..len), waiters, settles });
        in_flight.sent = in_flight.batches.len();
        whole
    }

    /// Returns whether all batches of publishes below a number are applied.
    fn has_published(&self, below: u64) -> bool {
        let row = &self.rows[Row::Publishes as usize];
        row.next - row.batches.len() as u64 >= below
    }

    /// Returns whether all operations up to number `upto`, not counting publishes, are applied or have to wait for room.
    fn has_settled(&self, upto: u64) -> bool {
        self.stuck || self.settles_applied >= upto
    }
}

/// A batch of this many bytes takes no further operation. The value is small enough for a publisher's window to be several
/// batches: some are on their way to the disk while others are put together.
const BATCH_BYTES: usize = 128 << 10;
/// The largest number of batches of a row on their way; operations that arrive meanwhile form the next one.
const IN_FLIGHT_MAX: usize = 8;
/// A large batch (a large message, as a rule) is handed in beside these, while those on their way have fewer bytes than
/// this.
const IN_FLIGHT_BYTES_MAX: usize = 8 << 20;
const LARGE_BYTES: usize = 2 * BATCH_BYTES;
/// The interval at which a full log is asked for room.
pub(crate) const ASK_AGAIN: Duration = Duration::from_millis(20);
/// A caller does not wait for publishes on their way to another node if none was applied for this time.
const STANDSTILL_MAX: Duration = Duration::from_secs(1);
/// The longest time that settlements wait for an operation that someone waits for, to share its entry.
const LINGER: Duration = Duration::from_millis(2);
/// Publishers wait while more bytes than this are not handed in, until only half of them are left.
const PENDING_BYTES_MAX: usize = 2 << 20;

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
