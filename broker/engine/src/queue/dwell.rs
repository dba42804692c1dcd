//! A histogram, with bounded buckets, of how long messages stay in a queue before their delivery.

/// Upper bounds of the buckets in seconds; one more bucket takes the longer times.
pub const DWELL_BOUNDS_SECONDS: [f64; 14] =
    [0.000_1, 0.000_25, 0.001, 0.002_5, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0];

/// Deliveries by the time since the arrival of their message. First deliveries and redeliveries count alike.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dwell {
    counts: [u64; DWELL_BOUNDS_SECONDS.len() + 1],
    sum_seconds: f64,
}

impl Dwell {
    pub(super) fn observe(&mut self, nanoseconds: u64, messages: u64) {
        let seconds = nanoseconds as f64 * 1e-9;
        let bucket = DWELL_BOUNDS_SECONDS.iter().take_while(|&&bound| seconds > bound).count();
        self.counts[bucket] += messages;
        self.sum_seconds += seconds * messages as f64;
    }

    /// Returns the number of deliveries in each bucket (not cumulative); the last bucket has no upper bound.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Returns the seconds summed over all deliveries.
    #[must_use]
    pub fn sum_seconds(&self) -> f64 {
        self.sum_seconds
    }
}
