//! Checks of bindings, and of routing through each type of exchange.

use anyhow::Result;
use lapin::options::{ExchangeBindOptions, ExchangeDeclareOptions, ExchangeUnbindOptions, QueueBindOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, ExchangeKind};

use crate::broker::{Broker, drain, equal, exclusive, publish, send};
use crate::entities::{bind, declare_exchange, delete_exchange};

async fn bind_exchange(channel: &Channel, destination: &str, source: &str, key: &str) -> Result<()> {
    Ok(channel
        .exchange_bind(
            destination.into(),
            source.into(),
            key.into(),
            ExchangeBindOptions::default(),
            FieldTable::default(),
        )
        .await?)
}

async fn unbind(channel: &Channel, queue: &str, exchange: &str, key: &str) -> Result<()> {
    Ok(channel.queue_unbind(queue.into(), exchange.into(), key.into(), FieldTable::default()).await?)
}

pub(crate) async fn binding_missing(broker: &Broker) -> Result<()> {
    broker
        .refused(404, &["no-such-exchange"], async |channel| {
            bind(channel, &exclusive(channel).await?, "no-such-exchange", "k").await
        })
        .await?;
    broker
        .refused(404, &["no-such-queue"], async |channel| bind(channel, "no-such-queue", "amq.direct", "k").await)
        .await?;
    broker
        .refused(404, &["no-such-exchange"], async |channel| {
            bind_exchange(channel, "amq.direct", "no-such-exchange", "k").await
        })
        .await?;
    broker
        .refused(403, &["ACCESS_REFUSED", "default exchange"], async |channel| {
            bind(channel, &exclusive(channel).await?, "", "k").await
        })
        .await
}

pub(crate) async fn binding_unbind(broker: &Broker) -> Result<()> {
    let session = broker.channel().await?;
    let queue = exclusive(&session).await?;
    for _ in 0..2 {
        bind(&session, &queue, "amq.direct", &queue).await?;
    }
    send(&session, "amq.direct", &queue, "bound").await?;
    for _ in 0..2 {
        unbind(&session, &queue, "amq.direct", &queue).await?; // the second one finds no binding, which is not an error
    }
    send(&session, "amq.direct", &queue, "unbound").await?;
    equal(drain(&session, &queue).await?, ["bound"])?;
    session.close().await
}

pub(crate) async fn default_exchange(broker: &Broker) -> Result<()> {
    let session = broker.channel().await?;
    let queue = exclusive(&session).await?;
    send(&session, "", &queue, "x").await?;
    equal(drain(&session, &queue).await?, ["x"])?;
    session.close().await
}

/// A binding key with arguments, or a routing key with headers.
type Keyed = (&'static str, FieldTable);

fn keys(names: &[&'static str]) -> Vec<Keyed> {
    names.iter().map(|name| (*name, FieldTable::default())).collect()
}

/// Checks which of the messages, by number, arrive in the queue of each binding.
async fn routed(
    broker: &Broker,
    kind: ExchangeKind,
    bindings: Vec<Keyed>,
    messages: Vec<Keyed>,
    expected: &[&str],
) -> Result<()> {
    let (exchange, session) = (broker.name("exchange"), broker.channel().await?);
    declare_exchange(&session, &exchange, kind, ExchangeDeclareOptions { auto_delete: true, ..Default::default() })
        .await?;
    let mut queues = Vec::new();
    for (key, arguments) in bindings {
        let queue = exclusive(&session).await?;
        session
            .queue_bind(
                queue.as_str().into(),
                exchange.as_str().into(),
                key.into(),
                QueueBindOptions::default(),
                arguments,
            )
            .await?;
        queues.push(queue);
    }
    for (number, (key, headers)) in messages.into_iter().enumerate() {
        publish(
            &session,
            (&exchange, key),
            number.to_string().as_bytes(),
            BasicProperties::default().with_headers(headers),
        )
        .await?;
    }
    let mut got = Vec::new();
    for queue in queues {
        got.push(drain(&session, &queue).await?.join(" "));
    }
    equal(got, expected)?;
    session.close().await
}

pub(crate) async fn direct(broker: &Broker) -> Result<()> {
    routed(broker, ExchangeKind::Direct, keys(&["a", "a", "b"]), keys(&["a", "b", "c"]), &["0", "0", "1"]).await
}

pub(crate) async fn fanout(broker: &Broker) -> Result<()> {
    routed(broker, ExchangeKind::Fanout, keys(&["a", ""]), keys(&["a", "zzz"]), &["0 1", "0 1"]).await
}

pub(crate) async fn topic(broker: &Broker) -> Result<()> {
    let patterns = keys(&["stock.#", "stock.*", "*.*.nyse", "#", "#.stock.#", "stock.eur", "*"]);
    let messages = keys(&["stock.eur.nyse", "stock.eur", "stock", "", "eur.stock.nyse", "stock..nyse"]);
    routed(
        broker,
        ExchangeKind::Topic,
        patterns,
        messages,
        &["0 1 2 5", "1", "0 4 5", "0 1 2 3 4 5", "0 1 2 4 5", "1", "2"],
    )
    .await
}

fn table(fields: &[(&'static str, AMQPValue)]) -> Keyed {
    let mut table = FieldTable::default();
    for (name, value) in fields {
        table.insert((*name).into(), value.clone());
    }
    ("", table)
}

pub(crate) async fn headers(broker: &Broker) -> Result<()> {
    let one = || ("a", AMQPValue::LongInt(1));
    let text = |name: &'static str, value: &str| (name, AMQPValue::LongString(value.into()));
    let bindings = vec![
        table(&[text("x-match", "all"), one(), text("b", "x")]),
        table(&[text("x-match", "any"), one(), text("b", "x")]),
        table(&[one(), text("b", "x")]),
        table(&[text("x-match", "any"), ("c", AMQPValue::Void)]),
    ];
    let messages = vec![
        table(&[one(), text("b", "x"), ("d", AMQPValue::LongInt(9))]),
        table(&[one()]),
        table(&[text("b", "y")]),
        table(&[("c", AMQPValue::Boolean(true))]),
        table(&[]),
    ];
    routed(broker, ExchangeKind::Headers, bindings, messages, &["0", "0 1", "0", "3"]).await
}

pub(crate) async fn exchange_to_exchange(broker: &Broker) -> Result<()> {
    let (first, second, session) = (broker.name("first"), broker.name("second"), broker.channel().await?);
    declare_exchange(&session, &first, ExchangeKind::Topic, ExchangeDeclareOptions::default()).await?;
    declare_exchange(&session, &second, ExchangeKind::Fanout, ExchangeDeclareOptions::default()).await?;
    let queue = exclusive(&session).await?;
    bind_exchange(&session, &second, &first, "a.*").await?;
    bind_exchange(&session, &first, &second, "").await?; // a cycle of bindings: each queue still gets one copy
    bind(&session, &queue, &second, "").await?;
    send(&session, &first, "a.b", "a.b").await?;
    send(&session, &first, "b.a", "b.a").await?;
    equal(drain(&session, &queue).await?, ["a.b"])?;
    session
        .exchange_unbind(
            second.as_str().into(),
            first.as_str().into(),
            "a.*".into(),
            ExchangeUnbindOptions::default(),
            FieldTable::default(),
        )
        .await?;
    send(&session, &first, "a.c", "a.c").await?;
    equal(drain(&session, &queue).await?, [""; 0])?;
    delete_exchange(&session, &first, false).await?;
    delete_exchange(&session, &second, false).await?;
    session.close().await
}

pub(crate) async fn once(broker: &Broker) -> Result<()> {
    let session = broker.channel().await?;
    let queue = exclusive(&session).await?;
    for key in ["a.#", "#.b", "a.b"] {
        bind(&session, &queue, "amq.topic", &format!("{queue}.{key}")).await?;
    }
    bind(&session, &queue, "amq.topic", "#.b").await?;
    send(&session, "amq.topic", &format!("{queue}.a.b"), "x").await?;
    equal(drain(&session, &queue).await?, ["x"])?;
    session.close().await
}
