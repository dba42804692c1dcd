//! Entries of a shard's log: operations on its queues, as many as gathered while the entry before was on its way.
//!
//! Format, integers little-endian: `version u8 = 1, incarnation u64, number u64`, then operations, each beginning with its
//! number: 1 enqueue `queues u16, uid u64 each, messages u32, body bytes u64, length u32, run` (the run in the stored form of
//! engine's segments); 2 settle `uid u64, first u64, messages u64`; 3 return `uid u64, n u32, (sequence u64, offset u32)...`.
//! 4 expire, 5 drop (overflow), 6 move (dead letter) and 7 tick are kept for what they say. `incarnation` and `number` tell
//! a node its own entries, whose publishers wait, from those that it finds in its log.
use crate::queue::QueueId;
use bytes::Bytes;
use leveret_engine::queue::{Body, Extent, Facts, Publish};

/// One operation, as it is read.
pub(crate) enum Operation {
    /// A run for queues.
    Enqueue {
        /// Their identities.
        queues: Vec<QueueId>,
        count: u32,
        body_bytes: u64,
        /// Offset of the run in the entry.
        at: u32,
        run: Bytes,
    },
    Settle {
        queue: QueueId,
        first: u64,
        count: u64,
    },
    Return {
        queue: QueueId,
        sequence: u64,
        offset: u32,
    },
}

/// An entry being put together; `header` is written when it is handed in.
pub(crate) fn begin() -> Vec<u8> {
    let mut entry = Vec::with_capacity(CAPACITY);
    entry.resize(HEADER, 0);
    entry[0] = VERSION;
    entry
}

pub(crate) fn seal(entry: &mut [u8], incarnation: u64, number: u64) {
    entry[1..9].copy_from_slice(&incarnation.to_le_bytes());
    entry[9..17].copy_from_slice(&number.to_le_bytes());
}

/// Incarnation and number.
pub(crate) fn header(entry: &[u8]) -> Option<(u64, u64)> {
    let (&version, mut rest) = entry.split_first()?;
    (version == VERSION).then_some(())?;
    Some((long(&mut rest)?, long(&mut rest)?))
}

pub(crate) fn enqueue(out: &mut Vec<u8>, queues: &[QueueId], publish: &Publish<'_>) {
    out.push(ENQUEUE);
    out.extend_from_slice(&(queues.len() as u16).to_le_bytes());
    queues.iter().for_each(|queue| out.extend_from_slice(&queue.0.to_le_bytes()));
    out.extend_from_slice(&(publish.messages.len() as u32).to_le_bytes());
    let body_bytes: u64 = publish.messages.iter().map(|message| message.body.len() as u64).sum();
    out.extend_from_slice(&body_bytes.to_le_bytes());
    let length_at = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&[publish.exchange.len() as u8, publish.routing_key.len() as u8]);
    out.extend_from_slice(publish.exchange);
    out.extend_from_slice(publish.routing_key);
    for message in publish.messages {
        message_bytes(out, publish, message);
    }
    let length = (out.len() - length_at - 4) as u32;
    out[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
}

fn message_bytes(out: &mut Vec<u8>, publish: &Publish<'_>, message: &Extent) {
    let mut head = [0; 8];
    head[..4].copy_from_slice(&message.properties_len.to_le_bytes());
    head[4..].copy_from_slice(&(message.body.len() as u32).to_le_bytes());
    out.extend_from_slice(&head);
    let at = message.properties_at as usize;
    out.extend_from_slice(&publish.bytes[at..at + message.properties_len as usize]);
    match &message.body {
        Body::Inline { at, len } => out.extend_from_slice(&publish.bytes[*at as usize..(*at + *len) as usize]),
        Body::Shared(body) => out.extend_from_slice(body),
    }
}

pub(crate) fn facts(out: &mut Vec<u8>, queue: QueueId, facts: &Facts) {
    for (first, count) in &facts.settled {
        out.push(SETTLE);
        [queue.0, *first, *count].iter().for_each(|long| out.extend_from_slice(&long.to_le_bytes()));
    }
    if !facts.returned.is_empty() {
        out.push(RETURN);
        out.extend_from_slice(&queue.0.to_le_bytes());
        out.extend_from_slice(&(facts.returned.len() as u32).to_le_bytes());
        for (sequence, offset) in &facts.returned {
            out.extend_from_slice(&sequence.to_le_bytes());
            out.extend_from_slice(&offset.to_le_bytes());
        }
    }
}

/// Hands the operations of an entry to `each`, in order. None if it is not an entry of this version: then some may have
/// been handed over.
pub(crate) fn operations(entry: &Bytes, mut each: impl FnMut(Operation)) -> Option<()> {
    header(entry)?;
    let mut rest = &entry[HEADER..];
    while let Some((&number, after)) = rest.split_first() {
        rest = after;
        match number {
            ENQUEUE => {
                let queues = (0..short(&mut rest)?).map(|_| long(&mut rest).map(QueueId)).collect::<Option<_>>()?;
                let (count, body_bytes, length) = (word(&mut rest)?, long(&mut rest)?, word(&mut rest)?);
                let at = (entry.len() - rest.len()) as u32;
                let run = rest.split_off(..length as usize)?;
                each(Operation::Enqueue { queues, count, body_bytes, at, run: entry.slice_ref(run) });
            }
            SETTLE => {
                let queue = QueueId(long(&mut rest)?);
                each(Operation::Settle { queue, first: long(&mut rest)?, count: long(&mut rest)? });
            }
            RETURN => {
                let queue = QueueId(long(&mut rest)?);
                for _ in 0..word(&mut rest)? {
                    each(Operation::Return { queue, sequence: long(&mut rest)?, offset: word(&mut rest)? });
                }
            }
            _ => return None,
        }
    }
    Some(())
}

/// Whether an operation, of which these are the first bytes, is a publish.
pub(crate) fn is_publish(operation: &[u8]) -> bool {
    operation.first() == Some(&ENQUEUE)
}

/// Takes what was settled out of an entry, and appends it to another one, in order. Returns what is left.
pub(crate) fn split(entry: &[u8], settled: &mut Vec<u8>) -> Vec<u8> {
    let (header, mut rest) = entry.split_at(HEADER);
    let mut left = header.to_vec();
    while !rest.is_empty() {
        let (operation, after) = rest.split_at(operation_len(rest).unwrap_or(rest.len()).min(rest.len()));
        if is_publish(operation) { &mut left } else { &mut *settled }.extend_from_slice(operation);
        rest = after;
    }
    left
}

/// Length of the operation that `bytes` begin with.
fn operation_len(bytes: &[u8]) -> Option<usize> {
    let (&number, mut rest) = bytes.split_first()?;
    match number {
        ENQUEUE => {
            let queues = usize::from(short(&mut rest)?);
            rest.split_off(..queues * 8 + 12)?;
            let length = word(&mut rest)? as usize;
            Some(bytes.len() - rest.len() + length)
        }
        SETTLE => Some(25),
        RETURN => {
            long(&mut rest)?;
            Some(13 + word(&mut rest)? as usize * 12)
        }
        _ => None,
    }
}

pub(crate) fn long(bytes: &mut &[u8]) -> Option<u64> {
    let (value, rest) = bytes.split_first_chunk::<8>()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*value))
}

pub(crate) fn word(bytes: &mut &[u8]) -> Option<u32> {
    let (value, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    Some(u32::from_le_bytes(*value))
}

fn short(bytes: &mut &[u8]) -> Option<u16> {
    let (value, rest) = bytes.split_first_chunk::<2>()?;
    *bytes = rest;
    Some(u16::from_le_bytes(*value))
}

const VERSION: u8 = 1;
const HEADER: usize = 17;
/// Length of an entry without operations in bytes.
pub(crate) const EMPTY: usize = HEADER;
const ENQUEUE: u8 = 1;
const SETTLE: u8 = 2;
const RETURN: u8 = 3;
const CAPACITY: usize = 4 << 10;
