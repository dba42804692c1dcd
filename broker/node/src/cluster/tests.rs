//! Nodes in one process, each with a disk of its own and real connections between them, that form clusters, join and
//! leave them, and come back.
use super::founders::{self, Addresses};
use super::leaders;
use super::state::Cluster;
use super::*;
use crate::memory::MOST_DISKS_FULL;
use crate::test_node::{TestNode, open_in_cluster};
use crate::{Caller, MemberState, QueueId};
use bytes::Bytes;
use leveret_engine::catalog::QueueDeclare;
use leveret_journal::faulty::FaultyDisk;
use leveret_replication::{GroupStatus, TcpWires};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The nodes that run, and the disks and addresses of all, by a number that the test gives them.
struct World {
    nodes: BTreeMap<u8, TestNode>,
    disks: BTreeMap<u8, FaultyDisk>,
    addresses: BTreeMap<u8, String>,
    /// The nodes that are listed as peers.
    peers: Vec<u8>,
}

impl World {
    /// Returns a world with addresses for nodes 1 to `count`, of which all are listed as peers.
    fn new(count: u8) -> Self {
        // No outgoing connection has one of these addresses, so each port is free again once its node has ended.
        let process = std::process::id();
        let address = |_| {
            let number = ADDRESSES.fetch_add(1, Relaxed);
            format!("127.{}.{}.{}:25672", 32 + (process >> 8) % 32, process % 256, 1 + number % 254)
        };
        Self {
            nodes: BTreeMap::new(),
            disks: (1..=count).map(|at| (at, FaultyDisk::new(at.into()))).collect(),
            addresses: (1..=count).map(|at| (at, address(at))).collect(),
            peers: (1..=count).collect(),
        }
    }

    /// Returns a world in which nodes 1 to `count` have formed a cluster.
    async fn formed(count: u8) -> Self {
        let mut world = Self::new(count);
        for at in 1..=count {
            world.start(at).await;
        }
        world.all_ready().await;
        world
    }

    fn options(&self, at: u8) -> ClusterOptions {
        ClusterOptions {
            name: "tests".to_owned(),
            secret: Bytes::from_static(b"a secret of the tests"),
            address: self.addresses[&at].clone(),
            peers: self.peers.iter().map(|peer| self.addresses[peer].clone()).collect(),
            join: Vec::new(),
            times: ClusterTimes {
                look: Duration::from_millis(40),
                quiet: Duration::from_millis(400),
                report_max: Duration::from_secs(1),
            },
        }
    }

    async fn try_start(&mut self, at: u8, options: ClusterOptions) -> Result<(), OpenError> {
        let deadline = Instant::now() + PATIENCE;
        let wires = loop {
            match TcpWires::listen(&self.addresses[&at]).await {
                Ok(wires) => break wires,
                // The tasks of the node that was there before have not all ended yet.
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let node = open_in_cluster(Arc::new(self.disks[&at].clone()), options, wires).await?;
        self.nodes.insert(at, node);
        Ok(())
    }

    async fn start(&mut self, at: u8) {
        self.try_start(at, self.options(at)).await.unwrap();
    }

    /// Stops a node in order.
    async fn stop(&mut self, at: u8) {
        let node = self.nodes.remove(&at).unwrap();
        node.broker.close_storage().await;
        node.broker.stop();
    }

    /// Cuts the power of a node.
    async fn cut(&mut self, at: u8) {
        self.disks[&at].crash();
        self.nodes.remove(&at).unwrap().end().await;
    }

    async fn stop_all(mut self) {
        for at in self.nodes.keys().copied().collect::<Vec<_>>() {
            assert_eq!(self.nodes[&at].failure.lock().take(), None);
            self.stop(at).await;
        }
    }

    fn cluster(&self, at: u8) -> &Arc<Cluster> {
        self.nodes[&at].broker.cluster().unwrap()
    }

    /// Returns the identity of a node.
    fn id(&self, at: u8) -> u64 {
        self.cluster(at).node
    }

    fn ids(&self, nodes: &[u8]) -> BTreeSet<u64> {
        nodes.iter().map(|at| self.id(*at)).collect()
    }

    async fn until(&self, what: &str, done: impl FnMut() -> bool) {
        let (_, any) = self.nodes.first_key_value().unwrap();
        any.until(what, done).await;
    }

    async fn ready(&self, at: u8) {
        let ready = tokio::time::timeout(PATIENCE, self.nodes[&at].broker.until_cluster_is_ready());
        if ready.await.is_err() {
            panic!("node {at} is not ready: {:?}", self.nodes[&at].broker.cluster_readiness());
        }
    }

    async fn all_ready(&self) {
        for at in self.nodes.keys() {
            self.ready(*at).await;
        }
    }

    /// Returns what nodes know of each group.
    fn statuses(&self, nodes: &[u8]) -> Vec<GroupStatus> {
        nodes.iter().flat_map(|at| self.cluster(*at).statuses()).collect()
    }

    /// Waits until exactly these nodes are members of all groups, and all vote.
    async fn voters(&self, nodes: &[u8]) {
        let expected = self.ids(nodes);
        let are = || {
            let all = self.statuses(nodes);
            all.iter().all(|status| {
                !status.is_changing && status.voters == expected && status.members.keys().copied().eq(expected.clone())
            })
        };
        self.until("these nodes vote in all groups", are).await;
    }

    /// Waits until each group is led by the node that is to lead it, and all know.
    async fn spread(&self) {
        let spread = || {
            self.nodes.keys().all(|at| {
                let statuses = self.cluster(*at).statuses();
                let is_preferred = |(group, status): (u16, &GroupStatus)| {
                    status.leader.is_some() && status.leader == leaders::preferred(group, &status.voters)
                };
                (0..).zip(&statuses).all(is_preferred)
            })
        };
        self.until("the leaders are spread", spread).await;
    }

    /// Waits until all nodes have a queue with the same messages, `count` of them.
    async fn equal(&self, queue: QueueId, count: u64) {
        let held = |node: &TestNode| {
            let queue = node.broker.queue(queue)?;
            Some(queue.look(|state| (state.digest(), state.depth().ready + state.depth().unacked)))
        };
        let equal = || {
            let all: Vec<_> = self.nodes.values().map(held).collect();
            all.iter().all(|one| one.is_some_and(|(_, messages)| messages == count) && *one == all[0])
        };
        self.until("all nodes hold the same messages", equal).await;
    }

    fn leads_nothing(&self, at: u8) -> bool {
        self.cluster(at).statuses().iter().all(|status| status.leader != Some(self.id(at)))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_nodes_form_one_cluster_once_all_are_there_and_spread_its_leaders() {
    for order in [[1, 2, 3], [3, 1, 2]] {
        let mut world = World::new(3);
        world.start(order[0]).await;
        world.start(order[1]).await;
        let missing = world.addresses[&order[2]].clone();
        let waits = |at| world.nodes[&at].broker.cluster_readiness().is_err_and(|reason| reason.contains(&missing));
        world.until("both say who is missing", || waits(order[0]) && waits(order[1])).await;
        assert!(world.statuses(&order[..2]).iter().all(|status| status.members.is_empty()));
        world.start(order[2]).await;
        world.all_ready().await;
        world.voters(&[1, 2, 3]).await;
        world.spread().await;
        let view = world.nodes[&1].broker.cluster_view().unwrap();
        assert!(view.members.iter().all(|member| member.state == MemberState::Running && member.name.is_some()));
        assert_eq!(view.groups.len(), 13);
        world.all_ready().await;
        world.stop_all().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn founders_that_end_between_their_promise_and_the_first_members_go_on() {
    let mut world = World::new(3);
    let founders: Addresses = world.addresses.iter().map(|(at, address)| (u64::from(*at), address.clone())).collect();
    for at in [1, 2] {
        let disk = &world.disks[&at];
        NodeIdentity { node: at.into(), segment_bytes: 2 << 20, log_made: false }.write(disk).unwrap();
        founders::write(disk, &founders).unwrap();
    }
    // The third was counted on, and has promised nothing.
    NodeIdentity { node: 3, segment_bytes: 2 << 20, log_made: false }.write(&world.disks[&3]).unwrap();
    world.start(3).await;
    world.start(2).await;
    world.start(1).await;
    world.all_ready().await;
    world.voters(&[1, 2, 3]).await;
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_its_disk_while_the_cluster_was_formed_founds_no_second_one() {
    let mut world = World::new(3);
    let founders: Addresses = world.addresses.iter().map(|(at, address)| (u64::from(*at), address.clone())).collect();
    NodeIdentity { node: 1, segment_bytes: 2 << 20, log_made: false }.write(&world.disks[&1]).unwrap();
    founders::write(&world.disks[&1], &founders).unwrap();
    // Node 1 has promised a cluster with nodes 2 and 3, whose disks are new now.
    for at in [1, 2, 3] {
        world.start(at).await;
    }
    let waits = |at| world.nodes[&at].broker.cluster_readiness().is_err_and(|reason| reason.contains("no leader yet"));
    world.until("both wait", || waits(2) && waits(3)).await;
    assert!(world.statuses(&[2, 3]).iter().all(|status| status.members.is_empty()));
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_node_with_data_grows_to_three() {
    let mut world = World::new(3);
    let alone = TestNode::open(Arc::new(world.disks[&1].clone())).await;
    let queue = alone.declare("q").await.id;
    alone.publish_one_by_one(&alone.broker.queue(queue).unwrap(), 0..100, 1_000).await;
    alone.broker.close_storage().await;
    alone.broker.stop();
    for at in [2, 3, 1] {
        world.start(at).await;
    }
    world.all_ready().await;
    world.voters(&[1, 2, 3]).await;
    world.equal(queue, 100).await;
    world.spread().await;
    // Any two of the three go on, the first member or not.
    world.cut(1).await;
    world.all_ready().await;
    world.equal(queue, 100).await;
    world.start(1).await;
    world.all_ready().await;
    world.equal(queue, 100).await;
    world.stop(1).await;
    let refused = TestNode::try_open(Arc::new(world.disks[&1].clone())).await.err().map(|error| error.to_string());
    assert!(refused.as_ref().is_some_and(|text| text.contains("members on other nodes")), "{refused:?}");
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_single_nodes_with_data_refuse_each_other() {
    let mut world = World::new(2);
    for at in [1, 2] {
        let alone = TestNode::open(Arc::new(world.disks[&at].clone())).await;
        alone.declare("q").await;
        alone.broker.close_storage().await;
        alone.broker.stop();
    }
    world.start(1).await;
    world.ready(1).await;
    let refused = world.try_start(2, world.options(2)).await.unwrap_err();
    assert!(matches!(&refused, OpenError::ForeignCluster { address } if *address == world.addresses[&1]), "{refused}");
    assert_eq!(world.statuses(&[1])[0].members.len(), 1);
    world.ready(1).await;
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_join_a_cluster_that_exists_and_are_removed_again() {
    let mut world = World::new(5);
    world.peers = vec![1, 2, 3];
    // A node that is only to join does not form a cluster with anybody.
    let join = |world: &World, at| {
        let join = vec![world.addresses[&2].clone()];
        ClusterOptions { peers: Vec::new(), join, ..world.options(at) }
    };
    world.try_start(4, join(&world, 4)).await.unwrap();
    for at in [1, 2, 3] {
        world.start(at).await;
    }
    world.all_ready().await;
    world.voters(&[1, 2, 3, 4]).await;
    let later = ClusterOptions { join: vec!["127.0.0.1:1".to_owned()], ..join(&world, 5) };
    world.try_start(5, later).await.unwrap();
    // It does not find the cluster by itself, but the cluster can be told where it is.
    let first = &world.nodes[&1].broker;
    first.add_member(&world.addresses[&5]).await.unwrap();
    first.add_member(&world.addresses[&5]).await.unwrap();
    world.all_ready().await;
    world.voters(&[1, 2, 3, 4, 5]).await;
    let refused = first.add_member("127.0.0.1:1").await.unwrap_err();
    assert!(matches!(refused, ClusterError::Refused(_)), "{refused}");
    assert_eq!(first.remove_member("nobody").await, Err(ClusterError::NotFound("nobody".to_owned())));
    // The leader of group 0 is removed, asked by itself.
    let leader = world.statuses(&[1])[0].leader.unwrap();
    let leading = (1..=5).find(|at| world.id(*at) == leader).unwrap();
    let address = world.addresses[&leading].clone();
    let rest: Vec<u8> = (1..=5).filter(|at| *at != leading).collect();
    let transient = QueueDeclare::default();
    let home = &world.nodes[&leading].broker;
    home.declare_queue(&Caller::system(), "/", "transient", transient).await.unwrap();
    let knows = |world: &World, at: &u8| world.nodes[at].broker.catalog().queue_id("/", "transient").is_some();
    world.until("all know the queue", || rest.iter().all(|at| knows(&world, at))).await;
    home.remove_member(&address).await.unwrap();
    world.voters(&rest).await;
    let is_deleted = || !rest.iter().any(|at| knows(&world, at));
    world.until("what lived on the removed node is deleted", is_deleted).await;
    tokio::time::timeout(PATIENCE, world.nodes[&leading].broker.until_removed()).await.unwrap();
    let says = world.nodes[&leading].broker.cluster_readiness().unwrap_err();
    assert!(says.contains("was removed"), "{says}");
    for at in rest {
        world.ready(at).await;
    }
    // It still knows after a restart.
    world.stop(leading).await;
    world.start(leading).await;
    tokio::time::timeout(PATIENCE, world.nodes[&leading].broker.until_removed()).await.unwrap();
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_lost_its_disk_is_replaced_by_the_new_node_at_its_address() {
    let mut world = World::formed(3).await;
    let lost = world.id(3);
    world.cut(3).await;
    world.all_ready().await;
    world.disks.insert(3, FaultyDisk::new(33));
    world.start(3).await;
    world.ready(3).await;
    assert_ne!(world.id(3), lost);
    world.voters(&[1, 2, 3]).await;
    world.spread().await;
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_five_members_that_lost_their_disks_are_replaced() {
    let mut world = World::formed(5).await;
    let lost = world.ids(&[2, 4]);
    for at in [2, 4] {
        world.cut(at).await;
        world.disks.insert(at, FaultyDisk::new(u64::from(at) + 40));
    }
    for at in [4, 2] {
        world.start(at).await;
    }
    world.voters(&[1, 2, 3, 4, 5]).await;
    assert!(world.ids(&[2, 4]).is_disjoint(&lost));
    world.all_ready().await;
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_others_is_a_cluster_and_can_be_stopped_at_any_time() {
    let mut world = World::formed(1).await;
    world.nodes[&1].broker.hand_over_and_wait(Duration::ZERO).await.unwrap();
    assert!(!world.leads_nothing(1));
    let refused = world.nodes[&1].broker.remove_member(&world.addresses[&1]).await.unwrap_err();
    assert!(refused.to_string().contains("only voter"), "{refused}");
    world.stop(1).await;
    world.start(1).await;
    world.all_ready().await;
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_comes_back_when_all_nodes_were_stopped_and_says_what_is_missing_until_then() {
    let mut world = World::formed(3).await;
    let members = world.ids(&[1, 2, 3]);
    for at in [1, 2, 3] {
        world.cut(at).await;
    }
    world.start(2).await;
    let address = world.addresses[&1].clone();
    let says = || world.nodes[&2].broker.cluster_readiness();
    world.until("it says who is missing", || says().is_err_and(|says| says.contains(&address))).await;
    let says = says().unwrap_err();
    assert!(says.contains("1 of 3 voters can be reached"), "{says}");
    world.start(1).await;
    world.all_ready().await;
    world.start(3).await;
    world.all_ready().await;
    assert_eq!(world.ids(&[1, 2, 3]), members);
    world.voters(&[1, 2, 3]).await;
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_have_moved_are_found_at_their_new_addresses() {
    let mut world = World::formed(3).await;
    let moved = |world: &mut World, at: u8| {
        world.addresses.insert(at, World::new(1).addresses.remove(&1).unwrap());
    };
    let known = async |world: &World| {
        let expected: Addresses = (1..=3).map(|at| (world.id(at), world.addresses[&at].clone())).collect();
        let all = || world.statuses(&[1, 2, 3]);
        world.until("all know", || all().iter().all(|status| state::addresses(status) == expected)).await;
    };
    world.stop(3).await;
    moved(&mut world, 3);
    world.start(3).await;
    world.all_ready().await;
    known(&world).await;
    for at in [1, 2, 3] {
        world.stop(at).await;
        moved(&mut world, at);
    }
    for at in [1, 2, 3] {
        world.start(at).await;
    }
    world.all_ready().await;
    known(&world).await;
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_hands_over_its_groups_before_it_stops_and_gets_them_back_later() {
    let mut world = World::formed(3).await;
    world.spread().await;
    assert!(!world.leads_nothing(1));
    world.nodes[&1].broker.hand_over_and_wait(PATIENCE).await.unwrap();
    assert!(world.leads_nothing(1));
    let state = |world: &World, of: u64| {
        let view = world.nodes[&2].broker.cluster_view().unwrap();
        view.members.into_iter().find(|member| member.node == of).map(|member| member.state)
    };
    let first = world.id(1);
    world.until("others see it", || state(&world, first) == Some(MemberState::Leaving)).await;
    tokio::time::sleep(Duration::from_secs(1)).await; // longer than the quiet time
    assert!(world.leads_nothing(1), "it gets nothing back while it leaves");
    world.stop(1).await;
    world.until("others see it", || state(&world, first) == Some(MemberState::Unreachable)).await;
    world.all_ready().await;
    // Without the first, the second cannot be spared.
    let late = world.nodes[&2].broker.hand_over_and_wait(Duration::from_millis(300)).await.unwrap_err();
    assert!(late.0.contains("lacks entries or cannot be reached"), "{late}");
    world.start(1).await;
    world.all_ready().await;
    world.nodes[&2].broker.hand_over_and_wait(PATIENCE).await.unwrap();
    world.stop_all().await;
}

static ADDRESSES: AtomicU32 = AtomicU32::new(0);
const PATIENCE: Duration = Duration::from_secs(40);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_node_lets_others_lead_and_most_full_nodes_hold_back_all_publishers() {
    let world = World::formed(3).await;
    world.spread().await;
    let memory = |at: u8| world.nodes[&at].broker.memory();
    let alarms = || [1, 2, 3].map(|at| memory(at).is_disk_alarmed());
    world.disks[&1].leave_free(0);
    world.until("others lead", || world.leads_nothing(1)).await;
    assert_eq!(alarms(), [true, false, false]);
    world.disks[&2].leave_free(0);
    world.until("one node leads", || world.leads_nothing(2)).await;
    world.until("all are alarmed", || alarms() == [true; 3]).await;
    assert_eq!((memory(1).alarm_in_words(), memory(3).alarm_in_words()), ("low on disk", MOST_DISKS_FULL));
    for at in [1, 2] {
        world.disks[&at].leave_free(1 << 40);
    }
    world.until("no one is alarmed", || alarms() == [false; 3]).await;
    world.spread().await;
    world.stop_all().await;
}
