//! Consumers on other nodes than the one that leads their queue.
//!
//! A node with consumers of a queue that it does not lead is a *front*: it tells the leader how many messages its consumers
//! can take, the leader grants that many, and the front delivers them from its own copy of the queue. What consumers settle
//! or return goes into the log from where they are. See engine's `front` for the rules, and `grants` for the messages.
//!
//! The leader has one consumer in the queue for each front ([`NodeSink`]). If a front ends, or cannot be reached for long,
//! what was granted to it and is not settled is ready again.
use crate::grants::{CHANNEL, GrantMessage};
use crate::node_sink::{GrantedToNode, NodeSink};
use crate::outgoing::Outgoing;
use crate::queue::{Queue, QueueVisit};
use crate::replica::{ReplicaQueue, Replicas};
use crate::shards::Shards;
use crate::{Broker, Node};
use bytes::Bytes;
use leveret_engine::queue::{ExclusiveUse, Subscription, Want};
use leveret_model::refusal::Refusal;
use leveret_replication::{GroupId, GroupLeader, Groups, LinkDirection, PeerMessages};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// The fronts of this node, and those of other nodes for queues that this node leads.
pub(crate) struct Fronts {
    pub(crate) node: Weak<Node>,
    pub(crate) shards: Arc<Shards>,
    pub(crate) replicas: Arc<Replicas>,
    pub(crate) groups: Groups,
    pub(crate) outgoing: Outgoing,
}

impl Fronts {
    /// Serves the consumers of a group's queues through the node that leads the group now. To be called whenever that is
    /// another node.
    pub(crate) fn led_by(&self, group: GroupId, leader: GroupLeader) {
        if group == 0 {
            return;
        }
        let shard = self.shards.shard_of(group);
        shard.set_front(leader.term);
        for ReplicaQueue { queue, .. } in self.replicas.of(group).queues() {
            let mut entered = queue.enter();
            // This node may have begun to lead meanwhile, which comes last then.
            if shard.term().is_none() && !queue.is_deleted() && !entered.is_front_in(leader.term) {
                queue.drop_nodes(&mut entered);
                entered.front(leader.term);
            }
        }
    }

    /// Tells all nodes that this node has begun to lead a group, so that they say what they want.
    pub(crate) fn began(&self, group: GroupId, term: u64) {
        let message = GrantMessage::Began { group, term }.encode();
        let members = self.groups.status(group).members.into_keys();
        for node in members.filter(|node| *node != self.outgoing.peers.node()) {
            self.outgoing.send(node, CHANNEL, message.clone());
        }
    }

    /// Tells the leader of a queue what its consumers here want, if the leader does not know. Returns false if that has to
    /// be said later, because it is not known who leads. The queue then stays on the list of those that want something if
    /// it is on it: with each visit it would be put there again.
    pub(crate) fn say(&self, queue: &Queue, again: bool) -> bool {
        let group = self.shards.shard(queue.id).group;
        let mut entered = queue.enter();
        let has_want = again || entered.has_want();
        let leader = self.groups.leader(group).filter(|leader| leader.term == entered.epoch());
        if has_want && entered.is_front() && leader.is_none() {
            return false;
        }
        queue.others.wants.store(false, Relaxed);
        // Sent while the queue is locked: wants of one queue arrive in the order in which they were taken.
        if let (true, Some(leader), Some(want)) = (has_want, leader, entered.take_want()) {
            let message = GrantMessage::Want { queue: queue.id, want, again };
            self.outgoing.send(leader.node, CHANNEL, message.encode());
        }
        true
    }

    /// Tells again what the consumers want of the queues of a group, or of those that `node` leads.
    fn say_again(&self, of: impl Fn(GroupId) -> bool) {
        for shard in self.shards.list.iter().filter(|shard| shard.term().is_none() && of(shard.group)) {
            for ReplicaQueue { queue, .. } in self.replicas.of(shard.group).queues() {
                if queue.look(|queue| queue.has_wanted() || queue.is_front() && queue.consumers().len() > 0) {
                    queue.enter().is_expected(); // what was said last may be lost
                    self.say(&queue, true);
                }
            }
        }
    }

    /// Sends a node again what was granted to it and is not known to have arrived: messages to it may be lost until there is
    /// a connection to it, even if there is one from it.
    fn grant_again(&self, node: u64) {
        for shard in self.shards.list.iter().filter(|shard| shard.term().is_some()) {
            for ReplicaQueue { queue, .. } in self.replicas.of(shard.group).queues() {
                let sink = queue.others.sinks.lock().get(&node).cloned();
                if let Some(sink) = sink {
                    sink.send_again();
                }
            }
        }
    }

    fn received(&self, from: u64, message: &[u8]) {
        let Some(broker) = self.node.upgrade().map(Broker) else { return };
        match GrantMessage::decode(message) {
            Some(GrantMessage::Want { queue, want, again }) => {
                if let Some(queue) = broker.queue(queue).filter(|queue| queue.shards.is_some()) {
                    self.wanted(&broker, from, &queue, want, again);
                }
            }
            Some(GrantMessage::Grants { queue, epoch, from, grants }) => {
                if let Some(queue) = broker.queue(queue).filter(|queue| !queue.is_deleted()) {
                    let mut entered = queue.enter();
                    let is_whole = entered.take_grants(epoch, from, &grants);
                    entered.dispatch(broker.clock().now());
                    drop(entered);
                    if !is_whole {
                        self.say(&queue, true);
                    }
                }
            }
            Some(GrantMessage::Began { group, term }) => {
                let is_leader = self.groups.leader(group) == Some(GroupLeader { node: from, term });
                self.say_again(|other| other == group && is_leader);
            }
            None => tracing::warn!(from, "a message of another node about consumers is not known"),
        }
    }

    /// Serves the consumers of another node, which wants messages of a queue.
    fn wanted(&self, broker: &Broker, from: u64, queue: &Arc<Queue>, want: Want, again: bool) {
        if self.shards.shard(queue.id).term() != Some(want.epoch) {
            return; // it will be told who leads
        }
        let mut entered = queue.enter();
        if queue.is_deleted() || !entered.is_led_in(want.epoch) {
            return;
        }
        let mut known = queue.others.sinks.lock().get(&from).cloned();
        if known.take_if(|sink| sink.is_of_another_start(want)).is_some() {
            lose(queue, &mut entered, from);
        }
        if want.consumers == 0 {
            // The numbers of its grants go on if it has consumers again.
            if let Some(sink) = known {
                sink.want(want, again);
                end(&sink, &mut entered);
                admit(queue, &mut entered);
                entered.dispatch(broker.clock().now());
            }
            drop(entered);
            self.consumer_left(broker, queue);
            return;
        }
        let sink = match known {
            Some(sink) => sink,
            None => self.begin(from, queue, want.received, want.exclusive, want.epoch),
        };
        sink.want(want, again);
        if subscribe(&sink, &mut entered).is_err() {
            return; // a consumer of another node was faster
        }
        let id = *sink.id.lock();
        if let Some(id) = id {
            entered.drained(id, broker.clock().now());
        }
    }

    /// Deletes an auto-delete queue whose last consumer was on another node.
    fn consumer_left(&self, broker: &Broker, queue: &Arc<Queue>) {
        if queue.auto_delete {
            let (broker, queue) = (broker.clone(), queue.clone());
            self.outgoing.peers.spawn(async move { broker.consumer_left(&queue).await });
        }
    }

    /// Adds what stands for the consumers of another node, which has received `received` grants of the epoch.
    fn begin(&self, from: u64, queue: &Queue, received: u64, exclusive: bool, epoch: u64) -> Arc<NodeSink> {
        let (granted, id) = (Mutex::new(GrantedToNode::after(received)), Mutex::new(None));
        let (exclusive, consumers) = (AtomicBool::new(exclusive), AtomicU32::new(0));
        let outgoing = self.outgoing.clone();
        let sink =
            Arc::new(NodeSink { node: from, queue: queue.id, epoch, exclusive, consumers, outgoing, id, granted });
        queue.others.sinks.lock().insert(from, sink.clone());
        sink
    }

    /// Lets another node have consumers of a queue that this node leads. Returns false, and does nothing, if it was not that
    /// `start` of the node from which the last messages came.
    ///
    /// # Errors
    /// The queue has an exclusive consumer, or has consumers while this one wants to be exclusive, or was deleted.
    pub(crate) fn claim(
        &self,
        from: u64,
        start: Option<KnownStart>,
        queue: &Queue,
        exclusive: bool,
        received: u64,
    ) -> Result<bool, Refusal> {
        let mut entered = queue.enter();
        if queue.is_deleted() {
            return Err(queue.not_found());
        }
        if !entered.is_leading() {
            return Ok(false);
        }
        // What that start has is lost when another is noted, queue by queue: this one may have had its turn.
        if self.node.upgrade().is_none_or(|node| node.network.starts.of(from) != start) {
            return Ok(false);
        }
        let known = queue.others.sinks.lock().get(&from).cloned();
        let sink = known.unwrap_or_else(|| self.begin(from, queue, received, exclusive, entered.epoch()));
        let has_consumers = sink.id.lock().is_some();
        let claimed = match has_consumers {
            true if exclusive || sink.exclusive.load(Relaxed) => Err(ExclusiveUse),
            true => Ok(()),
            false => {
                sink.exclusive.store(exclusive, Relaxed);
                subscribe(&sink, &mut entered)
            }
        };
        claimed.map(|()| true).map_err(|ExclusiveUse| queue.in_exclusive_use())
    }

    /// Has everything that was granted to a node and is not settled ready again: the node has ended or cannot be reached.
    fn expel(&self, gone: u64) {
        let Some(broker) = self.node.upgrade().map(Broker) else { return };
        for shard in self.shards.list.iter().filter(|shard| shard.term().is_some()) {
            for ReplicaQueue { queue, .. } in self.replicas.of(shard.group).queues() {
                let mut entered = queue.enter();
                let had_consumers = lose(&queue, &mut entered, gone);
                admit(&queue, &mut entered);
                entered.dispatch(broker.clock().now());
                drop(entered);
                if had_consumers {
                    self.consumer_left(&broker, &queue);
                }
            }
        }
    }

    /// Watches a node that there is no connection to.
    async fn watch(self: Arc<Self>, node: u64) {
        let (peers, mut unconnected, mut connected) = (&self.outgoing.peers, 0, 0);
        while unconnected < UNREACHABLE_LOOKS && !peers.is_gone(node) {
            tokio::time::sleep(UNREACHABLE_MAX / UNREACHABLE_LOOKS).await;
            if !peers.is_connected(node) {
                (unconnected, connected) = (unconnected + 1, 0);
            } else if connected < CONNECTED_LOOKS {
                connected += 1; // its other connections may be about to end
            } else {
                return;
            }
        }
        if let Some(here) = self.node.upgrade() {
            here.network.starts.give_up(node);
        }
        self.expel(node);
    }
}

/// Has the consumers of another node served. Does nothing if they are.
fn subscribe(sink: &Arc<NodeSink>, entered: &mut QueueVisit<'_>) -> Result<(), ExclusiveUse> {
    if sink.id.lock().is_some() {
        return Ok(());
    }
    let exclusive = sink.exclusive.load(Relaxed);
    entered.subscribe(Subscription { sink: sink.clone(), exclusive, no_ack: false, prefetch: 0 }).map(drop)
}

/// Has the consumers of other nodes served that were refused earlier. To be called when consumers have left.
pub(crate) fn admit(queue: &Queue, entered: &mut QueueVisit<'_>) {
    let waiting: Vec<_> = queue.others.sinks.lock().values().filter(|sink| sink.waits()).cloned().collect();
    for sink in waiting {
        if subscribe(&sink, entered).is_err() {
            return; // the one before is there alone, or wants to be
        }
    }
}

/// Notes that another node has no consumers any more. Returns whether it had some.
fn end(sink: &NodeSink, entered: &mut QueueVisit<'_>) -> bool {
    let id = sink.id.lock().take();
    id.is_some_and(|id| entered.unsubscribe(id))
}

/// Forgets another node, which has ended or cannot be reached, and has everything returned that was granted to it. Returns
/// whether it had consumers.
fn lose(queue: &Queue, entered: &mut QueueVisit<'_>, gone: u64) -> bool {
    let left = queue.others.sinks.lock().remove(&gone);
    entered.return_granted(gone);
    left.is_some_and(|sink| end(&sink, entered))
}

impl Queue {
    /// Ends the consumers that stand for those of other nodes: this node does not lead the queue any more.
    pub(crate) fn drop_nodes(&self, entered: &mut QueueVisit<'_>) {
        let nodes = std::mem::take(&mut *self.others.sinks.lock());
        for sink in nodes.values() {
            end(sink, entered);
        }
    }
}

/// The start of each other node from which the last messages came.
#[derive(Default)]
pub(crate) struct KnownStarts(Mutex<BTreeMap<u64, KnownStart>>);

/// A start of another node, until what was granted to it is taken back: then it counts as another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KnownStart {
    boot: u64,
    /// The number of times that it was given up because it could not be reached.
    given_up: u64,
}

impl KnownStarts {
    /// Returns the start of a node from which messages come now; `None` if there were none.
    pub(crate) fn of(&self, node: u64) -> Option<KnownStart> {
        self.0.lock().get(&node).copied()
    }

    /// Notes that messages come from a start of a node. Returns whether they came from another one before.
    fn begin(&self, node: u64, boot: u64) -> bool {
        let mut starts = self.0.lock();
        let known = starts.get(&node).copied();
        if known.is_none_or(|known| known.boot != boot) {
            starts.insert(node, KnownStart { boot, given_up: 0 });
        }
        known.is_some_and(|known| known.boot != boot)
    }

    /// Notes that everything granted to a node is about to be taken back.
    pub(crate) fn give_up(&self, node: u64) {
        if let Some(start) = self.0.lock().get_mut(&node) {
            start.given_up += 1;
        }
    }
}

/// Takes the messages of other nodes about consumers, once storage is open.
pub(crate) struct FrontMessages(pub(crate) Weak<Node>);

impl FrontMessages {
    fn with(&self, each: impl FnOnce(&Arc<Fronts>)) {
        let node = self.0.upgrade();
        if let Some(links) = node.as_ref().and_then(|node| node.links()) {
            each(&links.fronts);
        }
    }
}

impl PeerMessages for FrontMessages {
    fn received(&self, from: u64, _channel: u8, message: Bytes) {
        self.with(|fronts| fronts.received(from, &message));
    }

    fn connected(&self, node: u64, boot: u64, direction: LinkDirection) {
        // All messages of an earlier start of the node have come before this, and none of this start has.
        let here = self.0.upgrade().filter(|_| direction == LinkDirection::Incoming);
        let is_another = here.is_some_and(|here| here.network.starts.begin(node, boot));
        self.with(|fronts| {
            if is_another {
                fronts.expel(node);
            }
            let leads = |group| fronts.groups.leader(group).is_some_and(|leader| leader.node == node);
            fronts.say_again(leads);
            if direction == LinkDirection::Outgoing {
                fronts.grant_again(node);
            }
        });
    }

    fn disconnected(&self, node: u64, _boot: u64, _direction: LinkDirection) {
        self.with(|fronts| fronts.outgoing.peers.spawn(fronts.clone().watch(node)));
    }
}

/// A node that cannot be reached for this time loses what was granted to it.
const UNREACHABLE_MAX: Duration = Duration::from_secs(5);
/// The number of times that a node is looked at meanwhile.
const UNREACHABLE_LOOKS: u32 = 50;
/// The number of looks in a row at which a node has to be connected so that it is not watched any longer.
const CONNECTED_LOOKS: u32 = 10;
