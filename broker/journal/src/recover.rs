//! Recovery of the log at a start: finds every intact record, up to a torn tail.
//!
//! If a record is not intact and nothing says that it was durable, it is the torn tail: nobody was told that it is
//! durable, and the log ends before it. If something does say so, durable bytes have rotted, and the log is not opened.
//! Three things say that a record was durable: the proof file (`proof`), the beginning of the next segment (everything
//! before it was synced), and the `durable` number in later records. A segment that has to be there and is missing
//! makes the start fail as well. Nothing on the disk is changed before all of this has been checked.
//!
//! Recovery reads all headers, but only those bodies that nothing proves to be durable. Each body is checked when
//! it is read.
use crate::disk::Disk;
use crate::format::{Head, PROOF_FILE, Recovered, SEGMENT_HEAD, SegmentHeader, VERSION, WITHOUT_PROOF, is_free};
use crate::open_error::{JournalOpenError, failed};
use crate::proof::{self, Claims, Proof, ProofFile};
use crate::ring::{FOLDER, Ring, SegmentFile};
use crate::scan::{Scan, ScannedSegment, find_segment, scan_tail};
use crate::state::JournalOptions;
use std::collections::BTreeMap;
use std::io::{self, IoSlice};

/// The log as recovery left it.
pub(crate) struct Recovery {
    pub(crate) ring: Ring,
    pub(crate) next_sequence: u64,
    /// The newest kept record of each group and kind.
    pub(crate) kept: BTreeMap<(u16, u8), Head>,
    /// True if a kept record is not in the newest segment, see [`LogEnd::lacks_kept`].
    pub(crate) lacks_kept: bool,
    pub(crate) proof: Proof,
}

/// The files in the log's folder.
#[derive(Default)]
struct LogFiles {
    /// The files with a segment header, sorted by segment number.
    segments: Vec<ScannedSegment>,
    free: Vec<SegmentFile>,
    /// The files that begin neither with a segment header nor with that of a free file.
    unknown: Vec<SegmentFile>,
    /// Names of the files without a segment header that do not have a segment's length: their creation was interrupted.
    unfinished: Vec<String>,
}

/// The end of the log.
struct LogEnd {
    /// Offset in the newest segment at which the next record goes.
    offset: u32,
    /// Offset of the end of the last header that was found in the torn tail; at most `offset` if there is no torn tail.
    torn_upto: u32,
    /// True if a kept record is not in the newest segment: the process ended after it had written that segment's header
    /// and before it had written all kept records behind it.
    lacks_kept: bool,
}

/// Reads the log, calls `record` for each intact record of the segments that were not released, and removes a torn tail.
pub(crate) fn recover(
    disk: &dyn Disk,
    options: &JournalOptions,
    record: &mut dyn FnMut(Recovered),
) -> Result<Recovery, JournalOpenError> {
    let files = load(disk, options)?;
    let proof = proof::read(disk, options.node)?;
    let claims = claims(&files, &proof, options)?;
    for number in claims.released.max(1)..=claims.segment {
        if files.segments.binary_search_by_key(&number, |segment| segment.header.segment).is_err() {
            return Err(missing(&files, options, number)?);
        }
    }
    let from = files.segments.partition_point(|segment| segment.header.segment < claims.released);
    let scanned = &files.segments[from..];
    for segment in scanned.iter().rev().take(2) {
        // Records that the previous process wrote and did not sync are in the newest segment. There may be nothing behind
        // its header, so the one before it is synced as well. All records found there count as durable from here on.
        let synced = segment.slot.file.sync_and_drop_cache(u64::from(options.segment_bytes));
        synced.map_err(failed(&segment.slot.name))?;
    }
    tracing::info!(
        segments = scanned.len(),
        bytes = scanned.len() as u64 * u64::from(options.segment_bytes),
        stopped_in_order = claims.stopped,
        "reading the log"
    );
    let mut scan = Scan::new(options.node, claims.durable, record);
    let end = read(scanned, options, &mut scan)?;
    let next_sequence = scan.expected.max(1);
    let kept = scan.kept.into_iter().map(|(of, (head, _))| (of, head)).collect();
    tracing::info!(records = scan.records, torn = end.torn_upto > end.offset, "the log was read");
    for name in &files.unfinished {
        disk.remove(name).map_err(failed(name))?;
    }
    if let Some(newest) = scanned.last() {
        wipe(&newest.slot, &end).map_err(failed(&newest.slot.name))?;
    }
    let now = Claims { durable: next_sequence - 1, stopped: false, ..claims };
    let proof = Proof::begin(disk, options.node, proof, now).map_err(failed(PROOF_FILE))?;
    let mut ring = ring(files, options, &end);
    ring.released = claims.released;
    Ok(Recovery { ring, next_sequence, kept, lacks_kept: end.lacks_kept, proof })
}

/// Overwrites a torn tail with zeros up to the end of its last header, so that none of its headers is ever taken for a
/// record. New records then go in its place: a start needs no further segment, for which the disk may have no space.
fn wipe(slot: &SegmentFile, end: &LogEnd) -> io::Result<()> {
    if end.torn_upto <= end.offset {
        return Ok(());
    }
    let zeros = vec![0; (end.torn_upto - end.offset) as usize];
    slot.file.write_at(&mut [IoSlice::new(&zeros)], u64::from(end.offset))?;
    slot.file.sync_data()
}

/// Writes the header of a segment that lost it. Such a segment is held only for the bodies in it, so the sequence of
/// its first record, which nobody knows any more, is not needed.
pub(crate) fn write_header(slot: &SegmentFile, node: u64, segment: u64) -> Result<(), JournalOpenError> {
    let header = SegmentHeader { version: VERSION, node, segment, first_sequence: 0, released: 0 }.encode();
    let written = slot.file.write_at(&mut [IoSlice::new(&header)], 0).and_then(|()| slot.file.sync_data());
    written.map_err(failed(&slot.name))
}

/// Returns what the proof and the headers of the segments together claim about the log.
fn claims(files: &LogFiles, proof: &ProofFile, options: &JournalOptions) -> Result<Claims, JournalOpenError> {
    let headers = || files.segments.iter().map(|segment| &segment.header);
    let newest = headers().next_back().map_or(0, |header| header.segment);
    if let Some(mut claims) = proof.claims {
        claims.segment = claims.segment.max(newest);
        claims.released = claims.released.max(headers().map(|header| header.released).max().unwrap_or(0));
        claims.released = claims.released.min(claims.segment); // the newest segment is never released
        return Ok(claims);
    }
    if options.made || headers().any(|header| header.version > WITHOUT_PROOF) {
        return Err(JournalOpenError::NoProof { state: if proof.is_there() { "is damaged" } else { "is missing" } });
    }
    // A new log, or one of the previous version, which did not store `released`: numbers are missing only below the
    // segments that are needed, so these are the newest segments up to the first gap.
    let mut released = newest;
    for header in headers().rev() {
        if header.segment + 1 < released {
            break;
        }
        released = header.segment;
    }
    Ok(Claims { durable: 0, segment: newest, released, stopped: false })
}

/// Returns the error for a segment that has to be there and that no file's header names.
fn missing(files: &LogFiles, options: &JournalOptions, segment: u64) -> Result<JournalOpenError, JournalOpenError> {
    for slot in &files.unknown {
        if find_segment(slot, options.node, segment)? {
            return Ok(JournalOpenError::Header { file: slot.name.clone(), segment });
        }
    }
    match files.unfinished.first() {
        Some(file) => {
            let error = io::Error::other(format!(
                "its length is not that of a segment, and segment {segment} of the log is missing"
            ));
            Ok(JournalOpenError::Disk { file: file.clone(), error })
        }
        None => Ok(JournalOpenError::Missing { segment }),
    }
}

/// Reads the segments and returns the end of the log. The records of each segment have to reach up to the first
/// sequence of the next segment.
fn read(
    segments: &[ScannedSegment],
    options: &JournalOptions,
    scan: &mut Scan<'_>,
) -> Result<LogEnd, JournalOpenError> {
    let mut end = LogEnd { offset: SEGMENT_HEAD as u32, torn_upto: 0, lacks_kept: false };
    for (at, segment) in segments.iter().enumerate() {
        let next_first = segments.get(at + 1).map(|next| next.header.first_sequence);
        if at == 0 {
            scan.expected = segment.header.first_sequence;
        }
        if let Some(first) = next_first {
            scan.durable = scan.durable.max(first - 1);
        }
        end.offset = scan.segment(segment, next_first)?;
        scan.report_progress(at + 1, segments.len());
        if next_first == Some(scan.expected) {
            continue;
        }
        let (last, durable) = scan_tail(segment, end.offset, options.node)?;
        if scan.durable.max(durable) >= scan.expected {
            return Err(corrupt(segment, end.offset, scan));
        }
        end.torn_upto = last.unwrap_or(end.offset);
    }
    let Some(newest) = segments.last() else { return Ok(end) };
    if let Some(offset) = scan.finish(newest)? {
        let (last, _) = scan_tail(newest, offset, options.node)?;
        end = LogEnd { offset, torn_upto: last.unwrap_or(offset), ..end };
    }
    end.lacks_kept = scan.kept.values().any(|&(_, segment)| segment != newest.header.segment);
    Ok(end)
}

fn corrupt(segment: &ScannedSegment, offset: u32, scan: &Scan<'_>) -> JournalOpenError {
    JournalOpenError::Corrupt { file: segment.slot.name.clone(), offset, group: scan.group, sequence: scan.expected }
}

/// Returns the ring of segments as it is after recovery.
fn ring(files: LogFiles, options: &JournalOptions, end: &LogEnd) -> Ring {
    let in_use: BTreeMap<u64, SegmentFile> =
        files.segments.into_iter().map(|segment| (segment.header.segment, segment.slot)).collect();
    let current = in_use.last_key_value().map_or(0, |(&last, _)| last);
    Ring {
        in_use,
        free: files.free,
        unknown: files.unknown,
        swept_file: None,
        segment_bytes: options.segment_bytes,
        segments_max: options.segments_max,
        segments_reserved: options.segments_reserved,
        current,
        offset: end.offset,
        released: 0,
        disk_full: false,
        control_waits: false,
    }
}

/// Opens the files in the log's folder and sorts them by what their headers say.
fn load(disk: &dyn Disk, options: &JournalOptions) -> Result<LogFiles, JournalOpenError> {
    let mut files = LogFiles::default();
    let names = disk.list(FOLDER).map_err(failed(FOLDER))?;
    if !names.is_empty() {
        disk.sync_folder(FOLDER).map_err(failed(FOLDER))?; // the process that created them may have ended before that
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
                let error = io::Error::other(format!("has {len} bytes, a segment has {}", options.segment_bytes));
                return Err(JournalOpenError::Disk { file: name, error });
            }
            files.unfinished.push(name);
            continue;
        }
        let slot = SegmentFile { name, file, written: header.is_some(), freed_at: None };
        match header {
            None if is_free(&bytes) => files.free.push(slot),
            None => files.unknown.push(slot),
            Some(header) if header.version > VERSION => {
                return Err(JournalOpenError::Newer { file: slot.name, version: header.version });
            }
            Some(header) if header.node != options.node => {
                return Err(JournalOpenError::OtherNode { file: slot.name, found: header.node, node: options.node });
            }
            Some(header) => files.segments.push(ScannedSegment { header, slot }),
        }
    }
    files.segments.sort_by_key(|segment| segment.header.segment);
    Ok(files)
}
