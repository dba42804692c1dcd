//! What durable queues share: shards, the files that hold their contents, and who waits for a read.
use crate::archive::{self, ARCHIVE};
use crate::queue::{Queue, QueueId};
use crate::shard::Shard;
use bytes::Bytes;
use leveret_engine::queue as engine;
use leveret_journal::{Disk, Journal, Place};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tokio::sync::Notify;

/// The log as queues see it.
pub(crate) struct Log {
    /// Tells this start of the node from those before.
    pub(crate) incarnation: u64,
    pub(crate) shards: Vec<Arc<Shard>>,
    /// Runs with live messages by the file that holds them.
    pub(crate) files: Mutex<BTreeMap<u64, u64>>,
    /// Queues are served: the log before this start was applied.
    pub(crate) serving: AtomicBool,
    /// Reads of contents that failed.
    pub(crate) unreadable: Mutex<Vec<String>>,
    /// Segments with contents that cannot be read: left where they are.
    pub(crate) damaged: Mutex<BTreeSet<u64>>,
    fetches: Mutex<Vec<QueueId>>,
    fetch_wanted: Notify,
}

impl Log {
    pub(crate) fn new(shards: u16, incarnation: u64) -> Self {
        let shards = (1..=shards).map(|group| Arc::new(Shard::new(group))).collect();
        Self {
            incarnation,
            shards,
            files: Mutex::default(),
            serving: AtomicBool::new(false),
            unreadable: Mutex::default(),
            damaged: Mutex::default(),
            fetches: Mutex::default(),
            fetch_wanted: Notify::new(),
        }
    }

    /// The shard of a queue.
    pub(crate) fn shard(&self, queue: QueueId) -> &Arc<Shard> {
        &self.shards[(queue.0 % self.shards.len() as u64) as usize]
    }

    /// A visit to a queue is over: what happened is logged, what is missing is read.
    pub(crate) fn left(&self, queue: &Queue, state: &mut engine::Queue) {
        let freed = state.take_freed();
        if !self.serving.load(Relaxed) {
            return;
        }
        if let Some(facts) = state.take_facts() {
            self.shard(queue.id).facts(queue.id, &facts);
        }
        if !freed.is_empty() {
            let mut files = self.files.lock();
            for file in freed {
                if let Some(runs) = files.get_mut(&file) {
                    *runs -= 1;
                }
            }
        }
        if state.may_want() && !queue.fetch_queued.swap(true, Relaxed) {
            self.fetches.lock().push(queue.id);
            self.fetch_wanted.notify_one();
        }
    }

    /// Another run lies in `file`.
    pub(crate) fn hold(&self, file: u64) {
        *self.files.lock().entry(file).or_default() += 1;
    }

    /// Queues that wait for a read; waits for some.
    pub(crate) async fn wanted(&self) -> Vec<QueueId> {
        loop {
            let wanted = self.fetch_wanted.notified();
            let queues = std::mem::take(&mut *self.fetches.lock());
            if !queues.is_empty() {
                return queues;
            }
            wanted.await;
        }
    }
}

/// Reads runs from the log or the archive.
pub(crate) struct Reader<'r> {
    pub(crate) journal: &'r Journal,
    /// The record read last.
    last: Option<(Place, Bytes)>,
}

impl<'r> Reader<'r> {
    pub(crate) fn new(journal: &'r Journal) -> Self {
        Self { journal, last: None }
    }

    pub(crate) fn read(&mut self, place: &engine::Place) -> io::Result<Bytes> {
        let disk: &dyn Disk = &**self.journal.disk();
        if place.file & ARCHIVE != 0 {
            return archive::read(disk, place);
        }
        let record = Place { segment: place.file, offset: place.offset, len: place.len };
        let bytes = match &self.last {
            Some((last, bytes)) if *last == record => bytes.clone(),
            _ => self.journal.read(record).map_err(io::Error::other)?,
        };
        let run = bytes.slice(place.at as usize..(place.at + place.run_len) as usize);
        self.last = Some((record, bytes));
        Ok(run)
    }
}
