//! Going through segments from header to header, at a start.
use crate::format::{ALIGN, Head, Place, RECORD_HEAD, RecordHeader, SEGMENT_HEAD};
use crate::recover::{OpenError, Recovered, Segment, failed};
use crate::ring::Slot;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// A record whose header is whole, and that nothing has vouched for yet.
struct Unvouched {
    header: RecordHeader,
    offset: u32,
}

pub(crate) struct Scan<'r> {
    node: u64,
    record: &'r mut dyn FnMut(Recovered),
    unvouched: VecDeque<Unvouched>,
    /// Records up to this sequence are known to be durable.
    pub(crate) durable: u64,
    /// Sequence of the record that comes next.
    pub(crate) expected: u64,
    /// Group of the record found last.
    pub(crate) group: u16,
    /// The newest record of each group and kind that is kept, and the segment in which it was found last.
    pub(crate) kept: BTreeMap<(u16, u8), (Head, u64)>,
    /// How many were found.
    pub(crate) records: u64,
    told: Instant,
}

impl<'r> Scan<'r> {
    pub(crate) fn new(node: u64, durable: u64, record: &'r mut dyn FnMut(Recovered)) -> Self {
        let (unvouched, kept, told) = (VecDeque::new(), BTreeMap::new(), Instant::now());
        Self { node, record, unvouched, durable, expected: 0, group: 0, kept, records: 0, told }
    }

    /// Goes from header to header. Returns where no further one is.
    pub(crate) fn segment(&mut self, segment: &Segment, next_first: Option<u64>) -> Result<u32, OpenError> {
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
            self.unvouched.push_back(Unvouched { header, offset });
            offset += header.stride();
            while self.unvouched.front().is_some_and(|first| first.header.sequence <= self.durable) {
                self.emit();
            }
        }
        Ok(offset)
    }

    fn emit(&mut self) {
        let Some(Unvouched { header, offset }) = self.unvouched.pop_front() else { return };
        let head = header.head;
        if head.is_kept() {
            self.kept.insert((head.group, head.kind), (head, header.segment));
        }
        if head.kind != 0 {
            let offset = offset + RECORD_HEAD as u32;
            let place = Place { segment: header.segment, offset, len: header.body_len };
            (self.record)(Recovered { head, place });
        }
    }

    /// Bodies that nothing vouches for are read; all are in the newest segment. Returns where the log is torn, if it is.
    pub(crate) fn finish(&mut self, newest: &Segment) -> Result<Option<u32>, OpenError> {
        let slot = &newest.slot;
        while let Some(first) = self.unvouched.front() {
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

    /// Says how far it is, every few seconds.
    pub(crate) fn tell(&mut self, done: usize, segments: usize) {
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            tracing::info!(records = self.records, "{done} of {segments} segments of the log are read");
        }
    }
}

/// Looks for records behind `offset`: where the header of the last one ends, if there is one, and up to which sequence they
/// say that all is durable.
pub(crate) fn later(segment: &Segment, offset: u32, node: u64) -> Result<(Option<u32>, u64), OpenError> {
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

/// Whether a file without a header holds a record of segment `number`.
pub(crate) fn find_segment(slot: &Slot, node: u64, number: u64) -> Result<bool, OpenError> {
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

/// A file read in pieces.
struct Window<'s> {
    slot: &'s Slot,
    len: u64,
    bytes: Vec<u8>,
    from: u32,
}

impl<'s> Window<'s> {
    fn new(slot: &'s Slot) -> Result<Self, OpenError> {
        let len = slot.file.len().map_err(failed(&slot.name))?;
        Ok(Self { slot, len, bytes: Vec::new(), from: 0 })
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
            self.slot.file.read_at(&mut self.bytes, u64::from(offset)).map_err(failed(&self.slot.name))?;
        }
        Ok(&self.bytes[(offset - self.from) as usize..])
    }
}

/// Read at a time: many small records, or the headers between large ones.
const WINDOW: usize = 16 << 10;
const TELL_EVERY: Duration = Duration::from_secs(2);
