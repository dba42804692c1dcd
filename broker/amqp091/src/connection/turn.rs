//! Turns: the amount of work that a connection does before others have their turn.
//!
//! A socket that always has bytes keeps its reader ready for ever, and the runtime does not interrupt a task that never
//! waits. Therefore a reader counts its work (bytes, and an estimate of the work for frames) and lets others go first
//! when its turn is over. The more readers wait for their turn, the shorter a turn is: acknowledgements, new clients and
//! health checks stay prompt.
use leveret_node::Clock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The readers of one listener that have more to do and wait for their turn.
#[derive(Default)]
pub(crate) struct Turns {
    waiting: AtomicUsize,
}

impl Turns {
    /// Returns the number of bytes that a reader may take from its socket in one turn.
    pub(crate) fn bytes_max(&self) -> usize {
        let waiting = self.waiting.load(Relaxed).max(1);
        (ALL_BYTES / waiting).clamp(TURN_BYTES_MIN, TURN_BYTES_MAX)
    }

    /// Lets all other tasks that are ready go first.
    pub(crate) async fn pass(&self) {
        let waiting = WaitingReader::new(&self.waiting);
        tokio::task::yield_now().await;
        drop(waiting);
    }
}

/// Counts a reader for as long as it waits, also if its task is dropped meanwhile.
struct WaitingReader<'t>(&'t AtomicUsize);

impl<'t> WaitingReader<'t> {
    fn new(waiting: &'t AtomicUsize) -> Self {
        waiting.fetch_add(1, Relaxed);
        Self(waiting)
    }
}

impl Drop for WaitingReader<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// The turn of one reader.
#[derive(Default)]
pub(crate) struct Turn {
    /// An estimate of the work since the clock was last looked at.
    work: u64,
    /// When the turn began, in nanoseconds of the node's clock.
    began: u64,
}

impl Turn {
    /// Returns a turn that begins now.
    pub(crate) fn new(clock: &Clock) -> Self {
        Self { work: 0, began: clock.now() }
    }

    /// Counts work. One unit stands for about 100 nanoseconds.
    #[inline]
    pub(crate) fn add(&mut self, work: u64) {
        self.work += work;
    }

    /// Returns whether enough work was done that looking at the clock is worth its cost.
    #[inline]
    pub(crate) fn is_worth_a_look(&self) -> bool {
        self.work >= WORK_PER_LOOK
    }

    /// Returns whether the turn is over by the clock. Starts to count work anew.
    pub(crate) fn is_over(&mut self, clock: &Clock) -> bool {
        self.work = 0;
        clock.now().saturating_sub(self.began) >= TURN_NANOSECONDS
    }
}

/// The bytes of all turns together, from one turn of a waiting reader to its next.
const ALL_BYTES: usize = 8 << 20;
/// The bytes of one turn while few readers wait: a few reads, about a millisecond and a half.
const TURN_BYTES_MAX: usize = 2 << 20;
/// The bytes of one turn while many readers wait.
const TURN_BYTES_MIN: usize = 16 << 10;
/// A turn whose frames cost more than their bytes ends after a millisecond.
const TURN_NANOSECONDS: u64 = 1_000_000;
const WORK_PER_LOOK: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_readers_wait_the_shorter_is_a_turn() {
        let turns = Turns::default();
        assert_eq!(turns.bytes_max(), TURN_BYTES_MAX);
        let waiting: Vec<_> = (0..64).map(|_| WaitingReader::new(&turns.waiting)).collect();
        assert_eq!(turns.bytes_max(), 128 << 10);
        let more: Vec<_> = (0..10_000).map(|_| WaitingReader::new(&turns.waiting)).collect();
        assert_eq!(turns.bytes_max(), TURN_BYTES_MIN);
        drop((waiting, more));
        assert_eq!(turns.bytes_max(), TURN_BYTES_MAX);
    }
}
