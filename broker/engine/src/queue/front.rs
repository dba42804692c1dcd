//! Serving consumers of a queue whose leader is another node. The leader *grants* messages to this node, which has their
//! contents itself, and this node delivers them to its consumers. It tells the leader how many messages its consumers can
//! take ([`Want`]); the leader keeps a consumer in its own queue for each such node (see [`Sink::node`](super::Sink::node)).
//!
//! Grants are numbered. Both sides name absolute numbers, so that what is said twice changes nothing, and what was lost is
//! said again.
use super::run::DeliveryId;
use super::{MessageId, QueueCore};
use std::collections::{BTreeMap, BTreeSet};

/// A message that the leader grants to another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The identity of the message.
    pub id: MessageId,
    /// True if the message was delivered before.
    pub redelivered: bool,
}

/// What the leader has to know of a node with consumers of its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// The epoch of the leader that this is said to.
    pub epoch: u64,
    /// The number of grants that have arrived since the epoch began.
    pub received: u64,
    /// The number of grants that the leader may make in all since the epoch began.
    pub allowed: u64,
    /// The number of consumers; 0: the node has none any more.
    pub consumers: u32,
    /// True if the only consumer has asked for exclusive use.
    pub exclusive: bool,
}

/// The state of a queue that is served through its leader.
#[derive(Default)]
pub(super) struct Front {
    received: u64,
    /// What the leader was told.
    allowed: u64,
    consumers: u32,
    /// The granted messages, not delivered yet, that were delivered before.
    again: BTreeSet<u64>,
}

/// The messages that were granted to other nodes and are not settled: offset by sequence, for each node.
#[derive(Default)]
pub(super) struct GrantedAway(BTreeMap<u64, BTreeMap<u64, u32>>);

impl Front {
    /// Returns whether a granted message was delivered before. It is delivered now.
    pub(super) fn take_again(&mut self, sequence: u64) -> bool {
        !self.again.is_empty() && self.again.remove(&sequence)
    }
}

impl GrantedAway {
    pub(super) fn add(&mut self, node: u64, ids: Vec<MessageId>) {
        self.0.entry(node).or_default().extend(ids.into_iter().map(|id| (id.sequence, id.offset)));
    }

    /// Notes that messages are settled.
    pub(super) fn settled(&mut self, first: u64, count: u64) {
        for granted in self.0.values_mut() {
            granted.extract_if(first..first.saturating_add(count), |_, _| true).for_each(drop);
        }
    }

    /// Notes that a node has returned a message. Returns whether the message was granted to it.
    pub(super) fn returned(&mut self, node: u64, sequence: u64) -> bool {
        self.0.get_mut(&node).is_some_and(|granted| granted.remove(&sequence).is_some())
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl QueueCore {
    /// Begins to serve consumers through the node that leads the queue in `epoch`. What an earlier leader granted and was
    /// not delivered is forgotten: the new leader grants it again.
    pub fn front(&mut self, epoch: u64) {
        self.lead.leading = false;
        self.lead.history.epoch = epoch;
        self.lead.front = Some(Front::default());
        self.lead.granted_away.clear();
        self.lead.blocked_on = None;
        self.state.forget_returned();
    }

    /// Returns whether the queue is served through the node that leads it.
    #[must_use]
    pub fn is_front(&self) -> bool {
        self.lead.front.is_some()
    }

    /// Returns whether the queue is served through the node that leads it in this epoch.
    #[must_use]
    pub fn is_front_in(&self, epoch: u64) -> bool {
        self.lead.front.is_some() && self.lead.history.epoch == epoch
    }

    /// Returns the number of grants that have arrived since the epoch began.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.lead.front.as_ref().map_or(0, |front| front.received)
    }

    /// Notes that the leader may expect consumers here, or may have granted messages that were lost.
    pub fn is_expected(&mut self) {
        if let Some(front) = &mut self.lead.front {
            front.consumers = front.consumers.max(1);
        }
    }

    /// Returns whether the leader of this epoch was ever told of consumers.
    #[must_use]
    pub fn has_wanted(&self) -> bool {
        self.lead.front.as_ref().is_some_and(|front| front.allowed > 0 || front.consumers > 0)
    }

    /// Releases a message that the leader handed over for a client that has gone.
    pub fn release(&mut self, id: DeliveryId) {
        self.lead.changes.released.push(id);
    }

    /// Returns whether the leader has to be told what [`take_want`](Self::take_want) returns.
    #[must_use]
    pub fn has_want(&self) -> bool {
        let Some(front) = &self.lead.front else { return false };
        let consumers = self.lead.consumers.len() as u32;
        if consumers == 0 {
            return front.consumers > 0;
        }
        let open = front.allowed.saturating_sub(front.received);
        consumers != front.consumers || open <= WINDOW / 2 && self.wanted() > open
    }

    /// Returns what the leader has to be told now; `None` if the queue has no leader elsewhere, or if it has no consumers
    /// and the leader knows that.
    pub fn take_want(&mut self) -> Option<Want> {
        let (wanted, consumers, epoch) = (self.wanted(), self.lead.consumers.len() as u32, self.lead.history.epoch);
        let front = self.lead.front.as_mut()?;
        if consumers == 0 && front.consumers == 0 {
            return None;
        }
        front.consumers = consumers;
        front.allowed = front.allowed.max(front.received + wanted);
        let exclusive = self.lead.consumers.in_exclusive_use();
        Some(Want { epoch, received: front.received, allowed: front.allowed, consumers, exclusive })
    }

    /// Returns how many grants the consumers can take beside those that have arrived.
    fn wanted(&self) -> u64 {
        let able = self.lead.consumers.credit_of_takers(WINDOW);
        able.saturating_sub(self.state.returned() as u64)
    }

    /// Takes grants of the leader of `epoch`; the first of them has the number `from` among those of the epoch. Dispatch
    /// the queue afterwards. Returns false, and takes nothing, if some before them are missing: the leader has to send
    /// them again.
    pub fn take_grants(&mut self, epoch: u64, from: u64, grants: &[Grant]) -> bool {
        if self.lead.history.epoch != epoch {
            return true;
        }
        let Some(front) = &mut self.lead.front else { return true };
        let Some(known) = front.received.checked_sub(from) else { return false };
        for grant in grants.iter().skip(known as usize) {
            front.received += 1;
            if self.state.may_be_live(grant.id.sequence) {
                self.state.give_back(grant.id);
                if grant.redelivered {
                    front.again.insert(grant.id.sequence);
                }
            }
        }
        self.release_unused();
        true
    }

    /// Releases the messages that were granted if the queue has no consumers here any more.
    pub(super) fn release_unused(&mut self) {
        if self.lead.front.is_some() && self.lead.consumers.len() == 0 && self.state.has_returned() {
            let unused = self.state.take_all_returned();
            self.lead.changes.released.extend(in_epoch(unused, self.lead.history.epoch));
        }
    }

    /// Has one message returned that was granted to a node, if it still is: whoever asked for it has ended.
    pub fn return_granted_one(&mut self, node: u64, id: MessageId) {
        if self.lead.granted_away.returned(node, id.sequence) {
            self.lead.changes.returned.push(DeliveryId { message: id, epoch: self.lead.history.epoch });
        }
    }

    /// Has everything that was granted to a node returned, because the node has ended or cannot be reached.
    pub fn return_granted(&mut self, node: u64) {
        // Most of them reached no client: none is dropped because of the delivery limit.
        let granted = self.lead.granted_away.0.remove(&node).unwrap_or_default();
        self.lead.changes.returned.extend(in_epoch(granted, self.lead.history.epoch));
    }
}

/// Returns the deliveries in `epoch` of messages, which are offset by sequence.
fn in_epoch(messages: BTreeMap<u64, u32>, epoch: u64) -> impl Iterator<Item = DeliveryId> {
    messages.into_iter().map(move |(sequence, offset)| DeliveryId::new(sequence, offset, epoch))
}

/// The most grants that are on their way to a node or wait for its consumers.
const WINDOW: u64 = 2048;
