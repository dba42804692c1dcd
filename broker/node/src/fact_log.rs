//! The facts that have to be logged in group 0, in the order in which the catalog changed. They are written by the callers
//! that wait for them.
//!
//! A change of the catalog hands its facts over while it still holds the catalog's lock, so the log has them in the order
//! in which they became true. The task that gets the definitions' lock writes all facts that have gathered, including those
//! of other callers: many declarations share a sync. That task runs to its end: a caller that is cancelled, times out or
//! disconnects leaves nothing half done. Once the facts are durable, the logs of the shards get the declarations and
//! deletions of their queues. If the node ends in between, the next start makes up for it (see `agreement`).
use crate::Broker;
use crate::definitions;
use crate::shard::ShardDefinition;
use leveret_engine::catalog::Fact;
use leveret_model::refusal::{Refusal, RefusalKind};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Release};

/// The facts that wait to be logged, and the number of durable ones.
#[derive(Default)]
pub(crate) struct FactLog {
    waiting: Mutex<WaitingFacts>,
    /// The number of facts since the start of the node that are durable.
    durable: AtomicU64,
    /// Set while storage is being closed: then a fact that is not logged is no failure.
    closing: AtomicBool,
}

#[derive(Default)]
struct WaitingFacts {
    facts: Vec<Fact>,
    /// The declarations and deletions of queues that follow from these facts.
    definitions: Vec<ShardDefinition>,
    /// The number of facts handed over so far, including those that were logged.
    handed_over: u64,
}

/// A position in the sequence of facts. The mark is durable once all facts before it are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark(u64);

impl Mark {
    /// The mark before all facts: nothing has to be waited for.
    pub(crate) const NOTHING: Self = Self(0);
}

impl FactLog {
    /// Takes facts over while the caller holds the catalog's lock, and what the shards' logs have to get once they are
    /// durable. Returns the mark behind them.
    pub(crate) fn hand_over(&self, facts: impl Iterator<Item = Fact>, definitions: Vec<ShardDefinition>) -> Mark {
        let mut waiting = self.waiting.lock();
        waiting.definitions.extend(definitions);
        let before = waiting.facts.len();
        waiting.facts.extend(facts);
        waiting.handed_over += (waiting.facts.len() - before) as u64;
        Mark(waiting.handed_over)
    }

    /// Returns whether all facts before a mark are durable.
    pub(crate) fn has(&self, mark: Mark) -> bool {
        self.durable.load(Acquire) >= mark.0
    }

    /// Returns the mark behind all facts that were handed over so far.
    pub(crate) fn mark(&self) -> Mark {
        Mark(self.waiting.lock().handed_over)
    }

    /// Returns whether no fact waits to be logged.
    pub(crate) fn is_idle(&self) -> bool {
        self.has(self.mark())
    }

    /// Notes that storage is being closed: from now on a fact that is not logged is no failure.
    pub(crate) fn close(&self) {
        self.closing.store(true, Release);
    }

    /// Takes what waits. Also returns the mark behind it.
    fn take(&self) -> (WaitingFacts, Mark) {
        let mut waiting = self.waiting.lock();
        let handed_over = waiting.handed_over;
        let taken = std::mem::replace(&mut *waiting, WaitingFacts { handed_over, ..WaitingFacts::default() });
        (taken, Mark(handed_over))
    }
}

impl Broker {
    /// Calls `then` once all facts before a mark are durable, whether or not the caller still waits, and returns the
    /// result.
    ///
    /// # Errors
    /// The node is stopping, or the log failed, which ends the process.
    pub(crate) async fn once_logged<T: Send + 'static>(
        &self,
        mark: Mark,
        then: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        if self.node().facts.has(mark) {
            return Ok(then());
        }
        let broker = self.clone();
        self.to_its_end(async move { broker.log_facts(mark).await.map(|()| then()) }).await
    }

    /// Runs `work` to its end in a task of its own, even if the caller is cancelled. A panic in it ends the process,
    /// because the state of the node is unknown then.
    ///
    /// # Errors
    /// The error of `work`, or that the node is stopping.
    pub(crate) async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Result<T, Refusal> {
        let guard = EndsProcess(self.clone());
        let task = tokio::spawn(async move {
            let done = work.await;
            drop(guard);
            done
        });
        match task.await {
            Ok(done) => done,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(stopping()),
        }
    }

    async fn log_facts(&self, mark: Mark) -> Result<(), Refusal> {
        let (Some(storage), log) = (self.node().storage.get(), &self.node().facts) else { return Ok(()) };
        let _one_at_a_time = self.lock_definitions().await;
        if log.has(mark) {
            return Ok(());
        }
        let (WaitingFacts { facts, definitions, .. }, upto) = log.take();
        for entry in definitions::entries(storage.shards.incarnation, &facts) {
            if let Err(error) = storage.groups.write(0, entry.into()).await {
                if !log.closing.load(Acquire) {
                    (storage.on_failure)(format!("what was declared was not logged: {error}"));
                }
                return Err(stopping());
            }
        }
        if facts.is_empty() {
            // A task before this one took the facts, and the log failed.
            return Err(stopping());
        }
        for definition in &definitions {
            storage.shards.shard(definition.queue()).define(definition);
        }
        log.durable.store(upto.0, Release);
        Ok(())
    }
}

pub(crate) fn stopping() -> Refusal {
    Refusal::new(RefusalKind::Stopping, "the node is stopping: what was asked may not be durable".to_owned())
}

/// A guard that ends the process when a panic drops it.
struct EndsProcess(Broker);

impl Drop for EndsProcess {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(storage) = self.0.node().storage.get()
        {
            (storage.on_failure)("a change of what is declared panicked".to_owned());
        }
    }
}
