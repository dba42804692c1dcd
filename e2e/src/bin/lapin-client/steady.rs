//! The scenario `steady`: publishes and consumes for as long as it runs, connects again whenever something fails, and prints
//! what was confirmed and delivered, for a test to compare.
//!
//! Lines are `confirmed PUBLISHER NUMBER MS` and `delivered PUBLISHER NUMBER new|again`, where MS is the time since the
//! start. SIGTERM ends the publishers; then `published` is printed, and the consumers go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Confirmation, Connection, ConnectionProperties};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::tally::say;

/// The traffic: where it goes, since when, and when publishing ends.
struct Traffic {
    url: String,
    queues: Vec<String>,
    begin: Instant,
    over: CancellationToken,
}

/// Runs the traffic over a list of queues that is separated by commas, until its process is killed.
pub(crate) async fn run(url: &str, queues: &str) -> Result<()> {
    let queues: Vec<String> = queues.split(',').map(str::to_owned).collect();
    let over = CancellationToken::new();
    let traffic = Arc::new(Traffic { url: url.to_owned(), queues, begin: Instant::now(), over: over.clone() });
    let mut terminated = signal(SignalKind::terminate())?;
    say(&format!("process {}", std::process::id()));
    let mut publishers = Vec::new();
    for publisher in 0..PUBLISHERS {
        let (publishing, consuming) = (traffic.clone(), traffic.clone());
        publishers.push(tokio::spawn(async move {
            let next = AtomicU64::new(0);
            while !publishing.over.is_cancelled() {
                failed(publishing.publish(publisher, &next).await).await;
            }
        }));
        tokio::spawn(async move {
            loop {
                failed(consuming.consume().await).await;
            }
        });
    }
    terminated.recv().await;
    over.cancel();
    for publisher in publishers {
        publisher.await?;
    }
    say("published");
    std::future::pending().await
}

/// Prints why a client has ended, and lets the next one take its place a moment later.
async fn failed(result: Result<()>) {
    if let Err(error) = result {
        say(&format!("failed {}", format!("{error:#}").replace('\n', " ")));
        tokio::time::sleep(AGAIN).await;
    }
}

impl Traffic {
    async fn connect(&self) -> Result<Connection> {
        let connecting = Connection::connect(&self.url, ConnectionProperties::default());
        Ok(bounded("connecting", connecting).await??)
    }

    /// Publishes with confirms, one message after the other.
    async fn publish(&self, publisher: u64, next: &AtomicU64) -> Result<()> {
        let connection = self.connect().await?;
        let channel = bounded("opening a channel", connection.create_channel()).await??;
        bounded("asking for confirms", channel.confirm_select(ConfirmSelectOptions::default())).await??;
        while !self.over.is_cancelled() {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let queue = self.queues.iter().cycle().nth(number as usize % self.queues.len()).context("no queue")?;
            let body = format!("{publisher} {number}");
            let properties = BasicProperties::default().with_delivery_mode(2);
            let options = BasicPublishOptions { mandatory: true, ..Default::default() };
            let publish = channel.basic_publish("".into(), queue.as_str().into(), options, body.as_bytes(), properties);
            match bounded("a confirm", bounded("a publish", publish).await??).await?? {
                Confirmation::Ack(None) => say(&format!("confirmed {body} {}", self.begin.elapsed().as_millis())),
                other => bail!("publish {body} came to {other:?}"),
            }
            tokio::time::sleep(PACE).await;
        }
        bounded("closing", connection.close(200, "".into())).await??;
        Ok(())
    }

    /// Consumes from all queues until something fails.
    async fn consume(&self) -> Result<()> {
        let connection = self.connect().await?;
        let channel = bounded("opening a channel", connection.create_channel()).await??;
        bounded("setting the prefetch", channel.basic_qos(20, BasicQosOptions::default())).await??;
        let mut all = Vec::new();
        for queue in &self.queues {
            let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
            let consumer = channel.basic_consume(queue.as_str().into(), "".into(), options, arguments);
            all.push(bounded("subscribing", consumer).await??);
        }
        let mut deliveries = futures::stream::select_all(all);
        loop {
            let next = tokio::time::timeout(QUIET_MAX, deliveries.next()).await.context("nothing is delivered")?;
            let delivery = next.context("the channel was closed")??;
            let mark = if delivery.redelivered { "again" } else { "new" };
            say(&format!("delivered {} {mark}", String::from_utf8_lossy(&delivery.data)));
            bounded("an acknowledgement", delivery.acker.ack(BasicAckOptions::default())).await??;
        }
    }
}

/// Gives up a call of the client library whose node stands still or is gone.
async fn bounded<T>(what: &str, call: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(CALL_MAX, call).await.with_context(|| format!("no end of {what}"))
}

/// The number of publishers, and of consumers.
const PUBLISHERS: u64 = 2;
/// Time between two messages of a publisher: the test is not about speed.
const PACE: Duration = Duration::from_millis(5);
/// Time before a client connects again.
const AGAIN: Duration = Duration::from_millis(50);
/// A call of a client takes no longer than this, unless its node stands still.
const CALL_MAX: Duration = Duration::from_secs(3);
/// How long queues may stay empty before a consumer takes its node for one that stands still.
const QUIET_MAX: Duration = Duration::from_secs(5);
