//! Requests that are answered later, each a task: several may be under way, and clients may lose patience with one at any point.
use crate::clients::{Clients, Consumer};
use crate::life::Life;
use crate::names::{BOUND_AT_TIMES, DELETED, SLOTS, delivery_limit, is_durable, name};
use crate::random::Random;
use crate::scenario::Weather;
use leveret_model::refusal::{Refusal, RefusalKind};
use leveret_model::table::{FieldTable, FieldValue};
use leveret_node::catalog::{Destination, QueueDeclare};
use leveret_node::{Broker, DeleteOnly, Queue, QueueId};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A future that is dropped when it has been asked so often without an answer; none: never.
struct Impatient<'f, T> {
    request: Pin<Box<dyn Future<Output = T> + Send + 'f>>,
    patience: Option<u64>,
}

impl<T> Future for Impatient<'_, T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        if let Poll::Ready(answer) = self.request.as_mut().poll(context) {
            return Poll::Ready(Some(answer));
        }
        match &mut self.patience {
            Some(0) => Poll::Ready(None),
            Some(left) => {
                *left -= 1;
                Poll::Pending
            }
            None => Poll::Pending,
        }
    }
}

/// One client with one request.
#[derive(Clone)]
struct Client {
    broker: Broker,
    clients: Arc<Clients>,
    patience: Option<u64>,
}

impl Life<'_> {
    /// Makes a request, and waits for its end unless several may be under way.
    pub(crate) async fn request(&mut self) {
        while self.requests.try_join_next().is_some() {}
        let (races, cancelled) = (self.has(Weather::Races), self.has(Weather::Cancelled));
        let random = &mut self.world.random;
        let patience = (cancelled && random.once_in(3)).then(|| random.below(5));
        let client = Client { broker: self.broker.clone(), clients: self.clients.clone(), patience };
        let deleted = *random.pick(&DELETED);
        let request: Pin<Box<dyn Future<Output = ()> + Send>> = match random.below(8) {
            0 | 1 => Box::pin(client.declare(deleted)),
            2 | 3 => Box::pin(client.delete(deleted, random.clone())),
            4 => Box::pin(client.purge(random.below(SLOTS as u64) as usize)),
            5 => Box::pin(client.bind(*random.pick(&BOUND_AT_TIMES), true)),
            6 => Box::pin(client.bind(*random.pick(&BOUND_AT_TIMES), false)),
            _ => Box::pin(client.get(random.below(SLOTS as u64) as usize, random.clone())),
        };
        random.next(); // what a request took is not taken again
        if races && self.requests.len() < REQUESTS_MAX {
            self.requests.spawn(request);
        } else if self.requests.is_empty() {
            request.await;
        }
    }

    /// Declares a queue that stays.
    pub(crate) async fn declare_queue(&self, at: usize) {
        let client = Client { broker: self.broker.clone(), clients: self.clients.clone(), patience: None };
        client.declare(at).await;
    }

    /// Deletes a queue.
    pub(crate) async fn delete_queue(&self, at: usize) {
        let client = Client { broker: self.broker.clone(), clients: self.clients.clone(), patience: None };
        client.delete(at, Random::new(1)).await;
    }
}

impl Client {
    async fn ask<'f, T: Send + 'f>(&self, request: impl Future<Output = T> + Send + 'f) -> Option<T> {
        let answer = Impatient { request: Box::pin(request), patience: self.patience }.await;
        if answer.is_none() {
            self.clients.with(|state| {
                state.cancelled += 1;
                state.trace.push("the client has lost patience".to_owned());
            });
        }
        answer
    }

    async fn declare(self, at: usize) {
        self.clients.with(|state| {
            state.trace.push(format!("queue {at} is being declared"));
            state.checker.begin_declare(at);
        });
        let (name, declare) = (name(at), declaration(at));
        let answer = self.ask(self.broker.declare_queue("/", &name, declare)).await;
        let made = match answer {
            Some(Ok((created, queue))) => Some(Ok((created, queue.id))),
            Some(Err(refusal)) => Some(Err(refusal)),
            None => None,
        };
        self.clients.trace(format!("queue {at} declared: {made:?}"));
        let found = found(&self.broker, &self.clients, at, made.is_some());
        self.clients.with(|state| state.checker.end_declare(at, made, found));
    }

    async fn delete(self, at: usize, mut random: Random) {
        let only = DeleteOnly { if_unused: random.once_in(8), if_empty: random.once_in(8) };
        self.clients.with(|state| {
            state.trace.push(format!("queue {at} is being deleted"));
            state.checker.begin_delete(at);
        });
        let answer = self.ask(self.broker.delete_queue("/", &name(at), only, None)).await;
        self.clients.trace(format!("queue {at} deleted: {answer:?}"));
        let found = found(&self.broker, &self.clients, at, answer.is_some());
        let answer = answer.map(|deleted| deleted.map(drop));
        self.clients.with(|state| state.checker.end_delete(at, answer, found));
    }

    async fn purge(self, at: usize) {
        self.clients.with(|state| {
            state.trace.push(format!("queue {at} is being purged"));
            state.checker.purging(at);
        });
        let answer = self.ask(self.broker.purge_queue("/", &name(at), None)).await;
        self.clients.with(|state| {
            state.trace.push(format!("queue {at} purged: {answer:?}"));
            let sure = state.checker.names[at].is_sure();
            match answer {
                Some(Ok(_)) => state.checker.purged(at, sure),
                Some(Err(refusal)) if refusal.kind == RefusalKind::NotFound => state.checker.purged(at, false),
                Some(Err(refusal)) => state.checker.fail(|| format!("a purge was refused: {}", refusal.text)),
                None => {} // it may come yet
            }
        });
    }

    /// Binds a queue to `fan`, or unbinds it.
    async fn bind(self, at: usize, bind: bool) {
        self.clients.with(|state| {
            state.trace.push(format!("queue {at} is being bound: {bind}"));
            let bound = &mut state.checker.bound[at];
            bound.unsure |= bound.busy > 0;
            bound.busy += 1;
        });
        let (destination, none) = (Destination::Queue(name(at)), FieldTable::default());
        let answer = if bind {
            self.ask(self.broker.bind("/", "fan", destination, (b"", &none), None)).await
        } else {
            self.ask(self.broker.unbind("/", "fan", &destination, (b"", &none), None)).await
        };
        self.clients.with(|state| {
            state.trace.push(format!("queue {at} bound {bind}: {answer:?}"));
            let bound = &mut state.checker.bound[at];
            bound.busy -= 1;
            let (sure, was) = (!bound.unsure, bound.is);
            match answer {
                Some(Ok(changed)) => {
                    bound.is = bind;
                    if sure && changed == (was == bind) {
                        state.checker.fail(|| format!("binding queue {at} ({bind}) changed something: {changed}"));
                    }
                }
                Some(Err(refusal)) => state.checker.fail(|| format!("a binding was refused: {}", refusal.text)),
                None => bound.unsure = true,
            }
        });
    }

    async fn get(self, at: usize, mut random: Random) {
        let Ok(queue) = self.broker.find_queue("/", &name(at), None) else { return };
        self.clients.with(|state| state.checker.register(queue.id, at));
        let (channel, no_ack) = (random.below(crate::clients::CHANNELS as u64) as usize, random.once_in(3));
        let consumer = Consumer::new(&self.clients, &queue, channel, (no_ack, 1));
        self.clients.trace(format!("queue {at} is asked for a message"));
        let got = self.ask(self.broker.get(&queue, &*consumer, no_ack)).await;
        self.clients.trace(format!("queue {at} was asked for a message: {got:?}"));
        consumer.end();
    }
}

/// The queue that has the name at this moment; answered requests must leave catalog and queues in agreement.
fn found(broker: &Broker, clients: &Clients, at: usize, answered: bool) -> Option<QueueId> {
    let found = broker.find_queue("/", &name(at), None).ok().map(|queue: Arc<Queue>| queue.id);
    let declared = broker.catalog().queue("/", &name(at), None).ok().map(|queue| queue.id);
    let alone = clients.with(|state| state.checker.names[at].busy == 1 && !state.checker.names[at].cancelled);
    if answered && alone && found != declared {
        clients.broken(format!("queue {at} is {declared:?} in the catalog and {found:?} among the queues"));
    }
    found
}

fn declaration(at: usize) -> QueueDeclare {
    let mut arguments = FieldTable::default();
    if let Some(limit) = delivery_limit(at) {
        let quorum = [("x-queue-type", FieldValue::from("quorum")), ("x-delivery-limit", FieldValue::UInt32(limit))];
        arguments = quorum.into_iter().collect();
    }
    QueueDeclare {
        durable: is_durable(at),
        exclusive: None,
        auto_delete: false,
        arguments,
        server_named: false,
        connection: None,
    }
}

/// What a request came to; none: the client did not wait for it.
pub(crate) type Answer<T> = Option<Result<T, Refusal>>;

/// Requests under way at a time.
const REQUESTS_MAX: usize = 4;
