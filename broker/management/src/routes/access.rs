//! Users, permissions and logins. There is one user, who has all permissions.
use super::{ObjectAnswer, all_vhosts};
use crate::api::Api;
use crate::error::ApiError;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use leveret_node::{Broker, Caller};
use serde_json::{Value, json};

pub(crate) async fn whoami(Extension(caller): Extension<Caller>) -> Json<Value> {
    Json(json!({"name": &*caller.identity.user, "tags": ["administrator"], "is_internal_user": true}))
}

pub(crate) async fn users(State(broker): State<Broker>) -> Json<Value> {
    Json(json!([view(&broker)]))
}

pub(crate) async fn user(State(broker): State<Broker>, Path(name): Path<String>) -> ObjectAnswer {
    check_user(&broker, &name)?;
    Ok(Json(view(&broker)))
}

pub(crate) async fn permissions(State(broker): State<Broker>) -> Json<Value> {
    Json(all_vhosts(&broker).iter().map(|vhost| permission_view(&broker, vhost)).collect())
}

pub(crate) async fn user_permissions(State(broker): State<Broker>, Path(name): Path<String>) -> ObjectAnswer {
    check_user(&broker, &name)?;
    Ok(permissions(State(broker)).await)
}

pub(crate) async fn vhost_permissions(State(broker): State<Broker>, Path(vhost): Path<String>) -> ObjectAnswer {
    check_vhost(&broker, &vhost)?;
    Ok(Json(json!([permission_view(&broker, &vhost)])))
}

pub(crate) async fn permission(
    State(broker): State<Broker>,
    Path((vhost, user)): Path<(String, String)>,
) -> ObjectAnswer {
    check_vhost(&broker, &vhost)?;
    check_user(&broker, &user)?;
    Ok(Json(permission_view(&broker, &vhost)))
}

pub(crate) async fn auth() -> Json<Value> {
    Json(json!({"oauth_enabled": false}))
}

/// Answers with the numbers of logins to this API since the start.
pub(crate) async fn attempts(State(api): State<Api>, Path(node): Path<String>) -> ObjectAnswer {
    if node != api.broker.name() {
        return Err(ApiError::no_object());
    }
    let (succeeded, failed) = api.logins.counts();
    Ok(Json(json!([{
        "protocol": "http", "auth_attempts": succeeded + failed, "auth_attempts_succeeded": succeeded,
        "auth_attempts_failed": failed,
    }])))
}

/// Answers with an empty list: the addresses that logins came from are not recorded, as in RabbitMQ by default.
pub(crate) async fn attempts_by_source(State(broker): State<Broker>, Path(node): Path<String>) -> ObjectAnswer {
    if node == broker.name() { Ok(Json(json!([]))) } else { Err(ApiError::no_object()) }
}

fn check_user(broker: &Broker, name: &str) -> Result<(), ApiError> {
    if name == broker.options().default_user { Ok(()) } else { Err(ApiError::no_object()) }
}

fn check_vhost(broker: &Broker, name: &str) -> Result<(), ApiError> {
    if broker.has_vhost(name) { Ok(()) } else { Err(ApiError::no_object()) }
}

fn view(broker: &Broker) -> Value {
    json!({
        "name": broker.options().default_user, "tags": ["administrator"], "limits": {},
        "password_hash": BASE64_STANDARD.encode(broker.password_hash()),
        "hashing_algorithm": "rabbit_password_hashing_sha256",
    })
}

fn permission_view(broker: &Broker, vhost: &str) -> Value {
    json!({
        "user": broker.options().default_user, "vhost": vhost, "configure": ".*", "write": ".*", "read": ".*",
    })
}
