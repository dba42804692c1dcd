//! The node, in the form of RabbitMQ's list of cluster nodes.
use super::ObjectAnswer;
use super::overview::{COMPATIBLE_VERSION, contexts, exchange_types};
use crate::error::ApiError;
use crate::list::Query;
use axum::Json;
use axum::extract::{Path, State};
use leveret_node::Broker;
use serde_json::{Value, json};
use std::sync::atomic::Ordering::Relaxed;

pub(crate) async fn list(State(broker): State<Broker>, query: Query) -> Json<Value> {
    Json(json!([query.pick(view(&broker))]))
}

pub(crate) async fn get(State(broker): State<Broker>, Path(name): Path<String>, query: Query) -> ObjectAnswer {
    if name == broker.name() { Ok(Json(query.pick(view(&broker)))) } else { Err(ApiError::no_object()) }
}

fn view(broker: &Broker) -> Value {
    let (memory, usage) = (broker.memory(), broker.storage_usage().unwrap_or_default());
    let (connections, descriptors) = (broker.connections(), leveret_node::descriptors());
    let blocked = connections.iter().filter(|connection| connection.blocked.load(Relaxed)).count();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let uptime_ms = broker.clock().now() / 1_000_000;
    let mechanism = json!({"name": "PLAIN", "description": "SASL PLAIN authentication mechanism", "enabled": true});
    json!({
        "name": broker.name(), "type": "disc", "running": true, "being_drained": false,
        "os_pid": std::process::id().to_string(), "uptime": uptime_ms, "processors": processors, "run_queue": 0,
        "mem_used": memory.used(), "mem_limit": memory.max(), "mem_alarm": memory.is_memory_alarmed(),
        "disk_free": usage.disk_free, "disk_free_limit": usage.disk_free_min,
        "disk_free_alarm": memory.is_disk_alarmed(), "fd_used": descriptors.open, "fd_total": descriptors.max,
        "sockets_used": connections.len(), "sockets_total": descriptors.max, "proc_used": 0, "proc_total": 0,
        "blocked_connections": blocked, "partitions": [], "cluster_links": [], "rates_mode": "basic",
        "enabled_plugins": ["rabbitmq_management", "rabbitmq_prometheus"], "config_files": [], "log_files": [],
        "auth_mechanisms": [mechanism], "exchange_types": exchange_types(), "contexts": contexts(broker),
        "applications": [
            {"name": "rabbit", "description": "RabbitMQ", "version": COMPATIBLE_VERSION},
            {"name": "rabbitmq_management", "description": "RabbitMQ Management Console", "version": COMPATIBLE_VERSION},
            {
                "name": "rabbitmq_prometheus", "description": "Prometheus metrics",
                "version": COMPATIBLE_VERSION,
            },
        ],
    })
}
