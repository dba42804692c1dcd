//! Checks of consumers: order, prefetch, acknowledgements and their refusals.

use anyhow::{Result, ensure};
use futures::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicQosOptions,
    BasicRecoverOptions, BasicRejectOptions, QueueDeclareOptions, QueueDeleteOptions,
};

use crate::broker::{
    Broker, Session, WAIT, consume, declare, equal, exclusive, fill, numbers, open, passive, ready, seen, take, texts,
    within,
};

const ONE: BasicAckOptions = BasicAckOptions { multiple: false };
const ALL: BasicAckOptions = BasicAckOptions { multiple: true };
const EXCLUSIVE: BasicConsumeOptions =
    BasicConsumeOptions { no_local: false, no_ack: false, exclusive: true, nowait: false };
const NO_ACK: BasicConsumeOptions =
    BasicConsumeOptions { no_local: false, no_ack: true, exclusive: false, nowait: false };

fn plain() -> BasicConsumeOptions {
    BasicConsumeOptions::default()
}

/// Returns a channel with this prefetch, and an exclusive queue that contains `count` messages.
async fn filled(broker: &Broker, count: usize, prefetch: u16) -> Result<(Session, String)> {
    let session = broker.channel().await?;
    let queue = exclusive(&session).await?;
    fill(&session, &queue, count).await?;
    session.basic_qos(prefetch, BasicQosOptions::default()).await?;
    Ok((session, queue))
}

pub(crate) async fn order(broker: &Broker) -> Result<()> {
    let (session, queue) = filled(broker, 50, 0).await?;
    let mut consumer = consume(&session, &queue, "mine", plain()).await?;
    fill(&session, &queue, 50).await?;
    let got = take(&mut consumer, 100).await?;
    equal(texts(&got), [numbers(0, 50), numbers(0, 50)].concat())?;
    equal(got.iter().map(|message| message.delivery_tag).collect::<Vec<_>>(), (1..=100).collect::<Vec<_>>())?;
    ensure!(got.iter().all(|message| !message.redelivered));
    session.basic_ack(0, ALL).await?;
    equal(passive(&session, &queue).await?.consumer_count(), 1)?;
    session.close().await
}

pub(crate) async fn prefetch(broker: &Broker) -> Result<()> {
    let (session, queue) = filled(broker, 10, 3).await?;
    let mut consumer = consume(&session, &queue, "", plain()).await?;
    let first = take(&mut consumer, 3).await?;
    equal(ready(&session, &queue).await?, 7)?;
    first[0].ack(ONE).await?;
    equal(texts(&take(&mut consumer, 1).await?), ["3"])?;
    equal(ready(&session, &queue).await?, 6)?;
    first[2].ack(ALL).await?;
    equal(texts(&take(&mut consumer, 2).await?), ["4", "5"])?;
    equal(ready(&session, &queue).await?, 4)?;
    session.close().await
}

pub(crate) async fn nack_requeue(broker: &Broker) -> Result<()> {
    let (session, queue) = filled(broker, 4, 4).await?;
    let mut consumer = consume(&session, &queue, "", plain()).await?;
    let got = take(&mut consumer, 4).await?;
    got[2].nack(BasicNackOptions { multiple: true, requeue: true }).await?;
    equal(seen(&take(&mut consumer, 3).await?), ["0 true", "1 true", "2 true"])?;
    session.basic_nack(0, BasicNackOptions { multiple: true, requeue: false }).await?;
    equal(ready(&session, &queue).await?, 0)?;
    session.close().await
}

pub(crate) async fn reject(broker: &Broker) -> Result<()> {
    let (session, queue) = filled(broker, 2, 1).await?;
    let mut consumer = consume(&session, &queue, "", plain()).await?;
    take(&mut consumer, 1).await?[0].reject(BasicRejectOptions { requeue: true }).await?;
    let again = take(&mut consumer, 1).await?;
    equal(seen(&again), ["0 true"])?;
    again[0].reject(BasicRejectOptions { requeue: false }).await?;
    equal(seen(&take(&mut consumer, 1).await?), ["1 false"])?;
    session.close().await
}

pub(crate) async fn recover(broker: &Broker) -> Result<()> {
    let (session, queue) = filled(broker, 3, 0).await?;
    let mut consumer = consume(&session, &queue, "", plain()).await?;
    take(&mut consumer, 3).await?;
    session.basic_recover(BasicRecoverOptions { requeue: true }).await?;
    equal(seen(&take(&mut consumer, 3).await?), ["0 true", "1 true", "2 true"])?;
    session.close().await
}

pub(crate) async fn cancel(broker: &Broker) -> Result<()> {
    let (session, queue) = filled(broker, 1, 0).await?;
    let mut consumer = consume(&session, &queue, "mine", plain()).await?;
    equal(consumer.tag().as_str(), "mine")?;
    let message = take(&mut consumer, 1).await?;
    session.basic_cancel("mine".into(), BasicCancelOptions::default()).await?;
    fill(&session, &queue, 1).await?;
    equal(ready(&session, &queue).await?, 1)?; // no consumer takes it
    session.basic_ack(message[0].delivery_tag, ONE).await?; // an earlier delivery may still be acknowledged
    equal(ready(&session, &queue).await?, 1)?;
    session.close().await
}

pub(crate) async fn exclusive_consumer(broker: &Broker) -> Result<()> {
    let (name, owner) = (broker.name("queue"), broker.channel().await?);
    declare(&owner, &name, QueueDeclareOptions::durable()).await?;
    let first = consume(&owner, &name, "mine", EXCLUSIVE).await?;
    broker
        .refused(403, &["ACCESS_REFUSED", &name, "exclusive"], async |channel| {
            consume(channel, &name, "", plain()).await.map(drop)
        })
        .await?;
    owner.basic_cancel(first.tag(), BasicCancelOptions::default()).await?;
    let _second = consume(&owner, &name, "", plain()).await?;
    broker
        .refused(403, &["ACCESS_REFUSED", &name], async |channel| {
            consume(channel, &name, "", EXCLUSIVE).await.map(drop)
        })
        .await?;
    owner.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await?;
    owner.close().await
}

pub(crate) async fn queue_deleted(broker: &Broker) -> Result<()> {
    let (name, session, other) = (broker.name("queue"), broker.channel().await?, broker.channel().await?);
    declare(&session, &name, QueueDeclareOptions::durable()).await?;
    let mut consumer = consume(&session, &name, "mine", plain()).await?;
    other.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await?;
    ensure!(within(consumer.next(), "the broker's basic.cancel").await?.is_none(), "a delivery arrived instead");
    ensure!(session.channel.status().connected());
    other.close().await?;
    session.close().await
}

pub(crate) async fn no_ack(broker: &Broker) -> Result<()> {
    let (session, queue) = filled(broker, 20, 1).await?; // the prefetch does not limit a consumer without acknowledgements
    let mut consumer = consume(&session, &queue, "mine", NO_ACK).await?;
    equal(texts(&take(&mut consumer, 20).await?), numbers(0, 20))?;
    session.basic_cancel("mine".into(), BasicCancelOptions::default()).await?;
    equal(session.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await?, 0)?;
    session.close().await
}

pub(crate) async fn requeue_on_close(broker: &Broker) -> Result<()> {
    let (name, session) = (broker.name("queue"), broker.channel().await?);
    declare(&session, &name, QueueDeclareOptions::durable()).await?;
    fill(&session, &name, 5).await?;
    let consuming = open(&session.connection).await?;
    take(&mut consume(&consuming, &name, "", plain()).await?, 5).await?;
    consuming.close(200, "done".into()).await?;
    wait_ready(&session, &name, 5).await?;
    session.close().await?;

    let session = broker.channel().await?;
    take(&mut consume(&session, &name, "", plain()).await?, 5).await?;
    session.close().await?;

    let session = broker.channel().await?; // the same after the connection has closed
    let got = take(&mut consume(&session, &name, "", plain()).await?, 5).await?;
    equal(seen(&got), ["0 true", "1 true", "2 true", "3 true", "4 true"])?;
    session.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await?;
    session.close().await
}

pub(crate) async fn wait_ready(session: &Session, queue: &str, count: u32) -> Result<()> {
    let deadline = tokio::time::Instant::now() + WAIT;
    while ready(session, queue).await? != count {
        ensure!(tokio::time::Instant::now() < deadline, "waited {WAIT:?} for {count} messages in {queue}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    Ok(())
}

pub(crate) async fn unknown_tag(broker: &Broker) -> Result<()> {
    let words = &["PRECONDITION_FAILED", "unknown delivery tag 99"];
    broker.refused(406, words, async |channel| Ok(channel.basic_ack(99, ONE).await?)).await?;
    broker.refused(406, words, async |channel| Ok(channel.basic_nack(99, BasicNackOptions::default()).await?)).await?;
    broker.refused(406, words, async |channel| Ok(channel.basic_reject(99, BasicRejectOptions::default()).await?)).await
}

pub(crate) async fn ack_twice(broker: &Broker) -> Result<()> {
    broker
        .refused(406, &["PRECONDITION_FAILED", "unknown delivery tag 1"], async |channel| {
            let queue = exclusive(channel).await?;
            fill(channel, &queue, 1).await?;
            channel.basic_get(queue.as_str().into(), BasicGetOptions::default()).await?;
            channel.basic_ack(1, ONE).await?;
            Ok(channel.basic_ack(1, ONE).await?)
        })
        .await
}
