//! The nodes, in the form of RabbitMQ's list of cluster nodes. Of other nodes than the one that is asked only the state is
//! known.
use super::ObjectAnswer;
use super::overview::{COMPATIBLE_VERSION, contexts, exchange_types};
use crate::error::ApiError;
use crate::list::Query;
use axum::Json;
use axum::extract::{Path, State};
use leveret_node::{Broker, MemberState, MemberView};
use serde_json::{Value, json};
use std::sync::atomic::Ordering::Relaxed;

pub(crate) async fn list(State(broker): State<Broker>, query: Query) -> Json<Value> {
    Json(all(&broker).into_iter().map(|node| query.pick(node)).collect())
}

pub(crate) async fn get(State(broker): State<Broker>, Path(name): Path<String>, query: Query) -> ObjectAnswer {
    let named = all(&broker).into_iter().find(|node| node["name"] == name);
    named.map(|node| Json(query.pick(node))).ok_or_else(ApiError::no_object)
}

/// Returns all members of the cluster; this node alone if it is no part of one.
fn all(broker: &Broker) -> Vec<Value> {
    let cluster = broker.cluster_view();
    let members = cluster.iter().flat_map(|cluster| cluster.members.iter().map(|member| (cluster.node, member)));
    let mut nodes: Vec<Value> = members
        .map(|(own, member)| {
            let mut node = if member.node == own { view(broker) } else { other(member) };
            node["being_drained"] = json!(member.state == MemberState::Leaving);
            node["cluster_address"] = json!(member.address);
            node["cluster_state"] = json!(member.state.name());
            node
        })
        .collect();
    if !nodes.iter().any(|node| node["name"] == broker.name()) {
        nodes.insert(0, view(broker));
    }
    nodes
}

/// Returns what is known of another member.
fn other(member: &MemberView) -> Value {
    json!({
        "name": member.shown_name(), "type": "disc", "running": member.state.is_up(), "mem_alarm": false,
        "disk_free_alarm": member.state == MemberState::Full, "partitions": [], "cluster_links": [],
    })
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
