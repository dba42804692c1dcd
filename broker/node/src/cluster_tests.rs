//! Three nodes in one process, each with a disk of its own and real connections between them: what was confirmed is on all
//! of them, and the node that leads next serves it.
use crate::identity::NodeIdentity;
use crate::test_node::{TestNode, open_storage};
use crate::*;
use bytes::Bytes;
use leveret_journal::faulty::FaultyDisk;
use leveret_replication::{GroupId, GroupMember, LinkTimes, PeersOptions, TcpWires};
use std::collections::BTreeMap;

/// Opens the node that listens on `wires`.
async fn open(node: u64, disk: &FaultyDisk, wires: TcpWires) -> TestNode {
    let options = PeersOptions {
        node,
        cluster: 7,
        boot: rand::random(),
        secret: Bytes::from_static(b"a secret of the tests"),
        frame_bytes_max: 2 << 20,
        message_bytes_max: 8 << 20,
        times: LinkTimes::default(),
    };
    open_storage(Arc::new(disk.clone()), u64::MAX / 2, None, Some((options, wires))).await.unwrap()
}

/// The nodes that run, by identity, and the disks and addresses of all.
struct Cluster {
    nodes: BTreeMap<u64, TestNode>,
    disks: BTreeMap<u64, FaultyDisk>,
    members: BTreeMap<u64, GroupMember>,
}

impl Cluster {
    async fn start() -> Self {
        let (mut wires, mut members) = (BTreeMap::new(), BTreeMap::new());
        for node in 1..=3 {
            let wire = TcpWires::listen("127.0.0.1:0").await.unwrap();
            members.insert(node, GroupMember { address: wire.local_address().unwrap().to_string() });
            wires.insert(node, wire);
        }
        let (mut nodes, mut disks) = (BTreeMap::new(), BTreeMap::new());
        for (node, wire) in wires {
            let disk = FaultyDisk::new(node);
            let identity = NodeIdentity { node, segment_bytes: 2 << 20, log_made: false };
            identity.write(&disk).unwrap();
            nodes.insert(node, open(node, &disk, wire).await);
            disks.insert(node, disk);
        }
        for node in nodes.values() {
            for group in 0..node.storage().groups.len() {
                node.storage().groups.initialize(group, members.clone()).await.unwrap();
            }
        }
        Self { nodes, disks, members }
    }

    /// Cuts the power of a node.
    async fn cut(&mut self, node: u64) {
        self.disks[&node].crash();
        self.nodes.remove(&node).unwrap().end().await;
    }

    /// Starts a node again that was cut off.
    async fn start_again(&mut self, node: u64) {
        let wires = TcpWires::listen(&self.members[&node].address).await.unwrap();
        let again = open(node, &self.disks[&node], wires).await;
        self.nodes.insert(node, again);
    }

    /// Returns the node that all others agree leads the group.
    async fn leader(&self, group: GroupId) -> u64 {
        let leaders = || self.nodes.values().map(|node| node.storage().groups.leader(group).map(|leader| leader.node));
        let agreed = || leaders().next().flatten().filter(|first| self.nodes.contains_key(first));
        let (_, any) = self.nodes.first_key_value().unwrap();
        any.until("all agree on a leader", || agreed().is_some() && leaders().all(|leader| leader == agreed())).await;
        agreed().unwrap()
    }

    /// Has one node lead all groups.
    async fn all_led_by(&self, node: u64) {
        for group in 0..self.nodes[&node].storage().groups.len() {
            for _ in 0..20 {
                let leader = self.leader(group).await;
                if leader == node || self.nodes[&leader].storage().groups.transfer(group, node).await.is_ok() {
                    break;
                }
            }
            assert_eq!(self.leader(group).await, node);
        }
    }

    /// Waits until all nodes have a queue with the same messages, `count` of them.
    async fn equal(&self, id: QueueId, count: u64) {
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
    for (_, node) in cluster.nodes {
        assert_eq!(node.failure.lock().take(), None);
        node.close().await;
    }
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
    for (_, node) in cluster.nodes {
        assert_eq!(node.failure.lock().take(), None);
        node.close().await;
    }
}
