//! A queue of the node: the engine's queue behind its lock, and the bookkeeping at the end of every visit to it.
use crate::deleted::DeletedQueue;
use crate::due::DueQueues;
use crate::memory::Memory;
use crate::node_sink::NodeSink;
use crate::shards::Shards;
use leveret_engine::catalog;
use leveret_engine::queue as engine;
use leveret_model::refusal::Refusal;
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

pub use leveret_engine::catalog::QueueId;

/// The parts of the node that every queue refers to.
pub(crate) struct QueueContext {
    pub(crate) memory: Arc<Memory>,
    /// The list of the queues with more to deliver than one visit may.
    pub(crate) unfinished: Arc<DueQueues>,
    /// The log, for queues that survive a restart; `None` if the node has no storage.
    pub(crate) shards: Option<Arc<Shards>>,
    /// This node.
    pub(crate) node: u64,
}

/// A declared queue. Routes, consumers and deliveries hold it.
pub struct Queue {
    /// The identity of the queue: a queue that is deleted and declared again has another one.
    pub id: QueueId,
    /// The virtual host of the queue.
    pub vhost: Arc<str>,
    /// The name of the queue.
    pub name: Arc<str>,
    /// Set if the queue is deleted when its last consumer leaves.
    pub(crate) auto_delete: bool,
    /// The other node that a transient queue lives on; `None` for all queues whose messages this node has.
    pub(crate) away: Option<u64>,
    state: Mutex<engine::QueueCore>,
    reported: ReportedBytes,
    pace: ConsumerPace,
    deleted: AtomicBool,
    pub(crate) memory: Arc<Memory>,
    unfinished: Arc<DueQueues>,
    /// Set while the queue is on the list `unfinished`.
    goes_on: AtomicBool,
    /// The shards, if the queue's changes are logged; `None` otherwise.
    pub(crate) shards: Option<Arc<Shards>>,
    pub(crate) reads: Reads,
    pub(crate) others: OtherNodes,
}

/// What a queue has to do with other nodes.
#[derive(Default)]
pub(crate) struct OtherNodes {
    /// Set while the queue is on the list of those whose leader has to be told what their consumers want.
    pub(crate) wants: AtomicBool,
    /// The consumers in this queue that stand for those of other nodes, by node.
    pub(crate) sinks: Mutex<BTreeMap<u64, Arc<NodeSink>>>,
}

/// The bytes that were reported to [`Memory`] after the last visit.
#[derive(Default)]
struct ReportedBytes {
    all: AtomicU64,
    /// The bytes of warm contents among them.
    warm: AtomicU64,
}

/// The pace of the consumers compared to the publishers, as of the last visit.
#[derive(Default)]
struct ConsumerPace {
    /// Set while consumers take less than is published.
    consumers_lag: AtomicBool,
    /// The number of deliveries so far.
    delivered: AtomicU64,
    /// Notified when consumers no longer lag.
    caught_up: Notify,
}

/// The state of the reads of a queue's contents.
#[derive(Default)]
pub(crate) struct Reads {
    /// Set while the queue is on the list of queues that wait for a read.
    pub(crate) is_waiting: AtomicBool,
    /// Notified when a read has ended.
    pub(crate) finished: Notify,
    /// The number of reads in a row that failed for a reason that may go away.
    pub(crate) failures: AtomicU32,
    /// The error of the last failed read, until a read succeeds or none is needed any more.
    pub(crate) trouble: Mutex<Option<String>>,
}

impl Queue {
    pub(crate) fn new(
        declared: &catalog::DeclaredQueue,
        vhost: Arc<str>,
        name: Arc<str>,
        context: QueueContext,
    ) -> Self {
        let QueueContext { memory, unfinished, shards, node } = context;
        let shards = shards.filter(|_| declared.is_logged());
        let mut state = engine::QueueCore::new(&declared.settings, shards.is_some());
        if let Some(term) = shards.as_ref().and_then(|shards| shards.shard(declared.id).term()) {
            state.lead(0, term);
        }
        Self {
            id: declared.id,
            vhost,
            name,
            auto_delete: declared.auto_delete,
            away: declared.home.map(|home| home.node).filter(|home| *home != node),
            state: Mutex::new(state),
            reported: ReportedBytes::default(),
            pace: ConsumerPace::default(),
            deleted: AtomicBool::new(false),
            memory,
            unfinished,
            goes_on: AtomicBool::new(false),
            shards,
            reads: Reads::default(),
            others: OtherNodes::default(),
        }
    }

    /// Locks the queue for changes. The end of the visit reports the queue's memory, logs what happened to deliveries, and
    /// asks for reads.
    pub(crate) fn enter(&self) -> QueueVisit<'_> {
        QueueVisit { queue: self, state: self.state.lock() }
    }

    /// Calls `at` with the locked queue, which must not be changed, and returns the result.
    pub fn look<T>(&self, at: impl FnOnce(&engine::QueueCore) -> T) -> T {
        at(&self.state.lock())
    }

    /// Returns whether publishers should wait a moment, because consumers take less than is published or the log cannot
    /// keep up.
    #[inline]
    pub(crate) fn is_behind(&self) -> bool {
        self.pace.consumers_lag.load(Relaxed)
            || self.shards.as_ref().is_some_and(|shards| shards.shard(self.id).outbox.is_full())
    }

    /// Waits until the log takes further publishes to this queue.
    pub(crate) async fn until_logged(&self) {
        if let Some(shards) = &self.shards {
            shards.shard(self.id).outbox.until_room().await;
        }
    }

    /// Waits while consumers catch up with publishers: at most for `limit`, and only as long as they keep a pace of
    /// `messages` per `limit`. Returns whether they kept that pace. Publishers therefore wait for consumers that nearly
    /// keep up, but not for a slow or stuck one.
    pub async fn let_consumers_catch_up(&self, limit: Duration, messages: u64) -> bool {
        let delivered_before = self.pace.delivered.load(Relaxed);
        let (began, mut waited) = (Instant::now(), Duration::ZERO);
        while waited < limit {
            let caught_up = self.pace.caught_up.notified();
            if !self.pace.consumers_lag.load(Relaxed) {
                return true;
            }
            let _ = tokio::time::timeout_at(began + waited + CATCH_UP_LOOK, caught_up).await;
            waited = began.elapsed();
            let delivered = self.pace.delivered.load(Relaxed) - delivered_before;
            let expected = messages as f64 * waited.as_secs_f64() / limit.as_secs_f64();
            if waited >= CATCH_UP_CHANCE && (delivered as f64) < expected {
                return false;
            }
        }
        true
    }

    /// Returns whether the queue was deleted, so that nothing enters it any more.
    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Relaxed)
    }

    /// Continues with the deliveries that were too many for one visit.
    pub(crate) fn go_on(&self, now: u64) {
        self.goes_on.store(false, Relaxed);
        self.enter().dispatch(now);
    }

    /// Returns whether the queue has warm contents: contents in memory that can also be read back from the disk.
    pub(crate) fn is_warm(&self) -> bool {
        self.reported.warm.load(Relaxed) > 0
    }

    /// Frees the memory that an empty queue keeps for its next messages.
    pub(crate) fn trim(&self) {
        if self.reported.all.load(Relaxed) > 0 {
            self.enter().trim();
        }
    }

    /// Closes the queue to further messages and consumers, because it is about to be deleted, unless `refuse` objects to
    /// the depth that the queue has now. Both happen under the queue's lock, so that nothing is published between the check
    /// and the end.
    ///
    /// # Errors
    /// The refusal that `refuse` returned.
    pub(crate) fn seal(&self, refuse: impl FnOnce(engine::Depth) -> Result<(), Refusal>) -> Result<(), Refusal> {
        let entered = self.enter();
        refuse(entered.depth())?;
        self.deleted.store(true, Relaxed);
        Ok(())
    }

    /// Ends the queue: nothing enters it and nothing is delivered from it any more. Returns its consumers, which have to be
    /// told, and the contents of a transient queue, to be dropped where nobody waits. The contents of a durable queue stay
    /// in it until the log has the deletion, because a snapshot made before that must contain them.
    pub(crate) fn close(&self) -> DeletedQueue {
        let mut entered = self.enter();
        self.deleted.store(true, Relaxed);
        let consumers = entered.unsubscribe_all();
        let ready = entered.depth().ready;
        entered.end();
        let contents = match entered.is_durable() {
            true => {
                entered.cool_idle();
                None
            }
            false => Some(std::mem::replace(&mut *entered.state, engine::QueueCore::ended())),
        };
        self.reads.finished.notify_waiters();
        DeletedQueue { ready, consumers, contents }
    }

    /// Ends a visit to a durable queue: logs what happened to deliveries, frees the contents of runs that were settled, and
    /// asks for a read if contents are missing in memory.
    fn after_visit(&self, shards: &Shards, state: &mut engine::QueueCore) {
        let freed = state.take_freed();
        if !freed.is_empty() {
            shards.contents(self.id).free(freed);
        }
        if let Some(changes) = state.take_changes() {
            shards.shard(self.id).changes(self.id, &changes);
        }
        if state.has_want() {
            shards.wants.push(self.id, &self.others.wants);
        }
        if state.may_need_read() {
            shards.reads.waiting.push(self.id, &self.reads.is_waiting);
        }
    }

    /// Notes that the run in `segment` is missing or is not the one that was written. Deliveries stop before it, and its
    /// file is kept.
    pub(crate) fn note_damage(&self, state: &mut engine::QueueCore, segment: u64, file: Option<u64>, reason: &str) {
        state.set_unreadable(segment, reason);
        if let Some(shards) = &self.shards {
            shards.damage.files.lock().extend(file);
            shards.damage.queues.lock().insert(self.id);
        }
        let (vhost, queue) = (&*self.vhost, &*self.name);
        tracing::error!(vhost, queue, reason, "contents cannot be read: deliveries of the queue stop before them");
    }

    /// Drops the contents of this durable queue, once the shard's log has its deletion.
    pub(crate) fn free_contents(&self, shards: &Shards) {
        let contents = std::mem::replace(&mut *self.enter().state, engine::QueueCore::ended());
        let mut names = contents.runs().map(|(_, name)| name).peekable();
        while names.peek().is_some() {
            shards.contents(self.id).free(names.by_ref().take(FREED_AT_ONCE));
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.memory.account(self.reported.all.load(Relaxed), 0);
        if self.shards.is_some() {
            self.memory.account_warm(self.reported.warm.load(Relaxed), 0);
        }
    }
}

/// A locked queue; dropping it ends the visit.
pub(crate) struct QueueVisit<'q> {
    queue: &'q Queue,
    state: MutexGuard<'q, engine::QueueCore>,
}

impl std::ops::Deref for QueueVisit<'_> {
    type Target = engine::QueueCore;

    fn deref(&self) -> &engine::QueueCore {
        &self.state
    }
}

impl std::ops::DerefMut for QueueVisit<'_> {
    fn deref_mut(&mut self) -> &mut engine::QueueCore {
        &mut self.state
    }
}

impl Drop for QueueVisit<'_> {
    fn drop(&mut self) {
        if let Some(shards) = &self.queue.shards {
            self.queue.after_visit(shards, &mut self.state);
        }
        if self.state.take_unfinished() {
            self.queue.unfinished.push(self.queue.id, &self.queue.goes_on);
        }
        let after = self.state.memory_bytes();
        let before = self.queue.reported.all.swap(after, Relaxed);
        if before != after {
            self.queue.memory.account(before, after);
        }
        if self.queue.shards.is_some() {
            let warm = self.state.warm_bytes();
            let before = self.queue.reported.warm.swap(warm, Relaxed);
            if before != warm {
                self.queue.memory.account_warm(before, warm);
            }
        }
        self.queue.pace.delivered.store(self.state.handed_out(), Relaxed);
        let lag = after > LAG_BYTES && ready_bytes(&self.state, after) > LAG_BYTES;
        if lag != self.queue.pace.consumers_lag.load(Relaxed) {
            self.queue.pace.consumers_lag.store(lag, Relaxed);
            if !lag {
                self.queue.pace.caught_up.notify_waiters();
            }
        }
    }
}

/// Returns about how many of `bytes` bytes of a queue's memory hold messages that are ready for consumers; 0 if there are
/// no consumers.
fn ready_bytes(state: &engine::QueueCore, bytes: u64) -> u64 {
    let depth = state.depth();
    if depth.consumers == 0 {
        return 0;
    }
    (u128::from(bytes) * u128::from(depth.ready) / u128::from((depth.ready + depth.unacked).max(1))) as u64
}

/// The number of runs that are freed at a time: others want the table of contents, too.
const FREED_AT_ONCE: usize = 8192;
/// The bytes of ready messages beyond which publishers are slowed down: the message that is delivered next should still be
/// in the processor's cache.
const LAG_BYTES: u64 = 2 << 20;
/// The time that consumers have to show their pace while the publisher leaves them the processor.
const CATCH_UP_CHANCE: Duration = Duration::from_millis(5);
/// The interval at which a waiting publisher looks at how many messages consumers have taken.
const CATCH_UP_LOOK: Duration = Duration::from_millis(1);

#[cfg(test)]
#[path = "lag_tests.rs"]
mod tests;
