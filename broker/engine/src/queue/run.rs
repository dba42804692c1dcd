//! The index of a queue. A run consists of consecutive messages with one exchange and routing key, in one segment; the
//! cursor is the position that deliveries have reached.

/// The identity of a message within its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageId {
    /// The position in the queue's order of arrival, which no other message of the queue ever gets.
    pub sequence: u64,
    /// The offset of the message in its segment, which makes returning the message cheap.
    pub offset: u32,
}

/// The identity of a delivery of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryId {
    /// The message.
    pub message: MessageId,
    /// The epoch of the queue in which the message was delivered. In each later epoch the message is ready anew, and may be
    /// with another consumer.
    pub epoch: u64,
}

impl DeliveryId {
    /// Returns the identity of the delivery in `epoch` of the message with this sequence and offset.
    #[must_use]
    pub fn new(sequence: u64, offset: u32, epoch: u64) -> Self {
        Self { message: MessageId { sequence, offset }, epoch }
    }
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

/// The position of the next message that was never delivered.
#[derive(Clone, Copy, Default)]
pub(super) struct Cursor {
    /// The number of the message's run.
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
