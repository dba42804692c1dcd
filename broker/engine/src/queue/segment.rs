//! The bytes of a queue's messages: segments filled one after the other, each freed when its last message is settled.
//!
//! A segment counts its live messages, so one unacknowledged message holds its own segment and none that came after.
//!
//! Stored form of a run: `[exchange length u8][key length u8][exchange][key]`, then each message as
//! `[properties length u32][body length u32][properties][body]`, integers little-endian: the log holds the same.
//! A large body is not in the segment: it is shared with the buffer that it arrived in, a segment of its own.
//! Of a durable queue each run is a segment of its own, whose bytes lie in the log and, while warm, in `body`.
use super::durable::Place;
use super::numbered::{Numbered, Spot};
use bytes::Bytes;
use std::ops::Range;

#[derive(Default)]
pub(super) struct Segments {
    list: Numbered<Segment>,
    bytes: u64,
    /// Logged segments that are not in memory.
    cold: usize,
    /// Where logged segments lay that came to their end, or were moved.
    freed: Vec<Place>,
}

/// One of them.
pub(super) struct Segment {
    bytes: Vec<u8>,
    /// A large body; of a logged segment the whole run, while warm.
    body: Option<Bytes>,
    /// Where a logged run lies.
    place: Option<Place>,
    /// Messages in it that are not settled.
    live: u32,
}

/// Where one message lies, borrowed from its segment.
pub(super) struct Stored<'a> {
    pub(super) properties: &'a [u8],
    pub(super) body: &'a [u8],
    /// Offset of the message that follows.
    pub(super) next: u32,
}

impl Segments {
    /// A segment with room for `bytes` more: its number. The last one, or a new one.
    pub(super) fn with_room(&mut self, bytes: usize) -> u64 {
        if let Some(last) = self.list.last_mut()
            && last.body.is_none()
            && last.bytes.capacity() - last.bytes.len() >= bytes
        {
            return self.last_number();
        }
        let before = self.list.last_mut().map_or(0, |last| last.bytes.capacity());
        self.push(Vec::with_capacity((before * 2).clamp(SEGMENT_MIN, SEGMENT_MAX).max(bytes)), None)
    }

    /// A segment of its own for one message with a shared body: its number.
    pub(super) fn push_shared(&mut self, head_bytes: usize, body: Bytes) -> u64 {
        self.push(Vec::with_capacity(head_bytes), Some(body))
    }

    fn push(&mut self, bytes: Vec<u8>, body: Option<Bytes>) -> u64 {
        if self.list.last_mut().is_some_and(|last| last.live == 0) {
            let last = self.last_number();
            self.free(last..last + 1); // it was kept for a run that would have fitted
        }
        self.bytes += (bytes.capacity() + body.as_ref().map_or(0, Bytes::len)) as u64;
        self.list.push(Segment { bytes, body, place: None, live: 0 })
    }

    /// A segment of its own for a run in the log, warm with `bytes`: its number.
    pub(super) fn push_logged(&mut self, bytes: Option<Bytes>, place: Place, live: u32) -> u64 {
        self.bytes += bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        self.cold += usize::from(bytes.is_none());
        self.list.push(Segment { bytes: Vec::new(), body: bytes, place: Some(place), live })
    }

    fn get(&self, number: u64) -> Option<&Segment> {
        self.list.get(number)
    }

    fn get_mut(&mut self, number: u64) -> Option<&mut Segment> {
        self.list.get_mut(number)
    }

    /// Segment `number`, which has a live message.
    #[inline]
    pub(super) fn at(&self, number: u64) -> &Segment {
        let Some(segment) = self.list.get(number) else {
            panic!("segment {number} of a queue has live messages and is not there");
        };
        segment
    }

    /// Where segment `number` is in the list, as long as none is freed.
    pub(super) fn spot(&self, number: u64) -> Spot {
        self.list.spot(number).unwrap_or_default()
    }

    /// As [`at`](Self::at), for the segment at `spot`.
    #[inline]
    pub(super) fn at_spot(&self, spot: Spot, number: u64) -> &Segment {
        match self.list.at_spot(spot) {
            Some(segment) => segment,
            None => self.at(number),
        }
    }

    /// Where segment `number` lies, if it is not in memory.
    #[inline]
    pub(super) fn cold(&self, number: u64) -> Option<Place> {
        if self.cold == 0 {
            return None;
        }
        let segment = self.get(number)?;
        if segment.body.is_some() { None } else { segment.place }
    }

    /// The bytes of a run that was read.
    pub(super) fn warm(&mut self, number: u64, bytes: Bytes) {
        let len = bytes.len() as u64;
        if let Some(segment) = self.get_mut(number)
            && segment.place.is_some()
            && segment.body.is_none()
        {
            segment.body = Some(bytes);
            self.bytes += len;
            self.cold -= 1;
        }
    }

    /// Lets go of the bytes of a run that lies in the log.
    pub(super) fn cool(&mut self, number: u64) {
        if let Some(segment) = self.get_mut(number)
            && segment.place.is_some()
            && let Some(bytes) = segment.body.take()
        {
            self.bytes -= bytes.len() as u64;
            self.cold += 1;
        }
    }

    /// The run lies elsewhere now. False if it came to its end.
    pub(super) fn relocate(&mut self, number: u64, place: Place) -> bool {
        match self.get_mut(number) {
            Some(segment) if segment.place.is_some() && segment.live > 0 => {
                let before = segment.place.replace(place);
                self.freed.extend(before);
                true
            }
            _ => false,
        }
    }

    /// Logged segments from `number` on with where they lie.
    pub(super) fn places(&self, number: u64) -> impl Iterator<Item = (u64, Place)> {
        self.list.starting_at(number).filter_map(|(number, segment)| Some((number, segment.place?)))
    }

    /// Where segment `number` lies in the log.
    pub(super) fn place(&self, number: u64) -> Option<Place> {
        self.get(number)?.place
    }

    /// Where logged segments lay that came to their end, or were moved, since the last call.
    pub(super) fn take_freed(&mut self) -> Vec<Place> {
        std::mem::take(&mut self.freed)
    }

    /// Number of the last segment.
    pub(super) fn last_number(&self) -> u64 {
        self.list.end().saturating_sub(1)
    }

    /// The last segment, which is there, to append to.
    pub(super) fn tail(&mut self) -> Option<&mut Vec<u8>> {
        self.list.last_mut().map(|last| &mut last.bytes)
    }

    /// Counts messages that were appended to the last segment.
    pub(super) fn add_live(&mut self, messages: u32) {
        if let Some(last) = self.list.last_mut() {
            last.live += messages;
        }
    }

    /// Messages of segment `number` are settled. Whether it is to be freed.
    pub(super) fn settle(&mut self, number: u64, messages: u32) -> bool {
        let is_last = number == self.last_number();
        let Some(segment) = self.list.get_mut(number) else { return false };
        segment.live -= messages;
        if segment.live > 0 {
            return false;
        }
        if is_last && segment.body.is_none() && segment.place.is_none() {
            segment.bytes.clear(); // the next run is written over it, while it is still in the processor's cache
            return false;
        }
        true
    }

    /// Frees segments, those of them that are there.
    pub(super) fn free(&mut self, numbers: Range<u64>) {
        let Self { list, bytes, cold, freed } = self;
        list.remove_range(numbers, |segment| {
            if let Some(place) = segment.place {
                freed.push(place);
                *cold -= usize::from(segment.body.is_none());
            }
            *bytes -= (segment.bytes.capacity() + segment.body.as_ref().map_or(0, Bytes::len)) as u64;
        });
    }

    /// Bytes of contents in memory.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of memory that the list of segments takes.
    pub(super) fn index_bytes(&self) -> usize {
        self.list.memory_bytes()
    }

    /// Lets go of the memory of a last segment that holds nothing.
    pub(super) fn trim(&mut self) {
        if self.list.len() == 1 && self.list.last_mut().is_some_and(|last| last.live == 0 && last.place.is_none()) {
            self.bytes = 0;
            self.list.remove(self.last_number());
        }
        self.list.trim();
    }
}

impl Segment {
    /// Exchange, routing key and the offset of the first message of the run at `offset`.
    #[inline]
    pub(super) fn route(&self, offset: u32) -> (&[u8], &[u8], u32) {
        let bytes = self.raw();
        let at = offset as usize;
        let (exchange, key) = (bytes[at] as usize, bytes[at + 1] as usize);
        let names = &bytes[at + 2..at + 2 + exchange + key];
        (&names[..exchange], &names[exchange..], (at + 2 + exchange + key) as u32)
    }

    /// The message at `offset`.
    #[inline]
    pub(super) fn message(&self, offset: u32) -> Stored<'_> {
        let rest = &self.raw()[offset as usize..];
        let (properties, body) = (length(rest, 0), length(rest, 4));
        let rest = &rest[HEAD..];
        match self.body.as_ref().filter(|_| self.place.is_none()) {
            None => Stored {
                properties: &rest[..properties],
                body: &rest[properties..properties + body],
                next: offset + (HEAD + properties + body) as u32,
            },
            Some(shared) => Stored { properties: &rest[..properties], body: shared, next: 0 },
        }
    }

    /// The memory that bodies lie in, if it is shared.
    #[inline]
    pub(super) fn shared(&self) -> Option<&Bytes> {
        self.body.as_ref()
    }

    #[inline]
    fn raw(&self) -> &[u8] {
        match (&self.place, &self.body) {
            (Some(_), Some(run)) => run,
            _ => &self.bytes,
        }
    }
}

#[inline]
fn length(bytes: &[u8], at: usize) -> usize {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four) as usize
}

/// Bytes before a message's properties.
pub(super) const HEAD: usize = 8;
/// The first segment is hardly larger than what it is made for: there may be very many queues with a message each.
const SEGMENT_MIN: usize = 256;
/// Segments grow up to this size; a run that does not fit is split.
pub(super) const SEGMENT_MAX: usize = 1 << 20;
