//! The state of one shard on this node: it follows from the shard's log, whatever the definitions say meanwhile.
use crate::queue::{Queue, QueueId};
use leveret_engine::queue::RunName;
use leveret_engine::shard::{AppliedBatches, BatchId};
use leveret_replication::GroupId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, oneshot};

/// The states of all shards, and that of the log of the definitions.
pub(crate) struct Replicas {
    shards: Vec<Replica>,
    /// The batches that were applied to the definitions.
    pub(crate) definitions: Mutex<AppliedBatches>,
}

/// The state of one shard.
#[derive(Default)]
pub(crate) struct Replica {
    batches: Mutex<AppliedBatches>,
    /// The term in which this node leads the group of the shard; `None` while it does not.
    term: Mutex<Option<u64>>,
    /// The queues that the log declared and did not delete.
    queues: Mutex<BTreeMap<QueueId, ReplicaQueue>>,
    /// The queues that the log deleted and whose contents are not freed yet.
    ended: Mutex<Vec<Arc<Queue>>>,
    /// The runs of the state before a snapshot of a peer, which are freed once that snapshot is on the disk.
    replaced: Mutex<Vec<RunName>>,
    /// Set once the queues were created that an earlier version of the program declared in the log of the definitions alone.
    pub(crate) implied: OnceLock<()>,
    /// The queues that may have something to deliver since the last entries.
    ready: Mutex<Vec<Arc<Queue>>>,
}

/// A queue of a shard, with its declaration.
#[derive(Clone)]
pub(crate) struct ReplicaQueue {
    pub(crate) queue: Arc<Queue>,
    /// The declaration, encoded as a fact of `definitions`.
    pub(crate) declaration: Arc<[u8]>,
}

impl Replicas {
    /// Returns the states of `count` shards, whose logs are empty.
    pub(crate) fn new(count: usize) -> Self {
        Self { shards: (0..count).map(|_| Replica::default()).collect(), definitions: Mutex::default() }
    }

    /// Returns the state of the shard of a group.
    pub(crate) fn of(&self, group: GroupId) -> &Replica {
        &self.shards[usize::from(group) - 1]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Replica> {
        self.shards.iter()
    }

    /// Returns the number that the next batch of the row of `of` has to have in the log of a group.
    pub(crate) fn next_batch(&self, group: GroupId, of: BatchId) -> u64 {
        match group {
            0 => self.definitions.lock().next(of),
            _ => self.of(group).batches.lock().next(of),
        }
    }
}

impl Replica {
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

    /// Sets the term in which this node leads the group; `None` if it does not.
    pub(crate) fn set_term(&self, term: Option<u64>) {
        *self.term.lock() = term;
    }

    /// Returns the term in which this node leads the group.
    pub(crate) fn term(&self) -> Option<u64> {
        *self.term.lock()
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

    /// Notes that a snapshot has replaced the state of a queue that needed these runs.
    pub(crate) fn replaced(&self, runs: Vec<RunName>) {
        self.replaced.lock().extend(runs);
    }

    /// Returns the runs that the states need not any more that were replaced.
    pub(crate) fn take_replaced(&self) -> Vec<RunName> {
        std::mem::take(&mut self.replaced.lock())
    }

    /// Notes that a queue may have something to deliver.
    pub(crate) fn is_ready(&self, queue: Arc<Queue>) {
        let mut ready = self.ready.lock();
        if !ready.last().is_some_and(|last| Arc::ptr_eq(last, &queue)) {
            ready.push(queue);
        }
    }

    /// Returns the queues that may have something to deliver since the last call, each once.
    pub(crate) fn take_ready(&self) -> Vec<Arc<Queue>> {
        let mut queues = std::mem::take(&mut *self.ready.lock());
        queues.sort_by_key(|queue| queue.id);
        queues.dedup_by_key(|queue| queue.id);
        queues
    }

    /// Returns the deleted queues whose contents have to be freed now.
    pub(crate) fn take_ended(&self) -> Vec<Arc<Queue>> {
        std::mem::take(&mut self.ended.lock())
    }
}

/// The queues whose declaration is on its way into the log of their shard.
#[derive(Default)]
pub(crate) struct DeclaredQueues {
    /// The receivers of queues that somebody created, by the identity of the queue.
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

    /// Has nobody wait any longer for the queues for which `is_gone` holds.
    pub(crate) fn forget(&self, is_gone: impl Fn(QueueId) -> bool) {
        self.waiting.lock().retain(|id, _| !is_gone(*id));
        self.look_again();
    }

    /// Has those look again who wait for a queue: it may be gone.
    pub(crate) fn look_again(&self) {
        self.appeared.notify_waiters();
    }

    /// Waits until some queue is there that was not when this was called.
    pub(crate) fn next(&self) -> Notified<'_> {
        self.appeared.notified()
    }
}
