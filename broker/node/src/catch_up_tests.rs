//! Nodes that were away while the others purged what they lack: they get a snapshot with its contents, are equal to the
//! others afterwards, and can lead.
use crate::cluster_tests::{Cluster, open};
use crate::identity::NodeIdentity;
use crate::test_node::{Confirmed, TestNode};
use crate::test_wires::Cut;
use crate::*;
use leveret_engine::catalog::QueueDeclare;
use leveret_journal::Disk;
use leveret_journal::faulty::FaultyDisk;
use leveret_replication::GroupMember;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// A sink that takes all messages, and checks every byte of them.
#[derive(Default)]
struct Checker {
    taken: Mutex<Vec<u64>>,
    ids: Mutex<Vec<DeliveryId>>,
    cancelled: AtomicBool,
}

impl Sink for Checker {
    fn fill(&self, source: &mut dyn Source) -> Fill {
        while let Some(delivery) = source.next() {
            let number = u64::from_be_bytes(delivery.body[..8].try_into().unwrap());
            assert!(delivery.body[8..].iter().all(|byte| *byte == number as u8), "message {number} has another body");
            self.taken.lock().push(number);
            self.ids.lock().push(delivery.id);
        }
        Fill::Exhausted
    }

    fn cancelled(&self) {
        self.cancelled.store(true, Relaxed);
    }
}

fn subscribe(node: &TestNode, queue: &Queue, no_ack: bool, prefetch: u32) -> (ConsumerId, Arc<Checker>) {
    let sink = Arc::new(Checker::default());
    let subscription = Subscription { sink: sink.clone(), exclusive: false, no_ack, prefetch };
    (node.broker.subscribe(&Caller::system(), queue, subscription).unwrap(), sink)
}

/// Consumes all messages of a queue and checks them. Returns their numbers.
async fn drain(node: &TestNode, queue: &Queue) -> Vec<u64> {
    let (id, sink) = subscribe(node, queue, true, 0);
    node.until("the queue is empty", || queue.look(|queue| queue.depth().ready + queue.depth().unacked) == 0).await;
    node.broker.unsubscribe(queue, id);
    std::mem::take(&mut *sink.taken.lock())
}

/// Has the nodes write snapshots of all groups, and purge what these cover.
async fn purge(cluster: &Cluster, nodes: &[u64]) {
    for node in nodes.iter().map(|node| &cluster.nodes[node]) {
        let groups = &node.storage().groups;
        for group in 0..groups.len() {
            groups.snapshot(group).await.unwrap();
            node.until("the log is purged", || groups.log_len(group) <= 1).await;
        }
    }
}

/// Publishes messages of `size` bytes, consumes the first `consumed` messages of the queue, and settles every third of the
/// next hundred.
async fn go_on(node: &TestNode, queue: &Queue, numbers: std::ops::Range<u64>, size: usize, consumed: u64) {
    node.publish_one_by_one(queue, numbers, size).await;
    let first = queue.look(|state| state.next_sequence() - state.depth().ready);
    let sink = test_node::Taker::default();
    let all = node.broker.queue(queue.id).unwrap();
    for _ in 0..consumed + 100 {
        assert!(node.broker.get(&Caller::system(), &all, &sink, false).await.unwrap());
    }
    let before = queue.look(|state| state.depth().unacked + state.depth().ready);
    queue.enter().acknowledge(None, first, consumed);
    for at in 0..100 {
        let id = sink.taken.lock()[(consumed + at) as usize].0;
        if at % 3 == 0 {
            queue.enter().acknowledge(None, id.message.sequence, 1)
        } else {
            queue.enter().give_back(None, id)
        }
    }
    let after = before - consumed - 34;
    node.until("that is settled", || queue.look(|state| state.depth().unacked + state.depth().ready) == after).await;
}

async fn close(cluster: Cluster) {
    cluster.close().await;
}

fn live(queue: &Queue) -> u64 {
    queue.look(|state| state.depth().unacked + state.depth().ready)
}

/// Has a node lead everything, and checks that it delivers the messages of a queue with their bodies.
async fn serves(cluster: &Cluster, node: u64, id: QueueId, expected: &[u64]) {
    cluster.all_led_by(node).await;
    let node = &cluster.nodes[&node];
    let queue = node.broker.queue(id).unwrap();
    node.until("the queue is served", || node.shards().shard(id).term().is_some()).await;
    assert_eq!(drain(node, &queue).await, expected);
}

/// Returns the numbers that are left after [`go_on`] with `0..to`.
fn left(consumed: u64, to: u64) -> Vec<u64> {
    (consumed..to).filter(|number| *number >= consumed + 100 || !(number - consumed).is_multiple_of(3)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_lacks_purged_entries_gets_the_snapshot_with_its_contents_and_can_lead() {
    let mut cluster = Cluster::start().await;
    cluster.all_led_by(1).await;
    let queue = cluster.nodes[&1].declare("q").await;
    cluster.nodes[&1].publish_one_by_one(&queue, 0..200, 10_000).await;
    cluster.equal(queue.id, 200).await;
    cluster.cut(3).await;
    go_on(&cluster.nodes[&1], &queue, 200..900, 10_000, 150).await;
    purge(&cluster, &[1, 2]).await;
    cluster.nodes[&1].publish_one_by_one(&queue, 900..950, 10_000).await;
    cluster.start_again(3).await;
    cluster.equal(queue.id, live(&queue)).await;
    let contents = |node: u64| cluster.nodes[&node].shards().contents(queue.id).len();
    cluster.nodes[&3].until("what is not needed is freed", || contents(3) == contents(1)).await; // once on the disk
    serves(&cluster, 3, queue.id, &left(150, 950)).await;
    cluster.equal(queue.id, 0).await;
    close(cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_an_empty_disk_gets_everything_and_can_lead() {
    let mut cluster = Cluster::start().await;
    cluster.all_led_by(1).await;
    let queue = cluster.nodes[&1].declare("q").await;
    go_on(&cluster.nodes[&1], &queue, 0..900, 10_000, 150).await;
    cluster.equal(queue.id, live(&queue)).await;
    purge(&cluster, &[1, 2, 3]).await;
    let (wires, disk, cut) =
        (TcpWires::listen("127.0.0.1:0").await.unwrap(), FaultyDisk::new(4), Arc::new(Cut::default()));
    let member = GroupMember { address: wires.local_address().unwrap().to_string() };
    NodeIdentity { node: 4, segment_bytes: 2 << 20, log_made: false }.write(&disk).unwrap();
    cluster.nodes.insert(4, open(4, &disk, wires, &cut).await);
    cluster.disks.insert(4, disk);
    cluster.cuts.insert(4, cut);
    cluster.members.insert(4, member.clone());
    let groups = &cluster.nodes[&1].storage().groups;
    for group in 0..groups.len() {
        groups.add_learner(group, 4, member.clone()).await.unwrap();
    }
    cluster.equal(queue.id, live(&queue)).await;
    for group in 0..groups.len() {
        let lag = || groups.status(group).last.unwrap_or(0) - groups.status(group).matched[&4].unwrap_or(0);
        cluster.nodes[&1].until("it has caught up", || lag() == 0).await;
        groups.promote(group, 4).await.unwrap();
    }
    let named = || cluster.nodes[&4].broker.catalog().queue_id("/", "q");
    cluster.nodes[&4].until("it knows the definitions", || named() == Some(queue.id)).await;
    // A restart needs nothing of what came from the others.
    cluster.cut(4).await;
    cluster.start_again(4).await;
    serves(&cluster, 4, queue.id, &left(150, 900)).await;
    cluster.equal(queue.id, 0).await;
    close(cluster).await;
}

/// Waits until contents have arrived at a node, or all of them.
async fn until_some_arrived(cluster: &Cluster, node: u64, id: QueueId, all: u64) {
    let disk = cluster.disks[&node].clone();
    let here =
        || cluster.nodes[&node].broker.queue(id).is_some_and(|queue| queue.look(|state| state.next_sequence()) >= all);
    let some = || disk.list("archive").unwrap().iter().any(|name| name.ends_with(".names"));
    cluster.nodes[&node].until("contents have arrived", || some() || here()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_goes_on_after_broken_connections_and_the_loss_of_power_of_either_side() {
    let mut cluster = Cluster::start().await;
    cluster.all_led_by(1).await;
    let queue = cluster.nodes[&1].declare("q").await;
    cluster.equal(queue.id, 0).await;
    cluster.cut(3).await;
    const SIZE: usize = 40_000;
    let all = 1_000;
    cluster.nodes[&1].publish_one_by_one(&queue, 0..all, SIZE).await;
    purge(&cluster, &[1, 2]).await;
    let cut = cluster.cuts[&3].clone();
    let before = cut.received.load(Relaxed);
    cut.break_after(5 << 20);
    cluster.start_again(3).await;
    cluster.nodes[&3].until("the connections broke", || !cut.is_to_break()).await;
    cut.break_after(5 << 20);
    cluster.nodes[&3].until("the connections broke again", || !cut.is_to_break()).await;
    until_some_arrived(&cluster, 3, queue.id, all).await;
    cluster.cut(3).await;
    cluster.start_again(3).await;
    cut.break_after(12 << 20);
    cluster.nodes[&3].until("the connections broke once more", || !cut.is_to_break()).await;
    let id = queue.id;
    drop(queue);
    cluster.cut(1).await;
    cluster.equal(id, all).await;
    let received = cut.received.load(Relaxed) - before;
    let bytes = all * SIZE as u64;
    assert!(received < bytes * 2, "{received} bytes were received for contents of {bytes}");
    cluster.start_again(1).await;
    cluster.equal(id, all).await;
    let lists = |disk: &FaultyDisk| disk.list("archive").unwrap().iter().any(|name| name.ends_with(".names"));
    let third = &cluster.nodes[&3];
    third.until("what is installed is no transfer any more", || !lists(&cluster.disks[&3].clone())).await;
    cluster.cut(3).await;
    cluster.start_again(3).await;
    serves(&cluster, 3, id, &(0..all).collect::<Vec<_>>()).await;
    close(cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_node_goes_on_with_its_consumers_and_publishers_after_a_snapshot() {
    let cluster = Cluster::start().await;
    cluster.all_led_by(1).await;
    let queue = cluster.nodes[&1].declare("q").await;
    let id = queue.id;
    let third = &cluster.nodes[&3];
    third.until("all know the queue", || third.broker.queue(id).is_some()).await;
    let here = third.broker.queue(id).unwrap();
    let (consumer, sink) = subscribe(third, &here, false, 10);
    let confirmed = Arc::new(Confirmed::default());
    for number in 0..200 {
        third.publish(&[id], number..number + 1, 500, &confirmed);
    }
    third.until("the consumer has messages", || sink.taken.lock().len() == 10).await;
    for number in 200..300 {
        third.publish(&[id], number..number + 1, 500, &confirmed);
    }
    cluster.cuts[&3].cut();
    for number in 300..400 {
        third.publish(&[id], number..number + 1, 500, &confirmed);
    }
    let declaring = {
        let broker = third.broker.clone();
        tokio::spawn(async move {
            let declare = QueueDeclare { durable: true, ..QueueDeclare::default() };
            broker.declare_queue(&Caller::system(), "/", "late", declare).await.map(|(_, queue)| queue.id)
        })
    };
    let first = &cluster.nodes[&1];
    first.publish_one_by_one(&queue, 1_000..1_200, 500).await;
    // What the node could not say any more was granted to it; it is ready again once the node counts as gone.
    first.until("what the consumer held is ready", || queue.look(|state| state.depth().unacked) == 0).await;
    purge(&cluster, &[1, 2]).await;
    cluster.cuts[&3].heal();
    third.until("all is confirmed", || *confirmed.0.lock() == 400).await;
    cluster.equal(id, 600).await;
    assert!(Arc::ptr_eq(&here, &third.broker.queue(id).unwrap()), "consumers hold the queue");
    let declared = declaring.await.unwrap();
    assert!(declared.is_ok() || declared.is_err_and(|refusal| refusal.text.contains("cluster")));
    // The consumer goes on: it settles what it has and gets all others.
    let mut settled = 0;
    while live(&here) > 0 {
        let ids: Vec<DeliveryId> = sink.ids.lock()[settled..].to_vec();
        settled += ids.len();
        ids.iter().for_each(|id| here.enter().acknowledge(Some(consumer), id.message.sequence, 1));
        here.enter().dispatch(0);
        third.until("it gets more", || sink.ids.lock().len() > settled || live(&here) == 0).await;
    }
    let mut taken = sink.taken.lock().clone();
    taken.sort_unstable();
    taken.dedup();
    assert_eq!(taken, (0..400).chain(1_000..1_200).collect::<Vec<_>>());
    cluster.equal(id, 0).await;
    close(cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_that_were_declared_and_deleted_meanwhile_appear_and_go_on_a_running_node() {
    let cluster = Cluster::start().await;
    cluster.all_led_by(1).await;
    let first = &cluster.nodes[&1];
    let caller = Caller::system();
    let transient = |name| first.broker.declare_queue(&caller, "/", name, QueueDeclare::default());
    for (name, other) in [("gone", "gone too"), ("stays", "stays too")] {
        first.declare(name).await;
        transient(other).await.unwrap();
    }
    let third = &cluster.nodes[&3];
    let own = third.broker.declare_queue(&caller, "/", "own", QueueDeclare::default()).await.unwrap().1;
    let find = |node: &TestNode, name: &str| node.broker.find_queue(&Caller::system(), "/", name).ok();
    let names = ["gone", "stays", "gone too", "stays too", "own"];
    third.until("all is known", || names.iter().all(|name| find(third, name).is_some())).await;
    let (gone, stays) = (find(third, "gone").unwrap(), find(third, "stays").unwrap());
    let (_, told) = subscribe(third, &gone, false, 0);
    let (_, kept) = subscribe(third, &stays, true, 0);
    first.publish_one_by_one(&find(first, "gone").unwrap(), 0..50, 500).await;
    cluster.equal(gone.id, 50).await;
    cluster.cuts[&3].cut();
    for name in ["gone", "gone too"] {
        drop(first.broker.delete_queue(&caller, "/", name, DeleteOnly::default()).await.unwrap());
    }
    let new = first.declare("new").await;
    first.declare("brief").await;
    drop(first.broker.delete_queue(&caller, "/", "brief", DeleteOnly::default()).await.unwrap());
    transient("new too").await.unwrap();
    first.publish_one_by_one(&new, 0..50, 500).await;
    purge(&cluster, &[1, 2]).await;
    cluster.cuts[&3].heal();
    let known = ["stays", "stays too", "new", "new too", "own"];
    third.until("what is new is there", || known.iter().all(|name| find(third, name).is_some())).await;
    let is_gone = |name: &str| find(third, name).is_none();
    third.until("what was deleted is gone", || ["gone", "gone too", "brief"].iter().all(|name| is_gone(name))).await;
    third.until("its consumer is told", || told.cancelled.load(Relaxed)).await;
    assert!(!kept.cancelled.load(Relaxed) && Arc::ptr_eq(&stays, &find(third, "stays").unwrap()));
    assert!(Arc::ptr_eq(&own, &find(third, "own").unwrap()) && gone.is_deleted());
    let facts = |node: &TestNode| node.broker.catalog().facts();
    third
        .until("all have the same definitions", || cluster.nodes.values().all(|node| facts(node) == facts(first)))
        .await;
    cluster.equal(new.id, 50).await;
    first.publish_one_by_one(&find(first, "stays").unwrap(), 0..20, 500).await;
    third.until("the consumer gets messages", || kept.taken.lock().len() == 20).await;
    serves(&cluster, 3, new.id, &(0..50).collect::<Vec<_>>()).await;
    close(cluster).await;
}
