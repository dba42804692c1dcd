//! The clients' side: what they published, and what each of their channels was delivered, under one lock.
use crate::checker::{Checker, Number};
use leveret_engine::queue::{ConsumerId, Fill, Sink, Source};
use leveret_node::{ChannelView, Confirm, Ledger, Queue, QueueId, Settlement, Subscriber};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// What all clients of one life share.
pub(crate) struct Clients(Mutex<State>);

pub(crate) struct State {
    pub(crate) checker: Checker,
    pub(crate) channels: Vec<Channel>,
    pub(crate) trace: Vec<String>,
    pub(crate) cancelled: u64,
}

/// A channel: its ledger, and deliveries not settled by tag.
pub(crate) struct Channel {
    pub(crate) ledger: Ledger,
    pub(crate) out: BTreeMap<u64, Out>,
    /// Counts the channels that had this place.
    pub(crate) generation: u64,
}

/// A delivery that is not settled.
#[derive(Clone, Copy)]
pub(crate) struct Out {
    pub(crate) queue: QueueId,
    pub(crate) number: Number,
    account: u32,
}

impl Channel {
    /// A new channel, which may have `limit` deliveries outstanding; 0: any number.
    pub(crate) fn new(generation: u64, limit: u32) -> Self {
        let mut ledger = Ledger::new(Arc::new(ChannelView::default()));
        ledger.set_limit(limit);
        Self { ledger, out: BTreeMap::new(), generation }
    }

    /// Deliveries of one account that are not settled.
    fn outstanding(&self, account: u32) -> u64 {
        self.out.values().filter(|out| out.account == account).count() as u64
    }
}

impl Clients {
    pub(crate) fn new(checker: Checker) -> Arc<Self> {
        let channels = (0..CHANNELS).map(|_| Channel::new(0, 0)).collect();
        Arc::new(Self(Mutex::new(State { checker, channels, trace: Vec::new(), cancelled: 0 })))
    }

    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock())
    }

    pub(crate) fn broken(&self, text: String) {
        self.with(|state| state.checker.fail(|| text));
    }

    pub(crate) fn trace(&self, line: String) {
        self.with(|state| state.trace.push(line));
    }
}

impl State {
    /// Settles delivery `tag` of a channel, or all up to it (0: all), into `settlement`.
    pub(crate) fn settle(
        &mut self,
        channel: usize,
        (tag, multiple): (u64, bool),
        outcome: leveret_node::Outcome,
        settlement: &mut Settlement,
    ) {
        let Self { checker, channels, trace, .. } = self;
        let Channel { ledger, out, .. } = &mut channels[channel];
        let settled: Vec<u64> = match (tag, multiple) {
            (0, _) => out.keys().copied().collect(),
            (_, true) => out.range(..=tag).map(|(&tag, _)| tag).collect(),
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
            checker.fail(|| format!("the ledger took {taken} of {count} deliveries up to {tag} of channel {channel}"));
        }
        for tag in settled {
            let Some(Out { queue, number, .. }) = out.remove(&tag) else { continue };
            trace.push(format!("channel {channel} {outcome:?} {number}"));
            checker.settled(queue, number, outcome == leveret_node::Outcome::Returned);
        }
    }
}

impl Confirm for Clients {
    fn confirmed(&self, _channel: u16, token: u64) {
        self.with(|state| {
            state.trace.push(format!("confirmed {token}"));
            state.checker.confirm(token);
        });
    }
}

/// A consumer of a queue, or a client that asks for one message.
pub(crate) struct Consumer {
    clients: Arc<Clients>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) channel: usize,
    generation: u64,
    pub(crate) account: u32,
    pub(crate) no_ack: bool,
    pub(crate) prefetch: u32,
    /// Deliveries it takes before its output counts as full.
    room: AtomicU32,
    pub(crate) id: Mutex<Option<ConsumerId>>,
    /// The queue is gone.
    pub(crate) cancelled: AtomicBool,
}

impl Consumer {
    pub(crate) fn new(
        clients: &Arc<Clients>,
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

    /// Its output has drained.
    pub(crate) fn drained(&self) {
        self.room.store(ROOM, Relaxed);
    }

    /// No more deliveries come for it.
    pub(crate) fn end(&self) {
        self.clients.with(|state| {
            let channel = &mut state.channels[self.channel];
            if channel.generation == self.generation {
                channel.ledger.end(self.account);
            }
        });
    }

    /// Whether it would take a delivery, its output drained.
    pub(crate) fn may_take(&self) -> bool {
        self.clients.with(|state| {
            let channel = &state.channels[self.channel];
            let below = self.prefetch == 0 || channel.outstanding(self.account) < u64::from(self.prefetch);
            self.no_ack || below && channel.ledger.has_room()
        })
    }
}

impl Sink for Consumer {
    fn started(&self, id: ConsumerId) {
        *self.id.lock() = Some(id);
        self.clients.with(|state| state.channels[self.channel].ledger.set_consumer(self.account, id));
    }

    fn fill(&self, source: &mut dyn Source) -> Fill {
        let mut state = self.clients.0.lock();
        let State { checker, channels, trace, .. } = &mut *state;
        let channel = &mut channels[self.channel];
        if channel.generation != self.generation {
            return Fill::Blocked; // closed: it takes nothing
        }
        while self.room.load(Relaxed) > 0 {
            if !self.no_ack && channel.ledger.must_wait(self.account) {
                return Fill::Blocked;
            }
            let Some(delivery) = source.next() else { return Fill::Exhausted };
            self.room.fetch_sub(1, Relaxed);
            let number = checker.delivery(self.queue.id, delivery.body, delivery.redelivered, self.no_ack);
            if self.no_ack {
                channel.ledger.deliver_settled();
            } else {
                let tag = channel.ledger.deliver(self.account, delivery.id);
                channel.out.insert(tag, Out { queue: self.queue.id, number, account: self.account });
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

/// Channels that clients have.
pub(crate) const CHANNELS: usize = 3;
const ROOM: u32 = 32;
