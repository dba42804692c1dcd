//! The state of one shard on this node: it follows from the shard's log, whatever the definitions say meanwhile.
use crate::contents::Contents;
use crate::queue::{Queue, QueueId};
use leveret_engine::shard::{AppliedBatches, BatchId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, oneshot};

/// The state of one shard.
pub(crate) struct Replica {
    batches: Mutex<AppliedBatches>,
    /// The queues that the log declared and did not delete.
    queues: Mutex<BTreeMap<QueueId, ReplicaQueue>>,
    /// The queues that the log deleted and whose contents are not freed yet.
    ended: Mutex<Vec<Arc<Queue>>>,
    /// Where the contents of the queues lie.
    pub(crate) contents: Contents,
}

/// A queue of a shard, with its declaration.
#[derive(Clone)]
pub(crate) struct ReplicaQueue {
    pub(crate) queue: Arc<Queue>,
    /// The declaration, encoded as a fact of `definitions`.
    pub(crate) declaration: Arc<[u8]>,
}

impl Replica {
    pub(crate) fn new(contents: Contents) -> Self {
        Self { batches: Mutex::default(), queues: Mutex::default(), ended: Mutex::default(), contents }
    }

    /// Notes that a batch is applied. Returns false if it was applied before.
    pub(crate) fn note(&self, batch: BatchId) -> bool {
        self.batches.lock().note(batch)
    }

    /// Returns the numbers of the batches that were applied.
    pub(crate) fn batches(&self) -> AppliedBatches {
        self.batches.lock().clone()
    }

    /// Sets the numbers of the batches that were applied: they come from a snapshot.
    pub(crate) fn set_batches(&self, batches: AppliedBatches) {
        *self.batches.lock() = batches;
    }

    pub(crate) fn queue(&self, id: QueueId) -> Option<Arc<Queue>> {
        self.queues.lock().get(&id).map(|found| found.queue.clone())
    }

    /// Returns all queues, in the order of their identities.
    pub(crate) fn queues(&self) -> Vec<ReplicaQueue> {
        self.queues.lock().values().cloned().collect()
    }

    /// Adds a queue that was declared.
    pub(crate) fn add(&self, added: ReplicaQueue) {
        self.queues.lock().insert(added.queue.id, added);
    }

    /// Removes a queue that was deleted. Its contents are kept until [`take_ended`](Self::take_ended).
    pub(crate) fn remove(&self, id: QueueId) {
        if let Some(removed) = self.queues.lock().remove(&id) {
            self.ended.lock().push(removed.queue);
        }
    }

    /// Returns the deleted queues whose contents have to be freed now.
    pub(crate) fn take_ended(&self) -> Vec<Arc<Queue>> {
        std::mem::take(&mut self.ended.lock())
    }
}

/// The queues whose declaration is on its way into the log of their shard.
#[derive(Default)]
pub(crate) struct DeclaredQueues {
    /// Those who wait for a queue that they created.
    waiting: Mutex<BTreeMap<QueueId, oneshot::Sender<Arc<Queue>>>>,
    /// Notified when the log of a shard declared a queue.
    appeared: Notify,
}

impl DeclaredQueues {
    /// Returns what gets the queue once the log of its shard has its declaration.
    pub(crate) fn wait_for(&self, id: QueueId) -> oneshot::Receiver<Arc<Queue>> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().insert(id, sender);
        receiver
    }

    /// Tells those who wait that the queue is there.
    pub(crate) fn tell(&self, queue: &Arc<Queue>) {
        let waiting = self.waiting.lock().remove(&queue.id);
        if let Some(sender) = waiting {
            let _ = sender.send(queue.clone()); // fails if nobody waits any more
        }
        self.appeared.notify_waiters();
    }

    /// Waits until some queue is there that was not when this was called.
    pub(crate) fn next(&self) -> Notified<'_> {
        self.appeared.notified()
    }
}
