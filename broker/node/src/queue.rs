//! A queue behind its lock, and the bookkeeping that goes with every visit.
use crate::memory::Memory;
use leveret_engine::queue as engine;
use leveret_model::refusal::Refusal;
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use tokio::sync::Notify;

pub use leveret_engine::catalog::QueueId;

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
    outrunning: AtomicBool,
    room: Notify,
    deleted: AtomicBool,
    memory: Arc<Memory>,
}

impl Queue {
    pub(crate) fn new(id: QueueId, names: (Arc<str>, Arc<str>), auto_delete: bool, memory: Arc<Memory>) -> Self {
        let (vhost, name) = names;
        let (memory_bytes, outrunning) = (AtomicU64::new(0), AtomicBool::new(false));
        let deleted = AtomicBool::new(false);
        let state = Mutex::default();
        let room = Notify::new();
        Self { id, vhost, name, auto_delete, state, memory_bytes, outrunning, room, deleted, memory }
    }

    /// The queue, for changes: leaving it accounts for its memory.
    pub(crate) fn enter(&self) -> Entered<'_> {
        Entered { queue: self, state: self.state.lock() }
    }

    /// The queue, to look at.
    pub fn look<T>(&self, at: impl FnOnce(&engine::Queue) -> T) -> T {
        at(&self.state.lock())
    }

    /// Whether its consumers' outputs are full: publishers had better wait a moment.
    #[inline]
    pub(crate) fn is_outrunning(&self) -> bool {
        self.outrunning.load(Relaxed)
    }

    /// Notified when the consumers have caught up.
    pub(crate) fn room(&self) -> &Notify {
        &self.room
    }

    /// Whether the queue was deleted; nothing enters it any more.
    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Relaxed)
    }

    /// Gives back what an empty queue keeps.
    pub(crate) fn trim(&self) {
        if self.memory_bytes.load(Relaxed) > 0 {
            self.enter().trim();
        }
    }

    /// Marks the queue deleted and takes its consumers and contents away, unless `refuse` finds a reason not to. Returns
    /// how many messages were ready, and the consumers to be told.
    pub(crate) fn close(
        &self,
        refuse: impl FnOnce(engine::Depth) -> Result<(), Refusal>,
    ) -> Result<(u64, Vec<engine::Consumer>), Refusal> {
        let mut entered = self.enter();
        refuse(entered.depth())?;
        self.deleted.store(true, Relaxed);
        let consumers = entered.unsubscribe_all();
        let ready = entered.purge();
        entered.trim();
        Ok((ready, consumers))
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.memory.account(self.memory_bytes.load(Relaxed), 0);
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
        let after = self.state.memory_bytes();
        let before = self.queue.memory_bytes.swap(after, Relaxed);
        if before != after {
            self.queue.memory.account(before, after);
        }
        let outrunning = after > OUTRUNNING_BYTES && self.state.is_outrunning();
        if outrunning != self.queue.outrunning.load(Relaxed) {
            self.queue.outrunning.store(outrunning, Relaxed);
            if !outrunning {
                self.queue.room.notify_waiters();
            }
        }
    }
}

/// Memory that waits for consumers with full outputs before publishers are slowed down: what is copied next had better
/// still be in the processor's cache.
const OUTRUNNING_BYTES: u64 = 2 << 20;
