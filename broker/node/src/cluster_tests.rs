//! Three nodes in one process, each with a disk of its own and real connections between them: what was confirmed is on all
//! of them, and the node that leads next serves it.
use crate::ask_messages::{Asked, QueueAsk};
use crate::fronts::KnownStart;
use crate::identity::NodeIdentity;
use crate::test_node::{TestNode, open_storage};
use crate::test_wires::{Cut, CutWires};
use crate::*;
use bytes::Bytes;
use leveret_engine::catalog::QueueDeclare;
use leveret_journal::faulty::FaultyDisk;
use leveret_replication::{GroupId, GroupMember, LinkTimes, PeersOptions, TcpWires};
use std::collections::BTreeMap;

/// Opens the node that listens on `wires`.
pub(crate) async fn open(node: u64, disk: &FaultyDisk, wires: TcpWires, cut: &Arc<Cut>) -> TestNode {
    let options = PeersOptions {
        node,
        cluster: 7,
        boot: rand::random(),
        secret: Bytes::from_static(b"a secret of the tests"),
        frame_bytes_max: 2 << 20,
        message_bytes_max: 8 << 20,
        times: LinkTimes::default(),
    };
    let wires = Arc::new(CutWires { wires, cut: cut.clone() });
    open_storage(Arc::new(disk.clone()), u64::MAX / 2, None, Some((options, wires))).await.unwrap()
}

/// The nodes that run, by identity, and the disks and addresses of all.
pub(crate) struct Cluster {
    pub(crate) nodes: BTreeMap<u64, TestNode>,
    pub(crate) disks: BTreeMap<u64, FaultyDisk>,
    pub(crate) members: BTreeMap<u64, GroupMember>,
    pub(crate) cuts: BTreeMap<u64, Arc<Cut>>,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let (mut wires, mut members) = (BTreeMap::new(), BTreeMap::new());
        for node in 1..=3 {
            let wire = TcpWires::listen("127.0.0.1:0").await.unwrap();
            members.insert(node, GroupMember { address: wire.local_address().unwrap().to_string() });
            wires.insert(node, wire);
        }
        let (mut nodes, mut disks, mut cuts) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (node, wire) in wires {
            let disk = FaultyDisk::new(node);
            let identity = NodeIdentity { node, segment_bytes: 2 << 20, log_made: false };
            identity.write(&disk).unwrap();
            let cut = Arc::new(Cut::default());
            nodes.insert(node, open(node, &disk, wire, &cut).await);
            disks.insert(node, disk);
            cuts.insert(node, cut);
        }
        for node in nodes.values() {
            for group in 0..node.storage().groups.len() {
                node.storage().groups.initialize(group, members.clone()).await.unwrap();
            }
        }
        Self { nodes, disks, members, cuts }
    }

    /// Cuts the power of a node.
    pub(crate) async fn cut(&mut self, node: u64) {
        self.disks[&node].crash();
        self.nodes.remove(&node).unwrap().end().await;
    }

    /// Starts a node again that was cut off.
    pub(crate) async fn start_again(&mut self, node: u64) {
        // The tasks of the node that was cut off may still have to end.
        let listen = async || loop {
            match TcpWires::listen(&self.members[&node].address).await {
                Ok(wires) => return wires,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        let wires = tokio::time::timeout(Duration::from_secs(30), listen()).await.unwrap();
        let again = open(node, &self.disks[&node], wires, &self.cuts[&node]).await;
        self.nodes.insert(node, again);
    }

    /// Returns the node that all others agree leads the group.
    pub(crate) async fn leader(&self, group: GroupId) -> u64 {
        let leaders = || self.nodes.values().map(|node| node.storage().groups.leader(group).map(|leader| leader.node));
        let agreed = || leaders().next().flatten().filter(|first| self.nodes.contains_key(first));
        let (_, any) = self.nodes.first_key_value().unwrap();
        any.until("all agree on a leader", || agreed().is_some() && leaders().all(|leader| leader == agreed())).await;
        agreed().unwrap()
    }

    /// Has one node lead all groups.
    pub(crate) async fn all_led_by(&self, node: u64) {
        for group in 0..self.nodes[&node].storage().groups.len() {
            for _ in 0..200 {
                let leader = self.leader(group).await;
                if leader == node || self.nodes[&leader].storage().groups.transfer(group, node).await.is_ok() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await; // it may not be connected or up to date yet
            }
            assert_eq!(self.leader(group).await, node);
        }
    }

    /// Stops all nodes in order. None of them may have failed.
    pub(crate) async fn close(self) {
        for (_, node) in self.nodes {
            assert_eq!(node.failure.lock().take(), None);
            node.close().await;
        }
    }

    /// Waits until all nodes have a queue with the same messages, `count` of them.
    pub(crate) async fn equal(&self, id: QueueId, count: u64) {
        let held = |node: &TestNode| {
            let queue = node.broker.queue(id)?;
            Some(
                queue
                    .look(|state| (state.digest(), state.next_sequence(), state.depth().ready + state.depth().unacked)),
            )
        };
        let (_, any) = self.nodes.first_key_value().unwrap();
        let equal = || {
            let all: Vec<_> = self.nodes.values().map(held).collect();
            all.iter().all(|one| one.is_some_and(|(_, _, messages)| messages == count) && *one == all[0])
        };
        any.until("all nodes hold the same messages", equal).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_confirmed_is_served_by_the_node_that_leads_next() {
    let mut cluster = Cluster::start().await;
    cluster.all_led_by(1).await;
    let first = &cluster.nodes[&1];
    let (queue, other) = (first.declare("q").await, first.declare("other").await);
    first.publish_one_by_one(&queue, 0..200, 1_000).await;
    first.publish_one_by_one(&other, 0..20, 1_000).await;
    cluster.equal(queue.id, 200).await;
    // Some messages are acknowledged, one is returned, one is out when the node ends.
    let sink = test_node::Taker::default();
    for _ in 0..12 {
        assert!(first.broker.get(&Caller::system(), &queue, &sink, false).await.unwrap());
    }
    queue.enter().acknowledge(None, 0, 10);
    let returned = sink.taken.lock()[10].0;
    queue.enter().give_back(None, returned);
    cluster.equal(queue.id, 190).await;
    cluster.equal(other.id, 20).await;
    let (id, group) = (queue.id, first.shards().shard(queue.id).group);
    cluster.nodes.remove(&1).unwrap().close().await;
    let next = cluster.leader(group).await;
    let node = &cluster.nodes[&next];
    let queue = node.broker.queue(id).unwrap();
    node.until("the queue is served", || node.shards().shard_of(group).term().is_some()).await;
    assert_eq!(queue.look(|state| state.depth().ready), 190);
    assert_eq!(node.broker.find_queue(&Caller::system(), "/", "q").map(|queue| queue.id), Ok(id));
    assert_eq!(node.drain(&queue).await, (10..200).collect::<Vec<_>>());
    node.publish_one_by_one(&queue, 300..310, 1_000).await;
    assert_eq!(node.drain(&queue).await, (300..310).collect::<Vec<_>>());
    cluster.equal(id, 0).await;
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_confirmed_survives_the_power_of_the_leader_and_comes_back_to_it() {
    let mut cluster = Cluster::start().await;
    cluster.all_led_by(1).await;
    let first = &cluster.nodes[&1];
    let queue = first.declare("q").await;
    let (id, group) = (queue.id, first.shards().shard(queue.id).group);
    let confirmed = Arc::new(test_node::Confirmed::default());
    for number in 0..2_000 {
        first.publish(&[id], number..number + 1, 1_000, &confirmed);
        if number % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    first.until("some are confirmed", || *confirmed.0.lock() > 500).await;
    cluster.cut(1).await;
    let promised = *confirmed.0.lock();
    let next = cluster.leader(group).await;
    let node = &cluster.nodes[&next];
    let queue = node.broker.queue(id).unwrap();
    node.until("the queue is served", || node.shards().shard_of(group).term().is_some()).await;
    let there = queue.look(|state| state.next_sequence());
    assert!(there >= promised, "{there} of {promised} confirmed messages are left");
    cluster.equal(id, there).await;
    cluster.start_again(1).await;
    cluster.equal(id, there).await;
    let node = &cluster.nodes[&next];
    assert_eq!(node.drain(&queue).await, (0..there).collect::<Vec<_>>());
    cluster.equal(id, 0).await;
    cluster.close().await;
}

fn declaration(durable: bool, exclusive: bool) -> QueueDeclare {
    QueueDeclare { durable, exclusive, ..QueueDeclare::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_are_decided_in_one_order_and_answered_where_they_were_asked_for() {
    let mut cluster = Cluster::start().await;
    cluster.all_led_by(1).await;
    let caller = Caller::system();
    // All nodes declare the same names at once, each in its own way.
    let mut declared = Vec::new();
    for (at, node) in &cluster.nodes {
        for name in 0..20 {
            let (broker, caller, durable) = (node.broker.clone(), caller.clone(), at % 2 == 0);
            let declare = async move {
                broker.declare_queue(&caller, "/", &format!("q{name}"), declaration(durable, false)).await
            };
            declared.push((name, durable, tokio::spawn(declare)));
        }
    }
    let mut created = BTreeMap::<_, Vec<(QueueId, bool)>>::new();
    for (name, durable, declared) in declared {
        match declared.await.unwrap() {
            Ok((true, queue)) => created.entry(name).or_default().push((queue.id, durable)),
            Ok((false, _)) => {}
            Err(refusal) => assert!(refusal.text.contains("inequivalent arg 'durable'"), "{refusal}"),
        }
    }
    assert_eq!(created.len(), 20);
    for (name, created) in created {
        let [(id, durable)] = created[..] else { panic!("q{name} was created {} times", created.len()) };
        for node in cluster.nodes.values() {
            node.until("all nodes know", || node.broker.catalog().queue_id("/", &format!("q{name}")) == Some(id)).await;
            let found = node.broker.find_queue(&caller, "/", &format!("q{name}"));
            assert_eq!(found.map(|queue| queue.id), Ok(id), "durable: {durable}");
        }
    }
    // What lives on a node ends with it.
    let connection = test_node::connection(&cluster.nodes[&3].broker);
    let owner = Caller { origin: catalog::Origin::Connection(connection.id), ..Caller::system() };
    let node = &cluster.nodes[&3];
    let (_, own) = node.broker.declare_queue(&owner, "/", "own", declaration(false, true)).await.unwrap();
    let first = &cluster.nodes[&1];
    first.until("another node knows", || first.broker.catalog().queue_id("/", "own") == Some(own.id)).await;
    let locked = first.broker.declare_queue(&caller, "/", "own", declaration(false, false)).await.err().unwrap();
    assert!(locked.text.contains("locked"), "{locked}");
    cluster.cut(3).await;
    cluster.start_again(3).await;
    let first = &cluster.nodes[&1];
    first.until("it is gone", || first.broker.catalog().queue_id("/", "own").is_none()).await;
    let facts = |node: &TestNode| node.broker.catalog().facts();
    let equal = || cluster.nodes.values().all(|node| facts(node) == facts(first));
    first.until("all have the same definitions", equal).await;
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_anywhere_is_confirmed_once_also_when_the_leader_loses_its_power() {
    let mut cluster = Cluster::start().await;
    cluster.all_led_by(1).await;
    let queue = cluster.nodes[&2].declare("q").await;
    let (id, group) = (queue.id, queue.shards.as_ref().unwrap().shard(queue.id).group);
    for node in cluster.nodes.values() {
        node.until("all know the queue", || node.broker.queue(id).is_some()).await;
    }
    const EACH: u64 = 3_000;
    let confirmed: Vec<_> = (0..2).map(|_| Arc::new(test_node::Confirmed::default())).collect();
    let mut cut = false;
    for number in 0..EACH {
        for (node, confirmed) in [2, 3].into_iter().zip(&confirmed) {
            let from = node * 1_000_000 + number;
            cluster.nodes[&node].publish(&[id], from..from + 1, 300, confirmed);
        }
        if number % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if number == EACH / 2 && !cut {
            cut = true;
            cluster.cut(1).await;
        }
    }
    let second = &cluster.nodes[&2];
    second.until("all is confirmed", || confirmed.iter().all(|confirmed| *confirmed.0.lock() == EACH)).await;
    cluster.equal(id, 2 * EACH).await;
    cluster.start_again(1).await;
    cluster.equal(id, 2 * EACH).await;
    let leader = cluster.leader(group).await;
    let node = &cluster.nodes[&leader];
    node.until("the queue is served", || node.shards().shard_of(group).term().is_some()).await;
    let all = node.drain(&node.broker.queue(id).unwrap()).await;
    for node in [2, 3] {
        let of_node: Vec<u64> = all.iter().copied().filter(|number| number / 1_000_000 == node).collect();
        assert_eq!(of_node, (node * 1_000_000..node * 1_000_000 + EACH).collect::<Vec<_>>(), "of node {node}");
    }
    cluster.equal(id, 0).await;
    cluster.close().await;
}

/// Subscribes a consumer that acknowledges nothing. Returns what it takes.
fn subscribe(node: &TestNode, queue: &Queue, prefetch: u32) -> (ConsumerId, Arc<test_node::Taker>) {
    let sink = Arc::new(test_node::Taker::default());
    let subscription = Subscription { sink: sink.clone(), exclusive: false, no_ack: false, prefetch };
    (node.broker.subscribe(&Caller::system(), queue, subscription).unwrap(), sink)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_of_all_nodes_share_a_queue_and_what_one_of_them_held_is_ready_again() {
    let mut cluster = Cluster::start().await;
    cluster.all_led_by(1).await;
    let id = cluster.nodes[&1].declare("q").await.id;
    for node in cluster.nodes.values() {
        node.until("all know the queue", || node.broker.queue(id).is_some()).await;
    }
    let queue = |node: u64| cluster.nodes[&node].broker.queue(id).unwrap();
    let [one, two, three] = [1, 2, 3].map(|node| subscribe(&cluster.nodes[&node], &queue(node), 10));
    cluster.nodes[&3].publish_one_by_one(&queue(3), 0..100, 500).await;
    let first = &cluster.nodes[&1];
    let taken = |sink: &test_node::Taker| sink.taken.lock().len();
    first.until("all have what they may", || [&one, &two, &three].iter().all(|(_, sink)| taken(sink) == 10)).await;
    assert_eq!(queue(1).look(|queue| (queue.depth().ready, queue.depth().unacked)), (70, 30));
    // Each acknowledges what it has, and gets more.
    for (node, (consumer, sink)) in [(1, &one), (2, &two), (3, &three)] {
        let sequences: Vec<u64> = sink.taken.lock().iter().map(|(id, _)| id.message.sequence).collect();
        let queue = queue(node);
        let mut entered = queue.enter();
        sequences.iter().for_each(|sequence| entered.acknowledge(Some(*consumer), *sequence, 1));
        entered.dispatch(0);
    }
    first.until("all have more", || [&one, &two, &three].iter().all(|(_, sink)| taken(sink) == 20)).await;
    first.until("what was acknowledged is gone", || queue(1).look(|queue| queue.depth().ready) == 40).await;
    let mut seen: Vec<u64> = Vec::new();
    for (_, sink) in [&one, &two, &three] {
        seen.extend(sink.taken.lock().iter().map(|(id, _)| id.message.sequence));
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..60).collect::<Vec<_>>(), "each message went to one of them");
    // A consumer leaves; what it held is returned where it is, and counts once.
    let held: Vec<DeliveryId> = two.1.taken.lock()[10..].iter().map(|(id, _)| *id).collect();
    cluster.nodes[&2].broker.unsubscribe(&queue(2), two.0);
    held.iter().for_each(|id| queue(2).enter().give_back(None, *id));
    first.until("it is ready again", || queue(1).look(|queue| queue.depth().ready) == 50).await;
    // A node loses its power: what its consumer held is ready again, too.
    let [(_, one), (_, three)] = [one, three];
    cluster.cut(3).await;
    let first = &cluster.nodes[&1];
    let queue = first.broker.queue(id).unwrap();
    first.until("that is ready again", || queue.look(|queue| queue.depth().ready) == 60).await;
    assert_eq!((taken(&one), taken(&three)), (20, 20));
    first.broker.unsubscribe(&queue, ConsumerId(0));
    let second = &cluster.nodes[&2];
    let (_, all) = subscribe(second, &second.broker.queue(id).unwrap(), 0);
    second.until("the rest is delivered elsewhere", || taken(&all) == 60).await;
    assert_eq!(queue.look(|queue| (queue.depth().ready, queue.depth().unacked)), (0, 70));
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_any_node_gets_purges_and_deletes_and_has_a_queue_for_itself() {
    let cluster = Cluster::start().await;
    cluster.all_led_by(1).await;
    let caller = Caller::system();
    let first = &cluster.nodes[&1];
    let second = &cluster.nodes[&2];
    let (_, queue) = second.broker.declare_queue(&caller, "/", "q", declaration(true, false)).await.unwrap();
    second.publish_one_by_one(&queue, 0..10, 500).await;
    let depth = |depth: Depth| (depth.ready, depth.unacked, depth.consumers);
    assert_eq!(second.broker.depth(&queue).await.map(depth), Ok((10, 0, 0)));
    let taker = test_node::Taker::default();
    for no_ack in [true, false, false] {
        assert_eq!(second.broker.get(&caller, &queue, &taker, no_ack).await, Ok(true));
    }
    let taken: Vec<(u64, Vec<u8>)> =
        taker.taken.lock().iter().map(|(id, body)| (id.message.sequence, body.clone())).collect();
    assert_eq!(taken, (0..3u64).map(|number| (number, number.to_be_bytes().to_vec())).collect::<Vec<_>>());
    // One is acknowledged, the other returned, where the client is.
    let [acknowledged, returned] = [1, 2].map(|at| taker.taken.lock()[at].0);
    queue.enter().acknowledge(None, acknowledged.message.sequence, 1);
    queue.enter().give_back(None, returned);
    let at_leader = first.broker.queue(queue.id).unwrap();
    first.until("both is known", || at_leader.look(|queue| depth(queue.depth()) == (8, 0, 0))).await;
    // A request whose client has gone leaves nothing behind.
    for polls in 1..8 {
        let mut get = std::pin::pin!(second.broker.get(&caller, &queue, &taker, false));
        for _ in 0..polls {
            tokio::select! {
                biased;
                _ = &mut get => break,
                () = tokio::task::yield_now() => {}
            }
        }
    }
    let held = taker.taken.lock().len() as u64 - 3;
    first.until("it is given back", || at_leader.look(|queue| depth(queue.depth()) == (8 - held, held, 0))).await;
    let held: Vec<DeliveryId> = taker.taken.lock()[3..].iter().map(|(id, _)| *id).collect();
    held.into_iter().for_each(|id| queue.enter().give_back(None, id));
    first.until("all are ready", || at_leader.look(|queue| depth(queue.depth()) == (8, 0, 0))).await;
    // An exclusive consumer has the queue for itself, on all nodes.
    second.broker.claim(&queue, true).await.unwrap();
    let sink = Arc::new(test_node::Taker::default());
    let subscription = Subscription { sink: sink.clone(), exclusive: true, no_ack: false, prefetch: 1 };
    let id = second.broker.subscribe(&caller, &queue, subscription).unwrap();
    second.until("it has a message", || sink.taken.lock().len() == 1).await;
    let third = &cluster.nodes[&3];
    let at_third = third.broker.queue(queue.id).unwrap();
    for refused in [third.broker.claim(&at_third, false).await, second.broker.claim(&queue, false).await] {
        assert!(refused.unwrap_err().text.contains("in exclusive use"));
    }
    let only = DeleteOnly { if_unused: true, if_empty: false };
    let refused = third.broker.delete_queue(&caller, "/", "q", only).await.err().unwrap();
    assert!(refused.text.contains("in use"), "{refused}");
    second.broker.unsubscribe(&queue, id);
    first.until("the leader knows", || at_leader.look(|queue| queue.depth().consumers == 0)).await;
    third.broker.claim(&at_third, false).await.unwrap();
    let purged = third.broker.purge_queue(&caller, "/", "q").await.unwrap();
    assert_eq!(purged, 7);
    third.broker.delete_queue(&caller, "/", "q", DeleteOnly::default()).await.unwrap();
    assert!(third.broker.catalog().queue_id("/", "q").is_none());
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_of_a_node_that_was_started_again_or_given_up_meanwhile_leaves_nothing_behind() {
    let cluster = Cluster::start().await;
    cluster.all_led_by(1).await;
    let (first, third) = (&cluster.nodes[&1], &cluster.nodes[&3]);
    let id = first.declare("q").await.id;
    third.until("all know the queue", || third.broker.queue(id).is_some()).await;
    let at_leader = first.broker.queue(id).unwrap();
    first.publish_one_by_one(&at_leader, 0..3, 500).await;
    let starts = &first.broker.node().network.starts;
    first.until("the second is heard of", || starts.of(2).is_some()).await;
    let ended = Some(KnownStart::default());
    let given_up = starts.of(2);
    starts.give_up(2);
    let mut number = 0;
    for start in [ended, given_up] {
        for ask in [QueueAsk::Claim { exclusive: true, received: 0 }, QueueAsk::Get { no_ack: false }] {
            number += 1;
            first.broker.clone().answer(2, start, Asked { number, queue: id, applied: 0, ask }).await;
            let seen = || at_leader.look(|queue| (queue.depth().ready, queue.depth().unacked, queue.depth().consumers));
            first.until("nothing is left behind", || seen() == (3, 0, 0)).await;
        }
    }
    let at_third = third.broker.queue(id).unwrap();
    third.broker.claim(&at_third, true).await.unwrap();
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_reaches_the_exclusive_queue_of_a_client_of_another_node() {
    let cluster = Cluster::start().await;
    let connection = test_node::connection(&cluster.nodes[&3].broker);
    let owner = Caller { origin: catalog::Origin::Connection(connection.id), ..Caller::system() };
    let third = &cluster.nodes[&3];
    let (_, queue) = third.broker.declare_queue(&owner, "/", "replies", declaration(false, true)).await.unwrap();
    let (_, sink) = subscribe(third, &queue, 0);
    let second = &cluster.nodes[&2];
    second.until("the queue is known", || second.broker.catalog().queue_id("/", "replies").is_some()).await;
    let route = second.broker.route(&Caller::system(), "/", "", b"replies", None).unwrap();
    assert_eq!((route.recipients(), route.confirms()), (1, 0));
    let bytes = b"\0\0reply one";
    let messages = [Extent { properties_at: 0, properties_len: 2, body: Body::Inline { at: 2, len: 9 } }];
    for _ in 0..50 {
        let run = RoutedRun { route: &route, messages: &messages, waiter: None };
        assert!(second.broker.publish(bytes, &[run]).is_none());
    }
    third.until("the replies have arrived", || sink.taken.lock().len() == 50).await;
    assert!(sink.taken.lock().iter().all(|(_, body)| body == b"reply on"));
    third.broker.disconnected(&connection).await;
    second.until("the queue is gone", || second.broker.catalog().queue_id("/", "replies").is_none()).await;
    cluster.close().await;
}
