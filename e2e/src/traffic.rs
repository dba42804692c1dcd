//! Clients of all three nodes of a cluster that publish with confirms and consume, whatever happens to the nodes, and note
//! what they see.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Confirmation, Connection};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::nodes::USER;
use crate::trouble::{connect, durable};
use crate::wait::PATIENCE;

const QUEUES: [&str; 6] = ["q0", "q1", "q2", "q3", "q4", "q5"];

/// A message: its publisher and its number.
type Id = (u64, u64);

/// What the clients saw.
#[derive(Default)]
struct Book {
    confirmed: HashSet<Id>,
    /// The number of deliveries of each message that were marked as redelivered, and of those that were not.
    delivered: HashMap<Id, [u64; 2]>,
    /// The longest time between two confirms, by publisher, and when the last one came.
    gaps: HashMap<u64, (Duration, Instant)>,
    /// The number of confirms that came from each node.
    by_node: [u64; 3],
}

type Shared = Arc<Mutex<Book>>;

/// Gives up a call of the client library that never ends because its node stands still or is gone.
async fn bounded<T>(what: &str, call: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(CALL_MAX, call).await.with_context(|| format!("no end of {what}"))
}

/// Publishes with confirms, one message after the other, until something fails or the test is over.
async fn publish(client: &Client, connection: &Connection, node: usize, next: &mut u64) -> Result<()> {
    let Client { book, over, publisher, .. } = client;
    let publisher = *publisher;
    let channel = bounded("opening a channel", connection.create_channel()).await??;
    bounded("asking for confirms", channel.confirm_select(ConfirmSelectOptions::default())).await??;
    while !over.is_cancelled() {
        let number = *next;
        *next += 1;
        let body = [publisher.to_le_bytes(), number.to_le_bytes()].concat();
        let queue = QUEUES[number as usize % QUEUES.len()];
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        let publish = channel.basic_publish("".into(), queue.into(), options, &body, properties);
        let confirm = bounded("a publish", publish).await??;
        match bounded("a confirm", confirm).await?? {
            Confirmation::Ack(_) => {}
            other => bail!("publish {number} came to {other:?}"),
        }
        let mut book = book.lock().expect("no one panicked");
        book.confirmed.insert((publisher, number));
        book.by_node[node] += 1;
        let now = Instant::now();
        let (longest, last) = book.gaps.entry(publisher).or_insert((Duration::ZERO, now));
        (*longest, *last) = ((*longest).max(now - *last), now);
    }
    Ok(())
}

/// Consumes from all queues until something fails or the test is over.
async fn consume(client: &Client, connection: &Connection) -> Result<()> {
    let Client { book, over, .. } = client;
    let channel = bounded("opening a channel", connection.create_channel()).await??;
    bounded("setting the prefetch", channel.basic_qos(20, BasicQosOptions::default())).await??;
    let mut all = Vec::new();
    for queue in QUEUES {
        let subscribe =
            channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default());
        all.push(bounded("subscribing", subscribe).await??);
    }
    let mut deliveries = futures::stream::select_all(all);
    while !over.is_cancelled() {
        // A node may stand still, and a queue may be empty: then another node is asked.
        let Some(delivery) = bounded("a delivery", deliveries.next()).await? else { bail!("the channel was closed") };
        let delivery = delivery?;
        let number = |at: usize| delivery.data[at..at + 8].try_into().map(u64::from_le_bytes);
        let id = (number(0)?, number(8)?);
        {
            let mut book = book.lock().expect("no one panicked");
            book.delivered.entry(id).or_default()[usize::from(!delivery.redelivered)] += 1;
        }
        bounded("an acknowledgement", delivery.acker.ack(BasicAckOptions::default())).await??;
    }
    Ok(())
}

/// A client, and all nodes that it may use.
#[derive(Clone)]
struct Client {
    hosts: Vec<String>,
    book: Shared,
    over: CancellationToken,
    publisher: u64,
}

/// Three publishers and three consumers, one of each on each node at first.
pub struct Traffic {
    book: Shared,
    /// Ends the publishers.
    published: CancellationToken,
    /// Ends the consumers.
    over: CancellationToken,
    publishers: Vec<JoinHandle<()>>,
    consumers: Vec<JoinHandle<()>>,
}

impl Traffic {
    /// Declares the queues, and starts the clients. A client whose connection ends, or whose node does not answer for two
    /// seconds, goes on at another node.
    ///
    /// # Errors
    /// If the queues cannot be declared.
    pub async fn start(hosts: &[String]) -> Result<Self> {
        let connection = connect(&hosts[1], USER).await?;
        let channel = connection.create_channel().await?;
        for queue in QUEUES {
            channel.queue_declare(queue.into(), durable(), FieldTable::default()).await?;
        }
        let (book, published, over) = (Shared::default(), CancellationToken::new(), CancellationToken::new());
        let client = |over: &CancellationToken, at: usize| {
            let (hosts, book, over) = (hosts.to_vec(), book.clone(), over.clone());
            Client { hosts, book, over, publisher: at as u64 }
        };
        let publishers = (0..hosts.len()).map(|at| tokio::spawn(client(&published, at).publishes(at))).collect();
        let consumers = (0..hosts.len()).map(|at| tokio::spawn(client(&over, at).consumes(at))).collect();
        Ok(Self { book, published, over, publishers, consumers })
    }

    /// Returns the number of confirms that came from each node so far.
    pub fn by_node(&self) -> [u64; 3] {
        self.book.lock().expect("no one panicked").by_node
    }

    /// Waits until each publisher has got further confirms.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn goes_on(&self) -> Result<()> {
        let confirmed = || {
            let book = self.book.lock().expect("no one panicked");
            [0, 1, 2].map(|publisher| book.confirmed.iter().filter(|id| id.0 == publisher).count())
        };
        let (before, began) = (confirmed(), Instant::now());
        while confirmed().iter().zip(before).any(|(now, before)| *now < before + 100) {
            ensure!(began.elapsed() < PATIENCE, "after {before:?} confirms there are only {:?}", confirmed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Ends the publishers, and the consumers once all that was confirmed is delivered. Returns what happened, in words.
    ///
    /// # Errors
    /// If a confirmed message is not delivered, or one is delivered twice and only marked as redelivered once.
    pub async fn finish(self) -> Result<String> {
        let Self { book, published, over, publishers, consumers } = self;
        published.cancel();
        for publisher in publishers {
            publisher.await?;
        }
        let missing = || {
            let book = book.lock().expect("no one panicked");
            book.confirmed.iter().filter(|id| !book.delivered.contains_key(id)).copied().collect::<Vec<Id>>()
        };
        let began = Instant::now();
        while !missing().is_empty() && began.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        over.cancel();
        for consumer in consumers {
            consumer.await?;
        }
        let missing = missing();
        let book = book.lock().expect("no one panicked");
        let confirmed = book.confirmed.len();
        ensure!(missing.is_empty(), "{} of {confirmed} confirmed messages are lost: {missing:?}", missing.len());
        let doubled: Vec<_> = book.delivered.iter().filter(|(_, [_, fresh])| *fresh > 1).collect();
        ensure!(doubled.is_empty(), "delivered again without a mark: {doubled:?}");
        ensure!(confirmed > 1_000, "only {confirmed} messages were confirmed");
        let gaps: Vec<Duration> = book.gaps.values().map(|(longest, _)| *longest).collect();
        let again: u64 = book.delivered.values().map(|[again, _]| again).sum();
        Ok(format!("{confirmed} confirmed, 0 lost, {again} redelivered, longest gaps {gaps:?}"))
    }
}

impl Client {
    async fn publishes(self, mut node: usize) {
        let mut next = 0;
        while !self.over.is_cancelled() {
            if let Ok(Ok(connection)) = bounded("connecting", connect(&self.hosts[node], USER)).await {
                // Whatever ends it, it goes on at another node.
                let _ = publish(&self, &connection, node, &mut next).await;
                close(&connection).await;
            }
            node = self.other_than(node).await;
        }
    }

    async fn consumes(self, mut node: usize) {
        while !self.over.is_cancelled() {
            if let Ok(Ok(connection)) = bounded("connecting", connect(&self.hosts[node], USER)).await {
                let _ = consume(&self, &connection).await;
                close(&connection).await;
            }
            node = self.other_than(node).await;
        }
    }

    async fn other_than(&self, node: usize) -> usize {
        tokio::time::sleep(Duration::from_millis(20)).await;
        (node + 1) % self.hosts.len()
    }
}

/// Closes a connection. Lapin keeps one open that is only dropped while it waits for an answer, and with it what was
/// delivered on it.
async fn close(connection: &Connection) {
    let _ = bounded("closing", connection.close(200, "".into())).await;
}

/// A call of a client takes no longer than this, unless its node stands still.
const CALL_MAX: Duration = Duration::from_secs(2);
