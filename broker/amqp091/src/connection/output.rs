//! The bytes on their way to a client: one buffer per connection, into which queues, the reader and the log's tasks
//! write.
//!
//! Queues deliver into the buffer under their own lock (lock order: queue, output), the reader answers into it, and the
//! writer swaps it against an empty one and writes that in one call. The buffer is bounded: while it is full a queue
//! waits, and the writer has the queue dispatched again once the buffer has drained.
use super::by_channel::ByChannel;
use crate::channel::book::Books;
use bytes::Bytes;
use leveret_node::{ChannelView, ConsumerId, Ledger, Queue};
use parking_lot::{Mutex, MutexGuard};
use std::io::IoSlice;
use std::sync::Arc;
use tokio::sync::Notify;

/// A connection's output, shared by its reader, its writer and the queues it consumes from.
pub(crate) struct Output {
    state: Mutex<OutputState>,
    /// Wakes the writer: there are bytes to write.
    wake: Notify,
    /// Wakes the reader: the buffer was taken to be written.
    drained: Notify,
}

/// Large bodies that belong between the bytes of a buffer and are not copied into it.
#[derive(Default)]
pub(crate) struct Between {
    /// Each body with its place in the buffer, in order.
    parts: Vec<(usize, Bytes)>,
    /// The number of bytes of all bodies together.
    len: usize,
}

impl Between {
    /// Adds bytes that are written before the byte `at` of the buffer.
    pub(crate) fn push(&mut self, at: usize, bytes: Bytes) {
        self.len += bytes.len();
        self.parts.push((at, bytes));
    }

    /// Returns the number of bytes of all bodies together.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Returns the bytes of `buffer` with these bodies between them, in order.
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

/// The data that the output's lock protects.
pub(crate) struct OutputState {
    /// Encoded frames.
    pub(crate) buffer: Vec<u8>,
    /// Large bodies that belong between these bytes.
    between: Between,
    /// The number of bytes that are deliveries to consumers; the other bytes answer requests of the client.
    delivered_bytes: usize,
    /// Unacknowledged deliveries by channel number: a delivery is entered under the lock that it is encoded under.
    ledgers: ByChannel<Box<Ledger>>,
    /// The publishes that wait to be confirmed: the log tells from its own task which are durable.
    pub(crate) confirms: Books,
    /// Consumers whose queue waits until the buffer has drained.
    stalled: Vec<(Arc<Queue>, ConsumerId)>,
    /// Nothing is delivered any more; the rest of the buffer is written, then the socket is closed.
    closing: bool,
    /// The largest frame that the client takes, in bytes.
    pub(crate) frame_max: u32,
}

impl Output {
    pub(crate) fn new() -> Self {
        let state = OutputState {
            buffer: Vec::new(),
            between: Between::default(),
            delivered_bytes: 0,
            ledgers: ByChannel::new(),
            confirms: Books::new(),
            stalled: Vec::new(),
            closing: false,
            frame_max: FRAME_MAX_UNTUNED,
        };
        Self { state: Mutex::new(state), wake: Notify::new(), drained: Notify::new() }
    }

    /// Does the same as [`write`](Self::write) for deliveries to consumers, which no request asked for. The caller keeps
    /// them within [`OUTPUT_MAX`].
    pub(crate) fn deliver<T>(&self, encode: impl FnOnce(&mut OutputState) -> T) -> T {
        self.write(|state| {
            let before = state.len();
            let answer = encode(state);
            state.delivered_bytes += state.len() - before;
            answer
        })
    }

    /// Returns whether the client leaves so many answers unread that nothing more is done for it until it has read some.
    /// Deliveries to consumers do not count: a client may well acknowledge before it reads on.
    pub(crate) fn is_unread(&self) -> bool {
        let state = self.state.lock();
        state.len() - state.delivered_bytes > ANSWERS_MAX
    }

    /// Waits until the client has read enough of its answers.
    pub(crate) async fn until_read(&self) {
        loop {
            let drained = self.drained.notified();
            if !self.is_unread() {
                return;
            }
            drained.await;
        }
    }

    /// Has `encode` append frames, and wakes the writer if it may be asleep.
    pub(crate) fn write<T>(&self, encode: impl FnOnce(&mut OutputState) -> T) -> T {
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

    /// Returns the state to callers that append nothing to the buffer: the writer is not woken.
    pub(crate) fn lock(&self) -> MutexGuard<'_, OutputState> {
        self.state.lock()
    }

    /// Stops deliveries. The writer ends once the rest of the buffer is written.
    pub(crate) fn close(&self) {
        self.state.lock().closing = true;
        self.wake.notify_one();
    }

    /// Takes the bytes to write: swaps them into `empty`, and large bodies into `between`. Returns false if there will
    /// never be more.
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

    /// Returns the consumers whose queues waited for the buffer to drain.
    pub(crate) fn take_stalled(&self) -> Vec<(Arc<Queue>, ConsumerId)> {
        std::mem::take(&mut self.state.lock().stalled)
    }

    /// Returns whether [`shrink`](Self::shrink) would free memory.
    pub(crate) fn is_grown(&self) -> bool {
        self.state.lock().buffer.capacity() > BUFFER_KEPT
    }

    /// Frees the buffer of an idle connection.
    pub(crate) fn shrink(&self) {
        let mut state = self.state.lock();
        if state.buffer.is_empty() && state.buffer.capacity() > BUFFER_KEPT {
            state.buffer = Vec::new();
        }
    }
}

impl OutputState {
    /// Opens the ledger of a channel.
    pub(crate) fn open_ledger(&mut self, channel: u16, view: Arc<ChannelView>) {
        *self.ledgers.place(usize::from(channel)) = Some(Box::new(Ledger::new(view)));
    }

    /// Closes the book of confirms of a channel that closes. Returns its ledger.
    pub(crate) fn close_channel(&mut self, channel: u16) -> Option<Box<Ledger>> {
        self.confirms.close(channel);
        self.ledgers.take(usize::from(channel))
    }

    /// Returns the ledger of a channel, if the channel is open.
    pub(crate) fn ledger(&mut self, channel: u16) -> Option<&mut Ledger> {
        self.ledgers.get_mut(usize::from(channel))?.as_deref_mut()
    }

    /// Returns the number of bytes that are to be written.
    fn len(&self) -> usize {
        self.buffer.len() + self.between.len()
    }

    /// Returns the buffer, the large bodies in it, and the channel's ledger, to deliver into. Returns `None` if the
    /// channel or the connection closes.
    pub(crate) fn for_delivery(&mut self, channel: u16) -> Option<(&mut Vec<u8>, &mut Between, &mut Ledger)> {
        if self.closing {
            return None;
        }
        let ledger = self.ledgers.get_mut(usize::from(channel))?.as_deref_mut()?;
        Some((&mut self.buffer, &mut self.between, ledger))
    }

    /// Has the queue of a consumer wait until the buffer has drained.
    pub(crate) fn stall(&mut self, queue: Arc<Queue>, consumer: ConsumerId) {
        self.stalled.push((queue, consumer));
    }
}

/// The buffer takes deliveries up to this size, in bytes.
pub(crate) const OUTPUT_MAX: usize = 1 << 20;
/// A client may leave this much of its answers unread, in bytes, and one answer more.
const ANSWERS_MAX: usize = 1 << 20;
/// An idle connection keeps a buffer of at most this size, in bytes.
pub(crate) const BUFFER_KEPT: usize = 4 << 10;
/// The largest frame before client and broker have agreed on more, in bytes.
pub(crate) const FRAME_MAX_UNTUNED: u32 = 8192;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::encode::{self, Framing};

    #[test]
    fn bodies_are_written_alike_whether_copied_or_not() {
        let body: Vec<u8> = (0..300_000u32).map(|at| at as u8).collect();
        let (memory, mut copied) = (Bytes::from(body.clone()), vec![1, 2, 3]);
        let (mut buffer, mut between) = (copied.clone(), Between::default());
        for (frame_max, len) in [(0, 300_000), (131_072, 300_000), (131_072, 131_064), (4096, 65_536), (131_072, 0)] {
            let framing = Framing { channel: 7, frame_max };
            encode::content(&mut copied, framing, b"\0\0", &body[..len]);
            let part = |at, part| between.push(at, part);
            encode::large_content(&mut buffer, framing, b"\0\0", memory.slice(..len), part);
            buffer.push(9);
            copied.push(9);
        }
        assert_eq!(buffer.len() + between.len(), copied.len());
        let written: Vec<u8> = between.slices(&buffer).iter().flat_map(|slice| slice.iter().copied()).collect();
        assert!(written == copied, "{} bytes", written.len());
    }

    #[test]
    fn large_bodies_count_towards_the_bytes_to_be_written() {
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
