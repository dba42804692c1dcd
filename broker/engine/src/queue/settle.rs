//! Settling and returning deliveries at the request of their consumers.
use super::{ConsumerId, DeliveryId, QueueCore};

impl QueueCore {
    /// Settles `count` messages from `sequence` on, which were delivered to `consumer` (`None`: by a get). The caller's
    /// ledger ensures that each delivery is settled or returned only once.
    pub fn acknowledge(&mut self, consumer: Option<ConsumerId>, sequence: u64, count: u64) {
        self.credit(consumer, count);
        self.counters.acked += count;
        self.settle(sequence, count);
    }

    /// Settles deliveries that were rejected without requeue.
    pub fn reject(&mut self, consumer: Option<ConsumerId>, sequence: u64, count: u64) {
        self.credit(consumer, count);
        self.settle(sequence, count);
    }

    /// Returns a delivery: the message is ready again at its old place, and will be marked as redelivered. A message that was
    /// delivered in an earlier epoch has been ready since the present one began.
    pub fn give_back(&mut self, consumer: Option<ConsumerId>, id: DeliveryId) {
        self.credit(consumer, 1);
        if self.is_durable() {
            self.log_return(id);
        } else if self.lead.leading {
            self.state.give_back(id.message);
        }
    }

    /// Settles messages at once or, in a durable queue, once the settlement is logged, whoever leads the queue by then.
    fn settle(&mut self, sequence: u64, count: u64) {
        if self.is_durable() {
            self.lead.changes.settled.push((sequence, count));
        } else if self.lead.leading {
            self.state.settle(sequence, count);
        }
    }

    fn credit(&mut self, consumer: Option<ConsumerId>, count: u64) {
        if let Some(id) = consumer {
            self.lead.consumers.credit(id, count);
        }
    }
}
