//! What watches the deliveries, settlements and confirmations that clients see: the checker of a simulation.
use leveret_node::QueueId;

/// The number of a message, which is unique in a simulation and grows from message to message.
pub(crate) type Number = u64;

/// Watches what clients see and do, and compares it with what they were promised.
pub(crate) trait Watcher: Send + 'static {
    /// Records a delivery, and returns the number of its message.
    fn delivered(&mut self, id: QueueId, delivery: &SeenDelivery<'_>) -> Number;
    /// Records that a delivery was settled, or given back.
    fn settled(&mut self, id: QueueId, number: Number, given_back: bool);
    /// Records the confirmation of a publish.
    fn confirmed(&mut self, token: u64);
    /// Records a broken promise.
    fn failed(&mut self, text: String);
}

/// A delivery as a client sees it.
pub(crate) struct SeenDelivery<'d> {
    pub(crate) body: &'d [u8],
    pub(crate) redelivered: bool,
    /// True if the delivery settles the message.
    pub(crate) no_ack: bool,
    /// The epoch of the queue in which the delivery is made.
    pub(crate) epoch: u64,
}
