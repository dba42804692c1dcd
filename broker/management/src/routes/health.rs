//! Health checks: 200 `{"status":"ok"}`, or 503 with a reason.
use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use leveret_node::Broker;
use serde_json::{Value, json};

/// It answers, so it is well.
pub(crate) async fn fine() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// Whether clients are served: not before the log was read.
pub(crate) async fn ready(State(broker): State<Broker>) -> (StatusCode, Json<Value>) {
    if broker.is_recovering() {
        let reason = "the log is being read: nothing is served yet";
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "failed", "reason": reason})));
    }
    (StatusCode::OK, fine().await)
}

/// Lets nobody ask for or change what is not known yet.
pub(crate) async fn require_recovered(State(broker): State<Broker>, request: Request, next: Next) -> Response {
    if broker.is_recovering() { ready(State(broker)).await.into_response() } else { next.run(request).await }
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
