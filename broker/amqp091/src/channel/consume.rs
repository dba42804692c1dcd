//! `basic.consume`, `cancel`, `get`, `qos`.
use super::deliver::{ConsumerSink, GetSink};
use super::settle::give_turns;
use super::{Channel, ChannelConsumer};
use crate::codec::encode;
use crate::codec::ids::MethodId;
use crate::codec::method::BasicConsume;
use crate::codec::reply::ReplyCode;
use crate::connection::context::Context;
use crate::connection::failure::Failure;
use leveret_node::Subscription;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};

/// Handles `basic.consume` on a connection that already has `consumers` consumers.
pub(super) async fn consume(
    context: &Context,
    channel: &mut Channel,
    consumers: usize,
    consume: &BasicConsume<'_>,
) -> Result<(), Failure> {
    if let Some((name, _)) = consume.arguments.0.iter().find(|(name, _)| name.starts_with("x-") && name != IDLE) {
        let text = format!("invalid arg '{name}' for basic.consume: not supported");
        return Err(Failure::new(ReplyCode::PreconditionFailed, text));
    }
    if consumers >= CONSUMERS_MAX {
        let text = format!("reached maximum ({CONSUMERS_MAX}) of consumers per connection");
        return Err(Failure::new(ReplyCode::NotAllowed, text));
    }
    let Context { broker, connection, output, capabilities, .. } = context;
    let name = channel.queue_name(consume.queue)?;
    let queue = broker.find_queue(context.caller(), context.vhost(), &name)?;
    let tag: Box<str> = match consume.consumer_tag {
        "" => format!("amq.ctag-{}", broker.random_name()).into(),
        tag => tag.into(),
    };
    let opened = broker.count_opened(CONSUMER_BYTES)?;
    if channel.consumers.contains_key(&tag) {
        return Err(Failure::new(ReplyCode::NotAllowed, format!("attempt to reuse consumer tag '{tag}'")));
    }
    let number = channel.number;
    broker.claim(&queue, consume.exclusive).await?;
    let Some(subscriber) = output.lock().ledger(number).map(|ledger| ledger.open(queue.clone())) else {
        broker.unclaim(&queue);
        return Ok(());
    };
    let sink = Arc::new(ConsumerSink {
        output: output.clone(),
        queue: queue.clone(),
        connection: connection.id,
        channel: number,
        subscriber,
        tag: tag.clone(),
        no_ack: consume.no_ack,
        no_wait: consume.no_wait,
        notify_cancel: capabilities.consumer_cancel_notify,
        id: OnceLock::new(),
        cancelled: channel.cancelled.clone(),
    });
    let (exclusive, no_ack, prefetch) = (consume.exclusive, consume.no_ack, channel.prefetch);
    let subscription = Subscription { sink, exclusive, no_ack, prefetch };
    match broker.subscribe(context.caller(), &queue, subscription) {
        Ok(id) => {
            channel.consumers.insert(tag, ChannelConsumer { queue, id, subscriber, _opened: opened });
            channel.view.consumers.store(channel.consumers.len() as u32, Relaxed);
            Ok(())
        }
        Err(refusal) => {
            broker.unclaim(&queue);
            if let Some(ledger) = output.lock().ledger(number) {
                ledger.end(subscriber);
            }
            Err(refusal.into())
        }
    }
}

/// Handles `basic.cancel`: ends a consumer. Its deliveries stay unacknowledged until the client settles them.
pub(super) async fn cancel(context: &Context, channel: &mut Channel, tag: &str, no_wait: bool) -> Result<(), Failure> {
    let consumer = channel.consumers.remove(tag);
    channel.view.consumers.store(channel.consumers.len() as u32, Relaxed);
    if let Some(consumer) = &consumer {
        context.broker.unsubscribe(&consumer.queue, consumer.id);
        if let Some(ledger) = context.output.lock().ledger(channel.number) {
            ledger.end(consumer.subscriber);
        }
    }
    if !no_wait {
        context.output.write(|state| encode::basic_cancel_ok(&mut state.buffer, channel.number, tag));
    }
    if let Some(consumer) = consumer {
        context.broker.consumer_left(&consumer.queue).await;
    }
    Ok(())
}

/// Handles `basic.get`.
pub(super) async fn get(context: &Context, channel: &Channel, queue: &str, no_ack: bool) -> Result<(), Failure> {
    let Context { broker, output, .. } = context;
    let (name, number) = (channel.queue_name(queue)?, channel.number);
    let queue = broker.find_queue(context.caller(), context.vhost(), &name)?;
    let Some(subscriber) = output.lock().ledger(number).map(|ledger| ledger.open_for_gets(queue.clone())) else {
        return Ok(());
    };
    let sink = GetSink { output, channel: number, subscriber, no_ack };
    let got = broker.get(context.caller(), &queue, &sink, no_ack).await;
    output.write(|state| {
        if let Some(ledger) = state.ledger(number) {
            ledger.end(subscriber);
        }
        if matches!(got, Ok(false)) {
            encode::basic_get_empty(&mut state.buffer, number);
        }
    });
    got?;
    Ok(())
}

/// The arguments of `basic.qos`.
pub(super) struct Qos {
    pub(super) prefetch_size: u32,
    pub(super) prefetch_count: u16,
    pub(super) global: bool,
}

/// Handles `basic.qos`, which applies to further consumers or, if it is `global`, to the whole channel.
pub(super) fn qos(context: &Context, channel: &mut Channel, qos: &Qos) -> Result<(), Failure> {
    let &Qos { prefetch_size, prefetch_count, global } = qos;
    if prefetch_size != 0 {
        return Err(Failure::new(ReplyCode::NotImplemented, format!("prefetch_size!=0 ({prefetch_size})")));
    }
    let count = u32::from(prefetch_count);
    if global {
        channel.view.global_prefetch.store(count, Relaxed);
    } else {
        channel.prefetch = count;
        channel.view.prefetch.store(count, Relaxed);
    }
    context.output.write(|state| {
        if let Some(ledger) = state.ledger(channel.number).filter(|_| global) {
            ledger.set_limit(count);
        }
        encode::bare(&mut state.buffer, channel.number, MethodId::BASIC_QOS_OK);
    });
    give_turns(context, channel.number);
    Ok(())
}

/// The name of an argument that is accepted and has no effect, as in RabbitMQ 4.
const IDLE: &str = "x-cancel-on-ha-failover";
/// The approximate memory of a consumer, in bytes.
const CONSUMER_BYTES: u64 = 1 << 10;
/// The most consumers of one connection.
const CONSUMERS_MAX: usize = 16_384;
