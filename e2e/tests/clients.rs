//! Unmodified client libraries against the broker: each passes the conformance checks, and each consumes what the others
//! published.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use leveret_e2e::broker::BrokerProcess;
use leveret_e2e::clients::Client;
use leveret_e2e::http;

/// Runs all checks of one client, and compares their names with those of the lapin client, so that no client can silently
/// lack checks.
fn conformance(client: Client) -> Result<()> {
    let broker = BrokerProcess::start()?;
    let report = client.run(&broker.amqp_url(), &["conformance"])?;
    let names: BTreeSet<_> = report.passed.iter().map(String::as_str).collect();
    let expected: BTreeSet<_> = check_names().collect();
    ensure!(expected.len() > 50, "the source of the lapin client has no list of checks");
    ensure!(
        names == expected,
        "the checks differ from those of lapin: {:?}",
        names.symmetric_difference(&expected).collect::<Vec<_>>()
    );
    ensure!(broker.stop()?.success());
    Ok(())
}

/// Returns the names of the checks in the source of the lapin client.
fn check_names() -> impl Iterator<Item = &'static str> {
    let source = include_str!("../src/bin/lapin-client/main.rs");
    source
        .lines()
        .filter_map(|line| line.trim().strip_prefix('"')?.split_once("\" => ").map(|(name, _)| name))
        .filter(|name| name.contains('.') || *name == "get")
}

#[test]
fn pika_conforms() -> Result<()> {
    conformance(Client::Pika)
}

#[test]
fn amqplib_conforms() -> Result<()> {
    conformance(Client::Amqplib)
}

#[test]
fn amqp091_go_conforms() -> Result<()> {
    conformance(Client::Amqp091Go)
}

#[test]
fn lapin_conforms() -> Result<()> {
    conformance(Client::Lapin)
}

#[test]
fn each_client_consumes_what_every_other_published() -> Result<()> {
    let broker = BrokerProcess::start()?;
    let answer = http::request(
        "PUT",
        &format!("{}/api/queues/%2F/shared", broker.http()),
        Some(&serde_json::json!({"durable": true})),
    )?;
    ensure!(answer.status == 201, "{answer:?}");
    for writer in Client::ALL {
        for reader in Client::ALL {
            writer.run(&broker.amqp_url(), &["--queue", "shared", "--count", "300", "publish"])?;
            reader.run(&broker.amqp_url(), &["--queue", "shared", "--count", "300", "consume"])?;
        }
    }
    Ok(())
}

#[test]
fn all_clients_publish_and_consume_at_the_same_time() -> Result<()> {
    let broker = BrokerProcess::start()?;
    let url = &broker.amqp_url();
    std::thread::scope(|scope| {
        let clients: Vec<_> =
            Client::ALL.map(|client| scope.spawn(move || client.run(url, &["--count", "1000", "roundtrip"]))).into();
        clients
            .into_iter()
            .try_for_each(|client| client.join().map_err(|_| anyhow::anyhow!("a client's thread panicked"))?.map(drop))
    })
}

#[test]
fn a_stopping_broker_closes_every_client_with_320() -> Result<()> {
    let mut broker = BrokerProcess::start()?;
    let answer = http::request(
        "PUT",
        &format!("{}/api/queues/%2F/held", broker.http()),
        Some(&serde_json::json!({"durable": true})),
    )?;
    ensure!(answer.status == 201, "{answer:?}");
    let mut holding = Vec::new();
    for client in Client::ALL {
        let process = client.start(&broker.amqp_url(), &["--queue", "held", "hold"])?;
        leveret_e2e::wait::until(format!("{client:?} to hold"), || process.output().contains("holding").then_some(()))?;
        holding.push((client, process));
    }
    let status = broker.process.terminate(leveret_e2e::wait::PATIENCE)?;
    ensure!(status.success(), "the broker ended with {status}:\n{}", broker.process.output());
    for (client, mut process) in holding {
        process.wait(leveret_e2e::wait::PATIENCE)?;
        ensure!(process.output().contains("closed 320 "), "{client:?} was not closed with 320:\n{}", process.output());
    }
    Ok(())
}
