//! The messages of a queue: an index of runs in the order of their arrival, the returned messages, and the bytes of all
//! messages.
//!
//! Invariant: a run's `live` is the number of its messages that are not settled; a segment's `live` is the sum over its
//! runs. Each message is settled or returned once per delivery, by a caller that took it from the queue before.
use super::content::{Body, Extent, Publish};
use super::logged::{Durable, LoggedRun, ReadRequest, RunName};
use super::numbered::Numbered;
use super::run::{Cursor, MessageId, Run};
use super::segment::{SEGMENT_MAX, Segments};
use std::collections::BTreeMap;
use std::ops::Range;

#[derive(Default)]
pub(super) struct QueueState {
    /// The runs that have a live message.
    runs: Numbered<Run>,
    next_sequence: u64,
    segments: Segments,
    /// The returned messages by sequence, with their offsets. They are delivered before those that were never
    /// delivered.
    returned: BTreeMap<u64, u32>,
    /// The number of messages that are not settled.
    live: u64,
    /// The number of messages that were never delivered.
    fresh: u64,
    body_bytes: u64,
    /// True if there may be a cold run among those that were never delivered.
    pub(super) cold_ahead_maybe: bool,
    /// The parts that only a durable queue has.
    pub(super) durable: Option<Box<Durable>>,
}

impl QueueState {
    pub(super) fn enqueue(&mut self, publish: &Publish<'_>, now: u64) {
        let route_bytes = publish.route_bytes();
        let mut rest = publish.messages;
        while let Some(first) = rest.first() {
            let split = if let Body::Shared(body) = &first.body {
                self.segments.push_shared(route_bytes + first.stored_bytes_before_body(), body.clone());
                1
            } else {
                let (messages, bytes) = fitting(rest);
                self.segments.with_room(route_bytes + bytes);
                messages
            };
            let (now_in, later) = rest.split_at(split);
            self.append_run(publish, now_in, now);
            rest = later;
        }
    }

    /// Writes a run into the last segment, which has room for it.
    fn append_run(&mut self, publish: &Publish<'_>, messages: &[Extent], now: u64) {
        let segment = self.segments.last_number();
        let Some(tail) = self.segments.tail() else { return };
        let offset = tail.len() as u32;
        let body_bytes = publish.store_in_memory(messages, tail);
        self.body_bytes += body_bytes;
        let count = messages.len() as u32;
        self.segments.add_live(count);
        let first = self.next_sequence;
        self.runs.push(Run { first, count, live: count, segment, offset, arrived: now, body_bytes });
        self.next_sequence += u64::from(count);
        self.live += u64::from(count);
        self.fresh += u64::from(count);
    }

    /// Appends a run that is stored in the log.
    pub(super) fn enqueue_logged(&mut self, logged: &LoggedRun<'_>, now: u64) {
        let &LoggedRun { run, name, count, body_bytes, warm } = logged;
        if count == 0 {
            return;
        }
        self.cold_ahead_maybe = !warm || self.fresh > 0 && self.cold_ahead_maybe;
        let segment = self.segments.push_logged(warm.then(|| run.clone()), name, count);
        let first = self.next_sequence;
        self.append_logged(Run { first, count, live: count, segment, offset: 0, arrived: now, body_bytes });
        self.fresh += u64::from(count);
        if let Some(durable) = &mut self.durable {
            durable.digest = durable.digest.wrapping_add(Durable::range_digest(first, u64::from(count)));
        }
    }

    fn append_logged(&mut self, run: Run) {
        self.next_sequence = run.end();
        self.live += u64::from(run.live);
        self.body_bytes += if run.live > 0 { run.body_bytes } else { 0 };
        self.runs.push(run);
    }

    /// Applies a logged settlement: settles every message of the range that is still live.
    pub(super) fn settle_logged(&mut self, first: u64, count: u64) {
        let range = first.max(self.oldest())..first.saturating_add(count).min(self.next_sequence);
        let Some(mut durable) = self.durable.take() else { return };
        if range.start < range.end {
            for gap in durable.settled.gaps(range.clone()) {
                let count = gap.end - gap.start;
                durable.digest = durable.digest.wrapping_sub(Durable::range_digest(gap.start, count));
                self.settle(gap.start, count);
            }
            durable.settled.insert(range.clone());
            durable.settled.remove_below(self.oldest());
            if !durable.counts.is_empty() {
                let gone: Vec<u64> = durable.counts.range(range).map(|(&sequence, _)| sequence).collect();
                for sequence in gone {
                    durable.counts.remove(&sequence);
                }
            }
        }
        self.durable = Some(durable);
    }

    /// Counts messages that are about to be settled and were not delivered since this node leads: a consumer of before has
    /// settled them.
    pub(super) fn settle_undelivered(&mut self, first: u64, count: u64, cursor: &Cursor) {
        if !self.returned.is_empty() {
            self.returned.extract_if(first..first.saturating_add(count), |_, _| true).for_each(drop);
        }
        let Some(next) = self.position(cursor) else { return };
        let range = first.max(next).max(self.oldest())..first.saturating_add(count).min(self.next_sequence);
        if range.start < range.end
            && let Some(durable) = &self.durable
        {
            let undelivered: u64 = durable.settled.gaps(range).into_iter().map(|gap| gap.end - gap.start).sum();
            self.fresh -= undelivered;
        }
    }

    /// Applies a logged return: the message is ready again if it was out here (`is_out`).
    pub(super) fn return_logged(&mut self, sequence: u64, offset: u32, is_out: bool) {
        if !self.is_live(sequence) {
            return;
        }
        if let Some(durable) = &mut self.durable {
            *durable.counts.entry(sequence).or_default() += 1;
        }
        if is_out {
            self.give_back(MessageId { sequence, offset });
        }
    }

    /// Returns whether a message is in the queue and not settled.
    fn is_live(&self, sequence: u64) -> bool {
        sequence >= self.oldest() && sequence < self.next_sequence && !self.is_settled(sequence)
    }

    /// Returns the first sequence that may be live.
    fn oldest(&self) -> u64 {
        self.runs.front().map_or(self.next_sequence, |(_, run)| run.first)
    }

    pub(super) fn is_settled(&self, sequence: u64) -> bool {
        self.durable.as_ref().is_some_and(|durable| durable.settled.contains(sequence))
    }

    /// Counts all live messages as never delivered, as a new leader has to. Returns the sequence that the next message
    /// will have.
    pub(super) fn begin_lead(&mut self) -> u64 {
        self.fresh = self.live;
        self.cold_ahead_maybe = true;
        self.returned.clear();
        self.next_sequence
    }

    pub(super) fn fresh(&self) -> u64 {
        self.fresh
    }

    pub(super) fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    pub(super) fn set_next_sequence(&mut self, next: u64) {
        self.next_sequence = next;
    }

    pub(super) fn runs(&self) -> &Numbered<Run> {
        &self.runs
    }

    /// Appends a run that was read from a snapshot, unless it has no live messages.
    pub(super) fn restore_run(&mut self, mut run: Run, name: RunName) {
        if run.live > 0 {
            run.segment = self.segments.push_logged(None, name, run.live);
            self.append_logged(run);
        }
    }

    /// Returns an empty state whose runs and segments get numbers that those of this state never had, so that a read which
    /// is under way concerns none of them.
    pub(super) fn successor(&self) -> Self {
        Self { runs: self.runs.successor(), segments: self.segments.successor(), ..Self::default() }
    }

    /// Becomes `state`. Messages that were granted by the leader and not delivered yet are still so.
    pub(super) fn succeed(&mut self, state: Self) {
        let returned = std::mem::take(&mut self.returned);
        *self = Self { returned, cold_ahead_maybe: true, ..state };
    }

    pub(super) fn segments_mut(&mut self) -> &mut Segments {
        &mut self.segments
    }

    /// Returns cold runs from `segment` on, until they have `bytes_max` bytes or more.
    pub(super) fn cold_from_segment(&self, segment: u64, bytes_max: u64) -> ReadRequest {
        let mut found = ReadRequest::new();
        let mut bytes = 0;
        for number in segment..=self.segments.last_number() {
            let Some(name) = self.segments.cold(number) else { break };
            found.push((number, name));
            bytes += u64::from(name.len);
            if bytes >= bytes_max {
                break;
            }
        }
        found
    }

    /// Returns cold runs of `bytes_max` bytes or a little more, if the first one begins less than `ahead` bytes behind run
    /// `number`. Also returns the number of the run up to which all runs from `number` on are warm.
    pub(super) fn cold_ahead(&mut self, number: u64, ahead: u64, bytes_max: u64) -> (ReadRequest, u64) {
        let mut warm = 0;
        for (at, run) in self.runs.starting_at(number) {
            if self.segments.cold(run.segment).is_some() {
                return (self.cold_from_segment(run.segment, bytes_max), at);
            }
            warm += self.segments.name(run.segment).map_or(0, |name| u64::from(name.len));
            if warm >= ahead {
                return (ReadRequest::new(), at);
            }
        }
        self.cold_ahead_maybe = false;
        (ReadRequest::new(), number)
    }

    /// Returns the number that the next run will have.
    pub(super) fn runs_end(&self) -> u64 {
        self.runs.end()
    }

    /// Returns the number of the oldest run.
    #[inline]
    pub(super) fn runs_first(&self) -> u64 {
        self.runs.front().map_or(self.runs.end(), |(number, _)| number)
    }

    /// Returns the first run with the number `number` or a higher one.
    pub(super) fn run(&self, number: u64) -> Option<&Run> {
        self.run_from(number).map(|(_, run)| run)
    }

    /// Returns the first run with the number `number` or a higher one, and its number.
    #[inline]
    pub(super) fn run_from(&self, number: u64) -> Option<(u64, &Run)> {
        self.runs.at_or_after(number)
    }

    pub(super) fn segments(&self) -> &Segments {
        &self.segments
    }

    /// Counts a message that is delivered for the first time.
    #[inline]
    pub(super) fn take_fresh(&mut self) {
        self.fresh -= 1;
    }

    /// Returns the first returned message, and its run.
    pub(super) fn first_returned(&self) -> Option<(MessageId, Run)> {
        let (&sequence, &offset) = self.returned.first_key_value()?;
        let (_, run) = self.holding(sequence)?; // none: it was granted by the leader, and has not arrived here yet
        Some((MessageId { sequence, offset }, *run))
    }

    /// Removes the first returned message: it is delivered again.
    pub(super) fn take_returned(&mut self) {
        self.returned.pop_first();
    }

    /// Returns the number of returned messages.
    pub(super) fn returned(&self) -> usize {
        self.returned.len()
    }

    /// Removes all returned messages: sequence and offset of each.
    pub(super) fn take_all_returned(&mut self) -> BTreeMap<u64, u32> {
        std::mem::take(&mut self.returned)
    }

    pub(super) fn forget_returned(&mut self) {
        self.returned.clear();
    }

    /// Returns the number of messages that are not settled.
    pub(super) fn live(&self) -> u64 {
        self.live
    }

    /// Returns whether a message is not settled, or has not arrived yet.
    pub(super) fn may_be_live(&self, sequence: u64) -> bool {
        sequence >= self.next_sequence || self.is_live(sequence)
    }

    pub(super) fn has_returned(&self) -> bool {
        !self.returned.is_empty()
    }

    /// Returns a delivered message to the queue: it is ready again, at its old place in the order.
    pub(super) fn give_back(&mut self, id: MessageId) {
        self.returned.insert(id.sequence, id.offset);
    }

    /// Returns the run that contains a live message, and the number of the run.
    fn holding(&self, sequence: u64) -> Option<(u64, &Run)> {
        let first = self.runs.front()?;
        if sequence < first.1.end() { Some(first) } else { self.runs.first_where(|run| sequence < run.end()) }
    }

    /// Settles `count` messages from `sequence` on, all of which were delivered. A run is removed together with its last
    /// live message.
    pub(super) fn settle(&mut self, mut sequence: u64, mut count: u64) {
        let mut next = self.holding(sequence).map(|(number, _)| number);
        let mut over = Over::default();
        while count > 0 {
            let Some(number) = next else { break };
            let Some(run) = self.runs.get_mut(number) else { break };
            let part = count.min(run.end() - sequence);
            run.live -= part as u32;
            let Run { live, segment, body_bytes, .. } = *run;
            if live == 0 {
                self.body_bytes -= body_bytes;
            }
            let segment_is_over = self.segments.settle(segment, part as u32);
            match live {
                0 => over.extend(number, segment_is_over.then_some(segment)),
                _ => self.forget(std::mem::take(&mut over)),
            }
            self.live -= part;
            sequence += part;
            count -= part;
            if count > 0 {
                next = self.runs.at_or_after(number + 1).map(|(number, _)| number);
            }
        }
        self.forget(over);
    }

    fn forget(&mut self, over: Over) {
        self.runs.remove_range(over.runs, drop);
        self.segments.free(over.segments);
    }

    /// Settles ready messages whose sequence is below `before`, about `most` runs of them: returned messages, and
    /// messages from `cursor` on, over which the cursor is moved. Returns how many messages were settled, and whether no
    /// such message is left.
    pub(super) fn purge_some(&mut self, cursor: &mut Cursor, before: u64, mut most: usize) -> (u64, bool) {
        let live = self.live;
        while let Some((&sequence, _)) = self.returned.first_key_value().filter(|(first, _)| **first < before) {
            if most == 0 {
                return (live - self.live, false);
            }
            most -= 1;
            self.returned.pop_first();
            self.settle(sequence, 1);
        }
        let runs = self.runs.starting_at(cursor.run).take_while(|(_, run)| run.first < before);
        let last = runs.take(most).last().map(|(number, run)| (number, run.end()));
        if let (Some(from), Some((number, end))) = (self.position(cursor), last) {
            self.fresh -= end - from;
            *cursor = Cursor::at(number + 1);
            self.settle(from, end - from);
        }
        (live - self.live, self.run(cursor.run).is_none_or(|run| run.first >= before))
    }

    /// Moves the cursor past all messages that were never delivered, if the sequence of the first of them is below
    /// `before`. Returns the first sequence and the number of sequences passed; some of these messages may be settled
    /// already.
    pub(super) fn take_fresh_before(&mut self, before: u64, cursor: &mut Cursor) -> Option<(u64, u64)> {
        let from = self.position(cursor).filter(|from| *from < before)?;
        *cursor = Cursor::at(self.runs_end());
        self.fresh = 0;
        Some((from, self.next_sequence - from))
    }

    /// Removes up to `most` returned messages whose sequence is below `before`. Returns them as ranges (first sequence,
    /// number of messages), and whether no such message is left.
    pub(super) fn take_returned_before(&mut self, before: u64, most: usize) -> (Vec<(u64, u64)>, bool) {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for _ in 0..most {
            let Some(first) = self.returned.first_entry().filter(|first| *first.key() < before) else {
                return (ranges, true);
            };
            let sequence = *first.key();
            first.remove();
            match ranges.last_mut() {
                Some((start, count)) if *start + *count == sequence => *count += 1,
                _ => ranges.push((sequence, 1)),
            }
        }
        (ranges, self.returned.first_key_value().is_none_or(|(sequence, _)| *sequence >= before))
    }

    /// Returns the sequence at the cursor, or `None` if there is no run at the cursor or after it.
    pub(super) fn position(&self, cursor: &Cursor) -> Option<u64> {
        let (number, run) = self.run_from(cursor.run)?;
        Some(run.first + if number == cursor.run { u64::from(cursor.index) } else { 0 })
    }

    pub(super) fn ready(&self) -> u64 {
        self.fresh + self.returned.len() as u64
    }

    pub(super) fn unacked(&self) -> u64 {
        self.live - self.ready()
    }

    /// Returns the bytes of the bodies of all runs that have a live message.
    pub(super) fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        let settled = self.durable.as_ref().map_or(0, |durable| durable.settled.len());
        let nodes = self.returned.len() * RETURNED_BYTES + settled * SETTLED_BYTES;
        self.segments.bytes() + (self.runs.memory_bytes() + self.segments.index_bytes() + nodes) as u64
    }

    pub(super) fn trim(&mut self) {
        if self.live == 0 {
            self.segments.trim();
            self.runs.trim();
        }
    }
}

/// Neighbouring runs without live messages, and the segments that are freed together with these runs.
#[derive(Default)]
struct Over {
    runs: Range<u64>,
    segments: Range<u64>,
}

impl Over {
    /// Adds the next run, and its segment if that is freed too. Segments hold the messages in their order, so no segment
    /// that stays lies between two that are freed.
    fn extend(&mut self, run: u64, segment: Option<u64>) {
        if self.runs.is_empty() {
            self.runs.start = run;
        }
        self.runs.end = run + 1;
        if let Some(segment) = segment {
            if self.segments.is_empty() {
                self.segments.start = segment;
            }
            self.segments.end = segment + 1;
        }
    }
}

/// Returns how many of `messages` (at least one) go into one segment together, and the bytes that they take.
fn fitting(messages: &[Extent]) -> (usize, usize) {
    let mut bytes = 0;
    for (at, message) in messages.iter().enumerate() {
        if matches!(message.body, Body::Shared(_)) {
            return (at, bytes);
        }
        let more = message.stored_bytes();
        if at > 0 && bytes + more > SEGMENT_MAX / 2 {
            return (at, bytes);
        }
        bytes += more;
    }
    (messages.len(), bytes)
}

/// Bytes that a returned message takes in addition: an entry of a B-tree.
const RETURNED_BYTES: usize = 24;
/// Bytes that a range of settled messages between live ones takes: an entry of a B-tree.
const SETTLED_BYTES: usize = 28;
