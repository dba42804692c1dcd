//! One file a resource.
pub(crate) mod bindings;
pub(crate) mod connections;
pub(crate) mod exchanges;
pub(crate) mod health;
pub(crate) mod overview;
pub(crate) mod queues;
pub(crate) mod vhosts;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

/// A resource or a list; or why not.
pub(crate) type Found = Result<Json<Value>, crate::error::Error>;
/// Nothing but a status; or why not.
pub(crate) type Done = Result<StatusCode, crate::error::Error>;

/// 201 for what is new, 204 for what was there as it should be.
fn made(created: bool) -> StatusCode {
    if created { StatusCode::CREATED } else { StatusCode::NO_CONTENT }
}

/// The default exchange has no name; in paths it is written so.
const DEFAULT_EXCHANGE: &str = "amq.default";

fn exchange_name(in_path: &str) -> &str {
    if in_path == DEFAULT_EXCHANGE { "" } else { in_path }
}

fn respond(response: impl IntoResponse) -> Response {
    response.into_response()
}
