//! Reads contents that are not in memory when a delivery is about to need them.
//!
//! The files that are read from stay where they are meanwhile. After a read that failed for a reason that may go away, the
//! queue is asked again which runs it needs and where they lie now. Only bytes that are not those which were written stop
//! deliveries, and only at the message concerned.
use crate::Broker;
use crate::contents::LocatedRun;
use crate::files::FilePin;
use crate::health::Trouble;
use crate::queue::Queue;
use crate::read::RunReader;
use crate::read_failure::ReadFailure;
use crate::storage::Storage;
use bytes::Bytes;
use leveret_journal::Journal;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// The result of a read: the runs that were read, and the failure that ended it before the others, if any.
struct Read {
    runs: Vec<(u64, Bytes)>,
    /// The first run that was not read, and why.
    failed: Option<FailedRead>,
}

/// A run that was not read.
struct FailedRead {
    /// The number of the run's segment in its queue.
    segment: u64,
    /// The number of the file that the run lies in; `None` if it is not known.
    file: Option<u64>,
    failure: ReadFailure,
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

    /// Asks a queue which runs it needs, and starts a task that reads them.
    fn begin_read(&self, queue: &Arc<Queue>) {
        let Some(Storage { shards, .. }) = self.0.storage.get() else { return };
        queue.reads.is_waiting.store(false, Relaxed);
        let now = self.clock().now();
        let mut entered = queue.enter();
        let tight = !self.memory().takes_warm();
        let Some(wanted) = entered.take_read(tight) else {
            entered.dispatch(now); // nothing is needed any more
            drop(entered);
            queue.reads.finished.notify_waiters();
            return;
        };
        let (runs, reading) = shards.contents(queue.id).locate(wanted, record_bytes_max(tight));
        drop(entered);
        self.spawn_critical("a read of contents", self.clone().read(queue.clone(), runs, reading));
    }

    /// Reads the runs that a queue needs, hands them to it, and has them delivered.
    async fn read(self, queue: Arc<Queue>, runs: Vec<LocatedRun>, reading: FilePin) {
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
                let failure = ReadFailure::Passing(error.to_string());
                Read { runs: Vec::new(), failed: Some(FailedRead { segment: 0, file: None, failure }) }
            }
        };
        let mut damage = None;
        match failed {
            None => queue.read_went_well(),
            Some(FailedRead { segment, file, failure: ReadFailure::Damaged(reason) }) => {
                damage = Some((segment, file, reason));
            }
            Some(FailedRead { failure: ReadFailure::Passing(reason), .. }) if runs.is_empty() => {
                let wait = queue.read_failed(&reason);
                storage.shards.damage.queues.lock().insert(queue.id);
                tokio::select! {
                    biased;
                    () = self.0.stopping.cancelled() => return,
                    () = tokio::time::sleep(wait) => {}
                }
            }
            Some(_) => {} // the runs that were read are delivered, the queue asks for the others again
        }
        let mut entered = queue.enter();
        if let Some((segment, file, reason)) = damage {
            queue.note_damage(&mut entered, segment, file, &reason);
        }
        entered.read_done(runs);
        entered.dispatch(self.clock().now());
        let waits = entered.may_need_read();
        drop(entered);
        if !waits {
            queue.read_went_well(); // or the contents are not needed any more
        }
        queue.reads.finished.notify_waiters();
    }

    /// Returns the reason why contents cannot be read for each queue with damage that no retry repairs.
    pub fn unreadable(&self) -> Vec<String> {
        let damage = |(_, trouble)| match trouble {
            Trouble::Unreadable(reason) => Some(reason),
            Trouble::Retrying(_) => None,
        };
        self.troubled_queues().into_iter().filter_map(damage).collect()
    }
}

impl Queue {
    /// Notes that reads do not fail at the moment.
    fn read_went_well(&self) {
        self.reads.failures.store(0, Relaxed);
        self.reads.trouble.lock().take();
    }

    /// Notes that a read failed for a reason that may go away. Returns how long to wait before the next read.
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

fn read_runs(journal: &Journal, runs: &[LocatedRun]) -> Read {
    let mut reader = RunReader::new(journal);
    let mut read = Vec::with_capacity(runs.len());
    for LocatedRun { segment, name, place } in runs {
        let run = match place {
            Some(place) => reader.read(place),
            None => Err(ReadFailure::Damaged(format!("where entry {} of the log lies is not known", name.entry))),
        };
        match run {
            Ok(run) => read.push((*segment, run)),
            Err(failure) => {
                let failed = FailedRead { segment: *segment, file: place.map(|place| place.file), failure };
                return Read { runs: read, failed: Some(failed) };
            }
        }
    }
    Read { runs: read, failed: None }
}

/// Returns the largest number of bytes of the records that one read takes from the disk, unless a single record is larger.
/// `tight` says that the memory for contents is used up.
fn record_bytes_max(tight: bool) -> u64 {
    if tight { 1 << 20 } else { 16 << 20 }
}

/// The time between a failed read and the next one, at first; it doubles with each failure up to `RETRY_MAX`.
const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
