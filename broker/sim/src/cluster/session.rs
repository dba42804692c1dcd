//! A session: one connection of a client to one node. It runs in the runtime of that node and ends with it; the client then
//! begins another one, with whichever node is there.
use super::record::{PublishRecord, Record, SessionId};
use crate::checker;
use crate::clients::{CHANNELS, Channel, Clients, Consumer};
use crate::names::{BOUND_AT_TIMES, DELETED, FAN, is_durable, name};
use crate::random::Random;
use crate::requests::declaration;
use crate::watcher::{Number, SeenDelivery, Watcher};
use leveret_engine::queue::{Body, Extent, Subscription};
use leveret_model::refusal::Refusal;
use leveret_model::table::FieldTable;
use leveret_node::catalog::{BindingDeclare, Destination};
use leveret_node::{Broker, Caller, DeleteOnly, Outcome, QueueId, RoutedRun, Settlement, Waiter};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// What sessions do at the moment; all of them look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// They publish, consume and make requests.
    Play,
    /// They close their channels, and wait until everything that they published is confirmed.
    Confirm,
    /// One of them consumes and acknowledges everything.
    Drain,
}

/// The phase that all sessions look at; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct PhaseBoard(Arc<AtomicU8>);

impl PhaseBoard {
    pub(crate) fn set(&self, phase: Phase) {
        self.0.store(phase as u8, Relaxed);
    }

    pub(crate) fn read(&self) -> Phase {
        match self.0.load(Relaxed) {
            0 => Phase::Play,
            1 => Phase::Confirm,
            _ => Phase::Drain,
        }
    }
}

/// Tells the record what a session sees.
pub(crate) struct SessionWatcher {
    session: SessionId,
    record: Arc<Mutex<Record>>,
}

impl Watcher for SessionWatcher {
    fn delivered(&mut self, id: QueueId, delivery: &SeenDelivery<'_>) -> Number {
        self.record.lock().delivered(self.session, id, delivery)
    }

    fn settled(&mut self, id: QueueId, number: Number, given_back: bool) {
        self.record.lock().settled(self.session, id, number, given_back);
    }

    fn confirmed(&mut self, token: u64) {
        self.record.lock().confirm(self.session, token);
    }

    fn failed(&mut self, text: String) {
        self.record.lock().fail(|| text);
    }
}

type SessionClients = Clients<SessionWatcher>;
type SessionConsumer = Consumer<SessionWatcher>;

/// The part of a session that the simulation keeps.
#[derive(Clone)]
pub(crate) struct SessionHandle {
    pub(crate) number: SessionId,
    pub(crate) clients: Arc<SessionClients>,
    consumers: Arc<Mutex<Vec<Arc<SessionConsumer>>>>,
}

impl SessionHandle {
    pub(crate) fn new(number: SessionId, record: &Arc<Mutex<Record>>) -> Self {
        let watcher = SessionWatcher { session: number, record: record.clone() };
        Self { number, clients: Clients::new(watcher), consumers: Arc::default() }
    }

    /// Ends the session as the node does when a connection breaks, or before its process is dropped: consumers and queues
    /// refer to each other, which would keep both in memory.
    pub(crate) fn end(&self, broker: &Broker) {
        for consumer in std::mem::take(&mut *self.consumers.lock()) {
            let id = *consumer.id.lock();
            if let Some(id) = id {
                broker.unsubscribe(&consumer.queue, id);
            }
            consumer.end();
        }
    }
}

/// A session that is being played.
pub(crate) struct Session {
    pub(crate) handle: SessionHandle,
    pub(crate) broker: Broker,
    pub(crate) record: Arc<Mutex<Record>>,
    pub(crate) random: Random,
    pub(crate) phase: PhaseBoard,
    /// The number of the client, which stays the same while its sessions come and go.
    pub(crate) client: usize,
}

impl Session {
    /// Plays the session until its node ends.
    pub(crate) async fn run(mut self) {
        let mut has_closed = false;
        loop {
            let wait = 1 + self.random.below(25);
            sleep(Duration::from_millis(wait)).await;
            self.refresh();
            match self.phase.read() {
                Phase::Play => self.step().await,
                Phase::Confirm | Phase::Drain if !std::mem::replace(&mut has_closed, true) => {
                    (0..CHANNELS).for_each(|channel| self.close_channel(channel));
                }
                Phase::Drain if self.client == 0 => self.drain(),
                Phase::Confirm | Phase::Drain => {}
            }
        }
    }

    async fn step(&mut self) {
        match self.random.below(30) {
            0..10 => self.publish(),
            10..18 => {
                let outcomes = [Outcome::Acknowledged, Outcome::Acknowledged, Outcome::Rejected, Outcome::Returned];
                let outcome = *self.random.pick(&outcomes);
                self.settle(outcome);
            }
            18..22 => self.subscribe(),
            22 => self.unsubscribe().await,
            23 => {
                let channel = self.random.below(CHANNELS as u64) as usize;
                self.close_channel(channel);
            }
            24..28 => self.get().await,
            _ => self.request().await,
        }
    }

    fn slot(&mut self) -> usize {
        self.random.below(DURABLE) as usize
    }

    fn trace(&self, line: String) {
        self.handle.clients.trace(line);
    }

    fn publish(&mut self) {
        let number = self.handle.number;
        if self.record.lock().unconfirmed_bytes(number) > UNCONFIRMED_MAX {
            return;
        }
        let (at, fan) = (self.slot(), self.random.once_in(4));
        let (exchange, key) = if fan { ("fan", String::new()) } else { ("", name(at)) };
        let Ok(route) = self.broker.route(&Caller::system(), "/", exchange, key.as_bytes(), None) else { return };
        if route.is_unroutable() {
            return;
        }
        let slots: &[usize] = if fan { &FAN } else { &[at] };
        let queues: Vec<QueueId> = slots.iter().filter_map(|slot| self.named(*slot)).collect();
        let maybe: Vec<QueueId> = BOUND_AT_TIMES.iter().filter(|_| fan).filter_map(|slot| self.named(*slot)).collect();
        let (bytes, messages, sizes) = self.messages();
        let publish = PublishRecord { queues: &queues, maybe: &maybe, sizes: &sizes, confirms: route.confirms() };
        let token = self.record.lock().publish(number, publish);
        let first = sizes.first().map_or(0, |(number, _)| *number);
        self.trace(format!("publishes {token}: {} messages from {first} to {exchange} {key}", sizes.len()));
        let waiter = Some(Waiter { to: self.handle.clients.clone(), channel: 1, token });
        drop(self.broker.publish(&bytes, &[RoutedRun { route: &route, messages: &messages, waiter }]));
    }

    /// Makes some messages. Returns their bytes, the extents of the messages in them, and numbers with sizes in bytes.
    fn messages(&mut self) -> (Vec<u8>, Vec<Extent>, Vec<(Number, usize)>) {
        let (mut bytes, mut messages, mut sizes) = (vec![0, 0], Vec::new(), Vec::new());
        for _ in 0..1 + self.random.below(8) {
            let most = if self.random.once_in(30) { 20_000 } else { 400 };
            let size = 8 + self.random.below(most) as usize;
            let number = self.record.lock().number();
            sizes.push((number, size));
            let at = bytes.len() as u32;
            bytes.extend_from_slice(&checker::body(number, size));
            let body = Body::Inline { at, len: size as u32 };
            messages.push(Extent { properties_at: 0, properties_len: 2, body });
        }
        (bytes, messages, sizes)
    }

    /// Returns the queue that has the name on this node at this moment.
    fn named(&self, slot: usize) -> Option<QueueId> {
        let id = self.broker.find_queue(&Caller::system(), "/", &name(slot)).ok()?.id;
        self.record.lock().register(id, slot);
        Some(id)
    }

    /// Settles some deliveries of a channel.
    fn settle(&mut self, outcome: Outcome) {
        let (channel, most) = (self.random.below(CHANNELS as u64) as usize, self.random.below(30) as usize);
        let clients = self.handle.clients.clone();
        let mut settlement = Settlement::default();
        clients.with(|state| {
            for _ in 0..most {
                let Some(tag) = state.channels[channel].unacked.keys().next().copied() else { break };
                state.settle(channel, (tag, false), outcome, &mut settlement);
            }
        });
        self.settled(channel, &mut settlement, outcome);
    }

    fn settled(&self, channel: usize, settlement: &mut Settlement, outcome: Outcome) {
        self.broker.settle(settlement, outcome);
        let next_turn = || self.handle.clients.with(|state| state.channels[channel].ledger.next_turn());
        while let Some((queue, consumer)) = next_turn() {
            self.broker.unblocked(&queue, consumer);
        }
    }

    fn subscribe(&mut self) {
        if self.handle.consumers.lock().len() < 3 {
            let (slot, channel) = (self.slot(), self.random.below(CHANNELS as u64) as usize);
            let (no_ack, prefetch) = (self.random.once_in(8), *self.random.pick(&[1, 5, 50]));
            self.subscribe_to(slot, channel, no_ack, prefetch);
        }
    }

    fn subscribe_to(&self, slot: usize, channel: usize, no_ack: bool, prefetch: u32) {
        let Some(queue) = self.named(slot).and_then(|id| self.broker.queue(id)) else { return };
        let consumer = Consumer::new(&self.handle.clients, &queue, channel, (no_ack, prefetch));
        let subscription = Subscription { sink: consumer.clone(), exclusive: false, no_ack, prefetch };
        match self.broker.subscribe(&Caller::system(), &queue, subscription) {
            Ok(id) => {
                *consumer.id.lock() = Some(id);
                self.trace(format!("consumes from q{slot}, no_ack {no_ack}, prefetch {prefetch}"));
                self.handle.consumers.lock().push(consumer);
            }
            Err(_) => consumer.end(), // the queue was deleted
        }
    }

    async fn unsubscribe(&mut self) {
        let consumer = {
            let mut consumers = self.handle.consumers.lock();
            if consumers.is_empty() {
                return;
            }
            let at = self.random.below(consumers.len() as u64) as usize;
            consumers.remove(at)
        };
        let id = *consumer.id.lock();
        if let Some(id) = id {
            self.broker.unsubscribe(&consumer.queue, id);
        }
        consumer.end();
        self.broker.consumer_left(&consumer.queue).await;
    }

    /// Closes a channel: its consumers leave, and their unacknowledged messages are given back.
    fn close_channel(&self, channel: usize) {
        self.trace(format!("closes channel {channel}"));
        let leaving: Vec<_> = {
            let mut consumers = self.handle.consumers.lock();
            consumers.extract_if(.., |consumer| consumer.channel == channel).collect()
        };
        for consumer in leaving {
            let id = *consumer.id.lock();
            if let Some(id) = id {
                self.broker.unsubscribe(&consumer.queue, id);
            }
        }
        let mut settlement = Settlement::default();
        self.handle.clients.with(|state| {
            state.settle(channel, (0, true), Outcome::Returned, &mut settlement);
            let generation = state.channels[channel].generation + 1;
            state.channels[channel] = Channel::new(generation, 0);
        });
        self.broker.settle(&mut settlement, Outcome::Returned);
    }

    /// Empties the outputs of all consumers, and drops those whose queue was deleted.
    fn refresh(&self) {
        let consumers: Vec<_> = {
            let mut consumers = self.handle.consumers.lock();
            consumers.retain(|consumer| !consumer.cancelled.load(Relaxed));
            consumers.clone()
        };
        for consumer in consumers {
            consumer.drained();
            let id = *consumer.id.lock();
            if let Some(id) = id {
                self.broker.drained(&consumer.queue, id);
            }
        }
    }

    async fn get(&mut self) {
        let slot = self.slot();
        let Some(queue) = self.named(slot).and_then(|id| self.broker.queue(id)) else { return };
        let channel = self.random.below(CHANNELS as u64) as usize;
        // Without acknowledgement a message would be gone whose answer does not arrive.
        let consumer = Consumer::new(&self.handle.clients, &queue, channel, (false, 1));
        let got = self.ask(self.broker.get(&Caller::system(), &queue, &*consumer, false)).await;
        self.trace(format!("got a message of q{slot}: {got:?}"));
        consumer.end();
    }

    async fn request(&mut self) {
        let (kind, slot, random) = (self.random.below(20), self.slot(), *self.random.pick(&DELETED));
        let deleted = if is_durable(random) { random } else { DELETED[0] };
        let caller = Caller::system();
        match kind {
            0 => {
                self.record.lock().doom(deleted);
                self.trace(format!("deletes q{deleted}"));
                let name = name(deleted);
                let answer = self.ask(self.broker.delete_queue(&caller, "/", &name, DeleteOnly::default())).await;
                self.trace(format!("deleted q{deleted}: {:?}", answer.map(|answer| answer.map(|gone| gone.ready))));
            }
            1..4 => self.declare(deleted).await,
            4 => {
                let number = self.handle.number;
                self.record.lock().begin_purge(number, slot);
                let answer = self.ask(self.broker.purge_queue(&caller, "/", &name(slot))).await;
                self.record.lock().end_purge(number, matches!(answer, Some(Ok(_))));
                self.trace(format!("purged q{slot}: {answer:?}"));
            }
            5..10 => {
                let (to, none) = (Destination::Queue(name(BOUND_AT_TIMES[0])), FieldTable::default());
                let binding = BindingDeclare::new("fan", &to, b"", &none);
                let answer = if self.random.once_in(2) {
                    self.ask(self.broker.bind(&caller, "/", binding)).await
                } else {
                    self.ask(self.broker.unbind(&caller, "/", binding)).await
                };
                self.trace(format!("changed a binding: {answer:?}"));
            }
            _ => self.declare(slot).await,
        }
    }

    async fn declare(&self, slot: usize) {
        let (caller, name) = (Caller::system(), name(slot));
        let declared = self.broker.declare_queue(&caller, "/", &name, declaration(slot));
        let answer = self.ask(declared).await.map(|answer| answer.map(|(created, queue)| (created, queue.id)));
        self.trace(format!("declared q{slot}: {answer:?}"));
        if let Some(Ok((_, id))) = answer {
            self.record.lock().register(id, slot);
        }
    }

    /// Waits for the answer to a request; `None` if there is none within half a minute, which is a broken promise unless
    /// a fault has an effect.
    async fn ask<T>(&self, request: impl Future<Output = Result<T, Refusal>>) -> Option<Result<T, Refusal>> {
        let answer = timeout(ANSWER_MAX, Box::pin(request)).await.ok();
        if answer.is_none() {
            let number = self.handle.number;
            let mut record = self.record.lock();
            let now = record.now;
            if record.calm.was_calm(now.saturating_sub(ANSWER_MAX.as_millis() as u64), now) {
                record.fail(|| format!("a request of session {number} was not answered"));
            }
        }
        answer
    }

    /// Consumes from all queues, and acknowledges everything.
    fn drain(&self) {
        for slot in 0..DURABLE as usize {
            let known = self.handle.consumers.lock().iter().any(|consumer| *consumer.queue.name == *name(slot));
            if !known {
                self.subscribe_to(slot, 0, false, 100);
            }
        }
        let mut settlement = Settlement::default();
        self.handle.clients.with(|state| state.settle(0, (0, true), Outcome::Acknowledged, &mut settlement));
        if !settlement.is_empty() {
            self.settled(0, &mut settlement, Outcome::Acknowledged);
        }
    }
}

/// The number of durable queues, whose slots come first.
pub(crate) const DURABLE: u64 = 5;
/// The most bytes of unconfirmed publishes of a session.
const UNCONFIRMED_MAX: usize = 64 << 10;
/// The longest time that the answer to a request may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);
