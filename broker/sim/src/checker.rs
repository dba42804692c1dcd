//! The record of what clients published, what they were promised and what they have seen; `invariants` draws conclusions.
use crate::names::{Bound, Brief, Name, SLOTS, delivery_limit, is_durable};
use crate::watcher::{SeenDelivery, Watcher};
use leveret_node::QueueId;
use std::collections::{BTreeMap, BTreeSet};

pub(crate) use crate::watcher::Number;

/// The record of one message in a queue. A message is settled by an acknowledgement, a rejection, a purge, or a delivery
/// that needs no acknowledgement.
#[derive(Clone, Default)]
pub(crate) struct Message {
    pub(crate) publisher: usize,
    /// The size of the body in bytes.
    pub(crate) size: usize,
    /// True if the message was published in this life.
    pub(crate) fresh: bool,
    pub(crate) confirmed: bool,
    /// True if a client settled the message in any life: it is not owed any more.
    pub(crate) settled: bool,
    /// True if a client settled the message in this life.
    pub(crate) settled_in_life: bool,
    /// True if the settlement is known to be durable: the message must never be delivered again.
    pub(crate) settled_durably: bool,
    /// True if both the presence and the absence of the message are correct.
    pub(crate) uncertain: bool,
    /// True if the message was ready when a purge began that has not ended yet.
    pub(crate) purging: bool,
    /// The number of times that the message was returned.
    pub(crate) returns: u32,
    /// True if the message was delivered in any life.
    pub(crate) delivered: bool,
    /// True if the message was delivered in this life.
    pub(crate) delivered_in_life: bool,
    /// True if the message is delivered and not settled yet.
    pub(crate) unacked: bool,
}

impl Message {
    /// Returns whether the message has to be in its queue.
    pub(crate) fn is_owed(&self) -> bool {
        self.confirmed && !self.settled && !self.uncertain
    }
}

/// The record of one queue.
#[derive(Clone, Default)]
pub(crate) struct Held {
    /// The slot of its name.
    pub(crate) slot: usize,
    pub(crate) messages: BTreeMap<Number, Message>,
    /// The messages that a client settled, in order.
    settlements: Vec<Number>,
    /// The number of settlements, counted from the first, that are known to be durable.
    durable_settlements: usize,
    /// The newest message of each publisher among the first deliveries of this life.
    pub(crate) newest: BTreeMap<usize, Number>,
    /// True if a deletion that is under way, or was cancelled, may delete the queue at any moment.
    pub(crate) doomed: bool,
    /// True if the queue is deleted.
    pub(crate) deleted: bool,
    /// The number of purges under way.
    purges: u32,
}

/// A publish that is not confirmed yet.
#[derive(Clone)]
struct Pending {
    numbers: Vec<Number>,
    bytes: usize,
    /// The queues that have to get the messages, each with its number of settlements at the time of the publish. These
    /// settlements are ahead of the publish in the log, so they are durable when it is confirmed.
    queues: Vec<(QueueId, usize)>,
    /// The number of confirmations still to come.
    left: u32,
}

/// The record of all queues, names, bindings and messages.
#[derive(Clone, Default)]
pub(crate) struct Checker {
    pub(crate) queues: BTreeMap<QueueId, Held>,
    pub(crate) names: [Name; SLOTS],
    pub(crate) bound: [Bound; SLOTS],
    pub(crate) brief: Brief,
    /// The exchanges and bindings that are declared in every life and never removed.
    pub(crate) declared: BTreeSet<&'static str>,
    /// The publishes that are not confirmed yet, by token.
    pending: BTreeMap<u64, Pending>,
    next_token: u64,
    /// The first broken promise.
    broken: Option<String>,
    pub(crate) attempted: u64,
    pub(crate) confirmed: u64,
    pub(crate) delivered: u64,
}

impl Checker {
    /// Records a broken promise; only the first one is kept.
    pub(crate) fn fail(&mut self, text: impl FnOnce() -> String) {
        self.broken.get_or_insert_with(text);
    }

    /// Returns the first broken promise as an error.
    pub(crate) fn verdict(&self) -> Result<(), String> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    /// Begins a life: no message is with a consumer, no confirmation will come any more, and transient queues are gone.
    pub(crate) fn begin_life(&mut self) {
        self.pending.clear();
        self.queues.retain(|_, held| is_durable(held.slot));
        for held in self.queues.values_mut() {
            held.begin_life();
        }
        for (at, (name, bound)) in self.names.iter_mut().zip(&mut self.bound).enumerate() {
            if is_durable(at) {
                name.cancelled |= !name.is_sure();
                bound.unsure |= !bound.is_sure();
                (name.busy, name.deletes, bound.busy) = (0, 0, 0);
            } else {
                (*name, *bound) = (Name::default(), Bound::default());
            }
        }
    }

    /// Records messages that are about to be published, and returns the token of their confirmation.
    ///
    /// `queues` says of each queue whether it has to get the messages, or only may. `confirms` is the number of
    /// confirmations that the broker will send.
    pub(crate) fn publish(
        &mut self,
        publisher: usize,
        queues: &[(QueueId, bool)],
        confirms: u32,
        sizes: &[(Number, usize)],
    ) -> u64 {
        self.next_token += 1;
        let mut owed = Vec::new();
        for &(id, must) in queues {
            let Some(held) = self.queues.get_mut(&id) else { continue };
            if must {
                owed.push((id, held.settlements.len()));
            }
            let uncertain = !must || held.purges > 0;
            for &(number, size) in sizes {
                let message = Message { publisher, size, uncertain, fresh: true, ..Message::default() };
                held.messages.insert(number, message);
            }
            self.attempted += sizes.len() as u64;
        }
        let numbers = sizes.iter().map(|(number, _)| *number).collect();
        let bytes = sizes.iter().map(|(_, size)| *size).sum();
        self.pending.insert(self.next_token, Pending { numbers, bytes, queues: owed, left: confirms });
        self.next_token
    }

    /// Records a confirmation. With the last one the messages are confirmed; a publish that needs none is confirmed by this
    /// call.
    pub(crate) fn confirm(&mut self, token: u64) {
        let Some(pending) = self.pending.get_mut(&token) else {
            return self.fail(|| format!("publish {token} got a confirmation that it does not expect"));
        };
        pending.left = pending.left.saturating_sub(1);
        if pending.left > 0 {
            return;
        }
        let Some(Pending { numbers, queues, .. }) = self.pending.remove(&token) else { return };
        for (id, settlements) in queues {
            let Some(held) = self.queues.get_mut(&id) else { continue };
            for number in &numbers {
                if let Some(message) = held.messages.get_mut(number) {
                    message.confirmed = true;
                    self.confirmed += 1;
                }
            }
            held.settled_durably(settlements);
        }
    }

    /// Returns the bytes of the publishes that are not confirmed yet.
    pub(crate) fn unconfirmed_bytes(&self) -> usize {
        self.pending.values().map(|pending| pending.bytes).sum()
    }

    /// Returns whether every publish is confirmed.
    pub(crate) fn all_confirmed(&self) -> bool {
        self.pending.is_empty()
    }

    /// Records that a delivery was settled or returned.
    pub(crate) fn settled(&mut self, id: QueueId, number: Number, given_back: bool) {
        let Some(held) = self.queues.get_mut(&id) else { return };
        if !given_back {
            return held.settle(number);
        }
        let (purged, limit) = (held.purges > 0, delivery_limit(held.slot));
        let Some(message) = held.messages.get_mut(&number) else { return };
        message.unacked = false;
        message.returns += 1;
        message.uncertain |= purged || limit.is_some_and(|limit| message.returns > limit);
    }

    /// Records the begin of a purge: messages of the queue that are ready or become so may vanish from now on.
    pub(crate) fn begin_purge(&mut self, at: usize) {
        for held in self.queues.values_mut().filter(|held| held.slot == at) {
            held.purges += 1;
            for message in held.messages.values_mut().filter(|message| !message.unacked && !message.settled) {
                // An unconfirmed message may still wait for room in the log, and enter the queue after the purge.
                message.purging |= message.confirmed && !message.uncertain;
                message.uncertain = true;
            }
        }
    }

    /// Records the end of a purge. If it was `done`, the messages that were ready all the time are settled; those with a
    /// consumer stay.
    pub(crate) fn end_purge(&mut self, at: usize, done: bool) {
        for held in self.queues.values_mut().filter(|held| held.slot == at) {
            held.purges = held.purges.saturating_sub(1);
            let purging = held.messages.iter_mut().filter(|(_, message)| message.purging);
            let purged: Vec<Number> = purging
                .map(|(number, message)| {
                    message.purging = false;
                    *number
                })
                .collect();
            if done {
                purged.into_iter().for_each(|number| held.settle(number));
            }
        }
    }

    /// Records that a queue exists.
    pub(crate) fn register(&mut self, id: QueueId, at: usize) {
        let doomed = self.names[at].deletes > 0 || self.names[at].cancelled;
        self.queues.entry(id).or_insert_with(|| Held { slot: at, doomed, ..Held::default() });
    }

    /// Records that a queue is durably deleted.
    pub(crate) fn deleted(&mut self, id: QueueId) {
        if let Some(held) = self.queues.get_mut(&id) {
            held.deleted = true;
            held.messages.clear();
        }
    }

    /// Returns the queues that are not deleted.
    pub(crate) fn living(&self) -> impl Iterator<Item = (&QueueId, &Held)> {
        self.queues.iter().filter(|(_, held)| !held.deleted)
    }
}

impl Watcher for Checker {
    fn delivered(&mut self, id: QueueId, delivery: &SeenDelivery<'_>) -> Number {
        self.delivery(id, delivery.body, delivery.redelivered, delivery.no_ack)
    }

    fn settled(&mut self, id: QueueId, number: Number, given_back: bool) {
        Self::settled(self, id, number, given_back);
    }

    fn confirmed(&mut self, token: u64) {
        self.confirm(token);
    }

    fn failed(&mut self, text: String) {
        self.fail(|| text);
    }
}

impl Held {
    fn begin_life(&mut self) {
        for number in self.settlements.split_off(self.durable_settlements) {
            if let Some(message) = self.messages.get_mut(&number) {
                message.settled_in_life = false; // the settlement may be lost
            }
        }
        for message in self.messages.values_mut() {
            message.fresh = false;
            message.delivered_in_life = false;
            message.unacked = false;
            message.purging = false;
        }
        self.newest.clear();
        self.purges = 0;
    }

    /// Records that a client settled a message.
    pub(crate) fn settle(&mut self, number: Number) {
        let Some(message) = self.messages.get_mut(&number) else { return };
        message.unacked = false;
        message.settled = true;
        if !std::mem::replace(&mut message.settled_in_life, true) && !message.settled_durably {
            self.settlements.push(number);
        }
    }

    /// Records that the first `settlements` settlements are durable.
    fn settled_durably(&mut self, settlements: usize) {
        for number in self.settlements.get(self.durable_settlements..settlements).unwrap_or_default() {
            if let Some(message) = self.messages.get_mut(number) {
                message.settled_durably = true;
            }
        }
        self.durable_settlements = self.durable_settlements.max(settlements);
    }

    /// Returns the number of messages that have to be in the queue.
    pub(crate) fn owed(&self) -> u64 {
        self.messages.values().filter(|message| message.is_owed()).count() as u64
    }

    /// Returns the number of messages that may be in the queue, including those that have to be in it.
    pub(crate) fn possible(&self) -> u64 {
        self.messages.values().filter(|message| !message.settled_durably).count() as u64
    }
}

/// Returns the body of a message: its number in eight bytes, then bytes that follow from the number.
pub(crate) fn body(number: Number, size: usize) -> Vec<u8> {
    let mut body = number.to_le_bytes().to_vec();
    body.extend((8..size).map(|at| byte(number, at)));
    body
}

/// Returns whether `body` is the body of the message.
pub(crate) fn is_body(body: &[u8], number: Number, size: usize) -> bool {
    body.len() == size && body.iter().enumerate().skip(8).all(|(at, &found)| found == byte(number, at))
}

fn byte(number: Number, at: usize) -> u8 {
    (number.wrapping_mul(31) as usize + at) as u8
}
