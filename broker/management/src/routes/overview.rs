//! The broker as a whole.
use super::queues::LiveQueues;
use super::{ObjectAnswer, all_vhosts};
use crate::api::Api;
use crate::figures::figures_of;
use crate::list::Query;
use crate::rates::{QueueRates, message_counts, message_stats};
use axum::Json;
use axum::extract::State;
use leveret_node::{Broker, Counters, Depth, Queue, QueueFigures};
use serde_json::{Value, json};
use std::sync::atomic::Ordering::Relaxed;

/// The version of RabbitMQ whose API this is compatible with.
pub(super) const COMPATIBLE_VERSION: &str = "4.1.0";
/// The Erlang version under that version of RabbitMQ, as RabbitMQ's tools expect one.
const COMPATIBLE_ERLANG: &str = "27";

pub(crate) async fn overview(State(api): State<Api>, query: Query) -> ObjectAnswer {
    let broker = &api.broker;
    let totals = totals(&api).await;
    let Totals { depth, counters, rates, .. } = totals;
    let connections = broker.connections();
    let channels: usize = connections.iter().map(|connection| connection.channels.lock().len()).sum();
    let queue_totals: serde_json::Map<_, _> =
        message_counts(depth, rates).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Ok(Json(query.pick(json!({
        "management_version": COMPATIBLE_VERSION,
        "rabbitmq_version": COMPATIBLE_VERSION,
        "erlang_version": COMPATIBLE_ERLANG,
        "erlang_full_version": format!("Erlang/OTP {COMPATIBLE_ERLANG} (Leveret is not written in Erlang)"),
        "product_name": "Leveret",
        "product_version": env!("CARGO_PKG_VERSION"),
        "cluster_name": broker.cluster_name(),
        "node": broker.name(),
        "rates_mode": "basic",
        "sample_retention_policies": {"global": [], "basic": [], "detailed": []},
        "exchange_types": exchange_types(),
        "queue_totals": queue_totals,
        "message_stats": message_stats(counters, rates),
        "object_totals": {
            "channels": channels, "connections": connections.len(), "consumers": depth.consumers,
            "exchanges": exchange_count(broker).await, "queues": totals.queues,
        },
        "churn_rates": churn_rates(broker),
        "statistics_db_event_queue": 0,
        "listeners": listeners(broker),
        "contexts": contexts(broker),
    }))))
}

/// Returns how many connections, channels and queues were opened and closed since the start. Their rates are always 0: they
/// are not computed.
fn churn_rates(broker: &Broker) -> Value {
    let churn = broker.churn();
    let mut rates = json!({});
    for (name, count) in [
        ("connection_created", &churn.connections_opened),
        ("connection_closed", &churn.connections_closed),
        ("channel_created", &churn.channels_opened),
        ("channel_closed", &churn.channels_closed),
        ("queue_declared", &churn.queues_declared),
        ("queue_created", &churn.queues_created),
        ("queue_deleted", &churn.queues_deleted),
    ] {
        rates[name] = json!(count.load(Relaxed));
        rates[format!("{name}_details")] = json!({"rate": 0.0});
    }
    rates
}

/// The sums over all queues.
pub(crate) struct Totals {
    pub(crate) queues: usize,
    pub(crate) depth: Depth,
    /// Counters since the start. For a deleted queue they contain what was last observed of it.
    pub(crate) counters: Counters,
    pub(crate) rates: QueueRates,
}

/// Sums the figures of all queues of the cluster.
async fn totals(api: &Api) -> Totals {
    let elsewhere = api.figures.elsewhere(&api.broker).await;
    sum(api, |queue| figures_of(&api.broker, &elsewhere, queue)).await
}

/// Sums the share of this node in the figures of all queues: the sum of what all nodes return is that of the cluster.
pub(crate) async fn totals_here(api: &Api) -> Totals {
    sum(api, |queue| api.broker.figures_here(queue)).await
}

/// Sums figures of all queues, yielding to other tasks after each batch. Queues that no node is known to serve do not count.
async fn sum(api: &Api, of: impl Fn(&Queue) -> QueueFigures) -> Totals {
    let (mut queues, mut sum, mut figures) = (0, Depth::default(), LiveQueues::new(&api.broker));
    while let Some(batch) = figures.next() {
        let now = api.broker.clock().now();
        for queue in batch {
            let figures = of(&queue);
            api.rates.observe(&api.broker, queue.id, figures, now);
            if !figures.serves {
                continue;
            }
            let depth = figures.depth;
            sum.ready += depth.ready;
            sum.unacked += depth.unacked;
            sum.body_bytes += depth.body_bytes;
            sum.consumers += depth.consumers;
            queues += 1;
        }
        tokio::task::yield_now().await;
    }
    let (counters, rates) = api.rates.totals(sum, api.broker.clock().now());
    Totals { queues, depth: sum, counters, rates }
}

async fn exchange_count(broker: &Broker) -> usize {
    all_vhosts(broker).iter().filter_map(|vhost| Some(broker.catalog().exchanges(vhost).ok()?.count())).sum()
}

pub(super) fn exchange_types() -> Value {
    let kinds = [("direct", "Direct"), ("fanout", "Fanout"), ("headers", "Headers"), ("topic", "Topic")];
    let view = |(name, title): (&str, &str)| json!({"name": name, "description": format!("{title} exchange"), "enabled": true});
    kinds.into_iter().map(view).collect()
}

pub(super) fn listeners(broker: &Broker) -> Value {
    let listeners = broker.listeners();
    let view = |listener: &leveret_node::Listener| {
        json!({
            "node": broker.name(), "protocol": listener.protocol,
            "ip_address": listener.address.ip().to_string(), "port": listener.address.port(), "socket_opts": {},
        })
    };
    listeners.iter().map(view).collect()
}

pub(super) fn contexts(broker: &Broker) -> Value {
    let listeners = broker.listeners();
    let http = listeners.iter().filter_map(|listener| {
        let description = match listener.protocol {
            "http" => "RabbitMQ Management",
            "http/prometheus" => "RabbitMQ Prometheus",
            _ => return None,
        };
        let (ip, port) = (listener.address.ip().to_string(), listener.address.port().to_string());
        let node = broker.name();
        Some(json!({"node": node, "description": description, "path": "/", "ip": ip, "port": port, "ssl_opts": []}))
    });
    http.collect()
}

pub(crate) async fn version() -> Json<Value> {
    Json(json!(COMPATIBLE_VERSION))
}

pub(crate) async fn cluster_name(State(broker): State<Broker>) -> Json<Value> {
    Json(json!({"name": broker.cluster_name()}))
}

/// Answers with the pages that plugins add to the UI: there are none.
pub(crate) async fn extensions() -> Json<Value> {
    Json(json!([]))
}

/// Answers with an empty list, for kinds of things that this broker does not have.
pub(crate) async fn nothing() -> Json<Value> {
    Json(json!([]))
}
