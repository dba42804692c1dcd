//! Tests of storage: opening it, running out of space, and closing it.
use super::*;
use crate::test_node::{TestNode, in_paused_time};
use crate::{Caller, Confirm, Options, RoutedRun, Waiter};
use leveret_engine::catalog::QueueDeclare;
use leveret_engine::queue::{Body, Extent};
use leveret_journal::faulty::FaultyDisk;
use leveret_journal::{read_whole, write_whole};
use leveret_replication::{AppliedEntry, GroupSnapshot, GroupStates};
use parking_lot::Mutex;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// Counts the publishes that were confirmed.
#[derive(Default)]
struct Confirmed(AtomicU64);

impl Confirm for Confirmed {
    fn confirmed(&self, _: u16, _: u64) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// The failures that storage reported.
type Failures = Arc<Mutex<Vec<String>>>;

fn options(disk: &FaultyDisk, failures: &Failures) -> StorageOptions {
    let failures = failures.clone();
    StorageOptions {
        disk: Arc::new(disk.clone()),
        log_bytes_max: 0,
        segment_bytes: 0,
        incarnation: rand::random(),
        on_failure: Arc::new(move |reason| failures.lock().push(reason)),
        driver: None,
        peers: None,
    }
}

fn broker() -> Broker {
    Broker::start(Options { memory_max: u64::MAX / 2, message_bytes_max: 64 << 10, ..Options::default() })
}

async fn declare(broker: &Broker) {
    let declare = QueueDeclare { durable: true, ..QueueDeclare::default() };
    broker.declare_queue(&Caller::system(), "/", "q", declare).await.unwrap();
}

fn publish(broker: &Broker, confirmed: &Arc<Confirmed>) {
    let mut bytes = vec![0; BODY + 2];
    bytes[..2].copy_from_slice(&[0, 0]);
    let message = Extent { properties_at: 0, properties_len: 2, body: Body::Inline { at: 2, len: BODY as u32 } };
    let waiter = Waiter { to: confirmed.clone(), channel: 1, token: 0 };
    let route = broker.route(&Caller::system(), "/", "", b"q", None).unwrap();
    let _ = broker.publish(&bytes, &[RoutedRun { route: &route, messages: &[message], waiter: Some(waiter) }]);
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishes_after_the_alarm_wait_for_room_and_do_not_fail_storage() {
    let (disk, failures, confirmed) = (FaultyDisk::new(1), Failures::default(), Arc::<Confirmed>::default());
    let broker = broker();
    broker.open_storage(options(&disk, &failures)).await.unwrap();
    declare(&broker).await;
    let storage = broker.0.storage.get().unwrap();
    until("spare segments", async || storage.groups.journal().usage().available >= 3).await;
    disk.set_full(true);
    // Publish many times what the log holds. The alarm is ignored, as by connections that were already reading when it was
    // raised.
    for _ in 0..MESSAGES {
        publish(&broker, &confirmed);
    }
    until("publishes are held", async || storage.shards.list.iter().any(|shard| shard.outbox.is_held())).await;
    assert!(confirmed.0.load(Relaxed) < MESSAGES);
    disk.set_full(false);
    let all = async || {
        broker.purge_queue(&Caller::system(), "/", "q").await.unwrap();
        confirmed.0.load(Relaxed) == MESSAGES
    };
    until("all are taken once there is room", all).await;
    broker.close_storage().await;
    assert_eq!(*failures.lock(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orderly_stop_is_no_failure_even_if_someone_still_publishes() {
    let (disk, failures, confirmed) = (FaultyDisk::new(1), Failures::default(), Arc::<Confirmed>::default());
    let broker = broker();
    broker.open_storage(options(&disk, &failures)).await.unwrap();
    declare(&broker).await;
    publish(&broker, &confirmed);
    broker.close_storage().await;
    assert_eq!(confirmed.0.load(Relaxed), 1);
    publish(&broker, &confirmed);
    let storage = broker.0.storage.get().unwrap();
    assert!(storage.tasks.is_empty(), "nobody is left to hand it in");
    assert_eq!(*failures.lock(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_is_refused_if_the_log_was_removed() {
    let (disk, failures) = (FaultyDisk::new(1), Failures::default());
    let first = broker();
    first.announce_storage(&options(&disk, &failures));
    assert!(first.is_recovering());
    first.open_storage(options(&disk, &failures)).await.unwrap();
    assert!(!first.is_recovering());
    first.close_storage().await;
    for name in disk.list("wal").unwrap() {
        disk.remove(&format!("wal/{name}")).unwrap();
    }
    disk.remove("wal.proof").unwrap();
    let refused = broker().open_storage(options(&disk, &failures)).await.unwrap_err().to_string();
    assert!(refused.starts_with("wal.proof is missing"), "{refused}");
}

#[test]
fn a_volume_that_is_too_small_is_refused_with_the_size_that_is_needed() {
    let message = 16 << 20;
    let max = |megabytes: u64| segments_max(megabytes << 20, LOG_BYTES_MAX, 17 << 20, message);
    let refused = max(60).unwrap_err().to_string();
    assert_eq!(
        refused,
        "too little space: the volume has 60 MiB, and a log for messages of 16 MiB needs 151 MiB: give it a larger volume, \
         or begin with an empty folder and a lower message_bytes_max"
    );
    assert_eq!(max(152).unwrap(), 6);
    assert_eq!(max(300).unwrap(), 8);
    assert_eq!(max(1 << 20).unwrap(), 240);
    assert_eq!(segments_max(60 << 20, LOG_BYTES_MAX, 2 << 20, 1 << 20).unwrap(), 8);
}

/// Earlier versions wrote the file `node` without a version; the rest of the folder is the same.
#[test]
fn a_folder_of_an_earlier_version_is_opened() {
    in_paused_time(async {
        let disk = FaultyDisk::new(9);
        let node = TestNode::open(Arc::new(disk.clone())).await;
        let queue = node.declare("q").await;
        node.publish_one_by_one(&queue, 0..20, 100).await;
        node.close().await;
        let now = read_whole(&disk, "node").unwrap().unwrap();
        for earlier in [&now[1..], &now[1..13]] {
            write_whole(&disk, "node", &[earlier]).unwrap();
            let node = TestNode::open(Arc::new(disk.clone())).await;
            let queue = node.broker.find_queue(&Caller::system(), "/", "q").unwrap();
            assert_eq!(queue.look(|queue| queue.depth().ready), 20);
            node.close().await;
        }
        let node = TestNode::open(Arc::new(disk)).await;
        let queue = node.broker.find_queue(&Caller::system(), "/", "q").unwrap();
        assert_eq!(node.drain(&queue).await, (0..20).collect::<Vec<_>>());
        node.close().await;
    });
}

#[tokio::test]
async fn an_applier_whose_node_is_gone_returns_errors() {
    let broker = broker();
    let applier =
        Applier::new(&broker.0, Arc::new(Shards::new(SHARDS, 1, &broker.0.memory)), Arc::new(Replicas::new(1)));
    broker.stop();
    drop(broker);
    until("the node goes", async || applier.snapshot(1).is_err()).await;
    let gone = Err("the node is gone".to_owned());
    let entry =
        AppliedEntry { index: 1, term: 1, bytes: vec![1].into(), place: leveret_journal::RecordPlace::default() };
    assert_eq!(applier.apply(1, &entry), gone);
    assert_eq!(applier.restore(1, &GroupSnapshot::default()), gone);
}

const MESSAGES: u64 = 700;
const BODY: usize = 48 << 10;
