//! The node's storage: opened, applied, kept in bounds.
//!
//! At a start group 0 says what is declared, then the shards say what is in the queues; then they are served. While the node
//! runs a task takes snapshots, copies contents that outlive their segment into the archive, and lets segments go.
use crate::archive::{self, ARCHIVE};
use crate::definitions::{self, Fact};
use crate::entry::{self, Operation, long, word};
use crate::log::{Log, Reader};
use crate::queue::{Queue, QueueId};
use crate::{Broker, Node};
use bytes::Bytes;
use leveret_engine::queue::{Logged, Place};
use leveret_journal::{self as journal, Disk, RealDisk, read_whole, write_whole};
use leveret_model::refusal::{Refusal, RefusalKind};
use leveret_replication::{self as replication, Applied, GroupId, Groups};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

/// What a durable node has.
pub(crate) struct Storage {
    groups: Groups,
    log: Arc<Log>,
    archive_next: AtomicU64,
    /// Declarations are logged one after the other.
    turn: tokio::sync::Mutex<()>,
}

/// Why storage was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The log was not.
    #[error(transparent)]
    Log(#[from] replication::OpenError),
    /// The file with the node's identity cannot be read or written.
    #[error("node: {0}")]
    Identity(std::io::Error),
}

struct Follower {
    node: Weak<Node>,
    log: Arc<Log>,
    /// The queues that group 0 declared are there.
    declared: OnceLock<()>,
}

impl Broker {
    /// Opens the storage in `folder`, and serves what it holds.
    ///
    /// # Errors
    /// [`OpenError`]: damage, another node's or a newer version's files, the disk.
    pub async fn open_storage(&self, folder: &Path) -> Result<(), OpenError> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(folder.to_owned()));
        let (node, segment_bytes) = identity(&*disk, self.options().message_bytes_max).map_err(OpenError::Identity)?;
        let total = disk.total_bytes().map_err(OpenError::Identity)?;
        let segments_max = (LOG_BYTES_MAX.min(total / 4) / u64::from(segment_bytes)).max(SEGMENTS_MIN) as u32;
        let journal = journal::Options {
            node,
            segment_bytes,
            segments_max,
            segments_reserved: (segments_max / 8).clamp(2, 8),
            on_failure: Arc::new(|reason| {
                tracing::error!(reason, "the disk failed: stopping at once, nothing more is confirmed");
                std::process::exit(74);
            }),
        };
        let log = Arc::new(Log::new(SHARDS));
        let _ = self.0.log.set(log.clone());
        let follower =
            Arc::new(Follower { node: Arc::downgrade(&self.0), log: log.clone(), declared: OnceLock::new() });
        let options = replication::Options { node, groups: SHARDS + 1 };
        let groups = Groups::open(disk, journal, options, follower.clone()).await?;
        follower.declare();
        let archive_next = AtomicU64::new(self.serve(&log, &groups));
        let storage =
            Storage { groups: groups.clone(), log: log.clone(), archive_next, turn: tokio::sync::Mutex::default() };
        for shard in &log.shards {
            let stopping = self.0.stopping.clone();
            tokio::spawn(shard.clone().propose(groups.clone(), log.incarnation, stopping));
        }
        let _ = self.0.storage.set(storage);
        tokio::spawn(self.clone().fetch());
        tokio::spawn(self.clone().maintain());
        tokio::spawn(self.clone().watch_room());
        Ok(())
    }

    /// Begins to serve the queues; what the archive holds for none of them goes. Returns the archive's next number.
    fn serve(&self, log: &Log, groups: &Groups) -> u64 {
        let queues: Vec<_> = self.queues().values().filter(|queue| queue.log.is_some()).cloned().collect();
        for queue in &queues {
            let mut entered = queue.enter();
            entered.files().for_each(|file| log.hold(file));
            entered.lead();
        }
        log.serving.store(true, Relaxed);
        let disk = groups.journal().disk();
        let mut next = 0;
        for number in archive::list(&**disk).unwrap_or_default() {
            next = next.max(number + 1);
            if !log.files.lock().contains_key(&(ARCHIVE | number)) {
                let _ = archive::remove(&**disk, number);
            }
        }
        next
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

    async fn fetch(self) {
        let Some(Storage { groups, log, .. }) = self.0.storage.get() else { return };
        loop {
            let wanted = tokio::select! {
                wanted = log.wanted() => wanted,
                () = self.0.stopping.cancelled() => return,
            };
            for queue in wanted.into_iter().filter_map(|id| self.queue(id)) {
                queue.fetch_queued.store(false, Relaxed);
                let now = self.clock().now();
                let wanted = {
                    let mut entered = queue.enter();
                    let wanted = entered.wants();
                    if wanted.is_none() {
                        entered.dispatch(now); // it came to its end meanwhile
                    }
                    wanted
                };
                let Some(runs) = wanted else {
                    queue.fetched.notify_waiters();
                    continue;
                };
                let journal = groups.journal().clone();
                tokio::task::spawn_blocking(move || {
                    let mut reader = Reader::new(&journal);
                    let read: std::io::Result<Vec<_>> =
                        runs.iter().map(|(segment, place)| Ok((*segment, reader.read(place)?))).collect();
                    match read {
                        Ok(runs) => {
                            let mut entered = queue.enter();
                            entered.fetched(runs);
                            entered.dispatch(now);
                            drop(entered);
                            queue.fetched.notify_waiters();
                        }
                        Err(error) => tracing::error!(queue = &*queue.name, %error, "contents cannot be read"),
                    }
                });
            }
        }
    }

    async fn maintain(self) {
        let Some(storage) = self.0.storage.get() else { return };
        let mut ticks = tokio::time::interval(MAINTAIN_EVERY);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.0.stopping.cancelled() => return,
            }
            if let Err(error) = self.keep_in_bounds(storage).await {
                tracing::warn!(%error, "the log could not be tidied");
            }
        }
    }

    /// Holds publishers back in time: what they have on the way fits into the reserve.
    async fn watch_room(self) {
        let Some(storage) = self.0.storage.get() else { return };
        let journal = storage.groups.journal();
        let mut ticks = tokio::time::interval(WATCH_EVERY);
        let mut free = u64::MAX;
        for tick in 0u64.. {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.0.stopping.cancelled() => return,
            }
            if tick.is_multiple_of(WATCH_DISK_TICKS) {
                free = journal.disk().free_bytes().unwrap_or(u64::MAX);
                journal.look_for_space();
            }
            self.0.memory.set_disk_alarm(!journal.has_room() || free < DISK_FREE_MIN);
        }
    }

    async fn keep_in_bounds(&self, storage: &Storage) -> std::io::Result<()> {
        let Storage { groups, log, .. } = storage;
        let usage = groups.journal().usage();
        let behind_max = u64::from((usage.segments_max / 4).clamp(1, 4));
        for group in 0..groups.len() {
            let behind = groups.first_segment(group).map_or(0, |first| usage.current - first);
            if behind >= behind_max || groups.log_len(group) > LOG_ENTRIES_MAX {
                groups.snapshot(group).await?;
            }
        }
        if usage.used > usage.segments_max / 2 {
            let newest = usage.current - u64::from(usage.segments_max / 4);
            let oldest = log.files.lock().iter().filter(|(_, runs)| **runs > 0).map(|(&file, _)| file).min();
            if let Some(oldest) = oldest.filter(|oldest| *oldest < newest) {
                self.relocate(storage, newest.min(oldest + RELOCATED_AT_A_TIME)).await?;
            }
        }
        let needed = (0..groups.len()).filter_map(|group| groups.first_segment(group)).min();
        let below = needed.unwrap_or(usage.current).min(usage.current);
        let files = log.files.lock().clone();
        groups.journal().release(below, &|segment| files.get(&segment).is_some_and(|&runs| runs > 0));
        for (&file, _) in files.iter().filter(|(file, runs)| **runs == 0 && **file & ARCHIVE != 0) {
            let _ = archive::remove(&**groups.journal().disk(), file & !ARCHIVE);
        }
        log.files.lock().retain(|_, runs| *runs > 0);
        Ok(())
    }

    /// Copies what lives in segments below `below` into the archive. The segments are free once the snapshots say where
    /// it lies now.
    async fn relocate(&self, storage: &Storage, below: u64) -> std::io::Result<()> {
        let Storage { groups, log, archive_next, .. } = storage;
        let old = |file: u64| file & ARCHIVE == 0 && file < below;
        if !log.files.lock().iter().any(|(&file, &runs)| runs > 0 && old(file)) {
            return Ok(());
        }
        let queues: Vec<_> = self.queues().values().filter(|queue| queue.log.is_some()).cloned().collect();
        let mut moved = vec![false; usize::from(groups.len())];
        for queue in queues {
            let runs = queue.look(|state| state.runs_in(&old));
            let mut rest = &runs[..];
            while !rest.is_empty() {
                let mut bytes = 0;
                let some = rest.iter().take_while(|(_, place)| {
                    bytes += u64::from(place.run_len);
                    bytes <= ARCHIVE_BYTES
                });
                let (now, later) = rest.split_at(some.count().max(1));
                rest = later;
                let number = archive_next.fetch_add(1, Relaxed);
                let (journal, copied) = (groups.journal().clone(), now.to_vec());
                let places = tokio::task::spawn_blocking(move || copy(&journal, number, &copied)).await??;
                let mut entered = queue.enter();
                for ((segment, _), place) in now.iter().zip(places) {
                    if entered.relocate(*segment, place) {
                        log.hold(place.file);
                    }
                }
                moved[usize::from(log.shard(queue.id).group)] = true;
            }
        }
        for (group, _) in (0..).zip(&moved).filter(|(_, moved)| **moved) {
            groups.snapshot(group).await?;
        }
        Ok(())
    }
}

fn copy(journal: &journal::Journal, number: u64, runs: &[(u64, Place)]) -> std::io::Result<Vec<Place>> {
    let mut reader = Reader::new(journal);
    let bytes: std::io::Result<Vec<Bytes>> = runs.iter().map(|(_, place)| reader.read(place)).collect();
    archive::write(&**journal.disk(), number, &bytes?)
}

impl Applied for Follower {
    fn apply(&self, group: GroupId, entry: &Bytes, place: journal::Place) {
        let Some(node) = self.node.upgrade() else { return };
        if group == 0 {
            let known = definitions::decode(entry);
            assert!(known.is_some(), "an entry of group 0 is of a version that is not known");
            if let Some((incarnation, facts)) = known
                && incarnation != self.log.incarnation
            {
                let mut catalog = node.catalog.write();
                facts.into_iter().for_each(|fact| definitions::apply(&mut catalog, fact));
            }
            return;
        }
        self.declare();
        let now = node.clock.now();
        let known = entry::operations(entry, |operation| self.operation(&node, operation, entry, place, now));
        assert!(known.is_some(), "an entry of group {group} is of a version that is not known");
        if let Some((incarnation, number)) = entry::header(entry)
            && incarnation == self.log.incarnation
        {
            self.log.shards[usize::from(group) - 1].applied(number);
        }
    }

    fn snapshot(&self, group: GroupId) -> Vec<u8> {
        let Some(node) = self.node.upgrade() else { return Vec::new() };
        if group == 0 {
            return definitions::encode(0, &definitions::of(&node.catalog.read()));
        }
        let mut queues: Vec<_> = node.queues.read().values().cloned().collect();
        queues.retain(|queue| queue.log.is_some() && self.log.shard(queue.id).group == group && !queue.is_deleted());
        queues.sort_by_key(|queue| queue.id);
        let mut out = Vec::new();
        for queue in queues {
            out.extend_from_slice(&queue.id.0.to_le_bytes());
            let length_at = out.len();
            out.extend_from_slice(&[0; 4]);
            queue.look(|state| state.snapshot(&mut out));
            let length = (out.len() - length_at - 4) as u32;
            out[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
        }
        out
    }

    fn restore(&self, group: GroupId, mut snapshot: &[u8]) -> Result<(), String> {
        let Some(node) = self.node.upgrade() else { return Ok(()) };
        if group == 0 {
            let (_, facts) = definitions::decode(snapshot).ok_or("definitions of a version that is not known")?;
            let mut catalog = node.catalog.write();
            facts.into_iter().for_each(|fact| definitions::apply(&mut catalog, fact));
            return Ok(());
        }
        self.declare();
        let short = || "the snapshot ends too early".to_owned();
        while !snapshot.is_empty() {
            let id = QueueId(long(&mut snapshot).ok_or_else(short)?);
            let length = word(&mut snapshot).ok_or_else(short)?;
            let mut index = snapshot.split_off(..length as usize).ok_or_else(short)?;
            let queue = node.queues.read().get(&id).cloned();
            if let Some(queue) = queue {
                let restored = queue.enter().restore(&mut index, node.clock.now());
                restored.map_err(|damaged| format!("queue '{}': {}", queue.name, damaged.0))?;
            }
        }
        Ok(())
    }
}

impl Follower {
    /// Makes the queues that group 0 declared, once.
    fn declare(&self) {
        self.declared.get_or_init(|| {
            let Some(node) = self.node.upgrade() else { return };
            let catalog = node.catalog.read();
            let mut queues = node.queues.write();
            for vhost in catalog.vhosts() {
                for (name, queue) in catalog.queues(vhost).into_iter().flatten() {
                    let names = (vhost.clone(), name.clone());
                    let made = Queue::new(queue, names, node.memory.clone(), Some(self.log.clone()));
                    queues.insert(queue.id, Arc::new(made));
                }
            }
        });
    }

    fn operation(&self, node: &Node, operation: Operation, entry: &Bytes, place: journal::Place, now: u64) {
        let find = |id: QueueId| node.queues.read().get(&id).cloned();
        match operation {
            Operation::Enqueue { queues, count, body_bytes, at, run } => {
                // A run that is a small part of its entry would hold all of it in memory.
                let run = if run.len() * 4 < entry.len() { Bytes::copy_from_slice(&run) } else { run };
                let journal::Place { segment, offset, len } = place;
                let place = Place { file: segment, offset, len, at, run_len: run.len() as u32 };
                for queue in queues.into_iter().filter_map(find) {
                    let mut entered = queue.enter();
                    if queue.is_deleted() {
                        continue;
                    }
                    let serving = self.log.serving.load(Relaxed);
                    if serving {
                        self.log.hold(place.file);
                    }
                    let warm = serving && node.memory.takes_warm() && entered.takes_warm();
                    entered.apply_logged(&Logged { run: &run, place, count, body_bytes, warm }, now);
                    if serving {
                        entered.dispatch(now);
                    }
                }
            }
            Operation::Settle { queue, first, count } => {
                if let Some(queue) = find(queue) {
                    queue.enter().apply_settled(first, count);
                }
            }
            Operation::Return { queue, sequence, offset } => {
                if let Some(queue) = find(queue) {
                    let mut entered = queue.enter();
                    entered.apply_returned(sequence, offset);
                    entered.dispatch(now);
                }
            }
        }
    }
}

/// The node's identity and the size of its log's segments: made at the first start, kept for ever.
fn identity(disk: &dyn Disk, message_bytes_max: u64) -> std::io::Result<(u64, u32)> {
    if let Some(bytes) = read_whole(disk, "node")? {
        let mut rest = &bytes[..];
        let read = (long(&mut rest), word(&mut rest));
        let (Some(node), Some(segment_bytes)) = read else {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "the identity is not one"));
        };
        return Ok((node, segment_bytes));
    }
    let node: u64 = rand::random();
    let segment_bytes = (message_bytes_max + (1 << 20)).next_power_of_two().max(SEGMENT_BYTES) as u32;
    let mut bytes = node.to_le_bytes().to_vec();
    bytes.extend_from_slice(&segment_bytes.to_le_bytes());
    write_whole(disk, "node", &bytes)?;
    Ok((node, segment_bytes))
}

/// Shards of a node.
const SHARDS: u16 = 12;
const SEGMENT_BYTES: u64 = 64 << 20;
/// The log grows up to this size, or a quarter of its volume.
const LOG_BYTES_MAX: u64 = 4 << 30;
const SEGMENTS_MIN: u64 = 8;
/// A log of more entries than this is cut by a snapshot.
const LOG_ENTRIES_MAX: u64 = 200_000;
const MAINTAIN_EVERY: Duration = Duration::from_millis(200);
const WATCH_EVERY: Duration = Duration::from_millis(20);
const WATCH_DISK_TICKS: u64 = 10;
/// Segments emptied into the archive at a time.
const RELOCATED_AT_A_TIME: u64 = 4;
/// Size of a file of the archive.
const ARCHIVE_BYTES: u64 = 8 << 20;
/// Publishers wait while the volume has less free than this.
const DISK_FREE_MIN: u64 = 32 << 20;
const CLOSE_MAX: Duration = Duration::from_secs(10);
