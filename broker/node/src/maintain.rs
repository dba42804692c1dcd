//! Keeps storage in bounds while the node runs: snapshots, contents that outlive their segment of the log, publishers held
//! back in time.
use crate::Broker;
use crate::archive::{self, ARCHIVE};
use crate::files::Needed;
use crate::relocate::movable;
use crate::shards::Shards;
use crate::storage::Storage;
use leveret_journal as journal;
use leveret_replication::GroupId;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
#[cfg(any(test, feature = "mutants"))]
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How storage stands.
#[derive(Clone, Debug, Default)]
pub struct StorageUsage {
    /// Bytes that the disk has free; publishers are held back below `disk_free_min`.
    pub disk_free: u64,
    /// See `disk_free`.
    pub disk_free_min: u64,
    /// Segments of the log in use, and the most there may be; publishers are held back when few are left.
    pub log_segments: (u32, u32),
    /// Bytes written to the log since the start.
    pub log_bytes_written: u64,
    /// Syncs of the log since the start.
    pub log_syncs: u64,
    /// Queues with contents that cannot be read, at which their deliveries stop.
    pub unreadable: u64,
}

impl Broker {
    /// How storage stands; none before it is open.
    pub fn storage_usage(&self) -> Option<StorageUsage> {
        let storage = self.0.storage.get()?;
        let journal = storage.groups.journal();
        let usage = journal.usage();
        Some(StorageUsage {
            disk_free: journal.disk().free_bytes().unwrap_or(0),
            disk_free_min: free_min(journal),
            log_segments: (usage.used, usage.segments_max),
            log_bytes_written: usage.bytes_written,
            log_syncs: usage.syncs,
            unreadable: self.unreadable().len() as u64,
        })
    }

    pub(crate) async fn maintain(self) {
        let Some(storage) = self.0.storage.get() else { return };
        let mut upkeep = Upkeep::default();
        loop {
            tokio::select! {
                biased;
                () = self.0.activity.next_look(MAINTAIN_EVERY) => {}
                () = self.0.stopping.cancelled() => return,
            }
            if let Some(stopped) = storage.groups.stopped() {
                return (storage.on_failure)(stopped.to_string()); // who waits for it would wait for ever
            }
            match self.keep_in_bounds(storage, &mut upkeep).await {
                Ok(()) => {
                    upkeep.held_up &= upkeep.waits();
                    if upkeep.has_work() {
                        self.0.activity.mark();
                    }
                }
                Err(error) if journal::is_passing(&error) => {
                    self.0.activity.mark(); // it is tried again
                    if !std::mem::replace(&mut upkeep.held_up, true) {
                        tracing::warn!(%error, "the log stays as it is for the moment: tidied again soon");
                    }
                }
                Err(error) => return (storage.on_failure)(format!("the log cannot be tidied: {error}")),
            }
        }
    }

    /// Holds publishers back in time: what they have on the way fits into the reserve.
    pub(crate) async fn watch_room(self) {
        let Some(storage) = self.0.storage.get() else { return };
        let journal = storage.groups.journal();
        let (mut free, mut was_low) = (u64::MAX, false);
        for tick in 0u64.. {
            tokio::select! {
                biased;
                () = self.0.activity.next_look(WATCH_EVERY) => {}
                () = self.0.stopping.cancelled() => return,
            }
            if tick.is_multiple_of(WATCH_DISK_TICKS) {
                free = journal.disk().free_bytes().unwrap_or(u64::MAX);
                journal.look_for_space();
            }
            let low = free < free_min(journal);
            if low != std::mem::replace(&mut was_low, low) {
                match low {
                    true => tracing::warn!(free, "the disk is low: publishers are held back until there is room"),
                    false => tracing::info!(free, "the disk has room again: publishers go on"),
                }
            }
            let alarm = low || !journal.has_room();
            self.0.memory.set_disk_alarm(alarm);
            if alarm {
                self.0.activity.mark(); // room may come from elsewhere, and publishers wait for it
            }
        }
    }

    /// One round: logs cut, old contents copied on, what is not needed released. A step that fails keeps what it needs, and the
    /// others are done all the same: what one of them frees may be what the first one lacks.
    pub(crate) async fn keep_in_bounds(&self, storage: &Storage, upkeep: &mut Upkeep) -> io::Result<()> {
        let Storage { groups, shards, .. } = storage;
        upkeep.rounds += 1;
        self.cool_idle_queues();
        let cut = self.cut_logs(storage, upkeep).await;
        let relocated = self.relocate_oldest(storage, upkeep).await;
        let compacted = match upkeep.compacts || upkeep.rounds.is_multiple_of(COMPACT_EVERY_ROUNDS) {
            true => self.compact(storage, upkeep).await,
            false => Ok(()),
        };
        #[cfg(any(test, feature = "mutants"))]
        if crate::mutants::RELOCATION_UNNOTED.load(Relaxed) {
            upkeep.moved.clear();
        }
        let noted = self.note_moves(storage, upkeep).await;
        let needed = (0..groups.len()).filter_map(|group| groups.first_segment(group)).min();
        let current = groups.journal().usage().current;
        let freed = self.free_closed(storage).await;
        release(storage, shards, needed.unwrap_or(current).min(current), &upkeep.emptied);
        let failed: Vec<_> = [cut, relocated, compacted, noted, freed].into_iter().filter_map(Result::err).collect();
        upkeep.wait_if_in_vain(&failed);
        let lasting = failed.iter().position(|error| !journal::is_passing(error));
        failed.into_iter().nth(lasting.unwrap_or(0)).map_or(Ok(()), Err)
    }

    /// When contents in memory are as many as they may be: lets go of those that no consumer takes at the moment.
    fn cool_idle_queues(&self) {
        if self.memory().takes_warm() {
            return;
        }
        let queues: Vec<_> = self.queues().values().filter(|queue| queue.is_warm()).cloned().collect();
        queues.iter().for_each(|queue| queue.enter().cool_idle());
    }

    /// Cuts logs that reach back too far.
    async fn cut_logs(&self, storage: &Storage, upkeep: &Upkeep) -> io::Result<()> {
        let groups = &storage.groups;
        if upkeep.waits() {
            return Ok(());
        }
        for group in 0..groups.len() {
            let usage = groups.journal().usage();
            let behind = usage.current.saturating_sub(groups.first_segment(group).unwrap_or(usage.current));
            if behind >= behind_max(&usage, groups.journal().segment_bytes(), groups.snapshot_bytes(group))
                || groups.log_len(group) > LOG_ENTRIES_MAX
            {
                groups.snapshot(group).await?;
            }
        }
        Ok(())
    }

    /// Has the groups whose contents were moved say in a snapshot where they lie now. Until then the emptied files stay.
    async fn note_moves(&self, storage: &Storage, upkeep: &mut Upkeep) -> io::Result<()> {
        if upkeep.waits() {
            return Ok(());
        }
        while let Some(&group) = upkeep.moved.first() {
            storage.groups.snapshot(group).await?;
            upkeep.moved.remove(&group);
        }
        upkeep.emptied.clear();
        Ok(())
    }

    /// Lets go of queues that were deleted, once the log has that.
    async fn free_closed(&self, storage: &Storage) -> io::Result<()> {
        let facts = &self.node().facts;
        let ended = {
            let _nobody_deletes = self.catalog();
            self.node().queues.closed.take_durable(facts.mark(), |end| facts.has(end))
        };
        if ended.is_empty() {
            return Ok(());
        }
        let shards = storage.shards.clone();
        let free = move || {
            ended.iter().for_each(|queue| queue.free_contents(&shards));
            Ok(())
        };
        storage.off_thread(free).await
    }

    /// When the log is half full: copies what lives in its oldest segments into the archive.
    async fn relocate_oldest(&self, storage: &Storage, upkeep: &mut Upkeep) -> io::Result<()> {
        let Storage { groups, shards, .. } = storage;
        let usage = groups.journal().usage();
        let space = groups.journal().disk().free_bytes()?;
        let spare = space.saturating_sub(free_min(groups.journal()));
        if usage.used <= usage.segments_max / 2 {
            return Ok(());
        }
        let newest = usage.current.saturating_sub(u64::from(usage.segments_max / 4));
        let segment_bytes = groups.journal().segment_bytes();
        let mut bytes = 0;
        let oldest = movable(shards, upkeep).into_iter().filter(|(file, _)| *file < newest).take(RELOCATED_AT_A_TIME);
        let fitting = oldest.take_while(|(_, needed)| {
            bytes += needed.live_bytes(segment_bytes);
            bytes <= spare
        });
        self.relocate(storage, &fitting.map(|(file, _)| file).collect(), upkeep).await
    }
}

/// What the rounds of maintenance have to remember.
#[derive(Default)]
pub(crate) struct Upkeep {
    /// Groups whose snapshot on disk does not say yet where contents lie now.
    pub(crate) moved: BTreeSet<GroupId>,
    /// Files that contents were moved out of since all snapshots said where they lie.
    pub(crate) emptied: BTreeSet<u64>,
    /// Files that could not be read, and the round from which on that is tried again.
    aside: BTreeMap<u64, u64>,
    rounds: u64,
    /// No snapshot is begun before this round: the last one found no space.
    snapshots_from: u64,
    /// The round before did not come to its end.
    held_up: bool,
    /// Files that were compacted in the last round of that kind.
    compacted: BTreeSet<u64>,
    /// There may be more to compact: it goes on in the next round.
    compacts: bool,
}

impl Upkeep {
    /// Leaves a file alone for some time: what lies in it cannot be read.
    pub(crate) fn set_aside(&mut self, file: u64) {
        self.aside.insert(file, self.rounds + ASIDE_ROUNDS);
    }

    pub(crate) fn is_aside(&self, file: u64) -> bool {
        self.aside.get(&file).is_some_and(|until| *until > self.rounds)
    }

    /// These files were copied on. As long as they are others each time, there may be more.
    pub(crate) fn has_compacted(&mut self, files: BTreeSet<u64>) {
        self.compacts = !files.is_empty() && files != self.compacted;
        self.compacted = files;
    }

    /// Whether there is something to do that nobody has to ask for: also while no client does anything.
    fn has_work(&self) -> bool {
        self.compacts || !self.moved.is_empty() || !self.emptied.is_empty()
    }

    fn wait_if_in_vain(&mut self, failed: &[io::Error]) {
        if !failed.is_empty() {
            self.snapshots_from = self.rounds + SNAPSHOT_AGAIN_ROUNDS;
        }
        self.aside.retain(|_, until| *until > self.rounds);
    }

    fn waits(&self) -> bool {
        self.rounds < self.snapshots_from
    }
}

/// How many segments the log of a group may reach back before it is cut by a snapshot. Few: what is not needed is soon used
/// again, and a file that was written before is synced faster than a new one. More where the snapshot is large beside them.
fn behind_max(usage: &journal::Usage, segment_bytes: u64, snapshot_bytes: u64) -> u64 {
    let quarter = u64::from(usage.segments_max / 4);
    let worth_it = (snapshot_bytes * LOG_OF_SNAPSHOT).div_ceil(segment_bytes);
    worth_it.clamp(quarter.clamp(1, BEHIND_MIN), quarter.clamp(1, BEHIND_MAX))
}

/// Releases segments of the log below `below` and files of the archive that nothing needs, nor a snapshot that says that
/// contents lie in `emptied`.
fn release(storage: &Storage, shards: &Shards, below: u64, emptied: &BTreeSet<u64>) {
    let journal = storage.groups.journal();
    let files = shards.files.now();
    let is_needed = |file: &u64| files.get(file).is_some_and(Needed::is_needed) || emptied.contains(file);
    journal.release(below, &|segment| is_needed(&segment));
    let unneeded: Vec<u64> = files.keys().filter(|file| !is_needed(file)).copied().collect();
    for file in unneeded.iter().filter(|file| **file & ARCHIVE != 0) {
        if let Err(error) = archive::remove(&**journal.disk(), file & !ARCHIVE) {
            tracing::warn!(file = file & !ARCHIVE, %error, "a file of the archive that nothing needs was not removed");
        }
    }
    shards.files.forget(&unneeded);
}

/// Bytes that the disk has to have free for publishers to go on: snapshots and a restart need some.
fn free_min(journal: &journal::Journal) -> u64 {
    disk_free_min(journal.segment_bytes())
}

/// The same for segments of a size.
pub(crate) fn disk_free_min(segment_bytes: u64) -> u64 {
    DISK_FREE_MIN + segment_bytes
}

/// Segments that the log of a group reaches back at least, and at most, when it is cut, unless the log is small.
const BEHIND_MIN: u64 = 2;
const BEHIND_MAX: u64 = 4;
/// A snapshot is worth this many times its bytes of the log.
const LOG_OF_SNAPSHOT: u64 = 4;
/// A log of more entries than this is cut by a snapshot.
const LOG_ENTRIES_MAX: u64 = 200_000;
const MAINTAIN_EVERY: Duration = Duration::from_millis(200);
/// A snapshot that found no space is begun again after two seconds.
const SNAPSHOT_AGAIN_ROUNDS: u64 = 10;
/// A file that could not be read is left alone for ten seconds.
const ASIDE_ROUNDS: u64 = 50;
/// The archive is looked through for files that are mostly dead every ten seconds.
const COMPACT_EVERY_ROUNDS: u64 = 50;
const WATCH_EVERY: Duration = Duration::from_millis(20);
const WATCH_DISK_TICKS: u64 = 10;
/// Segments emptied into the archive at a time, at most.
const RELOCATED_AT_A_TIME: usize = 4;
/// Beside a segment.
const DISK_FREE_MIN: u64 = 32 << 20;

#[cfg(test)]
#[path = "maintain_tests.rs"]
mod tests;
