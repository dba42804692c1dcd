//! The steps of a life: in each, a client publishes, consumes, settles, closes a channel, or sends a request (`requests`).
use crate::checker;
use crate::clients::{CHANNELS, Channel, Consumer};
use crate::life::Life;
use crate::names::{BOUND_AT_TIMES, FAN, SLOTS, name};
use crate::scenario::Weather;
use leveret_engine::queue::{Body, Extent, Subscription};
use leveret_node::{Caller, Outcome, QueueId, RoutedRun, Settlement, Waiter};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::{sleep, timeout};

impl Life<'_> {
    /// Does one random thing; without `consume` it is always a publish.
    pub(crate) async fn step(&mut self, consume: bool) {
        let slow = self.has(Weather::SlowDisk);
        match self.world.random.below(if consume { 25 } else { 8 }) {
            0..4 if slow && consume && self.world.random.once_in(2) => self.purge_during_reads().await,
            0..8 => self.publish().await,
            8..14 => self.settle(),
            14..17 => self.subscribe(),
            17 => self.unsubscribe().await,
            18 => self.close_channel(),
            19..21 if self.has(Weather::Cascades) => self.toggle_brief().await,
            _ => self.request().await,
        }
        self.drained();
        if self.world.random.once_in(2) {
            let wait = self.world.random.below(if slow { 30 } else { 4 });
            sleep(Duration::from_millis(wait)).await;
        }
    }

    /// Subscribes a consumer to a queue, and purges the queue while the contents that the consumer needs are being read.
    /// Then gives the node time to remove the files that held them.
    async fn purge_during_reads(&mut self) {
        let random = &mut self.world.random;
        let (at, channel) = (random.below(SLOTS as u64) as usize, random.below(CHANNELS as u64) as usize);
        let waits = (random.below(50), random.below(400));
        self.subscribe_to(at, channel, (false, 10));
        sleep(Duration::from_millis(waits.0)).await;
        self.purge_queue(at).await;
        sleep(Duration::from_millis(waits.1)).await;
    }

    /// Publishes to a random queue or to `fan`.
    pub(crate) async fn publish(&mut self) {
        let at = self.world.random.below(SLOTS as u64) as usize;
        let fan = self.world.random.once_in(4);
        self.publish_to((!fan).then_some(at)).await;
    }

    /// Publishes some messages to the queue of that slot, or to `fan` if there is none given.
    pub(crate) async fn publish_to(&mut self, at: Option<usize>) {
        // The disk stalls for long, and segments are small: unconfirmed messages have to fit into the reserve of the log.
        let crowded = self.clients.with(|state| state.checker.unconfirmed_bytes() > UNCONFIRMED_MAX);
        // Sometimes publishes during an alarm, as a new connection does with its first read.
        let held_back = self.broker.memory().is_alarmed() && !self.world.random.once_in(8);
        if crowded || held_back {
            return sleep(Duration::from_millis(5)).await;
        }
        let publisher = self.world.random.below(3) as usize;
        let (exchange, key) = at.map_or(("fan", String::new()), |at| ("", name(at)));
        let route = match self.broker.route(&Caller::system(), "/", exchange, key.as_bytes(), None) {
            Ok(route) => route,
            Err(refusal) => return self.broken(refusal.text),
        };
        let queues = match at {
            Some(at) => self.named(at).map(|id| (id, true)).into_iter().collect(),
            None => self.fan(),
        };
        if route.is_unroutable() != queues.is_empty() {
            let expected = queues.len();
            let unroutable = route.is_unroutable();
            return self.broken(format!("unroutable with key '{key}': {unroutable}; expected queues: {expected}"));
        }
        if queues.is_empty() {
            return;
        }
        let (bytes, messages, sizes) = self.messages();
        let token = self.clients.with(|state| {
            let token = state.checker.publish(publisher, &queues, route.confirms(), &sizes);
            let first = sizes.first().map_or(0, |(number, _)| *number);
            state.trace.push(format!("publish {token}: {} messages from {first} to {queues:?}", sizes.len()));
            token
        });
        let waiter = Waiter { to: self.clients.clone(), channel: 1, token };
        // Messages without a confirmation come as one run or as two.
        let split = if route.confirms() == 0 { self.world.random.below(messages.len() as u64) as usize } else { 0 };
        let run = |messages, waiter| RoutedRun { route: &route, messages, waiter };
        let runs = [run(&messages[..split], None), run(&messages[split..], Some(waiter))];
        let lag = self.broker.publish(&bytes, &runs[usize::from(split == 0)..]);
        if route.confirms() == 0 {
            self.clients.with(|state| state.checker.confirm(token));
        }
        if let Some(lag) = lag {
            let _ = timeout(HELD_BACK_MAX, lag.queue.let_consumers_catch_up(HELD_BACK_MAX, lag.messages)).await;
        }
    }

    /// Makes some messages. Returns their bytes, the extents of the messages in them, and numbers with sizes in bytes.
    fn messages(&mut self) -> (Vec<u8>, Vec<Extent>, Vec<(u64, usize)>) {
        let random = &mut self.world.random;
        let (mut bytes, mut messages, mut sizes) = (vec![0, 0], Vec::new(), Vec::new());
        for _ in 0..1 + random.below(24) {
            let most = if random.once_in(8) { 40_000 } else { 3_000 };
            let size = 8 + random.below(most) as usize;
            self.world.number += 1;
            let body = checker::body(self.world.number, size);
            sizes.push((self.world.number, size));
            let body = if size > 8_000 {
                Body::Shared(body.into())
            } else {
                let at = bytes.len() as u32;
                bytes.extend_from_slice(&body);
                Body::Inline { at, len: size as u32 }
            };
            messages.push(Extent { properties_at: 0, properties_len: 2, body });
        }
        (bytes, messages, sizes)
    }

    /// Returns the queue that has the name at this moment, and checks it against what clients know.
    fn named(&self, at: usize) -> Option<QueueId> {
        let found = self.broker.find_queue(&Caller::system(), "/", &name(at)).ok().map(|queue| queue.id);
        self.clients.with(|state| {
            let known = &state.checker.names[at];
            let (sure, id) = (known.is_sure(), known.id);
            if sure && id != found {
                state
                    .checker
                    .fail(|| format!("queue {at} is {found:?}; after the last declaration or deletion it was {id:?}"));
            }
            if let Some(found) = found {
                state.checker.register(found, at);
            }
        });
        found
    }

    /// Returns the queues that `fan` leads to or may lead to, and whether each is known to be bound.
    fn fan(&self) -> Vec<(QueueId, bool)> {
        let mut queues: Vec<_> = FAN.into_iter().filter_map(|at| Some((self.named(at)?, true))).collect();
        for at in BOUND_AT_TIMES {
            let (sure, is) = self.clients.with(|state| {
                let bound = &state.checker.bound[at];
                (bound.is_sure(), bound.is)
            });
            if let Some(id) = self.named(at).filter(|_| is || !sure) {
                queues.push((id, sure));
            }
        }
        queues
    }

    /// Settles some deliveries of a channel, one by one or all up to one of them.
    fn settle(&mut self) {
        let random = &mut self.world.random;
        let outcome =
            *random.pick(&[Outcome::Acknowledged, Outcome::Acknowledged, Outcome::Rejected, Outcome::Returned]);
        let (channel, multiple) = (random.below(CHANNELS as u64) as usize, random.once_in(3));
        let mut settlement = Settlement::default();
        self.clients.with(|state| {
            let unacked = state.channels[channel].unacked.len() as u64;
            if multiple && unacked > 0 {
                let nth = random.below(unacked.min(100)) as usize;
                let tag = state.channels[channel].unacked.keys().nth(nth).copied().unwrap_or_default();
                return state.settle(channel, (tag, true), outcome, &mut settlement);
            }
            for left in (0..unacked).rev().take(random.below(40) as usize) {
                let nth = if random.once_in(4) { random.below(left + 1) as usize } else { 0 };
                let tag = state.channels[channel].unacked.keys().nth(nth).copied().unwrap_or_default();
                state.settle(channel, (tag, false), outcome, &mut settlement);
            }
        });
        self.settled(channel, &mut settlement, outcome);
    }

    /// Hands a settlement to the broker, and serves the consumers that the limit of the channel held back.
    pub(crate) fn settled(&self, channel: usize, settlement: &mut Settlement, outcome: Outcome) {
        self.broker.settle(settlement, outcome);
        while let Some((queue, consumer)) = self.clients.with(|state| state.channels[channel].ledger.next_turn()) {
            self.broker.unblocked(&queue, consumer);
        }
    }

    fn subscribe(&mut self) {
        if self.consumers.len() < 6 {
            let random = &mut self.world.random;
            let at = random.below(SLOTS as u64) as usize;
            let how = (random.once_in(6), *random.pick(&[0, 1, 10, 100]));
            let channel = random.below(CHANNELS as u64) as usize;
            self.subscribe_to(at, channel, how);
        }
    }

    /// Subscribes a consumer to the queue of a slot, if the queue exists.
    pub(crate) fn subscribe_to(&mut self, at: usize, channel: usize, (no_ack, prefetch): (bool, u32)) {
        let Some(id) = self.named(at) else { return };
        let Some(queue) = self.broker.queue(id) else { return };
        let consumer = Consumer::new(&self.clients, &queue, channel, (no_ack, prefetch));
        let subscription = Subscription { sink: consumer.clone(), exclusive: false, no_ack, prefetch };
        match self.broker.subscribe(&Caller::system(), &queue, subscription) {
            Ok(id) => {
                *consumer.id.lock() = Some(id);
                let how = format!("no_ack {no_ack}, prefetch {prefetch}");
                self.trace(format!("q{at} has a new consumer on channel {channel}, {how}"));
                self.consumers.push(consumer);
            }
            Err(refusal) => {
                consumer.end();
                if self.clients.with(|state| state.checker.names[at].is_sure()) {
                    self.broken(refusal.text);
                }
            }
        }
    }

    async fn unsubscribe(&mut self) {
        if self.consumers.is_empty() {
            return;
        }
        let at = self.world.random.below(self.consumers.len() as u64) as usize;
        let consumer = self.consumers.remove(at);
        self.leave(&consumer);
        consumer.end();
        self.broker.consumer_left(&consumer.queue).await;
    }

    fn leave(&self, consumer: &Arc<Consumer>) {
        if let Some(id) = *consumer.id.lock() {
            self.broker.unsubscribe(&consumer.queue, id);
        }
    }

    /// Closes a channel: its consumers leave, and their unacknowledged messages are given back.
    fn close_channel(&mut self) {
        let random = &mut self.world.random;
        let (channel, limit) = (random.below(CHANNELS as u64) as usize, *random.pick(&[0, 0, 0, 20]));
        self.trace(format!("channel {channel} closes; the next one has a prefetch of {limit}"));
        let (leaving, staying) =
            std::mem::take(&mut self.consumers).into_iter().partition(|consumer| consumer.channel == channel);
        self.consumers = staying;
        let leaving: Vec<Arc<Consumer>> = leaving;
        leaving.iter().for_each(|consumer| self.leave(consumer));
        let mut settlement = Settlement::default();
        self.clients.with(|state| {
            state.settle(channel, (0, true), Outcome::Returned, &mut settlement);
            let generation = state.channels[channel].generation + 1;
            state.channels[channel] = Channel::new(generation, limit);
        });
        self.broker.settle(&mut settlement, Outcome::Returned);
    }

    /// Ends all channels and consumers at the end of a life. A consumer and its queue refer to each other, which would keep
    /// both in memory.
    pub(crate) fn all_leave(&mut self) {
        self.clients.with(|state| state.channels.iter_mut().for_each(|channel| channel.generation += 1));
        std::mem::take(&mut self.consumers).iter().for_each(|consumer| self.leave(consumer));
        self.clients.with(|state| state.channels.clear());
    }

    /// Empties the outputs of all consumers, and drops the consumers whose queue was deleted.
    pub(crate) fn drained(&mut self) {
        self.consumers.retain(|consumer| !consumer.cancelled.load(Relaxed));
        for consumer in &self.consumers {
            consumer.drained();
            if let Some(id) = *consumer.id.lock() {
                self.broker.drained(&consumer.queue, id);
            }
        }
    }

    /// Returns whether this life has that kind of weather.
    pub(crate) fn has(&self, weather: Weather) -> bool {
        self.weather.contains(&weather)
    }
}

/// The most bytes of unconfirmed publishes.
const UNCONFIRMED_MAX: usize = 1 << 20;
/// The longest time that a publisher waits for consumers to catch up.
const HELD_BACK_MAX: Duration = Duration::from_secs(5);
