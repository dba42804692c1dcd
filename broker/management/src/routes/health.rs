//! Health checks: 200 `{"status":"ok"}`, or 503 with a reason.
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use leveret_node::Broker;
use serde_json::{Value, json};

/// It answers, so it is well.
pub(crate) async fn fine() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// Whether no alarm is in effect.
pub(crate) async fn alarms(State(broker): State<Broker>) -> (StatusCode, Json<Value>) {
    let memory = broker.memory();
    let alarms = [("memory", memory.is_over()), ("disk", memory.is_disk_full())].into_iter().filter(|(_, is)| *is);
    let alarms: Vec<_> = alarms.map(|(resource, _)| json!({"node": broker.name(), "resource": resource})).collect();
    if !alarms.is_empty() {
        let body = json!({
            "status": "failed", "reason": "There are alarms in effect in the cluster",
            "alarms": alarms,
        });
        return (StatusCode::SERVICE_UNAVAILABLE, Json(body));
    }
    (StatusCode::OK, fine().await)
}
