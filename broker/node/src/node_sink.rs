//! The consumer in a queue that stands for the consumers of another node (see `fronts`).
use crate::grants::{CHANNEL, GrantMessage};
use crate::outgoing::Outgoing;
use leveret_engine::catalog::QueueId;
use leveret_engine::queue::{ConsumerId, Fill, Grant, Sink, Source, Want};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// The consumer in a queue that stands for the consumers of another node.
pub(crate) struct NodeSink {
    pub(crate) node: u64,
    pub(crate) queue: QueueId,
    pub(crate) epoch: u64,
    /// True if the node has the queue for one consumer.
    pub(crate) exclusive: AtomicBool,
    /// The number of the node's consumers, as it said last.
    pub(crate) consumers: AtomicU32,
    pub(crate) outgoing: Outgoing,
    /// The consumer, while the node has consumers.
    pub(crate) id: Mutex<Option<ConsumerId>>,
    pub(crate) granted: Mutex<GrantedToNode>,
}

/// The grants to a node.
pub(crate) struct GrantedToNode {
    /// The number of grants that may be made in all.
    allowed: u64,
    /// The number of grants that were made.
    made: u64,
    /// The last of these grants, which are not known to have arrived.
    unconfirmed: VecDeque<Grant>,
}

impl Sink for NodeSink {
    fn fill(&self, source: &mut dyn Source) -> Fill {
        let mut granted = self.granted.lock();
        let (from, mut grants) = (granted.made, Vec::new());
        let mut fill = Fill::Full;
        while granted.made < granted.allowed {
            let Some(delivery) = source.next() else {
                fill = Fill::Exhausted;
                break;
            };
            let grant = Grant { id: delivery.id.message, redelivered: delivery.redelivered };
            grants.push(grant);
            granted.unconfirmed.push_back(grant);
            granted.made += 1;
        }
        if !grants.is_empty() {
            self.send(from, grants);
        }
        fill
    }

    fn started(&self, id: ConsumerId) {
        *self.id.lock() = Some(id);
    }

    fn node(&self) -> Option<u64> {
        Some(self.node)
    }
}

impl GrantedToNode {
    /// Returns the state for a node that has received `received` grants, and may get no more for now.
    pub(crate) fn after(received: u64) -> Self {
        Self { allowed: received, made: received, unconfirmed: VecDeque::new() }
    }
}

impl NodeSink {
    fn send(&self, from: u64, grants: Vec<Grant>) {
        let message = GrantMessage::Grants { queue: self.queue, epoch: self.epoch, from, grants };
        self.outgoing.send(self.node, CHANNEL, message.encode());
    }

    /// Returns whether the node has consumers that are not served.
    pub(crate) fn waits(&self) -> bool {
        self.consumers.load(Relaxed) > 0 && self.id.lock().is_none()
    }

    /// Returns whether the node has received fewer grants than it said before: it was started again.
    pub(crate) fn is_of_another_start(&self, want: Want) -> bool {
        let granted = self.granted.lock();
        want.received < granted.made - granted.unconfirmed.len() as u64
    }

    /// Notes what the node wants. Sends what has not arrived `again` if that is asked for.
    pub(crate) fn want(&self, want: Want, again: bool) {
        self.consumers.store(want.consumers, Relaxed);
        let mut granted = self.granted.lock();
        granted.allowed = granted.allowed.max(want.allowed);
        let first = granted.made - granted.unconfirmed.len() as u64;
        let arrived = want.received.saturating_sub(first).min(granted.unconfirmed.len() as u64);
        granted.unconfirmed.drain(..arrived as usize);
        if again {
            self.send_unconfirmed(&granted);
        }
    }

    /// Sends all grants again that are not known to have arrived.
    pub(crate) fn send_again(&self) {
        self.send_unconfirmed(&self.granted.lock());
    }

    fn send_unconfirmed(&self, granted: &GrantedToNode) {
        if !granted.unconfirmed.is_empty() {
            let first = granted.made - granted.unconfirmed.len() as u64;
            self.send(first, granted.unconfirmed.iter().copied().collect());
        }
    }
}
