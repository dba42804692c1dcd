//! What is in the log after a crash: every record that is whole, up to a torn tail.
//!
//! A record that is not whole is the torn tail if nothing later says that it was durable: it was never confirmed, and the
//! log ends there. If something does, durable bytes have rotted, and the log is not opened. Headers are read, bodies only
//! where no later header vouches for them; every body is checked when it is read.
use crate::disk::Disk;
use crate::format::{ALIGN, Head, Place, RECORD_HEAD, RecordHeader, SEGMENT_HEAD, SegmentHeader, VERSION};
use crate::journal::Options;
use crate::ring::{FOLDER, Ring, Slot};
use std::collections::{BTreeMap, VecDeque};
use std::io;

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
        "{file} is damaged at offset {offset} (record {sequence}, after group {group}): later records say that it was durable"
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
}

struct Segment {
    header: SegmentHeader,
    slot: Slot,
}

/// A record whose header is whole, and that no later header has vouched for yet.
struct Unvouched {
    header: RecordHeader,
    offset: u32,
    at: usize,
}

struct Scan<'r> {
    node: u64,
    record: &'r mut dyn FnMut(Recovered),
    unvouched: VecDeque<Unvouched>,
    durable: u64,
    expected: u64,
    group: u16,
}

pub(crate) fn recover(
    disk: &dyn Disk,
    options: &Options,
    record: &mut dyn FnMut(Recovered),
) -> Result<Found, OpenError> {
    let (segments, free) = load(disk, options)?;
    let mut scan = Scan { node: options.node, record, unvouched: VecDeque::new(), durable: 0, expected: 0, group: 0 };
    let mut end = (0, SEGMENT_HEAD as u32);
    let mut torn = false;
    for (at, segment) in segments.iter().enumerate() {
        let next_first = segments.get(at + 1).map(|next| next.header.first_sequence);
        let gap = segments.get(at + 1).is_some_and(|next| next.header.segment != segment.header.segment + 1);
        scan.expected = segment.header.first_sequence;
        let offset = scan.segment(at, segment, next_first)?;
        end = (at, offset);
        let ends_well = next_first.is_none_or(|first| first == scan.expected || gap);
        if ends_well && next_first.is_some() {
            continue;
        }
        let (tail, durable) = later(&segments[at..], offset, options)?;
        if durable >= scan.expected && durable > 0 {
            let Scan { expected: sequence, group, .. } = scan;
            return Err(OpenError::Corrupt { file: segment.slot.name.clone(), offset, group, sequence });
        }
        torn = tail;
        break;
    }
    let torn_at = scan.finish(&segments)?;
    if let Some((at, offset)) = torn_at {
        end = (at, offset);
        torn = true;
    }
    for segment in segments.iter().skip(end.0 + 1) {
        forget(&segment.slot)?;
    }
    let expected = scan.expected;
    Ok(found(segments, free, options, (end, torn, expected)))
}

/// Takes its number from a segment behind the end, for good: the log will have another one after the end.
fn forget(slot: &Slot) -> Result<(), OpenError> {
    let failed = |error| OpenError::Disk { file: slot.name.clone(), error };
    slot.file.write_at(&mut [io::IoSlice::new(&[0; SEGMENT_HEAD])], 0).map_err(failed)?;
    slot.file.sync_data().map_err(failed)
}

/// The ring as it is after the scan: what lies behind the end is free.
fn found(
    segments: Vec<Segment>,
    mut free: Vec<Slot>,
    options: &Options,
    (end, torn, expected): ((usize, u32), bool, u64),
) -> Found {
    let mut in_use = BTreeMap::new();
    let mut current = 0;
    for (at, segment) in segments.into_iter().enumerate() {
        if at <= end.0 {
            current = segment.header.segment;
            in_use.insert(current, segment.slot);
        } else {
            current = current.max(segment.header.segment); // never used again, but for the number
            free.push(segment.slot);
        }
    }
    // After a torn tail a new segment begins: what is left of the tail is never taken for a record.
    let full = torn || !in_use.contains_key(&current);
    let ring = Ring {
        in_use,
        free,
        segment_bytes: options.segment_bytes,
        segments_max: options.segments_max,
        segments_reserved: options.segments_reserved,
        current,
        offset: if full { options.segment_bytes } else { end.1 },
        disk_full: false,
    };
    Found { ring, next_sequence: expected.max(1) }
}

fn load(disk: &dyn Disk, options: &Options) -> Result<(Vec<Segment>, Vec<Slot>), OpenError> {
    let failed = |file: &str| {
        let file = file.to_owned();
        move |error| OpenError::Disk { file, error }
    };
    let (mut segments, mut free) = (Vec::new(), Vec::new());
    for name in disk.list(FOLDER).map_err(failed(FOLDER))? {
        let name = format!("{FOLDER}/{name}");
        let file = disk.open(&name).map_err(failed(&name))?;
        let len = file.len().map_err(failed(&name))?;
        let mut bytes = [0; SEGMENT_HEAD];
        if len >= SEGMENT_HEAD as u64 {
            file.sync_and_drop_cache(SEGMENT_HEAD as u64).map_err(failed(&name))?;
            file.read_at(&mut bytes, 0).map_err(failed(&name))?;
        }
        if len != u64::from(options.segment_bytes) {
            if SegmentHeader::decode(&bytes).is_some() {
                let error = io::Error::other(format!("{len} bytes long, segments have {}", options.segment_bytes));
                return Err(OpenError::Disk { file: name, error });
            }
            disk.remove(&name).map_err(failed(&name))?; // its making was interrupted
            continue;
        }
        let header = SegmentHeader::decode(&bytes);
        let slot = Slot { name, file, written: header.is_some() };
        match header {
            None => free.push(slot),
            Some(header) if header.version > VERSION => {
                return Err(OpenError::Newer { file: slot.name, version: header.version });
            }
            Some(header) if header.node != options.node => {
                return Err(OpenError::OtherNode { file: slot.name, found: header.node, node: options.node });
            }
            Some(header) => segments.push(Segment { header, slot }),
        }
    }
    segments.sort_by_key(|segment| segment.header.segment);
    // What the process before had not synced is in the newest one, behind whose header nothing may be: what is found there
    // counts as durable from here on.
    for segment in segments.iter().rev().take(2) {
        segment.slot.file.sync_and_drop_cache(u64::from(options.segment_bytes)).map_err(failed(&segment.slot.name))?;
    }
    Ok((segments, free))
}

impl Scan<'_> {
    /// Goes from header to header. Returns where no further one is.
    fn segment(&mut self, at: usize, segment: &Segment, next_first: Option<u64>) -> Result<u32, OpenError> {
        let mut window = Window::new(&segment.slot);
        let mut offset = SEGMENT_HEAD as u32;
        while next_first != Some(self.expected) {
            let Some(header) = RecordHeader::decode(window.at(offset)?) else { break };
            let fits = u64::from(offset) + u64::from(header.stride()) <= window.len;
            if !header.is_of(self.node, segment.header.segment) || header.sequence != self.expected || !fits {
                break;
            }
            self.expected += 1;
            self.durable = self.durable.max(header.durable);
            self.group = header.head.group;
            self.unvouched.push_back(Unvouched { header, offset, at });
            offset += header.stride();
            while self.unvouched.front().is_some_and(|first| first.header.sequence <= self.durable) {
                self.emit();
            }
        }
        Ok(offset)
    }

    fn emit(&mut self) {
        let Some(Unvouched { header, offset, .. }) = self.unvouched.pop_front() else { return };
        if header.head.kind != 0 {
            let offset = offset + RECORD_HEAD as u32;
            let place = Place { segment: header.segment, offset, len: header.body_len };
            (self.record)(Recovered { head: header.head, place });
        }
    }

    /// Bodies that no header vouches for are read. Returns where the log is torn, if it is.
    fn finish(&mut self, segments: &[Segment]) -> Result<Option<(usize, u32)>, OpenError> {
        while let Some(first) = self.unvouched.front() {
            let slot = &segments[first.at].slot;
            let mut body = vec![0; first.header.body_len as usize];
            slot.file
                .read_at(&mut body, u64::from(first.offset) + RECORD_HEAD as u64)
                .map_err(|error| OpenError::Disk { file: slot.name.clone(), error })?;
            if crc32fast::hash(&body) != first.header.body_crc {
                self.expected = first.header.sequence;
                return Ok(Some((first.at, first.offset)));
            }
            self.emit();
        }
        Ok(None)
    }
}

impl RecordHeader {
    fn is_of(&self, node: u64, segment: u64) -> bool {
        self.node == node && self.segment == segment
    }
}

/// Looks for records behind `offset` of the first segment, and in all others: whether there are any, and up to which
/// sequence they say that all is durable.
fn later(segments: &[Segment], offset: u32, options: &Options) -> Result<(bool, u64), OpenError> {
    let (mut any, mut durable) = (false, 0);
    let mut from = offset;
    for segment in segments {
        let mut window = Window::new(&segment.slot);
        let mut at = from;
        while u64::from(at) + RECORD_HEAD as u64 <= window.len {
            match RecordHeader::decode(window.at(at)?) {
                Some(header) if header.is_of(options.node, segment.header.segment) => {
                    any = true;
                    durable = durable.max(header.durable);
                }
                _ => {}
            }
            at += ALIGN;
        }
        from = SEGMENT_HEAD as u32;
    }
    Ok((any, durable))
}

/// A file read in pieces.
struct Window<'s> {
    slot: &'s Slot,
    len: u64,
    bytes: Vec<u8>,
    from: u32,
}

impl<'s> Window<'s> {
    fn new(slot: &'s Slot) -> Self {
        Self { slot, len: slot.file.len().unwrap_or(0), bytes: Vec::new(), from: 0 }
    }

    /// The bytes at `offset`, a record's header of them at least, if the file has so many.
    fn at(&mut self, offset: u32) -> Result<&[u8], OpenError> {
        let inside = offset >= self.from
            && offset as usize + RECORD_HEAD <= self.from as usize + self.bytes.len()
            && !self.bytes.is_empty();
        if !inside {
            let left = self.len.saturating_sub(u64::from(offset)) as usize;
            self.bytes.resize(left.min(WINDOW), 0);
            self.from = offset;
            let slot = self.slot;
            slot.file
                .read_at(&mut self.bytes, u64::from(offset))
                .map_err(|error| OpenError::Disk { file: slot.name.clone(), error })?;
        }
        Ok(&self.bytes[(offset - self.from) as usize..])
    }
}

/// Read at a time: many small records, or the headers between large ones.
const WINDOW: usize = 16 << 10;
