//! The node's storage: opened, closed, and what is declared logged in it.
//!
//! At a start group 0 says what is declared, then the shards say what is in the queues; then they are served, and tasks read
//! what deliveries need (`fetch`) and keep the log in bounds (`maintain`).
use crate::Broker;
use crate::archive::{self, ARCHIVE};
use crate::definitions::{self, Fact};
use crate::entry::{long, word};
use crate::follower::Follower;
use crate::log::Log;
use leveret_journal::{self as journal, Disk, RealDisk, read_whole, write_whole};
use leveret_model::refusal::{Refusal, RefusalKind};
use leveret_replication::{self as replication, Groups};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// What storage lies on, and its bounds.
pub struct StorageOptions {
    /// Where all of it lies.
    pub disk: Arc<dyn Disk>,
    /// The log grows up to this size in bytes, or a quarter of the disk.
    pub log_bytes_max: u64,
    /// Size of a segment of the log in bytes, at the first start: less on a small disk, more if the largest message asks
    /// for it.
    pub segment_bytes: u64,
    /// A random number, another one at each start.
    pub incarnation: u64,
    /// Called when the disk or the log failed: it ends the process.
    pub on_failure: Arc<dyn Fn(String) + Send + Sync>,
    /// Who writes the log; none: a thread. With one, nothing runs on a thread of its own.
    pub driver: Option<journal::Driver>,
}

impl StorageOptions {
    /// As the broker has it: in `folder`, which is there; a failure ends the process at once with exit code 74.
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
        }
    }
}

/// What a durable node has.
pub(crate) struct Storage {
    pub(crate) groups: Groups,
    pub(crate) log: Arc<Log>,
    pub(crate) archive_next: AtomicU64,
    /// Declarations are logged one after the other.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// There are threads for what waits for the disk.
    threads: bool,
    pub(crate) on_failure: Arc<dyn Fn(String) + Send + Sync>,
}

impl Storage {
    /// Does what waits for the disk, and keeps nobody waiting meanwhile.
    pub(crate) async fn off_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> std::io::Result<T> {
        if self.threads { tokio::task::spawn_blocking(work).await? } else { work() }
    }
}

/// Why storage was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The log was not.
    #[error(transparent)]
    Log(#[from] replication::OpenError),
    /// The log's segments were made for smaller messages.
    #[error(
        "messages of {wanted} bytes are to be taken, the log in this folder was made for at most {most}: lower \
         message_bytes_max, or begin with an empty folder"
    )]
    MessageSize {
        /// As configured.
        wanted: u64,
        /// What fits.
        most: u64,
    },
    /// The folder of the archive cannot be read.
    #[error("archive: {0}")]
    Archive(std::io::Error),
    /// The file with the node's identity cannot be read or written.
    #[error("node: {0}")]
    Identity(std::io::Error),
}

impl Broker {
    /// Opens the storage, and serves what it holds.
    ///
    /// # Errors
    /// [`OpenError`]: damage, another node's or a newer version's files, the disk.
    pub async fn open_storage(&self, options: StorageOptions) -> Result<(), OpenError> {
        let StorageOptions { disk, log_bytes_max, segment_bytes, incarnation, on_failure, driver } = options;
        let least = self.options().message_bytes_max + ENTRY_SLACK;
        let total = disk.total_bytes().map_err(OpenError::Identity)?;
        let segment_bytes = (total / SEGMENTS_OF_DISK).min(segment_bytes).max(least).next_multiple_of(1 << 20);
        let segment_bytes = segment_bytes as u32;
        let (node, segment_bytes) = identity(&*disk, incarnation, segment_bytes).map_err(OpenError::Identity)?;
        if u64::from(segment_bytes) < least {
            let most = u64::from(segment_bytes) - ENTRY_SLACK;
            return Err(OpenError::MessageSize { wanted: self.options().message_bytes_max, most });
        }
        let segments_max = (log_bytes_max.min(total / 4) / u64::from(segment_bytes)).max(SEGMENTS_MIN) as u32;
        let threads = driver.is_none();
        let journal = journal::Options {
            node,
            segment_bytes,
            segments_max,
            segments_reserved: (segments_max / 8).clamp(2, 8),
            on_failure: on_failure.clone(),
            driver,
        };
        let log = Arc::new(Log::new(SHARDS, incarnation));
        let _ = self.0.log.set(log.clone());
        let follower = Arc::new(Follower::new(&self.0, log.clone()));
        let options = replication::Options { node, groups: SHARDS + 1 };
        let groups = Groups::open(disk, journal, options, follower.clone()).await?;
        follower.declare();
        let archive_next = AtomicU64::new(self.serve(&log, &groups).map_err(OpenError::Archive)?);
        let turn = tokio::sync::Mutex::default();
        for shard in &log.shards {
            let (groups, stopping) = (groups.clone(), self.0.stopping.clone());
            let propose = shard.clone().propose(groups, log.incarnation, stopping, on_failure.clone());
            self.spawn_critical("proposer", propose);
        }
        let _ = self.0.storage.set(Storage { groups, log, archive_next, turn, threads, on_failure });
        self.spawn_critical("fetch", self.clone().fetch());
        self.spawn_critical("maintenance", self.clone().maintain());
        self.spawn_critical("room", self.clone().watch_room());
        Ok(())
    }

    /// Begins to serve the queues; what the archive holds for none of them goes. Returns the archive's next number.
    fn serve(&self, log: &Log, groups: &Groups) -> std::io::Result<u64> {
        let mut queues: Vec<_> = self.queues().values().filter(|queue| queue.log.is_some()).cloned().collect();
        queues.sort_by_key(|queue| queue.id);
        for queue in &queues {
            let mut entered = queue.enter();
            entered.places().for_each(|place| log.files.hold(&place));
            entered.lead();
        }
        log.serving.store(true, Relaxed);
        let disk = groups.journal().disk();
        let mut next = 0;
        let needed = log.files.now();
        for number in archive::list(&**disk)? {
            next = next.max(number + 1);
            if needed.contains_key(&(ARCHIVE | number)) {
                log.files.set_size(ARCHIVE | number, archive::size(&**disk, number)?);
            } else {
                let _ = archive::remove(&**disk, number);
            }
        }
        Ok(next)
    }

    /// Waits for the log to have all that was handed in, then ends it.
    pub async fn close_storage(&self) {
        let Some(storage) = self.0.storage.get() else { return };
        let idle = async {
            while !storage.log.shards.iter().all(|shard| shard.is_idle()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let _ = tokio::time::timeout(CLOSE_MAX, idle).await;
        storage.groups.stop().await;
    }

    /// The right to declare something durable; none without storage.
    pub(crate) async fn turn(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        match self.0.storage.get() {
            Some(storage) => Some(storage.turn.lock().await),
            None => None,
        }
    }

    /// Logs what was declared. The caller has the turn.
    pub(crate) async fn log_facts(&self, facts: &[Fact]) -> Result<(), Refusal> {
        let Some(storage) = self.0.storage.get() else { return Ok(()) };
        let entry = definitions::encode(storage.log.incarnation, facts);
        storage
            .groups
            .write(0, entry.into())
            .await
            .map_err(|error| Refusal { kind: RefusalKind::PreconditionFailed, text: format!("not durable: {error}") })
    }
}

/// The node's identity and the size of its log's segments: made at the first start, kept for ever.
fn identity(disk: &dyn Disk, incarnation: u64, segment_bytes: u32) -> std::io::Result<(u64, u32)> {
    if let Some(bytes) = read_whole(disk, "node")? {
        let mut rest = &bytes[..];
        let read = (long(&mut rest), word(&mut rest));
        let (Some(node), Some(segment_bytes)) = read else {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "the identity is not one"));
        };
        return Ok((node, segment_bytes));
    }
    let mut bytes = incarnation.to_le_bytes().to_vec();
    bytes.extend_from_slice(&segment_bytes.to_le_bytes());
    write_whole(disk, "node", &bytes)?;
    Ok((incarnation, segment_bytes))
}

/// Shards of a node.
const SHARDS: u16 = 12;
const SEGMENT_BYTES: u64 = 64 << 20;
/// A disk holds at least this many segments.
const SEGMENTS_OF_DISK: u64 = 64;
/// What an entry holds beside its largest message, at most, in bytes.
const ENTRY_SLACK: u64 = 1 << 20;
/// The log grows up to this size, or a quarter of its volume.
const LOG_BYTES_MAX: u64 = 4 << 30;
const SEGMENTS_MIN: u64 = 8;
const CLOSE_MAX: Duration = Duration::from_secs(10);
