//! Queues that a task has to see to: each is on the list once, as its own flag says.
use crate::queue::QueueId;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// A list of queues, and who waits for some.
#[derive(Default)]
pub(crate) struct Wanted {
    queues: Mutex<Vec<QueueId>>,
    some: Notify,
}

impl Wanted {
    pub(crate) fn push(&self, queue: QueueId) {
        self.queues.lock().push(queue);
        self.some.notify_one();
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
