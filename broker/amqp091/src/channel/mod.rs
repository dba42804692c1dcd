//! One channel: what a client has open on it. In the order of a message's journey: `dispatch` (which method),
//! `publish` with `noted` and `routes`, `confirm`, `consume` and `deliver`, `settle`; `declare` for exchanges, queues and bindings.
#[cfg(test)]
mod cancelled_tests;
pub(crate) mod confirm;
pub(crate) mod consume;
pub(crate) mod declare;
pub(crate) mod deliver;
pub(crate) mod dispatch;
pub(crate) mod noted;
pub(crate) mod publish;
pub(crate) mod routes;
pub(crate) mod settle;

use leveret_node::{ChannelView, ConsumerId, Opened, Queue, QueueId};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
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
    /// Its memory, for as long as it is open.
    _opened: Opened,
}

/// A consumer of this channel.
pub(crate) struct Consumer {
    pub(crate) queue: Arc<Queue>,
    pub(crate) id: ConsumerId,
    pub(crate) subscriber: u32,
    /// Its memory, for as long as it is there.
    pub(crate) _opened: Opened,
}

/// Consumers that ended because their queue did; filled by whoever deleted it.
#[derive(Default)]
pub(crate) struct Cancelled(Mutex<Vec<Ended>>);

/// A consumer that ended. Its tag may belong to another one by now.
pub(crate) struct Ended {
    pub(crate) tag: Box<str>,
    pub(crate) queue: QueueId,
    pub(crate) id: ConsumerId,
}

impl Cancelled {
    pub(crate) fn push(&self, ended: Ended) {
        self.0.lock().push(ended);
    }

    fn take(&self) -> Vec<Ended> {
        std::mem::take(&mut self.0.lock())
    }
}

impl Channel {
    pub(crate) fn new(number: u16, view: Arc<ChannelView>, opened: Opened) -> Self {
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
            _opened: opened,
        }
    }

    /// Forgets consumers whose queue is gone. Returns their accounts in the ledger.
    pub(crate) fn forget_cancelled(&mut self) -> Vec<u32> {
        let gone = self.cancelled.take();
        if gone.is_empty() {
            return Vec::new();
        }
        let mut accounts = Vec::new();
        for Ended { tag, queue, id } in gone {
            if let Entry::Occupied(found) = self.consumers.entry(tag)
                && (found.get().queue.id, found.get().id) == (queue, id)
            {
                accounts.push(found.remove().subscriber);
            }
        }
        self.view.consumers.store(self.consumers.len() as u32, Relaxed);
        accounts
    }
}
