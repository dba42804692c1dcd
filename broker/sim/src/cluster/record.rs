//! The record of what clients of a cluster published, what they were promised and what they have seen. Each broken promise
//! is noted, and the first one is the outcome of the simulation.
//!
//! The promises: a confirmed message is delivered, unless a client settled it or deleted its queue. A delivery has the bytes
//! that were published to that queue. At most one delivery of a message is without the redelivered flag: the first one, unless
//! another node has begun to lead the queue just before. While no fault has an effect, a message is with one consumer at a
//! time, and one that was settled does not come back. If a queue has a single consumer at the end, what was never delivered
//! before comes in the order in which each client published it.
use super::calm::Calm;
use crate::checker::is_body;
use crate::names::delivery_limit;
use crate::watcher::{Number, SeenDelivery};
use leveret_node::QueueId;
use std::collections::BTreeMap;

/// The number of a session: one connection of a client to one node.
pub(crate) type SessionId = u64;

/// The record of all queues and messages of a cluster.
#[derive(Default)]
pub(crate) struct Record {
    /// The time in milliseconds.
    pub(crate) now: u64,
    pub(crate) calm: Calm,
    pub(crate) queues: BTreeMap<QueueId, QueueRecord>,
    pending: BTreeMap<u64, Pending>,
    next_token: u64,
    next_number: Number,
    /// True once one session drains all queues, and no other consumes.
    pub(crate) drains: bool,
    /// The newest message of each publisher that was delivered for the first time while queues were drained.
    newest: BTreeMap<(QueueId, SessionId), Number>,
    broken: Option<String>,
    pub(crate) attempted: u64,
    pub(crate) confirmed: u64,
    pub(crate) delivered: u64,
}

/// The record of one queue.
#[derive(Default)]
pub(crate) struct QueueRecord {
    /// The slot of its name.
    pub(crate) slot: usize,
    pub(crate) messages: BTreeMap<Number, MessageRecord>,
    /// True if a client wants to delete the queue: then it owes nothing.
    pub(crate) doomed: bool,
    /// The time until which the last purge of each session may happen.
    purges: BTreeMap<SessionId, u64>,
}

/// The record of one message in a queue.
#[derive(Debug, Default)]
pub(crate) struct MessageRecord {
    publisher: SessionId,
    size: usize,
    confirmed: bool,
    /// True if both the presence and the absence of the message are correct.
    uncertain: bool,
    /// The time at which a client settled it.
    settled: Option<u64>,
    /// The time of the last delivery.
    delivered: Option<u64>,
    /// True if a delivery had no redelivered flag.
    unmarked: bool,
    /// The session that has it unacknowledged.
    holder: Option<Holder>,
}

/// A session that has a message unacknowledged.
#[derive(Debug)]
struct Holder {
    session: SessionId,
    since: u64,
    /// The epoch of the queue in which the message was delivered to it.
    epoch: u64,
}

/// A publish that is not confirmed yet.
struct Pending {
    session: SessionId,
    queues: Vec<QueueId>,
    numbers: Vec<Number>,
    bytes: usize,
    /// The number of confirmations still to come.
    left: u32,
}

impl Record {
    /// Notes a broken promise; only the first one is kept.
    pub(crate) fn fail(&mut self, text: impl FnOnce() -> String) {
        if self.broken.is_none() {
            let now = self.now;
            self.broken = Some(format!("at {now} ms: {}", text()));
        }
    }

    /// Returns the first broken promise.
    pub(crate) fn broken(&self) -> Option<String> {
        self.broken.clone()
    }

    /// Returns a new number for a message.
    pub(crate) fn number(&mut self) -> Number {
        self.next_number += 1;
        self.next_number
    }

    /// Records that a queue exists.
    pub(crate) fn register(&mut self, id: QueueId, slot: usize) {
        self.queues.entry(id).or_insert_with(|| QueueRecord { slot, ..QueueRecord::default() });
    }

    /// Records that a client is about to delete the queue with a name.
    pub(crate) fn doom(&mut self, slot: usize) {
        self.queues.values_mut().filter(|queue| queue.slot == slot).for_each(|queue| queue.doomed = true);
    }

    /// Records that a session purges the queue with a name: until the purge is answered, its messages may vanish.
    pub(crate) fn begin_purge(&mut self, session: SessionId, slot: usize) {
        for queue in self.queues.values_mut().filter(|queue| queue.slot == slot) {
            queue.purges.insert(session, u64::MAX);
            queue.messages.values_mut().for_each(|message| message.uncertain = true);
        }
    }

    /// Records the end of the purge of a session. If it was not answered, it may still happen for a while.
    pub(crate) fn end_purge(&mut self, session: SessionId, is_answered: bool) {
        let until = if is_answered { self.now } else { self.now + PURGE_MAX };
        for purge in self.queues.values_mut().filter_map(|queue| queue.purges.get_mut(&session)) {
            *purge = until.min(*purge);
        }
    }

    /// Records messages that are about to be published, and returns the token of their confirmation, of which there will be
    /// `confirms`. Queues that only may get them are `maybe`.
    pub(crate) fn publish(&mut self, session: SessionId, publish: PublishRecord<'_>) -> u64 {
        let PublishRecord { queues, maybe, sizes, confirms } = publish;
        self.next_token += 1;
        for id in queues.iter().chain(maybe) {
            let Some(queue) = self.queues.get_mut(id) else { continue };
            let is_purged = queue.purges.values().any(|until| *until > self.now);
            for &(number, size) in sizes {
                let uncertain = is_purged || maybe.contains(id);
                let message = MessageRecord { publisher: session, size, uncertain, ..MessageRecord::default() };
                queue.messages.insert(number, message);
            }
        }
        self.attempted += (queues.len() * sizes.len()) as u64;
        let numbers = sizes.iter().map(|(number, _)| *number).collect();
        let bytes = sizes.iter().map(|(_, size)| *size).sum();
        let pending = Pending { session, queues: queues.to_vec(), numbers, bytes, left: confirms };
        self.pending.insert(self.next_token, pending);
        self.next_token
    }

    /// Records a confirmation.
    pub(crate) fn confirm(&mut self, session: SessionId, token: u64) {
        let Some(pending) = self.pending.get_mut(&token).filter(|pending| pending.session == session) else {
            return self.fail(|| format!("publish {token} got a confirmation that session {session} does not expect"));
        };
        pending.left = pending.left.saturating_sub(1);
        if pending.left > 0 {
            return;
        }
        let Some(Pending { queues, numbers, .. }) = self.pending.remove(&token) else { return };
        for id in queues {
            let Some(queue) = self.queues.get_mut(&id) else { continue };
            for number in &numbers {
                let Some(message) = queue.messages.get_mut(number) else { continue };
                message.confirmed = true;
                self.confirmed += 1;
            }
        }
    }

    /// Returns the bytes of the publishes of a session that are not confirmed yet.
    pub(crate) fn unconfirmed_bytes(&self, session: SessionId) -> usize {
        self.pending.values().filter(|pending| pending.session == session).map(|pending| pending.bytes).sum()
    }

    /// Returns the publishes that are not confirmed yet.
    pub(crate) fn unconfirmed(&self) -> Vec<u64> {
        self.pending.keys().copied().collect()
    }

    /// Records the end of a session: nothing it published will be confirmed any more, and it holds no message.
    pub(crate) fn end_session(&mut self, session: SessionId) {
        self.pending.retain(|_, pending| pending.session != session);
        self.end_purge(session, false);
        for message in self.queues.values_mut().flat_map(|queue| queue.messages.values_mut()) {
            message.holder.take_if(|holder| holder.session == session);
        }
    }

    /// Records that a session settled a delivery, or gave it back.
    pub(crate) fn settled(&mut self, session: SessionId, id: QueueId, number: Number, given_back: bool) {
        let now = self.now;
        let Some(message) = self.message(id, number) else { return };
        // Another session may have it by now, if another node leads the queue.
        message.holder.take_if(|holder| holder.session == session);
        if !given_back {
            message.settled.get_or_insert(now);
        }
    }

    fn message(&mut self, id: QueueId, number: Number) -> Option<&mut MessageRecord> {
        self.queues.get_mut(&id)?.messages.get_mut(&number)
    }

    /// Records and checks a delivery, and returns the number of its message.
    pub(crate) fn delivered(&mut self, session: SessionId, id: QueueId, delivery: &SeenDelivery<'_>) -> Number {
        self.delivered += 1;
        let SeenDelivery { body, redelivered, no_ack, epoch } = *delivery;
        let number = body.first_chunk().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes));
        let now = self.now;
        let slot = self.queues.get(&id).map_or(usize::MAX, |queue| queue.slot);
        let Self { queues, calm, .. } = self;
        let Some(message) = queues.get_mut(&id).and_then(|queue| queue.messages.get_mut(&number)) else {
            self.fail(|| format!("queue {slot} delivered message {number}, which was never published to it"));
            return number;
        };
        let problem = if !is_body(body, number, message.size) {
            Some("with other bytes than were published".to_owned())
        } else if !redelivered && (message.unmarked || message.delivered.is_some_and(|at| calm.was_calm(at, now))) {
            Some("again without the redelivered flag".to_owned())
        } else if let Some(at) =
            message.settled.filter(|at| calm.was_calm(*at, (at + SETTLED_AFTER).min(now)) && *at + SETTLED_AFTER < now)
        {
            Some(format!("which was settled at {at} ms, when no fault had an effect"))
        } else if let Some(Holder { session: holder, since, .. }) = message.holder.as_ref().filter(|holder| {
            calm.was_calm(holder.since, now) || holder.epoch == epoch && calm.was_undisturbed(holder.since, now)
        }) {
            Some(format!("which session {holder} has had since {since} ms, and no fault has had an effect since"))
        } else {
            None
        };
        let (publisher, is_first) = (message.publisher, message.delivered.is_none());
        message.uncertain |= delivery_limit(slot).is_some(); // it may be dropped after some returns
        message.unmarked |= !redelivered;
        message.delivered = Some(now);
        message.holder = (!no_ack).then_some(Holder { session, since: now, epoch });
        if no_ack {
            message.settled.get_or_insert(now);
        }
        if let Some(problem) = problem {
            self.fail(|| format!("queue {slot} delivered message {number} to session {session}, {problem}"));
        }
        if self.drains && is_first {
            let newest = self.newest.insert((id, publisher), number);
            if let Some(newest) = newest.filter(|newest| *newest > number) {
                self.fail(|| format!("queue {slot} delivered message {number} of session {publisher} after {newest}"));
            }
        }
        number
    }

    /// Returns a description of the messages that were not settled by a client.
    pub(crate) fn unsettled(&self) -> Vec<String> {
        let messages = self.queues.values().flat_map(|queue| queue.messages.iter().map(|found| (queue.slot, found)));
        let left = messages.filter(|(_, (_, message))| message.settled.is_none());
        left.map(|(slot, (number, message))| format!("q{slot}, {number}: {message:?}")).take(UNSETTLED_SHOWN).collect()
    }

    /// Returns a description of each queue that still owes messages.
    pub(crate) fn owing(&self) -> Vec<String> {
        let owed = |message: &MessageRecord| message.confirmed && !message.uncertain && message.settled.is_none();
        let queues = self.queues.values().filter(|queue| !queue.doomed);
        let of = |queue: &QueueRecord| {
            let mut owed = queue.messages.iter().filter(|(_, message)| owed(message)).map(|(number, _)| *number);
            let first = owed.next()?;
            Some(format!("queue {} owes {} confirmed messages; the first is {first}", queue.slot, owed.count() + 1))
        };
        queues.filter_map(of).collect()
    }
}

/// Messages that are about to be published.
pub(crate) struct PublishRecord<'p> {
    /// The queues that have to get them.
    pub(crate) queues: &'p [QueueId],
    /// The queues that may get them.
    pub(crate) maybe: &'p [QueueId],
    /// Their numbers, with their sizes in bytes.
    pub(crate) sizes: &'p [(Number, usize)],
    pub(crate) confirms: u32,
}

/// If no fault has an effect for this long after a settlement, in milliseconds, it is durable.
const SETTLED_AFTER: u64 = 2_000;
/// The longest time after which a purge that was not answered may still happen, in milliseconds.
const PURGE_MAX: u64 = 20_000;
/// The number of unsettled messages that are described.
const UNSETTLED_SHOWN: usize = 100;
