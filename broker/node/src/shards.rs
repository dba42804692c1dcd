//! What durable queues share: the shards whose logs have them, the files that hold their contents, and the reads of these.
use crate::due::DueQueues;
use crate::files::Files;
use crate::shard::Shard;
use leveret_engine::catalog::QueueId;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::sync::Semaphore;

/// The shards of a node, and what goes with them.
pub(crate) struct Shards {
    /// A number that tells this start of the node from those before.
    pub(crate) incarnation: u64,
    /// The shards; that of group 1 is the first.
    pub(crate) list: Vec<Arc<Shard>>,
    /// The files that hold contents.
    pub(crate) files: Arc<Files>,
    /// Whether queues are served: the log before this start was applied.
    pub(crate) serving: AtomicBool,
    pub(crate) damage: Damage,
    pub(crate) reads: ReadQueue,
}

/// Contents that could not be read.
#[derive(Default)]
pub(crate) struct Damage {
    /// The queues that the contents belong to, also while reading is tried again.
    pub(crate) queues: Mutex<BTreeSet<QueueId>>,
    /// Files with contents that cannot be read: left where they are.
    pub(crate) files: Mutex<BTreeSet<u64>>,
}

/// The reads of contents.
pub(crate) struct ReadQueue {
    /// Taken by each read that is under way.
    pub(crate) slots: Semaphore,
    /// The queues that wait for a read.
    pub(crate) waiting: DueQueues,
}

impl Shards {
    pub(crate) fn new(count: u16, incarnation: u64) -> Self {
        Self {
            incarnation,
            list: (1..=count).map(|group| Arc::new(Shard::new(group))).collect(),
            files: Arc::default(),
            serving: AtomicBool::new(false),
            damage: Damage::default(),
            reads: ReadQueue { slots: Semaphore::new(READS_MAX), waiting: DueQueues::default() },
        }
    }

    /// Returns the shard of a queue.
    pub(crate) fn shard(&self, queue: QueueId) -> &Arc<Shard> {
        &self.list[(queue.0 % self.list.len() as u64) as usize]
    }
}

/// Reads that are under way at a time. Each has a record and four MiB of runs in memory at most, unless one run is longer.
const READS_MAX: usize = 8;
