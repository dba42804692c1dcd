//! The batches of operations that were applied to a shard, so that a batch which gets into the log twice is applied once.
//!
//! A node sends its operations to the leader of a shard in batches, which it numbers. If the leader changes before the node
//! sees a batch applied, it sends the batch again, because it cannot know whether the batch is in the log.
use bytes::{Buf, BufMut};
use std::collections::BTreeMap;

/// The identity of a batch of operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BatchId {
    /// The node that the operations come from.
    pub origin: u64,
    /// The number of the start of that node, which is random.
    pub incarnation: u64,
    /// The number of the batch: each batch that a start of a node sends to a shard has a higher one.
    pub number: u64,
}

/// The number of the last batch that was applied, for each node and its last starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppliedBatches(BTreeMap<u64, Vec<LastBatch>>);

/// The last batch of one start of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LastBatch {
    incarnation: u64,
    number: u64,
}

impl AppliedBatches {
    /// Notes that a batch is applied. Returns false if it was applied before: then it must not be applied again.
    #[must_use]
    pub fn note(&mut self, batch: BatchId) -> bool {
        let BatchId { origin, incarnation, number } = batch;
        let starts = self.0.entry(origin).or_default();
        let Some(known) = starts.iter_mut().find(|start| start.incarnation == incarnation) else {
            if starts.len() == STARTS_MAX {
                starts.remove(0);
            }
            starts.push(LastBatch { incarnation, number });
            return true;
        };
        let is_new = number > known.number;
        known.number = known.number.max(number);
        is_new
    }

    /// Appends the numbers, little-endian: the number of nodes `u32`, each as `origin u64, starts u8`, each of these as
    /// `incarnation u64, number u64`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32_le(self.0.len() as u32);
        for (origin, starts) in &self.0 {
            out.put_u64_le(*origin);
            out.put_u8(starts.len() as u8);
            for LastBatch { incarnation, number } in starts {
                out.put_u64_le(*incarnation);
                out.put_u64_le(*number);
            }
        }
    }

    /// Decodes what [`encode`](Self::encode) appended, and removes it from the beginning of `bytes`. Returns `None` if the
    /// bytes end too early.
    pub fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let mut all = Self::default();
        for _ in 0..bytes.try_get_u32_le().ok()? {
            let origin = bytes.try_get_u64_le().ok()?;
            let mut starts = Vec::new();
            for _ in 0..bytes.try_get_u8().ok()? {
                let incarnation = bytes.try_get_u64_le().ok()?;
                starts.push(LastBatch { incarnation, number: bytes.try_get_u64_le().ok()? });
            }
            all.0.insert(origin, starts);
        }
        Some(all)
    }
}

/// The number of starts of a node that are remembered: a batch of an earlier start cannot be on its way any more.
const STARTS_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(origin: u64, incarnation: u64, number: u64) -> BatchId {
        BatchId { origin, incarnation, number }
    }

    #[test]
    fn a_batch_is_new_once_for_each_start_of_each_node() {
        let mut applied = AppliedBatches::default();
        assert!(applied.note(batch(1, 7, 0)) && !applied.note(batch(1, 7, 0)));
        assert!(applied.note(batch(1, 7, 1)) && applied.note(batch(2, 7, 0)));
        assert!(!applied.note(batch(1, 7, 0)), "a batch that comes late is older than what was applied");
        assert!(applied.note(batch(1, 8, 0)), "the node was started again");
        assert!(!applied.note(batch(1, 7, 1)), "what it sent before is still known");
        (0..STARTS_MAX as u64).for_each(|start| assert!(applied.note(batch(1, 10 + start, 0))));
        assert_eq!(applied.0[&1].len(), STARTS_MAX);
    }

    #[test]
    fn the_numbers_are_decoded_as_they_were_encoded() {
        let mut applied = AppliedBatches::default();
        for (origin, incarnation, number) in [(1, 7, 3), (1, 8, 0), (u64::MAX, 1, 1 << 40)] {
            assert!(applied.note(batch(origin, incarnation, number)));
        }
        let mut bytes = Vec::new();
        applied.encode(&mut bytes);
        let mut rest = &bytes[..];
        assert_eq!(AppliedBatches::decode(&mut rest), Some(applied));
        assert!(rest.is_empty());
        assert!((0..bytes.len()).all(|len| AppliedBatches::decode(&mut &bytes[..len]).is_none()));
    }
}
