//! The methods of exchanges and queues: declare, bind, purge, delete.
use super::Channel;
use crate::codec::encode;
use crate::codec::ids::MethodId;
use crate::codec::method::{ExchangeBinding, ExchangeDeclareMethod, QueueBinding, QueueDeclareMethod};
use crate::connection::context::Context;
use crate::connection::failure::Failure;
use leveret_model::name::without_line_breaks;
use leveret_model::refusal::RefusalKind;
use leveret_node::DeleteOnly;
use leveret_node::catalog::{self, BindingDeclare, Destination};

/// Handles `exchange.declare`.
pub(super) async fn exchange_declare(
    context: &Context,
    number: u16,
    declare: ExchangeDeclareMethod<'_>,
) -> Result<(), Failure> {
    if declare.passive {
        context.broker.check_exchange(context.caller(), context.vhost(), declare.exchange)?;
    } else {
        let ExchangeDeclareMethod { durable, auto_delete, internal, arguments, .. } = declare;
        let kind = declare.kind.parse()?;
        let new = catalog::ExchangeDeclare { kind, durable, auto_delete, internal, arguments };
        context.broker.declare_exchange(context.caller(), context.vhost(), declare.exchange, new).await?;
    }
    answer(context, number, MethodId::EXCHANGE_DECLARE_OK, declare.no_wait);
    Ok(())
}

/// Handles `exchange.delete`.
pub(super) async fn exchange_delete(
    context: &Context,
    number: u16,
    exchange: &str,
    if_unused: bool,
    no_wait: bool,
) -> Result<(), Failure> {
    context.broker.delete_exchange(context.caller(), context.vhost(), exchange, if_unused).await?;
    answer(context, number, MethodId::EXCHANGE_DELETE_OK, no_wait);
    Ok(())
}

/// Handles `exchange.bind` or, unless `bind`, `exchange.unbind`.
pub(super) async fn exchange_bind(
    context: &Context,
    number: u16,
    binding: &ExchangeBinding<'_>,
    bind: bool,
) -> Result<(), Failure> {
    let &ExchangeBinding { destination, source, routing_key, no_wait, ref arguments } = binding;
    let destination = Destination::Exchange(destination.to_owned());
    bind_or_unbind(context, BindingDeclare { source, destination: &destination, routing_key, arguments }, bind).await?;
    answer(context, number, if bind { MethodId::EXCHANGE_BIND_OK } else { MethodId::EXCHANGE_UNBIND_OK }, no_wait);
    Ok(())
}

/// Handles `queue.declare`.
pub(super) async fn queue_declare(
    context: &Context,
    channel: &mut Channel,
    declare: QueueDeclareMethod<'_>,
) -> Result<(), Failure> {
    let asked = without_line_breaks(declare.queue);
    let server_named = asked.is_empty() && !declare.passive;
    let name = match &*asked {
        "" if server_named => format!("amq.gen-{}", context.broker.random_name()),
        _ => channel.queue_name(&asked)?,
    };
    let queue = if declare.passive {
        let queue = context.broker.find_queue(context.caller(), context.vhost(), &name)?;
        queue.caught_up().await;
        queue
    } else {
        let QueueDeclareMethod { durable, exclusive, auto_delete, arguments, .. } = declare;
        let new = catalog::QueueDeclare { durable, exclusive, auto_delete, arguments, server_named };
        context.broker.declare_queue(context.caller(), context.vhost(), &name, new).await?.1
    };
    let depth = context.broker.depth(&queue).await?;
    channel.last_queue = Some(name);
    if !declare.no_wait {
        let (ready, consumers) = (to_u32(depth.ready), depth.consumers as u32);
        context.output.write(|state| {
            encode::queue_declare_ok(&mut state.buffer, channel.number, &queue.name, ready, consumers);
        });
    }
    Ok(())
}

/// Handles `queue.bind` or, unless `bind`, `queue.unbind`.
pub(super) async fn queue_bind(
    context: &Context,
    channel: &Channel,
    binding: &QueueBinding<'_>,
    bind: bool,
) -> Result<(), Failure> {
    let &QueueBinding { queue, exchange, routing_key, no_wait, ref arguments } = binding;
    let name = channel.queue_name(queue)?;
    // If neither queue nor key is given, the key is the name of the queue declared last (0-9-1 spec, queue.bind).
    let shortcut = queue.is_empty() && routing_key.is_empty();
    let routing_key = if shortcut { name.as_bytes() } else { routing_key };
    let destination = Destination::Queue(name.clone());
    let binding = BindingDeclare { source: exchange, destination: &destination, routing_key, arguments };
    bind_or_unbind(context, binding, bind).await?;
    answer(context, channel.number, if bind { MethodId::QUEUE_BIND_OK } else { MethodId::QUEUE_UNBIND_OK }, no_wait);
    Ok(())
}

/// Handles `queue.purge`.
pub(super) async fn queue_purge(
    context: &Context,
    channel: &Channel,
    queue: &str,
    no_wait: bool,
) -> Result<(), Failure> {
    let name = channel.queue_name(queue)?;
    let purged = context.broker.purge_queue(context.caller(), context.vhost(), &name).await?;
    if !no_wait {
        context.output.write(|state| encode::queue_purge_ok(&mut state.buffer, channel.number, to_u32(purged)));
    }
    Ok(())
}

/// Handles `queue.delete`.
pub(super) async fn queue_delete(
    context: &Context,
    channel: &mut Channel,
    queue: &str,
    only: DeleteOnly,
    no_wait: bool,
) -> Result<(), Failure> {
    let name = channel.queue_name(queue)?;
    let deleted = match context.broker.delete_queue(context.caller(), context.vhost(), &name, only).await {
        // Deleting a queue that does not exist succeeds (RabbitMQ: observed).
        Err(refusal) if refusal.kind == RefusalKind::NotFound => None,
        other => Some(other?),
    };
    if !no_wait {
        let ready = to_u32(deleted.as_ref().map_or(0, |deleted| deleted.ready));
        context.output.write(|state| encode::queue_delete_ok(&mut state.buffer, channel.number, ready));
    }
    // Dropping this tells the queue's consumers that they are cancelled. Some may be on this channel, whose client has to
    // get the answer first.
    drop(deleted);
    channel.forget_cancelled(&context.output);
    Ok(())
}

async fn bind_or_unbind(context: &Context, binding: BindingDeclare<'_>, bind: bool) -> Result<(), Failure> {
    if bind {
        context.broker.bind(context.caller(), context.vhost(), binding).await?;
    } else {
        context.broker.unbind(context.caller(), context.vhost(), binding).await?;
    }
    Ok(())
}

fn answer(context: &Context, number: u16, id: MethodId, no_wait: bool) {
    if !no_wait {
        context.output.write(|state| encode::bare(&mut state.buffer, number, id));
    }
}

fn to_u32(count: u64) -> u32 {
    count.min(u64::from(u32::MAX)) as u32
}
