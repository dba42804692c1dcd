//! Exchanges, queues and bindings: declared, bound, purged, deleted.
use crate::codec::encode;
use crate::codec::method::{ExchangeBinding, ExchangeDeclare, QueueBinding, QueueDeclare};
use crate::connection::failure::Failure;
use crate::connection::session::Session;
use leveret_model::name::without_line_breaks;
use leveret_node::DeleteOnly;
use leveret_node::catalog::{self, BindingDeclare, Destination};

impl Session {
    pub(crate) async fn exchange_declare(&self, number: u16, declare: ExchangeDeclare<'_>) -> Result<(), Failure> {
        if declare.passive {
            self.broker.check_exchange(&self.connection.caller, &self.vhost, declare.exchange)?;
        } else {
            let ExchangeDeclare { durable, auto_delete, internal, arguments, .. } = declare;
            let kind = declare.kind.parse()?;
            let new = catalog::ExchangeDeclare { kind, durable, auto_delete, internal, arguments };
            self.broker.declare_exchange(&self.connection.caller, &self.vhost, declare.exchange, new).await?;
        }
        self.answer(number, (40, 11), declare.no_wait);
        Ok(())
    }

    pub(crate) async fn exchange_delete(
        &self,
        number: u16,
        exchange: &str,
        if_unused: bool,
        no_wait: bool,
    ) -> Result<(), Failure> {
        self.broker.delete_exchange(&self.connection.caller, &self.vhost, exchange, if_unused).await?;
        self.answer(number, (40, 21), no_wait);
        Ok(())
    }

    pub(crate) async fn exchange_bind(
        &self,
        number: u16,
        binding: &ExchangeBinding<'_>,
        bind: bool,
    ) -> Result<(), Failure> {
        let &ExchangeBinding { destination, source, routing_key, no_wait, ref arguments } = binding;
        let destination = Destination::Exchange(destination.to_owned());
        let binding = BindingDeclare { source, destination: &destination, routing_key, arguments };
        self.bind_or_unbind(binding, bind).await?;
        self.answer(number, (40, if bind { 31 } else { 51 }), no_wait);
        Ok(())
    }

    async fn bind_or_unbind(&self, binding: BindingDeclare<'_>, bind: bool) -> Result<(), Failure> {
        if bind {
            self.broker.bind(&self.connection.caller, &self.vhost, binding).await?;
        } else {
            self.broker.unbind(&self.connection.caller, &self.vhost, binding).await?;
        }
        Ok(())
    }

    pub(crate) async fn queue_declare(&mut self, number: u16, declare: QueueDeclare<'_>) -> Result<(), Failure> {
        let asked = without_line_breaks(declare.queue);
        let server_named = asked.is_empty() && !declare.passive;
        let name = match &*asked {
            "" if server_named => format!("amq.gen-{}", self.broker.random_name()),
            _ => self.queue_name(number, &asked)?,
        };
        let queue = if declare.passive {
            let queue = self.broker.find_queue(&self.connection.caller, &self.vhost, &name)?;
            queue.caught_up().await;
            queue
        } else {
            let QueueDeclare { durable, exclusive, auto_delete, arguments, .. } = declare;
            let new = catalog::QueueDeclare { durable, exclusive, auto_delete, arguments, server_named };
            self.broker.declare_queue(&self.connection.caller, &self.vhost, &name, new).await?.1
        };
        let depth = queue.look(|queue| queue.depth());
        self.channel(number)?.last_queue = Some(name);
        if !declare.no_wait {
            let (ready, consumers) = (to_u32(depth.ready), depth.consumers as u32);
            self.output.write(|state| {
                encode::queue_declare_ok(&mut state.buffer, number, &queue.name, ready, consumers);
            });
        }
        Ok(())
    }

    pub(crate) async fn queue_bind(
        &mut self,
        number: u16,
        binding: &QueueBinding<'_>,
        bind: bool,
    ) -> Result<(), Failure> {
        let &QueueBinding { queue, exchange, routing_key, no_wait, ref arguments } = binding;
        let name = self.queue_name(number, queue)?;
        // With neither queue nor key, the key too means the queue declared last (0-9-1 spec, queue.bind).
        let shortcut = queue.is_empty() && routing_key.is_empty();
        let routing_key = if shortcut { name.as_bytes() } else { routing_key };
        let destination = Destination::Queue(name.clone());
        let binding = BindingDeclare { source: exchange, destination: &destination, routing_key, arguments };
        self.bind_or_unbind(binding, bind).await?;
        self.answer(number, (50, if bind { 21 } else { 51 }), no_wait);
        Ok(())
    }

    pub(crate) async fn queue_purge(&mut self, number: u16, queue: &str, no_wait: bool) -> Result<(), Failure> {
        let name = self.queue_name(number, queue)?;
        let purged = self.broker.purge_queue(&self.connection.caller, &self.vhost, &name).await?;
        if !no_wait {
            self.output.write(|state| encode::message_count(&mut state.buffer, number, (50, 31), to_u32(purged)));
        }
        Ok(())
    }

    pub(crate) async fn queue_delete(
        &mut self,
        number: u16,
        queue: &str,
        only: DeleteOnly,
        no_wait: bool,
    ) -> Result<(), Failure> {
        let name = self.queue_name(number, queue)?;
        let deleted = match self.broker.delete_queue(&self.connection.caller, &self.vhost, &name, only).await {
            // A queue that is not there is as good as deleted (RabbitMQ: observed).
            Err(refusal) if refusal.kind.reply_code() == 404 => None,
            other => Some(other?),
        };
        if !no_wait {
            let ready = to_u32(deleted.as_ref().map_or(0, |deleted| deleted.ready));
            self.output.write(|state| encode::message_count(&mut state.buffer, number, (50, 41), ready));
        }
        // Now its consumers are told, those of this channel among them: after the answer.
        drop(deleted);
        self.forget_cancelled(number);
        Ok(())
    }

    /// The queue that a name means: an empty one means the queue declared last on this channel.
    pub(crate) fn queue_name(&mut self, number: u16, name: &str) -> Result<String, Failure> {
        if !name.is_empty() {
            return Ok(name.to_owned());
        }
        let last = self.channel(number)?.last_queue.clone();
        last.ok_or_else(|| Failure::new(404, "no previously declared queue"))
    }

    fn answer(&self, number: u16, ids: (u16, u16), no_wait: bool) {
        if !no_wait {
            self.output.write(|state| encode::bare(&mut state.buffer, number, ids));
        }
    }
}

fn to_u32(count: u64) -> u32 {
    count.min(u64::from(u32::MAX)) as u32
}
