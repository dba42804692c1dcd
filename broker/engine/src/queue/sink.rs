//! Where deliveries go: the protocol's side of a consumer.
use bytes::Bytes;

/// One message handed to a consumer, borrowed from the queue's memory.
pub struct Delivery<'a> {
    /// The exchange it was published to.
    pub exchange: &'a [u8],
    /// The routing key it was published with.
    pub routing_key: &'a [u8],
    /// Whether exchange or routing key may differ from those of the delivery before.
    pub route_changed: bool,
    /// Whether it was delivered before.
    pub redelivered: bool,
    /// Encoded properties: flags and list.
    pub properties: &'a [u8],
    /// The body.
    pub body: &'a [u8],
    /// The memory that the body is a part of, where that is shared and need not be copied.
    pub shared: Option<&'a Bytes>,
    /// Its identity, to settle it with.
    pub id: super::MessageId,
    /// Messages still ready behind it.
    pub ready_after: u64,
}

/// Hands out the ready messages of a queue, in order. What was taken counts as delivered.
pub trait Source {
    /// The next message, or none: the queue or the consumer's credit is exhausted.
    fn next(&mut self) -> Option<Delivery<'_>>;
}

/// Why a sink stopped taking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// The source had no more.
    Exhausted,
    /// The sink is full: it will have the queue told that it has [drained](super::Queue::drained).
    Full,
    /// The sink may take nothing now (a limit of its channel): it will have the queue told that it is
    /// [unblocked](super::Queue::unblocked).
    Blocked,
}

/// A consumer's output. Called under the queue's lock: it takes its own lock, never a queue's.
pub trait Sink: Send + Sync {
    /// Takes from `source` what it has room for.
    fn fill(&self, source: &mut dyn Source) -> Fill;

    /// The consumer is subscribed: nothing was delivered to it yet.
    fn started(&self, _id: super::ConsumerId) {}

    /// The queue is gone, and the subscription with it.
    fn cancelled(&self) {}

    /// Who it delivers to, for people; none if it is not a client's.
    fn owner(&self) -> Option<ConsumerOwner> {
        None
    }
}

/// The client behind a consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerOwner {
    /// Its connection.
    pub connection: crate::catalog::ConnectionId,
    /// The channel's number.
    pub channel: u16,
    /// The consumer's tag on the channel.
    pub tag: String,
}
