//! The index of a queue: a run is consecutive messages with one exchange and routing key, in one segment. And how far deliveries
//! have come in it.

/// Names a message within its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageId {
    /// Position in the queue's order of arrival; never used again.
    pub sequence: u64,
    /// Where it lies in its segment: what makes giving it back cheap.
    pub offset: u32,
}

/// Consecutive messages: `first..first + count`. A run goes when none of them is live.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) first: u64,
    pub(super) count: u32,
    /// Messages not settled.
    pub(super) live: u32,
    pub(super) segment: u64,
    /// Of the run's route; its messages follow.
    pub(super) offset: u32,
    /// When it arrived: nanoseconds of the caller's steady clock.
    pub(super) arrived: u64,
    /// Of all its bodies.
    pub(super) body_bytes: u64,
}

impl Run {
    pub(super) fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }
}

/// How far deliveries have come: the next message that was never delivered.
#[derive(Clone, Copy, Default)]
pub(super) struct Cursor {
    /// Number of its run.
    pub(super) run: u64,
    /// Its index in the run.
    pub(super) index: u32,
    /// Its offset in the run's segment, once the run was entered (`index` > 0).
    pub(super) offset: u32,
}

impl Cursor {
    pub(super) fn at(run: u64) -> Self {
        Self { run, index: 0, offset: 0 }
    }
}
