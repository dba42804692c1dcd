//! Publishes whose frames lie complete in the read buffer: noted there, and handed over together.
//!
//! Publishes with one exchange and routing key that follow each other form a run: it is routed once, and copied into each of
//! its queues under one lock. The runs of one read are handed over together: a queue that gets several of them is locked once.
use crate::codec::content::ContentHeader;
use bytes::Bytes;
use leveret_node::{Body, Extent, Route};
use std::ops::Range;
use std::sync::Arc;

/// Messages noted in the read buffer.
#[derive(Default)]
pub(crate) struct Noted {
    /// The messages, by run.
    taken: Runs,
    /// The channel of the last run.
    channel: u16,
    /// The number of queues that each message of the last run is copied into.
    recipients: usize,
    /// The payload of the method frame that the messages of the last run came with: an equal one continues the run.
    payload: Vec<u8>,
    /// The copies that are made once all messages are handed over; they are bounded.
    copies: usize,
}

/// Runs of messages that are handed over together.
#[derive(Default)]
pub(super) struct Runs {
    /// The runs, in the order of their arrival.
    pub(super) runs: Vec<Run>,
    /// The messages of all runs, one run after the other.
    pub(super) messages: Vec<Extent>,
}

/// Messages that follow each other on one channel, for one route.
pub(super) struct Run {
    /// The channel that they came on.
    pub(super) channel: u16,
    /// Where they go.
    pub(super) route: Arc<Route>,
    /// They are sent back if no queue takes them.
    pub(super) mandatory: bool,
    /// The index of its first message. It ends where the next run begins.
    pub(super) first: usize,
}

impl Noted {
    pub(super) fn is_empty(&self) -> bool {
        self.taken.messages.is_empty()
    }

    /// Returns whether a method frame is the same publish as those of the last run.
    #[inline]
    pub(super) fn is_in_run(&self, channel: u16, payload: &[u8]) -> bool {
        self.channel == channel && !self.taken.messages.is_empty() && same(payload, &self.payload)
    }

    /// Returns the payload of the method frame that the messages of the last run came with.
    pub(super) fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Begins a run of messages that come with a method frame of this payload.
    pub(super) fn begin(&mut self, channel: u16, route: Arc<Route>, mandatory: bool, payload: &[u8]) {
        self.payload.clear();
        self.payload.extend_from_slice(payload);
        self.channel = channel;
        self.recipients = route.recipients();
        self.taken.runs.push(Run { channel, route, mandatory, first: self.taken.messages.len() });
    }

    /// Adds a message to the last run. Returns whether all messages are to be handed over now: the cost of that is bounded,
    /// however many queues they go to.
    #[inline]
    pub(super) fn add(&mut self, buffer: &[u8], header: &ContentHeader<'_>, body_at: usize) -> bool {
        let properties_at = (header.properties_raw.as_ptr() as usize - buffer.as_ptr() as usize) as u32;
        let properties_len = header.properties_raw.len() as u32;
        let body = body(buffer, body_at..body_at + header.body_size as usize, self.recipients);
        self.taken.messages.push(Extent { properties_at, properties_len, body });
        self.copies += self.recipients.max(1);
        self.copies >= COPIES_MAX || self.taken.runs.len() >= RUNS_MAX
    }

    /// Takes all runs.
    pub(super) fn take(&mut self) -> Runs {
        self.copies = 0;
        std::mem::take(&mut self.taken)
    }

    /// Keeps the memory of runs that were handed over, for the next ones.
    pub(super) fn give_back(&mut self, mut taken: Runs) {
        taken.runs.clear();
        taken.messages.clear();
        self.taken = taken;
    }
}

/// Returns a body that lies in the buffer. It gets memory of its own if there are so many recipients that their copies would
/// add up.
#[inline]
pub(super) fn body(buffer: &[u8], at: Range<usize>, recipients: usize) -> Body {
    let len = at.len();
    if recipients > 1 && len >= COPIED_MAX && len * recipients > COPIES_BYTES_MAX {
        return Body::Shared(Bytes::copy_from_slice(&buffer[at]));
    }
    Body::Inline { at: at.start as u32, len: len as u32 }
}

/// Returns whether two short pieces of bytes are equal. They are compared in place, eight bytes at a time: most are a few words
/// long and equal, for which a call would cost more than the comparison.
#[inline]
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let ((a_words, a_rest), (b_words, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    a_words.iter().zip(b_words).all(|(a, b)| u64::from_ne_bytes(*a) == u64::from_ne_bytes(*b))
        && a_rest.iter().zip(b_rest).all(|(a, b)| a == b)
}

/// The most copies that are made when noted messages are handed over, in all queues together.
const COPIES_MAX: usize = 16 << 10;
/// The most runs that are handed over together.
const RUNS_MAX: usize = 512;
/// Bodies below this size, in bytes, are copied into each queue.
const COPIED_MAX: usize = 512;
/// Larger bodies are shared if their copies would take more than this, in bytes.
const COPIES_BYTES_MAX: usize = 1 << 20;
