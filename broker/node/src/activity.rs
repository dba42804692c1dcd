//! Notes whether anything happens at all: tasks that check something regularly do so only while something happens, so that
//! an idle broker does nothing.
//!
//! Code that does something for a client calls [`Activity::mark`], which costs a look at a flag. One task (`upkeep`) notes
//! when the last mark was made; the others ask. Ten seconds after the last mark all of them fall asleep until the next one.
use std::sync::atomic::{AtomicBool, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The flag that marks activity, and the tasks that sleep until it is set.
pub(crate) struct Activity {
    marked: AtomicBool,
    asleep: AtomicBool,
    woken: Notify,
}

impl Default for Activity {
    /// The start of a node counts as activity.
    fn default() -> Self {
        Self { marked: AtomicBool::new(true), asleep: AtomicBool::new(false), woken: Notify::new() }
    }
}

impl Activity {
    /// Notes that something happens, and wakes the tasks that sleep.
    #[inline]
    pub(crate) fn mark(&self) {
        if !self.marked.load(Relaxed) {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        self.marked.store(true, SeqCst);
        if self.asleep.swap(false, SeqCst) {
            self.woken.notify_waiters();
        }
    }

    /// Waits for `every`, and after that until something happens if the node is idle. For tasks that check something
    /// regularly.
    pub(crate) async fn next_look(&self, every: Duration) {
        tokio::time::sleep(every).await;
        loop {
            let woken = self.woken.notified();
            if !self.asleep.load(SeqCst) {
                return;
            }
            woken.await;
        }
    }

    /// Does the same as [`next_look`](Self::next_look), and puts all tasks to sleep once nothing has happened for ten
    /// seconds. For one task only, which keeps `quiet_since` for this function, `None` at first.
    pub(crate) async fn watch(&self, every: Duration, quiet_since: &mut Option<Instant>) {
        if self.marked.swap(false, SeqCst) {
            *quiet_since = None;
        }
        let since = *quiet_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= QUIET {
            self.asleep.store(true, SeqCst);
            if self.marked.load(SeqCst) {
                self.asleep.store(false, SeqCst); // marked in between, by a task that may not have seen `asleep`
            }
        }
        self.next_look(every).await;
    }
}

/// The time without a mark after which no task checks anything any more.
const QUIET: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    #[tokio::test(start_paused = true)]
    async fn regular_checks_stop_while_nothing_happens() {
        let (activity, looks) = (Arc::new(Activity::default()), Arc::new(AtomicU64::new(0)));
        let watching = activity.clone();
        tokio::spawn(async move {
            let mut quiet_since = None;
            loop {
                watching.watch(Duration::from_millis(100), &mut quiet_since).await;
            }
        });
        let (looking, count) = (activity.clone(), looks.clone());
        tokio::spawn(async move {
            loop {
                looking.next_look(Duration::from_millis(20)).await;
                count.fetch_add(1, Relaxed);
            }
        });
        tokio::time::sleep(QUIET * 3).await;
        let before = looks.load(Relaxed);
        assert!((400..600).contains(&before), "{before} looks until it fell asleep");
        tokio::time::sleep(QUIET * 100).await;
        assert_eq!(looks.load(Relaxed), before, "it looked around while nothing happened");
        activity.mark();
        tokio::time::sleep(QUIET / 2).await;
        assert!(looks.load(Relaxed) > before + 50, "it was not woken");
        for _ in 0..100 {
            activity.mark();
            tokio::time::sleep(QUIET / 2).await;
        }
        let after = looks.load(Relaxed);
        tokio::time::sleep(QUIET / 2).await;
        assert!(looks.load(Relaxed) > after, "it fell asleep while something happened");
    }
}
