//! The entries of a shard's log. An entry holds the operations on the shard's queues that arrived while the entry before it
//! was on its way.
//!
//! Format, integers little-endian: `version u8 = 4`, then batches, each as `origin u64, incarnation u64, row u8, number u64,
//! length u32` and operations of that length. An operation begins with its number: 1 enqueue `queues u16, uid u64 each, messages
//! u32, body bytes u64, length u32, run` (the run in the stored form of engine's queues); 2 settle `uid u64, first u64,
//! messages u64`; 9 return `uid u64, epoch u64, stretches u32`, each stretch `first u64, messages u32, offset u32 each`; 12
//! declare `epoch u64, length u32, fact` (see `definitions`); 13 delete `epoch u64, uid u64`. The log of group 0 has 14
//! command `number u64, length u32, command` (see `commands`). 15 release has the form of 9. The numbers 4 expire, 5 drop (overflow), 6 move (dead
//! letter) and 7 tick are reserved for these operations. By its batches a node knows the operations of this start, whose
//! publishers wait, from others, and an operation that gets into the log twice is applied once.
//!
//! Version 3 has no rows, and declares and deletes without an epoch: 10 declare `length u32, fact`; 11 delete `uid u64`.
//! Versions 1 and 2 have one batch without origin and length: `version u8, incarnation u64, number u64`, operations. They
//! return messages without an epoch: 3 `uid u64, n u32, (sequence u64, offset u32)...` in version 1; 8 `uid u64, stretches
//! u32, stretches` in version 2.
//!
//! The length of an operation is bounded, and so is that of an entry: operations that would be longer are split before they
//! are logged ([`pieces`], [`changes`]).
use crate::definitions;
use bytes::{Buf, BufMut, Bytes};
use leveret_engine::catalog::{Fact, NodeRun, QueueId};
use leveret_engine::queue::{DeliveryChanges, DeliveryId, Extent, Publish};
use leveret_engine::shard::BatchId;
use smallvec::SmallVec;
use std::ops::Range;

/// Operations in an entry that come from one node together.
pub(crate) struct Batch {
    /// The identity of the batch; `None` in an entry of an earlier version.
    pub(crate) id: Option<BatchId>,
    /// The bytes of the entry that hold the operations.
    pub(crate) operations: Range<usize>,
}

/// One operation of an entry, decoded.
pub(crate) enum Operation {
    /// Messages were published to durable queues: the run is put into each of the queues.
    Enqueue {
        /// The identities of the queues.
        queues: Vec<QueueId>,
        /// The number of messages in the run.
        count: u32,
        /// The bytes of the bodies of all its messages.
        body_bytes: u64,
        /// The offset of the run in the entry, in bytes.
        at: u32,
        /// The run in stored form.
        run: Bytes,
    },
    /// Messages were acknowledged, rejected without requeue, purged, or delivered to a consumer that needs no
    /// acknowledgement: they are removed from the queue.
    Settle {
        /// The identity of the queue.
        queue: QueueId,
        /// The sequence number of the first message.
        first: u64,
        /// The number of consecutive messages.
        count: u64,
    },
    /// Delivered messages were requeued, or their channel was closed: they are ready again.
    Return {
        /// The identity of the queue.
        queue: QueueId,
        /// The epoch in which the messages were delivered; `None` in an entry of an earlier version.
        epoch: Option<u64>,
        /// The sequence number and the offset of each message.
        messages: Vec<(u64, u32)>,
    },
    /// Messages that were granted to a node were not delivered there: they are ready again.
    Release {
        /// The identity of the queue.
        queue: QueueId,
        /// The epoch in which the messages were granted.
        epoch: u64,
        /// The sequence number and the offset of each message.
        messages: Vec<(u64, u32)>,
    },
    /// A queue was declared: from here on its messages are kept.
    Declare {
        /// The term of the leader that logged it; `None` in an entry of an earlier version.
        epoch: Option<u64>,
        /// The declaration.
        fact: Fact,
    },
    /// A queue was deleted.
    Delete {
        /// The term of the leader that logged it; `None` in an entry of an earlier version.
        epoch: Option<u64>,
        /// The identity of the queue.
        queue: QueueId,
    },
    /// A change of the definitions was asked for.
    Command {
        /// The number of the command among those of its node's start.
        number: u64,
        /// The command, encoded.
        command: Bytes,
    },
}

/// The row of a batch: the batches of a row are numbered by themselves, and are applied in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Row {
    /// Publishes.
    Publishes = 0,
    /// All other operations.
    Others = 1,
}

impl Row {
    /// Returns the row of a batch.
    pub(crate) fn of(batch: BatchId) -> Self {
        if batch.row == Self::Publishes as u8 { Self::Publishes } else { Self::Others }
    }
}

/// Returns the identity of a batch of a start of a node.
pub(crate) fn batch_of(NodeRun { node, incarnation }: NodeRun, row: Row, number: u64) -> BatchId {
    BatchId { origin: node, incarnation, row: row as u8, number }
}

/// Begins an entry of one batch, with room for `bytes` bytes. The identity of the batch is filled in by [`seal`].
pub(crate) fn begin(bytes: usize) -> Vec<u8> {
    let mut entry = Vec::with_capacity(bytes.max(CAPACITY));
    entry.resize(HEADER, 0);
    entry[0] = VERSION;
    entry
}

/// Completes an entry of one batch.
pub(crate) fn seal(entry: &mut [u8], BatchId { origin, incarnation, row, number }: BatchId) {
    let length = (entry.len() - HEADER) as u32;
    let mut header = &mut entry[1..HEADER];
    header.put_u64_le(origin);
    header.put_u64_le(incarnation);
    header.put_u8(row);
    header.put_u64_le(number);
    header.put_u32_le(length);
}

/// Returns the batches of an entry, in order; `None` if its version is not known or it ends too early.
pub(crate) fn batches(entry: &[u8]) -> Option<SmallVec<[Batch; 1]>> {
    let (&version, mut rest) = entry.split_first()?;
    let mut batches = SmallVec::new();
    match version {
        1 | 2 => {
            rest.split_off(..16)?;
            batches.push(Batch { id: None, operations: entry.len() - rest.len()..entry.len() });
        }
        3 | VERSION => {
            while !rest.is_empty() {
                let (origin, incarnation) = (rest.try_get_u64_le().ok()?, rest.try_get_u64_le().ok()?);
                let row = if version == VERSION { rest.try_get_u8().ok()? } else { 0 };
                let id = Some(BatchId { origin, incarnation, row, number: rest.try_get_u64_le().ok()? });
                let length = rest.try_get_u32_le().ok()? as usize;
                let from = entry.len() - rest.len();
                rest.split_off(..length)?;
                batches.push(Batch { id, operations: from..from + length });
            }
        }
        _ => return None,
    }
    Some(batches)
}

/// Returns an entry with some of the batches of an entry.
pub(crate) fn only(entry: &[u8], batches: &[&Batch]) -> Bytes {
    let mut out = entry[..1].to_vec();
    for Batch { operations, .. } in batches {
        out.extend_from_slice(&entry[operations.start + 1 - HEADER..operations.end]);
    }
    out.into()
}

/// Splits a publish into pieces of one operation each, given by their queues and messages. Messages are split at 256 KiB,
/// so that only a single message can make a longer piece; queues are split at 16,384.
pub(crate) fn pieces<'p>(
    queues: &'p [QueueId],
    mut messages: &'p [Extent],
) -> impl Iterator<Item = (&'p [QueueId], &'p [Extent])> {
    let some = std::iter::from_fn(move || {
        let mut bytes = 0;
        let fitting = messages.iter().take_while(|message| {
            bytes += message.stored_bytes();
            bytes <= PIECE_BYTES
        });
        let (now, later) = messages.split_at_checked(fitting.count().max(1))?;
        messages = later;
        Some(now)
    });
    some.flat_map(|messages| queues.chunks(QUEUES_MAX).map(move |queues| (queues, messages)))
}

/// Returns about how many bytes one piece of a publish takes in an entry.
pub(crate) fn room_for(queues: &[QueueId], publish: &Publish<'_>) -> usize {
    let messages: usize = publish.messages.iter().map(Extent::stored_bytes).sum();
    NAMES_MAX + queues.len() * 8 + messages
}

/// Appends the operation for one piece of a publish, see [`pieces`].
pub(crate) fn enqueue(out: &mut Vec<u8>, queues: &[QueueId], publish: &Publish<'_>) {
    out.put_u8(ENQUEUE);
    out.put_u16_le(queues.len() as u16);
    queues.iter().for_each(|queue| out.put_u64_le(queue.0));
    out.put_u32_le(publish.messages.len() as u32);
    out.put_u64_le(publish.messages.iter().map(|message| message.body.len() as u64).sum());
    let length_at = out.len();
    out.put_u32_le(0);
    publish.store(out);
    let length = (out.len() - length_at - 4) as u32;
    out[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
}

/// Appends the operation that declares a queue.
pub(crate) fn declare(out: &mut Vec<u8>, epoch: u64, fact: &[u8]) {
    out.put_u8(DECLARE);
    out.put_u64_le(epoch);
    out.put_u32_le(fact.len() as u32);
    out.extend_from_slice(fact);
}

/// Appends the operation that deletes a queue.
pub(crate) fn delete(out: &mut Vec<u8>, epoch: u64, queue: QueueId) {
    out.put_u8(DELETE);
    out.put_u64_le(epoch);
    out.put_u64_le(queue.0);
}

/// Appends the operation that asks for a change of the definitions.
pub(crate) fn command(out: &mut Vec<u8>, number: u64, command: &[u8]) {
    out.put_u8(COMMAND);
    out.put_u64_le(number);
    out.put_u32_le(command.len() as u32);
    out.extend_from_slice(command);
}

/// Encodes the settlements and returns of a queue. Each call of `push` gets a function that appends to an entry either at most
/// 4,096 settle operations or one return operation of at most 8,192 messages. Adjacent settled ranges are joined.
pub(crate) fn changes(queue: QueueId, changes: &DeliveryChanges, mut push: impl FnMut(&dyn Fn(&mut Vec<u8>))) {
    let mut settled = Vec::with_capacity(changes.settled.len().min(RANGES_MAX));
    for &(first, count) in &changes.settled {
        if let Some((before, messages)) = settled.last_mut()
            && *before + *messages == first
        {
            *messages += count;
            continue;
        }
        if settled.len() == RANGES_MAX {
            push(&|out| settle(out, queue, &settled));
            settled.clear();
        }
        settled.push((first, count));
    }
    if !settled.is_empty() {
        push(&|out| settle(out, queue, &settled));
    }
    for (operation, messages) in [(RETURN, &changes.returned), (RELEASE, &changes.released)] {
        for of_epoch in messages.chunk_by(|one, next| one.epoch == next.epoch) {
            for messages in of_epoch.chunks(RETURNS_MAX) {
                push(&|out| give_back(out, operation, queue, messages));
            }
        }
    }
}

/// Encodes an operation of a queue that changes nothing: the release of no messages.
pub(crate) fn nothing(out: &mut Vec<u8>, queue: QueueId) {
    give_back(out, RELEASE, queue, &[]);
}

fn settle(out: &mut Vec<u8>, queue: QueueId, ranges: &[(u64, u64)]) {
    for (first, count) in ranges {
        out.push(SETTLE);
        [queue.0, *first, *count].into_iter().for_each(|value| out.put_u64_le(value));
    }
}

/// Encodes the return or the release of messages, which were all delivered in the same epoch.
fn give_back(out: &mut Vec<u8>, operation: u8, queue: QueueId, messages: &[DeliveryId]) {
    let stretches = || messages.chunk_by(|one, next| one.message.sequence + 1 == next.message.sequence);
    out.push(operation);
    out.put_u64_le(queue.0);
    out.put_u64_le(messages.first().map_or(0, |first| first.epoch));
    out.put_u32_le(stretches().count() as u32);
    for stretch in stretches() {
        out.put_u64_le(stretch[0].message.sequence);
        out.put_u32_le(stretch.len() as u32);
        stretch.iter().for_each(|id| out.put_u32_le(id.message.offset));
    }
}

/// Decodes a single operation and hands it to `each`. Returns `None` if it is not known or not whole.
pub(crate) fn operation(bytes: &Bytes, each: impl FnMut(Operation)) -> Option<()> {
    operations(bytes, &Batch { id: None, operations: 0..bytes.len() }, each)
}

/// Decodes a batch of an entry and hands its operations to `each`, in order. Returns `None` if an operation is not known
/// or is cut short; some operations may have been handed over then.
pub(crate) fn operations(entry: &Bytes, batch: &Batch, mut each: impl FnMut(Operation)) -> Option<()> {
    let mut rest = entry.get(batch.operations.clone())?;
    let end = batch.operations.end;
    while let Some((&number, after)) = rest.split_first() {
        rest = after;
        match number {
            ENQUEUE => {
                let queues = (0..rest.try_get_u16_le().ok()?)
                    .map(|_| rest.try_get_u64_le().ok().map(QueueId))
                    .collect::<Option<_>>()?;
                let (count, body_bytes, length) =
                    (rest.try_get_u32_le().ok()?, rest.try_get_u64_le().ok()?, rest.try_get_u32_le().ok()?);
                let at = (end - rest.len()) as u32;
                let run = rest.split_off(..length as usize)?;
                each(Operation::Enqueue { queues, count, body_bytes, at, run: entry.slice_ref(run) });
            }
            SETTLE => {
                let queue = QueueId(rest.try_get_u64_le().ok()?);
                each(Operation::Settle {
                    queue,
                    first: rest.try_get_u64_le().ok()?,
                    count: rest.try_get_u64_le().ok()?,
                });
            }
            RETURN_SINGLY => {
                let queue = QueueId(rest.try_get_u64_le().ok()?);
                let mut messages = Vec::new();
                for _ in 0..rest.try_get_u32_le().ok()? {
                    messages.push((rest.try_get_u64_le().ok()?, rest.try_get_u32_le().ok()?));
                }
                each(Operation::Return { queue, epoch: None, messages });
            }
            RETURN_STRETCHES | RETURN => {
                let queue = QueueId(rest.try_get_u64_le().ok()?);
                let epoch = if number == RETURN { Some(rest.try_get_u64_le().ok()?) } else { None };
                each(Operation::Return { queue, epoch, messages: stretches(&mut rest)? });
            }
            RELEASE => {
                let (queue, epoch) = (QueueId(rest.try_get_u64_le().ok()?), rest.try_get_u64_le().ok()?);
                each(Operation::Release { queue, epoch, messages: stretches(&mut rest)? });
            }
            DECLARE_EARLIER | DECLARE => {
                let epoch = if number == DECLARE { Some(rest.try_get_u64_le().ok()?) } else { None };
                let length = rest.try_get_u32_le().ok()? as usize;
                let fact = definitions::fact(&mut rest.split_off(..length)?)?;
                each(Operation::Declare { epoch, fact });
            }
            DELETE_EARLIER | DELETE => {
                let epoch = if number == DELETE { Some(rest.try_get_u64_le().ok()?) } else { None };
                each(Operation::Delete { epoch, queue: QueueId(rest.try_get_u64_le().ok()?) });
            }
            COMMAND => {
                let number = rest.try_get_u64_le().ok()?;
                let length = rest.try_get_u32_le().ok()? as usize;
                let command = entry.slice_ref(rest.split_off(..length)?);
                each(Operation::Command { number, command });
            }
            _ => return None,
        }
    }
    Some(())
}

fn stretches(rest: &mut &[u8]) -> Option<Vec<(u64, u32)>> {
    let mut messages = Vec::new();
    for _ in 0..rest.try_get_u32_le().ok()? {
        let (first, count) = (rest.try_get_u64_le().ok()?, rest.try_get_u32_le().ok()?);
        for at in 0..u64::from(count) {
            messages.push((first.wrapping_add(at), rest.try_get_u32_le().ok()?));
        }
    }
    Some(messages)
}

const VERSION: u8 = 4;
const HEADER: usize = 30;
/// The length of an entry without operations, in bytes.
pub(crate) const EMPTY: usize = HEADER;
const ENQUEUE: u8 = 1;
const SETTLE: u8 = 2;
const RETURN_SINGLY: u8 = 3;
const RETURN_STRETCHES: u8 = 8;
const RETURN: u8 = 9;
const DECLARE_EARLIER: u8 = 10;
const DELETE_EARLIER: u8 = 11;
const DECLARE: u8 = 12;
const DELETE: u8 = 13;
const COMMAND: u8 = 14;
const RELEASE: u8 = 15;
const CAPACITY: usize = 4 << 10;
/// The largest number of bytes that an entry and an operation begin with, including the names of exchange and routing key.
const NAMES_MAX: usize = 600;
/// The largest number of bytes of the messages of one operation, unless a single message is larger.
const PIECE_BYTES: usize = 256 << 10;
/// The largest number of queues of one operation: the number has 16 bits, and the identities take a part of the room that
/// an entry has beside its largest message.
const QUEUES_MAX: usize = 16 << 10;
/// The largest number of settle operations, one per range, that are appended in one call of `push`.
const RANGES_MAX: usize = 4 << 10;
/// The largest number of messages that one operation returns.
const RETURNS_MAX: usize = 8 << 10;

#[cfg(test)]
#[path = "entry_tests.rs"]
mod tests;
