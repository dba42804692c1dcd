//! The clock of the node: the only place that reads the system's time.
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A steady clock for durations and a wall clock for people.
pub struct Clock {
    start: Instant,
    started_at_ms: u64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: Instant::now(), started_at_ms: now.as_millis() as u64 }
    }

    /// Returns the nanoseconds since the start of the node; the value never decreases.
    #[inline]
    pub fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// Returns the milliseconds since 1970: the wall clock's time at the start of the node, plus the time since.
    pub fn unix_ms(&self) -> u64 {
        self.started_at_ms + self.now() / 1_000_000
    }
}
