//! Contents that are not in memory: read when a delivery is about to need them.
use crate::Broker;
use crate::log::Reader;
use crate::queue::Queue;
use crate::storage::Storage;
use leveret_engine::queue as engine;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

impl Broker {
    pub(crate) async fn fetch(self) {
        let Some(Storage { log, .. }) = self.0.storage.get() else { return };
        loop {
            let wanted = tokio::select! {
                biased;
                wanted = log.wanted() => wanted,
                () = self.0.stopping.cancelled() => return,
            };
            for queue in wanted.into_iter().filter_map(|id| self.queue(id)) {
                queue.fetch_queued.store(false, Relaxed);
                let now = self.clock().now();
                let wanted = {
                    let mut entered = queue.enter();
                    let wanted = entered.wants();
                    if wanted.is_none() {
                        entered.dispatch(now); // it came to its end meanwhile
                    }
                    wanted
                };
                let Some(runs) = wanted else {
                    queue.fetched.notify_waiters();
                    continue;
                };
                tokio::spawn(self.clone().read(queue, runs));
            }
        }
    }

    /// Reads what a queue wants, and has it delivered.
    async fn read(self, queue: Arc<Queue>, runs: engine::Fetch) {
        let Some(storage) = self.0.storage.get() else { return };
        let journal = storage.groups.journal().clone();
        let read = storage.off_thread(move || {
            let mut reader = Reader::new(&journal);
            runs.iter().map(|(segment, place)| Ok((*segment, reader.read(place)?))).collect::<std::io::Result<_>>()
        });
        match read.await {
            Ok(runs) => {
                let mut entered = queue.enter();
                entered.fetched(runs);
                entered.dispatch(self.clock().now());
                drop(entered);
                queue.fetched.notify_waiters();
            }
            Err(error) => {
                storage.log.unreadable.lock().push(error.to_string());
                let (vhost, name) = (&*queue.vhost, &*queue.name);
                tracing::error!(vhost, queue = name, %error, "contents cannot be read: the queue stands still");
            }
        }
    }

    /// Reads of contents that failed since the start, each with its reason: damage, or the disk's errors. One a queue, which
    /// stands still then.
    pub fn unreadable(&self) -> Vec<String> {
        self.0.log.get().map_or_else(Vec::new, |log| log.unreadable.lock().clone())
    }
}
