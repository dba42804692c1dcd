//! The methods that a client may call, and the handler of each.
use super::channels::Channels;
use super::consume::Qos;
use super::settle::{Settle, Settler};
use super::{Channel, consume, declare};
use crate::codec::encode;
use crate::codec::ids::MethodId;
use crate::codec::method::Method;
use crate::codec::reply::ReplyCode;
use crate::connection::context::Context;
use crate::connection::failure::Failure;
use crate::connection::turn::Turn;
use leveret_node::{DeleteOnly, Outcome};
use std::sync::atomic::Ordering::Relaxed;

/// Handles a method on channel 0, other than the one that closes the connection.
pub(crate) fn on_connection(context: &Context, method: &Method<'_>) -> Result<(), Failure> {
    match method {
        // A client that renews its credentials keeps those with which it logged in.
        Method::ConnectionUpdateSecret { .. } => {
            let answer = MethodId::CONNECTION_UPDATE_SECRET_OK;
            context.output.write(|state| encode::bare(&mut state.buffer, 0, answer));
            Ok(())
        }
        Method::ConnectionBlocked { .. } | Method::ConnectionUnblocked => Ok(()),
        Method::ConnectionStartOk { .. }
        | Method::ConnectionSecureOk { .. }
        | Method::ConnectionTuneOk { .. }
        | Method::ConnectionOpen { .. }
        | Method::ConnectionCloseOk => {
            Err(Failure::new(ReplyCode::CommandInvalid, "method out of sequence on an open connection"))
        }
        _ => {
            let text = "only methods of class connection are allowed on channel 0";
            Err(Failure::new(ReplyCode::ChannelError, text))
        }
    }
}

/// Handles the methods of channels, with all parts of the connection that the handlers may change.
pub(crate) struct Dispatcher<'s> {
    /// The way to the broker and back to the client.
    pub(crate) context: &'s Context,
    /// The channels of the connection.
    pub(crate) channels: &'s mut Channels,
    /// Settles deliveries.
    pub(crate) settler: &'s mut Settler,
    /// The work of the methods is counted here.
    pub(crate) turn: &'s mut Turn,
}

impl Dispatcher<'_> {
    /// Handles a method on channel `number`.
    ///
    /// # Errors
    /// The failure that ends the channel or the connection.
    pub(crate) async fn handle(&mut self, number: u16, method: Method<'_>) -> Result<(), Failure> {
        if let Method::ChannelOpen = method {
            return self.channels.open(self.context, number);
        }
        if !self.channels.is_open(number) && is_harmless(&method) {
            return Ok(());
        }
        let channel = self.channels.get(number)?;
        if channel.closing {
            self.while_closing(number, &method);
            return Ok(());
        }
        if channel.assembly.is_some() {
            let text = "expected a content header or body, got a method frame";
            return Err(Failure::new(ReplyCode::UnexpectedFrame, text));
        }
        self.on_open_channel(number, method).await
    }

    async fn on_open_channel(&mut self, number: u16, method: Method<'_>) -> Result<(), Failure> {
        let context = self.context;
        match method {
            Method::ChannelClose(_) => self.close_channel(number).await,
            Method::ChannelCloseOk | Method::ChannelFlowOk { .. } | Method::BasicCancelOk { .. } => {}
            Method::AccessRequest => context.output.write(|state| encode::access_request_ok(&mut state.buffer, number)),
            Method::ChannelFlow { active: true } => {
                context.output.write(|state| encode::channel_flow_ok(&mut state.buffer, number, true));
            }
            Method::ChannelFlow { active: false } => {
                return Err(Failure::new(ReplyCode::NotImplemented, "active=false"));
            }
            Method::ConfirmSelect { no_wait } => confirm_select(context, self.channels.get(number)?, no_wait),
            Method::TxSelect | Method::TxCommit | Method::TxRollback => {
                let text = "transactions (class tx) are not supported: use publisher confirms";
                return Err(Failure::new(ReplyCode::NotImplemented, text));
            }
            Method::ExchangeDeclare(declare) => declare::exchange_declare(context, number, declare).await?,
            Method::ExchangeDelete { exchange, if_unused, no_wait } => {
                declare::exchange_delete(context, number, exchange, if_unused, no_wait).await?;
            }
            Method::ExchangeBind(binding) => declare::exchange_bind(context, number, &binding, true).await?,
            Method::ExchangeUnbind(binding) => declare::exchange_bind(context, number, &binding, false).await?,
            Method::BasicConsume(consume) => {
                let consumers = self.channels.consumers();
                consume::consume(context, self.channels.get(number)?, consumers, &consume).await?;
            }
            on_queue_or_basic => self.on_queue(number, on_queue_or_basic).await?,
        }
        Ok(())
    }

    async fn on_queue(&mut self, number: u16, method: Method<'_>) -> Result<(), Failure> {
        let context = self.context;
        let channel = self.channels.get(number)?;
        match method {
            Method::QueueDeclare(declare) => declare::queue_declare(context, channel, declare).await,
            Method::QueueBind(binding) => declare::queue_bind(context, channel, &binding, true).await,
            Method::QueueUnbind(binding) => declare::queue_bind(context, channel, &binding, false).await,
            Method::QueuePurge { queue, no_wait } => declare::queue_purge(context, channel, queue, no_wait).await,
            Method::QueueDelete { queue, if_unused, if_empty, no_wait } => {
                declare::queue_delete(context, channel, queue, DeleteOnly { if_unused, if_empty }, no_wait).await
            }
            Method::BasicCancel { consumer_tag, no_wait } => {
                consume::cancel(context, channel, consumer_tag, no_wait).await
            }
            Method::BasicGet { queue, no_ack } => consume::get(context, channel, queue, no_ack).await,
            Method::BasicQos { prefetch_size, prefetch_count, global } => {
                consume::qos(context, channel, &Qos { prefetch_size, prefetch_count, global })
            }
            settling => self.on_settling(number, settling).await,
        }
    }

    async fn on_settling(&mut self, number: u16, method: Method<'_>) -> Result<(), Failure> {
        let settled = |requeue| if requeue { Outcome::Returned } else { Outcome::Rejected };
        let settle = match method {
            Method::BasicNack { delivery_tag, multiple, requeue } => {
                Settle { channel: number, tag: delivery_tag, multiple, outcome: settled(requeue) }
            }
            Method::BasicReject { delivery_tag, requeue } => {
                Settle { channel: number, tag: delivery_tag, multiple: false, outcome: settled(requeue) }
            }
            Method::BasicRecover { requeue } => self.recover(number, requeue, true)?,
            Method::BasicRecoverAsync { requeue } => self.recover(number, requeue, false)?,
            // `Session` handles these methods; only malformed ones get here.
            Method::BasicPublish(_) | Method::BasicAck(_) => {
                return Err(Failure::new(ReplyCode::CommandInvalid, "unexpected publish or ack"));
            }
            _ => {
                let text = "methods of class connection are allowed on channel 0 only";
                return Err(Failure::new(ReplyCode::CommandInvalid, text));
            }
        };
        self.settler.settle(self.context, self.turn, settle).await
    }

    /// Handles `basic.recover` with requeue: all unacknowledged deliveries of the channel return to their queues.
    fn recover(&self, number: u16, requeue: bool, answer: bool) -> Result<Settle, Failure> {
        if !requeue {
            return Err(Failure::new(ReplyCode::NotImplemented, "requeue=false"));
        }
        if answer {
            self.context.output.write(|state| encode::bare(&mut state.buffer, number, MethodId::BASIC_RECOVER_OK));
        }
        Ok(Settle { channel: number, tag: 0, multiple: true, outcome: Outcome::Returned })
    }

    /// Handles a method on a channel that the broker closed: only a method that completes the close counts.
    fn while_closing(&mut self, number: u16, method: &Method<'_>) {
        match method {
            Method::ChannelCloseOk => self.channels.forget(self.context, number),
            // Both sides closed the channel at the same time: the client is answered, and its own answer is still to
            // come.
            Method::ChannelClose(_) => self.close_ok(number),
            _ => {}
        }
    }

    async fn close_channel(&mut self, number: u16) {
        self.channels.release(self.context, self.settler, number).await;
        self.channels.forget(self.context, number);
        self.close_ok(number);
    }

    fn close_ok(&self, number: u16) {
        self.context.output.write(|state| encode::bare(&mut state.buffer, number, MethodId::CHANNEL_CLOSE_OK));
    }
}

fn confirm_select(context: &Context, channel: &mut Channel, no_wait: bool) {
    channel.unlogged.get_or_insert(0);
    channel.view.confirm.store(true, Relaxed);
    context.output.lock().confirms.open(channel.number);
    if !no_wait {
        context.output.write(|state| encode::bare(&mut state.buffer, channel.number, MethodId::CONFIRM_SELECT_OK));
    }
}

/// Returns whether a client may send the method to a channel that is closed already: an acknowledgement, whose delivery
/// returned to its queue with the close, or the answer to a close.
fn is_harmless(method: &Method<'_>) -> bool {
    matches!(
        method,
        Method::BasicAck(_) | Method::BasicNack { .. } | Method::BasicReject { .. } | Method::ChannelCloseOk
    )
}
