//! Checks of publishes, and of properties and bodies from end to end.

use anyhow::{Context, Result, bail, ensure};
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions};
use lapin::types::{AMQPValue, ByteArray, DecimalValue, FieldArray, FieldTable, LongString};
use lapin::{BasicProperties, Channel, Confirmation, message::BasicGetMessage, uri::AMQPUri};

use crate::broker::{Broker, drain, equal, exclusive, fill, numbers, publish, send, text, within};

pub(crate) async fn confirm(broker: &Broker) -> Result<()> {
    let session = broker.channel().await?;
    let queue = exclusive(&session).await?;
    let mut confirms = Vec::new();
    for body in numbers(0, 1000) {
        confirms.push(
            session
                .basic_publish(
                    "".into(),
                    queue.as_str().into(),
                    BasicPublishOptions::default(),
                    body.as_bytes(),
                    BasicProperties::default(),
                )
                .await?,
        );
    }
    for confirm in confirms {
        equal(within(confirm, "a confirm").await??, Confirmation::Ack(None))?;
    }
    equal(drain(&session, &queue).await?, numbers(0, 1000))?;
    send(&session, "amq.fanout", "nobody", "x").await?; // an unroutable message that is not mandatory is confirmed too
    session.close().await
}

pub(crate) async fn mandatory(broker: &Broker) -> Result<()> {
    let session = broker.channel().await?;
    let queue = exclusive(&session).await?;
    let mandatory = || BasicProperties::default().with_message_id("7".into()); // makes `publish` set the mandatory flag
    equal(publish(&session, ("", &queue), b"routed", mandatory()).await?, Confirmation::Ack(None))?;
    let Confirmation::Ack(Some(returned)) = publish(&session, ("", "no-such-queue"), b"lost", mandatory()).await?
    else {
        bail!("a mandatory message without a queue was not returned before its confirm")
    };
    equal((returned.reply_code, returned.reply_text.as_str()), (312, "NO_ROUTE"))?;
    equal((returned.exchange.as_str(), returned.routing_key.as_str()), ("", "no-such-queue"))?;
    equal((returned.properties.message_id().clone(), text(&returned.delivery)), (Some("7".into()), "lost".to_owned()))?;
    equal(publish(&session, ("", &queue), b"after", mandatory()).await?, Confirmation::Ack(None))?;
    equal(drain(&session, &queue).await?, ["routed", "after"])?;
    session.close().await
}

pub(crate) async fn missing_exchange(broker: &Broker) -> Result<()> {
    broker
        .refused(404, &["NOT_FOUND", "no-such-exchange"], async |channel| {
            send(channel, "no-such-exchange", "k", "x").await
        })
        .await
}

async fn get_one(channel: &Channel, queue: &str) -> Result<BasicGetMessage> {
    within(channel.basic_get(queue.into(), BasicGetOptions::default()), "basic.get")
        .await??
        .context("the queue is empty")
}

/// Sends a message to a queue, gets it back, and returns the received properties.
async fn echo(broker: &Broker, body: &[u8], properties: BasicProperties) -> Result<BasicProperties> {
    let session = broker.channel().await?;
    let queue = exclusive(&session).await?;
    equal(publish(&session, ("", &queue), body, properties).await?, Confirmation::Ack(None))?;
    let got = get_one(&session, &queue).await?.delivery;
    ensure!(got.data == body, "a body of {} bytes came back as {} bytes", body.len(), got.data.len());
    session.close().await?;
    Ok(got.properties)
}

pub(crate) async fn properties(broker: &Broker) -> Result<()> {
    let user: AMQPUri = broker.url.parse().map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut headers = FieldTable::default();
    headers.insert("k".into(), AMQPValue::LongString("v".into()));
    let sent = BasicProperties::default()
        .with_content_type("text/plain".into())
        .with_content_encoding("utf-8".into())
        .with_headers(headers)
        .with_delivery_mode(2)
        .with_priority(3)
        .with_correlation_id("c1".into())
        .with_reply_to("r1".into())
        .with_message_id("m1".into())
        .with_timestamp(1_700_000_000)
        .with_type("t1".into())
        .with_user_id(user.authority.userinfo.username.as_str().into())
        .with_app_id("a1".into())
        .with_cluster_id("cl1".into());
    equal(echo(broker, b"x", sent.clone()).await?, sent)?;
    let forged = BasicProperties::default().with_user_id("somebody-else".into());
    broker
        .refused(406, &["PRECONDITION_FAILED", "somebody-else"], async |channel| {
            publish(channel, ("", "q"), b"x", forged).await.map(drop)
        })
        .await
}

pub(crate) async fn header_types(broker: &Broker) -> Result<()> {
    let mut nested = FieldTable::default();
    nested.insert("c".into(), AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::Boolean(true), AMQPValue::Void])));
    nested.insert("d".into(), AMQPValue::FieldTable(FieldTable::default()));
    let mut headers = FieldTable::default();
    for (name, value) in [
        ("true", AMQPValue::Boolean(true)),
        ("false", AMQPValue::Boolean(false)),
        ("int8", AMQPValue::ShortShortInt(-3)),
        ("uint8", AMQPValue::ShortShortUInt(200)),
        ("int16", AMQPValue::ShortInt(-300)),
        ("uint16", AMQPValue::ShortUInt(60000)),
        ("int32", AMQPValue::LongInt(-70000)),
        ("uint32", AMQPValue::LongUInt(4_000_000_000)),
        ("int64", AMQPValue::LongLongInt(1 << 40)),
        ("float", AMQPValue::Float(1.5)),
        ("double", AMQPValue::Double(2.75e-3)),
        ("decimal", AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 314 })),
        ("string", AMQPValue::LongString(LongString::from("häuser"))),
        ("empty", AMQPValue::LongString(LongString::from(""))),
        ("bytes", AMQPValue::ByteArray(ByteArray::from(vec![0, 255]))),
        ("time", AMQPValue::Timestamp(1_700_000_000)),
        ("none", AMQPValue::Void),
        ("no-items", AMQPValue::FieldArray(FieldArray::default())),
        ("table", AMQPValue::FieldTable(nested)),
    ] {
        headers.insert(name.into(), value);
    }
    let got = echo(broker, b"x", BasicProperties::default().with_headers(headers.clone())).await?;
    equal(got.headers().clone(), Some(headers))
}

pub(crate) async fn empty(broker: &Broker) -> Result<()> {
    echo(broker, b"", BasicProperties::default()).await.map(drop)
}

/// Sends a body of 5 MB, which takes about forty frames.
pub(crate) async fn big(broker: &Broker) -> Result<()> {
    echo(broker, &b"abcdefgh".repeat(640_000), BasicProperties::default()).await.map(drop)
}

pub(crate) async fn frame_edges(broker: &Broker) -> Result<()> {
    let frame = 131_072 - 8;
    for size in [frame - 1, frame, frame + 1, 2 * frame, 2 * frame + 1] {
        echo(broker, &vec![b'e'; size], BasicProperties::default()).await?;
    }
    Ok(())
}

pub(crate) async fn get(broker: &Broker) -> Result<()> {
    let session = broker.channel().await?;
    let queue = exclusive(&session).await?;
    ensure!(session.basic_get(queue.as_str().into(), BasicGetOptions::default()).await?.is_none());
    fill(&session, &queue, 3).await?;
    let first = get_one(&session, &queue).await?;
    equal((text(&first), first.message_count, first.redelivered), ("0".to_owned(), 2, false))?;
    equal((first.exchange.as_str(), first.routing_key.as_str()), ("", queue.as_str()))?;
    first.nack(BasicNackOptions { requeue: true, ..Default::default() }).await?;
    let again = get_one(&session, &queue).await?;
    equal((text(&again), again.redelivered), ("0".to_owned(), true))?;
    again.ack(BasicAckOptions::default()).await?;
    equal(drain(&session, &queue).await?, numbers(1, 3))?;
    session.close().await
}
