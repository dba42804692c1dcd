//! The state that durable queues share: the shards that log their operations, the files that hold their contents, and the
//! reads of contents.
use crate::arrivals::Arrivals;
use crate::contents::Contents;
use crate::due::DueQueues;
use crate::files::FileUses;
use crate::memory::Memory;
use crate::shard::Shard;
use leveret_engine::catalog::QueueId;
use leveret_journal::Disk;
use leveret_replication::GroupId;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// The shards of a node, and the state that their queues share.
pub(crate) struct Shards {
    /// The random number of this start of the node, by which the node knows its own log entries from those of earlier
    /// starts.
    pub(crate) incarnation: u64,
    /// The shards in the order of their groups; the first is that of group 1.
    pub(crate) list: Vec<Arc<Shard>>,
    /// Where the contents of each shard's queues lie, in the order of `list`.
    contents: Vec<Contents>,
    /// The contents that come from a peer, for each shard, in the order of `list`.
    arrivals: Vec<Arrivals>,
    /// The files that hold contents.
    pub(crate) files: Arc<FileUses>,
    pub(crate) damage: Damage,
    pub(crate) reads: ReadQueue,
    /// The queues whose leader, another node, has to be told what their consumers here want.
    pub(crate) wants: DueQueues,
    pub(crate) memory: Arc<Memory>,
}

/// Contents that could not be read.
#[derive(Default)]
pub(crate) struct Damage {
    /// The queues that the contents belong to, including those for which reading is tried again.
    pub(crate) queues: Mutex<BTreeSet<QueueId>>,
    /// The files with contents that cannot be read; they are left where they are.
    pub(crate) files: Mutex<BTreeSet<u64>>,
}

/// The reads of contents.
pub(crate) struct ReadQueue {
    /// Limits the number of reads at a time; each read holds one permit.
    pub(crate) slots: Semaphore,
    /// The queues that wait for a read.
    pub(crate) waiting: DueQueues,
}

impl Shards {
    pub(crate) fn new(count: u16, incarnation: u64, memory: &Arc<Memory>) -> Self {
        let files = Arc::<FileUses>::default();
        Self {
            incarnation,
            memory: memory.clone(),
            list: (1..=count).map(|group| Arc::new(Shard::new(group))).collect(),
            contents: (0..count).map(|_| Contents::new(files.clone(), memory.clone())).collect(),
            arrivals: (0..count).map(|_| Arrivals::new()).collect(),
            files,
            damage: Damage::default(),
            reads: ReadQueue { slots: Semaphore::new(READS_MAX), waiting: DueQueues::default() },
            wants: DueQueues::default(),
        }
    }

    /// Returns the shard of a queue.
    pub(crate) fn shard(&self, queue: QueueId) -> &Arc<Shard> {
        &self.list[self.position(queue)]
    }

    /// Returns the shard of a group.
    pub(crate) fn shard_of(&self, group: GroupId) -> &Shard {
        &self.list[usize::from(group) - 1]
    }

    /// Returns where the contents of a queue's shard lie.
    pub(crate) fn contents(&self, queue: QueueId) -> &Contents {
        &self.contents[self.position(queue)]
    }

    /// Returns where the contents of the queues of a group's shard lie.
    pub(crate) fn contents_of(&self, group: GroupId) -> &Contents {
        &self.contents[usize::from(group) - 1]
    }

    /// Returns the contents of a group's shard that come from a peer.
    pub(crate) fn arrivals_of(&self, group: GroupId) -> &Arrivals {
        &self.arrivals[usize::from(group) - 1]
    }

    /// Gives up the transfers of contents that have not gone on for long.
    pub(crate) fn end_idle_arrivals(&self, disk: &dyn Disk) {
        self.arrivals.iter().for_each(|arrivals| arrivals.end_if_idle(disk));
    }

    /// Returns whether a group is that of a shard.
    pub(crate) fn has_group(&self, group: GroupId) -> bool {
        (1..=self.list.len()).contains(&usize::from(group))
    }

    /// Returns where the contents of each shard's queues lie, with the group of the shard.
    pub(crate) fn all_contents(&self) -> impl Iterator<Item = (GroupId, &Contents)> {
        (1..).zip(&self.contents)
    }

    /// Returns the position of a queue's shard in the list.
    fn position(&self, queue: QueueId) -> usize {
        (queue.0 % self.list.len() as u64) as usize
    }
}

/// The largest number of reads at a time. Each has at most one record and four MiB of runs in memory, unless a single run
/// is longer.
const READS_MAX: usize = 8;
