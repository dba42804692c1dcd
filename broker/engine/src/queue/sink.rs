//! The protocol's side of a consumer: the interface through which a queue hands out its messages.
use bytes::Bytes;

/// One message handed to a consumer, borrowed from the queue's memory.
pub struct Delivery<'a> {
    /// The exchange that the message was published to.
    pub exchange: &'a [u8],
    /// The routing key that the message was published with.
    pub routing_key: &'a [u8],
    /// True if exchange or routing key may differ from those of the delivery before.
    pub route_changed: bool,
    /// True if the message was delivered before.
    pub redelivered: bool,
    /// The encoded properties: flags and list.
    pub properties: &'a [u8],
    /// The body.
    pub body: &'a [u8],
    /// The memory that the body is a part of, if that memory is shared, so that the body need not be copied.
    pub shared: Option<&'a Bytes>,
    /// The identity of the delivery, to settle it with.
    pub id: super::DeliveryId,
    /// The number of messages that are still ready after this one.
    pub ready_after: u64,
}

/// Hands out the ready messages of a queue, in order. A message that was taken counts as delivered.
pub trait Source {
    /// Returns the next message, or `None` if the queue or the consumer's credit is exhausted.
    fn next(&mut self) -> Option<Delivery<'_>>;
}

/// The reason why a sink stopped taking messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// The source had no more messages.
    Exhausted,
    /// The sink is full. It will cause [`drained`](super::QueueCore::drained) to be called on the queue.
    Full,
    /// The sink may take nothing now, because of a limit of its channel. It will cause
    /// [`unblocked`](super::QueueCore::unblocked) to be called on the queue.
    Blocked,
}

/// A consumer's output. It is called under the queue's lock, so an implementation takes only its own lock, never a
/// queue's.
pub trait Sink: Send + Sync {
    /// Takes as many messages from `source` as the sink has room for. Returns why it stopped.
    fn fill(&self, source: &mut dyn Source) -> Fill;

    /// Tells the sink that its consumer is subscribed, before anything is delivered to it.
    fn started(&self, _id: super::ConsumerId) {}

    /// Tells the sink that the queue was deleted, and the subscription with it.
    fn cancelled(&self) {}

    /// Returns the other node whose consumers the sink stands for; `None` for a consumer of this node. Such a sink takes
    /// what it is granted for, and the messages count as granted to that node until they are settled or returned.
    fn node(&self) -> Option<u64> {
        None
    }

    /// Returns the client that the sink delivers to, for display; `None` if it is not a client's.
    fn owner(&self) -> Option<ConsumerOwner> {
        None
    }
}

/// The client behind a consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerOwner {
    /// The connection of the client.
    pub connection: crate::catalog::ConnectionId,
    /// The number of the channel.
    pub channel: u16,
    /// The consumer's tag on the channel.
    pub tag: String,
}
