//! The memory and sockets that clients make the broker hold are bounded, and are released soon after the clients have gone.

use std::fs;
use std::io::{ErrorKind, Read};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use leveret_e2e::broker::BrokerProcess;
use leveret_e2e::http;
use leveret_e2e::raw::{Bytes, Raw};
use leveret_e2e::wait::{PATIENCE, until, until_for};

const MEBIBYTE: u64 = 1 << 20;
/// The configuration of the brokers in these tests: their memory budget.
const BUDGET: &str = "memory_max = \"128MiB\"";

fn open_sockets(broker: &BrokerProcess) -> Result<usize> {
    let mut sockets = 0;
    for file in fs::read_dir(format!("/proc/{}/fd", broker.process.id()))? {
        sockets += usize::from(fs::read_link(file?.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:")));
    }
    Ok(sockets)
}

fn connections(broker: &BrokerProcess) -> Result<usize> {
    let list = http::get(&format!("{}/api/connections", broker.http()))?.json()?;
    Ok(list.as_array().context("no list")?.len())
}

/// Returns whether publishers are held back; `None` if the broker does not answer.
fn is_alarmed(broker: &BrokerProcess) -> Option<bool> {
    Some(http::get(&format!("{}/api/health/checks/alarms", broker.http())).ok()?.status == 503)
}

/// Fills the queue `full` until publishers are held back, including this connection, which is returned.
fn fill(broker: &BrokerProcess, heartbeat: u16) -> Result<Raw> {
    let mut raw = Raw::open_with(&broker.amqp(), heartbeat)?;
    raw.send(Bytes::new().declare(1, "full"))?;
    raw.expect((50, 11))?;
    let batch = (0..16).fold(Bytes::new(), |batch, _| batch.publish(1, "full", &[1; 60 << 10]));
    until("a memory alarm", || {
        let alarmed = is_alarmed(broker)?;
        let _taken = raw.send_some(&batch.0, Duration::from_millis(100));
        alarmed.then_some(())
    })?;
    // The next publish that the broker reads from this connection makes it hold the connection back.
    let _taken = raw.send_some(&batch.0, Duration::from_millis(100));
    until("the publisher to be held back", || {
        let list = http::get(&format!("{}/api/connections", broker.http())).ok()?.json().ok()?;
        let states: Vec<_> =
            list.as_array()?.iter().filter_map(|one| one["state"].as_str().map(str::to_owned)).collect();
        states.iter().any(|state| state == "blocked" || state == "blocking").then_some(())
    })?;
    Ok(raw)
}

#[test]
fn answers_that_a_client_does_not_read_are_not_buffered() -> Result<()> {
    let broker = BrokerProcess::start_with(BUDGET)?;
    let mut raw = Raw::open(&broker.amqp())?;
    raw.send(Bytes::new().declare(1, "large").publish(1, "large", &vec![5; 8 << 20]))?;
    raw.expect((50, 11))?;
    // Each iteration gets the message of 8 MiB and requeues it.
    let mut loops = Bytes::new();
    for tag in 1..=2000u64 {
        loops = loops.get(1, "large").method(1, (60, 90), &[&tag.to_be_bytes()[..], &[1]].concat());
    }
    raw.send_some(&loops.0, Duration::from_secs(3))?;
    let mut most = 0;
    // Measures for three seconds: the condition is never met.
    let _timeout = until_for(Duration::from_secs(3), "nothing", || {
        most = most.max(broker.process.resident_bytes().unwrap_or(u64::MAX));
        None::<()>
    });
    ensure!(most < 160 * MEBIBYTE, "the broker holds {} MiB for a client that reads nothing", most / MEBIBYTE);
    // The client gets its answers once it reads.
    let mut got = 0;
    while got < 20 {
        let frame = raw.receive()?.context("the connection ended")?;
        got += usize::from(frame.ids() == Some((60, 71)));
    }
    Ok(())
}

/// Sends `bytes` in total of incomplete messages: of each message of 8 MiB the first 2 MB, on a channel of its own. Sends
/// fewer if the broker stops reading.
fn begin_messages(raw: &mut Raw, bytes: usize) -> Result<()> {
    let part = vec![9; 100 << 10];
    for channel in 1..=(bytes / part.len() / 20) as u16 {
        let mut begun = Bytes::new().method(channel, (60, 40), &[0, 0, 0, 0, 0]).header(channel, 8 << 20);
        begun = (0..20).fold(begun, |begun, _| begun.frame(3, channel, &part));
        if raw.send_some(&begun.0, Duration::from_secs(1))? < begun.0.len() {
            break;
        }
    }
    Ok(())
}

/// Opens a connection with 40 channels.
fn with_channels(broker: &BrokerProcess) -> Result<Raw> {
    let mut raw = Raw::open(&broker.amqp())?;
    (2..=40).try_for_each(|channel| raw.open_channel(channel))?;
    Ok(raw)
}

/// Returns clients that have used up the memory budget with incomplete messages.
fn fill_with_beginnings(broker: &BrokerProcess) -> Result<Vec<Raw>> {
    let mut clients = (0..4).map(|_| with_channels(broker)).collect::<Result<Vec<_>>>()?;
    clients.iter_mut().try_for_each(|raw| begin_messages(raw, 30 << 20))?;
    Ok(clients)
}

#[test]
fn incomplete_messages_of_a_connection_are_bounded() -> Result<()> {
    let broker = BrokerProcess::start_with(BUDGET)?;
    let mut raw = with_channels(&broker)?;
    begin_messages(&mut raw, 63 << 20)?;
    let others = Raw::open(&broker.amqp())?;
    ensure!(
        connections(&broker)? == 2,
        "a connection within its bound of four messages of the largest size was closed"
    );
    raw.send(Bytes::new().frame(3, 1, &vec![9; 100 << 10]).frame(3, 2, &vec![9; 100 << 10]))?;
    for channel in 3..30 {
        let _refused = raw.send(Bytes::new().frame(3, channel, &vec![9; 100 << 10]));
    }
    let close = raw.expect((10, 50))?;
    ensure!(close.reply_code() == Some(506), "closed with {:?}", close.reply_code());
    until("only the other connection to be left", || (connections(&broker).ok()? == 1).then_some(()))?;
    drop(others);
    Ok(())
}

#[test]
fn incomplete_messages_count_towards_the_memory_budget() -> Result<()> {
    let broker = BrokerProcess::start_with(BUDGET)?;
    let mut clients = fill_with_beginnings(&broker)?;
    until("a memory alarm", || is_alarmed(&broker)?.then_some(()))?;
    for raw in &mut clients {
        raw.send_some(&vec![0; 64 << 20], Duration::from_secs(1)).ok();
    }
    let resident = broker.process.resident_bytes()?;
    ensure!(resident < 250 * MEBIBYTE, "the broker holds {} MiB for incomplete messages", resident / MEBIBYTE);
    clients.into_iter().try_for_each(Raw::reset)?;
    until("the memory to be released", || {
        let alarmed = is_alarmed(&broker)?;
        (!alarmed && connections(&broker).ok()? == 0).then_some(())
    })
}

#[test]
fn when_only_incomplete_messages_use_up_the_memory_their_connections_are_closed_one_by_one() -> Result<()> {
    let broker = BrokerProcess::start_with(BUDGET)?;
    let mut stuck = fill_with_beginnings(&broker)?;
    until("a memory alarm", || is_alarmed(&broker)?.then_some(()))?;
    // All of them wait for memory that only they could release. The broker closes them one by one until the rest has room.
    for raw in &mut stuck {
        let _taken = raw.send_some(&Bytes::new().frame(3, 1, &[9]).0, Duration::from_millis(100))?;
    }
    until("the alarm to be over", || (!is_alarmed(&broker)?).then_some(()))?;
    ensure!(connections(&broker)? > 0, "the broker closed all of the connections");
    Ok(())
}

/// Returns the bytes that a silent connection has received; empty unless the broker closed it.
fn received(raw: Raw) -> Result<Vec<u8>> {
    let (mut socket, mut received) = raw.into_parts();
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let _open_or_closed = socket.read_to_end(&mut received);
    Ok(received)
}

#[test]
fn connections_with_stalled_incomplete_messages_are_closed_when_others_need_the_memory() -> Result<()> {
    let broker = BrokerProcess::start_with(BUDGET)?;
    let mut silent = (0..4).map(|_| with_channels(&broker)).collect::<Result<Vec<_>>>()?;
    // Half of the budget; the process itself takes another 40 MiB.
    silent.iter_mut().try_for_each(|raw| begin_messages(raw, 16 << 20))?;
    ensure!(is_alarmed(&broker) == Some(false), "the incomplete messages alone used up the memory");
    let _publisher = fill(&broker, 0)?;
    until_for(Duration::from_secs(20), "one of the silent connections to be closed", || {
        // Heartbeats do not count as part of a message.
        silent.iter_mut().for_each(|raw| drop(raw.send(Bytes::new().frame(8, 0, &[]))));
        (connections(&broker).ok()? < 5).then_some(())
    })?;
    let is_resource_error = |bytes: &Vec<u8>| bytes.get(7..13) == Some(&[0, 10, 0, 50, 1, 250]);
    let mut closed = silent.into_iter().map(received).collect::<Result<Vec<_>>>()?;
    closed.retain(|bytes| !bytes.is_empty());
    ensure!(!closed.is_empty() && closed.iter().all(is_resource_error), "received {closed:?}");
    Ok(())
}

#[test]
fn the_broker_notices_the_reset_of_a_connection_that_it_holds_back() -> Result<()> {
    for heartbeat in [0, 2] {
        let broker = BrokerProcess::start_with(BUDGET)?;
        let mut consumer = fill(&broker, heartbeat)?;
        ensure!(connections(&broker)? == 1, "one client is connected");
        // A consumed message has to be requeued, although the broker does not read from this connection.
        consumer.send_some(&Bytes::new().get(1, "full").0, Duration::from_millis(100))?;
        consumer.reset()?;
        until_for(PATIENCE / 6, "the end of a client that is held back", || {
            (connections(&broker).ok()? == 0).then_some(())
        })?;
    }
    Ok(())
}

/// The end of the stream is behind bytes that the broker does not read; it learns of the end only when it sends something.
#[test]
fn the_broker_notices_the_close_of_a_connection_that_it_holds_back() -> Result<()> {
    for heartbeat in [2, 0] {
        let broker = BrokerProcess::start_with(BUDGET)?;
        let mut publisher = fill(&broker, heartbeat)?;
        while publisher.send_some(&[0; 1 << 20], Duration::from_millis(300))? > 0 {}
        publisher.drain(Duration::from_millis(100))?;
        drop(publisher);
        until_for(PATIENCE / 2, "the end of a client that is held back", || {
            (connections(&broker).ok()? == 0).then_some(())
        })
        .with_context(|| format!("heartbeat {heartbeat}"))?;
    }
    Ok(())
}

#[test]
fn a_client_that_stops_reading_loses_its_connection_and_its_messages_are_requeued() -> Result<()> {
    let broker = BrokerProcess::start()?;
    let sockets = open_sockets(&broker)?;
    let mut publisher = Raw::open(&broker.amqp())?;
    publisher.send(Bytes::new().declare(1, "many"))?;
    publisher.expect((50, 11))?;
    let mut stuck = Vec::new();
    for _ in 0..5 {
        let mut raw = Raw::open_with(&broker.amqp(), 1)?;
        raw.send(Bytes::new().consume(1, "many"))?;
        stuck.push(raw);
    }
    let batch = (0..100).fold(Bytes::new(), |batch, _| batch.publish(1, "many", &[1; 100 << 10]));
    for _ in 0..10 {
        publisher.send(Bytes(batch.0.clone()))?;
    }
    // After two silent heartbeat intervals the broker closes the connections and their sockets, although the clients keep
    // their ends open.
    until("the broker to close the sockets of silent clients", || {
        (open_sockets(&broker).ok()? <= sockets + 1).then_some(())
    })?;
    until("the messages to be ready again", || {
        let queue = http::get(&format!("{}/api/queues/%2F/many", broker.http())).ok()?.json().ok()?;
        (queue["messages_ready"] == 1000).then_some(())
    })
}

#[test]
fn a_client_that_closes_while_it_is_still_publishing_gets_close_ok() -> Result<()> {
    let broker = BrokerProcess::start()?;
    for _ in 0..10 {
        let mut raw = Raw::open(&broker.amqp())?;
        raw.send(Bytes::new().declare(1, "busy"))?;
        raw.expect((50, 11))?;
        let close = [&200u16.to_be_bytes()[..], &[3], b"bye", &[0; 4]].concat();
        raw.send(Bytes::new().method(0, (10, 50), &close))?;
        // As if other threads of the client went on publishing.
        let rest = (0..2000).fold(Bytes::new(), |rest, _| rest.publish(1, "busy", &[1; 100]));
        for _ in 0..10 {
            match raw.send(Bytes(rest.0.clone())) {
                Err(error) if is_reset(&error) => break,
                sent => sent?,
            }
        }
        raw.expect((10, 51)).context("the answer to connection.close")?;
    }
    Ok(())
}

fn is_reset(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    matches!(kind, Some(ErrorKind::BrokenPipe | ErrorKind::ConnectionReset))
}
