//! The clients: their channels, the deliveries on each, and who watches what they see, all behind one lock.
use crate::checker::Checker;
use crate::watcher::{Number, SeenDelivery, Watcher};
use leveret_engine::queue::{ConsumerId, Fill, Sink, Source};
use leveret_node::{ChannelView, Confirm, Ledger, Queue, QueueId, Settlement, Subscriber};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// The state that clients share: all of one life, or those of one connection.
pub(crate) struct Clients<W = Checker>(Mutex<State<W>>);

pub(crate) struct State<W = Checker> {
    pub(crate) checker: W,
    pub(crate) channels: Vec<Channel>,
    pub(crate) trace: Vec<String>,
    /// The number of requests that a client gave up.
    pub(crate) cancelled: u64,
}

/// A channel.
pub(crate) struct Channel {
    pub(crate) ledger: Ledger,
    /// The unacknowledged deliveries by delivery tag.
    pub(crate) unacked: BTreeMap<u64, Unacked>,
    /// The number of channels that had this place before, by which their consumers notice that theirs is closed.
    pub(crate) generation: u64,
}

/// An unacknowledged delivery.
#[derive(Clone, Copy)]
pub(crate) struct Unacked {
    pub(crate) queue: QueueId,
    pub(crate) number: Number,
    /// The account of the ledger that it belongs to.
    account: u32,
}

impl Channel {
    /// Creates a channel that may have `limit` unacknowledged deliveries; 0 means any number.
    pub(crate) fn new(generation: u64, limit: u32) -> Self {
        let mut ledger = Ledger::new(Arc::new(ChannelView::default()));
        ledger.set_limit(limit);
        Self { ledger, unacked: BTreeMap::new(), generation }
    }

    /// Returns the number of unacknowledged deliveries of one account.
    fn unacked_of(&self, account: u32) -> u64 {
        self.unacked.values().filter(|delivery| delivery.account == account).count() as u64
    }
}

impl<W: Watcher> Clients<W> {
    pub(crate) fn new(checker: W) -> Arc<Self> {
        let channels = (0..CHANNELS).map(|_| Channel::new(0, 0)).collect();
        Arc::new(Self(Mutex::new(State { checker, channels, trace: Vec::new(), cancelled: 0 })))
    }

    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut State<W>) -> T) -> T {
        work(&mut self.0.lock())
    }

    /// Records a broken promise.
    pub(crate) fn broken(&self, text: String) {
        self.with(|state| state.checker.failed(text));
    }

    pub(crate) fn trace(&self, line: String) {
        self.with(|state| state.trace.push(line));
    }
}

impl<W: Watcher> State<W> {
    /// Takes the delivery `tag` of a channel, or with `multiple` all up to it (0: all), out of the ledger into
    /// `settlement`.
    pub(crate) fn settle(
        &mut self,
        channel: usize,
        (tag, multiple): (u64, bool),
        outcome: leveret_node::Outcome,
        settlement: &mut Settlement,
    ) {
        let Self { checker, channels, trace, .. } = self;
        let Channel { ledger, unacked, .. } = &mut channels[channel];
        let settled: Vec<u64> = match (tag, multiple) {
            (0, _) => unacked.keys().copied().collect(),
            (_, true) => unacked.range(..=tag).map(|(&tag, _)| tag).collect(),
            (_, false) => vec![tag],
        };
        let mut taken = 0;
        let mut take = |from: &Subscriber, id| {
            taken += 1;
            settlement.add(from, id, outcome);
        };
        let known = match multiple {
            true => ledger.last_of(tag).map(|last| while ledger.take_up_to(last, &mut take) {}),
            false => ledger.take(tag, take),
        };
        if known.is_err() || taken != settled.len() {
            let count = settled.len();
            checker.failed(format!("the ledger took {taken} of {count} deliveries up to {tag} of channel {channel}"));
        }
        for tag in settled {
            let Some(Unacked { queue, number, .. }) = unacked.remove(&tag) else { continue };
            trace.push(format!("channel {channel} {outcome:?} {number}"));
            checker.settled(queue, number, outcome == leveret_node::Outcome::Returned);
        }
    }
}

impl<W: Watcher> Confirm for Clients<W> {
    fn confirmed(&self, _channel: u16, token: u64) {
        self.with(|state| {
            state.trace.push(format!("confirmed {token}"));
            state.checker.confirmed(token);
        });
    }
}

/// A consumer of a queue, or a client that asks for one message.
pub(crate) struct Consumer<W = Checker> {
    clients: Arc<Clients<W>>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) channel: usize,
    generation: u64,
    pub(crate) account: u32,
    pub(crate) no_ack: bool,
    pub(crate) prefetch: u32,
    /// The number of deliveries that it takes before its output counts as full.
    room: AtomicU32,
    pub(crate) id: Mutex<Option<ConsumerId>>,
    /// True if the broker cancelled the consumer because its queue was deleted.
    pub(crate) cancelled: AtomicBool,
}

impl<W: Watcher> Consumer<W> {
    pub(crate) fn new(
        clients: &Arc<Clients<W>>,
        queue: &Arc<Queue>,
        channel: usize,
        (no_ack, prefetch): (bool, u32),
    ) -> Arc<Self> {
        let (account, generation) = clients.with(|state| {
            let channel = &mut state.channels[channel];
            (channel.ledger.open(queue.clone()), channel.generation)
        });
        let (clients, queue) = (clients.clone(), queue.clone());
        let (room, id, cancelled) = (AtomicU32::new(ROOM), Mutex::default(), AtomicBool::new(false));
        Arc::new(Self { clients, queue, channel, generation, account, no_ack, prefetch, room, id, cancelled })
    }

    /// Empties the consumer's output, so that it takes deliveries again.
    pub(crate) fn drained(&self) {
        self.room.store(ROOM, Relaxed);
    }

    /// Ends the consumer's account in the ledger: it gets no more deliveries.
    pub(crate) fn end(&self) {
        self.clients.with(|state| {
            let channel = &mut state.channels[self.channel];
            if channel.generation == self.generation {
                channel.ledger.end(self.account);
            }
        });
    }

    /// Returns whether the consumer would take a delivery if its output were empty.
    pub(crate) fn may_take(&self) -> bool {
        self.clients.with(|state| {
            let channel = &state.channels[self.channel];
            let below = self.prefetch == 0 || channel.unacked_of(self.account) < u64::from(self.prefetch);
            self.no_ack || below && channel.ledger.has_room()
        })
    }
}

impl<W: Watcher> Sink for Consumer<W> {
    fn started(&self, id: ConsumerId) {
        *self.id.lock() = Some(id);
        self.clients.with(|state| state.channels[self.channel].ledger.set_consumer(self.account, id));
    }

    fn fill(&self, source: &mut dyn Source) -> Fill {
        let mut state = self.clients.0.lock();
        let State { checker, channels, trace, .. } = &mut *state;
        let channel = &mut channels[self.channel];
        if channel.generation != self.generation {
            return Fill::Blocked; // the channel is closed
        }
        while self.room.load(Relaxed) > 0 {
            if !self.no_ack && channel.ledger.must_wait(self.account) {
                return Fill::Blocked;
            }
            let Some(delivery) = source.next() else { return Fill::Exhausted };
            self.room.fetch_sub(1, Relaxed);
            let no_ack = self.no_ack;
            let (redelivered, epoch) = (delivery.redelivered, delivery.id.epoch);
            let seen = SeenDelivery { body: delivery.body, redelivered, no_ack, epoch };
            let number = checker.delivered(self.queue.id, &seen);
            if self.no_ack {
                channel.ledger.deliver_settled();
            } else {
                let tag = channel.ledger.deliver(self.account, delivery.id);
                channel.unacked.insert(tag, Unacked { queue: self.queue.id, number, account: self.account });
            }
            let again = if delivery.redelivered { " again" } else { "" };
            trace.push(format!("{} delivered {number}{again} to channel {}", self.queue.name, self.channel));
        }
        Fill::Full
    }

    fn cancelled(&self) {
        self.cancelled.store(true, Relaxed);
    }
}

/// The number of channels.
pub(crate) const CHANNELS: usize = 3;
/// The number of deliveries that fill the output of a consumer.
const ROOM: u32 = 32;
