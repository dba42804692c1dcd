//! `basic.ack`, `nack`, `reject`, `recover`: from delivery tags to what becomes of the messages.
//!
//! Acknowledgements that follow each other are gathered over a whole read and settled together.
use crate::connection::failure::Failure;
use crate::connection::session::Session;
use leveret_node::{Ledger, Outcome, Subscriber, UnknownTag};

/// Acknowledgements of one channel not passed on yet: single tags in a row, or all up to one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PendingAcks {
    channel: u16,
    first: u64,
    last: u64,
    multiple: bool,
}

impl Session {
    /// `basic.ack`: remembered, and settled with those that follow.
    #[inline]
    pub(crate) fn ack(&mut self, channel: u16, tag: u64, multiple: bool) -> Result<(), Failure> {
        if let Some(pending) = &mut self.pending_acks
            && pending.channel == channel
            && tag == pending.last + 1
            && tag > 1
            && !pending.multiple
            && !multiple
        {
            pending.last = tag;
            return Ok(());
        }
        self.flush_acks()?;
        self.pending_acks = Some(PendingAcks { channel, first: tag, last: tag, multiple });
        Ok(())
    }

    /// Settles the acknowledgements that were remembered.
    ///
    /// # Errors
    /// 406 on their channel, which need not be that of the frame being handled. They are not remembered any more.
    pub(crate) fn flush_acks(&mut self) -> Result<(), Failure> {
        let Some(PendingAcks { channel, first, last, multiple }) = self.pending_acks.take() else { return Ok(()) };
        if multiple {
            let settled = self.settle(channel, last, true, Outcome::Acknowledged);
            return settled.map_err(|failure| failure.caused_by(60, 80).on_channel(channel));
        }
        self.turn.add(SETTLE_WORK + last - first);
        let settlement = &mut self.settlement;
        let (result, others_wait) = {
            let mut output = self.output.lock();
            let Some(ledger) = output.ledger(channel) else { return Ok(()) };
            let result = (first..=last).try_for_each(|tag| {
                ledger
                    .take(tag, |from, id| settlement.add(from, id, Outcome::Acknowledged))
                    .map_err(|UnknownTag| unknown_tag(tag).caused_by(60, 80))
            });
            (result, ledger.has_waiting())
        };
        self.broker.settle(&mut self.settlement, Outcome::Acknowledged);
        if others_wait {
            self.give_turns(channel);
        }
        result.map_err(|failure| failure.on_channel(channel))
    }

    /// One delivery, or all up to `tag`, come to an end, a part of them at a time: others want the output and the queues as
    /// well. The caller names the method that asked for it.
    pub(crate) fn settle(&mut self, channel: u16, tag: u64, multiple: bool, outcome: Outcome) -> Result<(), Failure> {
        let last = match self.output.lock().ledger(channel) {
            None => return Ok(()),
            Some(ledger) if multiple => ledger.last_of(tag),
            Some(_) => Ok(tag),
        };
        let last = last.map_err(|UnknownTag| unknown_tag(tag))?;
        while self.settle_some(channel, last, multiple, outcome)? {}
        Ok(())
    }

    /// Whether there may be more.
    fn settle_some(&mut self, channel: u16, last: u64, multiple: bool, outcome: Outcome) -> Result<bool, Failure> {
        let (settlement, mut work) = (&mut self.settlement, SETTLE_WORK);
        let mut settle = |from: &Subscriber, id| {
            settlement.add(from, id, outcome);
            work += 1;
        };
        let (more, others_wait) = {
            let mut output = self.output.lock();
            let Some(ledger) = output.ledger(channel) else { return Ok(false) };
            let more = match multiple {
                true => Ok(ledger.take_up_to(last, settle)),
                false => ledger.take(last, &mut settle).map(|()| false),
            };
            (more, ledger.has_waiting())
        };
        self.turn.add(work);
        self.broker.settle(&mut self.settlement, outcome);
        if others_wait {
            self.give_turns(channel);
        }
        more.map_err(|UnknownTag| unknown_tag(last))
    }

    /// Consumers that the limit of their channel held back take their turns while there is room.
    pub(crate) fn give_turns(&self, channel: u16) {
        loop {
            let next = self.output.lock().ledger(channel).and_then(Ledger::next_turn);
            let Some((queue, consumer)) = next else { return };
            self.broker.unblocked(&queue, consumer);
        }
    }
}

fn unknown_tag(tag: u64) -> Failure {
    Failure::new(406, format!("unknown delivery tag {tag}"))
}

/// What settling costs beside its deliveries (see `turn`).
const SETTLE_WORK: u64 = 5;
