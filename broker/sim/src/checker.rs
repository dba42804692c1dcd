//! What was promised to clients, and whether what they see keeps it.
use std::collections::{BTreeMap, BTreeSet};

/// A message, named by its number; numbers of one publisher grow.
pub(crate) type Number = u64;

/// What is known of one queue.
#[derive(Default)]
struct Queue {
    /// Messages handed to it: publisher and size of the body.
    attempted: BTreeMap<Number, (usize, usize)>,
    confirmed: BTreeSet<Number>,
    /// Messages that a client did away with, in order.
    ended: Vec<Number>,
    /// How many of these are known to be durably so.
    gone: usize,
    gone_set: BTreeSet<Number>,
    ended_set: BTreeSet<Number>,
    /// How often each was given back.
    returns: BTreeMap<Number, u32>,
    /// A message given back more often may be dropped.
    delivery_limit: Option<u32>,
    ever: BTreeSet<Number>,
    /// In this life: delivered at least once, and delivered and not settled.
    seen: BTreeSet<Number>,
    out: BTreeSet<Number>,
    /// The newest message of each publisher among the first deliveries of this life.
    newest: BTreeMap<usize, Number>,
}

/// A publish whose confirmation is awaited.
struct Pending {
    numbers: Vec<Number>,
    bytes: usize,
    queues: Vec<usize>,
    /// Confirmations still to come.
    left: u32,
    /// Of each queue, how many messages were ended before the publish.
    ended: Vec<usize>,
}

/// The promises of all queues.
pub(crate) struct Checker {
    queues: Vec<Queue>,
    pending: BTreeMap<u64, Pending>,
    next_token: u64,
    /// What was broken, first of all.
    broken: Option<String>,
    pub(crate) delivered: u64,
}

impl Checker {
    pub(crate) fn new(delivery_limits: &[Option<u32>]) -> Self {
        let queue = |&delivery_limit: &Option<u32>| Queue { delivery_limit, ..Queue::default() };
        let queues = delivery_limits.iter().map(queue).collect();
        Self { queues, pending: BTreeMap::new(), next_token: 1, broken: None, delivered: 0 }
    }

    fn fail(&mut self, text: impl FnOnce() -> String) {
        self.broken.get_or_insert_with(text);
    }

    /// What was broken, if anything.
    pub(crate) fn verdict(&self) -> Result<(), String> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    /// Something that does not concern a message was broken.
    pub(crate) fn broken(&mut self, text: String) {
        self.fail(|| text);
    }

    /// The node starts again: nothing is out, no confirmation comes any more.
    pub(crate) fn begin_life(&mut self) {
        self.pending.clear();
        for queue in &mut self.queues {
            queue.seen.clear();
            queue.out.clear();
            queue.newest.clear();
            queue.ended.truncate(queue.gone); // what came later may have been lost
        }
    }

    /// Messages are about to be published: the token of their confirmation.
    pub(crate) fn publish(
        &mut self,
        publisher: usize,
        queues: &[usize],
        confirms: u32,
        sizes: &[(Number, usize)],
    ) -> u64 {
        let mut ended = Vec::new();
        for &at in queues {
            let queue = &mut self.queues[at];
            queue.attempted.extend(sizes.iter().map(|&(number, size)| (number, (publisher, size))));
            ended.push(queue.ended.len());
        }
        let numbers = sizes.iter().map(|(number, _)| *number).collect();
        let bytes = sizes.iter().map(|(_, size)| *size).sum();
        self.next_token += 1;
        let pending = Pending { numbers, bytes, queues: queues.to_vec(), left: confirms, ended };
        self.pending.insert(self.next_token, pending);
        self.next_token
    }

    pub(crate) fn confirmed(&mut self, token: u64) {
        let Some(pending) = self.pending.get_mut(&token) else {
            return self.fail(|| format!("a confirmation for publish {token}, which awaits none"));
        };
        pending.left -= 1;
        if pending.left > 0 {
            return;
        }
        let Some(Pending { numbers, queues, ended, .. }) = self.pending.remove(&token) else { return };
        for (at, ended) in queues.into_iter().zip(ended) {
            let queue = &mut self.queues[at];
            queue.confirmed.extend(&numbers);
            queue.gone_upto(ended);
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

    pub(crate) fn delivery(&mut self, at: usize, body: &[u8], redelivered: bool) -> Number {
        self.delivered += 1;
        let number = number_of(body);
        let queue = &mut self.queues[at];
        let Some(&(publisher, size)) = queue.attempted.get(&number) else {
            self.fail(|| format!("queue {at} delivered message {number}, which was never published to it"));
            return number;
        };
        let (again, newest) = (!queue.seen.insert(number), queue.newest.get(&publisher).copied());
        let (out, before) = (!queue.out.insert(number), !queue.ever.insert(number));
        let gone = queue.gone_set.contains(&number);
        if !again {
            queue.newest.insert(publisher, number);
        }
        if body != self::body(number, size) {
            self.fail(|| format!("queue {at} delivered message {number} with other bytes than were published"));
        } else if gone {
            self.fail(|| format!("queue {at} delivered message {number}, which was settled durably"));
        } else if out {
            self.fail(|| format!("queue {at} delivered message {number} twice at a time"));
        } else if before && !redelivered {
            self.fail(|| format!("queue {at} delivered message {number} again without the redelivered flag"));
        } else if !again && newest.is_some_and(|newest| newest > number) {
            self.fail(|| format!("queue {at} delivered message {number} of publisher {publisher} after {newest:?}"));
        }
        number
    }

    /// A delivery was settled for good, or given back.
    pub(crate) fn settled(&mut self, at: usize, number: Number, given_back: bool) {
        let queue = &mut self.queues[at];
        queue.out.remove(&number);
        if !given_back {
            return queue.end(number);
        }
        let returns = queue.returns.entry(number).or_default();
        *returns += 1;
        if queue.delivery_limit.is_some_and(|limit| *returns > limit) {
            queue.ended_set.insert(number);
        }
    }

    /// What is in a queue may go from now on.
    pub(crate) fn emptied(&mut self, at: usize) {
        let queue = &mut self.queues[at];
        queue.ended_set.extend(queue.attempted.keys());
    }

    /// What was ready in a queue has gone.
    pub(crate) fn purged(&mut self, at: usize) {
        let queue = &mut self.queues[at];
        let ready: Vec<Number> = queue.attempted.keys().filter(|number| !queue.out.contains(number)).copied().collect();
        ready.into_iter().for_each(|number| queue.end(number));
    }

    /// A queue is durably deleted.
    pub(crate) fn deleted(&mut self, at: usize) {
        let queue = &mut self.queues[at];
        queue.out.clear();
        let all: Vec<Number> = queue.attempted.keys().copied().collect();
        all.into_iter().for_each(|number| queue.end(number));
        queue.gone_upto(queue.ended.len());
    }

    /// Confirmed messages that have to be in the queue.
    pub(crate) fn owed(&self, at: usize) -> u64 {
        let queue = &self.queues[at];
        queue.confirmed.difference(&queue.ended_set).count() as u64
    }

    /// The queues were drained in this life: all that is owed has been seen.
    pub(crate) fn drained(&mut self) {
        for at in 0..self.queues.len() {
            let queue = &self.queues[at];
            let lost: Vec<Number> =
                queue.confirmed.iter().filter(|number| !queue.ended_set.contains(number)).copied().collect();
            if let Some(first) = lost.first().copied() {
                let count = lost.len();
                self.fail(|| format!("queue {at} lost {count} confirmed messages, {first} first"));
            }
        }
    }

    /// Whether this life has seen every message that is owed.
    pub(crate) fn has_seen_all(&self) -> bool {
        let owed =
            |queue: &Queue| queue.confirmed.difference(&queue.ended_set).all(|number| queue.seen.contains(number));
        self.queues.iter().all(owed)
    }

    /// Messages handed to queues, and confirmed ones.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let sum = |count: &dyn Fn(&Queue) -> usize| self.queues.iter().map(count).sum::<usize>() as u64;
        (sum(&|queue| queue.attempted.len()), sum(&|queue| queue.confirmed.len()))
    }
}

impl Queue {
    fn end(&mut self, number: Number) {
        self.ended_set.insert(number);
        if !self.gone_set.contains(&number) {
            self.ended.push(number);
        }
    }

    fn gone_upto(&mut self, ended: usize) {
        if ended > self.gone {
            self.gone_set.extend(&self.ended[self.gone..ended]);
            self.gone = ended;
        }
    }
}

/// The body of a message: its number, then bytes that follow from it.
pub(crate) fn body(number: Number, size: usize) -> Vec<u8> {
    let mut body = number.to_le_bytes().to_vec();
    body.extend((8..size).map(|at| (number.wrapping_mul(31) as usize + at) as u8));
    body
}

fn number_of(body: &[u8]) -> Number {
    body.first_chunk().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes))
}
