//! A list of queues that a task has to look at. Each queue is on the list at most once: a flag of the queue says that it is
//! on it, and the task resets the flag.
use leveret_engine::catalog::QueueId;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tokio::sync::Notify;

/// The list, and the wake-up of the task that waits for queues on it.
#[derive(Default)]
pub(crate) struct DueQueues {
    queues: Mutex<Vec<QueueId>>,
    some: Notify,
}

impl DueQueues {
    /// Puts a queue on the list unless the flag `is_on_it` is set, and sets the flag.
    pub(crate) fn push(&self, queue: QueueId, is_on_it: &AtomicBool) {
        if !is_on_it.swap(true, Relaxed) {
            self.queues.lock().push(queue);
            self.some.notify_one();
        }
    }

    /// Waits until queues are on the list, and removes and returns all of them.
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
