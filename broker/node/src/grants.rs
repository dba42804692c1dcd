//! The messages between the node that leads a queue and the nodes with other consumers of it.
//!
//! Format, integers little-endian: `kind u8`, then 1 want `uid u64, epoch u64, received u64, allowed u64, consumers u32, exclusive
//! u8, again u8`; 2 grants `uid u64, epoch u64, from u64`, and stretches, each `first u64, messages u32, redelivered u8, offset u32
//! each`; 3 began `group u16, term u64`.
use bytes::{Buf, BufMut, Bytes};
use leveret_engine::catalog::QueueId;
use leveret_engine::queue::{Grant, MessageId, Want};
use leveret_replication::GroupId;

/// A message about consumers.
#[derive(Debug, PartialEq)]
pub(crate) enum GrantMessage {
    /// What the sender's consumers can take, for the leader of the queue.
    Want {
        queue: QueueId,
        want: Want,
        /// Set if grants may have been lost, so that those that have not arrived are to be sent again.
        again: bool,
    },
    /// Messages of the queue that the receiver may deliver.
    Grants {
        queue: QueueId,
        epoch: u64,
        /// The number of the first of the grants among those of the epoch.
        from: u64,
        grants: Vec<Grant>,
    },
    /// The sender has begun to lead a group.
    Began { group: GroupId, term: u64 },
}

impl GrantMessage {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        match self {
            Self::Want { queue, want: Want { epoch, received, allowed, consumers, exclusive }, again } => {
                out.put_u8(1);
                [queue.0, *epoch, *received, *allowed].into_iter().for_each(|number| out.put_u64_le(number));
                out.put_u32_le(*consumers);
                out.put_u8((*exclusive).into());
                out.put_u8((*again).into());
            }
            Self::Grants { queue, epoch, from, grants } => {
                out.put_u8(2);
                [queue.0, *epoch, *from].into_iter().for_each(|number| out.put_u64_le(number));
                let is_next = |one: &Grant, next: &Grant| {
                    one.id.sequence + 1 == next.id.sequence && one.redelivered == next.redelivered
                };
                for stretch in grants.chunk_by(is_next) {
                    out.put_u64_le(stretch[0].id.sequence);
                    out.put_u32_le(stretch.len() as u32);
                    out.put_u8(stretch[0].redelivered.into());
                    stretch.iter().for_each(|grant| out.put_u32_le(grant.id.offset));
                }
            }
            Self::Began { group, term } => {
                out.put_u8(3);
                out.put_u16_le(*group);
                out.put_u64_le(*term);
            }
        }
        out.into()
    }

    /// Decodes a message; `None` if it is not known or cut short.
    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let rest = &mut bytes;
        let kind = rest.try_get_u8().ok()?;
        if kind == 3 {
            return Some(Self::Began { group: rest.try_get_u16_le().ok()?, term: rest.try_get_u64_le().ok()? });
        }
        let (queue, epoch) = (QueueId(rest.try_get_u64_le().ok()?), rest.try_get_u64_le().ok()?);
        match kind {
            1 => {
                let (received, allowed) = (rest.try_get_u64_le().ok()?, rest.try_get_u64_le().ok()?);
                let (consumers, exclusive) = (rest.try_get_u32_le().ok()?, rest.try_get_u8().ok()? == 1);
                let again = rest.try_get_u8().ok()? == 1;
                Some(Self::Want { queue, want: Want { epoch, received, allowed, consumers, exclusive }, again })
            }
            2 => {
                let from = rest.try_get_u64_le().ok()?;
                let mut grants = Vec::new();
                while !rest.is_empty() {
                    let (first, count) = (rest.try_get_u64_le().ok()?, rest.try_get_u32_le().ok()?);
                    let redelivered = rest.try_get_u8().ok()? == 1;
                    for at in 0..u64::from(count) {
                        let offset = rest.try_get_u32_le().ok()?;
                        let id = MessageId { sequence: first.wrapping_add(at), offset };
                        grants.push(Grant { id, redelivered });
                    }
                }
                Some(Self::Grants { queue, epoch, from, grants })
            }
            _ => None,
        }
    }
}

/// The channel between nodes for these messages.
pub(crate) const CHANNEL: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_decoded_as_they_were_encoded() {
        let grant = |sequence, offset, redelivered| Grant { id: MessageId { sequence, offset }, redelivered };
        let grants = vec![grant(5, 1, false), grant(6, 90, false), grant(7, 3, true), grant(9, 4, true)];
        let want = Want { epoch: 3, received: 4, allowed: 5, consumers: 6, exclusive: true };
        for message in [
            GrantMessage::Want { queue: QueueId(8), want, again: true },
            GrantMessage::Grants { queue: QueueId(8), epoch: 3, from: 12, grants },
            GrantMessage::Grants { queue: QueueId(8), epoch: 3, from: 12, grants: Vec::new() },
            GrantMessage::Began { group: 12, term: 4 },
        ] {
            let bytes = message.encode();
            assert_eq!(GrantMessage::decode(&bytes).as_ref(), Some(&message));
            let cut = (0..bytes.len()).filter(|len| GrantMessage::decode(&bytes[..*len]).is_some());
            assert!(cut.count() <= 3, "a cut between stretches is not seen");
        }
        assert_eq!(GrantMessage::decode(b"\x04"), None);
    }
}
