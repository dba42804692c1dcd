//! Who is subscribed to a queue, and how much each may have unacknowledged.
use super::{Queue, Sink};
use std::sync::Arc;

/// Names a consumer within its queue; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConsumerId(pub u64);

/// What a consumer asks for.
pub struct Subscription {
    /// Where its deliveries go.
    pub sink: Arc<dyn Sink>,
    /// No other consumer may have the queue meanwhile.
    pub exclusive: bool,
    /// Deliveries are settled at once.
    pub no_ack: bool,
    /// Deliveries it may have unacknowledged; 0: no limit.
    pub prefetch: u32,
}

/// One consumer of a queue.
pub struct Consumer {
    /// Its name.
    pub id: ConsumerId,
    /// What it asked for.
    pub subscription: Subscription,
    /// Deliveries not settled.
    pub unacked: u32,
    /// Its sink said that it is full and has not asked again.
    pub(super) full: bool,
}

/// The queue is in exclusive use, or cannot be given to one consumer alone since it has others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExclusiveUse;

#[derive(Default)]
pub(super) struct Consumers {
    list: Vec<Consumer>,
    next_id: u64,
    /// Whose turn it is.
    turn: usize,
}

impl Consumers {
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Index of the consumer whose turn it is, which passes to the next.
    pub(super) fn take_turn(&mut self) -> usize {
        let at = self.turn % self.list.len();
        self.turn = at + 1;
        at
    }

    pub(super) fn at(&mut self, index: usize) -> &mut Consumer {
        &mut self.list[index]
    }

    pub(super) fn find(&mut self, id: ConsumerId) -> Option<&mut Consumer> {
        self.list.iter_mut().find(|consumer| consumer.id == id)
    }

    fn in_exclusive_use(&self) -> bool {
        self.list.iter().any(|consumer| consumer.subscription.exclusive)
    }
}

impl Consumer {
    /// Deliveries that it may still take.
    pub(super) fn credit(&self) -> u64 {
        let Subscription { no_ack, prefetch, .. } = self.subscription;
        if no_ack || prefetch == 0 { u64::MAX } else { u64::from(prefetch.saturating_sub(self.unacked)) }
    }
}

impl Queue {
    /// Adds a consumer, which the next dispatch serves. Its sink hears `started` first.
    ///
    /// # Errors
    /// [`ExclusiveUse`] when it or another consumer wants the queue alone.
    pub fn subscribe(&mut self, subscription: Subscription) -> Result<ConsumerId, ExclusiveUse> {
        let consumers = &mut self.lead.consumers;
        if consumers.in_exclusive_use() || subscription.exclusive && consumers.len() > 0 {
            return Err(ExclusiveUse);
        }
        let id = ConsumerId(consumers.next_id);
        consumers.next_id += 1;
        subscription.sink.started(id);
        consumers.list.push(Consumer { id, subscription, unacked: 0, full: false });
        Ok(id)
    }

    /// Removes a consumer; what it has unacknowledged stays so. False if there is none of that name.
    pub fn unsubscribe(&mut self, id: ConsumerId) -> bool {
        let list = &mut self.lead.consumers.list;
        let before = list.len();
        list.retain(|consumer| consumer.id != id);
        list.len() < before
    }

    /// Removes all consumers, for a queue that is deleted; the caller tells their sinks.
    pub fn unsubscribe_all(&mut self) -> Vec<Consumer> {
        std::mem::take(&mut self.lead.consumers.list)
    }

    /// The consumers, in the order they came.
    #[must_use]
    pub fn consumers(&self) -> &[Consumer] {
        &self.lead.consumers.list
    }
}
