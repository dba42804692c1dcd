//! A queue behind its lock, and the bookkeeping that goes with every visit.
use crate::due::DueQueues;
use crate::effects::Deleted;
use crate::memory::Memory;
use crate::shards::Shards;
use leveret_engine::catalog;
use leveret_engine::queue as engine;
use leveret_model::refusal::Refusal;
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

pub use leveret_engine::catalog::QueueId;

/// What all queues of a node share.
pub(crate) struct QueueContext {
    pub(crate) memory: Arc<Memory>,
    /// The queues with more to deliver than one visit may.
    pub(crate) unfinished: Arc<DueQueues>,
    /// The log, for queues that survive a restart; none if the node keeps nothing.
    pub(crate) shards: Option<Arc<Shards>>,
}

/// A declared queue: what every holder of a route, a consumer or a delivery keeps.
pub struct Queue {
    /// Its identity: a queue deleted and declared again has another.
    pub id: QueueId,
    /// Its virtual host.
    pub vhost: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Deleted when its last consumer leaves.
    pub(crate) auto_delete: bool,
    state: Mutex<engine::Queue>,
    reported: ReportedBytes,
    pace: Pace,
    /// Whether the queue may be used: its declaration is durable, if it has to be.
    declared: AtomicBool,
    deleted: AtomicBool,
    pub(crate) memory: Arc<Memory>,
    unfinished: Arc<DueQueues>,
    /// Whether the queue is on that list.
    goes_on: AtomicBool,
    /// The shards, of a queue whose changes are logged.
    pub(crate) shards: Option<Arc<Shards>>,
    pub(crate) reads: Reads,
}

/// The bytes that were reported to [`Memory`] after the last visit.
#[derive(Default)]
struct ReportedBytes {
    all: AtomicU64,
    /// Warm contents among them.
    warm: AtomicU64,
}

/// How consumers keep up with publishers, after the last visit.
#[derive(Default)]
struct Pace {
    /// Whether consumers take less than is published.
    consumers_lag: AtomicBool,
    /// Deliveries so far.
    delivered: AtomicU64,
    /// Notified when consumers no longer lag.
    caught_up: Notify,
}

/// Reads of a queue's contents.
#[derive(Default)]
pub(crate) struct Reads {
    /// Whether the queue is on the list of those that wait for a read.
    pub(crate) is_waiting: AtomicBool,
    /// Notified when a read has ended.
    pub(crate) finished: Notify,
    /// Reads that failed in a row for reasons that pass.
    pub(crate) failures: AtomicU32,
    /// What the last of them said.
    pub(crate) trouble: Mutex<Option<String>>,
}

impl Queue {
    pub(crate) fn new(
        declared: &catalog::DeclaredQueue,
        vhost: Arc<str>,
        name: Arc<str>,
        context: QueueContext,
    ) -> Self {
        let QueueContext { memory, unfinished, shards } = context;
        let shards = shards.filter(|_| declared.is_logged());
        let mut state = engine::Queue::new(&declared.settings, shards.is_some());
        // A declaration that is read from the log at the start is durable.
        let is_logged_now = shards.as_ref().is_some_and(|shards| shards.serving.load(Relaxed));
        if is_logged_now {
            state.lead(0);
        }
        Self {
            id: declared.id,
            vhost,
            name,
            auto_delete: declared.auto_delete,
            state: Mutex::new(state),
            reported: ReportedBytes::default(),
            pace: Pace::default(),
            declared: AtomicBool::new(!is_logged_now),
            deleted: AtomicBool::new(false),
            memory,
            unfinished,
            goes_on: AtomicBool::new(false),
            shards,
            reads: Reads::default(),
        }
    }

    /// The queue, for changes: leaving it accounts for its memory.
    pub(crate) fn enter(&self) -> Entered<'_> {
        Entered { queue: self, state: self.state.lock() }
    }

    /// The queue, to look at.
    pub fn look<T>(&self, at: impl FnOnce(&engine::Queue) -> T) -> T {
        at(&self.state.lock())
    }

    /// Returns whether consumers do not take as much as is published, or the log cannot follow: publishers had better wait a
    /// moment.
    #[inline]
    pub(crate) fn is_behind(&self) -> bool {
        self.pace.consumers_lag.load(Relaxed)
            || self.shards.as_ref().is_some_and(|shards| shards.shard(self.id).is_full())
    }

    /// Waits until the log takes more of what is published to this queue.
    pub async fn until_logged(&self) {
        if let Some(shards) = &self.shards {
            shards.shard(self.id).until_room().await;
        }
    }

    /// Waits while consumers catch up with publishers: at most for `limit`, and no longer than they take messages at a pace
    /// at which `messages` would take that long. Returns whether they kept that pace. So consumers that nearly keep up are
    /// waited for, and a slow or a stuck one is not.
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

    /// Its declaration is durable. Whether that is new.
    pub(crate) fn set_declared(&self) -> bool {
        !self.declared.swap(true, Relaxed)
    }

    /// Whether it may be used: its declaration is durable, if it has to be.
    pub(crate) fn is_declared(&self) -> bool {
        self.declared.load(Relaxed)
    }

    /// Whether the queue was deleted; nothing enters it any more.
    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Relaxed)
    }

    /// Goes on with deliveries that were more than one visit may make.
    pub(crate) fn go_on(&self, now: u64) {
        self.goes_on.store(false, Relaxed);
        self.enter().dispatch(now);
    }

    /// Whether it has contents in memory that the log has, too.
    pub(crate) fn is_warm(&self) -> bool {
        self.reported.warm.load(Relaxed) > 0
    }

    /// Gives back what an empty queue keeps.
    pub(crate) fn trim(&self) {
        if self.reported.all.load(Relaxed) > 0 {
            self.enter().trim();
        }
    }

    /// Lets no message or consumer enter the queue any more, unless `refuse` finds a reason not to: the queue is about to be
    /// deleted. Both happen under the queue's lock, so that nothing is published between the question and the end.
    ///
    /// # Errors
    /// What `refuse` says.
    pub(crate) fn seal(&self, refuse: impl FnOnce(engine::Depth) -> Result<(), Refusal>) -> Result<(), Refusal> {
        let entered = self.enter();
        refuse(entered.depth())?;
        self.deleted.store(true, Relaxed);
        Ok(())
    }

    /// Ends the queue: nothing enters it and nothing is delivered from it any more. Returns what is left of it: its
    /// consumers, to be told, and the contents, to be dropped where nobody waits. Those of a durable queue stay until the
    /// log has its end: a snapshot before that has to have them.
    pub(crate) fn close(&self) -> Deleted {
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
            false => Some(std::mem::replace(&mut *entered.state, engine::Queue::ended())),
        };
        self.reads.finished.notify_waiters();
        Deleted { ready, consumers, contents }
    }

    /// Ends a visit to a durable queue: what happened to deliveries is logged, and contents that are missing are read.
    fn after_visit(&self, shards: &Shards, state: &mut engine::Queue) {
        let freed = state.take_freed();
        if !shards.serving.load(Relaxed) {
            return;
        }
        if let Some(changes) = state.take_changes() {
            shards.shard(self.id).changes(self.id, &changes);
        }
        if !freed.is_empty() {
            shards.files.free(freed);
        }
        if state.may_need_read() {
            shards.reads.waiting.push(self.id, &self.reads.is_waiting);
        }
    }

    /// Notes that the run in `segment` is not what was written, or not there: deliveries stop before it, and its file is
    /// kept.
    pub(crate) fn note_damage(&self, state: &mut engine::Queue, segment: u64, file: u64, reason: &str) {
        state.set_unreadable(segment, reason);
        if let Some(shards) = &self.shards {
            shards.damage.files.lock().insert(file);
            shards.damage.queues.lock().insert(self.id);
        }
        let (vhost, queue) = (&*self.vhost, &*self.name);
        tracing::error!(vhost, queue, reason, "contents cannot be read: deliveries of the queue stop before them");
    }

    /// The log has the end of this durable queue: its contents go, and the files that they lie in need not stay for it.
    pub(crate) fn free_contents(&self, shards: &Shards) {
        let contents = std::mem::replace(&mut *self.enter().state, engine::Queue::ended());
        let mut places = contents.runs().map(|(_, place)| place).peekable();
        while places.peek().is_some() {
            shards.files.free(places.by_ref().take(FREED_AT_ONCE));
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

/// A queue, locked.
pub(crate) struct Entered<'q> {
    queue: &'q Queue,
    state: MutexGuard<'q, engine::Queue>,
}

impl std::ops::Deref for Entered<'_> {
    type Target = engine::Queue;

    fn deref(&self) -> &engine::Queue {
        &self.state
    }
}

impl std::ops::DerefMut for Entered<'_> {
    fn deref_mut(&mut self) -> &mut engine::Queue {
        &mut self.state
    }
}

impl Drop for Entered<'_> {
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
        self.queue.pace.delivered.store(self.state.counters().delivered, Relaxed);
        let lag = after > LAG_BYTES && ready_bytes(&self.state, after) > LAG_BYTES;
        if lag != self.queue.pace.consumers_lag.load(Relaxed) {
            self.queue.pace.consumers_lag.store(lag, Relaxed);
            if !lag {
                self.queue.pace.caught_up.notify_waiters();
            }
        }
    }
}

/// Of `bytes` of memory, about as many as hold messages that are ready for consumers; none if there are no consumers.
fn ready_bytes(state: &engine::Queue, bytes: u64) -> u64 {
    let depth = state.depth();
    if depth.consumers == 0 {
        return 0;
    }
    (u128::from(bytes) * u128::from(depth.ready) / u128::from((depth.ready + depth.unacked).max(1))) as u64
}

/// Places that are let go of at a time: others want the list of files, too.
const FREED_AT_ONCE: usize = 8192;
/// Memory of messages that wait for consumers before publishers are slowed down: what is copied next had better still be in
/// the processor's cache.
const LAG_BYTES: u64 = 2 << 20;
/// Consumers are given this long to show their pace while the publisher leaves them the processor.
const CATCH_UP_CHANCE: Duration = Duration::from_millis(5);
/// How often a publisher that waits looks at what consumers have taken.
const CATCH_UP_LOOK: Duration = Duration::from_millis(1);

#[cfg(test)]
#[path = "lag_tests.rs"]
mod tests;
