//! What was promised to clients, and what they have seen since. What follows from it is in `invariants`.
use crate::brief::Brief;
use crate::names::{Bound, Name, SLOTS, delivery_limit, is_durable};
use leveret_node::QueueId;
use std::collections::{BTreeMap, BTreeSet};

/// A message, named by its number; numbers of one publisher grow.
pub(crate) type Number = u64;

/// What is known of one message of a queue.
#[derive(Clone, Default)]
pub(crate) struct Message {
    pub(crate) publisher: usize,
    /// Of the body.
    pub(crate) size: usize,
    /// Published in this life.
    pub(crate) fresh: bool,
    pub(crate) confirmed: bool,
    /// A client did away with it: it is not owed any more.
    pub(crate) ended: bool,
    /// In this life.
    pub(crate) ended_now: bool,
    /// Durably so: it is never seen again.
    pub(crate) gone: bool,
    /// It may be there or not, and nobody is told which.
    pub(crate) excused: bool,
    /// A purge began when it was ready, and has not ended.
    pub(crate) purging: bool,
    /// How often it was given back.
    pub(crate) returns: u32,
    /// Delivered in some life, and in this one.
    pub(crate) ever: bool,
    pub(crate) seen: bool,
    /// Delivered and not settled.
    pub(crate) out: bool,
}

impl Message {
    /// Whether it has to be in its queue.
    pub(crate) fn is_owed(&self) -> bool {
        self.confirmed && !self.ended && !self.excused
    }
}

/// What is known of one queue.
#[derive(Clone, Default)]
pub(crate) struct Held {
    /// Which name it has.
    pub(crate) slot: usize,
    pub(crate) messages: BTreeMap<Number, Message>,
    /// Messages that a client did away with, in order, and how many of these are known to be durably so.
    ended: Vec<Number>,
    gone: usize,
    /// The newest message of each publisher among the first deliveries of this life.
    pub(crate) newest: BTreeMap<usize, Number>,
    /// It may be deleted at any moment.
    pub(crate) doomed: bool,
    /// It is deleted.
    pub(crate) deleted: bool,
    /// Purges under way.
    purges: u32,
}

/// A publish whose confirmation is awaited.
#[derive(Clone)]
struct Pending {
    numbers: Vec<Number>,
    bytes: usize,
    /// Queues that have to get it, and how many messages each had ended before.
    queues: Vec<(QueueId, usize)>,
    /// Confirmations still to come.
    left: u32,
}

/// The promises of all queues.
#[derive(Clone, Default)]
pub(crate) struct Checker {
    pub(crate) queues: BTreeMap<QueueId, Held>,
    pub(crate) names: [Name; SLOTS],
    pub(crate) bound: [Bound; SLOTS],
    pub(crate) brief: Brief,
    /// Exchanges and bindings that were declared for ever.
    pub(crate) declared: BTreeSet<&'static str>,
    pending: BTreeMap<u64, Pending>,
    next_token: u64,
    /// What was broken, first of all.
    broken: Option<String>,
    pub(crate) attempted: u64,
    pub(crate) confirmed: u64,
    pub(crate) delivered: u64,
}

impl Checker {
    pub(crate) fn fail(&mut self, text: impl FnOnce() -> String) {
        self.broken.get_or_insert_with(text);
    }

    /// What was broken, if anything.
    pub(crate) fn verdict(&self) -> Result<(), String> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    /// The node starts again: nothing is out, no confirmation comes any more, what is not durable is gone.
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

    /// Messages are about to be published: the token of their confirmation. `queues` says of each whether it has to get them.
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
                owed.push((id, held.ended.len()));
            }
            let excused = !must || held.purges > 0;
            for &(number, size) in sizes {
                let message = Message { publisher, size, excused, fresh: true, ..Message::default() };
                held.messages.insert(number, message);
            }
            self.attempted += sizes.len() as u64;
        }
        let numbers = sizes.iter().map(|(number, _)| *number).collect();
        let bytes = sizes.iter().map(|(_, size)| *size).sum();
        self.pending.insert(self.next_token, Pending { numbers, bytes, queues: owed, left: confirms });
        self.next_token
    }

    /// A confirmation has come, or the last one if none was to come.
    pub(crate) fn confirm(&mut self, token: u64) {
        let Some(pending) = self.pending.get_mut(&token) else {
            return self.fail(|| format!("a confirmation for publish {token}, which awaits none"));
        };
        pending.left = pending.left.saturating_sub(1);
        if pending.left > 0 {
            return;
        }
        let Some(Pending { numbers, queues, .. }) = self.pending.remove(&token) else { return };
        for (id, ended) in queues {
            let Some(held) = self.queues.get_mut(&id) else { continue };
            for number in &numbers {
                if let Some(message) = held.messages.get_mut(number) {
                    message.confirmed = true;
                    self.confirmed += 1;
                }
            }
            held.gone_upto(ended);
        }
    }

    /// Bytes of the publishes that were not confirmed yet.
    pub(crate) fn unconfirmed_bytes(&self) -> usize {
        self.pending.values().map(|pending| pending.bytes).sum()
    }

    /// Whether every publish was confirmed.
    pub(crate) fn all_confirmed(&self) -> bool {
        self.pending.is_empty()
    }

    /// A delivery was settled for good, or given back.
    pub(crate) fn settled(&mut self, id: QueueId, number: Number, given_back: bool) {
        let Some(held) = self.queues.get_mut(&id) else { return };
        if !given_back {
            return held.end(number);
        }
        let (purged, limit) = (held.purges > 0, delivery_limit(held.slot));
        let Some(message) = held.messages.get_mut(&number) else { return };
        message.out = false;
        message.returns += 1;
        message.excused |= purged || limit.is_some_and(|limit| message.returns > limit);
    }

    /// What is ready in the queue of that name, or becomes so, may go from now on.
    pub(crate) fn purging(&mut self, at: usize) {
        for held in self.queues.values_mut().filter(|held| held.slot == at) {
            held.purges += 1;
            for message in held.messages.values_mut().filter(|message| !message.out && !message.ended) {
                // What is not confirmed may wait for room in the log, and come after the purge.
                message.purging |= message.confirmed && !message.excused;
                message.excused = true;
            }
        }
    }

    /// What was ready all the while has gone, if `done`. What was out stays.
    pub(crate) fn purged(&mut self, at: usize, done: bool) {
        for held in self.queues.values_mut().filter(|held| held.slot == at) {
            held.purges = held.purges.saturating_sub(1);
            let purging = held.messages.iter_mut().filter(|(_, message)| message.purging);
            let gone: Vec<Number> = purging
                .map(|(number, message)| {
                    message.purging = false;
                    *number
                })
                .collect();
            if done {
                gone.into_iter().for_each(|number| held.end(number));
            }
        }
    }

    /// There is such a queue.
    pub(crate) fn register(&mut self, id: QueueId, at: usize) {
        let doomed = self.names[at].deletes > 0 || self.names[at].cancelled;
        self.queues.entry(id).or_insert_with(|| Held { slot: at, doomed, ..Held::default() });
    }

    /// A queue is durably deleted.
    pub(crate) fn deleted(&mut self, id: QueueId) {
        if let Some(held) = self.queues.get_mut(&id) {
            held.deleted = true;
            held.messages.clear();
        }
    }

    /// The queues that are there, with their identities.
    pub(crate) fn living(&self) -> impl Iterator<Item = (&QueueId, &Held)> {
        self.queues.iter().filter(|(_, held)| !held.deleted)
    }
}

impl Held {
    fn begin_life(&mut self) {
        for number in self.ended.split_off(self.gone) {
            if let Some(message) = self.messages.get_mut(&number) {
                message.ended_now = false; // it may have been lost that it ended
            }
        }
        for message in self.messages.values_mut() {
            message.fresh = false;
            message.seen = false;
            message.out = false;
            message.purging = false;
        }
        self.newest.clear();
        self.purges = 0;
    }

    /// A client did away with a message.
    pub(crate) fn end(&mut self, number: Number) {
        let Some(message) = self.messages.get_mut(&number) else { return };
        message.out = false;
        message.ended = true;
        if !std::mem::replace(&mut message.ended_now, true) && !message.gone {
            self.ended.push(number);
        }
    }

    fn gone_upto(&mut self, ended: usize) {
        for number in self.ended.get(self.gone..ended).unwrap_or_default() {
            if let Some(message) = self.messages.get_mut(number) {
                message.gone = true;
            }
        }
        self.gone = self.gone.max(ended);
    }

    /// Messages that have to be in the queue.
    pub(crate) fn owed(&self) -> u64 {
        self.messages.values().filter(|message| message.is_owed()).count() as u64
    }

    /// Messages that may be in the queue.
    pub(crate) fn possible(&self) -> u64 {
        self.messages.values().filter(|message| !message.gone).count() as u64
    }
}

/// The body of a message: its number, then bytes that follow from it.
pub(crate) fn body(number: Number, size: usize) -> Vec<u8> {
    let mut body = number.to_le_bytes().to_vec();
    body.extend((8..size).map(|at| byte(number, at)));
    body
}

/// Whether the body is that of the message.
pub(crate) fn is_body(body: &[u8], number: Number, size: usize) -> bool {
    body.len() == size && body.iter().enumerate().skip(8).all(|(at, &found)| found == byte(number, at))
}

fn byte(number: Number, at: usize) -> u8 {
    (number.wrapping_mul(31) as usize + at) as u8
}
