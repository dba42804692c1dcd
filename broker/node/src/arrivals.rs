//! The contents that come with the snapshot of a peer: which of them are still lacking, and where those lie that are here.
//!
//! They are written to files of the archive, about eight mebibytes each. Beside each file lies a list of the runs in it,
//! `archive/<n>.names`, so that a transfer goes on where it was after a restart, too: `version u8 = 1, group u16`, then each
//! run as `entry u64, at u32, length u32`, little-endian, and a checksum (see journal's `write_whole`). Once the snapshot is
//! on the disk, it says itself where its contents lie, and the lists are removed.
//!
//! Format between nodes: what is wanted is `version u8 = 1`, then the name of each run, as above. A part of the contents
//! is `version u8 = 1`, then each run as its name, `kind u8` (1 here, 2 absent, 3 damaged), and for a run that is here
//! `crc32 u32` and its bytes.
use crate::archive;
use crate::contents::{LocatedRun, StoredPlaces};
use crate::files::{FilePin, FileUses};
use crate::place::Place;
use crate::read::RunReader;
use crate::read_failure::ReadFailure;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use leveret_engine::queue::RunName;
use leveret_journal::{Disk, Journal, read_whole, write_whole};
use leveret_replication::GroupId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The contents of one shard that come from a peer.
pub(crate) struct Arrivals(Mutex<ArrivalsState>);

struct ArrivalsState {
    /// The runs that this node lacked when the transfer began, in order.
    lacking: Vec<RunName>,
    /// The number of the first of these that are here.
    complete: usize,
    /// The runs that are here and durable, or are absent.
    here: BTreeMap<RunName, Option<Place>>,
    /// The runs that have arrived and are not written yet.
    waiting: BTreeMap<RunName, Bytes>,
    waiting_bytes: u64,
    /// The numbers of the archive files that were written, which stay until this is dropped.
    files: Vec<u64>,
    pins: Vec<FilePin>,
    /// When something arrived last.
    since: Instant,
}

/// What arrived of a run.
enum ArrivedRun {
    Here(Bytes),
    Absent,
    Damaged,
}

impl Default for ArrivalsState {
    fn default() -> Self {
        Self {
            lacking: Vec::new(),
            complete: 0,
            here: BTreeMap::new(),
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            files: Vec::new(),
            pins: Vec::new(),
            since: Instant::now(),
        }
    }
}

impl Arrivals {
    pub(crate) fn new() -> Self {
        Self(Mutex::default())
    }

    /// Begins a transfer of the contents `lacking`, which are in order. What arrived in an earlier one is kept.
    pub(crate) fn begin(&self, lacking: Vec<RunName>) {
        let mut state = self.0.lock();
        state.here.retain(|_, place| place.is_some()); // another peer may have what the one before had not
        (state.lacking, state.complete, state.since) = (lacking, 0, Instant::now());
    }

    /// Takes a part of the contents. Returns runs that are to be written now, because enough of them wait.
    ///
    /// # Errors
    /// What is wrong with the part.
    pub(crate) fn take(&self, part: Bytes) -> Result<BTreeMap<RunName, Bytes>, String> {
        let runs = decode_part(part)?;
        let mut locked = self.0.lock();
        let state = &mut *locked;
        state.since = Instant::now();
        for (name, run) in runs {
            if state.lacking.binary_search(&name).is_err() || state.here.contains_key(&name) {
                continue;
            }
            match run {
                ArrivedRun::Here(bytes) => {
                    if state.waiting.insert(name, bytes).is_none() {
                        state.waiting_bytes += u64::from(name.len);
                    }
                }
                ArrivedRun::Absent => drop(state.here.insert(name, None)),
                ArrivedRun::Damaged => {
                    tracing::error!(
                        entry = name.entry,
                        at = name.at,
                        "contents are damaged on the node that sends them"
                    );
                    state.here.insert(name, None);
                }
            }
        }
        Ok(if state.waiting_bytes >= FILE_BYTES { state.take_waiting() } else { BTreeMap::new() })
    }

    /// Returns the runs that have arrived and are not written, which have to be written now.
    pub(crate) fn flush(&self) -> BTreeMap<RunName, Bytes> {
        self.0.lock().take_waiting()
    }

    /// Notes that runs are durable at `places`, in an archive file with this number.
    pub(crate) fn written(&self, files: &Arc<FileUses>, number: u64, places: BTreeMap<RunName, Place>) {
        let mut state = self.0.lock();
        state.pins.push(files.read(places.values().copied()));
        state.files.push(number);
        state.here.extend(places.into_iter().map(|(name, place)| (name, Some(place))));
    }

    /// Returns which contents are to be sent next, encoded; nothing if all are here.
    pub(crate) fn wanted(&self) -> Bytes {
        let mut locked = self.0.lock();
        let state = &mut *locked;
        state.advance();
        let (mut wanted, mut bytes) = (BytesMut::new(), 0);
        for name in &state.lacking[state.complete..] {
            if state.here.contains_key(name) {
                continue;
            }
            if wanted.is_empty() {
                wanted.put_u8(VERSION);
            }
            put_name(&mut wanted, name);
            bytes += u64::from(name.len);
            if bytes >= WANTED_BYTES || wanted.len() >= WANTED_MAX * NAME_BYTES {
                break;
            }
        }
        wanted.freeze()
    }

    /// Returns whether all contents are here and durable.
    pub(crate) fn is_complete(&self) -> bool {
        let mut state = self.0.lock();
        state.advance();
        state.complete == state.lacking.len()
    }

    /// Adds where the contents lie to the places of a snapshot.
    pub(crate) fn add_to(&self, places: &mut StoredPlaces) {
        self.0.lock().here.iter().for_each(|(name, place)| places.add(*name, *place));
    }

    /// Ends the transfer: the files stay only if the snapshot was installed, and needs them. Removes the lists of runs.
    pub(crate) fn end(&self, disk: &dyn Disk) {
        let ended = std::mem::take(&mut *self.0.lock());
        for number in &ended.files {
            let _ = disk.remove(&list_name(*number)); // otherwise removed after the next start
        }
    }

    /// Gives the transfer up if nothing has arrived for long.
    pub(crate) fn end_if_idle(&self, disk: &dyn Disk) {
        let is_idle = {
            let state = self.0.lock();
            state.since.elapsed() >= IDLE_MAX && !(state.here.is_empty() && state.waiting.is_empty())
        };
        if is_idle {
            self.end(disk);
        }
    }
}

impl ArrivalsState {
    fn take_waiting(&mut self) -> BTreeMap<RunName, Bytes> {
        self.waiting_bytes = 0;
        std::mem::take(&mut self.waiting)
    }

    /// Moves `complete` past what is here.
    fn advance(&mut self) {
        while self.lacking.get(self.complete).is_some_and(|name| self.here.contains_key(name)) {
            self.complete += 1;
        }
    }
}

/// Writes runs to the archive file `number`, and the list of these runs. Both are durable then. Returns where the runs lie.
///
/// # Errors
/// The error of the disk; the file is removed then.
pub(crate) fn write(
    disk: &dyn Disk,
    number: u64,
    group: GroupId,
    runs: BTreeMap<RunName, Bytes>,
) -> io::Result<BTreeMap<RunName, Place>> {
    let mut list = BytesMut::new();
    list.put_u8(VERSION);
    list.put_u16_le(group);
    runs.keys().for_each(|name| put_name(&mut list, name));
    let (names, runs): (Vec<RunName>, Vec<Bytes>) = runs.into_iter().unzip();
    let places = archive::write(disk, number, &runs)?;
    if let Err(error) = write_whole(disk, &list_name(number), &[&list]) {
        let _ = archive::remove(disk, number);
        return Err(error);
    }
    Ok(names.into_iter().zip(places).collect())
}

/// Reads the list of the runs in the archive file `number`, if there is one: the group, and where the runs lie.
pub(crate) fn read_list(disk: &dyn Disk, number: u64) -> Option<(GroupId, BTreeMap<RunName, Place>)> {
    let list = match read_whole(disk, &list_name(number)) {
        Ok(list) => list?,
        Err(error) => {
            tracing::warn!(%error, "contents that came from another node are fetched again");
            return None;
        }
    };
    let mut rest = &list[..];
    (rest.try_get_u8().ok()? == VERSION).then_some(())?;
    let (group, mut places, mut offset) = (rest.try_get_u16_le().ok()?, BTreeMap::new(), 0u32);
    while !rest.is_empty() {
        let name = take_name(&mut rest)?;
        places.insert(name, archive::place(number, offset, name.len));
        offset = offset.checked_add(archive::HEAD as u32)?.checked_add(name.len)?;
    }
    let is_whole = archive::size(disk, number).is_ok_and(|bytes| bytes >= u64::from(offset));
    is_whole.then_some((group, places))
}

/// Removes the list of the runs in the archive file `number`.
pub(crate) fn remove_list(disk: &dyn Disk, number: u64) {
    let _ = disk.remove(&list_name(number));
}

/// Returns the names of the first runs that a peer wants, which have about a mebibyte altogether.
///
/// # Errors
/// The bytes cannot be decoded.
pub(crate) fn first_wanted(wanted: &Bytes) -> Result<Vec<RunName>, String> {
    let mut rest = wanted.strip_prefix(&[VERSION]).ok_or(MALFORMED)?;
    let (mut names, mut bytes) = (Vec::new(), 0);
    while !rest.is_empty() && (names.is_empty() || names.len() < WANTED_MAX && bytes < PART_BYTES) {
        let name = take_name(&mut rest).ok_or(MALFORMED)?;
        bytes += u64::from(name.len);
        if names.is_empty() || bytes <= PART_BYTES {
            names.push(name);
        }
    }
    if names.is_empty() { Err(MALFORMED.to_owned()) } else { Ok(names) }
}

/// Returns what is wanted without the first `taken` runs.
pub(crate) fn later_wanted(wanted: &Bytes, taken: usize) -> Bytes {
    let rest = wanted.get(1 + taken * NAME_BYTES..).unwrap_or_default();
    if rest.is_empty() { Bytes::new() } else { [&[VERSION], rest].concat().into() }
}

/// Reads runs for a peer, and encodes them as a part of the contents.
///
/// # Errors
/// The reason why a run cannot be read at the moment.
pub(crate) fn read_part(journal: &Journal, runs: &[LocatedRun]) -> io::Result<Bytes> {
    let mut reader = RunReader::new(journal);
    let mut part = BytesMut::with_capacity(PART_BYTES as usize + runs.len() * RUN_HEAD_BYTES + 1);
    part.put_u8(VERSION);
    for LocatedRun { name, place, .. } in runs {
        put_name(&mut part, name);
        let Some(place) = place else {
            part.put_u8(ABSENT);
            continue;
        };
        match reader.read(place) {
            Ok(run) => {
                part.put_u8(HERE);
                part.put_u32_le(crc32fast::hash(&run));
                part.extend_from_slice(&run);
            }
            Err(ReadFailure::Damaged(reason)) => {
                tracing::error!(reason, "contents that another node needs are damaged");
                part.put_u8(DAMAGED);
            }
            Err(ReadFailure::Passing(reason)) => return Err(io::Error::other(reason)),
        }
    }
    Ok(part.freeze())
}

fn decode_part(mut part: Bytes) -> Result<Vec<(RunName, ArrivedRun)>, String> {
    let mut runs = Vec::new();
    if part.try_get_u8() != Ok(VERSION) {
        return Err(MALFORMED.to_owned());
    }
    while !part.is_empty() {
        let name = take_name(&mut part).ok_or(MALFORMED)?;
        let run = match part.try_get_u8().map_err(|_| MALFORMED)? {
            HERE => {
                let crc = part.try_get_u32_le().map_err(|_| MALFORMED)?;
                let len = name.len as usize;
                if part.len() < len {
                    return Err(MALFORMED.to_owned());
                }
                let run = part.split_to(len);
                if crc32fast::hash(&run) != crc {
                    return Err(format!("the contents of entry {} did not arrive intact", name.entry));
                }
                ArrivedRun::Here(run)
            }
            ABSENT => ArrivedRun::Absent,
            DAMAGED => ArrivedRun::Damaged,
            _ => return Err(MALFORMED.to_owned()),
        };
        runs.push((name, run));
    }
    Ok(runs)
}

fn put_name(out: &mut BytesMut, name: &RunName) {
    out.put_u64_le(name.entry);
    out.put_u32_le(name.at);
    out.put_u32_le(name.len);
}

fn take_name(bytes: &mut impl Buf) -> Option<RunName> {
    let (entry, at) = (bytes.try_get_u64_le().ok()?, bytes.try_get_u32_le().ok()?);
    Some(RunName { entry, at, len: bytes.try_get_u32_le().ok()? })
}

fn list_name(number: u64) -> String {
    format!("{}.names", archive::name(number))
}

const VERSION: u8 = 1;
const HERE: u8 = 1;
const ABSENT: u8 = 2;
const DAMAGED: u8 = 3;
const MALFORMED: &str = "contents that came from another node cannot be decoded";
/// The length of an encoded name in bytes.
const NAME_BYTES: usize = 16;
/// The length of what comes before the bytes of a run in a part.
const RUN_HEAD_BYTES: usize = NAME_BYTES + 5;
/// The length of the runs in a part in bytes, unless a single run is longer.
const PART_BYTES: u64 = 1 << 20;
/// The most runs, and about the most bytes of them, that are wanted at a time.
const WANTED_MAX: usize = 16 << 10;
const WANTED_BYTES: u64 = 32 << 20;
/// About the length of the runs in one file of the archive, in bytes.
const FILE_BYTES: u64 = 8 << 20;
/// What has arrived is kept for this long while nothing more arrives.
const IDLE_MAX: Duration = Duration::from_secs(600);
