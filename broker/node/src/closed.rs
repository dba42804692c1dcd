//! The durable queues that were deleted and whose deletion the log may not have yet: log entries before the deletion still
//! apply to them.
use crate::fact_log::Mark;
use crate::queue::{Queue, QueueId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The deleted queues by identity.
#[derive(Default)]
pub(crate) struct ClosedQueues(Mutex<BTreeMap<QueueId, ClosedQueue>>);

struct ClosedQueue {
    queue: Arc<Queue>,
    /// The mark that has to be durable before the queue can be dropped; set at the first look at the queue after its
    /// deletion.
    end: Option<Mark>,
}

impl ClosedQueues {
    /// Adds a queue. To be called before the queue is removed from the declared queues, so that it is always found in one
    /// place.
    pub(crate) fn insert(&self, queue: Arc<Queue>) {
        self.0.lock().insert(queue.id, ClosedQueue { queue, end: None });
    }

    pub(crate) fn get(&self, id: QueueId) -> Option<Arc<Queue>> {
        self.0.lock().get(&id).map(|closed| closed.queue.clone())
    }

    pub(crate) fn all(&self) -> Vec<Arc<Queue>> {
        self.0.lock().values().map(|closed| closed.queue.clone()).collect()
    }

    /// Removes and returns the queues whose deletion is durable. `upto` must be a mark behind the deletions of all queues
    /// here.
    pub(crate) fn take_durable(&self, upto: Mark, is_durable: impl Fn(Mark) -> bool) -> Vec<Arc<Queue>> {
        let mut closed = self.0.lock();
        let ended = closed.extract_if(.., |_, closed| is_durable(*closed.end.get_or_insert(upto)));
        ended.map(|(_, closed)| closed.queue).collect()
    }
}
