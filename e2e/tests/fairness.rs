//! Fairness: clients at full speed leave consumers, new clients and the HTTP API their share. And an idle broker sleeps.

use std::fs;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use leveret_e2e::broker::BrokerProcess;
use leveret_e2e::http;
use leveret_e2e::raw::{Bytes, Raw};
use leveret_e2e::wait::{PATIENCE, until_for};

/// The number of messages in one write of a publisher.
const BATCH: u64 = 500;

#[derive(Default)]
struct Counts {
    published: AtomicU64,
    consumed: AtomicU64,
    /// Set to end publishers and consumers.
    over: AtomicBool,
}

/// Starts a thread that publishes as fast as the broker reads.
fn publisher(amqp: &str, queue: &str, counts: &Arc<Counts>) -> Result<JoinHandle<()>> {
    let mut raw = Raw::open(amqp)?;
    raw.send(Bytes::new().declare(1, queue))?;
    raw.expect((50, 11))?;
    let batch = (0..BATCH).fold(Bytes::new(), |batch, _| batch.publish(1, queue, &[7; 16]));
    let (mut writer, counts) = (raw.writer()?, counts.clone());
    Ok(std::thread::spawn(move || {
        let _open = raw;
        while !counts.over.load(Relaxed) && writer.write_all(&batch.0).is_ok() {
            counts.published.fetch_add(BATCH, Relaxed);
        }
    }))
}

/// Starts a thread that consumes with a prefetch of 1,000 and acknowledges every 100 deliveries.
fn consumer(amqp: &str, queue: &str, counts: &Arc<Counts>) -> Result<JoinHandle<Result<()>>> {
    let mut raw = Raw::open(amqp)?;
    raw.send(Bytes::new().declare(1, queue).qos(1, 1000).consume(1, queue))?;
    for ids in [(50, 11), (60, 11), (60, 21)] {
        raw.expect(ids)?;
    }
    let counts = counts.clone();
    Ok(std::thread::spawn(move || {
        let ((mut socket, mut bytes), mut room) = (raw.into_parts(), vec![0; 256 << 10]);
        let (mut taken, mut acked) = (0, 0);
        while !counts.over.load(Relaxed) {
            let some = socket.read(&mut room)?;
            ensure!(some > 0, "the broker closed a consumer's connection");
            bytes.extend_from_slice(&room[..some]);
            let before = taken;
            let mut at = 0;
            while let Some(head) = bytes.get(at..at + 7) {
                let end = at + 8 + u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
                if end > bytes.len() {
                    break;
                }
                taken += u64::from(head[0] == 3);
                at = end;
            }
            bytes.drain(..at);
            counts.consumed.fetch_add(taken - before, Relaxed);
            if taken / 100 > acked {
                acked = taken / 100;
                socket.write_all(&Bytes::new().ack_up_to(1, acked * 100).0)?;
            }
        }
        Ok(())
    }))
}

#[test]
fn publishers_at_full_speed_leave_consumers_and_new_clients_their_share() -> Result<()> {
    let broker = BrokerProcess::start()?;
    let (amqp, counts) = (broker.amqp(), Arc::<Counts>::default());
    let queues = ["a", "b", "c", "d"];
    let consumers: Vec<_> = queues.iter().map(|queue| consumer(&amqp, queue, &counts)).collect::<Result<_>>()?;
    let publishers: Vec<_> = queues.iter().map(|queue| publisher(&amqp, queue, &counts)).collect::<Result<_>>()?;
    let (began, mut asked) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(5) {
        for path in ["health/live", "api/overview"] {
            let answer = http::get(&format!("{}/{path}", broker.http()))?;
            ensure!(answer.status == 200, "{path}: {answer:?}");
        }
        Raw::open(&amqp).context("a new client")?;
        asked += 1;
    }
    let (published, consumed) = (counts.published.load(Relaxed), counts.consumed.load(Relaxed));
    counts.over.store(true, Relaxed);
    for consumer in consumers {
        let _ended = consumer.join();
    }
    broker.stop()?;
    for publisher in publishers {
        let _ended = publisher.join();
    }
    eprintln!("{published} published, {consumed} consumed, {asked} rounds of a new client and two HTTP requests");
    ensure!(consumed * 10 > published * 7, "{published} published, only {consumed} consumed");
    ensure!(asked >= 20, "only {asked} rounds of a new client and two HTTP requests in five seconds");
    Ok(())
}

#[test]
fn an_idle_broker_uses_no_processor_time_and_hardly_ever_wakes() -> Result<()> {
    let broker = BrokerProcess::start()?;
    let ticks = || -> Result<u64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", broker.process.id()))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
    };
    let switches = || -> Result<u64> {
        let mut sum = 0;
        for task in fs::read_dir(format!("/proc/{}/task", broker.process.id()))? {
            let status = fs::read_to_string(task?.path().join("status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            sum += line.context("no count of switches")?.trim().parse::<u64>()?;
        }
        Ok(sum)
    };
    // The broker becomes idle a while after its start. Wait for three seconds in a row in which next to nothing happens.
    until_for(PATIENCE * 2, "the broker to become idle", || {
        let before = (ticks().ok()?, switches().ok()?);
        std::thread::sleep(Duration::from_secs(3));
        let (used, woken) = (ticks().ok()? - before.0, switches().ok()? - before.1);
        eprintln!("three idle seconds: {used} ticks of processor time, woken {woken} times");
        (used == 0 && woken <= 10).then_some(())
    })
}
