//! The door for messages: each run is routed once, copied into each queue under that queue's lock, and delivered at once.
use crate::caller::Caller;
use crate::entry::{self, Operation};
use crate::outgoing::OutgoingQueue;
use crate::queue::{Queue, QueueId};
use crate::shard::Shard;
use crate::waiter::Waiter;
use crate::{Broker, Node};
use bytes::Bytes;
use leveret_engine::catalog;
use leveret_engine::queue::{Extent, Publish, StoredRun};
use leveret_model::refusal::Refusal;
use leveret_model::table::FieldTable;
use leveret_replication::PeerMessages;
use smallvec::SmallVec;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::sync::{Arc, Weak};

/// Counts the changes of the catalog, so that connections recognize cached routes that are out of date, and the memory that
/// cached routes take.
#[derive(Default)]
pub(crate) struct Generations {
    /// The number of all changes.
    all: AtomicU64,
    /// The number of changes that may have an effect on where an exchange with a name leads.
    bindings: AtomicU64,
    /// The memory lent to connections for cached routes, in bytes.
    route_bytes: AtomicU64,
}

impl Generations {
    /// Counts a change of the catalog, which the caller still holds. `bindings` says whether the change may have an effect
    /// on where an exchange with a name leads.
    pub(crate) fn changed(&self, bindings: bool) {
        self.all.fetch_add(1, Release);
        if bindings {
            self.bindings.fetch_add(1, Release);
        }
    }

    /// Returns the count that decides whether a route is current: of all changes if the route looked queues up by name,
    /// otherwise of changes to bindings.
    #[inline]
    fn now(&self, by_queue_name: bool) -> u64 {
        if by_queue_name { self.all.load(Acquire) } else { self.bindings.load(Acquire) }
    }
}

/// The queues that messages with one exchange and routing key go to, as of the state of the catalog when the route was
/// made.
pub struct Route {
    generation: u64,
    by_queue_name: bool,
    /// The name of the exchange.
    pub exchange: Box<[u8]>,
    /// The routing key.
    pub routing_key: Box<[u8]>,
    /// Set if the route depends on the headers of a message: then it is valid for that message alone.
    pub by_headers: bool,
    /// The number of steps that finding the route took; a step takes about ten nanoseconds.
    pub steps: u64,
    /// The queues that exist in memory only.
    queues: SmallVec<[Arc<Queue>; 2]>,
    /// The queues whose messages are logged, by shard.
    shards: SmallVec<[ToShard; 1]>,
    /// The transient queues that live on other nodes, by node.
    away: Vec<ToNode>,
}

struct ToNode {
    node: u64,
    ids: Vec<QueueId>,
    /// One of these queues, which a publisher that is too fast can wait for.
    queue: Arc<Queue>,
}

struct ToShard {
    shard: Arc<Shard>,
    ids: SmallVec<[QueueId; 2]>,
    /// One of these queues, which a publisher that is too fast can wait for.
    queue: Arc<Queue>,
}

impl Route {
    /// Returns whether no queue gets the messages.
    pub fn is_unroutable(&self) -> bool {
        self.queues.is_empty() && self.shards.is_empty() && self.away.is_empty()
    }

    /// Returns the number of queues that get each message.
    pub fn recipients(&self) -> usize {
        let away: usize = self.away.iter().map(|to| to.ids.len()).sum();
        self.queues.len() + away + self.shards.iter().map(|to| to.ids.len()).sum::<usize>()
    }

    /// Returns about how many bytes of memory the route takes.
    pub fn memory_bytes(&self) -> usize {
        let names = self.exchange.len() + self.routing_key.len();
        ROUTE_BYTES + names + self.recipients() * size_of::<usize>() + self.shards.len() * size_of::<ToShard>()
    }

    /// Returns how many times a publish is confirmed: once for each shard that has to log it.
    pub fn confirms(&self) -> u32 {
        self.shards.len() as u32
    }
}

/// A run to publish: messages with one exchange and routing key, and their route.
pub struct RoutedRun<'m> {
    /// The route of the messages.
    pub route: &'m Route,
    /// The messages, in the order of their arrival.
    pub messages: &'m [Extent],
    /// The publisher that waits for the messages to be durable; `None` if nobody does.
    pub waiter: Option<Waiter>,
}

impl<'m> RoutedRun<'m> {
    fn publish(&self, bytes: &'m [u8]) -> Publish<'m> {
        let Route { exchange, routing_key, .. } = self.route;
        Publish { exchange, routing_key, bytes, messages: self.messages }
    }
}

/// The part of a publish that went to queues whose consumers, or whose log, cannot keep up.
pub struct Lag {
    /// One of these queues.
    pub queue: Arc<Queue>,
    /// The number of messages; a message that went to several such queues may be counted more than once.
    pub messages: u64,
    /// The bytes of the bodies of these messages.
    pub body_bytes: u64,
    /// Messages to the node that the queue lives on, which have to be sent first.
    pub(crate) sending: Option<OutgoingQueue>,
}

impl Lag {
    fn add<'l>(lag: &'l mut Option<Self>, queue: &Arc<Queue>, messages: &[Extent]) -> &'l mut Self {
        let lag = lag.get_or_insert_with(|| Self { queue: queue.clone(), messages: 0, body_bytes: 0, sending: None });
        lag.messages += messages.len() as u64;
        lag.body_bytes += messages.iter().map(|message| message.body.len() as u64).sum::<u64>();
        lag
    }
}

/// Memory that the node lends to a connection for cached routes; returned when this is dropped.
pub struct RouteMemory {
    broker: Broker,
    held: u64,
}

impl RouteMemory {
    /// Makes sure that at least `bytes` bytes are lent; an amount that was lent before is never reduced. Returns false, and
    /// changes nothing, if the node does not have that much.
    pub fn hold(&mut self, bytes: u64) -> bool {
        if bytes <= self.held {
            return true;
        }
        // The memory is lent in steps of 64 KiB, so that not every new route touches a counter that all connections share.
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
    /// Returns an account for the memory of cached routes, which is lent no memory yet.
    pub fn route_memory(&self) -> RouteMemory {
        RouteMemory { broker: self.clone(), held: 0 }
    }

    fn route_bytes_max(&self) -> u64 {
        (self.options().memory_max / ROUTE_MEMORY_PART).min(ROUTE_MEMORY_MAX)
    }

    /// Returns the route of messages with this exchange and routing key. `headers` are those of the message, if it has any.
    /// A queue whose declaration is not durable yet is not part of the route.
    ///
    /// # Errors
    /// The exchange does not exist or is internal, the CC or BCC headers are not arrays or have too many or too long keys,
    /// or the routing takes too many steps.
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
        let catalog::RouteProperties { by_headers, by_queue_name, steps } =
            self.catalog().route(vhost, exchange, routing_key, headers, &mut ids)?;
        let generation = generations[usize::from(by_queue_name)];
        let (mut queues, mut shards) = (SmallVec::new(), SmallVec::<[ToShard; 1]>::new());
        let mut away = Vec::<ToNode>::new();
        let known = self.queues();
        for queue in ids.iter().filter_map(|id| known.get(id)) {
            if let Some(node) = queue.away {
                match away.iter_mut().find(|to| to.node == node) {
                    Some(to) => to.ids.push(queue.id),
                    None => away.push(ToNode { node, ids: vec![queue.id], queue: queue.clone() }),
                }
                continue;
            }
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
        Ok(Route { generation, by_queue_name, exchange, routing_key, by_headers, steps, queues, shards, away })
    }

    /// Returns whether the route is current: nothing was declared, bound or deleted since it was made that may change it.
    #[inline]
    pub fn is_current(&self, route: &Route) -> bool {
        route.generation == self.node().generations.now(route.by_queue_name)
    }

    /// Puts messages into the queues that they go to. A queue that gets several runs is locked once, and its consumers are
    /// served when all runs are in. The waiter of a run is told [`confirms`](Route::confirms) times, once for each shard,
    /// when the messages are durable. Returns the part that went to queues whose consumers, or whose log, cannot keep up;
    /// `None` if all can.
    pub fn publish(&self, bytes: &[u8], routed: &[RoutedRun<'_>]) -> Option<Lag> {
        self.mark_activity();
        let mut lag = None;
        for run in routed {
            if let Some((queue, sending)) = self.publish_away(run.route, &run.publish(bytes)) {
                Lag::add(&mut lag, &queue, run.messages).sending = Some(sending);
            }
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
                runs.for_each(|run| {
                    Lag::add(&mut lag, queue, run.messages);
                });
            }
        }
        lag
    }

    /// Like [`publish`](Self::publish), for a route to very many queues: lets other tasks have a turn after each
    /// [`PART_QUEUES`] queues. The log comes last, so that a waiter that is told by the log knows that all queues have the
    /// messages.
    pub async fn publish_in_parts(&self, bytes: &[u8], routed: RoutedRun<'_>) -> Option<Lag> {
        let publish = routed.publish(bytes);
        let (mut behind, mut sending) = self.publish_away(routed.route, &publish).unzip();
        for part in routed.route.queues.chunks(PART_QUEUES) {
            self.mark_activity();
            behind = self.publish_to_queues(part, &publish).or(behind);
            tokio::task::yield_now().await;
        }
        let behind = behind.or(Self::publish_to_shards(routed.route, &publish, routed.waiter.as_ref()))?;
        let mut lag = None;
        Lag::add(&mut lag, &behind, routed.messages).sending = sending.take();
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

    /// Sends messages to the nodes that their transient queues live on. Nothing is lost unless a connection breaks.
    fn publish_away(&self, route: &Route, publish: &Publish<'_>) -> Option<(Arc<Queue>, OutgoingQueue)> {
        let mut behind = None;
        for to in &route.away {
            let links = self.node().links()?;
            for (ids, messages) in entry::pieces(&to.ids, publish.messages) {
                let mut message = Vec::new();
                entry::enqueue(&mut message, ids, &Publish { messages, ..*publish });
                links.fronts.outgoing.send(to.node, AWAY_CHANNEL, message.into());
            }
            if let Some(full) = links.fronts.outgoing.full(to.node) {
                behind = Some((to.queue.clone(), full));
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

/// Puts messages into a queue and serves its consumers. Returns whether the consumers, or the log, cannot keep up.
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

/// Takes the messages that other nodes send to transient queues of this one.
pub(crate) struct AwayMessages(pub(crate) Weak<Node>);

impl PeerMessages for AwayMessages {
    fn received(&self, from: u64, _channel: u8, message: Bytes) {
        let Some(node) = self.0.upgrade() else { return };
        let broker = Broker(node);
        let now = broker.clock().now();
        let known = entry::operation(&message, |operation| {
            let Operation::Enqueue { queues, run, .. } = operation else { return };
            let Some(StoredRun { exchange, routing_key, messages }) = StoredRun::read(&run) else { return };
            let publish = Publish { exchange, routing_key, bytes: &run, messages: &messages };
            let queues = queues.into_iter().filter_map(|id| broker.queue(id));
            for queue in queues.filter(|queue| queue.shards.is_none() && queue.away.is_none()) {
                enter(&queue, std::iter::once(publish), now);
            }
        });
        if known.is_none() {
            tracing::warn!(from, "messages of another node for transient queues are not known");
        }
    }
}

/// The channel between nodes for messages to transient queues.
pub(crate) const AWAY_CHANNEL: u8 = 5;
/// The number of queues that a message is put into before other tasks have a turn.
pub const PART_QUEUES: usize = 4096;
/// The memory of a route in bytes, as the allocator rounds it, without the memory that it points to.
const ROUTE_BYTES: usize = 192;
/// Cached routes may take this part of the memory budget, and at most this many bytes.
const ROUTE_MEMORY_PART: u64 = 16;
const ROUTE_MEMORY_MAX: u64 = 64 << 20;
const ROUTE_MEMORY_STEP: u64 = 64 << 10;

#[cfg(test)]
#[path = "publish_tests.rs"]
mod tests;
