//! Settling deliveries: from a channel's ledger to the queues, one visit to a queue for many messages.
use crate::Broker;
use crate::ledger::Subscriber;
use crate::queue::Queue;
use leveret_engine::queue::{ConsumerId, MessageId};
use std::sync::Arc;

/// What becomes of deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Consumed.
    Acknowledged,
    /// Not wanted: dropped.
    Rejected,
    /// Ready again.
    Returned,
}

/// Deliveries taken from a ledger, gathered by queue.
#[derive(Default)]
pub struct Settlement {
    parts: Vec<Part>,
}

struct Part {
    queue: Arc<Queue>,
    consumer: Option<ConsumerId>,
    /// Consecutive messages.
    first: u64,
    count: u64,
    /// Where each lies, in order.
    offsets: Vec<u32>,
    keep_offsets: bool,
}

impl Part {
    /// What it costs to settle it: a range is settled at once, messages are given back one by one.
    fn work(&self) -> usize {
        self.offsets.len().max(1)
    }
}

impl Settlement {
    /// Adds a delivery with `outcome`, which must be the same for all of one settlement.
    pub fn add(&mut self, from: &Subscriber, id: MessageId, outcome: Outcome) {
        if let Some(last) = self.parts.last_mut()
            && last.first + last.count == id.sequence
            && last.offsets.len() < VISIT_MAX
            && last.consumer == from.consumer
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
        self.parts.push(Part { queue, consumer, first: id.sequence, count: 1, offsets, keep_offsets });
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
}

impl Broker {
    /// Settles what was gathered, and hands out what that made possible. The settlement is empty afterwards.
    pub fn settle(&self, settlement: &mut Settlement, outcome: Outcome) {
        self.mark_activity();
        let now = self.clock().now();
        // Queues whose deliveries came in turns are visited once; what belongs to one queue stays in its order.
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

fn settle_part(queue: &mut leveret_engine::queue::Queue, part: &Part, outcome: Outcome) {
    match outcome {
        Outcome::Acknowledged => queue.acknowledge(part.consumer, part.first, part.count),
        Outcome::Rejected => queue.reject(part.consumer, part.first, part.count),
        Outcome::Returned => {
            for (sequence, &offset) in (part.first..).zip(&part.offsets) {
                queue.give_back(part.consumer, MessageId { sequence, offset });
            }
        }
    }
}

/// Ranges settled and messages given back in one visit to a queue, about: others want its lock as well, and what was done in
/// one visit is logged together.
const VISIT_MAX: usize = 8192;
