//! Queues that are due to be looked at by a task. Each is on the list at most once: a flag of the queue says so, which the
//! task resets.
use leveret_engine::catalog::QueueId;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tokio::sync::Notify;

/// The list, and the task that waits for something on it.
#[derive(Default)]
pub(crate) struct DueQueues {
    queues: Mutex<Vec<QueueId>>,
    some: Notify,
}

impl DueQueues {
    /// Puts a queue on the list unless `is_on_it`.
    pub(crate) fn push(&self, queue: QueueId, is_on_it: &AtomicBool) {
        if !is_on_it.swap(true, Relaxed) {
            self.queues.lock().push(queue);
            self.some.notify_one();
        }
    }

    /// All that are on the list, which is empty afterwards; waits for some.
    pub(crate) async fn take(&self) -> Vec<QueueId> {
        loop {
            let some = self.some.notified();
            let queues = std::mem::take(&mut *self.queues.lock());
            if !queues.is_empty() {
                return queues;
            }
            some.await;
        }
    }
}
