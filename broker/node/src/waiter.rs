//! Publishers that wait until their publishes are durable.
use std::sync::Arc;

/// Receives the news that publishes are durable.
pub trait Confirm: Send + Sync {
    /// Called when the publish that `token` stands for on `channel` is durable.
    fn confirmed(&self, channel: u16, token: u64);
}

/// A publisher that waits until its publish is durable.
#[derive(Clone)]
pub struct Waiter {
    /// The connection that is told.
    pub to: Arc<dyn Confirm>,
    /// The number of the channel that published.
    pub channel: u16,
    /// The connection's own number for the publish.
    pub token: u64,
}
