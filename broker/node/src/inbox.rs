//! The batches that other nodes have sent to this one, which leads their group, and that wait for room in the log.
//!
//! Batches of a row of a node are taken in the order of their numbers alone. What is missing is sent again by the node,
//! and what comes twice is dropped.
use crate::entry::{self, Row};
use crate::outbox::{ASK_AGAIN, Next};
use bytes::Bytes;
use leveret_engine::shard::BatchId;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tokio::time::Instant;

/// The batches of other nodes for one group.
#[derive(Default)]
pub(crate) struct Inbox(Mutex<InboxState>);

#[derive(Default)]
struct InboxState {
    /// The term in which the rest holds.
    term: u64,
    /// The number of the next batch of each row.
    next: BTreeMap<RowOf, u64>,
    /// The rows from which a batch was refused, until one is taken again.
    refused: BTreeSet<RowOf>,
    /// The entries to hand in, in order.
    waiting: VecDeque<Bytes>,
    /// Entries without publishes that overtake `waiting`, for which there is no room.
    relief: VecDeque<Bytes>,
    /// The length of all entries, in bytes.
    bytes: usize,
}

/// A row of the batches of a start of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct RowOf {
    origin: u64,
    incarnation: u64,
    row: u8,
}

impl Inbox {
    /// Takes an entry that the node `from` has sent. `term` is the one in which this node leads the group, and `applied`
    /// returns the number of the batch of a row that is applied next. Returns false if the node has to be told to send
    /// again.
    pub(crate) fn receive(&self, term: Option<u64>, from: u64, entry: Bytes, applied: impl Fn(BatchId) -> u64) -> bool {
        let Some(term) = term else { return false };
        let mut locked = self.0.lock();
        let state = &mut *locked;
        if state.term != term {
            *state = InboxState { term, ..InboxState::default() };
        }
        let Some(batches) = entry::batches(&entry) else {
            tracing::warn!(from, "an entry of another node is not known");
            return true;
        };
        let (mut taken, mut is_refused) = (Vec::new(), false);
        for batch in &batches {
            let Some(id) = batch.id.filter(|id| id.origin == from) else { continue };
            let row = RowOf { origin: id.origin, incarnation: id.incarnation, row: id.row };
            let next = state.next.entry(row).or_insert_with(|| applied(id));
            if id.number > *next {
                // After `forget`, batches that were in the log already have been applied since, and do not come again.
                *next = applied(id).max(*next);
            }
            if id.number > *next || state.bytes > BYTES_MAX {
                is_refused |= state.refused.insert(row);
            } else if id.number == *next || retries_are_taken() {
                *next = (*next).max(id.number + 1);
                state.refused.remove(&row);
                taken.push(batch);
            }
        }
        if taken.len() == batches.len() {
            state.push(entry);
        } else if !taken.is_empty() {
            state.push(entry::only(&entry, &taken));
        }
        !is_refused
    }

    /// Forgets what was taken: the log did not take an entry, so its nodes have to send it again, with what follows. What is
    /// in the log already comes twice then, and is applied once.
    pub(crate) fn forget(&self) {
        *self.0.lock() = InboxState::default();
    }

    /// Returns the next entry to hand in. `has_room` is called with its length in bytes and whether it is free of
    /// publishes; if it returns true, the room is reserved.
    pub(crate) fn next(&self, term: u64, has_room: impl Fn(usize, bool) -> bool) -> Next {
        let mut state = self.0.lock();
        if state.term != term || state.waiting.is_empty() && state.relief.is_empty() {
            return Next::Nothing;
        }
        if state.relief.is_empty()
            && let Some(first) = state.waiting.front()
        {
            if has_room(first.len(), !has(first, Row::Publishes)) {
                return state.waiting.pop_front().map_or(Next::Nothing, |entry| state.hand_in(entry));
            }
            state.hold();
        }
        match state.relief.front().is_some_and(|first| has_room(first.len(), true)) {
            true => state.relief.pop_front().map_or(Next::Nothing, |entry| state.hand_in(entry)),
            false => Next::Later(Instant::now() + ASK_AGAIN),
        }
    }
}

impl InboxState {
    fn push(&mut self, entry: Bytes) {
        self.bytes += entry.len();
        self.waiting.push_back(entry);
    }

    fn hand_in(&mut self, entry: Bytes) -> Next {
        self.bytes = self.bytes.saturating_sub(entry.len());
        Next::Entry(entry)
    }

    /// Moves everything but publishes from `waiting` to `relief`.
    fn hold(&mut self) {
        for entry in std::mem::take(&mut self.waiting) {
            let (mut publishes, mut others) = (Vec::new(), Vec::new());
            let batches = entry::batches(&entry).unwrap_or_default();
            for batch in &batches {
                let is_publish = batch.id.map(Row::of) == Some(Row::Publishes);
                if is_publish { &mut publishes } else { &mut others }.push(batch);
            }
            if !others.is_empty() {
                self.relief.push_back(entry::only(&entry, &others));
            }
            match (publishes.is_empty(), others.is_empty()) {
                (true, _) => {}
                (false, true) => self.waiting.push_back(entry),
                (false, false) => self.waiting.push_back(entry::only(&entry, &publishes)),
            }
        }
    }
}

/// Returns whether batches are taken that were taken before: never.
fn retries_are_taken() -> bool {
    #[cfg(any(test, feature = "mutants"))]
    if crate::mutants::RETRY_TAKEN.load(std::sync::atomic::Ordering::Relaxed) {
        return true;
    }
    false
}

/// Returns whether an entry has a batch of this row.
fn has(entry: &Bytes, row: Row) -> bool {
    let batches = entry::batches(entry).unwrap_or_default();
    batches.iter().any(|batch| batch.id.map(Row::of) == Some(row))
}

/// While entries of more bytes than this wait, further ones are refused. The nodes have fewer on their way.
const BYTES_MAX: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use leveret_engine::catalog::NodeRun;

    const OF: NodeRun = NodeRun { node: 5, incarnation: 6 };

    fn batch(row: Row, number: u64) -> Vec<u8> {
        let mut bytes = entry::begin(0);
        entry::command(&mut bytes, number, b"");
        entry::seal(&mut bytes, entry::batch_of(OF, row, number));
        bytes
    }

    fn entry(publishes: Option<u64>, others: Option<u64>) -> Bytes {
        let rows = [(Row::Publishes, publishes), (Row::Others, others)];
        let all: Vec<Vec<u8>> = rows.into_iter().filter_map(|(row, number)| Some(batch(row, number?))).collect();
        all.iter().enumerate().flat_map(|(at, bytes)| bytes[usize::from(at > 0)..].to_vec()).collect()
    }

    /// Returns what is handed in, as numbers with a `p` before those of publishes.
    fn handed_in(inbox: &Inbox, has_room: impl Fn(usize, bool) -> bool) -> String {
        let mut said = Vec::new();
        while let Next::Entry(entry) = inbox.next(9, &has_room) {
            let batches = entry::batches(&entry).unwrap();
            let name = |id: BatchId| format!("{}{}", if id.row == 0 { "p" } else { "" }, id.number);
            said.push(batches.iter().map(|batch| name(batch.id.unwrap())).collect::<Vec<_>>().join("+"));
        }
        said.join(" ")
    }

    #[tokio::test]
    async fn batches_are_taken_in_order_and_once() {
        let inbox = Inbox::default();
        let receive = |term, from, entry| inbox.receive(term, from, entry, |id| if id.row == 0 { 3 } else { 0 });
        assert!(!receive(None, 5, entry(Some(3), None)), "this node does not lead");
        assert!(receive(Some(9), 5, entry(Some(3), Some(0))));
        assert!(receive(Some(9), 5, entry(Some(3), Some(1))), "one of them came before");
        assert!(!receive(Some(9), 5, entry(Some(5), None)), "one is missing");
        assert!(receive(Some(9), 5, entry(Some(6), None)), "and that is said once");
        assert!(receive(Some(9), 5, entry(Some(4), None)));
        assert!(!receive(Some(9), 5, entry(Some(6), None)), "it is missing again");
        assert!(receive(Some(9), 4, entry(Some(5), None)), "a node does not speak for another");
        assert!(receive(Some(9), 5, Bytes::from_static(b"\x09no entry")));
        assert_eq!(handed_in(&inbox, |_, _| true), "p3+0 1 p4");
        assert!(receive(Some(9), 5, entry(Some(5), None)));
        inbox.forget();
        assert!(receive(Some(9), 5, entry(Some(3), None)), "the log did not take what was taken before");
        assert_eq!(handed_in(&inbox, |_, _| true), "p3");
        assert!(receive(Some(9), 5, entry(Some(4), None)));
        assert!(receive(Some(10), 5, entry(Some(3), None)), "a term begins with what is applied");
        assert_eq!(handed_in(&inbox, |_, _| true), "", "what came in an earlier term is gone");
    }

    #[tokio::test]
    async fn what_was_in_the_log_when_the_rest_was_forgotten_is_not_waited_for() {
        let inbox = Inbox::default();
        assert!(inbox.receive(Some(9), 5, entry(Some(0), None), |_| 0));
        inbox.forget();
        assert!(inbox.receive(Some(9), 5, entry(Some(0), None), |_| 0), "it is in the log and not applied yet");
        assert!(!inbox.receive(Some(9), 5, entry(Some(3), None), |_| 2), "one is missing");
        assert!(inbox.receive(Some(9), 5, entry(Some(2), None), |_| 2), "0 and 1 are applied by now");
        assert_eq!(handed_in(&inbox, |_, _| true), "p0 p2");
    }

    #[tokio::test]
    async fn others_overtake_publishes_that_have_no_room() {
        let inbox = Inbox::default();
        let receive = |entry| assert!(inbox.receive(Some(9), 5, entry, |_| 0));
        receive(entry(Some(0), Some(0)));
        receive(entry(Some(1), None));
        receive(entry(None, Some(1)));
        assert_eq!(handed_in(&inbox, |_, _| false), "");
        assert_eq!(handed_in(&inbox, |_, control| control), "0 1");
        receive(entry(Some(2), Some(2)));
        assert_eq!(handed_in(&inbox, |_, control| control), "2");
        assert_eq!(handed_in(&inbox, |_, _| true), "p0 p1 p2");
        let full = Bytes::from([entry(Some(3), None), Bytes::from(vec![0; 0])].concat());
        inbox.0.lock().bytes = BYTES_MAX + 1;
        assert!(!inbox.receive(Some(9), 5, full, |_| 0), "it is full");
    }
}
