//! One channel, and the handlers of its methods.
//!
//! In the order of a message's journey: `channels` (finds the channel), `dispatch` (finds the handler of the method),
//! `publish` with `batch`, `routes`, `content` and `assembly`, `confirm` and `book`, `consume` and `deliver`, `settle`;
//! `declare` for exchanges, queues and bindings.
mod assembly;
pub(crate) mod batch;
pub(crate) mod book;
#[cfg(test)]
mod cancelled_tests;
pub(crate) mod channels;
pub(crate) mod confirm;
pub(crate) mod consume;
mod content;
pub(crate) mod declare;
pub(crate) mod deliver;
pub(crate) mod dispatch;
pub(crate) mod publish;
pub(crate) mod routes;
pub(crate) mod settle;

use crate::codec::reply::ReplyCode;
use crate::connection::failure::Failure;
use crate::connection::output::Output;
use assembly::Assembly;
use leveret_node::{ChannelView, ConsumerId, OpenedMemory, Queue, QueueId};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// A channel that is open, or waits for the client to agree that it is closed.
pub(crate) struct Channel {
    /// The number of the channel, which answers are sent to.
    pub(crate) number: u16,
    /// True if the broker closed the channel: all methods but close and close-ok are ignored.
    pub(crate) closing: bool,
    /// The figures that the management API shows.
    pub(crate) view: Arc<ChannelView>,
    /// The number of publishes that needed no log and are not in the book of confirms yet; `None` unless the client asked
    /// for confirms.
    pub(crate) unlogged: Option<u64>,
    /// The number of deliveries that each further consumer may have unacknowledged; 0: no limit.
    pub(crate) prefetch: u32,
    /// The queue that was declared last, which an empty queue name stands for.
    pub(crate) last_queue: Option<String>,
    /// The consumers by their tags.
    pub(crate) consumers: HashMap<Box<str>, ChannelConsumer>,
    /// The consumers whose queue was deleted; the task that deletes a queue enters them here.
    pub(crate) cancelled: Arc<EndedConsumers>,
    /// A message that has not arrived in full.
    pub(crate) assembly: Option<Assembly>,
    /// Counts the channel's memory for as long as the channel exists.
    _opened: OpenedMemory,
}

/// A consumer of this channel.
pub(crate) struct ChannelConsumer {
    /// The queue that the consumer is subscribed to.
    pub(crate) queue: Arc<Queue>,
    /// The identity of the consumer in the queue.
    pub(crate) id: ConsumerId,
    /// The consumer's account in the channel's ledger.
    pub(crate) subscriber: u32,
    /// Counts the consumer's memory for as long as the consumer exists.
    pub(crate) _opened: OpenedMemory,
}

/// Consumers that ended because their queue was deleted, as entered by the task that deleted it.
#[derive(Default)]
pub(crate) struct EndedConsumers(Mutex<Vec<EndedConsumer>>);

/// A consumer that ended. Its tag may belong to another consumer by now; queue and identity show which one is meant.
pub(crate) struct EndedConsumer {
    pub(crate) tag: Box<str>,
    /// The queue that was deleted.
    pub(crate) queue: QueueId,
    /// The consumer's identity in that queue.
    pub(crate) id: ConsumerId,
}

impl EndedConsumers {
    pub(crate) fn push(&self, ended: EndedConsumer) {
        self.0.lock().push(ended);
    }

    fn take(&self) -> Vec<EndedConsumer> {
        std::mem::take(&mut self.0.lock())
    }
}

impl Channel {
    pub(crate) fn new(number: u16, view: Arc<ChannelView>, opened: OpenedMemory) -> Self {
        Self {
            number,
            closing: false,
            view,
            unlogged: None,
            prefetch: 0,
            last_queue: None,
            consumers: HashMap::new(),
            cancelled: Arc::default(),
            assembly: None,
            _opened: opened,
        }
    }

    /// Returns the name of a queue as a method gives it: an empty name stands for the queue declared last on this
    /// channel.
    ///
    /// # Errors
    /// 404 if the name is empty and no queue was declared.
    pub(crate) fn queue_name(&self, name: &str) -> Result<String, Failure> {
        if !name.is_empty() {
            return Ok(name.to_owned());
        }
        self.last_queue.clone().ok_or_else(|| Failure::new(ReplyCode::NotFound, "no previously declared queue"))
    }

    /// Removes the consumers whose queue was deleted, and closes their accounts in the channel's ledger.
    pub(crate) fn forget_cancelled(&mut self, output: &Output) {
        let accounts = self.take_cancelled();
        if accounts.is_empty() {
            return;
        }
        if let Some(ledger) = output.lock().ledger(self.number) {
            for account in accounts {
                ledger.end(account);
            }
        }
    }

    /// Removes the consumers whose queue was deleted. Returns their accounts in the ledger.
    fn take_cancelled(&mut self) -> Vec<u32> {
        let gone = self.cancelled.take();
        if gone.is_empty() {
            return Vec::new();
        }
        let mut accounts = Vec::new();
        for EndedConsumer { tag, queue, id } in gone {
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
