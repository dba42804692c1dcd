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
    if broker.memory().is_alarmed() {
        let body = json!({
            "status": "failed", "reason": "There are alarms in effect in the cluster",
            "alarms": [{"node": broker.name(), "resource": "memory"}],
        });
        return (StatusCode::SERVICE_UNAVAILABLE, Json(body));
    }
    (StatusCode::OK, fine().await)
}
