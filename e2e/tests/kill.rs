//! Confirmed messages survive kill -9: an unmodified client publishes and consumes while the broker is killed again and
//! again, sometimes during its recovery. In the end every confirmed message must have been delivered.
//!
//! `LEVERET_KILL_ROUNDS` sets how often the broker is killed, `LEVERET_KILL_SEED` the moments at which it is.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ExchangeKind};
use leveret_e2e::broker::command;
use leveret_e2e::process::{Folder, Process, address};
use leveret_e2e::trouble::{connect, durable, random, variable};
use leveret_e2e::wait::PATIENCE;
use rustix::process::Signal;

/// The durable queues.
const QUEUES: [&str; 3] = ["plain", "bound", "quorum"];
const PUBLISHERS: u64 = 2;
/// The most unconfirmed messages of a publisher.
const WINDOW: usize = 200;

/// A message: its publisher and its sequence number.
type Id = (u64, u64);

/// The publishes and deliveries of all clients.
#[derive(Default)]
struct Book {
    /// By publisher, the sequence number of its last publish.
    attempted: [u64; PUBLISHERS as usize],
    confirmed: HashSet<Id>,
    /// The delivered messages, each with the number of its deliveries.
    delivered: HashMap<Id, u64>,
    /// The number of acknowledgements that were sent.
    acked: u64,
    /// Descriptions of deliveries that should not have happened.
    wrong: Vec<String>,
}

type Shared = Arc<Mutex<Book>>;

/// Gives up a call of the client library that never ends: the future of an acknowledgement in lapin 4.12 stays pending if
/// the connection breaks while the acknowledgement is being sent. By then the broker has been killed, or soon will be.
async fn bounded<T>(what: &str, call: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(CALL_MAX, call).await.with_context(|| format!("the client library never ended {what}"))
}

/// A time far longer than a broker lives in this test.
const CALL_MAX: Duration = Duration::from_secs(10);

/// Starts the broker with its data in the folder, and connects to it. Returns also how long that took.
async fn start(folder: &Folder, host: &str) -> Result<(Process, Connection, Duration)> {
    let mut command = command(folder, host)?; // before the clock starts, as cargo may build the broker first
    let began = Instant::now();
    let mut process = Process::start(&mut command)?;
    loop {
        if let Ok(connection) = connect(host, "guest").await {
            return Ok((process, connection, began.elapsed()));
        }
        if let Some(status) = process.ended()? {
            bail!("the broker ended with {status}:\n{}", process.output());
        }
        ensure!(began.elapsed() < PATIENCE, "the broker does not serve:\n{}", process.output());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn kill(mut process: Process) -> Result<()> {
    process.signal(Signal::KILL)?;
    process.wait(PATIENCE)?;
    Ok(())
}

async fn declare(channel: &Channel) -> Result<()> {
    let exchange = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare("keeps".into(), ExchangeKind::Topic, exchange, FieldTable::default()).await?;
    for name in QUEUES {
        let mut arguments = FieldTable::default();
        if name == "quorum" {
            arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
            arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(-1));
        }
        channel.queue_declare(name.into(), durable(), arguments).await?;
    }
    let bind = QueueBindOptions::default();
    channel.queue_bind("bound".into(), "keeps".into(), "a.#".into(), bind, FieldTable::default()).await?;
    channel.queue_declare("passing".into(), QueueDeclareOptions::default(), FieldTable::default()).await?;
    Ok(())
}

/// Checks that the durable queues and the exchange exist, and that the transient queue does not.
async fn check_declared(connection: &Connection) -> Result<()> {
    let channel = connection.create_channel().await?;
    let passive = QueueDeclareOptions { passive: true, ..durable() };
    for name in QUEUES {
        channel.queue_declare(name.into(), passive, FieldTable::default()).await.context("a durable queue")?;
    }
    let exchange = ExchangeDeclareOptions { passive: true, durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare("keeps".into(), ExchangeKind::Topic, exchange, FieldTable::default()).await?;
    let gone = channel.queue_declare("passing".into(), passive, FieldTable::default()).await;
    ensure!(gone.is_err(), "a transient queue survived a restart of its broker");
    Ok(())
}

/// Publishes with confirms until the connection breaks.
async fn publish(host: String, publisher: u64, book: Shared) -> Result<()> {
    let connection = bounded("connecting", connect(&host, "guest")).await??;
    let channel = bounded("opening a channel", connection.create_channel()).await??;
    bounded("asking for confirms", channel.confirm_select(ConfirmSelectOptions::default())).await??;
    let mut waiting = VecDeque::new();
    loop {
        while waiting.len() < WINDOW {
            let sequence = {
                let attempted = &mut book.lock().expect("no one panicked").attempted[publisher as usize];
                *attempted += 1;
                *attempted
            };
            let queue = QUEUES[sequence as usize % QUEUES.len()];
            let (exchange, key) = if queue == "bound" { ("keeps", "a.b") } else { ("", queue) };
            let mut body = [publisher.to_le_bytes(), sequence.to_le_bytes()].concat();
            body.resize(16 + if sequence % 50 == 0 { 20_000 } else { sequence as usize % 1200 }, 7);
            let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
            let publish = channel.basic_publish(exchange.into(), key.into(), options, &body, properties);
            let confirm = bounded("a publish", publish).await??;
            waiting.push_back((sequence, confirm));
        }
        let Some((sequence, confirm)) = waiting.pop_front() else { continue };
        match bounded("a confirm", confirm).await?? {
            Confirmation::Ack(_) => book.lock().expect("no one panicked").confirmed.insert((publisher, sequence)),
            other => bail!("publish {sequence} came to {other:?}"),
        };
    }
}

fn id(body: &[u8]) -> Result<Id> {
    let long = |at: usize| body.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
    Ok((long(0).context("a short body")?, long(8).context("a short body")?))
}

/// Records a delivery.
fn note(book: &Shared, id: Id, redelivered: bool) {
    let mut book = book.lock().expect("no one panicked");
    if book.attempted.get(id.0 as usize).is_none_or(|&attempted| id.1 > attempted) {
        book.wrong.push(format!("{id:?} was never published"));
    }
    let before = book.delivered.entry(id).or_default();
    *before += 1;
    if *before > 1 && !redelivered {
        book.wrong.push(format!("{id:?} was delivered again without the redelivered flag"));
    }
}

/// Consumes until the connection breaks, and acknowledges, requeues or keeps the messages.
async fn consume(host: String, queue: &'static str, book: Shared) -> Result<()> {
    let connection = bounded("connecting", connect(&host, "guest")).await??;
    let channel = bounded("opening a channel", connection.create_channel()).await??;
    bounded("setting the prefetch", channel.basic_qos(100, BasicQosOptions::default())).await??;
    let options = BasicConsumeOptions::default();
    let subscribe = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
    let mut deliveries = bounded("subscribing", subscribe).await??;
    let mut newest = HashMap::new();
    let mut count = 0u64;
    loop {
        let Some(delivery) = bounded("a delivery", deliveries.next()).await? else { return Ok(()) };
        let delivery = delivery?;
        let (publisher, sequence) = id(&delivery.data)?;
        note(&book, (publisher, sequence), delivery.redelivered);
        if !delivery.redelivered {
            let before = newest.insert(publisher, sequence).unwrap_or(0);
            if before >= sequence {
                let text = format!("{queue} delivered {sequence} of publisher {publisher} after {before}");
                book.lock().expect("no one panicked").wrong.push(text);
            }
        }
        count += 1;
        match count % 20 {
            7 => {
                let requeue = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
                bounded("a nack", delivery.acker.nack(requeue)).await??
            }
            8 => continue,
            _ => bounded("an acknowledgement", delivery.acker.ack(BasicAckOptions::default())).await??,
        };
        book.lock().expect("no one panicked").acked += 1;
    }
}

/// Takes all messages out of the queues, and returns their number.
async fn drain(connection: &Connection, book: &Shared) -> Result<u64> {
    let channel = connection.create_channel().await?;
    let mut drained = 0;
    for queue in QUEUES {
        while let Some(got) = channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await? {
            note(book, id(&got.data)?, got.redelivered);
            drained += 1;
        }
    }
    Ok(drained)
}

/// Starts the broker, has clients publish and consume, and kills it after a while. One time in four the broker is killed
/// once before, during its recovery. Returns how long the start took.
async fn round(folder: &Folder, host: &str, seed: &mut u64, book: &Shared) -> Result<Duration> {
    if random(seed).is_multiple_of(4) {
        let recovering = Process::start(&mut command(folder, host)?)?;
        tokio::time::sleep(Duration::from_millis(random(seed) % 60)).await;
        kill(recovering)?;
    }
    let (process, connection, took) = start(folder, host).await?;
    check_declared(&connection).await?;
    let mut tasks = Vec::new();
    for publisher in 0..PUBLISHERS {
        tasks.push(tokio::spawn(publish(host.to_owned(), publisher, book.clone())));
    }
    for queue in QUEUES {
        tasks.push(tokio::spawn(consume(host.to_owned(), queue, book.clone())));
    }
    tokio::time::sleep(Duration::from_millis(50 + random(seed) % 350)).await;
    kill(process)?;
    for task in tasks {
        // Its result does not matter, as the broker was killed.
        let _ended = tokio::time::timeout(PATIENCE, task).await.context("a client did not end")??;
    }
    Ok(took)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_confirmed_is_lost_when_the_broker_is_killed() -> Result<()> {
    let (rounds, seed) = (variable("LEVERET_KILL_ROUNDS", 50), variable("LEVERET_KILL_SEED", 1));
    let (folder, host, book) = (Folder::new()?, address(), Shared::default());
    let (process, connection, mut slowest) = start(&folder, &host).await?;
    declare(&connection.create_channel().await?).await?;
    kill(process)?;
    let mut state = seed;
    for number in 0..rounds {
        let took = round(&folder, &host, &mut state, &book).await.with_context(|| format!("round {number}"))?;
        slowest = slowest.max(took);
    }
    let (process, connection, _) = start(&folder, &host).await?;
    let drained = drain(&connection, &book).await?;
    kill(process)?;
    let book = book.lock().expect("no one panicked");
    let lost: Vec<_> = book.confirmed.iter().filter(|id| !book.delivered.contains_key(id)).collect();
    let again = book.delivered.values().filter(|&&times| times > 1).count();
    eprintln!(
        "killed {rounds} times (seed {seed}): {} attempted, {} confirmed, {} delivered, {} acknowledged, {drained} drained at \
         the end, {again} delivered more than once, {} lost, slowest start {} ms",
        book.attempted.iter().sum::<u64>(),
        book.confirmed.len(),
        book.delivered.len(),
        book.acked,
        lost.len(),
        slowest.as_millis()
    );
    ensure!(lost.is_empty(), "lost: {:?}", &lost[..lost.len().min(20)]);
    ensure!(book.wrong.is_empty(), "{:?}", &book.wrong[..book.wrong.len().min(20)]);
    ensure!(book.confirmed.len() as u64 > rounds * 50, "too few messages were confirmed for the test to mean anything");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_messages_and_their_order() -> Result<()> {
    let (folder, host) = (Folder::new()?, address());
    let (mut process, connection, _) = start(&folder, &host).await?;
    let channel = connection.create_channel().await?;
    declare(&channel).await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    for number in 0..300u32 {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default().with_priority(3));
        let body = number.to_le_bytes();
        channel.basic_publish("keeps".into(), "a.b".into(), options, &body, properties).await?.await?;
    }
    for _ in 0..10 {
        let got = channel.basic_get("bound".into(), BasicGetOptions::default()).await?.context("a message")?;
        got.acker.ack(BasicAckOptions::default()).await?;
    }
    // The answer to this arrives only after the broker has handled the acknowledgements.
    channel.queue_declare("bound".into(), durable(), FieldTable::default()).await?;
    process.terminate(PATIENCE)?;
    let (mut process, connection, _) = start(&folder, &host).await?;
    check_declared(&connection).await?;
    let channel = connection.create_channel().await?;
    for number in 10..300u32 {
        let got = channel.basic_get("bound".into(), BasicGetOptions { no_ack: true }).await?.context("a message")?;
        ensure!(got.data == number.to_le_bytes() && !got.redelivered, "{number}: {got:?}");
        ensure!(got.routing_key.as_str() == "a.b" && *got.properties.priority() == Some(3), "{got:?}");
    }
    ensure!(channel.basic_get("bound".into(), BasicGetOptions::default()).await?.is_none());
    process.terminate(PATIENCE)?;
    Ok(())
}
