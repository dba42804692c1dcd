//! Durable queues that were deleted, until the log has that: what it says of them up to there still counts.
use crate::fact_log::Mark;
use crate::queue::{Queue, QueueId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The queues, by identity.
#[derive(Default)]
pub(crate) struct ClosedQueues(Mutex<BTreeMap<QueueId, ClosedQueue>>);

struct ClosedQueue {
    queue: Arc<Queue>,
    /// What has to be durable before the queue can go, once that is known.
    end: Option<Mark>,
}

impl ClosedQueues {
    /// Adds a queue, which is still among those that are served.
    pub(crate) fn insert(&self, queue: Arc<Queue>) {
        self.0.lock().insert(queue.id, ClosedQueue { queue, end: None });
    }

    pub(crate) fn get(&self, id: QueueId) -> Option<Arc<Queue>> {
        self.0.lock().get(&id).map(|closed| closed.queue.clone())
    }

    pub(crate) fn all(&self) -> Vec<Arc<Queue>> {
        self.0.lock().values().map(|closed| closed.queue.clone()).collect()
    }

    /// Takes out the queues whose end is durable. `upto` is behind the ends of all queues that are here.
    pub(crate) fn take_durable(&self, upto: Mark, is_durable: impl Fn(Mark) -> bool) -> Vec<Arc<Queue>> {
        let mut closed = self.0.lock();
        let ended = closed.extract_if(.., |_, closed| is_durable(*closed.end.get_or_insert(upto)));
        ended.map(|(_, closed)| closed.queue).collect()
    }
}
