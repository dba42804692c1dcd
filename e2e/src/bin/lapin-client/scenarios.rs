//! The scenarios other than conformance: publish, consume, roundtrip, hold.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions};
use lapin::{BasicProperties, Channel, Confirmation, Event};
use tokio::signal::unix::{SignalKind, signal};

use crate::broker::{Broker, consume as start_consumer, equal, exclusive, numbers, open, protocol_error, take, text};
use crate::tally::say;

/// The options of a scenario.
pub(crate) struct Options {
    pub(crate) queue: String,
    pub(crate) exchange: String,
    pub(crate) key: Option<String>,
    pub(crate) count: usize,
    /// The smallest size of a body in bytes; smaller ones are padded with spaces.
    pub(crate) size: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { queue: String::new(), exchange: String::new(), key: None, count: 100, size: 0 }
    }
}

/// How long a confirm may take, as a broker whose disk is full holds publishers back until it has room.
const HELD_BACK_MAX: Duration = Duration::from_secs(240);

/// Publishes numbered messages, and waits for the confirms only after the last one is sent. A message that reaches no queue
/// is an error.
async fn publish_numbers(channel: &Channel, exchange: &str, key: &str, count: usize, size: usize) -> Result<()> {
    let mut confirms = Vec::new();
    for body in numbers(0, count) {
        let body = body + &" ".repeat(size.saturating_sub(8));
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        confirms.push(
            channel
                .basic_publish(
                    exchange.into(),
                    key.into(),
                    options,
                    body.as_bytes(),
                    BasicProperties::default().with_delivery_mode(2),
                )
                .await?,
        );
    }
    for confirm in confirms {
        equal(tokio::time::timeout(HELD_BACK_MAX, confirm).await??, Confirmation::Ack(None))?;
    }
    Ok(())
}

pub(crate) async fn publish(broker: &Broker, options: &Options) -> Result<()> {
    let session = broker.channel().await?;
    publish_numbers(
        &session,
        &options.exchange,
        options.key.as_ref().unwrap_or(&options.queue),
        options.count,
        options.size,
    )
    .await?;
    say(&format!("published {}", options.count));
    session.close().await
}

/// Consumes exactly `count` messages, checks that their numbers have no gap or duplicate, and acknowledges each.
async fn consume_numbers(channel: &Channel, queue: &str, prefetch: u16, count: usize) -> Result<()> {
    channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
    let mut consumer = start_consumer(channel, queue, "", BasicConsumeOptions::default()).await?;
    for number in numbers(0, count) {
        let message = &take(&mut consumer, 1).await?[0];
        equal(text(message).trim_end(), number.as_str())?;
        message.ack(BasicAckOptions::default()).await?;
    }
    channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await?;
    Ok(())
}

pub(crate) async fn consume(broker: &Broker, options: &Options) -> Result<()> {
    let session = broker.channel().await?;
    consume_numbers(&session, &options.queue, 100, options.count).await?;
    say(&format!("consumed {}", options.count));
    session.close().await
}

/// Publishes and consumes at the same time, over a new exclusive queue unless one is named.
pub(crate) async fn roundtrip(broker: &Broker, options: &Options) -> Result<()> {
    let session = broker.channel().await?;
    let consuming = open(&session.connection).await?;
    let queue = if options.queue.is_empty() { exclusive(&consuming).await? } else { options.queue.clone() };
    tokio::try_join!(
        publish_numbers(&session, "", &queue, options.count, options.size),
        consume_numbers(&consuming, &queue, 10, options.count)
    )?;
    say(&format!("roundtrip {}", options.count));
    session.close().await
}

/// Consumes, acknowledges nothing, and stays connected until the broker closes the connection or SIGTERM arrives.
pub(crate) async fn hold(broker: &Broker, options: &Options) -> Result<()> {
    let session = broker.channel().await?;
    let mut events = Box::pin(session.connection.events_listener());
    let mut terminated = signal(SignalKind::terminate())?;
    session.basic_qos(u16::try_from(options.count)?, BasicQosOptions::default()).await?;
    let _consumer = start_consumer(&session, &options.queue, "", BasicConsumeOptions::default()).await?;
    say("holding");
    loop {
        tokio::select! {
            event = events.next() => if let Event::Error(error) = event.context("the connection's events ended")? {
                let Some(reason) = protocol_error(&error) else { bail!("ended with {error}") };
                say(&format!("closed {} {}", reason.get_id(), reason.get_message()));
                return Ok(());
            },
            _ = terminated.recv() => {
                say("closed by itself");
                return session.close().await;
            }
        }
    }
}
