//! Copies contents to new files of the archive: out of old segments of the log, which are then used again, and out of files
//! of the archive of which little is alive, which are then removed.
//!
//! Runs are copied in the order in which they lie in their files, so that a record is read only once however many runs lie
//! in it. At most one record and one new file are in memory at a time. An emptied file is released only after the
//! snapshots of all groups concerned say where its runs lie now.
use crate::Broker;
use crate::archive::{self, ARCHIVE};
use crate::files::FileUse;
use crate::place::Place;
use crate::read::RunReader;
use crate::read_failure::ReadFailure;
use crate::shards::Shards;
use crate::storage::Storage;
use crate::upkeep::Upkeep;
use bytes::Bytes;
use leveret_engine::queue::RunName;
use leveret_journal::Journal;
use leveret_replication::GroupId;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::AtomicU64;
#[cfg(any(test, feature = "mutants"))]
use std::sync::atomic::Ordering::Relaxed;

/// A run that is to be copied.
struct Move {
    /// The group of the shard whose log the run is named after.
    group: GroupId,
    name: RunName,
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
        let mut next = Some(Position::default());
        while let Some(position) = next {
            let moves;
            (moves, next) =
                moves_from(&storage.shards, position, &|file| files.contains(&file) && !upkeep.is_aside(file));
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
        let (journal, next) = (groups.journal().clone(), archive_next.clone());
        let copied = storage.off_thread(move || copy(&journal, &next, &froms)).await?;
        #[cfg(any(test, feature = "mutants"))]
        let (moves, copied) = forget_first(shards, moves, copied);
        let mut held = false;
        for (run, place) in moves.iter().zip(&copied.places) {
            match place {
                Ok(place) => {
                    held |= shards.contents_of(run.group).moved(&run.name, *place);
                    upkeep.moved.insert(run.group);
                }
                Err(ReadFailure::Damaged(reason)) => self.note_damaged_run(storage, run, reason),
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

    /// Notes that a run is damaged in every queue that has it.
    fn note_damaged_run(&self, storage: &Storage, run: &Move, reason: &str) {
        for queue in self.durable_queues() {
            if storage.shards.shard(queue.id).group != run.group {
                continue;
            }
            let mut entered = queue.enter();
            let segment = entered.runs().find(|(_, name)| *name == run.name).map(|(segment, _)| segment);
            if let Some(segment) = segment {
                queue.note_damage(&mut entered, segment, Some(run.from.file), reason);
            }
        }
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
            let live = needed.run_bytes;
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

/// A position in the tables of contents of all shards.
#[derive(Clone, Copy, Default)]
struct Position {
    /// The number of shards whose tables were looked at.
    shards: usize,
    /// The last run of the next shard that was looked at.
    after: Option<RunName>,
}

/// Returns runs that lie in files that `wanted` accepts, in the order of their places: at most 65,536 of them. Begins at
/// `from`; also returns where the next call goes on, or `None` at the end.
fn moves_from(shards: &Shards, from: Position, wanted: &dyn Fn(u64) -> bool) -> (Vec<Move>, Option<Position>) {
    let damaged = shards.damage.files.lock().clone();
    let wanted = |file: u64| wanted(file) && !damaged.contains(&file);
    let (mut moves, mut position) = (Vec::new(), from);
    for (group, contents) in shards.all_contents().skip(from.shards) {
        let (runs, more) = contents.runs_in(&wanted, position.after, MOVES_MAX - moves.len());
        moves.extend(runs.into_iter().map(|(name, from)| Move { group, name, from }));
        position = match more {
            Some(_) => Position { after: more, ..position },
            None => Position { shards: position.shards + 1, after: None },
        };
        if more.is_some() || moves.len() == MOVES_MAX {
            break;
        }
    }
    moves.sort_by_key(|run| (run.from.file, run.from.offset, run.from.at));
    let is_over = position.shards == shards.list.len();
    (moves, (!is_over).then_some(position))
}

/// Returns how many of the first runs fit into one file.
fn of_one_file(moves: &[Move]) -> usize {
    let mut bytes = 0;
    let fitting = moves.iter().take_while(|run| {
        bytes += u64::from(run.from.run_len);
        bytes <= ARCHIVE_BYTES
    });
    fitting.count().max(1)
}

/// Copies the runs at `froms`, which must be in order, into a new file of the archive, with the first free number from
/// `next` on. No file is written if no run can be read.
fn copy(journal: &Journal, next: &AtomicU64, froms: &[Place]) -> io::Result<ArchiveFile> {
    let disk = &**journal.disk();
    let mut reader = RunReader::new(journal);
    let mut runs: Vec<Bytes> = Vec::new();
    let mut found: Vec<Result<usize, ReadFailure>> = Vec::with_capacity(froms.len());
    for (at, from) in froms.iter().enumerate() {
        let before = at.checked_sub(1).map(|before| (froms[before], &found[before]));
        let run = match before {
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
