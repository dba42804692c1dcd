//! Delivers ready messages to consumers, which take turns and get as many messages as they have credit and room for.
use super::consumers::ConsumerState;
use super::front::Front;
use super::numbered::Spot;
use super::run::{Cursor, DeliveryId, MessageId, Run};
use super::state::QueueState;
use super::stored::StoredRoute;
use super::{ConsumerId, Counters, Delivery, DeliveryChanges, Dwell, Fill, History, Lead, QueueCore, Sink, Source};
use std::mem::take;

impl QueueCore {
    /// Hands ready messages to consumers until no message is ready, no consumer has credit and room, or about 16,384
    /// messages were handed out; in the last case [`take_unfinished`](Self::take_unfinished) returns true. `now` is in
    /// nanoseconds of the same clock as for `enqueue`.
    pub fn dispatch(&mut self, now: u64) {
        let mut left = DISPATCHED_MAX;
        while let ready @ 1.. = self.deliverable() {
            let share = share(ready, self.lead.consumers.takers());
            let Some(consumer) = self.lead.consumers.take_turn() else { return };
            let (id, no_ack, credit) = (consumer.id, consumer.subscription.no_ack, consumer.credit());
            if credit == 0 {
                self.lead.consumers.served(id, 0, ConsumerState::OutOfCredit, true);
                continue;
            }
            let sink = consumer.subscription.sink.clone();
            let (fill, taken) = self.serve(&*sink, credit.min(share), no_ack, now, sink.node().is_none());
            let standing = match fill {
                Fill::Full => ConsumerState::Full,
                Fill::Blocked => ConsumerState::Blocked,
                Fill::Exhausted if taken == credit => ConsumerState::OutOfCredit,
                Fill::Exhausted => ConsumerState::InTurn,
            };
            let unacked = if no_ack || sink.node().is_some() { 0 } else { taken };
            self.lead.consumers.served(id, unacked, standing, taken > 0);
            if self.lead.blocked_on.is_some() || fill == Fill::Exhausted && taken == 0 {
                return; // deliveries go on once the run has been read
            }
            left = left.saturating_sub(taken);
            if left == 0 && self.deliverable() > 0 {
                self.lead.unfinished = true;
                return;
            }
        }
    }

    /// Returns the number of messages that can be delivered here: those that are ready, or those that the leader granted.
    #[inline]
    fn deliverable(&self) -> u64 {
        match (self.lead.leading, &self.lead.front) {
            (true, _) => self.state.ready(),
            (false, Some(_)) => self.state.returned() as u64,
            (false, None) => 0,
        }
    }

    /// Returns whether a dispatch since the last call stopped only because it had delivered its maximum of messages:
    /// another `dispatch` continues.
    #[inline]
    pub fn take_unfinished(&mut self) -> bool {
        take(&mut self.lead.unfinished)
    }

    /// Marks a consumer as able to take messages again because its sink has room, and dispatches.
    pub fn drained(&mut self, id: ConsumerId, now: u64) {
        self.lead.consumers.free(id, ConsumerState::Full);
        self.dispatch(now);
    }

    /// Marks a consumer whose sink returned [`Fill::Blocked`] as able to take messages again because its channel has
    /// room, and dispatches.
    pub fn unblocked(&mut self, id: ConsumerId, now: u64) {
        self.lead.consumers.free(id, ConsumerState::Blocked);
        self.dispatch(now);
    }

    /// Returns whether the queue has consumers and the outputs of all of them are full, so that they are slower than the
    /// publishers.
    #[must_use]
    pub fn consumers_lag(&self) -> bool {
        self.lead.consumers.all_full()
    }

    /// Hands one message to `sink`, for a client that asks for a single message instead of subscribing.
    pub fn get(&mut self, sink: &dyn Sink, no_ack: bool, now: u64) -> Got {
        match self.serve(sink, 1, no_ack, now, true).1 {
            0 if self.lead.blocked_on.is_some() => Got::Cold,
            0 => Got::Empty,
            _ => Got::Message,
        }
    }

    /// Hands at most `limit` messages to `sink`, which are `delivered` by that or else granted to another node. Returns why the
    /// sink stopped, and how many messages it took.
    fn serve(&mut self, sink: &dyn Sink, limit: u64, no_ack: bool, now: u64, delivered: bool) -> (Fill, u64) {
        if !self.lead.leading && self.lead.front.is_none() {
            return (Fill::Blocked, 0);
        }
        let durable = self.is_durable();
        let Lead { cursor, history, front, granted_away, changes, blocked_on, .. } = &mut self.lead;
        let mut taking = ConsumerTurn::new(&mut self.state, cursor, now, limit, *history);
        taking.front = front.as_mut();
        taking.granted = sink.node().map(|_| Vec::new());
        let fill = sink.fill(&mut taking);
        *blocked_on = taking.cold;
        if let (Some(node), Some(granted)) = (sink.node(), taking.granted.take()) {
            granted_away.add(node, granted);
        }
        let changes = durable.then_some(changes);
        let taken = match delivered {
            true => taking.finish(no_ack, changes, &mut self.counters, Some(&mut self.dwell)),
            false => taking.finish(no_ack, changes, &mut Counters::default(), None),
        };
        if !delivered {
            self.lead.granted += taken;
        }
        (fill, taken)
    }
}

/// The result of a `get`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Got {
    /// The sink has a message.
    Message,
    /// No message is ready.
    Empty,
    /// The next message has to be read from the disk first.
    Cold,
}

/// About how many messages one call hands out, so that the lock is released for others that need the queue. A single
/// consumer takes as many as it has room for.
const DISPATCHED_MAX: u64 = 16 << 10;

/// Returns how many messages a consumer gets in one turn: all if it is the only consumer; one if few messages are ready,
/// so that consumers get equal parts; more if many are ready, because each turn has a cost.
fn share(ready: u64, consumers: usize) -> u64 {
    if consumers <= 1 { u64::MAX } else { (ready / (consumers as u64 * 16)).clamp(1, 64) }
}

/// The queue as one consumer sees it for one turn.
struct ConsumerTurn<'q> {
    state: &'q mut QueueState,
    cursor: &'q mut Cursor,
    /// The run at the cursor, once it was looked up. It is warm.
    run: Option<Run>,
    /// The spot of the run's segment. It stays valid because no segment is freed during the turn.
    spot: Spot,
    now: u64,
    /// The number of messages that the consumer may still take.
    remaining: u64,
    taken: u64,
    redelivered: u64,
    /// The stretch of messages that were taken last; `finish` has not counted it yet.
    stretch: Stretch,
    /// The stretches before that one.
    before: Vec<Stretch>,
    history: History,
    /// The segment of the next message, if that message is cold.
    cold: Option<u64>,
    /// The segments whose last message was taken.
    over: Vec<u64>,
    /// Set if another node leads the queue: only what it granted is delivered.
    front: Option<&'q mut Front>,
    /// The messages that were taken, if they are granted to another node.
    granted: Option<Vec<MessageId>>,
}

/// Consecutive messages that were taken from one run.
#[derive(Clone, Copy, Default)]
struct Stretch {
    first: u64,
    messages: u64,
    /// When the run arrived, in nanoseconds of the caller's clock.
    arrived: u64,
}

impl<'q> ConsumerTurn<'q> {
    fn new(state: &'q mut QueueState, cursor: &'q mut Cursor, now: u64, remaining: u64, history: History) -> Self {
        Self {
            state,
            cursor,
            run: None,
            spot: Spot::default(),
            now,
            remaining,
            taken: 0,
            redelivered: 0,
            stretch: Stretch::default(),
            before: Vec::new(),
            history,
            cold: None,
            over: Vec::new(),
            front: None,
            granted: None,
        }
    }

    /// Counts a message that is taken. Returns whether its exchange or routing key may differ from those of the message
    /// before.
    fn count(&mut self, sequence: u64, run: &Run) -> bool {
        self.taken += 1;
        self.remaining -= 1;
        let Stretch { first, messages, .. } = self.stretch;
        if messages > 0 && first + messages == sequence && sequence > run.first {
            self.stretch.messages += 1;
            return false;
        }
        if messages > 0 {
            self.before.push(self.stretch);
        }
        self.stretch = Stretch { first: sequence, messages: 1, arrived: run.arrived };
        true
    }

    /// Returns the next message that was never delivered, and its run.
    #[inline]
    fn fresh(&mut self) -> Option<(MessageId, Run)> {
        loop {
            let run = match self.run {
                Some(run) if self.cursor.index < run.count => run,
                _ => self.enter_run()?,
            };
            let id = MessageId { sequence: run.first + u64::from(self.cursor.index), offset: self.cursor.offset };
            self.cursor.index += 1;
            if id.sequence < self.history.recovered_below && self.state.is_settled(id.sequence) {
                self.cursor.offset = self.state.segments().at(run.segment).message(id.offset).next;
                continue;
            }
            self.state.take_fresh();
            return Some((id, run));
        }
    }

    /// Moves the cursor to the next run that has a message that was never delivered, unless the cursor is in such a run.
    fn enter_run(&mut self) -> Option<Run> {
        loop {
            let (number, &run) = self.state.run_from(self.cursor.run)?;
            if number != self.cursor.run {
                *self.cursor = Cursor::at(number); // all runs before this one were delivered and settled
            }
            if self.cursor.index == run.count {
                self.state.segments_mut().cool(run.segment);
                *self.cursor = Cursor::at(number + 1);
                continue;
            }
            if self.state.segments().cold(run.segment).is_some() {
                self.cold = Some(run.segment);
                return None;
            }
            if self.cursor.index == 0 {
                self.cursor.offset = self.state.segments().at(run.segment).route(run.offset).messages_at;
            }
            self.run = Some(run);
            self.spot = self.state.segments().spot(run.segment);
            return Some(run);
        }
    }

    /// Takes the returned message with the lowest sequence. Returns it and its run.
    fn returned(&mut self) -> Option<(MessageId, Run)> {
        let (id, run) = loop {
            let (id, run) = self.state.first_returned()?;
            if run.first <= id.sequence && !self.state.is_settled(id.sequence) {
                break (id, run);
            }
            self.state.take_returned(); // it is gone
        };
        if self.state.segments().cold(run.segment).is_some() {
            self.cold = Some(run.segment);
            return None;
        }
        self.state.take_returned();
        if self.front.is_some() && id.sequence + 1 == run.end() {
            self.over.push(run.segment);
        }
        Some((id, run))
    }

    /// Settles the messages that need no acknowledgement, and updates the counters. Returns how many messages were taken.
    fn finish(
        mut self,
        no_ack: bool,
        mut changes: Option<&mut DeliveryChanges>,
        counters: &mut Counters,
        mut dwell: Option<&mut Dwell>,
    ) -> u64 {
        if self.taken == 0 {
            return 0;
        }
        if let Some(run) = self.run.filter(|run| self.cursor.index == run.count) {
            self.state.segments_mut().cool(run.segment); // all delivered; a returned message is read from the log
        }
        for segment in take(&mut self.over) {
            self.state.segments_mut().cool(segment);
        }
        self.before.push(self.stretch);
        // Adjacent stretches are settled together.
        let mut out = Stretch::default();
        for stretch in take(&mut self.before) {
            if let Some(dwell) = &mut dwell {
                dwell.observe(self.now.saturating_sub(stretch.arrived), stretch.messages);
            }
            if out.first + out.messages == stretch.first {
                out.messages += stretch.messages;
            } else {
                self.settle(no_ack, &mut changes, std::mem::replace(&mut out, stretch));
            }
        }
        self.settle(no_ack, &mut changes, out);
        counters.delivered += self.taken;
        counters.redelivered += self.redelivered;
        if no_ack {
            counters.acked += self.taken;
        }
        self.taken
    }

    /// Settles delivered messages, if they need no acknowledgement.
    fn settle(&mut self, no_ack: bool, changes: &mut Option<&mut DeliveryChanges>, stretch: Stretch) {
        let Stretch { first, messages, .. } = stretch;
        match changes {
            _ if !no_ack || messages == 0 => {}
            Some(changes) => changes.settled.push((first, messages)),
            None => self.state.settle(first, messages),
        }
    }
}

impl Source for ConsumerTurn<'_> {
    #[inline]
    fn next(&mut self) -> Option<Delivery<'_>> {
        if self.remaining == 0 {
            return None;
        }
        let given_back = self.state.has_returned() || self.front.is_some();
        let (id, run) = if given_back { self.returned()? } else { self.fresh()? };
        let redelivered = match &mut self.front {
            Some(front) => front.take_again(id.sequence),
            None => given_back || id.sequence < self.history.delivered_below,
        };
        if let Some(granted) = &mut self.granted {
            granted.push(id);
        }
        self.redelivered += u64::from(redelivered);
        let route_changed = self.count(id.sequence, &run);
        let segments = self.state.segments();
        let segment = if given_back { segments.at(run.segment) } else { segments.at_spot(self.spot, run.segment) };
        let StoredRoute { exchange, routing_key, .. } = segment.route(run.offset);
        let stored = segment.message(id.offset);
        if !given_back {
            self.cursor.offset = stored.next;
        }
        Some(Delivery {
            exchange,
            routing_key,
            route_changed,
            redelivered,
            properties: stored.properties,
            body: stored.body,
            shared: segment.shared(),
            id: DeliveryId { message: id, epoch: self.history.epoch },
            ready_after: self.state.ready(),
        })
    }
}
