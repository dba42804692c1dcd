//! The door for messages: routed once a run, copied into each queue under its lock, handed on at once.
use crate::Broker;
use crate::caller::Caller;
use crate::queue::{Queue, QueueId};
use crate::shard::{Shard, Waiter};
use leveret_engine::catalog;
use leveret_engine::queue::{Extent, Publish};
use leveret_model::refusal::Refusal;
use leveret_model::table::FieldTable;
use smallvec::SmallVec;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

/// What is kept for those who remember routes: the changes of the catalog are counted, so that old routes are known.
#[derive(Default)]
pub(crate) struct Generations {
    /// All changes.
    all: AtomicU64,
    /// Those that may change where an exchange with a name leads.
    bindings: AtomicU64,
    /// Memory lent to those who remember routes.
    route_bytes: AtomicU64,
}

impl Generations {
    /// The catalog has changed, and is still held.
    pub(crate) fn changed(&self, bindings: bool) {
        self.all.fetch_add(1, Release);
        if bindings {
            self.bindings.fetch_add(1, Release);
        }
    }

    /// The count that matters to routes that looked queues up by name, or to those that did not.
    #[inline]
    fn now(&self, by_queue_name: bool) -> u64 {
        if by_queue_name { self.all.load(Acquire) } else { self.bindings.load(Acquire) }
    }
}

/// Where messages with one exchange and routing key go, as the catalog stood.
pub struct Route {
    generation: u64,
    by_queue_name: bool,
    /// Exchange.
    pub exchange: Box<[u8]>,
    /// Routing key.
    pub routing_key: Box<[u8]>,
    /// The answer depends on a message's headers: it is good for that message alone.
    pub by_headers: bool,
    /// What it cost to find it: a step is about ten nanoseconds.
    pub steps: u64,
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

    /// How many queues get each message.
    pub fn recipients(&self) -> usize {
        self.queues.len() + self.shards.iter().map(|to| to.ids.len()).sum::<usize>()
    }

    /// About how many bytes of memory the route takes.
    pub fn memory_bytes(&self) -> usize {
        let names = self.exchange.len() + self.routing_key.len();
        ROUTE_BYTES + names + self.recipients() * size_of::<usize>() + self.shards.len() * size_of::<ToShard>()
    }

    /// How often a publish is confirmed: once a shard that has to log it.
    pub fn confirms(&self) -> u32 {
        self.shards.len() as u32
    }
}

/// Messages with one exchange and routing key, and where they go.
pub struct RoutedRun<'m> {
    /// Where they go.
    pub route: &'m Route,
    /// The messages, in the order of their arrival.
    pub messages: &'m [Extent],
    /// Who waits for them to be durable.
    pub waiter: Option<Waiter>,
}

impl<'m> RoutedRun<'m> {
    fn publish(&self, bytes: &'m [u8]) -> Publish<'m> {
        let Route { exchange, routing_key, .. } = self.route;
        Publish { exchange, routing_key, bytes, messages: self.messages }
    }
}

/// What was published to queues whose consumers, or whose log, cannot follow.
pub struct Lag {
    /// One of these queues.
    pub queue: Arc<Queue>,
    /// How many messages it was.
    pub messages: u64,
    /// Bytes of their bodies.
    pub body_bytes: u64,
}

impl Lag {
    fn add(lag: &mut Option<Self>, queue: &Arc<Queue>, messages: &[Extent]) {
        let lag = lag.get_or_insert_with(|| Self { queue: queue.clone(), messages: 0, body_bytes: 0 });
        lag.messages += messages.len() as u64;
        lag.body_bytes += messages.iter().map(|message| message.body.len() as u64).sum::<u64>();
    }
}

/// Memory that the node lends for routes remembered elsewhere.
pub struct RouteMemory {
    broker: Broker,
    held: u64,
}

impl RouteMemory {
    /// Holds `bytes` from now on, instead of what was held before. False, and nothing changes, if the node has not as much.
    pub fn hold(&mut self, bytes: u64) -> bool {
        if bytes <= self.held {
            return true;
        }
        // In steps, so that not every route touches what all connections share.
        let wanted = bytes.next_multiple_of(ROUTE_MEMORY_STEP);
        let (lent, most) = (&self.broker.node().generations.route_bytes, self.broker.route_bytes_max());
        let taken = lent.try_update(Relaxed, Relaxed, |lent| {
            let lent = lent - self.held + wanted;
            (lent <= most).then_some(lent)
        });
        if taken.is_ok() {
            self.held = wanted;
        }
        taken.is_ok()
    }
}

impl Drop for RouteMemory {
    fn drop(&mut self) {
        self.broker.node().generations.route_bytes.fetch_sub(self.held, Relaxed);
    }
}

impl Broker {
    /// Memory for routes that are remembered: none yet.
    pub fn route_memory(&self) -> RouteMemory {
        RouteMemory { broker: self.clone(), held: 0 }
    }

    fn route_bytes_max(&self) -> u64 {
        (self.options().memory_max / ROUTE_MEMORY_PART).min(ROUTE_MEMORY_MAX)
    }

    /// Where messages go. `headers` are those of the message, if it has any.
    ///
    /// # Errors
    /// A missing exchange, an internal one, CC or BCC headers that are no arrays.
    pub fn route(
        &self,
        _caller: &Caller,
        vhost: &str,
        exchange: &str,
        routing_key: &[u8],
        headers: Option<&FieldTable>,
    ) -> Result<Route, Refusal> {
        let generations = [false, true].map(|by_queue_name| self.node().generations.now(by_queue_name));
        let mut ids = SmallVec::new();
        let catalog::Routed { by_headers, by_queue_name, steps } =
            self.catalog().route(vhost, exchange, routing_key, headers, &mut ids)?;
        let generation = generations[usize::from(by_queue_name)];
        let (mut queues, mut shards) = (SmallVec::new(), SmallVec::<[ToShard; 1]>::new());
        let known = self.queues();
        for queue in ids.iter().filter_map(|id| known.get(id)).filter(|queue| queue.is_declared()) {
            let Some(logged_by) = &queue.shards else {
                queues.push(queue.clone());
                continue;
            };
            let shard = logged_by.shard(queue.id);
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
        Ok(Route { generation, by_queue_name, exchange, routing_key, by_headers, steps, queues, shards })
    }

    /// Whether nothing was declared, bound or deleted since the route was made that may change it.
    #[inline]
    pub fn is_current(&self, route: &Route) -> bool {
        route.generation == self.node().generations.now(route.by_queue_name)
    }

    /// Puts messages into the queues that they go to. A queue that gets several of them is entered once: its consumers are served
    /// when all are in. Who waits hears of it [`confirms`](Route::confirms) times, once they are durable. Returns what went to
    /// queues whose consumers, or whose log, cannot follow.
    pub fn publish(&self, bytes: &[u8], routed: &[RoutedRun<'_>]) -> Option<Lag> {
        self.mark_activity();
        let mut lag = None;
        for run in routed {
            if let Some(queue) = Self::publish_to_shards(run.route, &run.publish(bytes), run.waiter.as_ref()) {
                Lag::add(&mut lag, &queue, run.messages);
            }
        }
        if let [only] = routed {
            if let Some(queue) = self.publish_to_queues(&only.route.queues, &only.publish(bytes)) {
                Lag::add(&mut lag, &queue, only.messages);
            }
            return lag;
        }
        let to_queues = |run: usize| routed[run].route.queues.iter().map(move |queue| (queue, run));
        let mut parts: Vec<(&Arc<Queue>, usize)> = (0..routed.len()).flat_map(to_queues).collect();
        parts.sort_unstable_by_key(|(queue, run)| (Arc::as_ptr(queue), *run));
        let now = self.clock().now();
        for parts in parts.chunk_by(|(queue, _), (next, _)| Arc::ptr_eq(queue, next)) {
            let queue = parts[0].0;
            let runs = parts.iter().map(|(_, run)| &routed[*run]);
            if enter(queue, runs.clone().map(|run| run.publish(bytes)), now) {
                runs.for_each(|run| Lag::add(&mut lag, queue, run.messages));
            }
        }
        lag
    }

    /// As [`publish`](Self::publish), for a route to very many queues: others have their turn after each [`PART_QUEUES`] of
    /// them. The log comes last, so that who waits for it waits for all queues.
    pub async fn publish_in_parts(&self, bytes: &[u8], routed: RoutedRun<'_>) -> Option<Lag> {
        let publish = routed.publish(bytes);
        let mut behind = None;
        for part in routed.route.queues.chunks(PART_QUEUES) {
            self.mark_activity();
            behind = self.publish_to_queues(part, &publish).or(behind);
            tokio::task::yield_now().await;
        }
        let behind = behind.or(Self::publish_to_shards(routed.route, &publish, routed.waiter.as_ref()))?;
        let mut lag = None;
        Lag::add(&mut lag, &behind, routed.messages);
        lag
    }

    fn publish_to_shards(route: &Route, publish: &Publish<'_>, waiter: Option<&Waiter>) -> Option<Arc<Queue>> {
        let mut behind = None;
        for to in &route.shards {
            to.shard.publish(&to.ids, publish, waiter.cloned());
            if to.queue.is_behind() {
                behind = Some(to.queue.clone());
            }
        }
        behind
    }

    fn publish_to_queues(&self, queues: &[Arc<Queue>], publish: &Publish<'_>) -> Option<Arc<Queue>> {
        let (now, mut behind) = (self.clock().now(), None);
        for queue in queues {
            if enter(queue, std::iter::once(*publish), now) {
                behind = Some(queue.clone());
            }
        }
        behind
    }
}

/// Puts messages into a queue, and serves its consumers. Whether they, or the log, cannot follow.
#[inline]
fn enter<'p>(queue: &Queue, publishes: impl Iterator<Item = Publish<'p>>, now: u64) -> bool {
    let mut entered = queue.enter();
    if queue.is_deleted() {
        return false;
    }
    for publish in publishes {
        entered.enqueue(&publish, now);
    }
    entered.dispatch(now);
    drop(entered);
    queue.is_behind()
}

/// Queues that a message is put into before others have their turn.
pub const PART_QUEUES: usize = 4096;
/// Memory of a route without what it points to, as the allocator rounds it, in bytes.
const ROUTE_BYTES: usize = 192;
/// Routes that are remembered may take this part of the memory budget, and no more than so many bytes.
const ROUTE_MEMORY_PART: u64 = 16;
const ROUTE_MEMORY_MAX: u64 = 64 << 20;
const ROUTE_MEMORY_STEP: u64 = 64 << 10;

#[cfg(test)]
#[path = "publish_tests.rs"]
mod tests;
