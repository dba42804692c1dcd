//! Ready messages to consumers: in turn, as much as each has credit and room for.
use super::run::{MessageId, Run};
use super::state::State;
use super::{ConsumerId, Counters, Delivery, Dwell, Fill, Queue, Sink, Source};

/// How far deliveries have come: the next message that was never delivered.
#[derive(Clone, Copy, Default)]
pub(super) struct Cursor {
    /// Number of its run.
    pub(super) run: u64,
    /// Its index in the run.
    pub(super) index: u32,
    /// Its offset in the run's segment, once the run was entered (`index` > 0).
    offset: u32,
}

impl Cursor {
    pub(super) fn at(run: u64) -> Self {
        Self { run, index: 0, offset: 0 }
    }
}

impl Queue {
    /// Hands ready messages to consumers until there are none, or none has credit and room. `now` in nanoseconds of
    /// the clock that `enqueue` was told.
    pub fn dispatch(&mut self, now: u64) {
        let consumers = self.lead.consumers.len();
        let mut passed_over = 0;
        while passed_over < consumers && self.state.ready() > 0 {
            let share = share(self.state.ready(), consumers);
            let index = self.lead.consumers.take_turn();
            let consumer = self.lead.consumers.at(index);
            let limit = if consumer.full { 0 } else { consumer.credit().min(share) };
            if limit == 0 {
                passed_over += 1;
                continue;
            }
            let no_ack = consumer.subscription.no_ack;
            let mut taking = Taking::new(&mut self.state, &mut self.lead.cursor, now, limit);
            let fill = consumer.subscription.sink.fill(&mut taking);
            let taken = taking.finish(no_ack, &mut self.counters, &mut self.dwell);
            if !no_ack {
                consumer.unacked += taken as u32;
            }
            consumer.full = fill == Fill::Full;
            passed_over = if fill == Fill::Exhausted && taken > 0 { 0 } else { passed_over + 1 };
        }
    }

    /// The sink of a consumer has room again: it is served with the rest.
    pub fn drained(&mut self, id: ConsumerId, now: u64) {
        if let Some(consumer) = self.lead.consumers.find(id) {
            consumer.full = false;
        }
        self.dispatch(now);
    }

    /// Whether a consumer waits for its own output: it is slower than what is published.
    #[must_use]
    pub fn is_outrunning(&self) -> bool {
        self.consumers().iter().any(|consumer| consumer.full)
    }

    /// Hands one message to `sink`, for a client that asks instead of subscribing. False if none is ready.
    pub fn get(&mut self, sink: &dyn Sink, no_ack: bool, now: u64) -> bool {
        let mut taking = Taking::new(&mut self.state, &mut self.lead.cursor, now, 1);
        sink.fill(&mut taking);
        taking.finish(no_ack, &mut self.counters, &mut self.dwell) > 0
    }
}

/// How many messages a consumer gets at a time: all where it is alone; one where there are few, so that consumers get
/// equal parts; more where there are many, so that a turn is worth its cost.
fn share(ready: u64, consumers: usize) -> u64 {
    if consumers == 1 { u64::MAX } else { (ready / (consumers as u64 * 16)).clamp(1, 64) }
}

/// The queue as one consumer sees it for one turn.
struct Taking<'q> {
    state: &'q mut State,
    cursor: &'q mut Cursor,
    now: u64,
    left: u64,
    taken: u64,
    redelivered: u64,
    /// Taken from one run in sequence, not yet counted: first, messages, when they arrived.
    stretch: (u64, u64, u64),
    /// Stretches before that.
    before: Vec<(u64, u64, u64)>,
}

impl<'q> Taking<'q> {
    fn new(state: &'q mut State, cursor: &'q mut Cursor, now: u64, left: u64) -> Self {
        Self { state, cursor, now, left, taken: 0, redelivered: 0, stretch: (0, 0, 0), before: Vec::new() }
    }

    fn count(&mut self, sequence: u64, run: &Run) -> bool {
        self.taken += 1;
        self.left -= 1;
        let (first, messages, _) = self.stretch;
        if messages > 0 && first + messages == sequence && sequence > run.first {
            self.stretch.1 += 1;
            return false;
        }
        if messages > 0 {
            self.before.push(self.stretch);
        }
        self.stretch = (sequence, 1, run.arrived);
        true
    }

    /// The next message that was never delivered, and its run.
    #[inline]
    fn fresh(&mut self) -> Option<(MessageId, Run)> {
        if self.cursor.run < self.state.runs_first() {
            *self.cursor = Cursor::at(self.state.runs_first()); // its run was delivered, settled and dropped
        }
        let mut run = *self.state.run(self.cursor.run)?;
        if self.cursor.index == run.count {
            *self.cursor = Cursor::at(self.cursor.run + 1);
            run = *self.state.run(self.cursor.run)?;
        }
        if self.cursor.index == 0 {
            self.cursor.offset = self.state.segments().route(run.segment, run.offset).2;
        }
        let id = MessageId { sequence: run.first + u64::from(self.cursor.index), offset: self.cursor.offset };
        self.cursor.index += 1;
        self.state.take_fresh();
        Some((id, run))
    }

    /// Settles what needs no acknowledgement, and counts. Returns how many messages were taken.
    fn finish(mut self, no_ack: bool, counters: &mut Counters, dwell: &mut Dwell) -> u64 {
        if self.taken == 0 {
            return 0;
        }
        self.before.push(self.stretch);
        for &(first, messages, arrived) in &self.before {
            dwell.observe(self.now.saturating_sub(arrived), messages);
            if no_ack {
                self.state.settle(first, messages);
            }
        }
        counters.delivered += self.taken;
        counters.redelivered += self.redelivered;
        if no_ack {
            counters.acked += self.taken;
        }
        self.taken
    }
}

impl Source for Taking<'_> {
    #[inline]
    fn next(&mut self) -> Option<Delivery<'_>> {
        if self.left == 0 {
            return None;
        }
        let redelivered = self.state.has_returned();
        let (id, run) = if redelivered { self.state.take_returned()? } else { self.fresh()? };
        self.redelivered += u64::from(redelivered);
        let route_changed = self.count(id.sequence, &run);
        let (exchange, routing_key, _) = self.state.segments().route(run.segment, run.offset);
        let stored = self.state.segments().message(run.segment, id.offset);
        if !redelivered {
            self.cursor.offset = stored.next;
        }
        Some(Delivery {
            exchange,
            routing_key,
            route_changed,
            redelivered,
            properties: stored.properties,
            body: stored.body,
            id,
            ready_after: self.state.ready(),
        })
    }
}
