//! Checks of exchanges and queues.

use anyhow::{Context, Result, ensure};
use lapin::options::{
    BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, ExchangeDeclareOptions, ExchangeDeleteOptions,
    QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};

use crate::broker::{Broker, consume, declare, drain, equal, exclusive, fill, passive, ready, send, take, within};
use crate::deliveries::wait_ready;

const IF_UNUSED: QueueDeleteOptions = QueueDeleteOptions { if_unused: true, if_empty: false, nowait: false };
const IF_EMPTY: QueueDeleteOptions = QueueDeleteOptions { if_unused: false, if_empty: true, nowait: false };

pub(crate) async fn declare_exchange(
    channel: &Channel,
    name: &str,
    kind: ExchangeKind,
    options: ExchangeDeclareOptions,
) -> Result<()> {
    Ok(within(channel.exchange_declare(name.into(), kind, options, FieldTable::default()), "exchange.declare-ok")
        .await??)
}

async fn passive_exchange(channel: &Channel, name: &str) -> Result<()> {
    declare_exchange(
        channel,
        name,
        ExchangeKind::Direct,
        ExchangeDeclareOptions { passive: true, ..Default::default() },
    )
    .await
}

pub(crate) async fn delete_exchange(channel: &Channel, name: &str, if_unused: bool) -> Result<()> {
    Ok(channel.exchange_delete(name.into(), ExchangeDeleteOptions { if_unused, ..Default::default() }).await?)
}

pub(crate) async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str) -> Result<()> {
    Ok(channel
        .queue_bind(queue.into(), exchange.into(), key.into(), QueueBindOptions::default(), FieldTable::default())
        .await?)
}

fn durable() -> ExchangeDeclareOptions {
    ExchangeDeclareOptions { durable: true, ..Default::default() }
}

pub(crate) async fn exchange_declare(broker: &Broker) -> Result<()> {
    let session = broker.channel().await?;
    for kind in [ExchangeKind::Direct, ExchangeKind::Fanout, ExchangeKind::Topic, ExchangeKind::Headers] {
        for options in [durable(), ExchangeDeclareOptions::default()] {
            let name = broker.name("exchange");
            for _ in 0..2 {
                declare_exchange(&session, &name, kind.clone(), options).await?;
            }
            passive_exchange(&session, &name).await?;
            delete_exchange(&session, &name, false).await?;
        }
    }
    session.close().await
}

pub(crate) async fn exchange_predeclared(broker: &Broker) -> Result<()> {
    let session = broker.channel().await?;
    for (name, kind) in [
        ("amq.direct", ExchangeKind::Direct),
        ("amq.fanout", ExchangeKind::Fanout),
        ("amq.topic", ExchangeKind::Topic),
        ("amq.headers", ExchangeKind::Headers),
        ("amq.match", ExchangeKind::Headers),
    ] {
        passive_exchange(&session, name).await?;
        declare_exchange(&session, name, kind, durable()).await?;
    }
    session.close().await
}

pub(crate) async fn exchange_missing(broker: &Broker) -> Result<()> {
    broker
        .refused(404, &["NOT_FOUND", "no-such-exchange", "vhost '/'"], async |channel| {
            passive_exchange(channel, "no-such-exchange").await
        })
        .await
}

pub(crate) async fn exchange_inequivalent(broker: &Broker) -> Result<()> {
    let (name, session) = (broker.name("exchange"), broker.channel().await?);
    declare_exchange(&session, &name, ExchangeKind::Direct, durable()).await?;
    for (kind, options) in [
        (ExchangeKind::Fanout, durable()),
        (ExchangeKind::Direct, ExchangeDeclareOptions::default()),
        (ExchangeKind::Direct, ExchangeDeclareOptions { auto_delete: true, ..durable() }),
    ] {
        let words = &["PRECONDITION_FAILED", "inequivalent arg", name.as_str()];
        broker.refused(406, words, async |channel| declare_exchange(channel, &name, kind, options).await).await?;
    }
    delete_exchange(&session, &name, false).await?;
    session.close().await
}

pub(crate) async fn exchange_reserved(broker: &Broker) -> Result<()> {
    broker
        .refused(403, &["ACCESS_REFUSED", "amq.mine"], async |channel| {
            declare_exchange(channel, "amq.mine", ExchangeKind::Direct, durable()).await
        })
        .await
}

/// RabbitMQ 4 closes the channel; 3.10 closed the connection with 503.
pub(crate) async fn exchange_unknown_type(broker: &Broker) -> Result<()> {
    let code = if broker.rabbitmq { 503 } else { 406 };
    let odd = || ExchangeKind::Custom("x-odd".to_owned());
    broker
        .refused(code, &["x-odd"], async |channel| {
            declare_exchange(channel, &broker.name("odd"), odd(), durable()).await
        })
        .await
}

pub(crate) async fn exchange_delete(broker: &Broker) -> Result<()> {
    let name = broker.name("exchange");
    broker
        .refused(406, &["in use", &name], async |channel| {
            declare_exchange(channel, &name, ExchangeKind::Direct, ExchangeDeclareOptions::default()).await?;
            bind(channel, &exclusive(channel).await?, &name, "k").await?;
            delete_exchange(channel, &name, true).await
        })
        .await?;
    let session = broker.channel().await?;
    delete_exchange(&session, &name, true).await?;
    delete_exchange(&session, &name, false).await?;
    session.close().await?;
    broker.refused(404, &[&name], async |channel| passive_exchange(channel, &name).await).await
}

pub(crate) async fn exchange_auto_delete(broker: &Broker) -> Result<()> {
    let name = broker.name("exchange");
    broker
        .refused(404, &[&name], async |channel| {
            declare_exchange(
                channel,
                &name,
                ExchangeKind::Direct,
                ExchangeDeclareOptions { auto_delete: true, ..Default::default() },
            )
            .await?;
            let queue = exclusive(channel).await?;
            bind(channel, &queue, &name, "k").await?;
            passive_exchange(channel, &name).await?;
            channel
                .queue_unbind(queue.as_str().into(), name.as_str().into(), "k".into(), FieldTable::default())
                .await?;
            passive_exchange(channel, &name).await
        })
        .await
}

pub(crate) async fn exchange_internal(broker: &Broker) -> Result<()> {
    let name = broker.name("exchange");
    broker
        .refused(403, &["ACCESS_REFUSED", &name, "internal"], async |channel| {
            declare_exchange(
                channel,
                &name,
                ExchangeKind::Direct,
                ExchangeDeclareOptions { internal: true, ..Default::default() },
            )
            .await?;
            send(channel, &name, "k", "x").await
        })
        .await?;
    let session = broker.channel().await?;
    delete_exchange(&session, &name, false).await?;
    session.close().await
}

pub(crate) async fn queue_declare(broker: &Broker) -> Result<()> {
    let (name, session) = (broker.name("queue"), broker.channel().await?);
    let declared = declare(&session, &name, QueueDeclareOptions::durable()).await?;
    equal((declared.name().as_str(), declared.message_count(), declared.consumer_count()), (name.as_str(), 0, 0))?;
    fill(&session, &name, 3).await?;
    equal(declare(&session, &name, QueueDeclareOptions::durable()).await?.message_count(), 3)?;
    equal(ready(&session, &name).await?, 3)?;
    session.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await?;
    session.close().await
}

pub(crate) async fn queue_server_named(broker: &Broker) -> Result<()> {
    let session = broker.channel().await?;
    let (first, second) = (exclusive(&session).await?, exclusive(&session).await?);
    ensure!(first.starts_with("amq.gen-") && first != second, "{first} {second}");
    send(&session, "", &second, "x").await?;
    equal(drain(&session, "").await?, ["x"])?; // the empty name means the queue that this channel declared last
    session.close().await
}

pub(crate) async fn queue_exclusive(broker: &Broker) -> Result<()> {
    let (name, owner) = (broker.name("queue"), broker.channel().await?);
    let name = name.as_str();
    let words = &["RESOURCE_LOCKED", name];
    declare(&owner, name, QueueDeclareOptions::exclusive()).await?;
    broker
        .refused(405, words, async |channel| declare(channel, name, QueueDeclareOptions::exclusive()).await.map(drop))
        .await?;
    broker.refused(405, words, async |channel| passive(channel, name).await.map(drop)).await?;
    broker
        .refused(405, words, async |channel| consume(channel, name, "", BasicConsumeOptions::default()).await.map(drop))
        .await?;
    broker
        .refused(405, words, async |channel| {
            Ok(channel.basic_get(name.into(), BasicGetOptions::default()).await.map(drop)?)
        })
        .await?;
    broker
        .refused(405, words, async |channel| {
            Ok(channel.queue_purge(name.into(), QueuePurgeOptions::default()).await.map(drop)?)
        })
        .await?;
    broker
        .refused(405, words, async |channel| {
            Ok(channel.queue_delete(name.into(), QueueDeleteOptions::default()).await.map(drop)?)
        })
        .await?;
    broker.refused(405, words, async |channel| bind(channel, name, "amq.direct", "k").await).await?;
    owner.close().await?;
    broker.refused(404, &[name], async |channel| passive(channel, name).await.map(drop)).await
}

pub(crate) async fn queue_auto_delete(broker: &Broker) -> Result<()> {
    let name = broker.name("queue");
    broker
        .refused(404, &[&name], async |channel| {
            declare(channel, &name, QueueDeclareOptions::default().auto_delete()).await?;
            let first = consume(channel, &name, "", BasicConsumeOptions::default()).await?;
            let second = consume(channel, &name, "", BasicConsumeOptions::default()).await?;
            channel.basic_cancel(first.tag(), BasicCancelOptions::default()).await?;
            equal(passive(channel, &name).await?.consumer_count(), 1)?;
            channel.basic_cancel(second.tag(), BasicCancelOptions::default()).await?;
            passive(channel, &name).await.map(drop)
        })
        .await
}

pub(crate) async fn queue_missing(broker: &Broker) -> Result<()> {
    let (name, words) = ("no-such-queue", &["NOT_FOUND", "no-such-queue", "vhost '/'"]);
    broker.refused(404, words, async |channel| passive(channel, name).await.map(drop)).await?;
    broker
        .refused(404, words, async |channel| {
            Ok(channel.queue_purge(name.into(), QueuePurgeOptions::default()).await.map(drop)?)
        })
        .await?;
    broker
        .refused(404, words, async |channel| {
            Ok(channel.basic_get(name.into(), BasicGetOptions::default()).await.map(drop)?)
        })
        .await?;
    broker
        .refused(404, words, async |channel| consume(channel, name, "", BasicConsumeOptions::default()).await.map(drop))
        .await
}

pub(crate) async fn queue_inequivalent(broker: &Broker) -> Result<()> {
    let (name, session) = (broker.name("queue"), broker.channel().await?);
    declare(&session, &name, QueueDeclareOptions::durable()).await?;
    for options in [QueueDeclareOptions::default(), QueueDeclareOptions::durable().auto_delete()] {
        let words = &["PRECONDITION_FAILED", "inequivalent arg", name.as_str()];
        broker.refused(406, words, async |channel| declare(channel, &name, options).await.map(drop)).await?;
    }
    session.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await?;
    session.close().await
}

pub(crate) async fn queue_reserved(broker: &Broker) -> Result<()> {
    broker
        .refused(403, &["ACCESS_REFUSED", "amq.mine"], async |channel| {
            declare(channel, "amq.mine", QueueDeclareOptions::durable()).await.map(drop)
        })
        .await
}

/// An argument that the broker does not honour is refused, not ignored. RabbitMQ honours this one.
pub(crate) async fn queue_argument_refused(broker: &Broker) -> Result<()> {
    let name = broker.name("queue");
    let mut arguments = FieldTable::default();
    arguments.insert("x-message-ttl".into(), AMQPValue::LongInt(60000));
    let declare = async |channel: &Channel| {
        Ok(channel
            .queue_declare(name.as_str().into(), QueueDeclareOptions::exclusive(), arguments.clone())
            .await
            .map(drop)?)
    };
    if broker.rabbitmq {
        let session = broker.channel().await?;
        declare(&session).await?;
        return session.close().await;
    }
    broker.refused(406, &["PRECONDITION_FAILED", "x-message-ttl"], declare).await?;
    broker.refused(404, &[&name], async |channel| passive(channel, &name).await.map(drop)).await
}

pub(crate) async fn queue_purge(broker: &Broker) -> Result<()> {
    let session = broker.channel().await?;
    let queue = exclusive(&session).await?;
    fill(&session, &queue, 5).await?;
    // Not acknowledged, so the purge leaves it.
    session.basic_get(queue.as_str().into(), BasicGetOptions::default()).await?.context("the queue is empty")?;
    equal(session.queue_purge(queue.as_str().into(), QueuePurgeOptions::default()).await?, 4)?;
    equal(session.queue_purge(queue.as_str().into(), QueuePurgeOptions::default()).await?, 0)?;
    equal(ready(&session, &queue).await?, 0)?;
    session.close().await
}

pub(crate) async fn queue_delete(broker: &Broker) -> Result<()> {
    let name = broker.name("queue");
    let delete = async |channel: &Channel, options| {
        Ok::<_, anyhow::Error>(channel.queue_delete(name.as_str().into(), options).await?)
    };
    broker
        .refused(406, &["PRECONDITION_FAILED", &name, "not empty"], async |channel| {
            declare(channel, &name, QueueDeclareOptions::durable()).await?;
            fill(channel, &name, 2).await?;
            delete(channel, IF_EMPTY).await.map(drop)
        })
        .await?;
    let other = broker.channel().await?;
    take(&mut consume(&other, &name, "", BasicConsumeOptions::default()).await?, 2).await?;
    let _still = consume(&other, &name, "", BasicConsumeOptions::default()).await?;
    broker
        .refused(406, &["PRECONDITION_FAILED", &name, "in use"], async |channel| {
            delete(channel, IF_UNUSED).await.map(drop)
        })
        .await?;
    other.close().await?;
    let session = broker.channel().await?;
    wait_ready(&session, &name, 2).await?;
    equal(delete(&session, IF_UNUSED).await?, 2)?;
    equal(delete(&session, QueueDeleteOptions::default()).await?, 0)?;
    session.close().await
}
