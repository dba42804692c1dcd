//! The batches of operations that were applied to a group's log, so that a batch which gets into the log twice is applied
//! once.
//!
//! A node sends its operations to the leader of a group in batches, which it numbers. If the leader changes before the node
//! sees a batch applied, it sends the batch again, because it cannot know whether the batch is in the log. A batch that
//! comes before the one with the number below it is not applied either: it will be sent again, too.
use bytes::{Buf, BufMut};
use std::collections::BTreeMap;

/// The identity of a batch of operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BatchId {
    /// The node that the operations come from.
    pub origin: u64,
    /// The number of the start of that node, which is random.
    pub incarnation: u64,
    /// The row of the batch, below [`ROWS`]; each row is numbered by itself.
    pub row: u8,
    /// The number of the batch: the batches of a row of a start of a node are numbered from 0 without gaps.
    pub number: u64,
}

/// The number of the batch that comes next, for each row of the last starts of each node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppliedBatches(BTreeMap<u64, Vec<NextBatches>>);

/// The next batches of one start of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NextBatches {
    incarnation: u64,
    next: [u64; ROWS],
}

impl AppliedBatches {
    /// Notes that a batch is applied. Returns false if it was applied before or one before it was not: then it must not be
    /// applied.
    #[must_use]
    pub fn note(&mut self, batch: BatchId) -> bool {
        let BatchId { origin, incarnation, row, number } = batch;
        #[cfg(any(test, feature = "mutants"))]
        if crate::mutants::RETRY_APPLIED.load(std::sync::atomic::Ordering::Relaxed) && number < self.next(batch) {
            return true;
        }
        if usize::from(row) >= ROWS || self.next(batch) != number {
            return false;
        }
        let starts = self.0.entry(origin).or_default();
        let known = starts.iter().position(|start| start.incarnation == incarnation).unwrap_or_else(|| {
            if starts.len() == STARTS_MAX {
                starts.remove(0);
            }
            starts.push(NextBatches { incarnation, next: [0; ROWS] });
            starts.len() - 1
        });
        starts[known].next[usize::from(row)] = number + 1;
        true
    }

    /// Returns the number that the next batch of the row of `of` has to have; the number of `of` is not looked at.
    #[must_use]
    pub fn next(&self, of: BatchId) -> u64 {
        let starts = self.0.get(&of.origin);
        let known = starts.into_iter().flatten().find(|start| start.incarnation == of.incarnation);
        known.and_then(|start| start.next.get(usize::from(of.row)).copied()).unwrap_or(0)
    }

    /// Appends the numbers, little-endian: the number of nodes `u32`, each as `origin u64, starts u8`, each of these as
    /// `incarnation u64`, and the number of the next batch of each row, `u64` each.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32_le(self.0.len() as u32);
        for (origin, starts) in &self.0 {
            out.put_u64_le(*origin);
            out.put_u8(starts.len() as u8);
            for NextBatches { incarnation, next } in starts {
                out.put_u64_le(*incarnation);
                next.iter().for_each(|next| out.put_u64_le(*next));
            }
        }
    }

    /// Decodes what [`encode`](Self::encode) appended, and removes it from the beginning of `bytes`. Returns `None` if the
    /// bytes end too early.
    pub fn decode(bytes: &mut &[u8]) -> Option<Self> {
        Self::decode_with(bytes, |bytes| {
            let mut next = [0; ROWS];
            for next in &mut next {
                *next = bytes.try_get_u64_le().ok()?;
            }
            Some(next)
        })
    }

    /// Does the same for the form without rows: it has the number of the last batch that was applied.
    pub fn decode_without_rows(bytes: &mut &[u8]) -> Option<Self> {
        Self::decode_with(bytes, |bytes| {
            let mut next = [0; ROWS];
            next[0] = bytes.try_get_u64_le().ok()?.checked_add(1)?;
            Some(next)
        })
    }

    fn decode_with(bytes: &mut &[u8], next: impl Fn(&mut &[u8]) -> Option<[u64; ROWS]>) -> Option<Self> {
        let mut all = Self::default();
        for _ in 0..bytes.try_get_u32_le().ok()? {
            let origin = bytes.try_get_u64_le().ok()?;
            let mut starts = Vec::new();
            for _ in 0..bytes.try_get_u8().ok()? {
                let incarnation = bytes.try_get_u64_le().ok()?;
                starts.push(NextBatches { incarnation, next: next(bytes)? });
            }
            all.0.insert(origin, starts);
        }
        Some(all)
    }
}

/// The number of rows of batches that a start of a node sends to a group.
pub const ROWS: usize = 2;
/// The number of starts of a node that are remembered: a batch of an earlier start cannot be on its way any more.
const STARTS_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(origin: u64, incarnation: u64, row: u8, number: u64) -> BatchId {
        BatchId { origin, incarnation, row, number }
    }

    #[test]
    fn a_batch_is_new_once_in_each_row_of_each_start_of_each_node() {
        let mut applied = AppliedBatches::default();
        assert!(applied.note(batch(1, 7, 0, 0)) && !applied.note(batch(1, 7, 0, 0)));
        assert!(applied.note(batch(1, 7, 0, 1)) && applied.note(batch(2, 7, 0, 0)) && applied.note(batch(1, 7, 1, 0)));
        assert!(!applied.note(batch(1, 7, 0, 0)), "a batch that comes late is older than what was applied");
        assert!(!applied.note(batch(1, 7, 0, 3)), "the one before it is not there yet");
        assert!(!applied.note(batch(1, 9, 1, 1)) && !applied.note(batch(1, 9, 2, 0)));
        assert!(applied.note(batch(1, 8, 0, 0)), "the node was started again");
        assert!(!applied.note(batch(1, 7, 0, 1)), "what it sent before is still known");
        assert_eq!([0, 1, 2].map(|row| applied.next(batch(1, 7, row, 9))), [2, 1, 0]);
        (0..STARTS_MAX as u64).for_each(|start| assert!(applied.note(batch(1, 10 + start, 0, 0))));
        assert_eq!(applied.0[&1].len(), STARTS_MAX);
    }

    #[test]
    fn the_numbers_are_decoded_as_they_were_encoded() {
        let mut applied = AppliedBatches::default();
        for (origin, incarnation, row) in [(1, 7, 0), (1, 7, 1), (1, 8, 0), (u64::MAX, 1, 1)] {
            assert!(applied.note(batch(origin, incarnation, row, 0)));
        }
        let mut bytes = Vec::new();
        applied.encode(&mut bytes);
        let mut rest = &bytes[..];
        assert_eq!(AppliedBatches::decode(&mut rest), Some(applied));
        assert!(rest.is_empty());
        assert!((0..bytes.len()).all(|len| AppliedBatches::decode(&mut &bytes[..len]).is_none()));
        let earlier = b"\x01\0\0\0\x05\0\0\0\0\0\0\0\x01\x07\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0";
        let read = AppliedBatches::decode_without_rows(&mut &earlier[..]).unwrap();
        assert_eq!([0, 1].map(|row| read.next(batch(5, 7, row, 0))), [4, 0]);
    }
}
