//! What is on its way to a client: one buffer a connection, written by whoever has something to say.
//!
//! Queues deliver into it under their own lock (lock order: queue, output), the reader answers into it, the writer
//! swaps it against an empty one and writes that in one call. It is bounded: full means that a queue waits, and the
//! writer has the queue dispatched again once it has drained.
use super::by_channel::ByChannel;
use crate::channel::confirm::Confirms;
use bytes::Bytes;
use leveret_node::{ChannelView, Confirm, ConsumerId, Ledger, Queue};
use parking_lot::{Mutex, MutexGuard};
use std::io::IoSlice;
use std::sync::Arc;
use tokio::sync::Notify;

/// A connection's output, shared by its reader, its writer and the queues it consumes from.
pub(crate) struct Output {
    state: Mutex<State>,
    wake: Notify,
    /// The buffer was taken to be written.
    drained: Notify,
}

/// Large bodies that lie between the bytes of a buffer, not copied into it.
#[derive(Default)]
pub(crate) struct Between {
    /// Each with its place in the buffer, in order.
    parts: Vec<(usize, Bytes)>,
    len: usize,
}

impl Between {
    /// Adds bytes that come before the byte `at` of the buffer.
    pub(crate) fn push(&mut self, at: usize, bytes: Bytes) {
        self.len += bytes.len();
        self.parts.push((at, bytes));
    }

    /// How many bytes they are together.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The bytes of `buffer` with these between them, in order.
    pub(crate) fn slices<'b>(&'b self, buffer: &'b [u8]) -> Vec<IoSlice<'b>> {
        let (mut slices, mut from) = (Vec::with_capacity(self.parts.len() * 2 + 1), 0);
        for (at, bytes) in &self.parts {
            slices.extend([IoSlice::new(&buffer[from..*at]), IoSlice::new(bytes)]);
            from = *at;
        }
        slices.push(IoSlice::new(&buffer[from..]));
        slices.retain(|slice| !slice.is_empty());
        slices
    }
}

/// What the lock protects.
pub(crate) struct State {
    /// Encoded frames.
    pub(crate) buffer: Vec<u8>,
    /// Large bodies in them.
    between: Between,
    /// Bytes of them that are deliveries to consumers; the rest answers what the client asked.
    delivered_bytes: usize,
    /// Deliveries by channel number.
    ledgers: ByChannel<Box<Ledger>>,
    /// Confirms by channel number.
    confirms: ByChannel<Confirms>,
    /// Tokens below were given to channels that are closed.
    next_token: u64,
    /// Consumers whose queue waits until the buffer has drained.
    stalled: Vec<(Arc<Queue>, ConsumerId)>,
    /// Nothing is delivered any more; what the buffer holds is written, then the socket is closed.
    closing: bool,
    /// Largest frame that the client takes, in bytes.
    pub(crate) frame_max: u32,
}

impl Output {
    pub(crate) fn new() -> Self {
        let state = State {
            buffer: Vec::new(),
            between: Between::default(),
            delivered_bytes: 0,
            ledgers: ByChannel::new(),
            confirms: ByChannel::new(),
            next_token: 0,
            stalled: Vec::new(),
            closing: false,
            frame_max: FRAME_MAX_UNTUNED,
        };
        Self { state: Mutex::new(state), wake: Notify::new(), drained: Notify::new() }
    }

    /// Delivers with `encode`: as [`write`](Self::write), for what is bounded by [`OUTPUT_MAX`] and was not asked for.
    pub(crate) fn deliver<T>(&self, encode: impl FnOnce(&mut State) -> T) -> T {
        self.write(|state| {
            let before = state.len();
            let answer = encode(state);
            state.delivered_bytes += state.len() - before;
            answer
        })
    }

    /// Whether the client leaves so many answers unread that nothing more is done for it until it has read some. Consumers'
    /// deliveries do not count: a client may well acknowledge before it reads on.
    pub(crate) fn is_unread(&self) -> bool {
        let state = self.state.lock();
        state.len() - state.delivered_bytes > ANSWERS_MAX
    }

    /// Waits until the client has read enough.
    pub(crate) async fn until_read(&self) {
        loop {
            let drained = self.drained.notified();
            if !self.is_unread() {
                return;
            }
            drained.await;
        }
    }

    /// Writes with `encode`, and wakes the writer if it may be asleep.
    pub(crate) fn write<T>(&self, encode: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let was_empty = state.buffer.is_empty();
        let answer = encode(&mut state);
        let wake = was_empty && !state.buffer.is_empty();
        drop(state);
        if wake {
            self.wake.notify_one();
        }
        answer
    }

    /// The state, for what writes nothing.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Nothing more is delivered; the writer ends once all is written.
    pub(crate) fn close(&self) {
        self.state.lock().closing = true;
        self.wake.notify_one();
    }

    /// Takes what is to be written: swaps it into `empty`, and large bodies into `between`. False when there will never be more.
    pub(crate) fn swap(&self, empty: &mut Vec<u8>, between: &mut Between) -> bool {
        let mut state = self.state.lock();
        std::mem::swap(&mut state.buffer, empty);
        std::mem::swap(&mut state.between, between);
        state.delivered_bytes = 0;
        let more = !(empty.is_empty() && state.closing);
        drop(state);
        if !empty.is_empty() {
            self.drained.notify_waiters();
        }
        more
    }

    /// Waits until there is something to write.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Consumers to dispatch for, now that the buffer has drained.
    pub(crate) fn take_stalled(&self) -> Vec<(Arc<Queue>, ConsumerId)> {
        std::mem::take(&mut self.state.lock().stalled)
    }

    /// Whether [`shrink`](Self::shrink) would give something back.
    pub(crate) fn is_grown(&self) -> bool {
        self.state.lock().buffer.capacity() > BUFFER_KEPT
    }

    /// An idle connection gives its buffer back.
    pub(crate) fn shrink(&self) {
        let mut state = self.state.lock();
        if state.buffer.is_empty() && state.buffer.capacity() > BUFFER_KEPT {
            state.buffer = Vec::new();
        }
    }
}

impl Confirm for Output {
    fn confirmed(&self, channel: u16, token: u64) {
        self.write(|state| {
            if let Some(Some(confirms)) = state.confirms.get_mut(usize::from(channel)) {
                confirms.confirmed(token);
                confirms.tell(&mut state.buffer, channel);
            }
        });
    }
}

impl State {
    /// Opens the book of confirms of a channel, unless it has one.
    pub(crate) fn open_confirms(&mut self, channel: u16) {
        self.confirms.place(usize::from(channel)).get_or_insert_with(|| Confirms::new(self.next_token));
    }

    /// Notes publishes of a channel that wants confirms: their token. Those before that were accepted at once are noted
    /// with them.
    pub(crate) fn published(&mut self, channel: u16, accepted: u64, messages: u64, waits_for: u32) -> Option<u64> {
        let confirms = self.confirms.get_mut(usize::from(channel))?.as_mut()?;
        if accepted > 0 {
            confirms.published(accepted, 0);
        }
        Some(confirms.published(messages, waits_for))
    }

    /// Notes publishes that were accepted at once, and tells the client what is safe.
    pub(crate) fn accepted(&mut self, channel: u16, accepted: u64) {
        if let Some(Some(confirms)) = self.confirms.get_mut(usize::from(channel)) {
            confirms.published(accepted, 0);
            confirms.tell(&mut self.buffer, channel);
        }
    }

    /// Opens the ledger of a channel.
    pub(crate) fn open_ledger(&mut self, channel: u16, view: Arc<ChannelView>) {
        *self.ledgers.place(usize::from(channel)) = Some(Box::new(Ledger::new(view)));
    }

    /// Takes the ledger of a channel that closes.
    pub(crate) fn close_ledger(&mut self, channel: u16) -> Option<Box<Ledger>> {
        if let Some(confirms) = self.confirms.take(usize::from(channel)) {
            self.next_token = self.next_token.max(confirms.next_token());
        }
        self.ledgers.take(usize::from(channel))
    }

    /// The ledger of a channel that is open.
    pub(crate) fn ledger(&mut self, channel: u16) -> Option<&mut Ledger> {
        self.ledgers.get_mut(usize::from(channel))?.as_deref_mut()
    }

    /// Bytes that are to be written.
    fn len(&self) -> usize {
        self.buffer.len() + self.between.len()
    }

    /// Buffer, large bodies in it, and ledger, to deliver into; none when the channel or the connection closes.
    pub(crate) fn for_delivery(&mut self, channel: u16) -> Option<(&mut Vec<u8>, &mut Between, &mut Ledger)> {
        if self.closing {
            return None;
        }
        let ledger = self.ledgers.get_mut(usize::from(channel))?.as_deref_mut()?;
        Some((&mut self.buffer, &mut self.between, ledger))
    }

    /// The queue of a consumer waits for the buffer to drain.
    pub(crate) fn stall(&mut self, queue: Arc<Queue>, consumer: ConsumerId) {
        self.stalled.push((queue, consumer));
    }
}

/// The buffer takes deliveries up to this size.
pub(crate) const OUTPUT_MAX: usize = 1 << 20;
/// A client may leave this much of what it asked for unread, and one answer more.
const ANSWERS_MAX: usize = 1 << 20;
/// An idle connection keeps a buffer of at most this size.
pub(crate) const BUFFER_KEPT: usize = 4 << 10;
/// Frames before the client and we have agreed on more, in bytes.
pub(crate) const FRAME_MAX_UNTUNED: u32 = 8192;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::encode;

    #[test]
    fn a_body_that_is_not_copied_is_written_as_one_that_is() {
        let body: Vec<u8> = (0..300_000u32).map(|at| at as u8).collect();
        let (memory, mut copied) = (Bytes::from(body.clone()), vec![1, 2, 3]);
        let (mut buffer, mut between) = (copied.clone(), Between::default());
        for (frame_max, len) in [(0, 300_000), (131_072, 300_000), (131_072, 131_064), (4096, 65_536), (131_072, 0)] {
            encode::content(&mut copied, 7, frame_max, b"\0\0", &body[..len]);
            let part = |at, part| between.push(at, part);
            encode::large_content(&mut buffer, (7, frame_max), b"\0\0", memory.slice(..len), part);
            buffer.push(9);
            copied.push(9);
        }
        assert_eq!(buffer.len() + between.len(), copied.len());
        let written: Vec<u8> = between.slices(&buffer).iter().flat_map(|slice| slice.iter().copied()).collect();
        assert!(written == copied, "{} bytes", written.len());
    }

    #[test]
    fn large_bodies_count_as_what_is_to_be_written() {
        let output = Output::new();
        let large = Bytes::from(vec![0; ANSWERS_MAX + 1]);
        output.deliver(|state| state.between.push(0, large.clone()));
        assert!(!output.is_unread(), "deliveries do not count as answers");
        output.write(|state| state.between.push(0, large));
        assert!(output.is_unread());
        let (mut bytes, mut between) = (Vec::new(), Between::default());
        assert!(output.swap(&mut bytes, &mut between));
        assert_eq!((between.len(), output.is_unread()), (2 * ANSWERS_MAX + 2, false));
    }
}
