//! A shard: the queues that share one Raft group, and what waits to be logged for them.
//!
//! Whoever has an operation appends it to the entry being put together; a task hands entries to the log, a few at a time, so
//! that what gathers while a sync runs is the next entry. Publishers are told when their entry was applied.
use crate::entry;
use crate::queue::QueueId;
use bytes::Bytes;
use leveret_engine::queue::{Facts, Publish};
use leveret_replication::{GroupId, Groups};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Who waits for a publish to be durable.
pub trait Confirm: Send + Sync {
    /// The publish that `token` stands for on `channel` is durable.
    fn confirmed(&self, channel: u16, token: u64);
}

/// A publisher that waits: whom to tell, on which channel, its token there.
#[derive(Clone)]
pub struct Waiter {
    /// The connection.
    pub to: Arc<dyn Confirm>,
    /// Its channel.
    pub channel: u16,
    /// What the connection calls the publish.
    pub token: u64,
}

/// One shard.
pub(crate) struct Shard {
    pub(crate) group: GroupId,
    state: Mutex<State>,
    wake: Notify,
    room: Notify,
    progress: Notify,
    full: AtomicBool,
    /// Entries handed in and not applied.
    in_flight: AtomicU64,
}

#[derive(Default)]
struct State {
    entries: VecDeque<Gathered>,
    bytes: usize,
    /// Length of the entry handed in last, in bytes: the next will be as long.
    last_len: usize,
    /// Publishers of the entries handed in, by number.
    waiting: VecDeque<(u64, Vec<Waiter>)>,
    next_number: u64,
    /// Entries below this number are applied.
    applied: u64,
    /// Entries below this number change what is ready.
    visible: u64,
}

struct Gathered {
    bytes: Vec<u8>,
    waiters: Vec<Waiter>,
    /// Someone waits for it. What was settled waits a moment for company: nobody hears of it, and a crash before it is
    /// logged is one before the consumer said so.
    urgent: bool,
    since: Instant,
}

/// What the proposer finds.
enum Next {
    Entry(Bytes),
    /// One that may wait until then.
    Later(Instant),
    Nothing,
}

impl Shard {
    pub(crate) fn new(group: GroupId) -> Self {
        let (wake, room, progress) = (Notify::new(), Notify::new(), Notify::new());
        let in_flight = AtomicU64::new(0);
        Self { group, state: Mutex::default(), wake, room, progress, full: AtomicBool::new(false), in_flight }
    }

    /// A run for queues of this shard.
    pub(crate) fn publish(&self, queues: &[QueueId], publish: &Publish<'_>, waiter: Option<Waiter>) {
        let mut pieces = entry::pieces(queues, publish.messages).peekable();
        let mut waiter = waiter;
        while let Some((queues, messages)) = pieces.next() {
            let piece = Publish { messages, ..*publish };
            let waiter = if pieces.peek().is_none() { waiter.take() } else { None };
            self.push(|bytes| entry::enqueue(bytes, queues, &piece), waiter, true);
        }
    }

    /// What happened to deliveries of a queue of this shard.
    pub(crate) fn facts(&self, queue: QueueId, facts: &Facts) {
        let visible = !facts.returned.is_empty();
        entry::facts(queue, facts, |append| self.push(append, None, visible));
    }

    fn push(&self, append: impl FnOnce(&mut Vec<u8>), waiter: Option<Waiter>, visible: bool) {
        let mut state = self.state.lock();
        if state.entries.back().is_none_or(|last| last.bytes.len() >= ENTRY_BYTES) {
            let (bytes, since) = (entry::begin(state.last_len), Instant::now());
            state.entries.push_back(Gathered { bytes, waiters: Vec::new(), urgent: false, since });
        }
        let first = state.entries.len() == 1;
        let Some(last) = state.entries.back_mut() else { return };
        let before = last.bytes.len();
        last.urgent |= visible || waiter.is_some();
        let wakes = last.urgent || before == entry::EMPTY || !first;
        append(&mut last.bytes);
        let added = last.bytes.len() - before;
        last.waiters.extend(waiter);
        state.bytes += added;
        if visible {
            state.visible = state.next_number + state.entries.len() as u64;
        }
        if state.bytes > PENDING_BYTES_MAX {
            self.full.store(true, Relaxed);
        }
        drop(state);
        if wakes {
            self.wake.notify_one();
        }
    }

    /// Whether publishers had better wait.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Relaxed)
    }

    /// Waits until there is room.
    pub(crate) async fn until_room(&self) {
        loop {
            let room = self.room.notified();
            if !self.is_full() {
                return;
            }
            room.await;
        }
    }

    /// Hands entries in until the node stops.
    pub(crate) async fn propose(
        self: Arc<Self>,
        groups: Groups,
        incarnation: u64,
        stopping: CancellationToken,
        on_failure: Arc<dyn Fn(String) + Send + Sync>,
    ) {
        loop {
            let woken = self.wake.notified();
            let bytes = match self.next(incarnation) {
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
            if let Err(stopped) = groups.submit(self.group, bytes).await {
                on_failure(stopped.to_string());
                return;
            }
        }
    }

    fn next(&self, incarnation: u64) -> Next {
        if self.in_flight.load(Relaxed) >= IN_FLIGHT_MAX {
            return Next::Nothing;
        }
        let mut state = self.state.lock();
        if let Some(first) = state.entries.front() {
            let due = first.since + LINGER;
            if !first.urgent && state.entries.len() == 1 && Instant::now() < due {
                return Next::Later(due);
            }
        }
        let Some(Gathered { mut bytes, waiters, .. }) = state.entries.pop_front() else { return Next::Nothing };
        let number = state.next_number;
        state.next_number += 1;
        state.bytes = state.bytes.saturating_sub(bytes.len());
        state.last_len = bytes.len().min(ENTRY_BYTES * 5 / 4);
        if state.bytes < PENDING_BYTES_MAX / 2 && self.full.swap(false, Relaxed) {
            self.room.notify_waiters();
        }
        state.waiting.push_back((number, waiters));
        self.in_flight.fetch_add(1, Relaxed);
        drop(state);
        entry::seal(&mut bytes, incarnation, number);
        Next::Entry(bytes.into())
    }

    /// An entry of this node was applied.
    pub(crate) fn applied(&self, number: u64) {
        let waiters = {
            let mut state = self.state.lock();
            self.in_flight.fetch_sub(1, Relaxed);
            state.applied = number + 1;
            match state.waiting.pop_front() {
                Some((first, waiters)) => {
                    assert!(first == number, "entries of shard {} are applied in their order", self.group);
                    waiters
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

    /// Waits until what was pushed so far can be seen in the queues.
    pub(crate) async fn until_visible(&self) {
        let visible = self.state.lock().visible;
        loop {
            let progress = self.progress.notified();
            if self.state.lock().applied >= visible {
                return;
            }
            progress.await;
        }
    }

    /// Whether all that was pushed is applied.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.load(Relaxed) == 0 && self.state.lock().entries.is_empty()
    }
}

/// An entry takes no further operation from this size on.
const ENTRY_BYTES: usize = 256 << 10;
const IN_FLIGHT_MAX: u64 = 4;
/// What was settled waits this long for an entry that someone waits for.
const LINGER: Duration = Duration::from_millis(2);
/// Publishers wait while this much is not handed in.
const PENDING_BYTES_MAX: usize = 8 << 20;

#[cfg(test)]
#[path = "shard_tests.rs"]
mod tests;
