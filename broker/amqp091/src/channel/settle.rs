//! `basic.ack`, `nack`, `reject`, `recover`: from delivery tags to settled or returned messages.
//!
//! Consecutive acknowledgements are gathered over a whole read and settled together.
use crate::codec::ids::MethodId;
use crate::codec::method::Ack;
use crate::codec::reply::ReplyCode;
use crate::connection::context::Context;
use crate::connection::failure::Failure;
use crate::connection::turn::Turn;
use leveret_node::{Ledger, Outcome, Settlement, Subscriber, UnknownTag};

/// Settles the deliveries of a connection.
#[derive(Default)]
pub(crate) struct Settler {
    /// Acknowledgements that were gathered and not settled yet.
    pending: Option<PendingAcks>,
    /// Memory for the messages that are being settled, kept from one call to the next.
    pub(super) settlement: Settlement,
}

/// Acknowledgements of one channel: consecutive single tags, or all tags up to one.
#[derive(Clone, Copy, Debug)]
struct PendingAcks {
    channel: u16,
    first: u64,
    last: u64,
    multiple: bool,
}

/// A request to settle deliveries.
#[derive(Clone, Copy)]
pub(crate) struct Settle {
    /// The channel of the deliveries.
    pub(crate) channel: u16,
    /// The delivery tag; 0 with `multiple` stands for all deliveries.
    pub(crate) tag: u64,
    /// True for all deliveries up to `tag`, false for that one alone.
    pub(crate) multiple: bool,
    /// The outcome for the messages: settled or returned.
    pub(crate) outcome: Outcome,
}

impl Settler {
    /// Handles `basic.ack`: the acknowledgement is gathered, and settled together with those that follow.
    ///
    /// # Errors
    /// Those of [`flush`](Self::flush), for the acknowledgements that were gathered before.
    #[inline]
    pub(crate) async fn ack(
        &mut self,
        context: &Context,
        turn: &mut Turn,
        channel: u16,
        ack: Ack,
    ) -> Result<(), Failure> {
        let Ack { delivery_tag: tag, multiple } = ack;
        if let Some(pending) = &mut self.pending
            && pending.channel == channel
            && tag == pending.last + 1
            && tag > 1
            && !pending.multiple
            && !multiple
        {
            pending.last = tag;
            return Ok(());
        }
        self.flush(context, turn).await?;
        self.pending = Some(PendingAcks { channel, first: tag, last: tag, multiple });
        Ok(())
    }

    /// Settles the acknowledgements that were gathered.
    ///
    /// # Errors
    /// 406 on the channel of the acknowledgements, which need not be that of the frame being handled. They are dropped
    /// then.
    pub(crate) async fn flush(&mut self, context: &Context, turn: &mut Turn) -> Result<(), Failure> {
        let Some(PendingAcks { channel, first, last, multiple }) = self.pending.take() else { return Ok(()) };
        let outcome = Outcome::Acknowledged;
        if multiple {
            let settled = self.settle(context, turn, Settle { channel, tag: last, multiple, outcome }).await;
            return settled.map_err(|failure| failure.caused_by(MethodId::BASIC_ACK).on_channel(channel));
        }
        turn.add(SETTLE_WORK + last - first);
        let result = self.take(context, channel, outcome, |ledger, settlement| {
            (first..=last).try_for_each(|tag| {
                ledger
                    .take(tag, |from, id| settlement.add(from, id, outcome))
                    .map_err(|UnknownTag| unknown_tag(tag).caused_by(MethodId::BASIC_ACK))
            })
        });
        result.unwrap_or(Ok(())).map_err(|failure| failure.on_channel(channel))
    }

    /// Settles deliveries, a part of them at a time, so that other users of the output and of the queues get their turn
    /// after each part. The caller names the method that asked for it.
    ///
    /// # Errors
    /// 406 for an unknown delivery tag.
    pub(crate) async fn settle(&mut self, context: &Context, turn: &mut Turn, settle: Settle) -> Result<(), Failure> {
        let Settle { channel, tag, multiple, .. } = settle;
        let last = match multiple {
            true => context.output.lock().ledger(channel).map_or(Ok(0), |ledger| ledger.last_of(tag)),
            false => Ok(tag),
        };
        let last = last.map_err(|UnknownTag| unknown_tag(tag))?;
        while self.settle_some(context, turn, Settle { tag: last, ..settle })? {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Settles a part of the deliveries. Returns whether there may be more.
    fn settle_some(&mut self, context: &Context, turn: &mut Turn, settle: Settle) -> Result<bool, Failure> {
        let Settle { channel, tag, multiple, outcome } = settle;
        let mut work = SETTLE_WORK;
        let more = self.take(context, channel, outcome, |ledger, settlement| {
            let mut settle = |from: &Subscriber, id| {
                settlement.add(from, id, outcome);
                work += 1;
            };
            match multiple {
                true => Ok(ledger.take_up_to(tag, settle)),
                false => ledger.take(tag, &mut settle).map(|()| false),
            }
        });
        turn.add(work);
        more.unwrap_or(Ok(false)).map_err(|UnknownTag| unknown_tag(tag))
    }

    /// Takes deliveries out of the ledger of a channel and settles them. Returns `None` if the channel has no ledger any
    /// more.
    #[inline]
    fn take<T>(
        &mut self,
        context: &Context,
        channel: u16,
        outcome: Outcome,
        take: impl FnOnce(&mut Ledger, &mut Settlement) -> T,
    ) -> Option<T> {
        let (taken, others_wait) = {
            let mut output = context.output.lock();
            let ledger = output.ledger(channel)?;
            (take(ledger, &mut self.settlement), ledger.has_waiting())
        };
        context.broker.settle(&mut self.settlement, outcome);
        if others_wait {
            give_turns(context, channel);
        }
        Some(taken)
    }
}

/// Serves the consumers that the limit of their channel held back, as long as there is room.
pub(super) fn give_turns(context: &Context, channel: u16) {
    loop {
        let next = context.output.lock().ledger(channel).and_then(Ledger::next_turn);
        let Some((queue, consumer)) = next else { return };
        context.broker.unblocked(&queue, consumer);
    }
}

fn unknown_tag(tag: u64) -> Failure {
    Failure::new(ReplyCode::PreconditionFailed, format!("unknown delivery tag {tag}"))
}

/// The work of settling, in addition to that of each delivery (see `turn`).
const SETTLE_WORK: u64 = 5;
