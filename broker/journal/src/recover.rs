//! What is in the log after a crash: every record that is whole, up to a torn tail.
//!
//! A record that is not whole is the torn tail if nothing says that it was durable: it was never confirmed, and the log ends
//! there. If something does, durable bytes have rotted, and the log is not opened. What says so: the proof beside the log
//! (`proof`), the beginning of the next segment (all before it was synced), later records. A segment that has to be there
//! and is not stops the start as well. Nothing on the disk is changed before all of that is known.
//!
//! Headers are read, bodies only where nothing vouches for them; every body is checked when it is read.
use crate::disk::Disk;
use crate::format::{Head, Place, RecordHeader, SEGMENT_HEAD, SegmentHeader, VERSION, WITHOUT_PROOF, is_free};
use crate::journal::Options;
use crate::proof::{self, Known, Proof};
use crate::ring::{FOLDER, Ring, Slot};
use crate::scan::{Scan, find_segment, later};
use std::collections::BTreeMap;
use std::io::{self, IoSlice};

/// A record that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// What was said of it.
    pub head: Head,
    /// Where its body lies.
    pub place: Place,
}

/// Why a log is not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Durable bytes have changed.
    #[error(
        "{file} is damaged at offset {offset} (record {sequence}, after group {group}): it is known to have been durable"
    )]
    Corrupt {
        /// Name of the file.
        file: String,
        /// Of the record that is not whole.
        offset: u32,
        /// Group of the record before it.
        group: u16,
        /// Its place in the order of all records.
        sequence: u64,
    },
    /// A segment's header has changed.
    #[error("{file} is damaged at offset 0: it holds segment {segment} of the log, and its header does not say so")]
    Header {
        /// Name of the file.
        file: String,
        /// The segment's number.
        segment: u64,
    },
    /// A segment is gone.
    #[error("segment {segment} of the log is missing: no file of {FOLDER} holds it, and it was not released")]
    Missing {
        /// Its number.
        segment: u64,
    },
    /// The file that says what is durable is gone, or all of it has changed.
    #[error("{} {state}: without it nobody knows whether all of the log is there", proof::NAME)]
    NoProof {
        /// Missing or damaged.
        state: &'static str,
    },
    /// The log was written by a newer version.
    #[error("{file} has format version {version}, this program knows up to {VERSION}")]
    Newer {
        /// Name of the file.
        file: String,
        /// Its version.
        version: u32,
    },
    /// The log is another node's.
    #[error("{file} belongs to node {found:016x}, this is node {node:016x}")]
    OtherNode {
        /// Name of the file.
        file: String,
        /// Whose it is.
        found: u64,
        /// Who we are.
        node: u64,
    },
    /// The disk failed.
    #[error("{file}: {error}")]
    Disk {
        /// Name of the file.
        file: String,
        /// What it said.
        error: io::Error,
    },
}

pub(crate) struct Found {
    pub(crate) ring: Ring,
    pub(crate) next_sequence: u64,
    pub(crate) kept: BTreeMap<(u16, u8), Head>,
    /// The newest segment lacks some of what is kept.
    pub(crate) lacks_kept: bool,
    pub(crate) proof: Proof,
}

pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    pub(crate) slot: Slot,
}

/// The files of the log's folder.
#[derive(Default)]
struct Files {
    /// Those with a header, by number.
    segments: Vec<Segment>,
    free: Vec<Slot>,
    /// Those that begin with nothing that is known.
    unknown: Vec<Slot>,
    /// Names of those whose making was interrupted.
    unfinished: Vec<String>,
}

/// Where the log ends.
struct End {
    /// In the newest segment.
    offset: u32,
    /// Where the last header ends of the records behind it, which are not taken for records any more; `offset` if there are
    /// none.
    torn_upto: u32,
    /// A record that is kept is not in the newest segment: the process ended after it had written that segment's header, and
    /// before it had written what is kept behind that.
    lacks_kept: bool,
}

pub(crate) fn recover(
    disk: &dyn Disk,
    options: &Options,
    record: &mut dyn FnMut(Recovered),
) -> Result<Found, OpenError> {
    let files = load(disk, options)?;
    let proof = proof::read(disk, options.node)?;
    let known = known(&files, &proof, options)?;
    for number in known.released.max(1)..=known.segment {
        if files.segments.binary_search_by_key(&number, |segment| segment.header.segment).is_err() {
            return Err(missing(&files, options, number)?);
        }
    }
    let from = files.segments.partition_point(|segment| segment.header.segment < known.released);
    let scanned = &files.segments[from..];
    for segment in scanned.iter().rev().take(2) {
        // What the process before had not synced is in the newest one, behind whose header nothing may be: what is found
        // there counts as durable from here on.
        let synced = segment.slot.file.sync_and_drop_cache(u64::from(options.segment_bytes));
        synced.map_err(failed(&segment.slot.name))?;
    }
    tracing::info!(
        segments = scanned.len(),
        bytes = scanned.len() as u64 * u64::from(options.segment_bytes),
        stopped_in_order = known.stopped,
        "reading the log"
    );
    let mut scan = Scan::new(options.node, known.durable, record);
    let end = read(scanned, options, &mut scan)?;
    let next_sequence = scan.expected.max(1);
    let kept = scan.kept.into_iter().map(|(of, (head, _))| (of, head)).collect();
    tracing::info!(records = scan.records, torn = end.torn_upto > end.offset, "the log is read");
    for name in &files.unfinished {
        disk.remove(name).map_err(failed(name))?;
    }
    if let Some(newest) = scanned.last() {
        wipe(&newest.slot, &end).map_err(failed(&newest.slot.name))?;
    }
    let now = Known { durable: next_sequence - 1, stopped: false, ..known };
    let proof = Proof::begin(disk, options.node, proof, now).map_err(failed(proof::NAME))?;
    let mut ring = ring(files, options, &end);
    ring.released = known.released;
    Ok(Found { ring, next_sequence, kept, lacks_kept: end.lacks_kept, proof })
}

/// Writes zeros over the headers of a torn tail: records go on in its place, also where the disk has no space for a further
/// segment, and what is left of the tail is never taken for a record.
fn wipe(slot: &Slot, end: &End) -> io::Result<()> {
    if end.torn_upto <= end.offset {
        return Ok(());
    }
    let zeros = vec![0; (end.torn_upto - end.offset) as usize];
    slot.file.write_at(&mut [IoSlice::new(&zeros)], u64::from(end.offset))?;
    slot.file.sync_data()
}

/// Writes the header of a segment that lost it. It is one that is held for its contents alone, so nobody asks where in the order of
/// all records it begins.
pub(crate) fn give_header(slot: &Slot, node: u64, segment: u64) -> Result<(), OpenError> {
    let header = SegmentHeader { version: VERSION, node, segment, first_sequence: 0, released: 0 }.encode();
    let written = slot.file.write_at(&mut [IoSlice::new(&header)], 0).and_then(|()| slot.file.sync_data());
    written.map_err(failed(&slot.name))
}

/// What is known of the log: by the proof, and by the segments' headers.
fn known(files: &Files, proof: &proof::Found, options: &Options) -> Result<Known, OpenError> {
    let headers = || files.segments.iter().map(|segment| &segment.header);
    let newest = headers().next_back().map_or(0, |header| header.segment);
    if let Some(mut known) = proof.known {
        known.segment = known.segment.max(newest);
        known.released = known.released.max(headers().map(|header| header.released).max().unwrap_or(0));
        return Ok(known);
    }
    if options.made || headers().any(|header| header.version > WITHOUT_PROOF) {
        return Err(OpenError::NoProof { state: if proof.is_there() { "is damaged" } else { "is missing" } });
    }
    // A log of the version before: numbers are missing only below what is needed.
    let mut released = newest;
    for header in headers().rev() {
        if header.segment + 1 < released {
            break;
        }
        released = header.segment;
    }
    Ok(Known { durable: 0, segment: newest, released, stopped: false })
}

/// Why segment `number` is not there.
fn missing(files: &Files, options: &Options, segment: u64) -> Result<OpenError, OpenError> {
    for slot in &files.unknown {
        if find_segment(slot, options.node, segment)? {
            return Ok(OpenError::Header { file: slot.name.clone(), segment });
        }
    }
    match files.unfinished.first() {
        Some(file) => {
            let error = io::Error::other(format!("it is too short, and segment {segment} of the log is missing"));
            Ok(OpenError::Disk { file: file.clone(), error })
        }
        None => Ok(OpenError::Missing { segment }),
    }
}

/// Reads the segments, each of which has to end where the next begins.
fn read(segments: &[Segment], options: &Options, scan: &mut Scan<'_>) -> Result<End, OpenError> {
    let mut end = End { offset: SEGMENT_HEAD as u32, torn_upto: 0, lacks_kept: false };
    for (at, segment) in segments.iter().enumerate() {
        let next_first = segments.get(at + 1).map(|next| next.header.first_sequence);
        if at == 0 {
            scan.expected = segment.header.first_sequence;
        }
        if let Some(first) = next_first {
            scan.durable = scan.durable.max(first - 1);
        }
        end.offset = scan.segment(segment, next_first)?;
        scan.tell(at + 1, segments.len());
        let whole = next_first.is_some_and(|first| first == scan.expected);
        if whole {
            continue;
        }
        let (last, durable) = later(segment, end.offset, options.node)?;
        if scan.durable.max(durable) >= scan.expected {
            return Err(corrupt(segment, end.offset, scan));
        }
        end.torn_upto = last.unwrap_or(end.offset);
    }
    let Some(newest) = segments.last() else { return Ok(end) };
    if let Some(offset) = scan.finish(newest)? {
        let (last, _) = later(newest, offset, options.node)?;
        end = End { offset, torn_upto: last.unwrap_or(offset), ..end };
    }
    end.lacks_kept = scan.kept.values().any(|&(_, segment)| segment != newest.header.segment);
    Ok(end)
}

fn corrupt(segment: &Segment, offset: u32, scan: &Scan<'_>) -> OpenError {
    OpenError::Corrupt { file: segment.slot.name.clone(), offset, group: scan.group, sequence: scan.expected }
}

/// The ring as it is after the start.
fn ring(files: Files, options: &Options, end: &End) -> Ring {
    let in_use: BTreeMap<u64, Slot> =
        files.segments.into_iter().map(|segment| (segment.header.segment, segment.slot)).collect();
    let current = in_use.last_key_value().map_or(0, |(&last, _)| last);
    Ring {
        in_use,
        free: files.free,
        unknown: files.unknown,
        away: None,
        segment_bytes: options.segment_bytes,
        segments_max: options.segments_max,
        segments_reserved: options.segments_reserved,
        current,
        offset: end.offset,
        released: 0,
        disk_full: false,
        pressed: false,
    }
}

fn load(disk: &dyn Disk, options: &Options) -> Result<Files, OpenError> {
    let mut files = Files::default();
    let names = disk.list(FOLDER).map_err(failed(FOLDER))?;
    if !names.is_empty() {
        disk.sync_folder(FOLDER).map_err(failed(FOLDER))?; // whoever made them may have failed before it did
    }
    for name in names {
        let name = format!("{FOLDER}/{name}");
        let file = disk.open(&name).map_err(failed(&name))?;
        let len = file.len().map_err(failed(&name))?;
        let mut bytes = [0; SEGMENT_HEAD];
        if len >= SEGMENT_HEAD as u64 {
            file.sync_and_drop_cache(SEGMENT_HEAD as u64).map_err(failed(&name))?;
            file.read_at(&mut bytes, 0).map_err(failed(&name))?;
        }
        let header = SegmentHeader::decode(&bytes);
        if len != u64::from(options.segment_bytes) {
            if header.is_some() {
                let error = io::Error::other(format!("{len} bytes long, segments have {}", options.segment_bytes));
                return Err(OpenError::Disk { file: name, error });
            }
            files.unfinished.push(name);
            continue;
        }
        let slot = Slot { name, file, written: header.is_some(), freed_at: None };
        match header {
            None if is_free(&bytes) => files.free.push(slot),
            None => files.unknown.push(slot),
            Some(header) if header.version > VERSION => {
                return Err(OpenError::Newer { file: slot.name, version: header.version });
            }
            Some(header) if header.node != options.node => {
                return Err(OpenError::OtherNode { file: slot.name, found: header.node, node: options.node });
            }
            Some(header) => files.segments.push(Segment { header, slot }),
        }
    }
    files.segments.sort_by_key(|segment| segment.header.segment);
    Ok(files)
}

pub(crate) fn failed(file: &str) -> impl FnOnce(io::Error) -> OpenError {
    let file = file.to_owned();
    move |error| OpenError::Disk { file, error }
}

impl RecordHeader {
    pub(crate) fn is_of(&self, node: u64, segment: u64) -> bool {
        self.node == node && self.segment == segment
    }
}
