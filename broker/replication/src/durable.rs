//! Which entries of a group's log are durable on this node. openraft may pass an entry to the state machine as soon as a
//! majority has it, which does not have to include this node's own disk. The state must not be ahead of the disk, because
//! a snapshot of it would cover entries that a crash can still lose.
use std::collections::VecDeque;

/// The durable part of a log. Appends are numbered; the journal makes them durable in the order of their numbers.
#[derive(Default)]
pub(crate) struct DurablePart {
    /// The index after the last entry that is durable.
    next: u64,
    /// Number of the newest append.
    newest: u64,
    /// The appends that are not durable yet.
    unsynced: VecDeque<Append>,
}

struct Append {
    number: u64,
    /// The index after its last entry that is still in the log.
    next: u64,
}

impl DurablePart {
    /// Returns whether entry `index` is durable.
    pub(crate) fn has(&self, index: u64) -> bool {
        index < self.next
    }

    /// Notes that all entries before `next` are durable: they were found at a start, or a snapshot covers them.
    pub(crate) fn reach(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    /// Notes an append whose last entry has an index before `next`, and returns its number.
    pub(crate) fn append(&mut self, next: u64) -> u64 {
        self.newest += 1;
        self.unsynced.push_back(Append { number: self.newest, next });
        self.newest
    }

    /// Notes that the append `number` and all before it are durable.
    pub(crate) fn synced(&mut self, number: u64) {
        while let Some(append) = self.unsynced.pop_front_if(|append| append.number <= number) {
            // A truncated log goes on at a smaller index. What was appended there has a larger number.
            self.next = append.next;
        }
    }

    /// Notes that the entries from index `from` on were removed.
    pub(crate) fn truncate(&mut self, from: u64) {
        self.next = self.next.min(from);
        self.unsynced.iter_mut().for_each(|append| append.next = append.next.min(from));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_in_the_place_of_a_truncated_one_is_durable_once_its_own_append_is() {
        let mut part = DurablePart::default();
        part.reach(3);
        let (first, second) = (part.append(5), part.append(9));
        part.synced(first);
        assert!(part.has(4) && !part.has(5));
        part.truncate(4);
        assert!(part.has(3) && !part.has(4));
        let third = part.append(6);
        part.synced(second);
        assert!(part.has(3) && !part.has(4), "the second append was removed");
        part.synced(third);
        assert!(part.has(5) && !part.has(6));
    }
}
