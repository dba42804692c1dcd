//! One channel: what a client has open on it. In the order of a message's journey: `dispatch` (which method),
//! `publish` with `routes`, `confirm`, `consume` and `deliver`, `settle`; `declare` for exchanges, queues and bindings.
pub(crate) mod confirm;
pub(crate) mod consume;
pub(crate) mod declare;
pub(crate) mod deliver;
pub(crate) mod dispatch;
pub(crate) mod publish;
pub(crate) mod routes;
pub(crate) mod settle;

use leveret_node::{ChannelView, ConsumerId, Queue};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// A channel that is open, or waits for the client to agree that it is closed.
pub(crate) struct Channel {
    pub(crate) number: u16,
    /// Closed by us: everything but close and close-ok is ignored.
    pub(crate) closing: bool,
    /// What the management API shows.
    pub(crate) view: Arc<ChannelView>,
    /// Publishes are counted and confirmed: the client asked for it.
    pub(crate) confirm: bool,
    /// Publishes accepted at once, not yet in the book of confirms.
    pub(crate) accepted: u64,
    /// Deliveries that each consumer to come may have unacknowledged; 0: no limit.
    pub(crate) prefetch: u32,
    /// The queue declared last, which an empty name means.
    pub(crate) last_queue: Option<String>,
    pub(crate) consumers: HashMap<Box<str>, Consumer>,
    /// Consumers whose queue is gone.
    pub(crate) cancelled: Arc<Cancelled>,
    /// A message that has not come in full.
    pub(crate) assembly: Option<publish::Assembly>,
}

/// A consumer of this channel.
pub(crate) struct Consumer {
    pub(crate) queue: Arc<Queue>,
    pub(crate) id: ConsumerId,
    pub(crate) subscriber: u32,
}

/// Tags of consumers that ended because their queue did; filled by whoever deleted it.
#[derive(Default)]
pub(crate) struct Cancelled(Mutex<Vec<Box<str>>>);

impl Cancelled {
    pub(crate) fn push(&self, tag: &str) {
        self.0.lock().push(tag.into());
    }

    fn take(&self) -> Vec<Box<str>> {
        std::mem::take(&mut self.0.lock())
    }
}

impl Channel {
    pub(crate) fn new(number: u16, view: Arc<ChannelView>) -> Self {
        Self {
            number,
            closing: false,
            view,
            confirm: false,
            accepted: 0,
            prefetch: 0,
            last_queue: None,
            consumers: HashMap::new(),
            cancelled: Arc::default(),
            assembly: None,
        }
    }

    /// Forgets consumers whose queue is gone. Returns their accounts in the ledger.
    pub(crate) fn forget_cancelled(&mut self) -> Vec<u32> {
        let gone = self.cancelled.take();
        if gone.is_empty() {
            return Vec::new();
        }
        let accounts = gone.iter().filter_map(|tag| Some(self.consumers.remove(tag)?.subscriber)).collect();
        self.view.consumers.store(self.consumers.len() as u32, Relaxed);
        accounts
    }
}
