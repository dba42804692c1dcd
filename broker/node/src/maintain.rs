//! Keeps storage in bounds while the node runs: snapshots, contents that outlive their segment of the log, publishers held
//! back in time.
use crate::Broker;
use crate::archive::{self, ARCHIVE};
use crate::log::Reader;
use crate::storage::Storage;
use bytes::Bytes;
use leveret_engine::queue::Place;
use leveret_journal as journal;
use leveret_replication::GroupId;
use std::collections::BTreeSet;
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
    /// Queues that stand still since their contents cannot be read.
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
            unreadable: storage.log.unreadable.lock().len() as u64,
        })
    }

    pub(crate) async fn maintain(self) {
        let Some(storage) = self.0.storage.get() else { return };
        let mut moved = BTreeSet::new();
        loop {
            tokio::select! {
                biased;
                () = self.0.activity.next_look(MAINTAIN_EVERY) => {}
                () = self.0.stopping.cancelled() => return,
            }
            if let Err(error) = self.keep_in_bounds(storage, &mut moved).await {
                if !journal::is_passing(&error) {
                    return (storage.on_failure)(format!("the log cannot be tidied: {error}"));
                }
                tracing::debug!(%error, "the log stays as it is for now");
                self.0.activity.mark(); // it is tried again
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

    /// `moved` are groups whose snapshot on disk does not say yet where contents lie now.
    async fn keep_in_bounds(&self, storage: &Storage, moved: &mut BTreeSet<GroupId>) -> std::io::Result<()> {
        let Storage { groups, log, .. } = storage;
        let usage = groups.journal().usage();
        let behind_max = u64::from((usage.segments_max / 4).clamp(1, 4));
        for group in 0..groups.len() {
            let behind = groups.first_segment(group).map_or(0, |first| usage.current - first);
            if behind >= behind_max || groups.log_len(group) > LOG_ENTRIES_MAX {
                groups.snapshot(group).await?;
            }
        }
        let space = groups.journal().disk().free_bytes()?;
        let spare = space.saturating_sub(free_min(groups.journal()));
        let segments = (spare / groups.journal().segment_bytes()).min(RELOCATED_AT_A_TIME);
        if usage.used > usage.segments_max / 2 && segments > 0 {
            let newest = usage.current - u64::from(usage.segments_max / 4);
            let damaged = log.damaged.lock().clone();
            let held = log.files.lock().clone();
            let oldest =
                held.iter().filter(|(file, runs)| **runs > 0 && !damaged.contains(file)).map(|(&file, _)| file).min();
            if let Some(oldest) = oldest.filter(|oldest| *oldest < newest) {
                self.relocate(storage, newest.min(oldest + segments), moved).await?;
            }
        }
        #[cfg(any(test, feature = "mutants"))]
        if crate::mutants::RELOCATION_UNNOTED.load(Relaxed) {
            moved.clear();
        }
        while let Some(&group) = moved.first() {
            groups.snapshot(group).await?;
            moved.remove(&group);
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
    async fn relocate(&self, storage: &Storage, below: u64, moved: &mut BTreeSet<GroupId>) -> std::io::Result<()> {
        let Storage { groups, log, archive_next, .. } = storage;
        let damaged = log.damaged.lock().clone();
        let old = |file: u64| file & ARCHIVE == 0 && file < below && !damaged.contains(&file);
        let mut queues: Vec<_> = self.queues().values().filter(|queue| queue.log.is_some()).cloned().collect();
        queues.sort_by_key(|queue| queue.id);
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
                let places = storage.off_thread(move || copy(&journal, number, &copied)).await?;
                #[cfg(any(test, feature = "mutants"))]
                let now = forget_first(log, now);
                let mut held = false;
                let mut entered = queue.enter();
                for ((segment, from), place) in now.iter().zip(places) {
                    let Some(place) = place else {
                        log.damaged.lock().insert(from.file); // it stays as it is, for the rest of what it holds
                        continue;
                    };
                    if entered.relocate(*segment, place) {
                        log.hold(place.file);
                        held = true;
                    }
                }
                drop(entered);
                if !held {
                    let _ = archive::remove(&**groups.journal().disk(), number); // all of it was consumed meanwhile
                }
                moved.insert(log.shard(queue.id).group);
            }
        }
        Ok(())
    }
}

fn free_min(journal: &journal::Journal) -> u64 {
    disk_free_min(journal.segment_bytes())
}

/// Bytes that the disk has to have free for publishers to go on: snapshots and a restart need some.
pub(crate) fn disk_free_min(segment_bytes: u64) -> u64 {
    DISK_FREE_MIN + segment_bytes
}

/// Copies runs into file `number` of the archive: where each lies there, none for one that cannot be read.
fn copy(journal: &journal::Journal, number: u64, runs: &[(u64, Place)]) -> std::io::Result<Vec<Option<Place>>> {
    let mut reader = Reader::new(journal);
    let mut read = |place: &Place| {
        let run = reader.read(place);
        run.inspect_err(|error| tracing::error!(%error, "contents cannot be read, and are not relocated")).ok()
    };
    let bytes: Vec<Option<Bytes>> = runs.iter().map(|(_, place)| read(place)).collect();
    let whole: Vec<Bytes> = bytes.iter().flatten().cloned().collect();
    let mut places = archive::write(&**journal.disk(), number, &whole)?.into_iter();
    Ok(bytes.into_iter().map(|run| run.and_then(|_| places.next())).collect())
}

#[cfg(any(test, feature = "mutants"))]
fn forget_first<'r>(log: &crate::log::Log, runs: &'r [(u64, Place)]) -> &'r [(u64, Place)] {
    let Some(((_, first), rest)) = runs.split_first().filter(|_| crate::mutants::RELOCATION_FORGETS.load(Relaxed))
    else {
        return runs;
    };
    log.files.lock().entry(first.file).and_modify(|runs| *runs -= 1);
    rest
}

/// A log of more entries than this is cut by a snapshot.
const LOG_ENTRIES_MAX: u64 = 200_000;
const MAINTAIN_EVERY: Duration = Duration::from_millis(200);
const WATCH_EVERY: Duration = Duration::from_millis(20);
const WATCH_DISK_TICKS: u64 = 10;
/// Segments emptied into the archive at a time, at most.
const RELOCATED_AT_A_TIME: u64 = 4;
/// Size of a file of the archive.
const ARCHIVE_BYTES: u64 = 8 << 20;
/// Beside a segment.
const DISK_FREE_MIN: u64 = 32 << 20;
