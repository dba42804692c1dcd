//! The table of a group's log entries: the place of each entry in the journal, and the bytes of the entries that are not
//! applied yet or, in a group with peers, that a peer may still have to be sent.
//!
//! The `chain` of an entry is a checksum of it and all entries before it: the CRC32 of its bytes, continued from the
//! chain of the previous entry. If two logs have the same chain at an index, they hold the same entries up to there.
use crate::durable::DurablePart;
use crate::types::{LogId, log_id};
use bytes::Bytes;
use leveret_journal::{Head, KEPT_FROM, RecordBody, RecordPlace};
use std::collections::VecDeque;

// Kinds of records that a group writes to the journal.

/// An entry without content. For records of entries, `note` is the chain.
pub(crate) const BLANK: u8 = 1;
/// An entry with a command.
pub(crate) const NORMAL: u8 = 2;
/// An entry that sets the members of the group.
pub(crate) const MEMBERSHIP: u8 = 3;
/// A truncation: the entries from `index` on were removed from the log.
pub(crate) const TRUNCATE: u8 = 4;
/// A vote in `term` for the node `index`; `note` is 1 if the vote is committed.
pub(crate) const VOTE: u8 = KEPT_FROM;
/// A purge: the entries up to `index` were removed because a snapshot covers them. `term` and `note` are the term and
/// the chain of entry `index`.
pub(crate) const PURGED: u8 = KEPT_FROM + 1;
/// The installation of a snapshot that came from a peer and covers the entries up to `index`. `term` and `note` are the
/// term and the chain of entry `index`. Written before the snapshot, so that the log continues the right chain also if
/// the process ends before the purge that follows is written.
pub(crate) const INSTALLED: u8 = KEPT_FROM + 2;

#[derive(Default)]
pub(crate) struct LogTable {
    /// The entries that are not purged, in the order of the log.
    slots: VecDeque<Slot>,
    /// Index of the first slot.
    first: u64,
    /// The last entry that was purged.
    pub(crate) purged: Option<LogId>,
    /// Chain of the last entry that was purged.
    pub(crate) purged_chain: u32,
    /// The chain of the last entry that a snapshot from a peer covers, and that entry.
    installed: Option<(LogId, u32)>,
    /// Index and bytes of the newest entries: of those that were appended since the start and are not applied yet, and of
    /// as many before them as `hot_max` allows.
    hot: VecDeque<(u64, Bytes)>,
    /// Bytes in `hot`.
    hot_bytes: usize,
    /// The most bytes of applied entries that stay in memory.
    hot_max: usize,
    /// The index after the last entry that was applied.
    applied: u64,
    pub(crate) durable: DurablePart,
    /// The gap before the first slot, while the journal is read. A later record may say that the missing entries were
    /// purged.
    hole: Option<Hole>,
}

/// An entry in the log: the place of its bytes in the journal, its term, its chain, and the kind of its record.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    pub(crate) place: RecordPlace,
    pub(crate) term: u64,
    pub(crate) chain: u32,
    pub(crate) kind: u8,
}

/// An entry of the table, as [`LogTable::find`] returns it.
pub(crate) struct TableEntry {
    pub(crate) index: u64,
    pub(crate) slot: Slot,
    /// Chain of the entry before.
    pub(crate) chain_before: u32,
    /// The bytes of the entry, if they are in memory.
    pub(crate) bytes: Option<Bytes>,
}

/// A gap in the log: entry `found` follows directly on the entry before `expected`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) expected: u64,
    pub(crate) found: u64,
}

/// Returns the chain of an entry, calculated from the chain of the entry before and the checksum of its bytes.
pub(crate) fn chain(before: u32, body: &RecordBody) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(before);
    hasher.combine(&crc32fast::Hasher::new_with_initial_len(body.crc, body.bytes.len() as u64));
    hasher.finalize()
}

impl LogTable {
    /// Returns an empty table of a log that was purged up to entry `purged`.
    pub(crate) fn new(purged: Option<LogId>, purged_chain: u32) -> Self {
        let first = purged.as_ref().map_or(0, |id| id.index + 1);
        Self { first, purged, purged_chain, ..Self::default() }
    }

    /// Returns the index of the oldest entry or, if there is none, the one that it would have.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// Returns the index that the next appended entry gets.
    pub(crate) fn next(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// Returns the id of the newest entry, even if it is purged.
    pub(crate) fn last(&self) -> Option<LogId> {
        match self.slots.back() {
            Some(slot) => Some(log_id(slot.term, self.next() - 1)),
            None => self.purged,
        }
    }

    fn last_chain(&self) -> u32 {
        self.slots.back().map_or(self.purged_chain, |slot| slot.chain)
    }

    /// Returns the chain of an entry with this body that is appended to the log.
    pub(crate) fn next_chain(&self, body: &RecordBody) -> u32 {
        chain(self.last_chain(), body)
    }

    /// Appends an entry. `index` has to be [`next`](Self::next), or is the index of the first entry of an empty log.
    pub(crate) fn push(&mut self, index: u64, slot: Slot, bytes: Bytes) {
        if self.slots.is_empty() {
            self.first = index;
        }
        self.hot_bytes += bytes.len();
        self.hot.push_back((self.next(), bytes));
        self.slots.push_back(slot);
    }

    /// Adds a record that was found in the journal at a start. The records have to come in the order of the journal.
    pub(crate) fn recovered(&mut self, head: Head, place: RecordPlace) {
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
            INSTALLED => self.installed(log_id(head.term, head.index), head.note),
            _ if head.index < self.first => {} // purged, and its segment is not reused yet
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

    /// Returns the gap in the log, if there is one. Only valid once all records of the journal were added.
    pub(crate) fn hole(&self) -> Option<Hole> {
        self.hole
    }

    /// Removes the entries from index `from` on.
    pub(crate) fn truncate(&mut self, from: u64) {
        self.slots.truncate(from.saturating_sub(self.first) as usize);
        self.durable.truncate(from);
        while let Some((_, bytes)) = self.hot.pop_back_if(|(index, _)| *index >= from) {
            self.hot_bytes -= bytes.len();
        }
    }

    /// Notes the chain of the last entry that a snapshot from a peer covers.
    pub(crate) fn installed(&mut self, last: LogId, chain: u32) {
        self.installed = Some((last, chain));
    }

    /// Returns the chain of the entry `id`: one in the log, the last one that was purged, or the last one that a snapshot
    /// from a peer covers. `None` if it is none of these, or another entry has its index.
    pub(crate) fn chain_of(&self, id: LogId) -> Option<u32> {
        if let Some(slot) = id.index.checked_sub(self.first).and_then(|at| self.slots.get(at as usize)) {
            return (log_id(slot.term, id.index) == id).then_some(slot.chain);
        }
        let installed = self.installed.filter(|(last, _)| *last == id).map(|(_, chain)| chain);
        installed.or_else(|| (self.purged == Some(id)).then_some(self.purged_chain))
    }

    /// Returns the chain of the last purged entry once the entries up to `upto` are purged. openraft purges no entry
    /// whose chain is not known; if it did, the chain would not match that of the leader, and the group would stop.
    pub(crate) fn chain_after_purge(&self, upto: LogId) -> u32 {
        self.chain_of(upto).unwrap_or(self.purged_chain)
    }

    /// Removes the entries up to and including `upto`.
    pub(crate) fn purge(&mut self, upto: LogId) {
        let chain = self.chain_after_purge(upto);
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
        self.purged_chain = chain;
        self.durable.reach(upto.index + 1);
        self.cool(upto.index, 0);
    }

    /// Notes that the entries up to `index` are applied, and drops the oldest of their bytes from memory.
    pub(crate) fn applied(&mut self, index: u64) {
        self.applied = index + 1;
        self.cool(index, self.hot_max);
    }

    /// Sets how many bytes of applied entries may stay in memory.
    pub(crate) fn keep_hot(&mut self, bytes: usize) {
        self.hot_max = bytes;
    }

    /// Drops the oldest bytes of entries up to `index` until at most `keep` bytes are in memory.
    fn cool(&mut self, index: u64, keep: usize) {
        while self.hot_bytes > keep || keep == 0 {
            let Some((_, bytes)) = self.hot.pop_front_if(|(hot, _)| *hot <= index) else { break };
            self.hot_bytes -= bytes.len();
        }
    }

    /// Returns entry `index`, or `None` if it is not in the log.
    pub(crate) fn find(&self, index: u64) -> Option<TableEntry> {
        let at = index.checked_sub(self.first)? as usize;
        let slot = *self.slots.get(at)?;
        let chain_before = at.checked_sub(1).map_or(self.purged_chain, |before| self.slots[before].chain);
        let hot = self.hot.front().and_then(|(first, _)| self.hot.get(index.checked_sub(*first)? as usize));
        Some(TableEntry { index, slot, chain_before, bytes: hot.map(|(_, bytes)| bytes.clone()) })
    }

    /// Returns whether the bytes of entry `index` and of all later ones are in memory.
    pub(crate) fn is_hot(&self, index: u64) -> bool {
        self.hot.front().is_some_and(|(first, _)| *first <= index)
    }

    /// Returns the number of the oldest segment of the journal that holds an entry, or `None` if the log is empty.
    pub(crate) fn first_segment(&self) -> Option<u64> {
        Some(self.slots.front()?.place.segment)
    }

    /// Returns the index of the last entry that is in a segment of the journal with a number below `segment`.
    pub(crate) fn last_below(&self, segment: u64) -> Option<u64> {
        let before = self.slots.partition_point(|slot| slot.place.segment < segment) as u64;
        (before > 0).then(|| self.first + before - 1)
    }

    /// Returns the index of the last entry that was applied since the start, if any was.
    #[cfg(feature = "simulated")]
    pub(crate) fn applied_upto(&self) -> Option<u64> {
        self.applied.checked_sub(1)
    }

    /// Returns the number of entries in the log that are applied.
    pub(crate) fn applied_len(&self) -> u64 {
        self.applied.saturating_sub(self.first)
    }

    /// Returns the number of entries in the log.
    pub(crate) fn len(&self) -> u64 {
        self.slots.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_from_the_checksum_equals_the_chain_from_the_bytes() {
        let mut before = 7;
        for len in [0, 1, 3, 17, 4096, 100_001] {
            let bytes: Vec<u8> = (0..len).map(|at| (at * 31) as u8).collect();
            let mut hasher = crc32fast::Hasher::new_with_initial(before);
            hasher.update(&bytes);
            let expected = hasher.finalize();
            assert_eq!(chain(before, &RecordBody::from(Bytes::from(bytes))), expected, "{len} bytes");
            before = expected;
        }
    }
}
