//! The door for messages: routed once a run, copied into each queue under its lock, handed on at once.
use crate::Broker;
use crate::queue::{Queue, QueueId};
use crate::shard::{Shard, Waiter};
use leveret_engine::queue::{Extent, Publish};
use leveret_model::refusal::Refusal;
use leveret_model::table::FieldTable;
use smallvec::SmallVec;
use std::sync::Arc;

/// Where messages with one exchange and routing key go, as the catalog stood.
pub struct Route {
    generation: u64,
    /// Exchange.
    pub exchange: Box<[u8]>,
    /// Routing key.
    pub routing_key: Box<[u8]>,
    /// The answer depends on a message's headers: it is good for that message alone.
    pub by_headers: bool,
    /// In memory only.
    queues: SmallVec<[Arc<Queue>; 2]>,
    /// Logged, by shard.
    shards: SmallVec<[ToShard; 1]>,
}

struct ToShard {
    shard: Arc<Shard>,
    ids: SmallVec<[QueueId; 2]>,
    /// One of them, to wait for.
    queue: Arc<Queue>,
}

impl Route {
    /// Whether no queue gets the messages.
    pub fn is_unroutable(&self) -> bool {
        self.queues.is_empty() && self.shards.is_empty()
    }

    /// How many queues get the messages.
    pub fn recipients(&self) -> usize {
        self.queues.len() + self.shards.iter().map(|to| to.ids.len()).sum::<usize>()
    }

    /// How often a publish is confirmed: once a shard that has to log it.
    pub fn confirms(&self) -> u32 {
        self.shards.len() as u32
    }
}

impl Broker {
    /// Where messages go. `headers` are those of the message, if it has any.
    ///
    /// # Errors
    /// A missing exchange, an internal one, CC or BCC headers that are no arrays.
    pub fn route(
        &self,
        vhost: &str,
        exchange: &str,
        routing_key: &[u8],
        headers: Option<&FieldTable>,
    ) -> Result<Route, Refusal> {
        let generation = self.generation();
        let mut ids = SmallVec::new();
        let by_headers = self.catalog().route(vhost, exchange, routing_key, headers, &mut ids)?.by_headers;
        let (mut queues, mut shards) = (SmallVec::new(), SmallVec::<[ToShard; 1]>::new());
        let known = self.queues();
        for queue in ids.iter().filter_map(|id| known.get(id)) {
            let Some(log) = &queue.log else {
                queues.push(queue.clone());
                continue;
            };
            let shard = log.shard(queue.id);
            match shards.iter_mut().find(|to| Arc::ptr_eq(&to.shard, shard)) {
                Some(to) => to.ids.push(queue.id),
                None => shards.push(ToShard {
                    shard: shard.clone(),
                    ids: std::iter::once(queue.id).collect(),
                    queue: queue.clone(),
                }),
            }
        }
        let (exchange, routing_key) = (exchange.as_bytes().into(), routing_key.into());
        Ok(Route { generation, exchange, routing_key, by_headers, queues, shards })
    }

    /// Whether nothing was declared, bound or deleted since the route was made.
    #[inline]
    pub fn is_current(&self, route: &Route) -> bool {
        route.generation == self.generation()
    }

    /// Puts messages into the queues of a route; `waiter` hears of it [`confirms`](Route::confirms) times, once they are
    /// durable. Returns the slowest queue if its consumers or the log cannot follow.
    pub fn publish(
        &self,
        route: &Route,
        bytes: &[u8],
        messages: &[Extent],
        waiter: Option<&Waiter>,
    ) -> Option<Arc<Queue>> {
        let publish = Publish { exchange: &route.exchange, routing_key: &route.routing_key, bytes, messages };
        let now = self.clock().now();
        let mut outrunning = None;
        for to in &route.shards {
            to.shard.publish(&to.ids, &publish, waiter.cloned());
            if to.queue.is_outrunning() {
                outrunning = Some(to.queue.clone());
            }
        }
        for queue in &route.queues {
            let mut entered = queue.enter();
            if queue.is_deleted() {
                continue;
            }
            entered.enqueue(&publish, now);
            entered.dispatch(now);
            drop(entered);
            if queue.is_outrunning() {
                outrunning = Some(queue.clone());
            }
        }
        outrunning
    }
}
