//! Which method a client called, and who handles it.
use crate::codec::encode;
use crate::codec::method::{self, Method};
use crate::connection::failure::Failure;
use crate::connection::session::Session;
use leveret_node::{DeleteOnly, Outcome};
use std::sync::atomic::Ordering::Relaxed;

impl Session {
    /// A method frame: what was gathered before is handed over first.
    pub(crate) async fn method(&mut self, buffer: &[u8], number: u16, payload: &[u8]) -> Result<(), Failure> {
        let (class, id) = method::ids(payload);
        self.flush_noted(buffer);
        self.flush_acks().await?;
        self.forget_cancelled(number);
        let method = method::parse(payload).map_err(|error| {
            let (class, id) = error.ids();
            Failure::new(error.reply_code(), error.to_string()).caused_by(class, id)
        })?;
        let result = if number == 0 { self.on_connection(method) } else { self.on_channel(number, method).await };
        result.map_err(|failure| failure.caused_by(class, id))
    }

    fn on_connection(&mut self, method: Method<'_>) -> Result<(), Failure> {
        match method {
            Method::ConnectionClose { code, text } => {
                tracing::debug!(connection = self.connection.name, code, text, "client closes the connection");
                self.finished = true;
                Ok(())
            }
            // A client that cannot be talked into new credentials keeps those that it came with.
            Method::ConnectionUpdateSecret { .. } => {
                self.output.write(|state| encode::bare(&mut state.buffer, 0, (10, 71)));
                Ok(())
            }
            Method::ConnectionBlocked { .. } | Method::ConnectionUnblocked => Ok(()),
            Method::ConnectionStartOk { .. }
            | Method::ConnectionSecureOk { .. }
            | Method::ConnectionTuneOk { .. }
            | Method::ConnectionOpen { .. }
            | Method::ConnectionCloseOk => Err(Failure::new(503, "method out of sequence on an open connection")),
            _ => Err(Failure::new(504, "only methods of class connection are allowed on channel 0")),
        }
    }

    async fn on_channel(&mut self, number: u16, method: Method<'_>) -> Result<(), Failure> {
        if let Method::ChannelOpen = method {
            return self.open_channel(number);
        }
        if !self.is_open(number) && is_harmless(&method) {
            return Ok(());
        }
        let channel = self.channel(number)?;
        if channel.closing {
            return self.while_closing(number, &method);
        }
        if channel.assembly.is_some() {
            return Err(Failure::new(505, "expected a content header or body, got a method frame"));
        }
        match method {
            Method::ChannelClose { .. } => self.close_channel(number).await,
            Method::ChannelCloseOk | Method::ChannelFlowOk { .. } | Method::BasicCancelOk { .. } => {}
            Method::AccessRequest => self.output.write(|state| encode::access_request_ok(&mut state.buffer, number)),
            Method::ChannelFlow { active: true } => {
                self.output.write(|state| encode::channel_flow_ok(&mut state.buffer, number, true));
            }
            Method::ChannelFlow { active: false } => return Err(Failure::new(540, "active=false")),
            Method::ConfirmSelect { no_wait } => self.confirm_select(number, no_wait)?,
            Method::TxSelect | Method::TxCommit | Method::TxRollback => {
                return Err(Failure::new(540, "transactions (class tx) are not supported: use publisher confirms"));
            }
            Method::ExchangeDeclare(declare) => self.exchange_declare(number, declare).await?,
            Method::ExchangeDelete { exchange, if_unused, no_wait } => {
                self.exchange_delete(number, exchange, if_unused, no_wait).await?;
            }
            Method::ExchangeBind(binding) => self.exchange_bind(number, &binding, true).await?,
            Method::ExchangeUnbind(binding) => self.exchange_bind(number, &binding, false).await?,
            Method::QueueDeclare(declare) => self.queue_declare(number, declare).await?,
            Method::QueueBind(binding) => self.queue_bind(number, &binding, true).await?,
            Method::QueueUnbind(binding) => self.queue_bind(number, &binding, false).await?,
            Method::QueuePurge { queue, no_wait } => self.queue_purge(number, queue, no_wait).await?,
            Method::QueueDelete { queue, if_unused, if_empty, no_wait } => {
                self.queue_delete(number, queue, DeleteOnly { if_unused, if_empty }, no_wait).await?;
            }
            Method::BasicCancel { consumer_tag, no_wait } => self.cancel(number, consumer_tag, no_wait).await?,
            Method::BasicGet { queue, no_ack } => self.get(number, queue, no_ack).await?,
            basic => self.basic(number, basic).await?,
        }
        Ok(())
    }

    async fn basic(&mut self, number: u16, method: Method<'_>) -> Result<(), Failure> {
        let settled = |requeue| if requeue { Outcome::Returned } else { Outcome::Rejected };
        match method {
            Method::BasicQos { prefetch_size, prefetch_count, global } => {
                self.qos(number, (prefetch_size, prefetch_count), global)
            }
            Method::BasicConsume(consume) => self.consume(number, &consume),
            Method::BasicNack { delivery_tag, multiple, requeue } => {
                self.settle(number, delivery_tag, multiple, settled(requeue)).await
            }
            Method::BasicReject { delivery_tag, requeue } => {
                self.settle(number, delivery_tag, false, settled(requeue)).await
            }
            Method::BasicRecover { requeue } => self.recover(number, requeue, true).await,
            Method::BasicRecoverAsync { requeue } => self.recover(number, requeue, false).await,
            // Both are taken before they come here, but for what is not expected at all.
            Method::BasicPublish(_) | Method::BasicAck(_) => Err(Failure::new(503, "unexpected publish or ack")),
            _ => Err(Failure::new(503, "methods of class connection are allowed on channel 0 only")),
        }
    }

    /// We closed the channel: only the end of it counts.
    fn while_closing(&mut self, number: u16, method: &Method<'_>) -> Result<(), Failure> {
        match method {
            Method::ChannelCloseOk => self.forget_channel(number),
            Method::ChannelClose { .. } => {
                // Both closed at once: the client is answered, its answer to us is still to come.
                self.output.write(|state| encode::bare(&mut state.buffer, number, (20, 41)));
            }
            _ => {}
        }
        Ok(())
    }

    async fn close_channel(&mut self, number: u16) {
        self.release_channel(number).await;
        self.forget_channel(number);
        self.output.write(|state| encode::bare(&mut state.buffer, number, (20, 41)));
    }

    fn confirm_select(&mut self, number: u16, no_wait: bool) -> Result<(), Failure> {
        let channel = self.channel(number)?;
        channel.confirm = true;
        channel.view.confirm.store(true, Relaxed);
        self.output.lock().open_confirms(number);
        if !no_wait {
            self.output.write(|state| encode::bare(&mut state.buffer, number, (85, 11)));
        }
        Ok(())
    }
}

/// What a client may say too late: the channel is gone, and its deliveries with it.
fn is_harmless(method: &Method<'_>) -> bool {
    matches!(
        method,
        Method::BasicAck(_) | Method::BasicNack { .. } | Method::BasicReject { .. } | Method::ChannelCloseOk
    )
}
