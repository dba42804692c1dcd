//! One queue: `QueueState` has its messages, and `Lead` has its consumers.
//!
//! `QueueState` follows from what happened (messages were enqueued, settled, returned, purged) and knows no consumer; `Lead`
//! holds the consumers and the cursor that deliveries have reached. Both are plain synchronous Rust behind the one short
//! lock that the node puts around a `QueueCore`; time arrives as an argument, deliveries leave through the caller's
//! `Sink`.
//!
//! The journey: [`enqueue`](QueueCore::enqueue) -> [`dispatch`](QueueCore::dispatch) ->
//! [`acknowledge`](QueueCore::acknowledge) or [`give_back`](QueueCore::give_back).
mod consumers;
#[cfg(test)]
mod consumers_tests;
mod content;
mod dispatch;
mod durable;
#[cfg(test)]
mod durable_tests;
mod dwell;
mod front;
#[cfg(test)]
mod front_tests;
mod logged;
mod numbered;
mod ranges;
mod run;
mod segment;
mod settle;
mod sink;
mod snapshot;
mod state;
mod stored;
#[cfg(test)]
mod tests;

pub use consumers::{Consumer, ConsumerId, ExclusiveUse, Subscription};
pub use content::{Body, Extent, Publish};
pub use dispatch::Got;
pub use dwell::{DWELL_BOUNDS_SECONDS, Dwell};
pub use front::{Grant, Want};
pub use logged::{DeliveryChanges, LoggedRun, OldPlace, ReadRequest, RunName};
pub use run::{DeliveryId, MessageId};
pub use sink::{ConsumerOwner, Delivery, Fill, Sink, Source};
pub use snapshot::{Damaged, Part, index_runs};
pub use stored::StoredRun;

use crate::catalog::QueueSettings;
use consumers::Consumers;
use front::{Front, GrantedAway};
use run::Cursor;
use state::QueueState;
use std::collections::BTreeMap;

/// A queue's messages, consumers and counters.
#[derive(Default)]
pub struct QueueCore {
    state: QueueState,
    lead: Lead,
    counters: Counters,
    dwell: Dwell,
}

/// The part of a queue that only the node that serves it has.
struct Lead {
    consumers: Consumers,
    cursor: Cursor,
    /// True if the queue is served here; always the case for a transient queue.
    leading: bool,
    history: History,
    /// Set while the queue is served through another node, which leads it.
    front: Option<Front>,
    granted_away: GrantedAway,
    /// The number of messages that were granted to other nodes so far.
    granted: u64,
    /// The settings that the queue was declared with.
    settings: QueueSettings,
    /// Settlements and returns of deliveries that are still to be logged.
    changes: DeliveryChanges,
    /// True if a dispatch since the last `take_unfinished` stopped only because it had delivered its maximum of messages.
    unfinished: bool,
    /// The segment that has to be read before the next delivery.
    blocked_on: Option<u64>,
    /// Cold runs ahead are looked for again once the cursor has reached this run, which is halfway to the end of the runs
    /// that were warm at the last look.
    look_at: u64,
    /// True while runs are being read.
    reading: bool,
    /// Segments behind the cursor that were read because messages in them were returned.
    revived: Vec<u64>,
    /// Segments whose bytes on the disk are not those that were written, each with the reason. They are not read again.
    unreadable: BTreeMap<u64, Box<str>>,
}

/// The state of the queue when this node began to serve it.
#[derive(Clone, Copy, Default)]
struct History {
    /// Messages below this sequence were in the queue at that time, and some of them may have been settled.
    recovered_below: u64,
    /// Messages below this sequence may have been delivered before.
    delivered_below: u64,
    /// The epoch in which the queue is served: a number that is different each time some node begins to serve the queue.
    epoch: u64,
}

impl Default for Lead {
    fn default() -> Self {
        Self {
            consumers: Consumers::default(),
            cursor: Cursor::default(),
            leading: true,
            history: History::default(),
            front: None,
            granted_away: GrantedAway::default(),
            granted: 0,
            settings: QueueSettings::default(),
            changes: DeliveryChanges::default(),
            unfinished: false,
            blocked_on: None,
            look_at: 0,
            reading: false,
            revived: Vec::new(),
            unreadable: BTreeMap::new(),
        }
    }
}

/// The numbers of messages that this node has counted since it began to have the queue. If there are several nodes, the sum of
/// their counters is that of the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages that entered the queue while it was served here.
    pub published: u64,
    /// Deliveries to consumers of this node and by gets, including redeliveries.
    pub delivered: u64,
    /// Deliveries, among these, of messages that had been delivered before.
    pub redelivered: u64,
    /// Messages that consumers acknowledged, including automatic acknowledgement.
    pub acked: u64,
}

/// The messages and consumers that the queue has at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Messages that are ready for delivery.
    pub ready: u64,
    /// Messages that were delivered and are not settled.
    pub unacked: u64,
    /// Bytes of the bodies of all these messages.
    pub body_bytes: u64,
    /// The number of consumers.
    pub consumers: usize,
}

impl QueueCore {
    /// Returns an empty queue. The changes of a queue that `is_logged` are logged before they take effect. Until
    /// [`lead`](Self::lead) is called such a queue has no leader: entries of the log are applied to it, and nothing is
    /// delivered.
    #[must_use]
    pub fn new(settings: &QueueSettings, is_logged: bool) -> Self {
        let mut queue = Self::default();
        queue.lead.settings = settings.clone();
        if is_logged {
            queue.state.durable = Some(Box::default());
            queue.lead.leading = false;
        }
        queue
    }

    /// Appends messages that were published with one exchange and routing key. `now` is in nanoseconds of a steady clock.
    pub fn enqueue(&mut self, publish: &Publish<'_>, now: u64) {
        self.counters.published += publish.messages.len() as u64;
        self.state.enqueue(publish, now);
    }

    /// Removes all messages that are ready and returns how many there were. Unacknowledged messages stay.
    pub fn purge(&mut self) -> u64 {
        self.purge_some(self.next_sequence(), usize::MAX).0
    }

    /// Removes ready messages whose sequence is below `before` (see [`next_sequence`](Self::next_sequence)), about `most`
    /// runs in one call, because removing a run has a cost. Returns how many messages were removed, and whether no such
    /// message is left.
    pub fn purge_some(&mut self, before: u64, most: usize) -> (u64, bool) {
        if !self.is_durable() {
            return self.state.purge_some(&mut self.lead.cursor, before, most);
        }
        let ready = self.state.ready();
        let fresh = self.state.take_fresh_before(before, &mut self.lead.cursor);
        let (returned, done) = self.state.take_returned_before(before, most);
        self.lead.changes.settled.extend(fresh.into_iter().chain(returned));
        (ready - self.state.ready(), done)
    }

    /// Returns the sequence that the next message will have.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.state.next_sequence()
    }

    /// Stops serving the queue here: nothing is delivered any more.
    pub fn end(&mut self) {
        self.lead.leading = false;
        self.lead.front = None;
    }

    /// Returns an empty transient queue that has ended, to stand for a queue that was deleted.
    #[must_use]
    pub fn ended() -> Self {
        let mut queue = Self::default();
        queue.end();
        queue
    }

    /// Returns the numbers of messages and consumers at this moment. Where the queue is not led, all messages count as ready,
    /// and the consumers are those of this node.
    #[must_use]
    pub fn depth(&self) -> Depth {
        let is_known = self.lead.leading || !self.is_durable();
        Depth {
            ready: if is_known { self.state.ready() } else { self.state.live() },
            unacked: if is_known { self.state.unacked() } else { 0 },
            body_bytes: self.state.body_bytes(),
            consumers: self.lead.consumers.len(),
        }
    }

    /// Returns the number of messages that were delivered here or granted to other nodes so far.
    #[must_use]
    pub fn handed_out(&self) -> u64 {
        self.counters.delivered + self.lead.granted
    }

    /// Returns the counters.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Returns the histogram of how long messages stayed ready before their delivery.
    #[must_use]
    pub fn dwell(&self) -> &Dwell {
        &self.dwell
    }

    /// Returns the bytes of memory that the messages and their index take.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.state.memory_bytes()
    }

    /// Returns the bytes of contents that are in memory.
    #[must_use]
    pub fn warm_bytes(&self) -> u64 {
        self.state.segments().bytes()
    }

    /// Frees the memory that an empty queue keeps for its next messages.
    pub fn trim(&mut self) {
        self.state.trim();
    }
}
