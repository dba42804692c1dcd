//! `basic.ack`, `nack`, `reject`, `recover`: from delivery tags to what becomes of the messages.
//!
//! Acknowledgements that follow each other are gathered over a whole read and settled together.
use crate::connection::failure::Failure;
use crate::connection::session::Session;
use leveret_node::{Ledger, Outcome, Settlement, Subscriber, UnknownTag};

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
    pub(crate) async fn ack(&mut self, channel: u16, tag: u64, multiple: bool) -> Result<(), Failure> {
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
        self.flush_acks().await?;
        self.pending_acks = Some(PendingAcks { channel, first: tag, last: tag, multiple });
        Ok(())
    }

    /// Settles the acknowledgements that were remembered.
    ///
    /// # Errors
    /// 406 on their channel, which need not be that of the frame being handled. They are not remembered any more.
    pub(crate) async fn flush_acks(&mut self) -> Result<(), Failure> {
        let Some(PendingAcks { channel, first, last, multiple }) = self.pending_acks.take() else { return Ok(()) };
        if multiple {
            let settled = self.settle(channel, last, true, Outcome::Acknowledged).await;
            return settled.map_err(|failure| failure.caused_by(60, 80).on_channel(channel));
        }
        self.turn.add(SETTLE_WORK + last - first);
        let result = self.take(channel, Outcome::Acknowledged, |ledger, settlement| {
            (first..=last).try_for_each(|tag| {
                ledger
                    .take(tag, |from, id| settlement.add(from, id, Outcome::Acknowledged))
                    .map_err(|UnknownTag| unknown_tag(tag).caused_by(60, 80))
            })
        });
        result.unwrap_or(Ok(())).map_err(|failure| failure.on_channel(channel))
    }

    /// One delivery, or all up to `tag`, come to an end, a part of them at a time: others want the output and the queues as
    /// well, and have their turn after each part. The caller names the method that asked for it.
    pub(crate) async fn settle(
        &mut self,
        channel: u16,
        tag: u64,
        multiple: bool,
        outcome: Outcome,
    ) -> Result<(), Failure> {
        let last = match multiple {
            true => self.output.lock().ledger(channel).map_or(Ok(0), |ledger| ledger.last_of(tag)),
            false => Ok(tag),
        };
        let last = last.map_err(|UnknownTag| unknown_tag(tag))?;
        while self.settle_some(channel, last, multiple, outcome)? {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Whether there may be more.
    fn settle_some(&mut self, channel: u16, last: u64, multiple: bool, outcome: Outcome) -> Result<bool, Failure> {
        let mut work = SETTLE_WORK;
        let more = self.take(channel, outcome, |ledger, settlement| {
            let mut settle = |from: &Subscriber, id| {
                settlement.add(from, id, outcome);
                work += 1;
            };
            match multiple {
                true => Ok(ledger.take_up_to(last, settle)),
                false => ledger.take(last, &mut settle).map(|()| false),
            }
        });
        self.turn.add(work);
        more.unwrap_or(Ok(false)).map_err(|UnknownTag| unknown_tag(last))
    }

    /// Takes deliveries out of the ledger of a channel and settles them. None if the channel has no ledger any more.
    #[inline]
    fn take<T>(
        &mut self,
        channel: u16,
        outcome: Outcome,
        take: impl FnOnce(&mut Ledger, &mut Settlement) -> T,
    ) -> Option<T> {
        let (taken, others_wait) = {
            let mut output = self.output.lock();
            let ledger = output.ledger(channel)?;
            (take(ledger, &mut self.settlement), ledger.has_waiting())
        };
        self.broker.settle(&mut self.settlement, outcome);
        if others_wait {
            self.give_turns(channel);
        }
        Some(taken)
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
