//! The channels of a connection by number: opened, looked up, released and forgotten.
use super::Channel;
use super::settle::Settler;
use crate::codec::encode;
use crate::codec::reply::ReplyCode;
use crate::connection::by_channel::ByChannel;
use crate::connection::context::Context;
use crate::connection::failure::Failure;
use leveret_node::{ChannelView, Outcome};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// The channels that are open, or that wait for the client to agree that they are closed.
pub(crate) struct Channels {
    /// Boxed: a page of empty places stays small.
    by_number: ByChannel<Box<Channel>>,
    /// The number of channels, which is compared with the agreed `channel_max`.
    count: u16,
}

impl Channels {
    pub(crate) fn new() -> Self {
        Self { by_number: ByChannel::new(), count: 0 }
    }

    /// Returns whether the channel is open, is not closing, and has no message that has yet to arrive in full.
    #[inline]
    pub(crate) fn awaits_method(&self, number: u16) -> bool {
        let channel = self.by_number.get(usize::from(number));
        matches!(channel, Some(Some(channel)) if !channel.closing && channel.assembly.is_none())
    }

    /// Returns whether there is a channel with this number; it may be closing.
    pub(crate) fn is_open(&self, number: u16) -> bool {
        matches!(self.by_number.get(usize::from(number)), Some(Some(_)))
    }

    /// Returns whether the broker closed the channel and the client has not agreed yet.
    pub(crate) fn is_closing(&self, number: u16) -> bool {
        matches!(self.by_number.get(usize::from(number)), Some(Some(channel)) if channel.closing)
    }

    /// Returns the number of consumers of all channels together.
    pub(crate) fn consumers(&self) -> usize {
        self.by_number.values().map(|channel| channel.consumers.len()).sum()
    }

    /// Returns the numbers of all channels, in ascending order.
    pub(crate) fn numbers(&self) -> Vec<u16> {
        self.by_number.values().map(|channel| channel.number).collect()
    }

    /// Returns the channel `number`, or `None` if it is not open.
    #[inline]
    pub(crate) fn find(&mut self, number: u16) -> Option<&mut Channel> {
        self.by_number.get_mut(usize::from(number))?.as_deref_mut()
    }

    /// Returns the channel `number`.
    ///
    /// # Errors
    /// 504 if it is not open.
    #[inline]
    pub(crate) fn get(&mut self, number: u16) -> Result<&mut Channel, Failure> {
        self.find(number).ok_or_else(|| {
            let text = format!("expected 'channel.open' on channel {number}, which is not open");
            Failure::new(ReplyCode::ChannelError, text)
        })
    }

    /// Opens a channel and answers the client.
    ///
    /// # Errors
    /// 504 if the channel is open, 530 if there are as many channels as were agreed upon, 506 if the node has no memory
    /// for it.
    pub(crate) fn open(&mut self, context: &Context, number: u16) -> Result<(), Failure> {
        if self.is_open(number) {
            let text = format!("second 'channel.open' seen on channel {number}");
            return Err(Failure::new(ReplyCode::ChannelError, text));
        }
        let (open, channel_max) = (self.count, context.connection.channel_max);
        if channel_max != 0 && open >= channel_max {
            let text =
                format!("number of channels opened ({open}) has reached the negotiated channel_max ({channel_max})");
            return Err(Failure::new(ReplyCode::NotAllowed, text));
        }
        let opened = context.broker.count_opened(CHANNEL_BYTES)?;
        self.count += 1;
        context.broker.churn().channels_opened.fetch_add(1, Relaxed);
        let view = Arc::new(ChannelView::default());
        context.connection.channels.lock().insert(number, view.clone());
        *self.by_number.place(usize::from(number)) = Some(Box::new(Channel::new(number, view.clone(), opened)));
        context.output.write(|state| {
            state.open_ledger(number, view);
            encode::channel_open_ok(&mut state.buffer, number);
        });
        Ok(())
    }

    /// Ends everything that a channel has: its consumers are removed, and its unacknowledged messages return to their
    /// queues.
    pub(crate) async fn release(&mut self, context: &Context, settler: &mut Settler, number: u16) {
        let Some(channel) = self.find(number) else { return };
        channel.assembly = None;
        let consumers: Vec<_> = channel.consumers.drain().map(|(_, consumer)| consumer).collect();
        let ledger = context.output.lock().close_channel(number);
        for consumer in &consumers {
            context.broker.unsubscribe(&consumer.queue, consumer.id);
        }
        let settlement = &mut settler.settlement;
        if let Some(mut ledger) = ledger {
            while ledger.take_up_to(u64::MAX, |from, id| settlement.add(from, id, Outcome::Returned)) {
                context.broker.settle(settlement, Outcome::Returned);
                tokio::task::yield_now().await;
            }
        }
        context.broker.settle(settlement, Outcome::Returned);
        for consumer in &consumers {
            context.broker.consumer_left(&consumer.queue).await;
        }
        context.connection.channels.lock().remove(&number);
    }

    /// Removes a channel that was released; its number may be opened again.
    pub(crate) fn forget(&mut self, context: &Context, number: u16) {
        if self.by_number.take(usize::from(number)).is_some() {
            self.count -= 1;
            context.broker.churn().channels_closed.fetch_add(1, Relaxed);
        }
    }
}

/// The approximate memory of a channel, in bytes.
const CHANNEL_BYTES: u64 = 1 << 10;
