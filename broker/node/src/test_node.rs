//! A durable node on a disk in memory, for tests, with its clients. The tests run its maintenance one round at a time.
use crate::upkeep::Upkeep;
use crate::*;
use leveret_engine::catalog::QueueDeclare;
use leveret_engine::queue::Publish;
use leveret_journal::faulty::FaultyDisk;
use leveret_journal::{Disk, DiskFile, Driver, Journal};
use leveret_model::table::FieldTable;
use leveret_replication::{Peers, PeersOptions, TcpWires, Wires};
use parking_lot::Mutex;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// A durable node, and the failure that its storage reported, if any.
pub(crate) struct TestNode {
    pub(crate) broker: Broker,
    pub(crate) failure: Arc<Mutex<Option<String>>>,
    upkeep: Upkeep,
}

/// A sink that takes every message, and keeps the beginning of each body.
#[derive(Default)]
pub(crate) struct Taker {
    /// The identity of each delivery, and the first bytes of its body.
    pub(crate) taken: Mutex<Vec<(DeliveryId, Vec<u8>)>>,
}

impl Sink for Taker {
    fn fill(&self, source: &mut dyn Source) -> Fill {
        let mut taken = self.taken.lock();
        while let Some(delivery) = source.next() {
            taken.push((delivery.id, delivery.body[..delivery.body.len().min(8)].to_vec()));
        }
        Fill::Exhausted
    }
}

/// Counts the confirms.
#[derive(Default)]
pub(crate) struct Confirmed(pub(crate) Mutex<u64>);

impl Confirm for Confirmed {
    fn confirmed(&self, _channel: u16, _token: u64) {
        *self.0.lock() += 1;
    }
}

/// Returns the connection of a new client of `broker`.
pub(crate) fn connection(broker: &Broker) -> Arc<Connection> {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 5672));
    broker.connected(Hello {
        peer: address,
        local: address,
        identity: Identity { user: "guest".into() },
        mechanism: "PLAIN",
        vhost: "/".into(),
        protocol: "AMQP 0-9-1",
        client_properties: FieldTable::default(),
        tuned: Tuned { frame_max: 131_072, channel_max: 2047, heartbeat: 0 },
    })
}

/// Runs a test in simulated time, which jumps ahead when no task has work.
pub(crate) fn in_paused_time<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(test)
}

/// A driver that writes the log one step every millisecond, unless it is told to stall.
#[derive(Default)]
pub(crate) struct StepDriver {
    pub(crate) stalled: Arc<AtomicBool>,
}

impl Driver for StepDriver {
    fn drive(&self, journal: Journal) {
        let stalled = self.stalled.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(1)).await;
                if !stalled.load(Relaxed) {
                    journal.step();
                }
            }
        });
    }

    fn writes_at_once(&self) -> bool {
        false
    }

    fn off_thread(&self, work: Box<dyn FnOnce() + Send>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move { work() })
    }
}

/// A disk that refuses reads while it is told to, as if the process had run out of descriptors.
pub(crate) struct Refusing {
    pub(crate) disk: FaultyDisk,
    pub(crate) refuses: Arc<Refuses>,
}

#[derive(Default)]
pub(crate) struct Refuses {
    pub(crate) now: AtomicBool,
    /// The number of reads so far.
    pub(crate) reads: AtomicU64,
    /// The name of a file, and an offset in it that the disk cannot read.
    pub(crate) spot: Mutex<Option<(String, u64)>>,
    /// Set if the folder of the archive cannot be listed.
    pub(crate) archive: bool,
}

pub(crate) struct RefusingFile {
    name: String,
    file: Arc<dyn DiskFile>,
    refuses: Arc<Refuses>,
}

impl Refusing {
    fn wrap(&self, name: &str, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(RefusingFile { name: name.to_owned(), file, refuses: self.refuses.clone() })
    }
}

impl Disk for Refusing {
    fn create(&self, name: &str, len: u64, zeroed: bool) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.wrap(name, self.disk.create(name, len, zeroed)?))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.wrap(name, self.disk.open(name)?))
    }
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        if self.refuses.archive && folder == "archive" {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.disk.list(folder)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        self.disk.sync_folder(folder)
    }
    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }
    fn total_bytes(&self) -> io::Result<u64> {
        self.disk.total_bytes()
    }
}

impl DiskFile for RefusingFile {
    fn write_at(&self, parts: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.file.write_at(parts, offset)
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.refuses.reads.fetch_add(1, Relaxed);
        let here = offset..offset + buffer.len() as u64;
        if self.refuses.spot.lock().as_ref().is_some_and(|(name, at)| *name == self.name && here.contains(at)) {
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error()));
        }
        match self.refuses.now.load(Relaxed) {
            true => Err(io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error())),
            false => self.file.read_at(buffer, offset),
        }
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
    fn sync_and_drop_cache(&self, len: u64) -> io::Result<()> {
        self.file.sync_and_drop_cache(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}

/// Opens a node on `disk`, with a memory budget in bytes and, if it has any, links to other nodes.
pub(crate) async fn open_storage(
    disk: Arc<dyn Disk>,
    memory_max: u64,
    driver: Option<Arc<dyn Driver>>,
    links: Option<(PeersOptions, Arc<dyn Wires>)>,
) -> Result<TestNode, OpenError> {
    let failure = Arc::new(Mutex::new(None));
    let options = Options { memory_max, message_bytes_max: 64 << 10, ..Options::default() };
    let broker = Broker::start(options);
    let messages = broker.0.network.messages.clone();
    let peers = links.map(|(options, wires)| Peers::start(options, wires, messages));
    let storage = StorageOptions { driver, peers, ..storage_options(disk, &failure) };
    broker.open_storage(storage).await?;
    Ok(TestNode { broker, failure, upkeep: Upkeep::default() })
}

fn storage_options(disk: Arc<dyn Disk>, failure: &Arc<Mutex<Option<String>>>) -> StorageOptions {
    let said = failure.clone();
    StorageOptions {
        disk,
        log_bytes_max: 0,
        segment_bytes: 0,
        incarnation: rand::random(),
        on_failure: Arc::new(move |reason| {
            said.lock().get_or_insert(reason);
        }),
        driver: None,
        peers: None,
    }
}

/// Opens a node on `disk` that is part of a cluster. Others reach it over `wires`.
pub(crate) async fn open_in_cluster(
    disk: Arc<dyn Disk>,
    cluster: ClusterOptions,
    wires: TcpWires,
) -> Result<TestNode, OpenError> {
    let failure = Arc::new(Mutex::new(None));
    let mut storage = storage_options(disk, &failure);
    let name = format!("leveret@{}", cluster.address);
    let broker = Broker::start(Options { name, message_bytes_max: 64 << 10, ..Options::default() });
    broker.open_links(cluster, Arc::new(wires), &mut storage)?;
    broker.open_storage(storage).await?;
    let node = TestNode { broker, failure, upkeep: Upkeep::default() };
    match node.broker.begin_cluster().await {
        Ok(()) => Ok(node),
        Err(error) => {
            node.end().await;
            Err(error)
        }
    }
}

impl TestNode {
    /// Opens a node on `disk`. The node's own maintenance tasks run as usual.
    pub(crate) async fn open(disk: Arc<dyn Disk>) -> Self {
        Self::try_open(disk).await.unwrap()
    }

    pub(crate) async fn try_open(disk: Arc<dyn Disk>) -> Result<Self, OpenError> {
        Self::open_with(disk, u64::MAX / 2).await
    }

    /// Does the same as [`open`](Self::open), with a memory budget in bytes.
    pub(crate) async fn open_with(disk: Arc<dyn Disk>, memory_max: u64) -> Result<Self, OpenError> {
        open_storage(disk, memory_max, Some(Arc::new(StepDriver::default())), None).await
    }

    /// Declares queues until `count` of them share a shard. Returns these.
    pub(crate) async fn declare_in_one_shard(&self, count: usize) -> Vec<Arc<Queue>> {
        let mut queues = Vec::new();
        for at in 0.. {
            let queue = self.declare(&format!("q{at}")).await;
            if self.shards().shard(queue.id).group == 1 {
                queues.push(queue);
            }
            if queues.len() == count {
                break;
            }
        }
        queues
    }

    pub(crate) async fn declare(&self, name: &str) -> Arc<Queue> {
        let declare = QueueDeclare { durable: true, ..QueueDeclare::default() };
        self.broker.declare_queue(&Caller::system(), "/", name, declare).await.unwrap().1
    }

    /// Publishes messages to queues of one shard, each of `size` bytes that begin with its number. Does not wait.
    pub(crate) fn publish(
        &self,
        queues: &[QueueId],
        numbers: std::ops::Range<u64>,
        size: usize,
        confirmed: &Arc<Confirmed>,
    ) {
        self.publish_to(self.shards().shard(queues[0]), queues, numbers, size, confirmed);
    }

    /// Does the same as [`publish`](Self::publish), to queues that need not exist or belong to `shard`.
    pub(crate) fn publish_to(
        &self,
        shard: &shard::Shard,
        queues: &[QueueId],
        numbers: std::ops::Range<u64>,
        size: usize,
        confirmed: &Arc<Confirmed>,
    ) {
        let mut bytes = vec![0, 0];
        let messages: Vec<Extent> = numbers
            .map(|number| {
                let at = bytes.len() as u32;
                bytes.extend_from_slice(&number.to_be_bytes());
                bytes.resize(at as usize + size, number as u8);
                Extent { properties_at: 0, properties_len: 2, body: Body::Inline { at, len: size as u32 } }
            })
            .collect();
        let publish = Publish { exchange: b"", routing_key: b"key", bytes: &bytes, messages: &messages };
        let waiter = Waiter { to: confirmed.clone(), channel: 1, token: 1 };
        shard.publish(queues, &publish, Some(waiter));
    }

    /// Publishes each message as a run of its own, and waits until all are confirmed.
    pub(crate) async fn publish_one_by_one(&self, queue: &Queue, numbers: std::ops::Range<u64>, size: usize) {
        let confirmed = Arc::new(Confirmed::default());
        let wanted = numbers.end - numbers.start;
        for number in numbers {
            self.publish(&[queue.id], number..number + 1, size, &confirmed);
            if number % 16 == 15 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        self.until("all is confirmed", || *confirmed.0.lock() == wanted).await;
    }

    pub(crate) fn shards(&self) -> &Arc<shards::Shards> {
        self.broker.0.shards.get().unwrap()
    }

    pub(crate) fn storage(&self) -> &storage::Storage {
        self.broker.0.storage.get().unwrap()
    }

    /// Runs one round of maintenance.
    pub(crate) async fn keep_in_bounds(&mut self) {
        self.try_to_keep_in_bounds().await.unwrap();
    }

    pub(crate) async fn try_to_keep_in_bounds(&mut self) -> io::Result<()> {
        let storage = self.broker.0.storage.get().unwrap();
        self.broker.keep_in_bounds(storage, &mut self.upkeep).await
    }

    /// Waits until `done` returns true, for a minute of the test's time at most.
    pub(crate) async fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        for _ in 0..60_000 {
            if done() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("in vain: {what}; storage said {:?}", self.failure.lock());
    }

    /// Consumes all messages of a queue, and returns their numbers.
    pub(crate) async fn drain(&self, queue: &Arc<Queue>) -> Vec<u64> {
        let sink = Arc::new(Taker::default());
        let subscription = Subscription { sink: sink.clone(), exclusive: false, no_ack: true, prefetch: 0 };
        let id = self.broker.subscribe(&Caller::system(), queue, subscription).unwrap();
        self.until("the queue is empty", || queue.look(|queue| queue.depth().ready) == 0).await;
        self.broker.unsubscribe(queue, id);
        self.until("what was settled is logged", || queue.look(|queue| queue.depth().unacked) == 0).await;
        let taken = sink.taken.lock();
        taken.iter().map(|(_, body)| u64::from_be_bytes(body[..].try_into().unwrap())).collect()
    }

    /// Ends the node in the middle of its work. Its disk should have lost its power before.
    pub(crate) async fn end(self) {
        self.broker.stop();
        self.storage().end().await;
    }

    /// Stops the node in order.
    pub(crate) async fn close(self) {
        self.broker.close_storage().await;
        self.broker.stop();
        tokio::time::sleep(Duration::from_secs(1)).await; // until the node's tasks have ended
    }
}
