//! Copies contents to new files of the archive: out of old segments of the log, which are then used again, and out of files
//! of the archive of which little is alive, which are then removed.
//!
//! Runs are copied in the order in which they lie in their files, so that a record is read only once however many queues
//! share it. At most one record and one new file are in memory at a time. An emptied file is released only after the
//! snapshots of all groups concerned say where its runs lie now.
use crate::Broker;
use crate::archive::{self, ARCHIVE};
use crate::files::FileUse;
use crate::queue::Queue;
use crate::read::RunReader;
use crate::read_failure::ReadFailure;
use crate::shards::Shards;
use crate::storage::Storage;
use crate::upkeep::Upkeep;
use bytes::Bytes;
use leveret_engine::queue::Place;
use leveret_journal::Journal;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// A run that is to be copied.
struct Move {
    queue: Arc<Queue>,
    segment: u64,
    from: Place,
}

/// A new file of the archive.
struct ArchiveFile {
    number: u64,
    bytes: u64,
    /// The new place of each run, or the reason why it could not be read.
    places: Vec<Result<Place, ReadFailure>>,
}

impl Broker {
    /// Copies the live contents of `files` into new files of the archive. Adds to `upkeep` the groups whose snapshots do
    /// not say yet where their contents lie now. A file that cannot be read at the moment stays as it is and is set aside.
    ///
    /// # Errors
    /// The error of the disk. Runs copied before the error keep their new places.
    pub(crate) async fn relocate(
        &self,
        storage: &Storage,
        files: &BTreeSet<u64>,
        upkeep: &mut Upkeep,
    ) -> io::Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        upkeep.emptied.extend(files);
        let queues = self.durable_queues();
        let mut next = Position::default();
        while next.queue < queues.len() {
            let moves =
                moves_from(storage, &queues, &mut next, &|file| files.contains(&file) && !upkeep.is_aside(file));
            let mut rest = &moves[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(of_one_file(rest));
                rest = later;
                self.relocate_some(storage, now, upkeep).await?;
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Copies runs into one new file.
    async fn relocate_some(&self, storage: &Storage, moves: &[Move], upkeep: &mut Upkeep) -> io::Result<()> {
        let Storage { groups, shards, archive_next, .. } = storage;
        let froms: Vec<Place> = moves.iter().map(|run| run.from).collect();
        let (journal, next) = (groups.journal().clone(), archive_next.load(Relaxed));
        let copied = storage.off_thread(move || copy(&journal, next, &froms)).await?;
        archive_next.store(copied.number + 1, Relaxed);
        #[cfg(any(test, feature = "mutants"))]
        let (moves, copied) = forget_first(shards, moves, copied);
        let mut held = false;
        for (run, place) in moves.iter().zip(&copied.places) {
            let mut entered = run.queue.enter();
            match place {
                Ok(place) => {
                    if entered.relocate(run.segment, *place) {
                        shards.files.hold(place);
                        held = true;
                    }
                    upkeep.moved.insert(shards.shard(run.queue.id).group);
                }
                Err(ReadFailure::Damaged(reason)) => {
                    run.queue.note_damage(&mut entered, run.segment, run.from.file, reason);
                }
                Err(ReadFailure::Passing(reason)) => {
                    if !upkeep.is_aside(run.from.file) {
                        tracing::warn!(reason, "contents cannot be copied on at the moment: tried again in a while");
                    }
                    upkeep.set_aside(run.from.file);
                }
            }
        }
        let file = ARCHIVE | copied.number;
        if held {
            shards.files.set_size(file, copied.bytes);
        } else if copied.bytes > 0 {
            let _ = archive::remove(&**groups.journal().disk(), copied.number); // its messages were settled meanwhile
        }
        Ok(())
    }

    /// Copies the live contents of archive files into new files: of files that are mostly dead, and of small files if there
    /// are many.
    ///
    /// # Errors
    /// The error of the disk.
    pub(crate) async fn compact(&self, storage: &Storage, upkeep: &mut Upkeep) -> io::Result<()> {
        let files: Vec<_> =
            movable(&storage.shards, upkeep).into_iter().filter(|(file, _)| file & ARCHIVE != 0).collect();
        let small = files.iter().filter(|(_, needed)| needed.size < SMALL_BYTES).count();
        let (mut chosen, mut bytes) = (BTreeSet::new(), 0);
        for (file, needed) in files {
            let live = needed.live_bytes(needed.size);
            let mostly_dead = live.saturating_mul(MOSTLY_DEAD) < needed.size;
            if mostly_dead || small >= SMALL_MANY && needed.size < SMALL_BYTES {
                bytes += live;
                if bytes > ARCHIVE_BYTES && !chosen.is_empty() {
                    break;
                }
                chosen.insert(file);
            }
        }
        self.relocate(storage, &chosen, upkeep).await?;
        upkeep.has_compacted(chosen);
        Ok(())
    }
}

/// Returns the files that hold live contents and can be read as far as is known, by number.
pub(crate) fn movable(shards: &Shards, upkeep: &Upkeep) -> BTreeMap<u64, FileUse> {
    let mut files = shards.files.now();
    let damaged = shards.damage.files.lock();
    files.retain(|file, needed| needed.runs > 0 && !damaged.contains(file) && !upkeep.is_aside(*file));
    files
}

/// A position in the runs of a list of queues.
#[derive(Default)]
struct Position {
    /// The index of the queue in the list.
    queue: usize,
    /// The number of the segment in the queue.
    segment: u64,
}

/// Returns runs that lie in files that `wanted` accepts, in the order of their places: at most 65,536 of them at a time.
/// Begins at `next`, and moves it to where the next call goes on.
fn moves_from(
    storage: &Storage,
    queues: &[Arc<Queue>],
    next: &mut Position,
    wanted: &dyn Fn(u64) -> bool,
) -> Vec<Move> {
    let damaged = storage.shards.damage.files.lock().clone();
    let wanted = |file: u64| wanted(file) && !damaged.contains(&file);
    let mut moves = Vec::new();
    while moves.len() < MOVES_MAX
        && let Some(queue) = queues.get(next.queue)
    {
        let (runs, more) = queue.look(|state| state.runs_in(&wanted, next.segment, MOVES_MAX - moves.len()));
        moves.extend(runs.into_iter().map(|(segment, from)| Move { queue: queue.clone(), segment, from }));
        *next = match more {
            Some(segment) => Position { segment, ..*next },
            None => Position { queue: next.queue + 1, segment: 0 },
        };
    }
    moves.sort_by_key(|run| (run.from.file, run.from.offset, run.from.at, run.queue.id));
    moves
}

/// Returns how many of the first runs fit into one file. A run that several queues share counts once.
fn of_one_file(moves: &[Move]) -> usize {
    let (mut bytes, mut last) = (0, None);
    let fitting = moves.iter().take_while(|run| {
        if last.replace(run.from) != Some(run.from) {
            bytes += u64::from(run.from.run_len);
        }
        bytes <= ARCHIVE_BYTES
    });
    fitting.count().max(1)
}

/// Copies the runs at `froms`, which must be in order, into a new file of the archive, with the first free number from
/// `next` on. No file is written if no run can be read. A run that several queues share is copied once.
fn copy(journal: &Journal, next: u64, froms: &[Place]) -> io::Result<ArchiveFile> {
    let disk = &**journal.disk();
    let mut reader = RunReader::new(journal);
    let mut runs: Vec<Bytes> = Vec::new();
    let mut found: Vec<Result<usize, ReadFailure>> = Vec::with_capacity(froms.len());
    for (at, from) in froms.iter().enumerate() {
        let before = at.checked_sub(1).map(|before| (froms[before], &found[before]));
        let run = match before {
            Some((place, run)) if place == *from => run.clone(),
            // The file stays as it is, so the rest of it need not be read.
            Some((place, Err(ReadFailure::Passing(reason)))) if place.file == from.file => {
                Err(ReadFailure::Passing(reason.clone()))
            }
            _ => reader.read(from).map(|run| {
                runs.push(run);
                runs.len() - 1
            }),
        };
        found.push(run);
    }
    let number = archive::free_number(disk, next)?;
    let places = if runs.is_empty() { Vec::new() } else { archive::write(disk, number, &runs)? };
    let bytes = places.iter().map(|place| u64::from(place.len)).sum();
    let places = found.into_iter().map(|run| run.map(|at| places[at])).collect();
    Ok(ArchiveFile { number, bytes, places })
}

#[cfg(any(test, feature = "mutants"))]
fn forget_first<'m>(shards: &Shards, moves: &'m [Move], mut copied: ArchiveFile) -> (&'m [Move], ArchiveFile) {
    if !crate::mutants::RELOCATION_FORGETS.load(Relaxed) || moves.is_empty() {
        return (moves, copied);
    }
    shards.files.free([moves[0].from]);
    copied.places = copied.places.split_off(1);
    (&moves[1..], copied)
}

/// The largest size of the runs in a file of the archive, in bytes, unless a single run is larger.
pub(crate) const ARCHIVE_BYTES: u64 = 8 << 20;
/// The number of runs that are looked up at a time.
const MOVES_MAX: usize = 64 << 10;
/// A file is mostly dead when its live contents are less than one part in this many of its size.
const MOSTLY_DEAD: u64 = 4;
/// Files below this size are copied together once there are `SMALL_MANY` of them.
const SMALL_BYTES: u64 = 512 << 10;
const SMALL_MANY: usize = 16;
