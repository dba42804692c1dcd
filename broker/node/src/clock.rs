//! The only place that asks for the time.
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

    /// Nanoseconds since the start; never goes back.
    #[inline]
    pub fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// Milliseconds since 1970, as the wall clock stood at the start, plus the time since.
    pub fn unix_ms(&self) -> u64 {
        self.started_at_ms + self.now() / 1_000_000
    }
}
