//! Requests of clients that are answered later. Each may run in a task of its own, so that several are under way at the
//! same time, and a client may lose patience and cancel one at any point.
use crate::clients::{Clients, Consumer};
use crate::life::Life;
use crate::names::{BOUND_AT_TIMES, DELETED, SLOTS, delivery_limit, is_durable, name};
use crate::random::Random;
use crate::scenario::Weather;
use leveret_model::refusal::{Refusal, RefusalKind};
use leveret_model::table::{FieldTable, FieldValue};
use leveret_node::catalog::{BindingDeclare, Destination, QueueDeclare};
use leveret_node::{Broker, Caller, DeleteOnly, Queue, QueueId};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// A request that is given up when it has been polled more than `patience` times without an answer.
struct Impatient<'f, T> {
    request: Pin<Box<dyn Future<Output = T> + Send + 'f>>,
    /// The number of further polls without an answer after which the request is given up; `None` for any number.
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

/// A client with one request.
#[derive(Clone)]
struct Client {
    broker: Broker,
    clients: Arc<Clients>,
    patience: Option<u64>,
}

impl Life<'_> {
    /// Makes a request and waits for its end; in weather with races, starts several that run at the same time.
    pub(crate) async fn request(&mut self) {
        while self.requests.try_join_next().is_some() {}
        if !self.has(Weather::Races) {
            if self.requests.is_empty() {
                let request = self.some_request(None);
                request.await;
            }
            return;
        }
        let random = &mut self.world.random;
        let (many, name) = (1 + random.below(4) as usize, *random.pick(&DELETED));
        let one_name = random.once_in(2).then_some(name);
        for _ in self.requests.len()..many {
            // Messages on their way to the queue make the requests wait, each for a different time.
            if one_name.is_some() && self.world.random.once_in(2) {
                self.publish_to(one_name).await;
            }
            let request = self.some_request(one_name);
            self.requests.spawn(request);
            if self.world.random.once_in(2) {
                let wait = self.world.random.below(4);
                tokio::time::sleep(Duration::from_millis(wait)).await;
            }
        }
    }

    /// Returns a random request. If `deleted` names a queue, it is one that declares or deletes that queue.
    fn some_request(&mut self, deleted: Option<usize>) -> Request {
        let cancelled = self.has(Weather::Cancelled);
        let random = &mut self.world.random;
        let patience = (cancelled && random.once_in(2)).then(|| random.below(5));
        let client = Client { broker: self.broker.clone(), clients: self.clients.clone(), patience };
        let kind = random.below(if deleted.is_some() { 4 } else { 8 });
        let deleted = deleted.unwrap_or(*random.pick(&DELETED));
        let (at, bound) = (random.below(SLOTS as u64) as usize, *random.pick(&BOUND_AT_TIMES));
        let own = Random::new(random.next());
        match kind {
            0 | 1 => Box::pin(client.declare(deleted)),
            2 | 3 => Box::pin(client.delete(deleted, own)),
            4 => Box::pin(client.purge(at)),
            5 => Box::pin(client.bind(bound, true)),
            6 => Box::pin(client.bind(bound, false)),
            _ => Box::pin(client.get(at, own)),
        }
    }

    /// Purges a queue, and waits for the answer.
    pub(crate) async fn purge_queue(&self, at: usize) {
        let client = Client { broker: self.broker.clone(), clients: self.clients.clone(), patience: None };
        client.purge(at).await;
    }

    /// Declares a queue, and waits for the answer.
    pub(crate) async fn declare_queue(&self, at: usize) {
        let client = Client { broker: self.broker.clone(), clients: self.clients.clone(), patience: None };
        client.declare(at).await;
    }

    /// Deletes a queue, and waits for the answer.
    pub(crate) async fn delete_queue(&self, at: usize) {
        let client = Client { broker: self.broker.clone(), clients: self.clients.clone(), patience: None };
        client.delete_if(at, DeleteOnly::default()).await;
    }
}

impl Client {
    /// Waits for the answer to a request while the client's patience lasts. A node that is stopping leaves the outcome
    /// unknown as well.
    async fn ask<'f, T: Send + 'f>(&self, request: impl Future<Output = Result<T, Refusal>> + Send + 'f) -> Answer<T> {
        let answer = Impatient { request: Box::pin(request), patience: self.patience }.await;
        let why = match &answer {
            None => "the client has lost patience",
            Some(Err(refusal)) if refusal.kind == RefusalKind::Stopping => "the node is stopping",
            Some(_) => return answer,
        };
        self.clients.with(|state| {
            state.cancelled += u64::from(answer.is_none());
            state.trace.push(why.to_owned());
        });
        None
    }

    async fn declare(self, at: usize) {
        self.clients.with(|state| {
            state.trace.push(format!("queue {at} is being declared"));
            state.checker.begin_declare(at);
        });
        let (name, declare) = (name(at), declaration(at));
        let answer = self.ask(self.broker.declare_queue(&Caller::system(), "/", &name, declare)).await;
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
        self.delete_if(at, only).await;
    }

    async fn delete_if(self, at: usize, only: DeleteOnly) {
        self.clients.with(|state| {
            state.trace.push(format!("queue {at} is being deleted"));
            state.checker.begin_delete(at);
        });
        let answer = self.ask(self.broker.delete_queue(&Caller::system(), "/", &name(at), only)).await;
        let answer = answer.map(|deleted| deleted.map(|deleted| deleted.ready));
        self.clients.trace(format!("queue {at} deleted: {answer:?}"));
        let found = found(&self.broker, &self.clients, at, answer.is_some());
        let answer = answer.map(|deleted| deleted.map(drop));
        self.clients.with(|state| state.checker.end_delete(at, answer, found));
    }

    async fn purge(self, at: usize) {
        self.clients.with(|state| {
            state.trace.push(format!("queue {at} is being purged"));
            state.checker.begin_purge(at);
        });
        let answer = self.ask(self.broker.purge_queue(&Caller::system(), "/", &name(at))).await;
        self.clients.with(|state| {
            state.trace.push(format!("queue {at} purged: {answer:?}"));
            let sure = state.checker.names[at].is_sure();
            match answer {
                Some(Ok(_)) => state.checker.end_purge(at, sure),
                Some(Err(refusal)) if refusal.kind == RefusalKind::NotFound => state.checker.end_purge(at, false),
                Some(Err(refusal)) => state.checker.fail(|| format!("a purge was refused: {}", refusal.text)),
                None => {} // the purge may still happen
            }
        });
    }

    /// Binds a queue to `fan`, or unbinds it.
    async fn bind(self, at: usize, bind: bool) {
        self.clients.with(|state| {
            state.trace.push(format!("queue {at} is being {}", if bind { "bound" } else { "unbound" }));
            let bound = &mut state.checker.bound[at];
            bound.unsure |= bound.busy > 0;
            bound.busy += 1;
        });
        let (destination, none) = (Destination::Queue(name(at)), FieldTable::default());
        let answer = if bind {
            self.ask(self.broker.bind(&Caller::system(), "/", BindingDeclare::new("fan", &destination, b"", &none)))
                .await
        } else {
            self.ask(self.broker.unbind(&Caller::system(), "/", BindingDeclare::new("fan", &destination, b"", &none)))
                .await
        };
        self.clients.with(|state| {
            state.trace.push(format!("queue {at} {}: {answer:?}", if bind { "bound" } else { "unbound" }));
            let bound = &mut state.checker.bound[at];
            bound.busy -= 1;
            let (sure, was) = (!bound.unsure, bound.is);
            match answer {
                Some(Ok(changed)) => {
                    bound.is = bind;
                    if sure && changed == (was == bind) {
                        let what = if bind { "binding" } else { "unbinding" };
                        state.checker.fail(|| format!("{what} queue {at}: bound before {was}, changed {changed}"));
                    }
                }
                Some(Err(refusal)) => state.checker.fail(|| format!("a binding was refused: {}", refusal.text)),
                None => bound.unsure = true,
            }
        });
    }

    async fn get(self, at: usize, mut random: Random) {
        let Ok(queue) = self.broker.find_queue(&Caller::system(), "/", &name(at)) else { return };
        self.clients.with(|state| state.checker.register(queue.id, at));
        let (channel, no_ack) = (random.below(crate::clients::CHANNELS as u64) as usize, random.once_in(3));
        let consumer = Consumer::new(&self.clients, &queue, channel, (no_ack, 1));
        self.clients.trace(format!("queue {at} is asked for a message"));
        let got = self.ask(self.broker.get(&Caller::system(), &queue, &*consumer, no_ack)).await;
        self.clients.trace(format!("queue {at} was asked for a message: {got:?}"));
        consumer.end();
    }
}

/// Returns the queue that has the name at this moment.
///
/// After an answered request that no other one disturbed, catalog and queues have to agree, and no queue that had the name
/// before may be left.
fn found(broker: &Broker, clients: &Clients, at: usize, answered: bool) -> Option<QueueId> {
    let found = broker.find_queue(&Caller::system(), "/", &name(at)).ok().map(|queue: Arc<Queue>| queue.id);
    let declared = broker.catalog().queue_id("/", &name(at));
    let (alone, others) = clients.with(|state| {
        let name = &state.checker.names[at];
        (name.busy == 1 && !name.cancelled, state.checker.others(at, found))
    });
    if answered && alone && found != declared {
        clients.broken(format!("queue {at} is {declared:?} in the catalog and {found:?} among the queues"));
    }
    if let Some(ghost) = others.into_iter().find(|other| answered && alone && broker.queue(*other).is_some()) {
        clients.broken(format!("queue {at} ({ghost:?}) lost its name to {found:?}, and is still among the queues"));
    }
    found
}

pub(crate) fn declaration(at: usize) -> QueueDeclare {
    let mut arguments = FieldTable::default();
    if let Some(limit) = delivery_limit(at) {
        let quorum = [("x-queue-type", FieldValue::from("quorum")), ("x-delivery-limit", FieldValue::UInt32(limit))];
        arguments = quorum.into_iter().collect();
    }
    QueueDeclare { durable: is_durable(at), exclusive: false, auto_delete: false, arguments, server_named: false }
}

/// The answer to a request; `None` if its outcome is unknown, as the client did not wait for it or the node was stopping.
pub(crate) type Answer<T> = Option<Result<T, Refusal>>;

type Request = Pin<Box<dyn Future<Output = ()> + Send>>;
