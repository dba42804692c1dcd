//! The node's storage: opening it, closing it, and the tasks that work with it.
//!
//! At a start group 0 restores the definitions, and then the shards restore the queues with their contents. Only then are
//! the queues served, and tasks read the contents that deliveries need (`fetch`) and keep the log in bounds (`maintain`).
use crate::Broker;
use crate::apply::Applier;
use crate::ask::Asks;
use crate::delivered::{self, Delivered, Reached};
use crate::files::disk_free_min;
use crate::forward::{Forwarding, Proposer};
use crate::fronts::Fronts;
use crate::identity::NodeIdentity;
use crate::inbox::Inbox;
use crate::lacking::{FileEnds, MissingContents};
use crate::leading;
use crate::links::Links;
use crate::open_error::OpenError;
use crate::outbox::Outbox;
use crate::outgoing::Outgoing;
use crate::queue_figures::FiguresAsks;
use crate::replica::Replicas;
use crate::shards::Shards;
use crate::tasks::critical;
use futures::future::BoxFuture;
use leveret_engine::catalog::{CatalogCommand, NodeRun};
use leveret_journal::{Disk, Driver, JournalOptions, RealDisk};
use leveret_replication::{Groups, GroupsOptions, Peers};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// The disk that storage uses, and the bounds of storage.
pub struct StorageOptions {
    /// The disk that holds the data folder.
    pub disk: Arc<dyn Disk>,
    /// The largest size of the log in bytes. The log also takes a quarter of the disk at most, but at least eight
    /// segments, or as many as the disk holds, which are six or more.
    pub log_bytes_max: u64,
    /// The size of a segment of the log in bytes, which is fixed at the first start: smaller on a small disk, larger if the
    /// largest message needs it.
    pub segment_bytes: u64,
    /// A random number that is different at each start of the node.
    pub incarnation: u64,
    /// Called with the reason when the disk or the log failed. The function has to end the process.
    pub on_failure: Arc<dyn Fn(String) + Send + Sync>,
    /// The driver that writes the log and does blocking work, so that nothing runs on a thread of its own; `None` to use
    /// threads.
    pub driver: Option<Arc<dyn Driver>>,
    /// The links to the other nodes of the cluster; `None` if this node is the only one.
    pub peers: Option<Peers>,
}

impl StorageOptions {
    /// Returns the options of the broker program: storage in `folder`, which must exist. A failure ends the process at once
    /// with exit code 74.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        Self {
            disk: Arc::new(RealDisk::new(folder.to_owned())),
            log_bytes_max: LOG_BYTES_MAX,
            segment_bytes: SEGMENT_BYTES,
            incarnation: rand::random(),
            on_failure: Arc::new(|reason| {
                tracing::error!(reason, "storage failed: stopping at once, nothing more is confirmed");
                std::process::exit(74);
            }),
            driver: None,
            peers: None,
        }
    }
}

/// The storage of a node, while it is open.
pub(crate) struct Storage {
    pub(crate) groups: Groups,
    pub(crate) shards: Arc<Shards>,
    pub(crate) replicas: Arc<Replicas>,
    /// The number of the next file of the archive.
    pub(crate) archive_next: Arc<AtomicU64>,
    /// What connects this node with others; `None` if there are none.
    pub(crate) links: Option<Links>,
    /// The driver that does blocking work; `None` to use threads.
    driver: Option<Arc<dyn Driver>>,
    /// The tasks of storage: proposers, fetch, maintenance and room.
    tasks: TaskTracker,
    pub(crate) on_failure: Arc<dyn Fn(String) + Send + Sync>,
}

impl Storage {
    /// Ends the groups, the log and the links to other nodes.
    pub(crate) async fn end(&self) {
        self.groups.stop().await;
        if let Some(links) = &self.links {
            links.peers.stop().await;
        }
    }

    /// Runs `work`, which may wait for the disk, without blocking the calling thread. Returns the result of `work`.
    ///
    /// # Errors
    /// The error of `work`, or one that says that its thread ended without a result.
    pub(crate) async fn off_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> std::io::Result<T> {
        let Some(driver) = &self.driver else { return tokio::task::spawn_blocking(work).await? };
        let (done, result) = tokio::sync::oneshot::channel();
        driver.off_thread(Box::new(move || drop(done.send(work())))).await;
        result.await.map_err(std::io::Error::other)?
    }
}

impl Broker {
    /// Opens the storage and begins to serve the queues that it holds.
    ///
    /// # Errors
    /// [`OpenError`]: the storage is damaged, belongs to another node or a newer version, does not fit the configuration,
    /// or the disk failed.
    ///
    /// The future is boxed so that all of it is compiled here, once, and not in each program that awaits it.
    pub fn open_storage(&self, options: StorageOptions) -> BoxFuture<'_, Result<(), OpenError>> {
        Box::pin(self.open(options))
    }

    async fn open(&self, options: StorageOptions) -> Result<(), OpenError> {
        let StorageOptions { disk, log_bytes_max, segment_bytes, incarnation, on_failure, driver, peers } = options;
        let least = self.options().message_bytes_max + ENTRY_SLACK;
        let total = disk.total_bytes().map_err(OpenError::VolumeSize)?;
        let segment_bytes = (total / SEGMENTS_OF_DISK).min(segment_bytes).max(least).next_multiple_of(1 << 20);
        let found = NodeIdentity::read(&*disk).map_err(OpenError::Identity)?;
        let identity =
            found.unwrap_or(NodeIdentity { node: incarnation, segment_bytes: segment_bytes as u32, log_made: false });
        let segment_bytes = u64::from(identity.segment_bytes);
        if segment_bytes < least {
            let most = segment_bytes - ENTRY_SLACK;
            return Err(OpenError::MessageSize { wanted: self.options().message_bytes_max, most });
        }
        let segments_max = segments_max(total, log_bytes_max, segment_bytes, self.options().message_bytes_max)?;
        if found.is_none() {
            identity.write(&*disk).map_err(OpenError::Identity)?;
        }
        let journal = JournalOptions {
            node: identity.node,
            segment_bytes: identity.segment_bytes,
            segments_max,
            segments_reserved: (segments_max / 8).clamp(2, 8),
            made: identity.log_made,
            on_failure: on_failure.clone(),
            driver: driver.clone(),
        };
        let shards = self.0.shards.get_or_init(|| Arc::new(Shards::new(SHARDS, incarnation, &self.0.memory))).clone();
        let replicas = Arc::new(Replicas::new(shards.list.len()));
        let run = NodeRun { node: identity.node, incarnation: shards.incarnation };
        let _ = self.0.definitions.run.set(run);
        let applier = Arc::new(Applier::new(&self.0, shards.clone(), replicas.clone()));
        let options = GroupsOptions { node: identity.node, groups: SHARDS + 1 };
        let groups = Groups::open(disk.clone(), journal, options, applier, peers.clone()).await?;
        identity.log_is_made(&*disk).map_err(OpenError::Identity)?;
        let delivered = delivered::take(&*disk).map_err(OpenError::Delivered)?;
        let archive_next = Arc::new(AtomicU64::new(self.find_missing(&shards, &groups)?));
        let (tasks, stopping) = (TaskTracker::new(), self.0.stopping.clone());
        let on_failure: Arc<dyn Fn(String) + Send + Sync> = Arc::new(move |reason| match stopping.is_cancelled() {
            true => tracing::debug!(reason, "given up while stopping"), // that is no failure
            false => on_failure(reason),
        });
        let spawned = tasks.clone();
        let outboxes = self.outboxes(&shards);
        let links = peers.map(|peers| self.links(peers, &groups, &shards, &replicas, &outboxes));
        let _ =
            self.0.storage.set(Storage { links, groups, shards, replicas, archive_next, driver, tasks, on_failure });
        spawned.spawn(critical("fetch", self.clone().fetch()));
        spawned.spawn(critical("maintenance", self.clone().maintain()));
        spawned.spawn(critical("room", self.clone().watch_room()));
        spawned.spawn(critical("wants", self.clone().say_wants()));
        if let Some(storage) = self.0.storage.get() {
            self.start_proposers(storage, outboxes, run);
            self.serve(storage, &delivered).await;
            self.begin_run(storage).await;
        }
        Ok(())
    }

    /// Returns the operations of this node for each group, and those of other nodes.
    fn outboxes(&self, shards: &Shards) -> Vec<(Arc<Outbox>, Arc<Inbox>)> {
        let all = std::iter::once(&self.0.definitions.outbox).chain(shards.list.iter().map(|shard| &shard.outbox));
        all.map(|outbox| (outbox.clone(), Arc::default())).collect()
    }

    fn links(
        &self,
        peers: Peers,
        groups: &Groups,
        shards: &Arc<Shards>,
        replicas: &Arc<Replicas>,
        outboxes: &[(Arc<Outbox>, Arc<Inbox>)],
    ) -> Links {
        let outgoing = Outgoing { peers: peers.clone(), queues: Arc::default() };
        let fronts = Fronts {
            node: Arc::downgrade(&self.0),
            shards: shards.clone(),
            replicas: replicas.clone(),
            groups: groups.clone(),
            outgoing: outgoing.clone(),
        };
        let (outboxes, replicas) = (outboxes.to_vec(), replicas.clone());
        let forwarding = Forwarding { outboxes, replicas, outgoing };
        Links { peers, forwarding, fronts: Arc::new(fronts), asks: Asks::new(), figures: FiguresAsks::default() }
    }

    /// Tells the leaders of queues what the consumers of this node want; while it is not known who leads, looks again after
    /// a pause.
    async fn say_wants(self) {
        let Some(storage) = self.0.storage.get() else { return };
        let (mut later, mut again_at) = (Vec::new(), Instant::now());
        loop {
            let queues = tokio::select! {
                biased;
                () = tokio::time::sleep_until(again_at), if !later.is_empty() => {
                    again_at = Instant::now() + SAY_AGAIN;
                    std::mem::take(&mut later)
                }
                queues = storage.shards.wants.take() => queues,
                () = self.0.stopping.cancelled() => return,
            };
            let Some(links) = &storage.links else { continue };
            let queues = queues.into_iter().filter_map(|id| self.queue(id));
            later.extend(queues.filter(|queue| !links.fronts.say(queue, false)).map(|queue| queue.id));
        }
    }

    /// Starts the tasks that hand entries to the logs of the groups, whose operations are in `outboxes`.
    fn start_proposers(&self, storage: &Storage, outboxes: Vec<(Arc<Outbox>, Arc<Inbox>)>, run: NodeRun) {
        let Storage { groups, links, tasks, on_failure, .. } = storage;
        for (group, (outbox, inbox)) in (0..).zip(outboxes) {
            let (groups, stopping, on_failure) = (groups.clone(), self.0.stopping.clone(), on_failure.clone());
            let links = links.as_ref().map(|links| (links.peers.clone(), links.fronts.clone()));
            let proposer = Proposer { group, outbox, inbox, groups, links, of: run, stopping, on_failure };
            tasks.spawn(critical("proposer", proposer.run()));
        }
    }

    /// Tells the cluster that this node has started, so that what lived on its earlier starts is deleted. Waits for that
    /// if this node has no others to wait for, but not for long: the log may have no room.
    async fn begin_run(&self, storage: &Storage) {
        let told = tokio::time::timeout(BEGIN_MAX, self.command(CatalogCommand::NodeStarted));
        if storage.groups.is_alone(0) && matches!(told.await, Ok(Ok(_))) {
            return;
        }
        let broker = self.clone();
        storage.tasks.spawn(critical("start", async move {
            while !broker.0.stopping.is_cancelled() && broker.command(CatalogCommand::NodeStarted).await.is_err() {
                tokio::time::sleep(ASK_AGAIN).await;
            }
        }));
    }

    /// Begins to serve the queues of the shards that this node leads, and waits until those are there that a shard lacked.
    async fn serve(&self, storage: &Storage, delivered: &Delivered) {
        let Storage { shards, replicas, .. } = storage;
        for shard in &shards.list {
            let replica = replicas.of(shard.group);
            if let Some(term) = replica.term()
                && leading::begin(self.node(), shards, replica, shard, term, delivered) > 0
            {
                shard.outbox.until_visible().await;
            }
        }
    }

    /// Removes the files of the archive that no queue needs, and notes the files that are missing. Returns the number of the
    /// next file of the archive.
    fn find_missing(&self, shards: &Shards, groups: &Groups) -> Result<u64, OpenError> {
        let mut ends = FileEnds::new();
        for (_, contents) in shards.all_contents() {
            contents.each(|place| {
                let end = ends.entry(place.file).or_default();
                *end = (*end).max(u64::from(place.offset) + u64::from(place.len));
            });
        }
        let lacking = MissingContents::find(shards, groups.journal(), &ends)?;
        for queue in self.durable_queues() {
            lacking.mark(shards, &queue, &mut queue.enter());
        }
        Ok(lacking.archive_next)
    }

    /// Announces that storage will be opened with these options: the node counts as recovering until that is done. To be
    /// called by a program that serves clients or health checks before it opens storage.
    pub fn announce_storage(&self, options: &StorageOptions) {
        self.0.shards.get_or_init(|| Arc::new(Shards::new(SHARDS, options.incarnation, &self.0.memory)));
    }

    /// Returns whether storage was announced or is being opened: the log is being read, and no queue is served yet.
    pub fn is_recovering(&self) -> bool {
        self.0.shards.get().is_some() && self.0.storage.get().is_none()
    }

    /// Closes storage in order: waits up to ten seconds until everything that was handed in is logged, ends the tasks that
    /// work with the log, and then the log itself, which notes that it was stopped in order. Does nothing if storage is not
    /// open.
    pub async fn close_storage(&self) {
        let Some(storage) = self.0.storage.get() else { return };
        let idle = async {
            let shards = || storage.shards.list.iter().all(|shard| shard.outbox.is_idle());
            while !self.0.definitions.outbox.is_idle() || !shards() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        if tokio::time::timeout(CLOSE_MAX, idle).await.is_err() {
            tracing::warn!("not everything that was published could be logged: it was not confirmed");
        }
        self.0.stopping.cancel();
        storage.tasks.close();
        if tokio::time::timeout(CLOSE_MAX, storage.tasks.wait()).await.is_err() {
            tracing::warn!("a snapshot or a copy is given up: it is made again after the next start");
        }
        self.end_deliveries(storage);
        storage.end().await;
    }

    /// Ends the deliveries of durable queues, and writes down how far each queue was delivered.
    fn end_deliveries(&self, storage: &Storage) {
        let delivered = self.durable_queues().into_iter().map(|queue| {
            let mut entered = queue.enter();
            let term = entered.epoch();
            entered.end();
            (queue.id, Reached { below: entered.delivered_below(), term: Some(term) })
        });
        if let Err(error) = delivered::write(&**storage.groups.journal().disk(), delivered) {
            tracing::warn!(%error, "all messages will be delivered as redelivered after the next start");
        }
    }
}

/// Returns the largest number of segments that the log may have on a volume of `total` bytes. `message` is the size of the
/// largest message, for the error.
///
/// # Errors
/// [`OpenError::VolumeTooSmall`] if the volume does not hold six segments beside the space that has to stay free.
fn segments_max(total: u64, log_bytes_max: u64, segment_bytes: u64, message: u64) -> Result<u32, OpenError> {
    let kept_free = disk_free_min(segment_bytes);
    let fitting = total.saturating_sub(kept_free) / segment_bytes;
    if fitting < SEGMENTS_LEAST {
        let needed = kept_free + SEGMENTS_LEAST * segment_bytes;
        return Err(OpenError::VolumeTooSmall { total, needed, message });
    }
    Ok((log_bytes_max.min(total / 4) / segment_bytes).max(SEGMENTS_MIN).min(fitting) as u32)
}

/// The number of shards of a node.
const SHARDS: u16 = 12;
const SEGMENT_BYTES: u64 = 64 << 20;
/// A disk holds at least this many segments, unless the largest message needs larger ones.
const SEGMENTS_OF_DISK: u64 = 64;
/// The largest number of bytes that an entry holds beside its largest message.
pub(crate) const ENTRY_SLACK: u64 = 1 << 20;
/// The default of [`StorageOptions::log_bytes_max`].
const LOG_BYTES_MAX: u64 = 4 << 30;
const SEGMENTS_MIN: u64 = 8;
/// The smallest number of segments that a volume must hold. With fewer, publishers would never be let in: two are in
/// reserve, one more has to be free, and two are in use while one is emptied.
const SEGMENTS_LEAST: u64 = 6;
const CLOSE_MAX: Duration = Duration::from_secs(10);
/// The longest time that a start waits for the end of what lived on earlier starts.
const BEGIN_MAX: Duration = Duration::from_secs(2);
/// Pause before a leader that was not known is looked for again, to tell it what consumers want.
const SAY_AGAIN: Duration = Duration::from_millis(20);
/// The interval at which a node that has started tells so, until the cluster knows.
const ASK_AGAIN: Duration = Duration::from_millis(200);

#[cfg(test)]
#[path = "storage_tests.rs"]
mod tests;
