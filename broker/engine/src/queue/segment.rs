//! The bytes of a queue's messages: segments that are filled one after the other, each freed when its last message is
//! settled.
//!
//! A segment counts its live messages, so one unacknowledged message keeps its own segment in memory and none that came
//! later. Runs lie in a segment in their [stored form](super::stored).
use super::logged::RunName;
use super::numbered::{Numbered, Spot};
use super::stored::{self, StoredMessage, StoredRoute};
use bytes::Bytes;
use std::ops::Range;

#[derive(Default)]
pub(super) struct Segments {
    list: Numbered<Segment>,
    bytes: u64,
    /// The number of logged segments that are not in memory.
    cold: usize,
    /// The names of the runs in logged segments that were freed.
    freed: Vec<RunName>,
}

/// One segment.
pub(super) struct Segment {
    contents: Contents,
    /// The number of messages in the segment that are not settled.
    live: u32,
}

/// The contents of a segment.
enum Contents {
    /// Runs of a transient queue, and room for more.
    Open(Vec<u8>),
    /// One message whose large body is shared with the buffer that it arrived in. The bytes before the body are in
    /// `head`.
    Shared { head: Vec<u8>, body: Bytes },
    /// One run of a durable queue. Its bytes lie in the log and, while the run is warm, in memory.
    Logged { name: RunName, run: Option<Bytes> },
}

impl Segments {
    /// Returns the number of a segment with room for `bytes` more: the last one, or a new one.
    pub(super) fn with_room(&mut self, bytes: usize) -> u64 {
        if let Some(Segment { contents: Contents::Open(last), .. }) = self.list.last_mut()
            && last.capacity() - last.len() >= bytes
        {
            return self.last_number();
        }
        let before = self.tail().map_or(0, |last| last.capacity());
        self.push(Contents::Open(Vec::with_capacity((before * 2).clamp(SEGMENT_MIN, SEGMENT_MAX).max(bytes))))
    }

    /// Adds a segment for one message with a shared body. Returns its number.
    pub(super) fn push_shared(&mut self, head_bytes: usize, body: Bytes) -> u64 {
        self.push(Contents::Shared { head: Vec::with_capacity(head_bytes), body })
    }

    /// Returns an empty list that goes on with the numbers of this one.
    pub(super) fn successor(&self) -> Self {
        Self { list: self.list.successor(), ..Self::default() }
    }

    fn push(&mut self, contents: Contents) -> u64 {
        if self.list.last_mut().is_some_and(|last| last.live == 0) {
            let last = self.last_number();
            self.free(last..last + 1); // an empty segment that was kept for the next run
        }
        self.bytes += contents.bytes();
        self.list.push(Segment { contents, live: 0 })
    }

    /// Adds a segment for a run in the log, which is warm if its bytes are given. Returns the number of the segment.
    pub(super) fn push_logged(&mut self, run: Option<Bytes>, name: RunName, live: u32) -> u64 {
        self.cold += usize::from(run.is_none());
        let contents = Contents::Logged { name, run };
        self.bytes += contents.bytes();
        self.list.push(Segment { contents, live })
    }

    fn get(&self, number: u64) -> Option<&Segment> {
        self.list.get(number)
    }

    fn get_mut(&mut self, number: u64) -> Option<&mut Segment> {
        self.list.get_mut(number)
    }

    /// Returns segment `number`, which has a live message.
    #[inline]
    pub(super) fn at(&self, number: u64) -> &Segment {
        let Some(segment) = self.list.get(number) else {
            panic!("segment {number} of a queue has live messages and is not there");
        };
        segment
    }

    /// Returns the spot of segment `number` in the list, which is valid until a segment is freed.
    pub(super) fn spot(&self, number: u64) -> Spot {
        self.list.spot(number).unwrap_or_default()
    }

    /// Returns segment `number`, as [`at`](Self::at) does, found faster by its spot.
    #[inline]
    pub(super) fn at_spot(&self, spot: Spot, number: u64) -> &Segment {
        match self.list.at_spot(spot) {
            Some(segment) => segment,
            None => self.at(number),
        }
    }

    /// Returns the name of the run in segment `number` if it is not in memory.
    #[inline]
    pub(super) fn cold(&self, number: u64) -> Option<RunName> {
        if self.cold == 0 {
            return None;
        }
        match self.get(number)?.contents {
            Contents::Logged { name, run: None } => Some(name),
            _ => None,
        }
    }

    /// Makes a run of the log warm: stores its bytes, which were read from the disk.
    pub(super) fn warm(&mut self, number: u64, bytes: Bytes) {
        let len = bytes.len() as u64;
        if let Some(Segment { contents: Contents::Logged { run: run @ None, .. }, .. }) = self.get_mut(number) {
            *run = Some(bytes);
            self.bytes += len;
            self.cold -= 1;
        }
    }

    /// Makes a run of the log cold: frees its bytes.
    pub(super) fn cool(&mut self, number: u64) {
        if let Some(Segment { contents: Contents::Logged { run, .. }, .. }) = self.get_mut(number)
            && let Some(bytes) = run.take()
        {
            self.bytes -= bytes.len() as u64;
            self.cold += 1;
        }
    }

    /// Returns the logged segments, and the names of the runs in them.
    pub(super) fn names(&self) -> impl Iterator<Item = (u64, RunName)> {
        self.list.starting_at(0).filter_map(|(number, segment)| Some((number, segment.name()?)))
    }

    /// Returns the name of the run in segment `number`, if the segment is logged.
    pub(super) fn name(&self, number: u64) -> Option<RunName> {
        self.get(number)?.name()
    }

    /// Returns the names of the runs in logged segments that were freed since the last call.
    pub(super) fn take_freed(&mut self) -> Vec<RunName> {
        std::mem::take(&mut self.freed)
    }

    /// Returns the number of the last segment.
    pub(super) fn last_number(&self) -> u64 {
        self.list.end().saturating_sub(1)
    }

    /// Returns the bytes of the last segment, to append to.
    pub(super) fn tail(&mut self) -> Option<&mut Vec<u8>> {
        match &mut self.list.last_mut()?.contents {
            Contents::Open(bytes) | Contents::Shared { head: bytes, .. } => Some(bytes),
            Contents::Logged { .. } => None,
        }
    }

    /// Counts messages that were appended to the last segment.
    pub(super) fn add_live(&mut self, messages: u32) {
        if let Some(last) = self.list.last_mut() {
            last.live += messages;
        }
    }

    /// Settles messages of segment `number`. Returns whether the segment is to be freed.
    pub(super) fn settle(&mut self, number: u64, messages: u32) -> bool {
        let is_last = number == self.last_number();
        let Some(segment) = self.list.get_mut(number) else { return false };
        segment.live -= messages;
        if segment.live > 0 {
            return false;
        }
        if is_last && let Contents::Open(bytes) = &mut segment.contents {
            bytes.clear(); // the next run is written over it, while it is still in the processor's cache
            return false;
        }
        true
    }

    /// Frees the segments with these numbers that are there.
    pub(super) fn free(&mut self, numbers: Range<u64>) {
        let Self { list, bytes, cold, freed } = self;
        list.remove_range(numbers, |segment| {
            if let Contents::Logged { name, run } = &segment.contents {
                freed.push(*name);
                *cold -= usize::from(run.is_none());
            }
            *bytes -= segment.contents.bytes();
        });
    }

    /// Returns the bytes of contents in memory.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the bytes of memory that the list of segments takes.
    pub(super) fn index_bytes(&self) -> usize {
        self.list.memory_bytes()
    }

    /// Frees the last segment if it holds nothing.
    pub(super) fn trim(&mut self) {
        if self.list.len() == 1 && self.list.last_mut().is_some_and(|last| last.live == 0 && last.name().is_none()) {
            self.bytes = 0;
            self.list.remove(self.last_number());
        }
        self.list.trim();
    }
}

impl Contents {
    /// Returns the bytes of memory that the contents take.
    fn bytes(&self) -> u64 {
        (match self {
            Self::Open(bytes) => bytes.capacity(),
            Self::Shared { head, body } => head.capacity() + body.len(),
            Self::Logged { run, .. } => run.as_ref().map_or(0, Bytes::len),
        }) as u64
    }
}

impl Segment {
    /// Returns the exchange and routing key of the run at `offset`.
    #[inline]
    pub(super) fn route(&self, offset: u32) -> StoredRoute<'_> {
        stored::route(self.raw(), offset)
    }

    /// Returns the message at `offset`.
    #[inline]
    pub(super) fn message(&self, offset: u32) -> StoredMessage<'_> {
        match &self.contents {
            Contents::Shared { head, body } => stored::message_with(head, offset, body),
            _ => stored::message(self.raw(), offset),
        }
    }

    /// Returns the memory that bodies lie in, if it is shared.
    #[inline]
    pub(super) fn shared(&self) -> Option<&Bytes> {
        match &self.contents {
            Contents::Open(_) => None,
            Contents::Shared { body, .. } => Some(body),
            Contents::Logged { run, .. } => run.as_ref(),
        }
    }

    /// Returns the bytes that offsets refer to. A cold run has none: callers have checked that it is warm.
    #[inline]
    fn raw(&self) -> &[u8] {
        match &self.contents {
            Contents::Open(bytes) | Contents::Shared { head: bytes, .. } => bytes,
            Contents::Logged { run, .. } => run.as_deref().unwrap_or_default(),
        }
    }

    fn name(&self) -> Option<RunName> {
        match self.contents {
            Contents::Logged { name, .. } => Some(name),
            Contents::Open(_) | Contents::Shared { .. } => None,
        }
    }
}

/// Size of the first segment. It is small because there may be very many queues with one message each.
const SEGMENT_MIN: usize = 256;
/// Segments grow up to this size; a run that does not fit is split.
pub(super) const SEGMENT_MAX: usize = 1 << 20;
