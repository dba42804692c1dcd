//! A shard: the queues that share one Raft group, and the operations of this node for their log.
use crate::entry::{self, Row};
use crate::outbox::{Addition, Outbox};
use crate::waiter::Waiter;
use leveret_engine::catalog::QueueId;
use leveret_engine::queue::{DeliveryChanges, Publish};
use leveret_replication::GroupId;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};

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

/// A shard of the node.
pub(crate) struct Shard {
    pub(crate) group: GroupId,
    /// The operations of this node for the log of the shard.
    pub(crate) outbox: Arc<Outbox>,
    /// The term of the other node that leads the shard; 0 if none is known to.
    front: AtomicU64,
}

impl Shard {
    pub(crate) fn new(group: GroupId) -> Self {
        Self { group, outbox: Arc::new(Outbox::new()), front: AtomicU64::new(0) }
    }

    /// Returns the term in which this node leads the shard and serves its queues, or `None` if it does not.
    #[inline]
    pub(crate) fn term(&self) -> Option<u64> {
        self.outbox.term()
    }

    /// Notes that another node leads the shard in `term`.
    pub(crate) fn set_front(&self, term: u64) {
        self.front.store(term, Release);
    }

    /// Returns the last known term in which another node leads the shard; `None` if none did.
    pub(crate) fn front(&self) -> Option<u64> {
        Some(self.front.load(Acquire)).filter(|term| *term > 0)
    }

    /// Appends the publish of one run to queues of this shard. `waiter` is told once all of the run is applied.
    pub(crate) fn publish(&self, queues: &[QueueId], publish: &Publish<'_>, waiter: Option<Waiter>) {
        let mut pieces = entry::pieces(queues, publish.messages).peekable();
        let mut waiter = waiter;
        while let Some((queues, messages)) = pieces.next() {
            let piece = Publish { messages, ..*publish };
            let waiter = if pieces.peek().is_none() { waiter.take() } else { None };
            let room = entry::room_for(queues, &piece);
            let append = |bytes: &mut Vec<u8>| entry::enqueue(bytes, queues, &piece);
            self.outbox.push(Addition { append, row: Row::Publishes, room, waiter, visible: true });
        }
    }

    /// Appends the settlements and returns of a queue of this shard.
    pub(crate) fn changes(&self, queue: QueueId, changes: &DeliveryChanges) {
        let visible = !changes.returned.is_empty() || !changes.released.is_empty();
        entry::changes(queue, changes, |append| self.push(append, 0, visible));
    }

    /// Appends an operation of a queue that changes nothing.
    pub(crate) fn mark(&self, queue: QueueId) {
        self.push(|out| entry::nothing(out, queue), 0, true);
    }

    /// Appends the declaration or deletion of a queue of this shard, if this node leads it. To be called while the catalog is
    /// locked, which is where the definition comes from.
    pub(crate) fn define(&self, definition: &ShardDefinition) {
        let Some(term) = self.term() else { return };
        match definition {
            ShardDefinition::Declare { fact, .. } => {
                self.push(|bytes| entry::declare(bytes, term, fact), fact.len(), true);
            }
            ShardDefinition::Delete(queue) => self.push(|bytes| entry::delete(bytes, term, *queue), 0, false),
        }
    }

    fn push(&self, append: impl FnOnce(&mut Vec<u8>), room: usize, visible: bool) {
        self.outbox.push(Addition { append, row: Row::Others, room, waiter: None, visible });
    }
}

#[cfg(test)]
#[path = "shard_parts_tests.rs"]
mod parts_tests;
