//! What was declared and has to be logged: facts in the order in which the catalog changed, written by whoever waits for them.
//!
//! A change of the catalog hands its facts over while it still holds the catalog, so the log has them in the order in which
//! they became true. Whoever has the lock of the definitions writes all that gathered, for others too: many declarations
//! share a sync. It does so in a task of its own, which runs to its end: an asker that is cancelled, times out or
//! disconnects leaves nothing half done.
use crate::Broker;
use crate::definitions;
use leveret_engine::catalog::Fact;
use leveret_model::refusal::{Refusal, RefusalKind};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Release};

/// Facts that wait to be logged.
#[derive(Default)]
pub(crate) struct FactLog {
    waiting: Mutex<Waiting>,
    /// Facts that are durable, counted from the start of the node.
    durable: AtomicU64,
    /// The storage is being closed: that a fact is not logged any more is no failure.
    closing: AtomicBool,
}

#[derive(Default)]
struct Waiting {
    facts: Vec<Fact>,
    /// Facts handed over so far, those that were logged among them.
    handed_over: u64,
}

/// A place in the sequence of facts: all before it have to be durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark(u64);

impl Mark {
    /// Nothing has to be waited for.
    pub(crate) const NOTHING: Self = Self(0);
}

impl FactLog {
    /// Takes facts; the catalog that they are about is held. Returns what to wait for.
    pub(crate) fn hand_over(&self, facts: impl Iterator<Item = Fact>) -> Mark {
        let mut waiting = self.waiting.lock();
        let before = waiting.facts.len();
        waiting.facts.extend(facts);
        waiting.handed_over += (waiting.facts.len() - before) as u64;
        Mark(waiting.handed_over)
    }

    /// Whether all facts before a mark are durable.
    pub(crate) fn has(&self, mark: Mark) -> bool {
        self.durable.load(Acquire) >= mark.0
    }

    /// Behind all facts that were handed over so far.
    pub(crate) fn mark(&self) -> Mark {
        Mark(self.waiting.lock().handed_over)
    }

    /// Whether nothing waits to be logged.
    pub(crate) fn is_idle(&self) -> bool {
        self.has(self.mark())
    }

    /// From now on a fact that is not logged is no failure.
    pub(crate) fn close(&self) {
        self.closing.store(true, Release);
    }

    fn take(&self) -> (Vec<Fact>, Mark) {
        let mut waiting = self.waiting.lock();
        (std::mem::take(&mut waiting.facts), Mark(waiting.handed_over))
    }
}

impl Broker {
    /// Does something once all facts before a mark are durable, whether or not the asker still waits for it.
    ///
    /// # Errors
    /// The node is stopping. If the log failed the process ends.
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

    /// Runs something to its end in a task of its own, whoever cancels the asker. A panic in it ends the process: the state of
    /// the node is not known any more.
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
        let (facts, upto) = log.take();
        for entry in definitions::entries(storage.shards.incarnation, &facts) {
            if let Err(error) = storage.groups.write(0, entry.into()).await {
                if !log.closing.load(Acquire) {
                    (storage.on_failure)(format!("what was declared was not logged: {error}"));
                }
                return Err(stopping());
            }
        }
        if facts.is_empty() {
            // Somebody before took them, and the log failed.
            return Err(stopping());
        }
        log.durable.store(upto.0, Release);
        Ok(())
    }
}

fn stopping() -> Refusal {
    Refusal::new(RefusalKind::Stopping, "the node is stopping: what was asked may not be durable".to_owned())
}

/// Ends the process when it is dropped by a panic.
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
