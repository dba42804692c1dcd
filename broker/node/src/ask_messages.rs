//! The messages between a node that is asked about a queue and the node that leads it.
//!
//! Format, integers little-endian: an ask is `1 u8, number u64, uid u64, applied u64`, and 1 look; 2 purge; 3 delete `if unused
//! u8, if empty u8`; 4 get `no ack u8`; 5 claim `exclusive u8, received u64`. An answer is `2 u8, number u64`, and 1 depth `ready
//! u64, unacked u64, bytes u64, consumers u64`; 2 done `messages u64`; 3 message `sequence u64, offset u32, epoch u64,
//! redelivered u8, ready after u64, length u32, run` (a run of one message in stored form); 4 nothing; 5 refused `kind u8, text`;
//! 6 elsewhere.
use crate::deleted::DeleteOnly;
use bytes::{Buf, BufMut, Bytes};
use leveret_engine::catalog::QueueId;
use leveret_engine::queue::{DeliveryId, Depth, MessageId, StoredRun};
use leveret_model::refusal::{Refusal, RefusalKind};

/// A request about a queue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum QueueAsk {
    /// How many messages and consumers has it?
    Look,
    /// Remove its ready messages.
    Purge,
    /// Delete it.
    Delete(DeleteOnly),
    /// Hand over its next message.
    Get { no_ack: bool },
    /// Consumers of the asking node are about to be subscribed; it has received this many grants.
    Claim { exclusive: bool, received: u64 },
}

/// The answer to a request.
#[derive(Debug, PartialEq)]
pub(crate) enum QueueAnswer {
    Depth(Depth),
    /// It is done; the number of messages that were removed.
    Done(u64),
    Message(GotMessage),
    /// There is no message.
    Nothing,
    Refused(Refusal),
    /// The node does not lead the queue.
    Elsewhere,
}

/// A message that the leader handed over.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GotMessage {
    pub(crate) id: DeliveryId,
    pub(crate) redelivered: bool,
    pub(crate) ready_after: u64,
    /// The message, as a run of its own in stored form.
    pub(crate) run: Bytes,
}

/// A request of another node.
#[derive(Debug, PartialEq)]
pub(crate) struct Asked {
    pub(crate) number: u64,
    pub(crate) queue: QueueId,
    /// The last entry of the queue's group that the asking node has applied.
    pub(crate) applied: u64,
    pub(crate) ask: QueueAsk,
}

pub(crate) fn encode_ask(number: u64, queue: QueueId, applied: u64, ask: QueueAsk) -> Bytes {
    let mut out = vec![1];
    [number, queue.0, applied].into_iter().for_each(|number| out.put_u64_le(number));
    match ask {
        QueueAsk::Look => out.push(1),
        QueueAsk::Purge => out.push(2),
        QueueAsk::Delete(DeleteOnly { if_unused, if_empty }) => out.extend([3, if_unused.into(), if_empty.into()]),
        QueueAsk::Get { no_ack } => out.extend([4, no_ack.into()]),
        QueueAsk::Claim { exclusive, received } => {
            out.extend([5, exclusive.into()]);
            out.put_u64_le(received);
        }
    }
    out.into()
}

pub(crate) fn decode_ask(rest: &mut &[u8]) -> Option<Asked> {
    let (number, queue) = (rest.try_get_u64_le().ok()?, QueueId(rest.try_get_u64_le().ok()?));
    let applied = rest.try_get_u64_le().ok()?;
    let kind = rest.try_get_u8().ok()?;
    let mut flag = || Some(rest.try_get_u8().ok()? == 1);
    let ask = match kind {
        1 => QueueAsk::Look,
        2 => QueueAsk::Purge,
        3 => QueueAsk::Delete(DeleteOnly { if_unused: flag()?, if_empty: flag()? }),
        4 => QueueAsk::Get { no_ack: flag()? },
        5 => QueueAsk::Claim { exclusive: flag()?, received: rest.try_get_u64_le().ok()? },
        _ => return None,
    };
    Some(Asked { number, queue, applied, ask })
}

pub(crate) fn encode_answer(number: u64, answer: &QueueAnswer) -> Bytes {
    let mut out = vec![2];
    out.put_u64_le(number);
    match answer {
        QueueAnswer::Depth(Depth { ready, unacked, body_bytes, consumers }) => {
            out.push(1);
            [*ready, *unacked, *body_bytes, *consumers as u64].into_iter().for_each(|number| out.put_u64_le(number));
        }
        QueueAnswer::Done(messages) => {
            out.push(2);
            out.put_u64_le(*messages);
        }
        QueueAnswer::Message(GotMessage { id, redelivered, ready_after, run }) => {
            out.push(3);
            out.put_u64_le(id.message.sequence);
            out.put_u32_le(id.message.offset);
            out.put_u64_le(id.epoch);
            out.push((*redelivered).into());
            out.put_u64_le(*ready_after);
            out.put_u32_le(run.len() as u32);
            out.extend_from_slice(run);
        }
        QueueAnswer::Nothing => out.push(4),
        QueueAnswer::Refused(Refusal { kind, text }) => {
            let kind = KINDS.iter().position(|known| known == kind).unwrap_or(0) as u8;
            out.extend([5, kind]);
            out.extend_from_slice(text.as_bytes());
        }
        QueueAnswer::Elsewhere => out.push(6),
    }
    out.into()
}

/// Decodes an answer and its number, without the byte before them.
pub(crate) fn decode_answer(mut bytes: Bytes) -> Option<(u64, QueueAnswer)> {
    let number = bytes.try_get_u64_le().ok()?;
    let answer = match bytes.try_get_u8().ok()? {
        1 => QueueAnswer::Depth(Depth {
            ready: bytes.try_get_u64_le().ok()?,
            unacked: bytes.try_get_u64_le().ok()?,
            body_bytes: bytes.try_get_u64_le().ok()?,
            consumers: bytes.try_get_u64_le().ok()? as usize,
        }),
        2 => QueueAnswer::Done(bytes.try_get_u64_le().ok()?),
        3 => {
            let message = MessageId { sequence: bytes.try_get_u64_le().ok()?, offset: bytes.try_get_u32_le().ok()? };
            let id = DeliveryId { message, epoch: bytes.try_get_u64_le().ok()? };
            let (redelivered, ready_after) = (bytes.try_get_u8().ok()? == 1, bytes.try_get_u64_le().ok()?);
            let length = bytes.try_get_u32_le().ok()? as usize;
            let run = (bytes.len() == length).then_some(bytes)?;
            StoredRun::read(&run).filter(|run| run.messages.len() == 1)?;
            QueueAnswer::Message(GotMessage { id, redelivered, ready_after, run })
        }
        4 => QueueAnswer::Nothing,
        5 => {
            let kind = *KINDS.get(usize::from(bytes.try_get_u8().ok()?))?;
            QueueAnswer::Refused(Refusal::new(kind, String::from_utf8(bytes.into()).ok()?))
        }
        6 => QueueAnswer::Elsewhere,
        _ => return None,
    };
    Some((number, answer))
}

/// The kinds of refusals by the numbers that they have between nodes.
const KINDS: [RefusalKind; 7] = [
    RefusalKind::PreconditionFailed,
    RefusalKind::AccessRefused,
    RefusalKind::NotFound,
    RefusalKind::ResourceLocked,
    RefusalKind::CommandInvalid,
    RefusalKind::NotAllowed,
    RefusalKind::Stopping,
];

/// The channel between nodes for these messages.
pub(crate) const CHANNEL: u8 = 4;
