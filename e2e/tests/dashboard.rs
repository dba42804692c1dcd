//! The Grafana dashboard against a real Prometheus that scrapes a broker under traffic: every query of every panel has an
//! answer with the labels that its legend names, and the metrics have the right values.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer};
use leveret_e2e::broker::BrokerProcess;
use leveret_e2e::programs;
use leveret_e2e::prometheus::{Prometheus, Sample};
use leveret_e2e::wait::{PATIENCE, until_ok};
use serde_json::Value;

fn dashboard() -> Result<Value> {
    Ok(serde_json::from_str(&fs::read_to_string(programs::root().join("config/dashboards/leveret.json"))?)?)
}

fn panels(dashboard: &Value) -> Result<&Vec<Value>> {
    dashboard["panels"].as_array().context("no panels")
}

#[test]
fn panels_are_laid_out_without_overlap() -> Result<()> {
    let dashboard = dashboard()?;
    let mut taken = BTreeMap::new();
    let mut ids = Vec::new();
    for panel in panels(&dashboard)? {
        let (title, place) = (panel["title"].as_str().context("a panel without a title")?, &panel["gridPos"]);
        let number = |name: &str| place[name].as_u64().with_context(|| format!("{title}: no {name}"));
        let (x, y, w, h) = (number("x")?, number("y")?, number("w")?, number("h")?);
        ensure!(w > 0 && h > 0 && x + w <= 24, "{title} is wider than the page");
        for cell in (x..x + w).flat_map(|column| (y..y + h).map(move |line| (column, line))) {
            if let Some(other) = taken.insert(cell, title) {
                anyhow::bail!("{title} overlaps {other}");
            }
        }
        ids.push(panel["id"].as_u64().context("no id")?);
        for target in panel["targets"].as_array().into_iter().flatten() {
            ensure!(target["datasource"]["uid"] == "${datasource}", "{title} has a data source of its own");
        }
    }
    ids.sort_unstable();
    ids.dedup();
    ensure!(ids.len() == panels(&dashboard)?.len(), "two panels have the same id");
    Ok(())
}

#[test]
fn every_query_of_the_dashboard_has_an_answer_under_traffic() -> Result<()> {
    let broker = BrokerProcess::start()?;
    let prometheus = Prometheus::start(&broker.metrics(), &[("namespace", "shop")])?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let traffic = runtime.block_on(Traffic::open(&broker.amqp_url()))?;
    runtime.block_on(traffic.publish("parked", 7))?;
    let stop = Arc::new(AtomicBool::new(false));
    let flowing = runtime.spawn(traffic.flow("orders", Arc::clone(&stop)));

    let dashboard = dashboard()?;
    variables_find_their_values(&dashboard, &prometheus)?;
    for panel in panels(&dashboard)?.iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().context("a panel without a title")?;
        let targets = panel["targets"].as_array().with_context(|| format!("{title} has no queries"))?;
        ensure!(!targets.is_empty(), "{title} has no queries");
        for target in targets {
            for choice in [("All", ".*", ".*", ".*"), ("one", "shop", "/", "(orders|parked)")] {
                answered(&prometheus, target, choice)
                    .with_context(|| format!("panel {title:?}, variables {choice:?}"))?;
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    runtime.block_on(flowing)??;
    Ok(())
}

/// Checks that the query of each variable, as Grafana sends it, returns the existing values.
fn variables_find_their_values(dashboard: &Value, prometheus: &Prometheus) -> Result<()> {
    let expected = BTreeMap::from([("namespace", "shop"), ("vhost", "/"), ("queue", "orders")]);
    let variables = dashboard["templating"]["list"].as_array().context("no variables")?;
    for variable in variables.iter().filter(|variable| variable["type"] == "query") {
        let (name, query) =
            (variable["name"].as_str().context("no name")?, variable["definition"].as_str().context("no definition")?);
        let (selector, label) = query
            .strip_prefix("label_values(")
            .and_then(|rest| rest.strip_suffix(')')?.rsplit_once(", "))
            .context("not label_values()")?;
        until_ok(PATIENCE, format!("values of {name}"), || {
            let values = prometheus.label_values(&substitute(selector, ("All", ".*", ".*", ".*")), label)?;
            let found = expected.get(name).is_none_or(|value| values.iter().any(|found| found == value));
            ensure!(!values.is_empty() && found, "{query} gives {values:?}");
            Ok(())
        })?;
    }
    Ok(())
}

/// Replaces the variables in a query with values, as Grafana does. The scrape interval is one second.
fn substitute(query: &str, (_, namespace, vhost, queue): (&str, &str, &str, &str)) -> String {
    let mut text = query.to_owned();
    for (name, value) in [
        ("$__rate_interval", "4s"),
        ("$namespace", namespace),
        ("$broker", ".*"),
        ("$vhost", vhost),
        ("$queue", queue),
        ("$top", "20"),
    ] {
        text = text.replace(name, value);
    }
    text
}

/// Checks that a query has an answer whose series have the labels of the legend.
fn answered(prometheus: &Prometheus, target: &Value, choice: (&str, &str, &str, &str)) -> Result<()> {
    let query = substitute(target["expr"].as_str().context("no expr")?, choice);
    ensure!(!query.contains('$'), "{query} contains a variable that the test does not know");
    let legend = target["legendFormat"].as_str().unwrap_or_default();
    until_ok(PATIENCE, format!("an answer to {query}"), || {
        let samples =
            if target["instant"] == true { prometheus.query(&query)? } else { prometheus.query_range(&query)? };
        ensure!(samples.iter().any(|sample| sample.value.is_finite()), "no values: {samples:?}");
        samples.iter().try_for_each(|sample| legend_has_labels(legend, sample))
    })
}

fn legend_has_labels(legend: &str, sample: &Sample) -> Result<()> {
    for label in legend.split("{{").skip(1).filter_map(|part| part.split("}}").next()) {
        ensure!(
            sample.labels.contains_key(label),
            "the legend {legend} names {label}, the labels are {:?}",
            sample.labels
        );
    }
    Ok(())
}

#[test]
fn metrics_follow_the_messages_and_consumers_of_a_queue() -> Result<()> {
    let broker = BrokerProcess::start()?;
    let prometheus = Prometheus::start(&broker.metrics(), &[])?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let shows = |metric: &str, value: f64| {
        let series = format!("leveret_queue_{metric}{{vhost=\"/\", queue=\"steps\"}}");
        until_ok(PATIENCE, format!("{series} to be {value}"), || {
            let last = prometheus.last(metric, &series)?;
            ensure!((last - value).abs() < 0.5, "{series} is {last}");
            Ok(())
        })
    };
    let traffic = runtime.block_on(Traffic::open(&broker.amqp_url()))?;
    runtime.block_on(traffic.publish("steps", 500))?;
    shows("messages_ready", 500.0)?;
    shows("messages_published_total", 500.0)?;
    shows("consumers", 0.0)?;

    let mut consumer = runtime.block_on(traffic.consume("steps", 100))?;
    runtime.block_on(take(&mut consumer, 100, false))?;
    shows("messages_ready", 400.0)?;
    shows("messages_unacked", 100.0)?;
    shows("consumers", 1.0)?;

    runtime.block_on(traffic.channel.basic_ack(0, BasicAckOptions { multiple: true }))?;
    runtime.block_on(take(&mut consumer, 400, true))?;
    shows("messages_ready", 0.0)?;
    shows("messages_unacked", 0.0)?;
    shows("messages_delivered_total", 500.0)?;
    shows("messages_acked_total", 500.0)?;
    shows("dwell_seconds_count", 500.0)?;

    runtime.block_on(traffic.channel.basic_cancel(consumer.tag(), Default::default()))?;
    shows("consumers", 0.0)
}

struct Traffic {
    _connection: Connection,
    channel: Channel,
}

impl Traffic {
    async fn open(url: &str) -> Result<Self> {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Self { _connection: connection, channel })
    }

    async fn publish(&self, queue: &str, count: usize) -> Result<()> {
        self.channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), FieldTable::default()).await?;
        let mut confirms = Vec::new();
        for _ in 0..count {
            let options = BasicPublishOptions { mandatory: true, ..Default::default() };
            confirms.push(
                self.channel
                    .basic_publish("".into(), queue.into(), options, b"message", BasicProperties::default())
                    .await?,
            );
        }
        for confirm in confirms {
            ensure!(confirm.await?.is_ack());
        }
        Ok(())
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Consumer> {
        self.channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
        Ok(self
            .channel
            .basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default())
            .await?)
    }

    /// Publishes and consumes at a steady pace until it is stopped. Slightly more is published, so that some messages stay.
    async fn flow(self, queue: &'static str, stop: Arc<AtomicBool>) -> Result<()> {
        self.publish(queue, 5).await?;
        let mut consumer = self.consume(queue, 3).await?;
        while !stop.load(Ordering::Relaxed) {
            self.publish(queue, 11).await?;
            take(&mut consumer, 10, true).await?;
            tokio::time::sleep(Duration::from_millis(50)).await; // the pace of the flow
        }
        Ok(())
    }
}

async fn take(consumer: &mut Consumer, count: usize, ack: bool) -> Result<()> {
    for _ in 0..count {
        let message = tokio::time::timeout(PATIENCE, consumer.next()).await?.context("the consumer ended")??;
        if ack {
            message.ack(BasicAckOptions::default()).await?;
        }
    }
    Ok(())
}
