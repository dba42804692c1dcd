//! Who is subscribed to a queue, how much each may have unacknowledged, and whose turn it is.
//!
//! Those that can take wait in `turns`, in the order of their turns. A consumer that cannot take is not among them until
//! what holds it back is over, so that a dispatch meets it once and not with every message.
use super::{Queue, Sink};
use std::collections::{BTreeMap, VecDeque};
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
    standing: Standing,
}

/// Whether a consumer can take, or what holds it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It can take: it is in `turns`, or being served.
    InTurn,
    /// It has as many deliveries unacknowledged as it may; until one is settled.
    OutOfCredit,
    /// Its sink is full; until that has drained.
    Full,
    /// A limit of its channel is reached; until the channel has room for it.
    Blocked,
}

/// The queue is in exclusive use, or cannot be given to one consumer alone since it has others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExclusiveUse;

#[derive(Default)]
pub(super) struct Consumers {
    by_id: BTreeMap<ConsumerId, Consumer>,
    next_id: u64,
    /// Who is served next, and then; among them `gone` that have left.
    turns: VecDeque<ConsumerId>,
    gone: usize,
    /// Consumers whose sink is full.
    full: usize,
    /// The only consumer wants to stay so.
    in_exclusive_use: bool,
}

impl Consumers {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Consumers that can take, as far as is known.
    pub(super) fn takers(&self) -> usize {
        self.turns.len() - self.gone
    }

    #[cfg(test)]
    pub(super) fn turns(&self) -> usize {
        self.turns.len()
    }

    /// Whether there are consumers and the sinks of all of them are full.
    pub(super) fn all_full(&self) -> bool {
        self.full > 0 && self.full == self.by_id.len()
    }

    /// The consumer whose turn it is. It has to be [`served`](Self::served) before the next.
    pub(super) fn take_turn(&mut self) -> Option<&Consumer> {
        while let Some(id) = self.turns.pop_front() {
            if self.by_id.contains_key(&id) {
                return self.by_id.get(&id);
            }
            self.gone -= 1;
        }
        None
    }

    /// The consumer whose turn it was took `unacked` messages that it will settle. It has another turn after all others,
    /// or the next one if it `yields` none.
    pub(super) fn served(&mut self, id: ConsumerId, unacked: u64, standing: Standing, yields: bool) {
        let Some(consumer) = self.by_id.get_mut(&id) else { return };
        consumer.unacked += unacked as u32;
        consumer.standing = standing;
        match standing {
            Standing::InTurn if yields => self.turns.push_back(id),
            Standing::InTurn => self.turns.push_front(id),
            Standing::Full => self.full += 1,
            Standing::OutOfCredit | Standing::Blocked => {}
        }
    }

    /// What held a consumer back is over, if it was this.
    pub(super) fn free(&mut self, id: ConsumerId, from: Standing) {
        if let Some(consumer) = self.by_id.get_mut(&id).filter(|consumer| consumer.standing == from) {
            consumer.standing = Standing::InTurn;
            self.full -= usize::from(from == Standing::Full);
            self.turns.push_back(id);
        }
    }

    /// A consumer has settled `count` deliveries.
    pub(super) fn credit(&mut self, id: ConsumerId, count: u64) {
        let Some(consumer) = self.by_id.get_mut(&id) else { return };
        consumer.unacked = consumer.unacked.saturating_sub(count as u32);
        if consumer.standing == Standing::OutOfCredit && consumer.credit() > 0 {
            consumer.standing = Standing::InTurn;
            self.turns.push_back(id);
        }
    }

    fn remove(&mut self, id: ConsumerId) -> bool {
        let Some(consumer) = self.by_id.remove(&id) else { return false };
        match consumer.standing {
            Standing::InTurn => self.gone += 1,
            Standing::Full => self.full -= 1,
            Standing::OutOfCredit | Standing::Blocked => {}
        }
        self.in_exclusive_use &= !consumer.subscription.exclusive;
        if self.gone > self.takers() + GONE_KEPT {
            self.turns.retain(|id| self.by_id.contains_key(id));
            self.gone = 0;
        }
        true
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
        if consumers.in_exclusive_use || subscription.exclusive && consumers.len() > 0 {
            return Err(ExclusiveUse);
        }
        let id = ConsumerId(consumers.next_id);
        consumers.next_id += 1;
        consumers.in_exclusive_use = subscription.exclusive;
        subscription.sink.started(id);
        consumers.by_id.insert(id, Consumer { id, subscription, unacked: 0, standing: Standing::InTurn });
        consumers.turns.push_back(id);
        Ok(id)
    }

    /// Removes a consumer; what it has unacknowledged stays so. False if there is none of that name.
    pub fn unsubscribe(&mut self, id: ConsumerId) -> bool {
        self.lead.consumers.remove(id)
    }

    /// Removes all consumers, for a queue that is deleted; the caller tells their sinks.
    pub fn unsubscribe_all(&mut self) -> Vec<Consumer> {
        let consumers = &mut self.lead.consumers;
        let next_id = consumers.next_id;
        let gone = std::mem::replace(consumers, Consumers { next_id, ..Consumers::default() });
        gone.by_id.into_values().collect()
    }

    /// The consumers, in the order in which they came.
    pub fn consumers(&self) -> impl ExactSizeIterator<Item = &Consumer> {
        self.lead.consumers.by_id.values()
    }

    /// Those of them that came after `after`.
    pub fn consumers_after(&self, after: Option<ConsumerId>) -> impl Iterator<Item = &Consumer> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.lead.consumers.by_id.range((from, Unbounded)).map(|(_, consumer)| consumer)
    }
}

/// Names of consumers that have left stay in the list of turns until they are this many more than the others.
const GONE_KEPT: usize = 16;
