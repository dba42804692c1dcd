//! Clients of all nodes publish and consume while nodes are killed with -9, stand still, and are all killed at once.
//!
//! `LEVERET_NODES_ROUNDS` sets how often a node is killed, `LEVERET_NODES_SEED` which ones and when.
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Confirmation};
use leveret_e2e::trouble::{connect, durable, random, variable};
use leveret_e2e::wait::PATIENCE;
use rustix::process::Signal;
use tokio_util::sync::CancellationToken;

use crate::nodes::Nodes;

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
}

type Shared = Arc<Mutex<Book>>;

/// Gives up a call of the client library that never ends because its node stands still or is gone.
async fn bounded<T>(what: &str, call: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(CALL_MAX, call).await.with_context(|| format!("no end of {what}"))
}

/// Publishes with confirms, one message after the other, until something fails or the test is over.
async fn publish(host: &str, publisher: u64, next: &mut u64, book: &Shared, over: &CancellationToken) -> Result<()> {
    let connection = bounded("connecting", connect(host)).await??;
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
        let now = Instant::now();
        let (longest, last) = book.gaps.entry(publisher).or_insert((Duration::ZERO, now));
        (*longest, *last) = ((*longest).max(now - *last), now);
    }
    bounded("closing", connection.close(200, "".into())).await??;
    Ok(())
}

/// Consumes from all queues until something fails or the test is over.
async fn consume(host: &str, book: &Shared, over: &CancellationToken) -> Result<()> {
    let connection = bounded("connecting", connect(host)).await??;
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

/// Runs a client on each node until the test is over. A client whose connection ends goes on at another node.
fn clients(
    hosts: &[String],
    book: &Shared,
    over: &CancellationToken,
    publish_there: bool,
) -> Vec<tokio::task::JoinHandle<()>> {
    let mut running = Vec::new();
    for at in 0..hosts.len() {
        let (hosts, book, over) = (hosts.to_vec(), book.clone(), over.clone());
        running.push(tokio::spawn(async move {
            let (mut host, mut next) = (at, 0);
            while !over.is_cancelled() {
                // Whatever ends a client, another takes its place.
                let _ = match publish_there {
                    true => publish(&hosts[host], at as u64, &mut next, &book, &over).await,
                    false => consume(&hosts[host], &book, &over).await,
                };
                host = (host + 1) % hosts.len();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }));
    }
    running
}

/// Kills nodes, one after the other, then stops one for a while, and at last kills all of them at once.
async fn trouble(nodes: &mut Nodes, rounds: u64, seed: &mut u64, book: &Shared) -> Result<()> {
    for _ in 0..rounds {
        let at = (random(seed) % 3) as usize;
        nodes.0[at].process()?.signal(Signal::KILL)?;
        nodes.0[at].process()?.wait(PATIENCE)?;
        tokio::time::sleep(Duration::from_millis(random(seed) % 1_000)).await;
        nodes.start(at)?;
        goes_on(nodes, book).await?;
    }
    let at = (random(seed) % 3) as usize;
    nodes.0[at].process()?.signal(Signal::STOP)?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    nodes.0[at].process()?.signal(Signal::CONT)?;
    goes_on(nodes, book).await?;
    for node in &mut nodes.0 {
        node.process()?.signal(Signal::KILL)?;
    }
    for at in 0..3 {
        nodes.0[at].process()?.wait(PATIENCE)?;
        nodes.start(at)?;
    }
    goes_on(nodes, book).await
}

/// Waits until all nodes are ready, and until each publisher has got further confirms.
async fn goes_on(nodes: &Nodes, book: &Shared) -> Result<()> {
    tokio::task::block_in_place(|| nodes.ready(&[0, 1, 2]))?;
    let confirmed = || {
        let book = book.lock().expect("no one panicked");
        [0, 1, 2].map(|publisher| book.confirmed.iter().filter(|id| id.0 == publisher).count())
    };
    let (before, began) = (confirmed(), Instant::now());
    while confirmed().iter().zip(before).any(|(now, before)| *now < before + 100) {
        ensure!(began.elapsed() < PATIENCE, "after {before:?} confirms there are only {:?}", confirmed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_confirmed_on_any_node_is_delivered_whichever_nodes_are_killed() -> Result<()> {
    let (rounds, mut seed) = (variable("LEVERET_NODES_ROUNDS", 5), variable("LEVERET_NODES_SEED", 1));
    let mut nodes = Nodes::new()?;
    (0..3).try_for_each(|at| nodes.start(at))?;
    tokio::task::block_in_place(|| nodes.ready(&[0, 1, 2]))?;
    let hosts: Vec<String> = nodes.0.iter().map(|node| node.host.clone()).collect();
    let connection = connect(&hosts[1]).await?;
    let channel = connection.create_channel().await?;
    for queue in QUEUES {
        channel.queue_declare(queue.into(), durable(), FieldTable::default()).await?;
    }
    let (book, published, over) = (Shared::default(), CancellationToken::new(), CancellationToken::new());
    let publishers = clients(&hosts, &book, &published, true);
    let consumers = clients(&hosts, &book, &over, false);
    trouble(&mut nodes, rounds, &mut seed, &book).await?;
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
    ensure!(
        missing.is_empty(),
        "{} of {} confirmed messages are lost: {missing:?}",
        missing.len(),
        book.confirmed.len()
    );
    let doubled: Vec<_> = book.delivered.iter().filter(|(_, [_, fresh])| *fresh > 1).collect();
    ensure!(doubled.is_empty(), "delivered again without a mark: {doubled:?}");
    ensure!(book.confirmed.len() > 1_000, "only {} messages were confirmed", book.confirmed.len());
    let gaps: Vec<Duration> = book.gaps.values().map(|(longest, _)| *longest).collect();
    let again: u64 = book.delivered.values().map(|[again, _]| again).sum();
    eprintln!("{} confirmed, 0 lost, {again} redelivered, longest gaps {gaps:?}", book.confirmed.len());
    let output: Vec<String> = nodes.0.iter().filter_map(|node| Some(node.process.as_ref()?.output())).collect();
    ensure!(output.iter().all(|text| !text.contains("panicked")), "{output:?}");
    Ok(())
}

/// A call of a client takes no longer than this, unless its node stands still.
const CALL_MAX: Duration = Duration::from_secs(2);
