//! Publishes whose frames lie complete in the read buffer: noted there, and handed over together.
//!
//! Those with one exchange and routing key that follow each other form a run: it is routed once, and copied into each of its
//! queues under one lock. Runs of one read are handed over together: a queue that gets several of them is entered once.
use crate::codec::content::ContentHeader;
use bytes::Bytes;
use leveret_node::{Body, Extent, Route};
use std::ops::Range;
use std::sync::Arc;

/// The messages noted in the read buffer.
#[derive(Default)]
pub(crate) struct Noted {
    runs: Vec<Run>,
    messages: Vec<Extent>,
    /// The channel of the last run.
    channel: u16,
    /// The payload of the method frame that the messages of the last run came with.
    payload: Vec<u8>,
    /// How many queues get each message of the last run.
    recipients: usize,
    /// How many copies are made when everything is handed over.
    copies: usize,
}

/// Messages that follow each other on one channel, for one route.
pub(super) struct Run {
    pub(super) channel: u16,
    pub(super) route: Arc<Route>,
    pub(super) mandatory: bool,
    /// The index of its first message; its last one is before the first one of the next run.
    pub(super) first: usize,
}

impl Noted {
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Returns whether a method frame is the same publish as those of the last run.
    #[inline]
    pub(super) fn is_in_run(&self, channel: u16, payload: &[u8]) -> bool {
        self.channel == channel && !self.messages.is_empty() && same(payload, &self.payload)
    }

    /// Returns the payload of the method frame that the messages of the last run came with.
    pub(super) fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Begins a run with messages that come with a method frame of this payload.
    pub(super) fn begin(&mut self, channel: u16, route: Arc<Route>, mandatory: bool, payload: &[u8]) {
        self.payload.clear();
        self.payload.extend_from_slice(payload);
        self.channel = channel;
        self.recipients = route.recipients();
        self.runs.push(Run { channel, route, mandatory, first: self.messages.len() });
    }

    /// Adds a message to the last run. Returns whether everything is to be handed over now: the cost of that has a bound,
    /// however many queues the messages go to.
    #[inline]
    pub(super) fn add(&mut self, buffer: &[u8], header: &ContentHeader<'_>, body_at: usize) -> bool {
        let properties_at = (header.properties_raw.as_ptr() as usize - buffer.as_ptr() as usize) as u32;
        let properties_len = header.properties_raw.len() as u32;
        let body = body(buffer, body_at..body_at + header.body_size as usize, self.recipients);
        self.messages.push(Extent { properties_at, properties_len, body });
        self.copies += self.recipients.max(1);
        self.copies >= COPIES_MAX || self.runs.len() >= RUNS_MAX
    }

    /// Takes all runs, and their messages in the order of the runs.
    pub(super) fn take(&mut self) -> (Vec<Run>, Vec<Extent>) {
        self.copies = 0;
        (std::mem::take(&mut self.runs), std::mem::take(&mut self.messages))
    }

    /// Keeps the memory of what was taken, for the next messages.
    pub(super) fn give_back(&mut self, mut runs: Vec<Run>, mut messages: Vec<Extent>) {
        runs.clear();
        messages.clear();
        (self.runs, self.messages) = (runs, messages);
    }
}

/// Returns the body at `range` of the buffer: a copy in memory of its own if so many queues get it that their copies would add
/// up, otherwise the range.
#[inline]
pub(super) fn body(buffer: &[u8], range: Range<usize>, recipients: usize) -> Body {
    if recipients > 1 && range.len() >= COPIED_MAX && range.len() * recipients > COPIES_BYTES_MAX {
        return Body::Shared(Bytes::copy_from_slice(&buffer[range]));
    }
    Body::Inline { at: range.start as u32, len: range.len() as u32 }
}

/// Whether two short pieces of bytes are equal: eight at a time, in place. Most are a few words long and equal, for which
/// a call would cost more than the comparison.
#[inline]
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let ((a_words, a_rest), (b_words, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    a_words.iter().zip(b_words).all(|(a, b)| u64::from_ne_bytes(*a) == u64::from_ne_bytes(*b))
        && a_rest.iter().zip(b_rest).all(|(a, b)| a == b)
}

/// Copies of messages that are made at most when noted ones are handed over, in all queues together.
const COPIES_MAX: usize = 16 << 10;
/// Runs that are handed over together.
const RUNS_MAX: usize = 512;
/// Bodies up to this size are copied into each queue, in bytes.
const COPIED_MAX: usize = 512;
/// Larger ones are shared where their copies would be more than this, in bytes.
const COPIES_BYTES_MAX: usize = 1 << 20;
