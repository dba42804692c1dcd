//! Publishes whose frames lie complete in the read buffer: they are noted in a batch, and handed over together.
//!
//! Consecutive publishes with one exchange and routing key form a run: it is routed once, and copied into each of its
//! queues under one lock. The runs of one read are handed over together: a queue that gets several of them is locked
//! once.
use crate::codec::content::ContentHeader;
use bytes::Bytes;
use leveret_node::{Body, Extent, Route};
use std::ops::Range;
use std::sync::Arc;

/// Messages that lie complete in the read buffer, and are handed over together.
#[derive(Default)]
pub(crate) struct PublishBatch {
    /// The messages, by run.
    taken: PublishRuns,
    /// The channel of the last run.
    channel: u16,
    /// The number of queues that each message of the last run is copied into.
    recipients: usize,
    /// The payload of the method frame of the last run. A publish with an equal payload continues the run.
    payload: Vec<u8>,
    /// The number of copies that handing over all noted messages will make; it is bounded.
    copies: usize,
}

/// Runs of messages that are handed over together.
#[derive(Default)]
pub(super) struct PublishRuns {
    /// The runs, in the order of their arrival.
    pub(super) runs: Vec<PublishRun>,
    /// The messages of all runs, one run after the other.
    pub(super) messages: Vec<Extent>,
}

/// Consecutive messages of one channel that have one route.
pub(super) struct PublishRun {
    /// The channel that the messages arrived on.
    pub(super) channel: u16,
    /// The route of the messages.
    pub(super) route: Arc<Route>,
    /// True if the messages are sent back when no queue takes them.
    pub(super) mandatory: bool,
    /// The index of the run's first message. The run ends where the next one begins.
    pub(super) first: usize,
}

impl PublishBatch {
    pub(super) fn is_empty(&self) -> bool {
        self.taken.messages.is_empty()
    }

    /// Returns whether a method frame is the same publish as those of the last run.
    #[inline]
    pub(super) fn is_in_run(&self, channel: u16, payload: &[u8]) -> bool {
        self.channel == channel && !self.taken.messages.is_empty() && same(payload, &self.payload)
    }

    /// Begins a run of messages whose method frame has this payload.
    pub(super) fn begin(&mut self, channel: u16, route: Arc<Route>, mandatory: bool, payload: &[u8]) {
        self.payload.clear();
        self.payload.extend_from_slice(payload);
        self.channel = channel;
        self.recipients = route.recipients();
        self.taken.runs.push(PublishRun { channel, route, mandatory, first: self.taken.messages.len() });
    }

    /// Adds a message to the last run. Returns whether all noted messages should be handed over now, which bounds the
    /// cost of handing them over, however many queues they go to.
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
    pub(super) fn take(&mut self) -> PublishRuns {
        self.copies = 0;
        std::mem::take(&mut self.taken)
    }

    /// Takes back the memory of runs that were handed over, to use it for the next ones.
    pub(super) fn give_back(&mut self, mut taken: PublishRuns) {
        taken.runs.clear();
        taken.messages.clear();
        self.taken = taken;
    }
}

/// Returns a body that lies in the buffer. The body gets memory of its own, to be shared, if it has so many recipients
/// that copying it into each would cost too much.
#[inline]
pub(super) fn body(buffer: &[u8], at: Range<usize>, recipients: usize) -> Body {
    let len = at.len();
    if recipients > 1 && len >= COPIED_MAX && len * recipients > COPIES_BYTES_MAX {
        return Body::Shared(Bytes::copy_from_slice(&buffer[at]));
    }
    Body::Inline { at: at.start as u32, len: len as u32 }
}

/// Returns whether two short slices are equal. They are compared in place, eight bytes at a time: most are a few machine
/// words long and equal, so calling a function would cost more than the comparison.
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
