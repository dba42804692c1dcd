//! What consumers say of their deliveries: acknowledged, or given back.
use super::{ConsumerId, MessageId, Queue};

impl Queue {
    /// `count` messages from `sequence` on, delivered to `consumer` (none: by a get), are settled for good.
    /// Each delivery is settled or given back once: the caller's ledger sees to it.
    pub fn acknowledge(&mut self, consumer: Option<ConsumerId>, sequence: u64, count: u64) {
        self.credit(consumer, count);
        self.counters.acked += count;
        self.settle(sequence, count);
    }

    /// Deliveries that are not wanted, without a place to go: they are dropped.
    pub fn reject(&mut self, consumer: Option<ConsumerId>, sequence: u64, count: u64) {
        self.credit(consumer, count);
        self.settle(sequence, count);
    }

    /// A delivery is ready again at its old place, and will be marked as redelivered.
    pub fn give_back(&mut self, consumer: Option<ConsumerId>, id: MessageId) {
        self.credit(consumer, 1);
        if !self.lead.leading {
            return;
        }
        if self.is_durable() {
            self.log_return(id.sequence, id.offset);
        } else {
            self.state.give_back(id);
        }
    }

    /// At once, or once it is logged.
    fn settle(&mut self, sequence: u64, count: u64) {
        if !self.lead.leading {
            return;
        }
        if self.is_durable() {
            self.lead.changes.settled.push((sequence, count));
        } else {
            self.state.settle(sequence, count);
        }
    }

    fn credit(&mut self, consumer: Option<ConsumerId>, count: u64) {
        if let Some(id) = consumer {
            self.lead.consumers.credit(id, count);
        }
    }
}
