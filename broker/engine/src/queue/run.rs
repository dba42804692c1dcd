//! The index of a queue. A run is consecutive messages with one exchange and routing key, in one segment; the cursor says
//! how far deliveries have come.

/// The identity of a message within its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageId {
    /// Position in the queue's order of arrival; never used again.
    pub sequence: u64,
    /// Offset in its segment, which makes it cheap to return the message.
    pub offset: u32,
}

/// Consecutive messages: `first..first + count`. A run is removed when none of them is live.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) first: u64,
    pub(super) count: u32,
    /// The number of messages that are not settled.
    pub(super) live: u32,
    pub(super) segment: u64,
    /// Offset of the exchange and routing key in the segment; the messages follow.
    pub(super) offset: u32,
    /// When the run arrived: nanoseconds of the caller's steady clock.
    pub(super) arrived: u64,
    /// Bytes of the bodies of all its messages.
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
    /// The number of its run.
    pub(super) run: u64,
    /// The index of the message in the run.
    pub(super) index: u32,
    /// The offset of the message in the run's segment, once the run was entered (`index` > 0).
    pub(super) offset: u32,
}

impl Cursor {
    pub(super) fn at(run: u64) -> Self {
        Self { run, index: 0, offset: 0 }
    }
}
