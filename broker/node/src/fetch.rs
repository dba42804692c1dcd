//! Contents that are not in memory: read when a delivery is about to need them.
//!
//! What is read stays where it is meanwhile. A read that fails for a reason that passes is begun anew, by asking the queue
//! again what it wants and where that lies now. Only bytes that are not those which were written stop deliveries, and only
//! at the message concerned.
use crate::Broker;
use crate::files::Reading;
use crate::health::Trouble;
use crate::queue::Queue;
use crate::read::{Failure, Reader};
use crate::storage::Storage;
use bytes::Bytes;
use leveret_engine::queue as engine;
use leveret_journal::Journal;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// What a read came to: the first runs, and what kept it from the others.
struct Read {
    runs: Vec<(u64, Bytes)>,
    /// The run that was not read.
    failed: Option<(u64, engine::Place, Failure)>,
}

impl Broker {
    pub(crate) async fn fetch(self) {
        let Some(Storage { shards, .. }) = self.0.storage.get() else { return };
        loop {
            let wanted = tokio::select! {
                biased;
                wanted = shards.reads.waiting.take() => wanted,
                () = self.0.stopping.cancelled() => return,
            };
            for queue in wanted.into_iter().filter_map(|id| self.queue(id)) {
                self.begin_read(&queue);
            }
        }
    }

    /// Asks a queue what it wants, and has that read.
    fn begin_read(&self, queue: &Arc<Queue>) {
        let Some(Storage { shards, .. }) = self.0.storage.get() else { return };
        queue.reads.is_waiting.store(false, Relaxed);
        let now = self.clock().now();
        let mut entered = queue.enter();
        let Some(runs) = entered.take_read(!self.memory().takes_warm()) else {
            entered.dispatch(now); // it came to its end meanwhile
            drop(entered);
            queue.reads.finished.notify_waiters();
            return;
        };
        let reading = shards.files.read(&runs);
        drop(entered);
        self.spawn_critical("a read of contents", self.clone().read(queue.clone(), runs, reading));
    }

    /// Reads what a queue wants, and has it delivered.
    async fn read(self, queue: Arc<Queue>, runs: engine::ReadRequest, reading: Reading) {
        let Some(storage) = self.0.storage.get() else { return };
        let journal = storage.groups.journal().clone();
        let turn = storage.shards.reads.slots.acquire().await;
        let read = storage.off_thread(move || {
            let read = read_runs(&journal, &runs);
            drop(reading);
            Ok(read)
        });
        let read = read.await;
        drop(turn);
        let Read { runs, failed } = match read {
            Ok(read) => read,
            Err(error) => {
                let failed = Failure::Passing(error.to_string());
                Read { runs: Vec::new(), failed: Some((0, engine::Place::default(), failed)) }
            }
        };
        let mut damage = None;
        match failed {
            None => queue.read_went_well(),
            Some((segment, place, Failure::Damaged(reason))) => damage = Some((segment, place, reason)),
            Some((_, _, Failure::Passing(reason))) if runs.is_empty() => {
                let wait = queue.read_failed(&reason);
                storage.shards.damage.queues.lock().insert(queue.id);
                tokio::select! {
                    biased;
                    () = self.0.stopping.cancelled() => return,
                    () = tokio::time::sleep(wait) => {}
                }
            }
            Some(_) => {} // what was read is delivered, the rest is asked for again
        }
        let mut entered = queue.enter();
        if let Some((segment, place, reason)) = damage {
            queue.note_damage(&mut entered, segment, place.file, &reason);
        }
        entered.read_done(runs);
        entered.dispatch(self.clock().now());
        let waits = entered.may_need_read();
        drop(entered);
        if !waits {
            queue.read_went_well(); // or nobody wants it any more
        }
        queue.reads.finished.notify_waiters();
    }

    /// Why contents of queues cannot be read, one reason for each queue: damage that no retry mends.
    pub fn unreadable(&self) -> Vec<String> {
        let damage = |(_, trouble)| match trouble {
            Trouble::Unreadable(reason) => Some(reason),
            Trouble::Retrying(_) => None,
        };
        self.troubled_queues().into_iter().filter_map(damage).collect()
    }
}

impl Queue {
    /// No read fails any more.
    fn read_went_well(&self) {
        self.reads.failures.store(0, Relaxed);
        self.reads.trouble.lock().take();
    }

    /// A read failed for a reason that passes: how long to wait before the next.
    fn read_failed(&self, reason: &str) -> Duration {
        let failures = self.reads.failures.fetch_add(1, Relaxed);
        let first = self.reads.trouble.lock().replace(reason.to_owned()).is_none();
        let (vhost, queue) = (&*self.vhost, &*self.name);
        if first {
            tracing::warn!(vhost, queue, reason, "contents cannot be read at the moment: tried again until they can");
        }
        self.reads.finished.notify_waiters();
        RETRY_FIRST.saturating_mul(1 << failures.min(16)).min(RETRY_MAX)
    }
}

fn read_runs(journal: &Journal, runs: &engine::ReadRequest) -> Read {
    let mut reader = Reader::new(journal);
    let mut read = Vec::with_capacity(runs.len());
    for (segment, place) in runs {
        match reader.read(place) {
            Ok(run) => read.push((*segment, run)),
            Err(failure) => return Read { runs: read, failed: Some((*segment, *place, failure)) },
        }
    }
    Read { runs: read, failed: None }
}

/// Between a read that failed and the next, at first; twice as long each time.
const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
