//! Settles deliveries: gathers them from a channel's ledger, and visits each queue once for many messages.
use crate::Broker;
use crate::ledger::Subscriber;
use crate::queue::Queue;
use leveret_engine::queue::{ConsumerId, DeliveryId, MessageId};
use std::sync::Arc;

/// The outcome of deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The consumer acknowledged the messages: they are gone.
    Acknowledged,
    /// The consumer rejected the messages without requeue: they are dropped.
    Rejected,
    /// The messages go back to their queue and are ready again.
    Returned,
}

/// Deliveries taken from a ledger, gathered by queue.
#[derive(Default)]
pub struct Settlement {
    parts: Vec<SettlementPart>,
}

struct SettlementPart {
    queue: Arc<Queue>,
    consumer: Option<ConsumerId>,
    /// The sequence number of the first of `count` consecutive messages.
    first: u64,
    count: u64,
    /// The epoch in which they were delivered.
    epoch: u64,
    /// The offset of each message, in order; empty unless `keep_offsets`.
    offsets: Vec<u32>,
    keep_offsets: bool,
}

impl SettlementPart {
    /// Returns the work that it takes to settle this part: a range is settled at once, messages are returned one by one.
    fn work(&self) -> usize {
        self.offsets.len().max(1)
    }
}

impl Settlement {
    /// Adds a delivery that came from `from`. The `outcome` must be the same for all deliveries of a settlement.
    pub fn add(&mut self, from: &Subscriber, id: DeliveryId, outcome: Outcome) {
        let DeliveryId { message: id, epoch } = id;
        if let Some(last) = self.parts.last_mut()
            && last.first + last.count == id.sequence
            && last.offsets.len() < VISIT_MAX
            && last.consumer == from.consumer
            && last.epoch == epoch
            && Arc::ptr_eq(&last.queue, &from.queue)
        {
            last.count += 1;
            if last.keep_offsets {
                last.offsets.push(id.offset);
            }
            return;
        }
        let keep_offsets = outcome == Outcome::Returned;
        let offsets = if keep_offsets { vec![id.offset] } else { Vec::new() };
        let (queue, consumer) = (from.queue.clone(), from.consumer);
        self.parts.push(SettlementPart { queue, consumer, first: id.sequence, count: 1, epoch, offsets, keep_offsets });
    }

    /// Returns whether no delivery was added.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
}

impl Broker {
    /// Settles the deliveries that were gathered, and delivers the messages that can be delivered because of that. The
    /// settlement is empty afterwards.
    pub fn settle(&self, settlement: &mut Settlement, outcome: Outcome) {
        self.mark_activity();
        let now = self.clock().now();
        // Queues whose deliveries alternated are visited once; the sort keeps the order of the parts of each queue.
        settlement.parts.sort_by_key(|part| part.queue.id);
        let mut parts = settlement.parts.drain(..).peekable();
        while let Some(part) = parts.next() {
            let queue = part.queue.clone();
            let mut entered = queue.enter();
            let mut work = part.work();
            settle_part(&mut entered, &part, outcome);
            while work < VISIT_MAX
                && let Some(next) = parts.next_if(|next| Arc::ptr_eq(&next.queue, &queue))
            {
                work += next.work();
                settle_part(&mut entered, &next, outcome);
            }
            entered.dispatch(now);
            drop(entered);
        }
    }
}

fn settle_part(queue: &mut leveret_engine::queue::QueueCore, part: &SettlementPart, outcome: Outcome) {
    match outcome {
        Outcome::Acknowledged => queue.acknowledge(part.consumer, part.first, part.count),
        Outcome::Rejected => queue.reject(part.consumer, part.first, part.count),
        Outcome::Returned => {
            for (sequence, &offset) in (part.first..).zip(&part.offsets) {
                let message = MessageId { sequence, offset };
                queue.give_back(part.consumer, DeliveryId { message, epoch: part.epoch });
            }
        }
    }
}

/// About how many ranges are settled or messages returned in one visit to a queue: others want its lock as well, and the
/// changes of one visit are logged together.
const VISIT_MAX: usize = 8192;
