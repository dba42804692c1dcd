//! The remains of a deleted queue: its consumers, who are told of the deletion, and its contents, which take long to
//! drop.
use leveret_engine::queue::{self as engine, Consumer};

/// The conditions on which a queue is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeleteOnly {
    /// Only if the queue has no consumers.
    pub if_unused: bool,
    /// Only if the queue has no messages, neither ready nor unacknowledged.
    pub if_empty: bool,
}

/// A queue that was deleted. Dropping this tells the queue's consumers: after the answer to the client that deleted the
/// queue, and not before the deletion is durable.
pub struct DeletedQueue {
    /// The number of messages that were ready in the queue.
    pub ready: u64,
    pub(crate) consumers: Vec<Consumer>,
    /// The contents of a transient queue.
    pub(crate) contents: Option<engine::QueueCore>,
}

impl Drop for DeletedQueue {
    fn drop(&mut self) {
        for consumer in self.consumers.drain(..) {
            consumer.subscription.sink.cancelled();
        }
        // Large contents take long to drop, so they are dropped on a blocking thread.
        let large = self.contents.take().filter(|contents| contents.memory_bytes() > CONTENTS_LARGE);
        if let (Some(contents), Ok(runtime)) = (large, tokio::runtime::Handle::try_current()) {
            drop(runtime.spawn_blocking(move || drop(contents)));
        }
    }
}

/// Contents of more bytes than this take long to drop.
const CONTENTS_LARGE: u64 = 1 << 20;
