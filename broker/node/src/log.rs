//! What durable queues share: shards, the files that hold their contents, and who waits for a read.
use crate::fact_log::Mark;
use crate::files::Files;
use crate::queue::{Queue, QueueId};
use crate::shard::Shard;
use crate::wanted::Wanted;
use leveret_engine::queue as engine;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tokio::sync::Semaphore;

/// Durable queues that were deleted, until the log has that: what it says of them up to there still counts.
#[derive(Default)]
pub(crate) struct Closed(Mutex<BTreeMap<QueueId, Ended>>);

struct Ended {
    queue: Arc<Queue>,
    /// What has to be durable, once that is known.
    end: Option<Mark>,
}

impl Closed {
    /// Another one. It is among the others still.
    pub(crate) fn insert(&self, queue: Arc<Queue>) {
        self.0.lock().insert(queue.id, Ended { queue, end: None });
    }

    pub(crate) fn get(&self, id: QueueId) -> Option<Arc<Queue>> {
        self.0.lock().get(&id).map(|ended| ended.queue.clone())
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<Queue>> {
        self.0.lock().values().map(|ended| ended.queue.clone()).collect()
    }

    /// Takes those out whose end is durable. `upto` is behind the ends of all that are here.
    pub(crate) fn take_durable(&self, upto: Mark, is_durable: impl Fn(Mark) -> bool) -> Vec<Arc<Queue>> {
        let mut closed = self.0.lock();
        let ended = closed.extract_if(.., |_, ended| is_durable(*ended.end.get_or_insert(upto)));
        ended.map(|(_, ended)| ended.queue).collect()
    }
}

/// The log as queues see it.
pub(crate) struct Log {
    /// Tells this start of the node from those before.
    pub(crate) incarnation: u64,
    pub(crate) shards: Vec<Arc<Shard>>,
    /// The files that hold contents.
    pub(crate) files: Arc<Files>,
    /// Queues are served: the log before this start was applied.
    pub(crate) serving: AtomicBool,
    /// Queues with contents that could not be read.
    pub(crate) troubled: Mutex<BTreeSet<QueueId>>,
    /// Files with contents that cannot be read: left where they are.
    pub(crate) damaged: Mutex<BTreeSet<u64>>,
    /// Queues that were deleted, and perhaps not durably yet.
    pub(crate) closed: Closed,
    /// Reads of contents that may be under way at a time.
    pub(crate) reads: Semaphore,
    /// Queues that wait for a read.
    pub(crate) fetches: Wanted,
}

impl Log {
    pub(crate) fn new(shards: u16, incarnation: u64) -> Self {
        let shards = (1..=shards).map(|group| Arc::new(Shard::new(group))).collect();
        Self {
            incarnation,
            shards,
            files: Arc::default(),
            serving: AtomicBool::new(false),
            troubled: Mutex::default(),
            damaged: Mutex::default(),
            closed: Closed::default(),
            reads: Semaphore::new(READS_MAX),
            fetches: Wanted::default(),
        }
    }

    /// The shard of a queue.
    pub(crate) fn shard(&self, queue: QueueId) -> &Arc<Shard> {
        &self.shards[(queue.0 % self.shards.len() as u64) as usize]
    }

    /// A run of a queue is not what was written, or not there: the queue stops before it, and its file is kept.
    pub(crate) fn note_damage(
        &self,
        queue: &Queue,
        state: &mut engine::Queue,
        (segment, file): (u64, u64),
        reason: &str,
    ) {
        state.set_unreadable(segment, reason);
        self.damaged.lock().insert(file);
        self.troubled.lock().insert(queue.id);
        let (vhost, name) = (&*queue.vhost, &*queue.name);
        tracing::error!(
            vhost,
            queue = name,
            reason,
            "contents cannot be read: deliveries of the queue stop before them"
        );
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
            self.files.free(freed);
        }
        if state.may_want() {
            self.fetches.push(queue.id, &queue.fetch_queued);
        }
    }
}

/// Each has a record and four MiB of runs in memory at most, unless one run is longer.
const READS_MAX: usize = 8;
