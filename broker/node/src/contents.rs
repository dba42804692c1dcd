//! Where the contents of a shard's queues lie on this node. Queues know their runs by name (an entry of the shard's log,
//! and where the run lies in it), which is the same on every node. The table here says in which file each run lies and how
//! many queues need it; moving a run to another file changes nothing but this table.
//!
//! A snapshot of the shard carries the table along, because the log cannot tell where the contents of entries lie that were
//! cut off it. Format, integers little-endian: `version u8 = 1`, then each run as `entry u64, at u32, length u32, file u64,
//! offset u32, record length u32`.
//!
//! A run may be *absent*: it came with the snapshot of a peer (see `arrivals`), and was settled on the peer since. The
//! entries that follow settle it here, too. Its file has the number with all bits set.
use crate::archive::{self, ARCHIVE};
use crate::files::{FilePin, FileUses};
use crate::memory::Memory;
use crate::place::Place;
use bytes::{Buf, BufMut};
use leveret_engine::queue::{OldPlace, ReadRequest, RunName};
use leveret_journal::RecordPlace;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

/// The table of one shard.
pub(crate) struct Contents {
    runs: Mutex<BTreeMap<RunName, StoredRun>>,
    files: Arc<FileUses>,
    memory: Arc<Memory>,
}

/// Where a run lies, and how many queues need it.
#[derive(Clone, Copy)]
struct StoredRun {
    /// `None` if the run is absent.
    record: Option<Record>,
    queues: u32,
}

/// The record of a file in which a run lies.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Record {
    file: u64,
    offset: u32,
    len: u32,
}

/// The places of the runs of a snapshot, from which a shard is restored.
#[derive(Default)]
pub(crate) struct StoredPlaces {
    records: BTreeMap<RunName, Option<Record>>,
    /// The numbers given to the records of a snapshot that has no names, by file and offset.
    unnamed: BTreeMap<(u64, u32), u64>,
}

/// A run that is to be read.
pub(crate) struct LocatedRun {
    /// The number of the run's segment in its queue.
    pub(crate) segment: u64,
    /// The name of the run.
    pub(crate) name: RunName,
    /// The location of the run; `None` if it is not known.
    pub(crate) place: Option<Place>,
}

impl Record {
    fn place(self, name: &RunName) -> Place {
        let Self { file, offset, len } = self;
        let at = if file & ARCHIVE == 0 { name.at } else { archive::HEAD as u32 };
        Place { file, offset, len, at, run_len: name.len }
    }
}

impl From<Place> for Record {
    fn from(Place { file, offset, len, .. }: Place) -> Self {
        Self { file, offset, len }
    }
}

impl Contents {
    pub(crate) fn new(files: Arc<FileUses>, memory: Arc<Memory>) -> Self {
        Self { runs: Mutex::default(), files, memory }
    }

    /// Counts a queue that needs the run, which lies in an entry of the log at `entry`.
    pub(crate) fn hold(&self, name: RunName, entry: RecordPlace) {
        let RecordPlace { segment, offset, len } = entry;
        self.hold_in(name, Record { file: segment, offset, len });
    }

    fn hold_in(&self, name: RunName, record: Record) {
        self.hold_run(&mut self.runs.lock(), name, Some(record));
    }

    fn hold_run(&self, runs: &mut BTreeMap<RunName, StoredRun>, name: RunName, record: Option<Record>) {
        let run = runs.entry(name).or_insert_with(|| {
            self.memory.account(0, RUN_BYTES);
            StoredRun { record: None, queues: 0 }
        });
        run.queues += 1;
        if run.record.is_none() {
            run.record = record;
            record.iter().for_each(|record| self.files.hold(&record.place(&name)));
        }
    }

    /// Counts a queue that needs the run, as [`hold`](Self::hold) does, for a run that comes from a snapshot. Returns false
    /// if neither this table nor the snapshot says where the run lies.
    pub(crate) fn hold_stored(&self, name: RunName, places: &StoredPlaces) -> bool {
        let mut runs = self.runs.lock();
        let record = places.records.get(&name).copied();
        if record.is_none() && !runs.contains_key(&name) {
            return false;
        }
        self.hold_run(&mut runs, name, record.flatten());
        true
    }

    /// Returns those of the runs that are not here, in order.
    pub(crate) fn lacking(&self, mut names: Vec<RunName>) -> Vec<RunName> {
        names.sort_unstable();
        names.dedup();
        let runs = self.runs.lock();
        names.retain(|name| runs.get(name).is_none_or(|run| run.record.is_none()));
        names
    }

    /// Stops counting one queue for each of the runs: it does not need them any more.
    pub(crate) fn free(&self, names: impl IntoIterator<Item = RunName>) {
        let (mut runs, mut ended) = (self.runs.lock(), Vec::new());
        for name in names {
            let Some(run) = runs.get_mut(&name) else {
                tracing::error!(?name, "a run ended that was not known");
                continue;
            };
            run.queues -= 1;
            if run.queues == 0 {
                ended.push(run.record.map(|record| record.place(&name)));
                runs.remove(&name);
            }
        }
        drop(runs);
        self.memory.account(ended.len() as u64 * RUN_BYTES, 0);
        self.files.free(ended.into_iter().flatten());
    }

    /// Returns where runs lie that are to be read, and keeps their files until they were read: as many of the first runs as
    /// lie in records of `record_bytes_max` bytes altogether, but at least one.
    pub(crate) fn locate(&self, wanted: ReadRequest, record_bytes_max: u64) -> (Vec<LocatedRun>, FilePin) {
        let runs = self.runs.lock();
        let (mut located, mut bytes, mut last) = (Vec::with_capacity(wanted.len()), 0, None);
        for (segment, name) in wanted {
            let record = runs.get(&name).and_then(|run| run.record);
            if let Some(record) = record.filter(|record| last != Some(*record)) {
                bytes += u64::from(record.len);
                if bytes > record_bytes_max && !located.is_empty() {
                    break;
                }
                last = Some(record);
            }
            located.push(LocatedRun { segment, name, place: record.map(|record| record.place(&name)) });
        }
        let pin = self.files.read(located.iter().filter_map(|run| run.place)); // before the runs can be moved or freed
        (located, pin)
    }

    /// Returns the location of a run, if it is needed.
    pub(crate) fn place(&self, name: &RunName) -> Option<Place> {
        self.runs.lock().get(name)?.record.map(|record| record.place(name))
    }

    /// Returns runs behind `after` that lie in files that `wanted` accepts, at most `most` of them. Also returns the run to
    /// continue behind, or `None` at the end: the number of runs that one call looks at is bounded.
    pub(crate) fn runs_in(
        &self,
        wanted: &dyn Fn(u64) -> bool,
        after: Option<RunName>,
        most: usize,
    ) -> (Vec<(RunName, Place)>, Option<RunName>) {
        let runs = self.runs.lock();
        let (mut found, mut last) = (Vec::new(), after);
        let from = after.map_or(Unbounded, Excluded);
        for (looked_at, (name, run)) in runs.range((from, Unbounded)).enumerate() {
            if looked_at == LOOKED_AT_MAX || found.len() == most {
                return (found, last);
            }
            if let Some(record) = run.record.filter(|record| wanted(record.file)) {
                found.push((*name, record.place(name)));
            }
            last = Some(*name);
        }
        (found, None)
    }

    /// Calls `with` for the location of each run. To be called at a start, while nobody else uses the table.
    pub(crate) fn each(&self, mut with: impl FnMut(Place)) {
        let runs = self.runs.lock();
        runs.iter().filter_map(|(name, run)| Some(run.record?.place(name))).for_each(&mut with);
    }

    /// Notes that a run was copied to another place. Returns false if nothing needs it any more.
    pub(crate) fn moved(&self, name: &RunName, to: Place) -> bool {
        let mut runs = self.runs.lock();
        let Some(run) = runs.get_mut(name) else { return false };
        let before = run.record.replace(to.into());
        self.files.hold(&to);
        self.files.free(before.map(|before| before.place(name)));
        true
    }

    /// Encodes where all runs lie. The table is locked for a bounded time only; no entry may be applied to the shard
    /// meanwhile.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (mut out, mut after) = (vec![VERSION], None);
        loop {
            let runs = self.runs.lock();
            let mut rest = runs.range((after.map_or(Unbounded, Excluded), Unbounded));
            for (name, run) in rest.by_ref().take(LOOKED_AT_MAX) {
                let Record { file, offset, len } = run.record.unwrap_or(ABSENT);
                out.put_u64_le(name.entry);
                out.put_u32_le(name.at);
                out.put_u32_le(name.len);
                out.put_u64_le(file);
                out.put_u32_le(offset);
                out.put_u32_le(len);
                after = Some(*name);
            }
            if rest.next().is_none() {
                return out;
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.runs.lock().len()
    }
}

impl StoredPlaces {
    /// Decodes what [`Contents::encode`] returned; `None` if it has another version or is malformed. A snapshot of an
    /// earlier version has no places of its own: its bytes are empty.
    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut places = Self::default();
        if bytes.is_empty() {
            return Some(places);
        }
        (bytes.try_get_u8().ok()? == VERSION).then_some(())?;
        while !bytes.is_empty() {
            let (entry, at) = (bytes.try_get_u64_le().ok()?, bytes.try_get_u32_le().ok()?);
            let name = RunName { entry, at, len: bytes.try_get_u32_le().ok()? };
            let (file, offset) = (bytes.try_get_u64_le().ok()?, bytes.try_get_u32_le().ok()?);
            let record = Record { file, offset, len: bytes.try_get_u32_le().ok()? };
            places.records.insert(name, Some(record).filter(|record| *record != ABSENT));
        }
        Some(places)
    }

    /// Gives a name to a run of a snapshot of an earlier version, which has locations instead of names. The same snapshot
    /// always gets the same names, and no entry of a log ever gets an index as high as theirs.
    pub(crate) fn name(&mut self, old: OldPlace) -> RunName {
        let OldPlace { file, offset, len, at, run_len } = old;
        let next = self.unnamed.len() as u64;
        let entry = UNNAMED | *self.unnamed.entry((file, offset)).or_insert(next);
        let name = RunName { entry, at, len: run_len };
        self.records.insert(name, Some(Record { file, offset, len }));
        name
    }

    /// Adds a run that came from a peer; `None` if it is absent.
    pub(crate) fn add(&mut self, name: RunName, place: Option<Place>) {
        self.records.insert(name, place.map(Record::from));
    }
}

const VERSION: u8 = 1;
/// The record of an absent run.
const ABSENT: Record = Record { file: u64::MAX, offset: 0, len: 0 };
/// The number of runs that one call looks at: others want the table as well.
const LOOKED_AT_MAX: usize = 64 << 10;
/// About how many bytes of memory a run takes in the table.
const RUN_BYTES: u64 = 72;
/// The bit that marks the entries of runs whose snapshot had no names.
const UNNAMED: u64 = 1 << 63;

#[cfg(test)]
mod tests {
    use super::*;

    fn contents() -> Contents {
        Contents::new(Arc::default(), Arc::new(Memory::new(u64::MAX)))
    }

    fn name(entry: u64) -> RunName {
        RunName { entry, at: 17, len: 100 }
    }

    fn record(segment: u64) -> RecordPlace {
        RecordPlace { segment, offset: 64, len: 1000 }
    }

    #[test]
    fn a_run_that_several_queues_share_counts_once_and_until_the_last_is_done() {
        let contents = contents();
        (0..3).for_each(|_| contents.hold(name(1), record(4)));
        assert_eq!(contents.files.now()[&4].runs, 1);
        contents.free([name(1), name(1)]);
        assert_eq!((contents.files.now()[&4].runs, contents.len()), (1, 1));
        contents.free([name(1)]);
        assert_eq!((contents.files.now()[&4].runs, contents.len()), (0, 0));
        assert!(!contents.moved(&name(1), Place::default()));
    }

    #[test]
    fn a_moved_run_is_found_where_it_lies_now_also_after_a_restart() {
        let contents = contents();
        contents.hold(name(1), record(4));
        contents.hold(name(2), record(4));
        let to = Place { file: ARCHIVE | 9, offset: 5, len: 108, at: archive::HEAD as u32, run_len: 100 };
        assert!(contents.moved(&name(1), to));
        let files = contents.files.now();
        assert_eq!((files[&4].runs, files[&(ARCHIVE | 9)].runs), (1, 1));
        let places = StoredPlaces::decode(&contents.encode()).unwrap();
        let restored = self::contents();
        assert!(restored.hold_stored(name(1), &places) && !restored.hold_stored(name(3), &places));
        assert_eq!(restored.place(&name(1)), Some(to));
        assert!(StoredPlaces::decode(&contents.encode()[..30]).is_none() && StoredPlaces::decode(&[9]).is_none());
    }

    #[test]
    fn a_read_keeps_the_files_and_is_bounded_by_the_records_that_it_reads() {
        let contents = contents();
        (0..10).for_each(|entry| contents.hold(name(entry), record(entry / 4)));
        let wanted = |runs: u64| (0..runs).map(|entry| (entry, name(entry))).collect();
        let located = |runs, most| contents.locate(wanted(runs), most).0.len();
        assert_eq!([located(10, 1 << 20), located(10, 1_999), located(10, 2_000), located(1, 0)], [10, 4, 8, 1]);
        let (runs, pin) = contents.locate(vec![(0, name(0)), (1, name(77))], 1 << 20);
        assert!(runs[0].place.is_some() && runs[1].place.is_none());
        contents.free((0..10).map(name));
        assert!(contents.files.now()[&0].is_needed());
        drop(pin);
        assert!(!contents.files.now()[&0].is_needed());
    }
}
