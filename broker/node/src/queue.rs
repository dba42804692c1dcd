//! A queue behind its lock, and the bookkeeping that goes with every visit.
use crate::effects::Deleted;
use crate::log::Log;
use crate::memory::Memory;
use crate::wanted::Wanted;
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
    pub(crate) unfinished: Arc<Wanted>,
    /// The log, for queues that survive a restart; none if the node keeps nothing.
    pub(crate) log: Option<Arc<Log>>,
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
    /// What was accounted for this queue when it was last left.
    memory_bytes: AtomicU64,
    /// Of it the contents of a durable queue.
    warm_bytes: AtomicU64,
    outrunning: AtomicBool,
    /// Deliveries so far, when it was last left.
    delivered: AtomicU64,
    room: Notify,
    /// Its declaration is durable, if it has to be: it may be used.
    declared: AtomicBool,
    deleted: AtomicBool,
    pub(crate) memory: Arc<Memory>,
    unfinished: Arc<Wanted>,
    /// It is on the list of those.
    goes_on: AtomicBool,
    /// Of a queue whose changes are logged.
    pub(crate) log: Option<Arc<Log>>,
    /// It is on the list of those that wait for a read.
    pub(crate) fetch_queued: AtomicBool,
    /// Notified when contents were read.
    pub(crate) fetched: Notify,
    /// Reads that failed in a row, for reasons that pass, and what the last one said.
    pub(crate) read_failures: AtomicU32,
    pub(crate) read_trouble: Mutex<Option<String>>,
}

impl Queue {
    pub(crate) fn new(
        declared: &catalog::DeclaredQueue,
        vhost: Arc<str>,
        name: Arc<str>,
        context: QueueContext,
    ) -> Self {
        let QueueContext { memory, unfinished, log } = context;
        let log = log.filter(|_| declared.is_logged());
        let mut state = engine::Queue::new(&declared.settings, log.is_some());
        // A declaration that is read from the log at the start is durable.
        let is_logged_now = log.as_ref().is_some_and(|log| log.serving.load(Relaxed));
        if is_logged_now {
            state.lead(0);
        }
        Self {
            id: declared.id,
            vhost,
            name,
            auto_delete: declared.auto_delete,
            state: Mutex::new(state),
            memory_bytes: AtomicU64::new(0),
            warm_bytes: AtomicU64::new(0),
            outrunning: AtomicBool::new(false),
            delivered: AtomicU64::new(0),
            room: Notify::new(),
            declared: AtomicBool::new(!is_logged_now),
            deleted: AtomicBool::new(false),
            memory,
            unfinished,
            goes_on: AtomicBool::new(false),
            log,
            fetch_queued: AtomicBool::new(false),
            fetched: Notify::new(),
            read_failures: AtomicU32::new(0),
            read_trouble: Mutex::default(),
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

    /// Whether it has consumers that do not take as much as is published, or the log cannot follow: publishers had better
    /// wait a moment.
    #[inline]
    pub(crate) fn is_outrunning(&self) -> bool {
        self.outrunning.load(Relaxed) || self.log.as_ref().is_some_and(|log| log.shard(self.id).is_full())
    }

    /// Waits until the log takes more of what is published to this queue.
    pub async fn until_logged(&self) {
        if let Some(log) = &self.log {
            log.shard(self.id).until_room().await;
        }
    }

    /// Waits while consumers catch up with publishers: at most for `limit`, and no longer than they take messages at a pace
    /// at which `messages` would take that long. Returns whether they kept that pace. So consumers that nearly keep up are
    /// waited for, and a slow or a stuck one is not.
    pub async fn let_consumers_catch_up(&self, limit: Duration, messages: u64) -> bool {
        let delivered_before = self.delivered.load(Relaxed);
        let (began, mut waited) = (Instant::now(), Duration::ZERO);
        while waited < limit {
            let room = self.room.notified();
            if !self.outrunning.load(Relaxed) {
                return true;
            }
            let _ = tokio::time::timeout_at(began + waited + CATCH_UP_LOOK, room).await;
            waited = began.elapsed();
            let delivered = self.delivered.load(Relaxed) - delivered_before;
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
        self.warm_bytes.load(Relaxed) > 0
    }

    /// Gives back what an empty queue keeps.
    pub(crate) fn trim(&self) {
        if self.memory_bytes.load(Relaxed) > 0 {
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

    /// Ends the queue: nothing enters it and nothing is delivered from it any more. Returns what is left of it: its consumers,
    /// to be told, and the contents, to be dropped where nobody waits. Those of a durable queue stay until the log has its end:
    /// a snapshot before that has to have them.
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
        self.fetched.notify_waiters();
        Deleted { ready, consumers, contents }
    }

    /// The log has the end of this durable queue: its contents go, and the files that they lie in need not stay for it.
    pub(crate) fn free_contents(&self, log: &Log) {
        let contents = std::mem::replace(&mut *self.enter().state, engine::Queue::ended());
        let mut places = contents.runs().map(|(_, place)| place).peekable();
        while places.peek().is_some() {
            log.files.free(places.by_ref().take(FREED_AT_ONCE));
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.memory.account(self.memory_bytes.load(Relaxed), 0);
        if self.log.is_some() {
            self.memory.account_warm(self.warm_bytes.load(Relaxed), 0);
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
        if let Some(log) = &self.queue.log {
            log.left(self.queue, &mut self.state);
        }
        if self.state.take_unfinished() {
            self.queue.unfinished.push(self.queue.id, &self.queue.goes_on);
        }
        let after = self.state.memory_bytes();
        let before = self.queue.memory_bytes.swap(after, Relaxed);
        if before != after {
            self.queue.memory.account(before, after);
        }
        if self.queue.log.is_some() {
            let warm = self.state.warm_bytes();
            let before = self.queue.warm_bytes.swap(warm, Relaxed);
            if before != warm {
                self.queue.memory.account_warm(before, warm);
            }
        }
        self.queue.delivered.store(self.state.counters().delivered, Relaxed);
        let outrunning = after > OUTRUNNING_BYTES && ready_bytes(&self.state, after) > OUTRUNNING_BYTES;
        if outrunning != self.queue.outrunning.load(Relaxed) {
            self.queue.outrunning.store(outrunning, Relaxed);
            if !outrunning {
                self.queue.room.notify_waiters();
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
const OUTRUNNING_BYTES: u64 = 2 << 20;
/// Consumers are given this long to show their pace while the publisher leaves them the processor.
const CATCH_UP_CHANCE: Duration = Duration::from_millis(5);
/// How often a publisher that waits looks at what consumers have taken.
const CATCH_UP_LOOK: Duration = Duration::from_millis(1);

#[cfg(test)]
#[path = "outrunning_tests.rs"]
mod tests;
