//! The entries of one group: where each lies in the journal, and the bytes of those that are not applied yet.
//!
//! `chain` ties an entry to all before it: crc32 over the chain of the entry before and the bytes. Two logs with one chain
//! hold the same entries.
use crate::types::{LogId, log_id};
use bytes::Bytes;
use leveret_journal::{Body, Head, KEPT_FROM, Place};
use std::collections::VecDeque;

/// What a record of the journal is to its group.
pub(crate) const BLANK: u8 = 1;
pub(crate) const NORMAL: u8 = 2;
pub(crate) const MEMBERSHIP: u8 = 3;
/// Entries behind `index` were taken back.
pub(crate) const TRUNCATE: u8 = 4;
/// The vote: `term`, for node `index`; `note` is 1 once it is committed.
pub(crate) const VOTE: u8 = KEPT_FROM;
/// Entries up to `index`, of `term`, are gone: a snapshot has them. `note` is the chain there.
pub(crate) const PURGED: u8 = KEPT_FROM + 1;

#[derive(Default)]
pub(crate) struct LogTable {
    slots: VecDeque<Slot>,
    /// Index of the first slot.
    first: u64,
    pub(crate) purged: Option<LogId>,
    /// Chain of the entry purged last.
    pub(crate) purged_chain: u32,
    /// Bytes of entries that were appended and not applied.
    hot: VecDeque<(u64, Bytes)>,
    /// The index after the entry that was applied last.
    applied: u64,
    /// While the journal is read: entries that are missing before the first slot. A record further on may say that they were
    /// purged.
    hole: Option<Hole>,
}

#[derive(Clone, Copy)]
pub(crate) struct Slot {
    pub(crate) place: Place,
    pub(crate) term: u64,
    pub(crate) chain: u32,
    pub(crate) kind: u8,
}

/// An entry that is there, and its bytes if they are in memory.
pub(crate) struct Found {
    pub(crate) index: u64,
    pub(crate) slot: Slot,
    pub(crate) chain_before: u32,
    pub(crate) bytes: Option<Bytes>,
}

/// A record that does not follow the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) expected: u64,
    pub(crate) found: u64,
}

/// The chain of an entry, by the checksum of its bytes.
pub(crate) fn chain(before: u32, body: &Body) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(before);
    hasher.combine(&crc32fast::Hasher::new_with_initial_len(body.crc, body.bytes.len() as u64));
    hasher.finalize()
}

impl LogTable {
    /// A table whose entries up to `purged` are gone.
    pub(crate) fn new(purged: Option<LogId>, purged_chain: u32) -> Self {
        let first = purged.as_ref().map_or(0, |id| id.index + 1);
        Self { first, purged, purged_chain, ..Self::default() }
    }

    /// Index of the oldest entry.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// Index of the entry to come.
    pub(crate) fn next(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    pub(crate) fn last(&self) -> Option<LogId> {
        match self.slots.back() {
            Some(slot) => Some(log_id(slot.term, self.next() - 1)),
            None => self.purged,
        }
    }

    fn last_chain(&self) -> u32 {
        self.slots.back().map_or(self.purged_chain, |slot| slot.chain)
    }

    /// The chain that an entry with these bytes has, put behind the last one.
    pub(crate) fn next_chain(&self, body: &Body) -> u32 {
        chain(self.last_chain(), body)
    }

    /// Appends entry `index`: the next one, or the first of an empty log.
    pub(crate) fn push(&mut self, index: u64, slot: Slot, bytes: Bytes) {
        if self.slots.is_empty() {
            self.first = index;
        }
        self.hot.push_back((self.next(), bytes));
        self.slots.push_back(slot);
    }

    /// A record found in the journal at a start.
    pub(crate) fn recovered(&mut self, head: Head, place: Place) {
        match head.kind {
            TRUNCATE => self.truncate(head.index),
            PURGED => {
                if self.hole.is_some_and(|hole| head.index + 1 >= hole.found) {
                    self.hole = None;
                }
                if self.purged.is_none_or(|purged| purged.index <= head.index) {
                    self.purge(log_id(head.term, head.index));
                    self.purged_chain = head.note;
                }
            }
            _ if head.index < self.first => {} // purged, in a segment that is not used again yet
            _ => {
                if head.index > self.next() {
                    self.hole = Some(Hole { expected: self.next(), found: head.index });
                    self.slots.clear();
                    self.first = head.index;
                }
                self.truncate(head.index);
                self.slots.push_back(Slot { place, term: head.term, chain: head.note, kind: head.kind });
            }
        }
    }

    /// Entries that are missing, when the whole journal was read.
    pub(crate) fn hole(&self) -> Option<Hole> {
        self.hole
    }

    /// Drops the entries from `from` on.
    pub(crate) fn truncate(&mut self, from: u64) {
        self.slots.truncate(from.saturating_sub(self.first) as usize);
        while self.hot.back().is_some_and(|(index, _)| *index >= from) {
            self.hot.pop_back();
        }
    }

    /// The chain at entry `index`.
    pub(crate) fn chain_at(&self, index: u64) -> u32 {
        let at = index.checked_sub(self.first).map(|at| at as usize);
        at.and_then(|at| self.slots.get(at)).map_or(self.purged_chain, |slot| slot.chain)
    }

    /// Drops the entries up to `upto`.
    pub(crate) fn purge(&mut self, upto: LogId) {
        while self.first <= upto.index {
            match self.slots.pop_front() {
                Some(slot) => self.purged_chain = slot.chain,
                None => {
                    self.first = upto.index;
                }
            }
            self.first += 1;
        }
        self.purged = Some(upto);
        while self.hot.front().is_some_and(|(index, _)| *index <= upto.index) {
            self.hot.pop_front();
        }
    }

    /// Entries up to `index` are applied: their bytes are read from the journal if anyone asks.
    pub(crate) fn applied(&mut self, index: u64) {
        self.applied = index + 1;
        while self.hot.front().is_some_and(|(hot, _)| *hot <= index) {
            self.hot.pop_front();
        }
    }

    pub(crate) fn find(&self, index: u64) -> Option<Found> {
        let at = index.checked_sub(self.first)? as usize;
        let slot = *self.slots.get(at)?;
        let chain_before = at.checked_sub(1).map_or(self.purged_chain, |before| self.slots[before].chain);
        let hot = self.hot.front().and_then(|(first, _)| self.hot.get(index.checked_sub(*first)? as usize));
        Some(Found { index, slot, chain_before, bytes: hot.map(|(_, bytes)| bytes.clone()) })
    }

    /// The oldest segment of the journal that an entry lies in.
    pub(crate) fn first_segment(&self) -> Option<u64> {
        Some(self.slots.front()?.place.segment)
    }

    /// How many of the entries are applied.
    pub(crate) fn applied_len(&self) -> u64 {
        self.applied.saturating_sub(self.first)
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> u64 {
        self.slots.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_follows_from_the_checksum_as_from_the_bytes() {
        let mut before = 7;
        for len in [0, 1, 3, 17, 4096, 100_001] {
            let bytes: Vec<u8> = (0..len).map(|at| (at * 31) as u8).collect();
            let mut hasher = crc32fast::Hasher::new_with_initial(before);
            hasher.update(&bytes);
            let expected = hasher.finalize();
            assert_eq!(chain(before, &Body::from(Bytes::from(bytes))), expected, "{len} bytes");
            before = expected;
        }
    }
}
