//! The part of a queue that only durable queues use: changes are logged before they take effect.
//!
//! Deliveries that consumers take, acknowledge or return become [`DeliveryChanges`], which the caller logs. `QueueState`
//! changes when a logged change is applied through one of the `apply_...` functions, in the same way on every replica.
//! Contents are stored in the log: each run has its [`RunName`] there, and its bytes are in memory only while it is warm. A
//! queue that was read back from the log has no leader until [`QueueCore::lead`] is called: messages that were
//! unacknowledged then are ready again and are delivered as redelivered.
use super::logged::{DeliveryChanges, LoggedRun, ReadRequest, RunName};
use super::run::{Cursor, DeliveryId, MessageId};
use super::{History, QueueCore};
use bytes::Bytes;

impl QueueCore {
    /// Begins to serve the queue here, in an epoch that no node ever served it in before. All messages that are not settled
    /// are ready. Messages below `delivered_below` may have been delivered before and are marked as redelivered.
    pub fn lead(&mut self, delivered_below: u64, epoch: u64) {
        self.lead.leading = true;
        self.lead.front = None;
        self.lead.granted_away.clear();
        self.lead.blocked_on = None;
        let recovered_below = self.state.begin_lead();
        self.lead.history = History { recovered_below, delivered_below: delivered_below.min(recovered_below), epoch };
        self.lead.cursor = Cursor::at(self.state.runs_first());
    }

    /// Returns the sequence from which on no message was ever delivered.
    #[must_use]
    pub fn delivered_below(&self) -> u64 {
        let reached = self.state.position(&self.lead.cursor).unwrap_or(self.state.next_sequence());
        reached.max(self.lead.history.delivered_below)
    }

    /// Applies a run that was logged. `now` is in nanoseconds of the same clock as for `enqueue`.
    pub fn apply_logged(&mut self, logged: &LoggedRun<'_>, now: u64) {
        if self.lead.leading {
            self.counters.published += u64::from(logged.count);
        }
        self.state.enqueue_logged(logged, now);
    }

    /// Applies a settlement that was logged.
    pub fn apply_settled(&mut self, first: u64, count: u64) {
        if self.lead.leading {
            self.state.settle_undelivered(first, count, &self.lead.cursor);
        }
        self.state.settle_logged(first, count);
        self.lead.granted_away.settled(first, count);
    }

    /// Applies the return of a message that was logged. The message had been delivered in `epoch`: if that is not the
    /// present one, the message has been ready again since the present epoch began. `by` is the node that returned it, if
    /// that is another one: it may have been granted to a third one meanwhile.
    pub fn apply_returned(&mut self, sequence: u64, offset: u32, epoch: Option<u64>, by: Option<u64>) {
        let was_delivered = self.state.position(&self.lead.cursor).is_none_or(|next| sequence < next);
        let is_led = epoch.is_some_and(|epoch| self.is_led_in(epoch));
        #[cfg(any(test, feature = "mutants"))]
        let is_led = is_led
            || crate::mutants::RETURN_WITHOUT_EPOCH.load(std::sync::atomic::Ordering::Relaxed) && self.lead.leading;
        // What was granted in this epoch stays so if it is returned from an earlier one.
        let is_out = is_led && was_delivered && by.is_none_or(|node| self.lead.granted_away.returned(node, sequence));
        self.state.return_logged(sequence, offset, is_out);
    }

    /// Applies the release of a message that was granted to the node `by` in `epoch`; see [`DeliveryChanges::released`].
    pub fn apply_released(&mut self, sequence: u64, offset: u32, epoch: u64, by: u64) {
        if self.is_led_in(epoch) && self.lead.granted_away.returned(by, sequence) {
            self.state.give_back(MessageId { sequence, offset });
        }
    }

    /// Returns whether this node leads the queue.
    #[must_use]
    pub fn is_leading(&self) -> bool {
        self.lead.leading
    }

    /// Returns whether the queue is served here in this epoch.
    #[must_use]
    pub fn is_led_in(&self, epoch: u64) -> bool {
        self.lead.leading && self.lead.history.epoch == epoch
    }

    /// Returns the epoch in which the queue is served here.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.lead.history.epoch
    }

    /// Returns the settlements and returns since the last call, which have to be logged; `None` if there are none.
    pub fn take_changes(&mut self) -> Option<DeliveryChanges> {
        let changes = &mut self.lead.changes;
        let is_empty = changes.settled.is_empty() && changes.returned.is_empty() && changes.released.is_empty();
        (!is_empty).then(|| std::mem::take(changes))
    }

    /// Returns whether a call of [`take_read`](Self::take_read) may find runs to be read.
    #[must_use]
    pub fn may_need_read(&self) -> bool {
        let ahead = || {
            let looks = self.lead.leading && self.lead.look_at <= self.lead.cursor.run;
            looks && self.state.cold_ahead_maybe && self.lead.consumers.len() > 0
        };
        let blocked = || self.lead.blocked_on.is_some_and(|segment| !self.lead.unreadable.contains_key(&segment));
        !self.lead.reading && (blocked() || ahead())
    }

    /// Returns the runs that have to be read before deliveries can go on, or will be needed soon; as few as possible if
    /// memory is `tight`. Their bytes are handed in through [`read_done`](Self::read_done). Returns `None` if there is
    /// nothing to read; the queue can then be dispatched.
    pub fn take_read(&mut self, tight: bool) -> Option<ReadRequest> {
        if self.lead.reading {
            return None;
        }
        let (bytes, ahead) = if tight { (READ_TIGHT_BYTES, AHEAD_TIGHT_BYTES) } else { (READ_BYTES, AHEAD_BYTES) };
        let blocked = self.lead.blocked_on.take().filter(|segment| !self.lead.unreadable.contains_key(segment));
        let mut runs = match blocked {
            Some(segment) => self.state.cold_from_segment(segment, bytes),
            None if !self.lead.leading => ReadRequest::new(),
            None if tight && self.lead.consumers.takers() == 0 => {
                self.lead.look_at = self.lead.cursor.run + 1;
                ReadRequest::new()
            }
            None => {
                let next = self.next_run();
                let (runs, warm_upto) = self.state.cold_ahead(next, ahead, bytes);
                self.lead.look_at = next.midpoint(warm_upto) + 1;
                runs
            }
        };
        if let Some(at) = runs.iter().position(|(segment, _)| self.lead.unreadable.contains_key(segment)) {
            runs.truncate(at);
        }
        self.lead.reading = !runs.is_empty();
        self.lead.reading.then_some(runs)
    }

    /// Returns the number of the run that the next delivery comes from.
    fn next_run(&self) -> u64 {
        let Cursor { run: number, index, .. } = self.lead.cursor;
        let is_out = self.state.run_from(number).is_some_and(|(at, run)| at == number && index == run.count);
        number + u64::from(is_out)
    }

    /// Takes the bytes of runs that were read: of all runs that were asked for, or of the first of them. Dispatch the
    /// queue afterwards.
    pub fn read_done(&mut self, runs: Vec<(u64, Bytes)>) {
        self.lead.reading = false;
        self.lead.blocked_on = None;
        self.lead.look_at = 0;
        let cursor = self.state.run(self.lead.cursor.run).map_or(u64::MAX, |run| run.segment);
        for segment in std::mem::take(&mut self.lead.revived) {
            if segment < cursor {
                self.state.segments_mut().cool(segment);
            }
        }
        for (segment, bytes) in runs {
            if segment < cursor {
                self.lead.revived.push(segment);
            }
            self.state.segments_mut().warm(segment, bytes);
        }
    }

    /// Notes that the bytes of a run are not those that were written; `reason` says how that was found out. Deliveries
    /// stop before the run until its messages are purged or acknowledged.
    pub fn set_unreadable(&mut self, segment: u64, reason: &str) {
        self.lead.unreadable.insert(segment, reason.into());
    }

    /// Returns the reason why some message of the queue cannot be read, or `None` if there is no such message.
    #[must_use]
    pub fn unreadable(&self) -> Option<&str> {
        let is_there = |segment: u64| self.state.segments().name(segment).is_some();
        self.lead.unreadable.iter().find(|(segment, _)| is_there(**segment)).map(|(_, reason)| &**reason)
    }

    /// Returns the reason why the next message cannot be delivered, or `None` if it can be, now or after a read.
    #[must_use]
    pub fn standstill(&self) -> Option<&str> {
        self.lead.unreadable.get(&self.lead.blocked_on?).map(|reason| &**reason)
    }

    /// Frees the warm contents if no consumer can take messages at the moment; they can be read from the log again.
    pub fn cool_idle(&mut self) {
        if !self.is_durable() || self.lead.consumers.takers() > 0 {
            return;
        }
        for segment in std::mem::take(&mut self.lead.revived) {
            self.state.segments_mut().cool(segment);
        }
        let first = self.state.run(self.lead.cursor.run).map_or(u64::MAX, |run| run.segment);
        for segment in (first..=self.state.segments().last_number()).take(COOLED_MAX) {
            if self.state.segments().bytes() == 0 {
                break;
            }
            self.state.segments_mut().cool(segment);
            self.state.cold_ahead_maybe = true;
        }
        self.lead.look_at = self.lead.cursor.run + 1; // no read-ahead before the next delivery
    }

    /// Returns whether a new run should stay in memory: the queue is below its allowance and has no cold backlog.
    #[must_use]
    pub fn takes_warm(&self) -> bool {
        let allowance = if self.lead.consumers.len() > 0 { WARM_BYTES } else { WARM_IDLE_BYTES };
        let is_next = !self.lead.leading || self.state.fresh() == 0 || !self.state.cold_ahead_maybe;
        self.state.segments().bytes() < allowance && is_next
    }

    /// Returns the names of the runs that were removed since the last call: no message in them is live.
    pub fn take_freed(&mut self) -> Vec<RunName> {
        self.state.segments_mut().take_freed()
    }

    /// Returns the runs of this queue: the segment and the name of each.
    pub fn runs(&self) -> impl Iterator<Item = (u64, RunName)> {
        self.state.segments().names()
    }

    /// Returns a checksum over the messages that the queue holds. It is equal on all replicas that hold the same
    /// messages.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.state.durable.as_ref().map_or(0, |durable| durable.digest)
    }

    /// Returns whether the changes of the queue are logged.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.state.durable.is_some()
    }

    /// Notes that a delivery was returned. A message that exceeds the delivery limit by that is settled instead, unless it
    /// was delivered in an earlier epoch: then another consumer may have it.
    pub(super) fn log_return(&mut self, id: DeliveryId) {
        let sequence = id.message.sequence;
        let count = self.state.durable.as_ref().and_then(|durable| durable.counts.get(&sequence)).map_or(0, |&n| n);
        let is_of_now = id.epoch == self.lead.history.epoch;
        if is_of_now && self.lead.settings.returns_max().is_some_and(|limit| count >= limit) {
            self.lead.changes.settled.push((sequence, 1));
        } else {
            self.lead.changes.returned.push(id);
        }
    }
}

/// The most bytes of runs that are read at a time, unless a single run is longer.
const READ_BYTES: u64 = 4 << 20;
/// Runs are read when fewer bytes than this are warm ahead of the cursor.
const AHEAD_BYTES: u64 = 4 << 20;
/// The value in place of `READ_BYTES` while the memory for the contents of all queues is used up.
const READ_TIGHT_BYTES: u64 = 256 << 10;
/// The value in place of `AHEAD_BYTES` while the memory for the contents of all queues is used up.
const AHEAD_TIGHT_BYTES: u64 = 1;
/// The most segments that one call looks at to free their contents: warm ones usually lie close behind the cursor.
const COOLED_MAX: usize = 64 << 10;
/// The most bytes of contents that a queue with consumers keeps in memory.
const WARM_BYTES: u64 = 16 << 20;
/// The most bytes of contents that a queue without consumers keeps in memory.
const WARM_IDLE_BYTES: u64 = 256 << 10;
