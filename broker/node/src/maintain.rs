//! The maintenance task and the room task, which keep storage within its bounds: they make snapshots, copy contents that
//! outlive their segment of the log, and hold publishers back in time.
use crate::Broker;
use crate::archive::{self, ARCHIVE};
use crate::files::FileUse;
use crate::files::disk_free_min;
use crate::relocate::movable;
use crate::replica::Replica;
use crate::shards::Shards;
use crate::storage::Storage;
use crate::upkeep::{LogCut, Upkeep};
use leveret_journal as journal;
use std::collections::BTreeSet;
use std::io;
#[cfg(any(test, feature = "mutants"))]
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Figures about storage.
#[derive(Clone, Debug, Default)]
pub struct StorageUsage {
    /// The free space of the disk in bytes; publishers are held back below `disk_free_min`. 0 if the disk does not tell.
    pub disk_free: u64,
    /// The free space in bytes below which publishers are held back.
    pub disk_free_min: u64,
    /// The number of segments of the log that are in use and the most there may be; publishers are held back when few are
    /// left.
    pub log_segments: (u32, u32),
    /// The number of bytes written to the log since the start of the node.
    pub log_bytes_written: u64,
    /// The number of syncs of the log since the start of the node.
    pub log_syncs: u64,
    /// The number of queues whose deliveries have stopped at contents that cannot be read.
    pub unreadable: u64,
}

impl Broker {
    /// Returns figures about storage; `None` until it is open.
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
                return (storage.on_failure)(stopped.to_string()); // callers that wait for it would wait for ever
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

    /// Holds publishers back while the log or the disk has little room, early enough that the messages already on their way
    /// fit into the reserve.
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

    /// Does one round of maintenance: cuts logs, copies old contents, and releases files that nothing needs any more. If a
    /// step fails, the data it needs are kept and the other steps are done all the same: the space that one of them frees
    /// may be what the failed one lacks.
    ///
    /// # Errors
    /// The error of a step that failed; one that does not pass comes before one that may.
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
        let freed = self.free_ended(storage).await;
        shards.end_idle_arrivals(&**groups.journal().disk());
        groups.end_idle_arrivals();
        release(storage, shards, needed.unwrap_or(current).min(current), &upkeep.emptied);
        let failed: Vec<_> = [cut, relocated, compacted, noted, freed].into_iter().filter_map(Result::err).collect();
        upkeep.wait_if_in_vain(&failed);
        let lasting = failed.iter().position(|error| !journal::is_passing(error));
        failed.into_iter().nth(lasting.unwrap_or(0)).map_or(Ok(()), Err)
    }

    /// When durable queues have as much contents in memory as they may: frees the contents that no consumer is about to
    /// take.
    fn cool_idle_queues(&self) {
        if self.memory().takes_warm() {
            return;
        }
        let queues: Vec<_> = self.queues().values().filter(|queue| queue.is_warm()).cloned().collect();
        queues.iter().for_each(|queue| queue.enter().cool_idle());
    }

    /// Makes a snapshot of each group whose log reaches back too far, so that the log is cut. Entries that a member lacks stay
    /// for it while it can be reached, but not in the older half of the log: a member that lags that far is sent a snapshot.
    async fn cut_logs(&self, storage: &Storage, upkeep: &mut Upkeep) -> io::Result<()> {
        let groups = &storage.groups;
        if upkeep.waits() {
            return Ok(());
        }
        for group in 0..groups.len() {
            let usage = groups.journal().usage();
            let kept_from = usage.current.saturating_sub(u64::from(usage.segments_max / 2));
            let behind = usage.current.saturating_sub(groups.first_segment(group).unwrap_or(usage.current));
            let (behind_max, len) = (
                behind_max(&usage, groups.journal().segment_bytes(), groups.snapshot_bytes(group)),
                groups.log_len(group),
            );
            let before = upkeep.cuts.get_mut(&group).filter(|_| !groups.is_alone(group)).map(|cut| {
                cut.left = cut.left.min(len); // it was purged by now
                *cut
            });
            if behind < behind_max && len <= LOG_ENTRIES_MAX {
                continue;
            }
            // What a member still lacks does not become less by another snapshot.
            if before.is_some_and(|cut| usage.current < cut.segment + behind_max && len <= cut.left + LOG_ENTRIES_MAX) {
                groups.purge_within(group, kept_from).await?;
                continue;
            }
            groups.snapshot_within(group, kept_from).await?;
            upkeep.cuts.insert(group, LogCut { segment: usage.current, left: groups.log_len(group) });
        }
        Ok(())
    }

    /// Makes snapshots of the groups whose contents were moved, so that these say where the contents lie now. The emptied
    /// files stay until then.
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

    /// Frees the contents of the queues that the logs of the shards deleted.
    async fn free_ended(&self, storage: &Storage) -> io::Result<()> {
        let ended: Vec<_> = storage.replicas.iter().flat_map(Replica::take_ended).collect();
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

    /// When more than half of the log's segments are in use: copies the live contents of the oldest segments into the
    /// archive.
    async fn relocate_oldest(&self, storage: &Storage, upkeep: &mut Upkeep) -> io::Result<()> {
        let Storage { groups, shards, .. } = storage;
        let usage = groups.journal().usage();
        let space = groups.journal().disk().free_bytes()?;
        let spare = space.saturating_sub(free_min(groups.journal()));
        if usage.used <= usage.segments_max / 2 {
            return Ok(());
        }
        let newest = usage.current.saturating_sub(u64::from(usage.segments_max / 4));
        let mut bytes = 0;
        let oldest = movable(shards, upkeep).into_iter().filter(|(file, _)| *file < newest).take(RELOCATED_AT_A_TIME);
        let fitting = oldest.take_while(|(_, needed)| {
            bytes += needed.run_bytes;
            bytes <= spare
        });
        self.relocate(storage, &fitting.map(|(file, _)| file).collect(), upkeep).await
    }
}

/// Returns how many segments the log of a group may reach back before it is cut by a snapshot. The number is small, so that
/// segments are soon used again: a file that was written before is synced faster than a new one. The number is larger if
/// the snapshot is large compared to the segments.
fn behind_max(usage: &journal::LogUsage, segment_bytes: u64, snapshot_bytes: u64) -> u64 {
    let quarter = u64::from(usage.segments_max / 4);
    let worth_it = (snapshot_bytes * LOG_OF_SNAPSHOT).div_ceil(segment_bytes);
    worth_it.clamp(quarter.clamp(1, BEHIND_MIN), quarter.clamp(1, BEHIND_MAX))
}

/// Releases the segments of the log below `below` and the files of the archive that hold no live contents and are not being
/// read. The files in `emptied` are kept, because a snapshot may still say that contents lie in them.
fn release(storage: &Storage, shards: &Shards, below: u64, emptied: &BTreeSet<u64>) {
    let journal = storage.groups.journal();
    let files = shards.files.now();
    let is_needed = |file: &u64| files.get(file).is_some_and(FileUse::is_needed) || emptied.contains(file);
    journal.release(below, &|segment| is_needed(&segment));
    let unneeded: Vec<u64> = files.keys().filter(|file| !is_needed(file)).copied().collect();
    for file in unneeded.iter().filter(|file| **file & ARCHIVE != 0) {
        if let Err(error) = archive::remove(&**journal.disk(), file & !ARCHIVE) {
            tracing::warn!(file = file & !ARCHIVE, %error, "a file of the archive that nothing needs was not removed");
        }
    }
    shards.files.forget(&unneeded);
}

/// Returns the free space in bytes below which publishers are held back.
fn free_min(journal: &journal::Journal) -> u64 {
    disk_free_min(journal.segment_bytes())
}

/// Bounds of the number of segments that the log of a group reaches back when it is cut; a small log is cut earlier.
const BEHIND_MIN: u64 = 2;
const BEHIND_MAX: u64 = 4;
/// A snapshot is made when the log to be cut has this many times its bytes.
const LOG_OF_SNAPSHOT: u64 = 4;
/// A log of more entries than this is cut by a snapshot.
const LOG_ENTRIES_MAX: u64 = 200_000;
const MAINTAIN_EVERY: Duration = Duration::from_millis(200);
/// The archive is searched for files that are mostly dead every ten seconds.
const COMPACT_EVERY_ROUNDS: u64 = 50;
const WATCH_EVERY: Duration = Duration::from_millis(20);
const WATCH_DISK_TICKS: u64 = 10;
/// The largest number of segments that are emptied into the archive at a time.
const RELOCATED_AT_A_TIME: usize = 4;

#[cfg(test)]
#[path = "maintain_tests.rs"]
mod tests;
