//! What people see of a queue is the same whichever node they ask, and what Prometheus sums over the nodes is right.
use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use leveret_e2e::http;
use leveret_e2e::nodes::{Nodes, USER};
use leveret_e2e::wait::{PATIENCE, until_ok};
use serde_json::json;

/// More queues than nodes, so that each node leads some and none leads all.
const QUEUES: usize = 12;
const MESSAGES: u64 = 10;
const PREFETCH: u16 = 3;

async fn channel(nodes: &Nodes, at: usize) -> Result<(Connection, Channel)> {
    let url = format!("amqp://{USER}:{USER}@{}:5672/%2f", nodes.0[at].host);
    let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    Ok((connection, channel))
}

/// Waits until the groups are dealt out to the nodes.
fn are_dealt_out(nodes: &Nodes) -> Result<()> {
    until_ok(PATIENCE, "each node to lead groups".to_owned(), || {
        let shown = nodes.cluster_at(0)?;
        let members = shown["members"].as_array().context("no members")?;
        let leads: Vec<_> = members.iter().filter_map(|member| Some(member["leads"].as_array()?.len())).collect();
        let groups = shown["groups"].as_array().map_or(0, Vec::len);
        ensure!(leads.len() == 3 && leads.iter().all(|count| *count >= groups / 3), "{shown}");
        Ok(())
    })
}

/// Waits until all nodes show each queue with these figures: ready, unacknowledged, acknowledged.
fn all_show(nodes: &Nodes, figures: [u64; 3]) -> Result<()> {
    let [ready, unacked, acked] = figures;
    let expected = json!([ready, unacked, 1, MESSAGES, unacked + acked, acked]);
    until_ok(PATIENCE, format!("all nodes to show {expected}"), || {
        for node in &nodes.0 {
            let listed = http::get(&format!("{}/api/queues", node.http()))?.json()?;
            let listed = listed.as_array().context("no list")?.clone();
            ensure!(listed.len() == QUEUES, "{listed:?}");
            for queue in &listed {
                let name = queue["name"].as_str().context("no name")?;
                let alone = http::get(&format!("{}/api/queues/%2F/{name}", node.http()))?.json()?;
                for shown in [queue, &alone] {
                    let stats = &shown["message_stats"];
                    let found = json!([
                        shown["messages_ready"],
                        shown["messages_unacknowledged"],
                        shown["consumers"],
                        stats["publish"],
                        stats["deliver_get"],
                        stats["ack"]
                    ]);
                    ensure!(found == expected, "{}: {name}: {found}", node.host);
                    let online = shown["online"].as_array().map(Vec::len);
                    ensure!(shown["leader"] == shown["node"] && online == Some(3), "{shown}");
                }
            }
            let overview = http::get(&format!("{}/api/overview", node.http()))?.json()?;
            let total = overview["queue_totals"]["messages"].as_u64();
            ensure!(total == Some((ready + unacked) * QUEUES as u64), "{}: {overview}", node.host);
            let leaders: BTreeSet<_> = listed.iter().filter_map(|queue| queue["leader"].as_str()).collect();
            ensure!(leaders.len() == 3, "{}: {leaders:?} lead", node.host);
        }
        Ok(())
    })
}

/// Checks what the sums over all nodes of some metrics are.
fn sums_are(nodes: &Nodes, expected: &[(&str, u64)]) -> Result<()> {
    let scraped = nodes.0.iter().map(|node| http::get(&format!("http://{}:15692/metrics", node.host)));
    let texts = scraped.map(|answer| Ok(answer?.body)).collect::<Result<Vec<String>>>()?;
    for (name, expected) in expected {
        let is_sample = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let samples = texts.iter().flat_map(|text| text.lines().filter(is_sample));
        let values = samples.map(|line| Ok(line.rsplit(' ').next().context("no value")?.parse::<f64>()?));
        let sum: f64 = values.sum::<Result<f64>>()?;
        ensure!(sum == *expected as f64, "the sum of {name} is {sum} instead of {expected}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_show_the_same_figures_of_a_queue_and_their_metrics_add_up() -> Result<()> {
    let mut nodes = Nodes::new()?;
    (0..3).try_for_each(|at| nodes.start(at))?;
    tokio::task::block_in_place(|| nodes.ready(&[0, 1, 2]).and_then(|()| are_dealt_out(&nodes)))?;
    let (_publishing, publisher) = channel(&nodes, 0).await?;
    let (_consuming, consumer) = channel(&nodes, 1).await?;
    publisher.confirm_select(ConfirmSelectOptions::default()).await?;
    consumer.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let mut consumers = Vec::new();
    for number in 0..QUEUES {
        let (name, table) = (format!("q{number}"), FieldTable::default());
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        publisher.queue_declare(name.as_str().into(), options, table.clone()).await?;
        for _ in 0..MESSAGES {
            let (options, properties) =
                (BasicPublishOptions::default(), BasicProperties::default().with_delivery_mode(2));
            publisher.basic_publish("".into(), name.as_str().into(), options, b"hello", properties).await?.await?;
        }
        consumers.push(
            consumer.basic_consume(name.as_str().into(), "".into(), BasicConsumeOptions::default(), table).await?,
        );
    }
    let mut taken = Vec::new();
    for deliveries in &mut consumers {
        for _ in 0..PREFETCH {
            let next = tokio::time::timeout(PATIENCE, deliveries.next()).await?;
            taken.push(next.context("the channel was closed")??);
        }
    }
    let (all, unacked) = (MESSAGES * QUEUES as u64, u64::from(PREFETCH));
    let shown = |figures| tokio::task::block_in_place(|| all_show(&nodes, figures));
    shown([MESSAGES - unacked, unacked, 0])?;
    let counted = [
        ("leveret_queues", QUEUES as u64),
        ("leveret_queue_messages_ready", all - unacked * QUEUES as u64),
        ("leveret_queue_messages_unacked", unacked * QUEUES as u64),
        ("leveret_queue_consumers", QUEUES as u64),
        ("leveret_queue_messages_published_total", all),
        ("leveret_queue_messages_delivered_total", unacked * QUEUES as u64),
        ("leveret_queue_dwell_seconds_count", unacked * QUEUES as u64),
        ("leveret_messages_ready", all - unacked * QUEUES as u64),
        ("leveret_messages_published_total", all),
        ("leveret_messages_delivered_total", unacked * QUEUES as u64),
    ];
    sums_are(&nodes, &counted)?;

    for deliveries in &mut consumers {
        for _ in 0..MESSAGES - unacked {
            for delivery in taken.drain(..) {
                delivery.ack(BasicAckOptions::default()).await?;
            }
            let next = tokio::time::timeout(PATIENCE, deliveries.next()).await?;
            next.context("the channel was closed")??.ack(BasicAckOptions::default()).await?;
        }
    }
    shown([0, 0, MESSAGES])?;
    let counted = [("leveret_queue_messages_acked_total", all), ("leveret_messages_acked_total", all)];
    sums_are(&nodes, &counted)?;
    tokio::time::timeout(Duration::from_secs(10), publisher.close(200, "".into())).await??;
    Ok(())
}
