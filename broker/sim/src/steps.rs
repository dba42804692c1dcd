//! What clients do in one step of a life.
use crate::checker;
use crate::clients::Consumer;
use crate::life::{DELETED, FAN, Life, QUEUES, name};
use leveret_engine::queue::{Body, Extent, Subscription};
use leveret_node::{DeleteOnly, Outcome, Settlement, Waiter};
use std::time::Duration;
use tokio::time::sleep;

impl Life<'_> {
    pub(crate) async fn step(&mut self, consume: bool) {
        match self.world.random.below(if consume { 20 } else { 8 }) {
            0..8 => self.publish().await,
            8..14 => self.settle(40),
            14..17 => self.subscribe(),
            17 => self.unsubscribe(),
            18 => self.get().await,
            _ => self.empty().await,
        }
        self.drained();
        if self.world.random.once_in(2) {
            let wait = self.world.random.below(4);
            sleep(Duration::from_millis(wait)).await;
        }
    }

    async fn publish(&mut self) {
        // Stalls are long beside segments this small: what is on its way must fit into the reserve.
        let crowded = self.clients.with(|state| state.checker.unconfirmed_bytes() > UNCONFIRMED_MAX);
        if crowded || self.broker.memory().is_alarmed() {
            return sleep(Duration::from_millis(5)).await;
        }
        let random = &mut self.world.random;
        let (publisher, fan) = (random.below(3) as usize, random.once_in(4));
        let at = random.below(QUEUES as u64) as usize;
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
        let (exchange, key, queues) = if fan { ("fan", String::new(), FAN.to_vec()) } else { ("", name(at), vec![at]) };
        let route = match self.broker.route("/", exchange, key.as_bytes(), None) {
            Ok(route) => route,
            Err(refusal) => return self.broken(refusal.text),
        };
        let token = self.clients.with(|state| {
            let token = state.checker.publish(publisher, &queues, route.confirms(), &sizes);
            state.trace.push(format!("publish {token}: {} messages to {queues:?}", sizes.len()));
            token
        });
        let waiter = Waiter { to: self.clients.clone(), channel: 1, token };
        if let Some(slow) = self.broker.publish(&route, &bytes, &messages, Some(&waiter)) {
            slow.let_consumers_catch_up().await;
        }
    }

    /// Settles some deliveries, at most `most`.
    fn settle(&mut self, most: u64) {
        let random = &mut self.world.random;
        let outcome =
            *random.pick(&[Outcome::Acknowledged, Outcome::Acknowledged, Outcome::Rejected, Outcome::Returned]);
        let mut settlement = Settlement::default();
        self.clients.with(|state| {
            for _ in 0..random.below(most).min(state.out.len() as u64) {
                let from_front = if random.once_in(4) { random.below(state.out.len() as u64) as usize } else { 0 };
                let (tag, queue, number) = state.out.remove(from_front);
                let taken = state.ledger.take(tag, false, |from, id| settlement.add(from, id, outcome));
                if taken.is_err() {
                    state.checker.broken(format!("delivery {tag} is not known to the ledger"));
                }
                state.trace.push(format!("queue {queue} {outcome:?} {number}"));
                state.checker.settled(queue, number, outcome == Outcome::Returned);
            }
        });
        self.broker.settle(&mut settlement, outcome);
    }

    fn subscribe(&mut self) {
        if self.consumers.len() < 6 {
            let at = self.world.random.below(QUEUES as u64) as usize;
            let prefetch = *self.world.random.pick(&[0, 1, 10, 100]);
            self.subscribe_to(at, prefetch);
        }
    }

    pub(crate) fn subscribe_to(&mut self, at: usize, prefetch: u32) {
        let queue = self.queues[at].clone();
        let consumer = Consumer::new(&self.clients, at, &queue);
        let subscription = Subscription { sink: consumer.clone(), exclusive: false, no_ack: false, prefetch };
        match self.broker.subscribe(&queue, subscription) {
            Ok(id) => {
                *consumer.id.lock() = Some(id);
                self.clients.with(|state| state.ledger.set_consumer(consumer.account, id));
                self.consumers.push((queue, consumer));
            }
            Err(refusal) => self.broken(refusal.text),
        }
    }

    fn unsubscribe(&mut self) {
        if self.consumers.is_empty() {
            return;
        }
        let at = self.world.random.below(self.consumers.len() as u64) as usize;
        let (queue, consumer) = self.consumers.remove(at);
        if let Some(id) = *consumer.id.lock() {
            self.broker.unsubscribe(&queue, id);
        }
    }

    pub(crate) fn drained(&self) {
        for (queue, consumer) in &self.consumers {
            consumer.drained();
            if let Some(id) = *consumer.id.lock() {
                self.broker.drained(queue, id);
            }
        }
    }

    async fn get(&mut self) {
        let at = self.world.random.below(QUEUES as u64) as usize;
        let queue = self.queues[at].clone();
        let consumer = Consumer::new(&self.clients, at, &queue);
        let got = self.broker.get(&queue, &*consumer, false).await;
        if let Err(refusal) = got
            && !self.world.disk.is_off()
        {
            self.broken(refusal.text);
        }
    }

    /// Purges a queue, or deletes one and declares it again.
    async fn empty(&mut self) {
        if !self.world.random.once_in(3) {
            return;
        }
        let at = self.world.random.below(QUEUES as u64) as usize;
        if at != DELETED {
            self.clients.with(|state| state.checker.emptied(at));
            self.trace(format!("queue {at} purged"));
            if let Err(refusal) = self.broker.purge_queue("/", &name(at), None).await {
                self.broken(refusal.text);
            }
            self.clients.with(|state| state.checker.purged(at));
            return;
        }
        self.trace(format!("queue {at} deleted"));
        self.world.declared[at] = false;
        self.clients.with(|state| state.checker.emptied(at));
        self.consumers.retain(|(_, consumer)| consumer.queue != at);
        if let Err(refusal) = self.broker.delete_queue("/", &name(at), DeleteOnly::default(), None).await {
            return self.broken(refusal.text);
        }
        self.clients.with(|state| {
            state.checker.deleted(at);
            state.out.retain(|(_, queue, _)| *queue != at);
        });
        match self.declare_queue(at).await {
            Ok(queue) => self.queues[at] = queue,
            Err(refused) => self.broken(refused),
        }
    }
}

/// Bytes of publishes on their way, at most.
const UNCONFIRMED_MAX: usize = 1 << 20;
