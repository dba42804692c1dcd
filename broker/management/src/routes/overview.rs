//! The broker as a whole: overview, nodes, who asks.
use super::Found;
use axum::extract::State;
use axum::{Extension, Json};
use leveret_node::{Broker, Identity};
use serde_json::{Value, json};
use std::sync::atomic::Ordering::Relaxed;

/// The version of RabbitMQ whose API this is.
const COMPATIBLE_VERSION: &str = "4.1.0";

pub(crate) async fn overview(State(broker): State<Broker>) -> Found {
    let (mut ready, mut unacked, mut consumers, mut queues) = (0, 0, 0, 0);
    let mut exchanges = 0;
    let ids: Vec<_> = {
        let catalog = broker.catalog();
        let vhosts: Vec<_> = catalog.vhosts().cloned().collect();
        exchanges += vhosts.iter().filter_map(|vhost| Some(catalog.exchanges(vhost).ok()?.count())).sum::<usize>();
        vhosts.iter().filter_map(|vhost| catalog.queues(vhost).ok()).flatten().map(|(_, queue)| queue.id).collect()
    };
    for queue in ids.into_iter().filter_map(|id| broker.queue(id)) {
        let depth = queue.look(|queue| queue.depth());
        ready += depth.ready;
        unacked += depth.unacked;
        consumers += depth.consumers;
        queues += 1;
    }
    let connections = broker.connections();
    let channels: usize = connections.iter().map(|connection| connection.channels.lock().len()).sum();
    let (opened, closed) = broker.connection_churn();
    let exchange_types = ["direct", "fanout", "headers", "topic"].map(|name| json!({"name": name, "enabled": true}));
    Ok(Json(json!({
        "management_version": COMPATIBLE_VERSION,
        "rabbitmq_version": COMPATIBLE_VERSION,
        "product_name": "Leveret",
        "product_version": env!("CARGO_PKG_VERSION"),
        "cluster_name": broker.name(),
        "node": broker.name(),
        "rates_mode": "none",
        "exchange_types": exchange_types,
        "queue_totals": {"messages": ready + unacked, "messages_ready": ready, "messages_unacknowledged": unacked},
        "object_totals": {
            "channels": channels, "connections": connections.len(), "consumers": consumers, "exchanges": exchanges,
            "queues": queues,
        },
        "churn_rates": {"connection_created": opened, "connection_closed": closed},
    })))
}

pub(crate) async fn whoami(Extension(identity): Extension<Identity>) -> Json<Value> {
    Json(json!({"name": &*identity.user, "tags": ["administrator"]}))
}

pub(crate) async fn version() -> Json<Value> {
    Json(json!(COMPATIBLE_VERSION))
}

pub(crate) async fn cluster_name(State(broker): State<Broker>) -> Json<Value> {
    Json(json!({"name": broker.name()}))
}

pub(crate) async fn nodes(State(broker): State<Broker>) -> Json<Value> {
    let (memory, usage) = (broker.memory(), broker.storage_usage().unwrap_or_default());
    let blocked = broker.connections().iter().filter(|connection| connection.blocked.load(Relaxed)).count();
    Json(json!([{
        "name": broker.name(), "type": "disc", "running": true, "os_pid": std::process::id().to_string(),
        "uptime": broker.clock().now() / 1_000_000, "processors": std::thread::available_parallelism().map_or(1, usize::from),
        "mem_used": memory.used(), "mem_limit": memory.max(), "mem_alarm": memory.is_over(),
        "disk_free_alarm": memory.is_disk_full(), "disk_free": usage.disk_free, "disk_free_limit": usage.disk_free_min, "fd_total": 0, "proc_total": 0, "run_queue": 0,
        "rates_mode": "none", "enabled_plugins": [], "being_drained": false, "blocked_connections": blocked,
        "applications": [{"name": "rabbit", "version": COMPATIBLE_VERSION}],
    }]))
}
