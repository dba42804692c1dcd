//! Clients that publish and consume for as long as a test runs, through unmodified lapin, and that connect again, to the
//! next broker, whenever something fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use tokio_util::sync::CancellationToken;

use crate::book::MessageStamp;

/// Is told what the clients see.
pub trait Witness: Send + Sync {
    /// The broker at this place in the list has confirmed a message.
    fn confirmed(&self, stamp: MessageStamp, broker: usize);
    /// A message was delivered.
    fn delivered(&self, stamp: MessageStamp, redelivered: bool);
    /// A client has failed and connects again.
    fn failed(&self, error: &anyhow::Error);
}

/// What all clients of a test have in common.
pub struct Steady {
    /// The brokers that a client uses in turns.
    pub urls: Vec<String>,
    pub queues: Vec<String>,
    /// The length of a message's body, in bytes; more if its stamp is longer.
    pub body_bytes: usize,
    /// Time between two messages of a publisher.
    pub pace: Duration,
    pub witness: Arc<dyn Witness>,
}

impl Steady {
    /// Publishes with confirms, one message after the other, until `over`. Begins at the broker `at`.
    pub async fn publish(&self, publisher: u64, mut at: usize, over: &CancellationToken) {
        let next = AtomicU64::new(0);
        while !over.is_cancelled() {
            at %= self.urls.len();
            if let Ok(connection) = self.connect(at).await {
                let ended = self.publish_to(&connection, at, publisher, &next, over).await;
                self.end(connection, ended).await;
            }
            at += 1;
        }
    }

    /// Consumes from all queues until `over`. Begins at the broker `at`.
    pub async fn consume(&self, mut at: usize, over: &CancellationToken) {
        while !over.is_cancelled() {
            at %= self.urls.len();
            if let Ok(connection) = self.connect(at).await {
                let ended = self.consume_from(&connection, over).await;
                self.end(connection, ended).await;
            }
            at += 1;
        }
    }

    async fn connect(&self, at: usize) -> Result<Connection> {
        let connecting = Connection::connect(&self.urls[at], ConnectionProperties::default());
        let connected = match bounded("connecting", connecting).await {
            Ok(connected) => connected.map_err(anyhow::Error::from),
            Err(late) => Err(late),
        };
        if let Err(error) = &connected {
            self.witness.failed(error);
            tokio::time::sleep(AGAIN).await;
        }
        connected
    }

    /// Has a connection closed meanwhile. Lapin keeps one open that is only dropped while it waits for an answer, and with
    /// it what was delivered on it.
    async fn end(&self, connection: Connection, ended: Result<()>) {
        if let Err(error) = &ended {
            self.witness.failed(error);
        }
        tokio::spawn(async move { bounded("closing", connection.close(200, "".into())).await.is_ok() });
        tokio::time::sleep(AGAIN).await;
    }

    async fn publish_to(
        &self,
        connection: &Connection,
        at: usize,
        publisher: u64,
        next: &AtomicU64,
        over: &CancellationToken,
    ) -> Result<()> {
        let channel = bounded("opening a channel", connection.create_channel()).await??;
        bounded("asking for confirms", channel.confirm_select(ConfirmSelectOptions::default())).await??;
        while !over.is_cancelled() {
            let stamp = MessageStamp { publisher, number: next.fetch_add(1, Ordering::Relaxed) };
            self.publish_one(&channel, stamp).await?;
            self.witness.confirmed(stamp, at);
            tokio::time::sleep(self.pace).await;
        }
        Ok(())
    }

    async fn publish_one(&self, channel: &Channel, stamp: MessageStamp) -> Result<()> {
        let queue = &self.queues[stamp.number as usize % self.queues.len()];
        let body = format!("{:<1$}", stamp.to_string(), self.body_bytes);
        let properties = BasicProperties::default().with_delivery_mode(2);
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let publish = channel.basic_publish("".into(), queue.as_str().into(), options, body.as_bytes(), properties);
        match bounded("a confirm", bounded("a publish", publish).await??).await?? {
            Confirmation::Ack(None) => Ok(()),
            other => bail!("publish {stamp} came to {other:?}"),
        }
    }

    async fn consume_from(&self, connection: &Connection, over: &CancellationToken) -> Result<()> {
        let channel = bounded("opening a channel", connection.create_channel()).await??;
        bounded("setting the prefetch", channel.basic_qos(20, BasicQosOptions::default())).await??;
        let mut all = Vec::new();
        for queue in &self.queues {
            let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
            let subscribe = channel.basic_consume(queue.as_str().into(), "".into(), options, arguments);
            all.push(bounded("subscribing", subscribe).await??);
        }
        let mut deliveries = futures::stream::select_all(all);
        while !over.is_cancelled() {
            // A broker may stand still, and a queue may be empty: then another broker is asked.
            let next = tokio::time::timeout(QUIET_MAX, deliveries.next()).await.context("nothing is delivered")?;
            let delivery = next.context("the channel was closed")??;
            self.witness.delivered(String::from_utf8_lossy(&delivery.data).parse()?, delivery.redelivered);
            bounded("an acknowledgement", delivery.acker.ack(BasicAckOptions::default())).await??;
        }
        Ok(())
    }
}

/// Gives up a call of the client library that never ends because its broker stands still or is gone.
async fn bounded<T>(what: &str, call: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(CALL_MAX, call).await.with_context(|| format!("no end of {what}"))
}

/// A call of a client takes no longer than this, unless its broker stands still.
const CALL_MAX: Duration = Duration::from_secs(3);
/// How long queues may stay empty before a consumer takes its broker for one that stands still.
const QUIET_MAX: Duration = Duration::from_secs(3);
/// Time before a client connects again.
const AGAIN: Duration = Duration::from_millis(30);
