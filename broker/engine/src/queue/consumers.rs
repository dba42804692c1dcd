//! The consumers of a queue: how many deliveries each may have unacknowledged, and whose turn it is.
//!
//! Consumers that can take messages wait in `turns`, in the order of their turns. A consumer that cannot take any is not
//! in `turns` until the reason for that has passed, so that a dispatch visits it once and not again with every message.
use super::{QueueCore, Sink};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The identity of a consumer within its queue, which no other consumer of the queue ever gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConsumerId(pub u64);

/// The properties of a consumer, as its client asked for them.
pub struct Subscription {
    /// The sink that receives the deliveries.
    pub sink: Arc<dyn Sink>,
    /// True if no other consumer may be subscribed to the queue at the same time.
    pub exclusive: bool,
    /// True if deliveries need no acknowledgement and are settled at once.
    pub no_ack: bool,
    /// The number of deliveries that the consumer may have unacknowledged; 0: no limit.
    pub prefetch: u32,
}

/// One consumer of a queue.
pub struct Consumer {
    /// The identity of the consumer.
    pub id: ConsumerId,
    /// The properties that its client asked for.
    pub subscription: Subscription,
    /// The number of unacknowledged deliveries.
    pub unacked: u32,
    standing: ConsumerState,
}

/// The state of a consumer: able to take messages, or the reason why it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConsumerState {
    /// The consumer can take messages: it is in `turns`, or is being served.
    InTurn,
    /// The consumer has as many unacknowledged deliveries as it may have, until one of them is settled.
    OutOfCredit,
    /// The consumer's sink is full, until it has drained.
    Full,
    /// A limit of the consumer's channel is reached, until the channel has room.
    Blocked,
}

/// The error for a subscription to a queue that is in exclusive use, or for an exclusive one to a queue that has
/// consumers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExclusiveUse;

#[derive(Default)]
pub(super) struct Consumers {
    by_id: BTreeMap<ConsumerId, Consumer>,
    next_id: u64,
    /// The consumers in the order in which they are served. Among them are `gone` identities of consumers that have left.
    turns: VecDeque<ConsumerId>,
    gone: usize,
    /// The number of consumers whose sink is full.
    full: usize,
    /// True if the only consumer has asked for exclusive use.
    in_exclusive_use: bool,
}

impl Consumers {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Returns the number of consumers that can take messages, as far as is known.
    pub(super) fn takers(&self) -> usize {
        self.turns.len() - self.gone
    }

    pub(super) fn in_exclusive_use(&self) -> bool {
        self.in_exclusive_use
    }

    /// Returns how many messages the consumers can take that are able to take some, as far as is known; at most `most`.
    pub(super) fn credit_of_takers(&self, most: u64) -> u64 {
        let mut credit = 0;
        for consumer in self.turns.iter().filter_map(|id| self.by_id.get(id)) {
            credit = most.min(consumer.credit().saturating_add(credit));
            if credit == most {
                break;
            }
        }
        credit
    }

    #[cfg(test)]
    pub(super) fn turns(&self) -> usize {
        self.turns.len()
    }

    /// Returns whether there are consumers and the sinks of all of them are full.
    pub(super) fn all_full(&self) -> bool {
        self.full > 0 && self.full == self.by_id.len()
    }

    /// Returns the consumer whose turn it is. [`served`](Self::served) has to be called before the next turn is taken.
    pub(super) fn take_turn(&mut self) -> Option<&Consumer> {
        while let Some(id) = self.turns.pop_front() {
            if self.by_id.contains_key(&id) {
                return self.by_id.get(&id);
            }
            self.gone -= 1;
        }
        None
    }

    /// Notes that the consumer whose turn it was took `unacked` messages that need an acknowledgement. If it `yields`,
    /// its next turn comes after those of all other consumers, otherwise at once.
    pub(super) fn served(&mut self, id: ConsumerId, unacked: u64, standing: ConsumerState, yields: bool) {
        let Some(consumer) = self.by_id.get_mut(&id) else { return };
        consumer.unacked += unacked as u32;
        consumer.standing = standing;
        match standing {
            ConsumerState::InTurn if yields => self.turns.push_back(id),
            ConsumerState::InTurn => self.turns.push_front(id),
            ConsumerState::Full => self.full += 1,
            ConsumerState::OutOfCredit | ConsumerState::Blocked => {}
        }
    }

    /// Makes a consumer able to take messages again, if `from` is what held it back.
    pub(super) fn free(&mut self, id: ConsumerId, from: ConsumerState) {
        if let Some(consumer) = self.by_id.get_mut(&id).filter(|consumer| consumer.standing == from) {
            consumer.standing = ConsumerState::InTurn;
            self.full -= usize::from(from == ConsumerState::Full);
            self.turns.push_back(id);
        }
    }

    /// Notes that a consumer has settled `count` deliveries.
    pub(super) fn credit(&mut self, id: ConsumerId, count: u64) {
        let Some(consumer) = self.by_id.get_mut(&id) else { return };
        consumer.unacked = consumer.unacked.saturating_sub(count as u32);
        if consumer.standing == ConsumerState::OutOfCredit && consumer.credit() > 0 {
            consumer.standing = ConsumerState::InTurn;
            self.turns.push_back(id);
        }
    }

    fn remove(&mut self, id: ConsumerId) -> bool {
        let Some(consumer) = self.by_id.remove(&id) else { return false };
        match consumer.standing {
            ConsumerState::InTurn => self.gone += 1,
            ConsumerState::Full => self.full -= 1,
            ConsumerState::OutOfCredit | ConsumerState::Blocked => {}
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
    /// Returns the number of deliveries that the consumer may still take.
    pub(super) fn credit(&self) -> u64 {
        let Subscription { no_ack, prefetch, .. } = self.subscription;
        if no_ack || prefetch == 0 { u64::MAX } else { u64::from(prefetch.saturating_sub(self.unacked)) }
    }
}

impl QueueCore {
    /// Adds a consumer, which the next dispatch serves. Calls `started` of its sink first.
    ///
    /// # Errors
    /// [`ExclusiveUse`] if another consumer has the queue exclusively, or if this one wants that and there are others.
    pub fn subscribe(&mut self, subscription: Subscription) -> Result<ConsumerId, ExclusiveUse> {
        let consumers = &mut self.lead.consumers;
        if consumers.in_exclusive_use || subscription.exclusive && consumers.len() > 0 {
            return Err(ExclusiveUse);
        }
        let id = ConsumerId(consumers.next_id);
        consumers.next_id += 1;
        consumers.in_exclusive_use = subscription.exclusive;
        subscription.sink.started(id);
        consumers.by_id.insert(id, Consumer { id, subscription, unacked: 0, standing: ConsumerState::InTurn });
        consumers.turns.push_back(id);
        Ok(id)
    }

    /// Removes a consumer; its unacknowledged deliveries stay unacknowledged. Returns false if there is no such consumer.
    pub fn unsubscribe(&mut self, id: ConsumerId) -> bool {
        let was_there = self.lead.consumers.remove(id);
        self.release_unused();
        was_there
    }

    /// Removes all consumers of a queue that is deleted and returns them; the caller tells their sinks.
    pub fn unsubscribe_all(&mut self) -> Vec<Consumer> {
        let consumers = &mut self.lead.consumers;
        let next_id = consumers.next_id;
        let gone = std::mem::replace(consumers, Consumers { next_id, ..Consumers::default() });
        gone.by_id.into_values().collect()
    }

    /// Returns the consumers in the order in which they subscribed.
    pub fn consumers(&self) -> impl ExactSizeIterator<Item = &Consumer> {
        self.lead.consumers.by_id.values()
    }

    /// Returns the consumers that subscribed after the consumer `after`; all of them for `None`.
    pub fn consumers_after(&self, after: Option<ConsumerId>) -> impl Iterator<Item = &Consumer> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.lead.consumers.by_id.range((from, Unbounded)).map(|(_, consumer)| consumer)
    }
}

/// The list of turns is cleaned when it has this many more identities of consumers that have left than of others.
const GONE_KEPT: usize = 16;
