//! The broker as a process: its messages when it cannot start, how it stops, how it treats malformed input, and its memory
//! budget.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::{Stream, StreamExt};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Event};
use leveret_e2e::broker::{BrokerProcess, command, run};
use leveret_e2e::clients::Client;
use leveret_e2e::process::{Folder, Process, address};
use leveret_e2e::wait::{PATIENCE, until, until_ok};

const HEADER: &[u8; 8] = b"AMQP\x00\x00\x09\x01";

/// Runs a broker that cannot start, and returns what it printed.
fn refusal(folder: &Folder, host: &str, arguments: &[&str]) -> Result<String> {
    let (status, said) = run(command(folder, host)?.args(arguments), PATIENCE)?;
    ensure!(!status.success(), "the broker started:\n{said}");
    ensure!(!said.contains("panicked"), "the broker panicked:\n{said}");
    Ok(said)
}

fn says(said: &str, words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(said.contains(word), "{word:?} is not in the output:\n{said}");
    }
    Ok(())
}

#[test]
fn a_port_in_use_is_named_in_the_error() -> Result<()> {
    for (port, what) in [("5672", "AMQP"), ("15672", "management API"), ("15692", "metrics")] {
        let (folder, host) = (Folder::new()?, address());
        let _taken = TcpListener::bind(format!("{host}:{port}"))?;
        says(&refusal(&folder, &host, &[])?, &[&format!("{host}:{port}"), what])?;
    }
    Ok(())
}

#[test]
fn a_second_broker_on_the_same_data_is_refused() -> Result<()> {
    let broker = BrokerProcess::start()?;
    let said = refusal(&broker.folder, &address(), &[])?;
    says(&said, &["in use", &broker.process.id().to_string()])
}

/// Starts a broker and stops it. Returns its data folder and the segment of its log that contains records.
fn stopped() -> Result<(Folder, PathBuf)> {
    let folder = Folder::new()?;
    let host = address();
    let mut process = Process::start(&mut command(&folder, &host)?)?;
    until_ok(PATIENCE, "the broker".to_owned(), || {
        ensure!(process.output().contains("leveret is ready"), "{}", process.output());
        Ok(())
    })?;
    process.terminate(PATIENCE)?;
    let begun = |path: &PathBuf| std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"LVRTWAL\0"));
    let files = std::fs::read_dir(folder.path().join("data/wal"))?.map(|entry| entry.map(|entry| entry.path()));
    let files: Vec<PathBuf> = files.collect::<Result<_, _>>()?;
    let segment = files.into_iter().find(begun).context("no segment has a header")?;
    Ok((folder, segment))
}

#[test]
fn data_that_is_foreign_or_newer_or_damaged_is_refused_and_the_file_named() -> Result<()> {
    let (folder, segment) = stopped()?;
    let (_other, foreign) = stopped()?;
    let own = std::fs::read(&segment)?;
    let name = segment.file_name().and_then(|name| name.to_str()).context("the name is not UTF-8")?;

    std::fs::copy(&foreign, &segment)?;
    says(&refusal(&folder, &address(), &[])?, &[name, "belongs to node"])?;

    let mut newer = own.clone();
    for copy in newer[..128].chunks_mut(64) {
        copy[8..12].copy_from_slice(&99u32.to_le_bytes());
        let checksum = crc32fast::hash(&copy[..60]);
        copy[60..64].copy_from_slice(&checksum.to_le_bytes());
    }
    std::fs::write(&segment, &newer)?;
    says(&refusal(&folder, &address(), &[])?, &[name, "99"])?;

    // Flip a bit of the first record. Later records prove that it was durable.
    let mut rotten = own.clone();
    rotten[128 + 20] ^= 1;
    std::fs::write(&segment, &rotten)?;
    says(&refusal(&folder, &address(), &[])?, &[name, "128", "damaged"])?;

    std::fs::write(&segment, &own)?;
    let mut process = Process::start(&mut command(&folder, &address())?)?;
    until_ok(PATIENCE, "the broker".to_owned(), || {
        ensure!(process.output().contains("leveret is ready"), "{}", process.output());
        Ok(())
    })?;
    process.terminate(PATIENCE)?;
    Ok(())
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_most_similar_key() -> Result<()> {
    let folder = Folder::new()?;
    let file = folder.write("leveret.toml", "# a comment\nmemory_max = \"60%\"\nmemory_mox = \"70%\"\n")?;
    let file = file.to_str().context("the path is not UTF-8")?;
    says(&refusal(&folder, &address(), &["--config", file])?, &[file, "3", "memory_mox", "memory_max"])?;
    let missing = folder.path().join("missing.toml");
    let missing = missing.to_str().context("the path is not UTF-8")?;
    says(&refusal(&folder, &address(), &["--config", missing])?, &[missing])
}

#[test]
fn a_value_of_the_wrong_type_is_named_with_its_line() -> Result<()> {
    let folder = Folder::new()?;
    let file = folder.write("leveret.toml", "\nmemory_max = [\"a list\"]\n")?;
    says(
        &refusal(&folder, &address(), &["--config", file.to_str().context("the path is not UTF-8")?])?,
        &["2", "memory_max"],
    )
}

#[test]
fn sigterm_stops_the_broker_in_time() -> Result<()> {
    let mut broker = BrokerProcess::start()?;
    let mut silent = TcpStream::connect(broker.amqp())?; // an incomplete handshake must not delay the stop
    silent.write_all(&HEADER[..5])?;
    let mut client = Client::Lapin.start(&broker.amqp_url(), &["--count", "1000000", "roundtrip"])?;
    until("a busy client", || (broker.metric("leveret_connections").ok()? >= 1.0).then_some(()))?;
    let status = broker.process.terminate(Duration::from_secs(15))?;
    ensure!(status.success(), "the broker ended with {status}:\n{}", broker.process.output());
    ensure!(!client.wait(PATIENCE)?.success(), "the client was not interrupted:\n{}", client.output());
    ensure!(TcpStream::connect(broker.amqp()).is_err(), "the broker still accepts connections");
    Ok(())
}

/// Opens a connection and sends these bytes. The broker may close it before all are written.
fn connect(broker: &BrokerProcess, bytes: &[u8]) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(broker.amqp())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    match stream.write_all(bytes) {
        Err(error) if !closed_by_peer(error.kind()) => bail!("writing: {error}"),
        _ => Ok(stream),
    }
}

/// Returns all that the broker sends until it closes the connection.
fn answer(mut stream: TcpStream) -> Result<Vec<u8>> {
    let mut got = Vec::new();
    match stream.read_to_end(&mut got) {
        Err(error) if !closed_by_peer(error.kind()) => {
            bail!("the broker did not close the connection within {PATIENCE:?}: {error}, after {} bytes", got.len())
        }
        _ => Ok(got),
    }
}

fn closed_by_peer(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

#[test]
fn other_protocols_are_answered_with_the_protocol_header_and_a_close() -> Result<()> {
    let broker = BrokerProcess::start()?;
    let http = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n".as_slice();
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice();
    for bytes in [
        http,
        tls,
        b"AMQP\x00\x01\x00\x00",
        b"AMQP\x03\x01\x00\x00",
        b"AMQP\x01\x01\x09\x01",
        b"\x00\x00\x00\x00\x00\x00\x00\x00",
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let got = answer(connect(&broker, bytes)?)?;
        ensure!(got == HEADER, "{bytes:?} was answered with {got:?}");
    }
    Client::Lapin.run(&broker.amqp_url(), &["roundtrip"])?;
    Ok(())
}

#[test]
fn silent_connections_do_not_keep_clients_out_and_are_closed() -> Result<()> {
    let broker = BrokerProcess::start()?;
    let silent: Vec<_> = (0..300).map(|number| connect(&broker, &HEADER[..number % 9])).collect::<Result<_>>()?;
    Client::Lapin.run(&broker.amqp_url(), &["roundtrip"])?;
    for stream in silent {
        answer(stream)?;
    }
    until_ok(PATIENCE, "the metrics to show no connection", || {
        let open = broker.metric("leveret_connections")?;
        ensure!(open < 0.5, "{open} connections are left");
        Ok(())
    })
}

/// A frame that announces an absurd size before the login is refused as soon as its head has arrived.
#[test]
fn frames_of_absurd_size_cost_no_memory() -> Result<()> {
    let broker = BrokerProcess::start()?;
    Client::Lapin.run(&broker.amqp_url(), &["roundtrip"])?;
    let before = broker.process.resident_bytes()?;
    let mut streams = Vec::new();
    for size in [u32::MAX, 0x7fff_ffff, 0x1000_0000, 131_073] {
        for kind in [1, 2, 3, 8] {
            let mut bytes = HEADER.to_vec();
            bytes.extend([kind, 0, 0]);
            bytes.extend(size.to_be_bytes());
            bytes.extend([0; 4096]);
            for _ in 0..20 {
                streams.push(connect(&broker, &bytes)?);
            }
        }
    }
    for stream in streams {
        let got = answer(stream)?;
        ensure!(String::from_utf8_lossy(&got).contains("FRAME_ERROR"), "answered with {got:?}");
    }
    let grown = broker.process.resident_bytes()?.saturating_sub(before);
    ensure!(grown < 16 << 20, "320 such connections made the broker grow by {grown} bytes");
    Client::Lapin.run(&broker.amqp_url(), &["roundtrip"])?;
    Ok(())
}

/// Random bytes (from a fixed seed) after a valid header close the connection and do not end the broker.
#[test]
fn garbage_after_the_header_ends_only_its_connection() -> Result<()> {
    let mut broker = BrokerProcess::start()?;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..200 {
        let mut bytes = HEADER.to_vec();
        for _ in 0..round * 3 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.push((state >> 24) as u8);
        }
        let stream = connect(&broker, &bytes)?;
        let _ = stream.shutdown(std::net::Shutdown::Write); // fails where the broker has closed already
        answer(stream).with_context(|| format!("round {round}"))?;
    }
    ensure!(broker.process.ended()?.is_none(), "the broker ended:\n{}", broker.process.output());
    ensure!(!broker.process.output().contains("panicked"), "{}", broker.process.output());
    Client::Lapin.run(&broker.amqp_url(), &["roundtrip"])?;
    Ok(())
}

const BUDGET_BYTES: u64 = 96 << 20;
const BODY_BYTES: usize = 64 << 10;

async fn channel(url: &str) -> Result<(Connection, Channel)> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    Ok((connection, channel))
}

/// Publishes until the broker sends connection.blocked. Returns the number of messages that were sent.
async fn publish_until_blocked(channel: &Channel, events: &mut (impl Stream<Item = Event> + Unpin)) -> Result<usize> {
    let body = vec![7; BODY_BYTES];
    for sent in 0..20_000 {
        let publish = channel.basic_publish(
            "".into(),
            "budget".into(),
            BasicPublishOptions::default(),
            &body,
            BasicProperties::default(),
        );
        tokio::select! {
            biased;
            event = events.next() => if let Event::ConnectionBlocked(reason) = event.context("the events ended")? {
                ensure!(reason.to_lowercase().contains("memory"), "the reason is {reason:?}");
                return Ok(sent);
            },
            confirm = publish => drop(confirm?),
        }
        tokio::task::yield_now().await;
    }
    bail!("{} bytes were published without connection.blocked", 20_000 * BODY_BYTES)
}

async fn until_unblocked(events: &mut (impl Stream<Item = Event> + Unpin)) -> Result<()> {
    loop {
        match tokio::time::timeout(PATIENCE, events.next()).await.context("waited for connection.unblocked")? {
            Some(Event::ConnectionUnblocked) => return Ok(()),
            Some(_) => {}
            None => bail!("the events ended"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_memory_budget_publishers_are_blocked_until_consumers_have_drained() -> Result<()> {
    let broker = BrokerProcess::start_with(&format!("memory_max = {BUDGET_BYTES}\n"))?;
    let (publishing, to_queue) = channel(&broker.amqp_url()).await?;
    to_queue.queue_declare("budget".into(), QueueDeclareOptions::default(), FieldTable::default()).await?;
    to_queue.confirm_select(ConfirmSelectOptions::default()).await?;
    let mut events = Box::pin(publishing.events_listener());
    let sent = publish_until_blocked(&to_queue, &mut events).await?;
    ensure!(broker.metric("leveret_memory_alarm")? > 0.5, "no alarm in the metrics");
    let resident = broker.process.resident_bytes()?;
    ensure!(resident < BUDGET_BYTES + (64 << 20), "{resident} bytes are resident with a budget of {BUDGET_BYTES}");

    let (_consuming, from_queue) = channel(&broker.amqp_url()).await?;
    from_queue.basic_qos(10, BasicQosOptions::default()).await?;
    let mut consumer = from_queue
        .basic_consume("budget".into(), "".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await?;
    for taken in 0..sent {
        let message = tokio::time::timeout(PATIENCE, consumer.next())
            .await
            .with_context(|| format!("waited for message {taken} of {sent}"))?;
        let message = message.context("the consumer ended")??;
        ensure!(message.data.len() == BODY_BYTES && !message.redelivered);
        message.ack(BasicAckOptions::default()).await?;
    }
    until_unblocked(&mut events).await?;
    until_ok(PATIENCE, "the end of the alarm", || {
        ensure!(broker.metric("leveret_memory_alarm")? < 0.5, "the alarm is still in effect");
        Ok(())
    })?;
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let confirm =
        to_queue.basic_publish("".into(), "budget".into(), options, b"again", BasicProperties::default()).await?;
    ensure!(tokio::time::timeout(PATIENCE, confirm).await??.is_ack(), "a publish after the alarm was not confirmed");
    Ok(())
}

#[test]
fn the_help_text_names_every_flag() -> Result<()> {
    let mut process = Process::start(
        std::process::Command::new(leveret_e2e::programs::built("leveret", &[])?).args(["serve", "--help"]),
    )?;
    ensure!(process.wait(PATIENCE)?.success());
    says(&process.output(), &["--config", "--data-dir", "--amqp", "--http", "--metrics", "--log", "LEVERET_AMQP"])
}
