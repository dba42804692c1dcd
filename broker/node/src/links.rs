//! What connects a node with the others of its cluster.
use crate::Node;
use crate::ask::Asks;
use crate::forward::Forwarding;
use crate::fronts::Fronts;
use crate::queue_figures::FiguresAsks;
use leveret_replication::Peers;
use std::sync::Arc;

/// What connects a node with the others of its cluster.
pub(crate) struct Links {
    pub(crate) peers: Peers,
    /// Takes the batches of other nodes.
    pub(crate) forwarding: Forwarding,
    /// Serves consumers that are not where their queue is led.
    pub(crate) fronts: Arc<Fronts>,
    /// The requests about queues that go to other nodes, and come from them.
    pub(crate) asks: Asks,
    /// The requests for the figures of queues that other nodes serve.
    pub(crate) figures: FiguresAsks,
}

impl Node {
    /// Returns what connects the node with others; `None` before storage is open, and if there are no others.
    pub(crate) fn links(&self) -> Option<&Links> {
        self.storage.get()?.links.as_ref()
    }
}
