//! Health checks. Each answers 200 `{"status":"ok"}`, or 503 with a reason. None takes a lock that is ever held for long.
use crate::error::ApiError;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use leveret_node::{Broker, StorageTrouble};
use serde_json::{Value, json};

/// The answer of a health check.
type Checked = (StatusCode, Json<Value>);

/// Checks whether the node serves clients.
///
/// # Errors
/// The reason why it does not.
fn readiness(broker: &Broker) -> Result<(), String> {
    if broker.is_recovering() {
        return Err("the log is being read: nothing is served yet".to_owned());
    }
    match broker.storage_health() {
        Err(stopped @ StorageTrouble::Stopped(_)) => Err(stopped.to_string()),
        // Damaged contents stop only the queues that have them, which their state and the metrics show. The node is ready.
        _ => broker.cluster_readiness(),
    }
}

/// Succeeds always: a process that answers is alive.
pub(crate) async fn live() -> Json<Value> {
    fine().await
}

/// Succeeds if the node serves clients.
pub(crate) async fn ready(State(broker): State<Broker>) -> Checked {
    match readiness(&broker) {
        Ok(()) => (StatusCode::OK, fine().await),
        Err(reason) => failed(json!({"reason": reason})),
    }
}

/// Succeeds if the node serves clients; the check under `/api`, which needs a login.
pub(crate) async fn serving(State(broker): State<Broker>) -> Checked {
    ready(State(broker)).await
}

/// Answers the checks that cannot fail on a single node.
pub(crate) async fn fine() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// Succeeds if the node serves clients and the virtual host exists.
pub(crate) async fn aliveness(State(broker): State<Broker>, Path(vhost): Path<String>) -> Result<Checked, ApiError> {
    if !broker.has_vhost(&vhost) {
        return Err(ApiError::no_object());
    }
    Ok(ready(State(broker)).await)
}

/// Succeeds if no alarm is in effect: memory, disk, or a cluster of which most nodes cannot be reached.
pub(crate) async fn alarms(State(broker): State<Broker>) -> Checked {
    let memory = broker.memory();
    let alarms = [
        ("memory", memory.is_memory_alarmed()),
        ("disk", memory.is_disk_alarmed()),
        ("cluster", memory.is_cluster_alarmed()),
    ];
    let alarms = alarms.into_iter().filter(|(_, is)| *is);
    let alarms: Vec<_> = alarms.map(|(resource, _)| json!({"node": broker.name(), "resource": resource})).collect();
    if !alarms.is_empty() {
        return failed(json!({"reason": "There are alarms in effect in the cluster", "alarms": alarms}));
    }
    (StatusCode::OK, fine().await)
}

/// Succeeds if all Raft groups would keep a majority without this node.
pub(crate) async fn quorum_critical(State(broker): State<Broker>) -> Checked {
    match broker.groups_in_need() {
        0 => (StatusCode::OK, fine().await),
        groups => failed(json!({
            "reason": format!("{groups} Raft groups, and the queues in them, would lose their majority without this node"),
            "queues": [],
        })),
    }
}

/// Succeeds if one of the broker's listeners has this port.
pub(crate) async fn port_listener(State(broker): State<Broker>, Path(port): Path<String>) -> Result<Checked, ApiError> {
    let port: u16 = port.parse().map_err(|_| ApiError::bad_request("Invalid port"))?;
    let ports: Vec<_> = broker.listeners().iter().map(|listener| listener.address.port()).collect();
    if ports.contains(&port) {
        return Ok((StatusCode::OK, Json(json!({"status": "ok", "port": port}))));
    }
    Ok(failed(json!({"reason": "No active listener", "missing": port, "ports": ports})))
}

/// Succeeds if the broker has a listener for this protocol, whose name may be written in several ways.
pub(crate) async fn protocol_listener(State(broker): State<Broker>, Path(protocol): Path<String>) -> Checked {
    let protocol = match &*protocol.to_lowercase() {
        "amqp091" | "amqp0.9.1" | "amqp0-9-1" | "amqp0_9_1" => "amqp".to_owned(),
        "http1" | "http1.1" | "http_api" | "management" | "management_ui" | "ui" => "http".to_owned(),
        "prometheus" | "http/prometheus" => "http/prometheus".to_owned(),
        other => other.to_owned(),
    };
    let protocols: Vec<_> = broker.listeners().iter().map(|listener| listener.protocol).collect();
    if protocols.contains(&&*protocol) {
        return (StatusCode::OK, Json(json!({"status": "ok", "protocol": protocol})));
    }
    failed(json!({"reason": "No active listener", "missing": protocol, "protocols": protocols}))
}

/// Succeeds for every valid period: there are no certificates that could expire.
pub(crate) async fn certificates(Path((within, unit)): Path<(String, String)>) -> Result<Json<Value>, ApiError> {
    if !within.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ApiError::bad_request("Invalid expiration value."));
    }
    if !matches!(&*unit.to_lowercase(), "days" | "weeks" | "months" | "years") {
        let reason = "Time unit not recognised. Supported units: days, weeks, months, years.";
        return Err(ApiError::bad_request(reason));
    }
    Ok(fine().await)
}

fn failed(mut body: Value) -> Checked {
    body["status"] = json!("failed");
    (StatusCode::SERVICE_UNAVAILABLE, Json(body))
}
