//! The clients' side: what they published and were delivered, under one lock.
use crate::checker::{Checker, Number};
use leveret_engine::queue::{ConsumerId, Fill, Sink, Source};
use leveret_node::{ChannelView, Confirm, Ledger, Queue};
use parking_lot::Mutex;
use std::sync::Arc;

/// What all clients of one life share.
pub(crate) struct Clients(pub(crate) Mutex<State>);

pub(crate) struct State {
    pub(crate) checker: Checker,
    pub(crate) ledger: Ledger,
    /// Deliveries not settled: tag, queue, message.
    pub(crate) out: Vec<(u64, usize, Number)>,
    pub(crate) trace: Vec<String>,
}

impl Clients {
    pub(crate) fn new(checker: Checker) -> Arc<Self> {
        let ledger = Ledger::new(Arc::new(ChannelView::default()));
        Arc::new(Self(Mutex::new(State { checker, ledger, out: Vec::new(), trace: Vec::new() })))
    }

    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock())
    }
}

impl Confirm for Clients {
    fn confirmed(&self, _channel: u16, token: u64) {
        self.with(|state| {
            state.trace.push(format!("confirmed {token}"));
            state.checker.confirmed(token);
        });
    }
}

/// A consumer of a queue.
pub(crate) struct Consumer {
    pub(crate) clients: Arc<Clients>,
    pub(crate) queue: usize,
    pub(crate) account: u32,
    /// Deliveries it takes before its output counts as full.
    pub(crate) room: Mutex<u32>,
    pub(crate) id: Mutex<Option<ConsumerId>>,
}

impl Consumer {
    pub(crate) fn new(clients: &Arc<Clients>, at: usize, queue: &Arc<Queue>) -> Arc<Self> {
        let account = clients.with(|state| state.ledger.open(queue.clone()));
        let clients = clients.clone();
        Arc::new(Self { clients, queue: at, account, room: Mutex::new(ROOM), id: Mutex::default() })
    }

    /// Its output has drained.
    pub(crate) fn drained(&self) {
        *self.room.lock() = ROOM;
    }
}

impl Sink for Consumer {
    fn started(&self, id: ConsumerId) {
        *self.id.lock() = Some(id);
        self.clients.with(|state| state.ledger.set_consumer(self.account, id));
    }

    fn fill(&self, source: &mut dyn Source) -> Fill {
        let mut room = self.room.lock();
        let mut state = self.clients.0.lock();
        let state = &mut *state;
        while *room > 0 {
            let Some(delivery) = source.next() else { return Fill::Exhausted };
            *room -= 1;
            let number = state.checker.delivery(self.queue, delivery.body, delivery.redelivered);
            let tag = state.ledger.deliver(self.account, delivery.id);
            state.out.push((tag, self.queue, number));
            let again = if delivery.redelivered { " again" } else { "" };
            state.trace.push(format!("queue {} delivered {number}{again}", self.queue));
        }
        Fill::Full
    }
}

const ROOM: u32 = 32;
