//! Tests of declarations whose callers go away in the middle, on a disk that stalls, and of restarts after a power cut.
use super::*;
use crate::storage::StorageOptions;
use crate::{Body, ConsumerId, Extent, Fill, Options, RoutedRun, Sink, Source, Subscription};
use leveret_engine::catalog::{Fact, Origin};
use leveret_journal::faulty::FaultyDisk;
use leveret_model::exchange::ExchangeType;
use leveret_model::refusal::RefusalKind;
use leveret_model::table::FieldTable;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// A node on a disk whose writes can be stalled.
struct Node {
    disk: FaultyDisk,
    stalled: Arc<AtomicBool>,
    failure: Arc<Mutex<Option<String>>>,
    broker: Broker,
}

impl Node {
    async fn start(disk: FaultyDisk) -> Self {
        let (stalled, failure) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<Option<String>>>::default());
        let broker = Broker::start(Options { memory_max: 1 << 30, message_bytes_max: 64 << 10, ..Options::default() });
        let failed = failure.clone();
        let driver = crate::test_node::StepDriver { stalled: stalled.clone() };
        let options = StorageOptions {
            disk: Arc::new(disk.clone()),
            log_bytes_max: 0,
            segment_bytes: 0,
            incarnation: rand::random(),
            on_failure: Arc::new(move |reason| {
                failed.lock().get_or_insert(reason);
            }),
            driver: Some(Arc::new(driver)),
            peers: None,
        };
        broker.open_storage(options).await.unwrap();
        Self { disk, stalled, failure, broker }
    }

    /// Cuts the power and starts a new node on the same disk.
    async fn crash(self) -> Self {
        self.disk.crash();
        self.broker.stop();
        Self::start(self.disk.clone()).await
    }

    /// Begins `work` while the disk stalls, and drops it as a request that timed out is dropped.
    async fn begin_and_drop(&self, work: impl Future) {
        self.stalled.store(true, Relaxed);
        let began = tokio::time::timeout(Duration::from_millis(20), work).await;
        assert!(began.is_err(), "it did not wait for the disk");
        self.stalled.store(false, Relaxed);
    }

    /// Waits until all declarations are durable.
    async fn settled(&self) {
        for _ in 0..10_000 {
            if self.broker.node().definitions.outbox.is_idle() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("what was declared is not logged");
    }

    fn recipients(&self, exchange: &str, key: &str) -> usize {
        self.broker.route(&Caller::system(), "/", exchange, key.as_bytes(), None).unwrap().recipients()
    }

    async fn declare(&self, name: &str, durable: bool) -> Arc<Queue> {
        self.broker.declare_queue(&Caller::system(), "/", name, declare(durable)).await.unwrap().1
    }
}

fn declare(durable: bool) -> QueueDeclare {
    QueueDeclare { durable, ..QueueDeclare::default() }
}

/// Returns the caller of a client's connection.
fn of(connection: ConnectionId) -> Caller {
    Caller { origin: Origin::Connection(connection), ..Caller::system() }
}

fn exchange(auto_delete: bool) -> ExchangeDeclare {
    let arguments = FieldTable::default();
    ExchangeDeclare { kind: ExchangeType::Fanout, durable: true, auto_delete, internal: false, arguments }
}

fn to_queue(name: &str) -> Destination {
    Destination::Queue(name.to_owned())
}

#[tokio::test]
async fn a_deletion_with_very_many_bindings_takes_effect_at_once_and_unlinks_them_later() {
    let broker = Broker::start(Options::default());
    let topic = || ExchangeDeclare { kind: ExchangeType::Topic, durable: false, ..exchange(false) };
    for round in 0..2 {
        broker.declare_exchange(&Caller::system(), "/", "many", topic()).await.unwrap();
        broker.declare_queue(&Caller::system(), "/", "q", declare(false)).await.unwrap();
        for number in 0..10_000 {
            let key = format!("{number}.*.#");
            let to = Destination::Queue("q".into());
            broker
                .bind(&Caller::system(), "/", BindingDeclare::new("many", &to, key.as_bytes(), &FieldTable::default()))
                .await
                .unwrap();
        }
        match round {
            0 => drop(broker.delete_queue(&Caller::system(), "/", "q", DeleteOnly::default()).await.unwrap()),
            _ => assert!(broker.delete_exchange(&Caller::system(), "/", "many", false).await.unwrap()),
        }
        assert_eq!(broker.catalog().bindings("/").unwrap().count(), 0);
        assert!(broker.catalog().is_unlinking(), "others had their turn before all was done");
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while broker.catalog().is_unlinking() {
            assert!(std::time::Instant::now() < deadline, "it is never done");
            tokio::task::yield_now().await;
        }
    }
    broker.stop();
}

#[tokio::test]
async fn a_declaration_is_completed_although_its_caller_is_gone() {
    let node = Node::start(FaultyDisk::new(1)).await;
    node.begin_and_drop(node.broker.declare_queue(&Caller::system(), "/", "q", declare(true))).await;
    let (created, queue) = node.broker.declare_queue(&Caller::system(), "/", "q", declare(true)).await.unwrap();
    assert!(!created);
    assert_eq!(node.recipients("", "q"), 1);
    assert!(Arc::ptr_eq(&node.broker.find_queue(&Caller::system(), "/", "q").unwrap(), &queue));
    let node = node.crash().await;
    assert_eq!(node.recipients("", "q"), 1);
    assert_eq!(node.broker.delete_queue(&Caller::system(), "/", "q", DeleteOnly::default()).await.unwrap().ready, 0);
    assert!(node.broker.declare_queue(&Caller::system(), "/", "q", declare(true)).await.unwrap().0);
}

#[tokio::test]
async fn a_queue_takes_nothing_until_its_declaration_is_durable() {
    let node = Node::start(FaultyDisk::new(2)).await;
    node.stalled.store(true, Relaxed);
    let broker = node.broker.clone();
    let declared =
        tokio::spawn(async move { broker.declare_queue(&Caller::system(), "/", "q", declare(true)).await.unwrap().0 });
    tokio::task::yield_now().await;
    assert!(node.broker.catalog().queue_id("/", "q").is_none());
    assert_eq!(node.recipients("", "q"), 0);
    assert_eq!(node.broker.find_queue(&Caller::system(), "/", "q").err().unwrap().kind, RefusalKind::NotFound);
    // A binding that is made meanwhile is logged after the declaration.
    let broker = node.broker.clone();
    let bound = tokio::spawn(async move {
        broker
            .bind(
                &Caller::system(),
                "/",
                BindingDeclare::new("amq.fanout", &to_queue("q"), b"", &FieldTable::default()),
            )
            .await
            .unwrap()
    });
    tokio::task::yield_now().await;
    let route = node.broker.route(&Caller::system(), "/", "amq.fanout", b"", None).unwrap();
    node.stalled.store(false, Relaxed);
    assert!(declared.await.unwrap() && bound.await.unwrap());
    assert!(!node.broker.is_current(&route));
    assert_eq!(node.recipients("amq.fanout", ""), 1);
    let node = node.crash().await;
    assert_eq!(node.recipients("amq.fanout", ""), 1);
}

#[tokio::test]
async fn all_changes_are_completed_although_their_callers_are_gone() {
    let node = Node::start(FaultyDisk::new(3)).await;
    let none = FieldTable::default();
    node.declare("q", true).await;
    node.declare("gone", true).await;
    node.declare("transient", false).await;
    for name in ["gone", "kept"] {
        node.broker.declare_exchange(&Caller::system(), "/", name, exchange(false)).await.unwrap();
    }
    node.broker.declare_exchange(&Caller::system(), "/", "auto", exchange(true)).await.unwrap();
    node.broker.bind(&Caller::system(), "/", BindingDeclare::new("kept", &to_queue("gone"), b"", &none)).await.unwrap();
    node.broker
        .bind(&Caller::system(), "/", BindingDeclare::new("auto", &to_queue("transient"), b"", &none))
        .await
        .unwrap();

    node.begin_and_drop(node.broker.declare_exchange(&Caller::system(), "/", "new", exchange(false))).await;
    node.begin_and_drop(node.broker.bind(
        &Caller::system(),
        "/",
        BindingDeclare::new("new", &to_queue("q"), b"", &none),
    ))
    .await;
    node.begin_and_drop(node.broker.unbind(
        &Caller::system(),
        "/",
        BindingDeclare::new("kept", &to_queue("gone"), b"", &none),
    ))
    .await;
    node.begin_and_drop(node.broker.delete_exchange(&Caller::system(), "/", "gone", false)).await;
    node.begin_and_drop(node.broker.delete_queue(&Caller::system(), "/", "gone", DeleteOnly::default())).await;
    // The queue is transient, but the exchange that is deleted with the queue's binding is durable.
    node.begin_and_drop(node.broker.delete_queue(&Caller::system(), "/", "transient", DeleteOnly::default())).await;
    node.settled().await;
    let facts = |node: &Node| {
        let mut facts = node.broker.catalog().facts();
        facts.retain(|fact| !matches!(fact, Fact::Running(_)));
        facts
    };
    let before = facts(&node);

    let node = node.crash().await;
    assert_eq!(facts(&node), before);
    assert_eq!(node.recipients("new", ""), 1);
    assert_eq!(node.recipients("kept", ""), 0);
    for name in ["gone", "auto"] {
        assert!(node.broker.check_exchange(&Caller::system(), "/", name).is_err(), "{name}");
    }
    assert!(node.broker.find_queue(&Caller::system(), "/", "gone").is_err());
}

#[tokio::test]
async fn exclusive_queues_are_deleted_although_nobody_waits_for_the_deletion() {
    let node = Node::start(FaultyDisk::new(4)).await;
    let [one, other] = [1, 2].map(|number| ConnectionId { run: node.broker.run(), number });
    for (connection, count) in [(one, 200), (other, 3)] {
        for at in 0..count {
            let declare = QueueDeclare { exclusive: true, ..declare(false) };
            node.broker
                .declare_queue(&of(connection), "/", &format!("{}.{at}", connection.number), declare)
                .await
                .unwrap();
        }
    }
    // A durable exchange is deleted with the last of the queues, so that the deletion waits for the disk.
    node.broker.declare_exchange(&Caller::system(), "/", "auto", exchange(true)).await.unwrap();
    let none = FieldTable::default();
    node.broker.bind(&of(one), "/", BindingDeclare::new("auto", &to_queue("1.0"), b"", &none)).await.unwrap();
    node.begin_and_drop(node.broker.delete_exclusive_queues(one)).await;
    let left = || node.broker.catalog().queues("/").unwrap().count();
    for _ in 0..10_000 {
        if left() == 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!((left(), node.broker.queues().len()), (3, 3));
    assert!(node.broker.check_exchange(&Caller::system(), "/", "auto").is_err());
}

#[tokio::test]
async fn exclusive_queues_are_deleted_although_their_connections_end_without_a_majority() {
    let node = Node::start(FaultyDisk::new(14)).await;
    let owners = (1..=10).map(|number| ConnectionId { run: node.broker.run(), number });
    for owner in owners.clone() {
        let declare = QueueDeclare { exclusive: true, ..declare(false) };
        node.broker.declare_queue(&of(owner), "/", &owner.number.to_string(), declare).await.unwrap();
    }
    node.stalled.store(true, Relaxed);
    node.broker.memory().set_cluster_alarm(true);
    for owner in owners {
        node.broker.delete_exclusive_queues(owner).await; // does not wait
    }
    assert_eq!(node.broker.queues().len(), 10);
    node.broker.memory().set_cluster_alarm(false);
    node.stalled.store(false, Relaxed);
    let all_gone = async {
        while !node.broker.queues().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all_gone).await.expect("all are deleted");
}

#[tokio::test]
async fn many_declarations_share_a_sync() {
    let node = Node::start(FaultyDisk::new(5)).await;
    node.stalled.store(true, Relaxed);
    let declared: Vec<_> = (0..500)
        .map(|at| {
            let broker = node.broker.clone();
            tokio::spawn(async move {
                broker.declare_queue(&Caller::system(), "/", &at.to_string(), declare(true)).await.unwrap().0
            })
        })
        .collect();
    tokio::task::yield_now().await;
    let (_, before) = node.disk.counts();
    node.stalled.store(false, Relaxed);
    for declared in declared {
        assert!(declared.await.unwrap());
    }
    let (_, after) = node.disk.counts();
    assert!(after - before < 50, "{} syncs", after - before);
    let node = node.crash().await;
    assert_eq!(node.broker.catalog().queues("/").unwrap().count(), 500);
}

#[tokio::test]
async fn a_declaration_that_is_not_logged_is_refused_and_changes_nothing() {
    let node = Node::start(FaultyDisk::new(6)).await;
    let groups = &node.broker.node().storage.get().unwrap().groups;
    let of_a_later_version = bytes::Bytes::from_static(&[9; 40]);
    groups.submit(0, groups.leader(0).unwrap().term, of_a_later_version, Box::new(drop)).await;
    let refused = node.broker.declare_queue(&Caller::system(), "/", "q", declare(true)).await.err().unwrap();
    assert!(refused.text.contains("group 0"), "{refused}");
    assert!(node.broker.find_queue(&Caller::system(), "/", "q").is_err());
    node.broker.declare_exchange(&Caller::system(), "/", "e", exchange(false)).await.unwrap_err();
    assert!(matches!(node.broker.storage_health(), Err(crate::StorageTrouble::Stopped(_))));
}

#[tokio::test]
async fn a_change_after_an_orderly_close_is_no_failure_of_storage() {
    let node = Node::start(FaultyDisk::new(7)).await;
    node.declare("q", true).await;
    node.broker.close_storage().await;
    node.broker.declare_exchange(&Caller::system(), "/", "e", exchange(false)).await.unwrap_err();
    assert_eq!(*node.failure.lock(), None);
    let node = node.crash().await;
    assert!(node.broker.find_queue(&Caller::system(), "/", "q").is_ok());
}

#[tokio::test]
async fn a_late_deletion_does_not_delete_a_new_queue_with_the_same_name() {
    let broker = Broker::start(Options::default());
    let auto_delete = QueueDeclare { auto_delete: true, ..declare(false) };
    let (_, first) = broker.declare_queue(&Caller::system(), "/", "q", auto_delete.clone()).await.unwrap();
    broker.delete_queue(&Caller::system(), "/", "q", DeleteOnly::default()).await.unwrap();
    let owner = of(ConnectionId { run: broker.run(), number: 7 });
    let exclusive = QueueDeclare { exclusive: true, ..auto_delete };
    let (created, second) = broker.declare_queue(&owner, "/", "q", exclusive).await.unwrap();
    assert!(created);
    broker.consumer_left(&first).await;
    assert!(broker.end_queue(&first, DeleteOnly::default()).await.is_err());
    assert!(Arc::ptr_eq(&broker.find_queue(&owner, "/", "q").unwrap(), &second));
    assert!(!second.is_deleted());
}

/// A sink that takes every message, and remembers whether it was cancelled.
#[derive(Default)]
struct Consumer {
    cancelled: AtomicBool,
    taken: AtomicBool,
}

impl Sink for Consumer {
    fn fill(&self, source: &mut dyn Source) -> Fill {
        while source.next().is_some() {
            self.taken.store(true, Relaxed);
        }
        Fill::Exhausted
    }

    fn started(&self, _id: ConsumerId) {}

    fn cancelled(&self) {
        self.cancelled.store(true, Relaxed);
    }
}

fn consume(broker: &Broker, queue: &Queue) -> Arc<Consumer> {
    let sink = Arc::<Consumer>::default();
    let subscription = Subscription { sink: sink.clone(), exclusive: false, no_ack: false, prefetch: 0 };
    broker.subscribe(&Caller::system(), queue, subscription).unwrap();
    sink
}

#[tokio::test]
async fn a_queue_with_an_unacknowledged_message_is_not_empty() {
    let broker = Broker::start(Options::default());
    let (_, queue) = broker.declare_queue(&Caller::system(), "/", "q", declare(false)).await.unwrap();
    let message = Extent { properties_at: 0, properties_len: 2, body: Body::Inline { at: 2, len: 1 } };
    let route = broker.route(&Caller::system(), "/", "", b"q", None).unwrap();
    broker.publish(b"\0\0x", &[RoutedRun { route: &route, messages: &[message], waiter: None }]);
    assert!(consume(&broker, &queue).taken.load(Relaxed));
    assert_eq!(queue.look(|queue| queue.depth().ready), 0);
    let only = DeleteOnly { if_empty: true, if_unused: false };
    let refusal = broker.delete_queue(&Caller::system(), "/", "q", only).await.err().unwrap();
    assert_eq!(refusal.text, "queue 'q' in vhost '/' not empty");
    assert!(broker.find_queue(&Caller::system(), "/", "q").is_ok());
}

#[test]
fn a_deletion_if_empty_waits_for_the_settlement_of_the_last_message() {
    use crate::test_node::{Taker, TestNode, in_paused_time};
    in_paused_time(async {
        let node = TestNode::open(Arc::new(FaultyDisk::new(1))).await;
        let queue = node.declare("q").await;
        node.publish_one_by_one(&queue, 0..1, 10).await;
        assert!(node.broker.get(&Caller::system(), &queue, &Taker::default(), true).await.unwrap());
        let only = DeleteOnly { if_empty: true, if_unused: false };
        assert!(
            node.broker.delete_queue(&Caller::system(), "/", "q", only).await.is_ok(),
            "the log need not have it before"
        );
        node.close().await;
    });
}

#[tokio::test]
async fn consumers_are_told_of_a_deletion_after_it_is_durable_and_was_answered() {
    let node = Node::start(FaultyDisk::new(8)).await;
    let queue = node.declare("q", true).await;
    let consumer = consume(&node.broker, &queue);
    let is_cancelled = || consumer.cancelled.load(Relaxed);
    node.stalled.store(true, Relaxed);
    let broker = node.broker.clone();
    let deleted =
        tokio::spawn(
            async move { broker.delete_queue(&Caller::system(), "/", "q", DeleteOnly::default()).await.unwrap() },
        );
    while !queue.is_deleted() {
        tokio::task::yield_now().await;
    }
    assert!(!is_cancelled());
    node.stalled.store(false, Relaxed);
    let deleted = deleted.await.unwrap();
    assert!(!is_cancelled());
    drop(deleted);
    assert!(is_cancelled());
    // The consumers are told even if nobody waits for the answer any more.
    let queue = node.declare("q", true).await;
    let consumer = consume(&node.broker, &queue);
    node.begin_and_drop(node.broker.delete_queue(&Caller::system(), "/", "q", DeleteOnly::default())).await;
    node.settled().await;
    for _ in 0..10_000 {
        if consumer.cancelled.load(Relaxed) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("the consumer of a deleted queue was not told");
}

#[tokio::test]
async fn routes_stay_current_until_a_change_affects_them() {
    let broker = Broker::start(Options::default());
    broker.declare_queue(&Caller::system(), "/", "q", declare(false)).await.unwrap();
    let route = |exchange: &str| broker.route(&Caller::system(), "/", exchange, b"q", None).unwrap();
    let (by_name, by_pattern) = (route(""), route("amq.topic"));
    broker.declare_queue(&Caller::system(), "/", "q", declare(false)).await.unwrap();
    broker.declare_queue(&Caller::system(), "/", "q", declare(true)).await.err().unwrap();
    broker.declare_exchange(&Caller::system(), "/", "amq.topic", exchange(false)).await.err().unwrap();
    assert!(broker.is_current(&by_name) && broker.is_current(&by_pattern));
    // A queue without bindings only affects routes through the default exchange.
    broker.declare_queue(&Caller::system(), "/", "other", declare(false)).await.unwrap();
    assert!(!broker.is_current(&by_name) && broker.is_current(&by_pattern));
    let by_name = route("");
    broker.delete_queue(&Caller::system(), "/", "other", DeleteOnly::default()).await.unwrap();
    assert!(!broker.is_current(&by_name) && broker.is_current(&by_pattern));
    broker
        .bind(&Caller::system(), "/", BindingDeclare::new("amq.topic", &to_queue("q"), b"#", &FieldTable::default()))
        .await
        .unwrap();
    assert!(!broker.is_current(&by_pattern));
    let by_pattern = route("amq.topic");
    broker.delete_queue(&Caller::system(), "/", "q", DeleteOnly::default()).await.unwrap();
    assert!(!broker.is_current(&by_pattern));
    assert!(route("amq.topic").is_unroutable());
}

#[tokio::test]
async fn line_breaks_are_removed_from_names() {
    let broker = Broker::start(Options::default());
    let (_, queue) = broker.declare_queue(&Caller::system(), "/", "a\r\nb\n", declare(false)).await.unwrap();
    assert_eq!(&*queue.name, "ab");
    broker.declare_exchange(&Caller::system(), "/", "e\n", exchange(false)).await.unwrap();
    assert!(
        broker
            .bind(&Caller::system(), "/", BindingDeclare::new("e\r", &to_queue("a\nb"), b"k\n", &FieldTable::default()))
            .await
            .unwrap()
    );
    assert_eq!(broker.route(&Caller::system(), "/", "e", b"", None).unwrap().recipients(), 1);
    let key: Vec<u8> = broker.catalog().bindings("/").unwrap().next().unwrap().1.routing_key.to_vec();
    assert_eq!(key, b"k\n");
    assert!(broker.delete_exchange(&Caller::system(), "/", "\ne", false).await.unwrap());
    assert!(broker.delete_queue(&Caller::system(), "/", "ab\r", DeleteOnly::default()).await.is_ok());
}

#[tokio::test]
async fn a_panic_in_a_change_ends_the_process_even_if_nobody_waits_for_it() {
    let node = Node::start(FaultyDisk::new(9)).await;
    let broker = node.broker.clone();
    let asker = tokio::spawn(async move { broker.to_its_end::<()>(async { panic!("as a test asks for") }).await });
    assert!(asker.await.unwrap_err().is_panic());
    assert!(node.failure.lock().take().is_some());
    let broker = node.broker.clone();
    node.begin_and_drop(broker.to_its_end::<()>(async {
        tokio::time::sleep(Duration::from_millis(40)).await;
        panic!("as a test asks for")
    }))
    .await;
    for _ in 0..10_000 {
        if node.failure.lock().is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("the process goes on");
}
