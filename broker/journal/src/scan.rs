//! Reads the segments of the log from header to header at a start, on behalf of `recover`.
use crate::format::{ALIGN, Head, RECORD_HEAD, RecordHeader, RecordPlace, Recovered, SEGMENT_HEAD, SegmentHeader};
use crate::open_error::{JournalOpenError, failed};
use crate::ring::SegmentFile;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// A segment of the log, and the file that holds it.
pub(crate) struct ScannedSegment {
    pub(crate) header: SegmentHeader,
    pub(crate) slot: SegmentFile,
}

/// A record whose header is intact, and which nothing that was read so far proves to be durable.
struct UnprovenRecord {
    header: RecordHeader,
    offset: u32,
}

pub(crate) struct Scan<'r> {
    node: u64,
    record: &'r mut dyn FnMut(Recovered),
    unproven: VecDeque<UnprovenRecord>,
    /// Records up to this sequence are known to be durable.
    pub(crate) durable: u64,
    /// Sequence that the next record has to have.
    pub(crate) expected: u64,
    /// Group of the last record that was found.
    pub(crate) group: u16,
    /// The newest kept record of each group and kind, and the last segment in which it was found.
    pub(crate) kept: BTreeMap<(u16, u8), (Head, u64)>,
    /// The number of records found.
    pub(crate) records: u64,
    /// Time of the last log message about the progress.
    reported_at: Instant,
}

impl<'r> Scan<'r> {
    pub(crate) fn new(node: u64, durable: u64, record: &'r mut dyn FnMut(Recovered)) -> Self {
        let (unproven, kept, reported_at) = (VecDeque::new(), BTreeMap::new(), Instant::now());
        Self { node, record, unproven, durable, expected: 0, group: 0, kept, records: 0, reported_at }
    }

    /// Reads the headers of a segment up to the record before `next_first`, the first sequence of the next segment.
    /// Stops earlier where there is no intact header with the expected sequence. Returns the offset at which it
    /// stopped.
    pub(crate) fn segment(
        &mut self,
        segment: &ScannedSegment,
        next_first: Option<u64>,
    ) -> Result<u32, JournalOpenError> {
        let mut window = Window::new(&segment.slot)?;
        let mut offset = SEGMENT_HEAD as u32;
        while next_first != Some(self.expected) {
            let Some(header) = RecordHeader::decode(window.at(offset)?) else { break };
            let fits = u64::from(offset) + u64::from(header.stride()) <= window.len;
            if !header.is_of(self.node, segment.header.segment) || header.sequence != self.expected || !fits {
                break;
            }
            self.expected += 1;
            self.records += 1;
            self.durable = self.durable.max(header.durable);
            self.group = header.head.group;
            self.unproven.push_back(UnprovenRecord { header, offset });
            offset += header.stride();
            while self.unproven.front().is_some_and(|first| first.header.sequence <= self.durable) {
                self.emit();
            }
        }
        Ok(offset)
    }

    /// Takes the first of the unproven records and reports it to the caller of the recovery.
    fn emit(&mut self) {
        let Some(UnprovenRecord { header, offset }) = self.unproven.pop_front() else { return };
        let head = header.head;
        if head.is_kept() {
            self.kept.insert((head.group, head.kind), (head, header.segment));
        }
        if head.kind != 0 {
            let offset = offset + RECORD_HEAD as u32;
            let place = RecordPlace { segment: header.segment, offset, len: header.body_len };
            (self.record)(Recovered { head, place });
        }
    }

    /// Checks the bodies of the remaining unproven records, all of which are in the newest segment, and reports those
    /// that are intact. Returns the offset of the first record that is not, at which the log is torn, or `None` if all
    /// are intact.
    pub(crate) fn finish(&mut self, newest: &ScannedSegment) -> Result<Option<u32>, JournalOpenError> {
        let slot = &newest.slot;
        while let Some(first) = self.unproven.front() {
            let mut body = vec![0; first.header.body_len as usize];
            slot.file.read_at(&mut body, u64::from(first.offset) + RECORD_HEAD as u64).map_err(failed(&slot.name))?;
            if crc32fast::hash(&body) != first.header.body_crc {
                self.expected = first.header.sequence;
                return Ok(Some(first.offset));
            }
            self.emit();
        }
        Ok(None)
    }

    /// Logs at most every two seconds how many of the segments were read.
    pub(crate) fn report_progress(&mut self, done: usize, segments: usize) {
        if self.reported_at.elapsed() >= REPORT_EVERY {
            self.reported_at = Instant::now();
            tracing::info!(records = self.records, "{done} of {segments} segments of the log were read");
        }
    }
}

/// Searches a segment from `offset` to its end for intact headers of its records. Returns where the last of these
/// headers ends, if there is one, and the highest sequence that they say is durable (0 if there is none).
pub(crate) fn scan_tail(
    segment: &ScannedSegment,
    offset: u32,
    node: u64,
) -> Result<(Option<u32>, u64), JournalOpenError> {
    let (mut last, mut durable) = (None, 0);
    let mut window = Window::new(&segment.slot)?;
    let mut at = offset;
    while u64::from(at) + RECORD_HEAD as u64 <= window.len {
        match RecordHeader::decode(window.at(at)?) {
            Some(header) if header.is_of(node, segment.header.segment) => {
                last = Some(at + RECORD_HEAD as u32);
                durable = durable.max(header.durable);
            }
            _ => {}
        }
        at += ALIGN;
    }
    Ok((last, durable))
}

/// Returns whether a file without a segment header holds a record of segment `number`.
pub(crate) fn find_segment(slot: &SegmentFile, node: u64, number: u64) -> Result<bool, JournalOpenError> {
    let mut window = Window::new(slot)?;
    let mut at = SEGMENT_HEAD as u32;
    while u64::from(at) + RECORD_HEAD as u64 <= window.len {
        if RecordHeader::decode(window.at(at)?).is_some_and(|header| header.is_of(node, number)) {
            return Ok(true);
        }
        at += ALIGN;
    }
    Ok(false)
}

/// A file that is read in pieces, of which one is in memory.
struct Window<'s> {
    slot: &'s SegmentFile,
    len: u64,
    bytes: Vec<u8>,
    from: u32,
}

impl<'s> Window<'s> {
    fn new(slot: &'s SegmentFile) -> Result<Self, JournalOpenError> {
        let len = slot.file.len().map_err(failed(&slot.name))?;
        Ok(Self { slot, len, bytes: Vec::new(), from: 0 })
    }

    /// Returns bytes from `offset` on: at least as many as a record's header has, unless the file ends before.
    fn at(&mut self, offset: u32) -> Result<&[u8], JournalOpenError> {
        let inside = offset >= self.from
            && offset as usize + RECORD_HEAD <= self.from as usize + self.bytes.len()
            && !self.bytes.is_empty();
        if !inside {
            let left = self.len.saturating_sub(u64::from(offset)) as usize;
            self.bytes.resize(left.min(WINDOW), 0);
            self.from = offset;
            self.slot.file.read_at(&mut self.bytes, u64::from(offset)).map_err(failed(&self.slot.name))?;
        }
        Ok(&self.bytes[(offset - self.from) as usize..])
    }
}

/// Bytes read at a time: enough for many small records, and not much to read for each header between large ones.
const WINDOW: usize = 16 << 10;
/// Time between two log messages about the progress.
const REPORT_EVERY: Duration = Duration::from_secs(2);
