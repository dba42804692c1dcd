//! Queues that a task has to see to: each is on the list once, as a flag of its own says, which the task takes back.
use crate::queue::QueueId;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tokio::sync::Notify;

/// A list of queues, and who waits for some.
#[derive(Default)]
pub(crate) struct Wanted {
    queues: Mutex<Vec<QueueId>>,
    some: Notify,
}

impl Wanted {
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
