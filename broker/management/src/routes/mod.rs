//! The handlers of the API, one file per resource, and what they share.
pub(crate) mod access;
pub(crate) mod bindings;
pub(crate) mod channels;
pub(crate) mod cluster;
pub(crate) mod connections;
pub(crate) mod consumers;
pub(crate) mod exchanges;
pub(crate) mod health;
pub(crate) mod nodes;
pub(crate) mod overview;
pub(crate) mod queues;
pub(crate) mod vhosts;

use crate::error::ApiError;
use axum::Json;
use axum::http::StatusCode;
use axum::response::Response;
use leveret_node::Broker;
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::Arc;

/// The answer with one resource.
pub(crate) type ObjectAnswer = Result<Json<Value>, ApiError>;
/// The answer with a list.
pub(crate) type ListAnswer = Result<Response, ApiError>;
/// The answer to a change: a status without a body.
pub(crate) type Done = Result<StatusCode, ApiError>;

/// Returns the status of a declaration: 201 if it created the resource, 204 if an equal one existed.
fn declare_status(created: bool) -> StatusCode {
    if created { StatusCode::CREATED } else { StatusCode::NO_CONTENT }
}

/// The name of the default exchange in paths; its real name is empty.
const DEFAULT_EXCHANGE: &str = "amq.default";

/// Returns the name of the exchange that a path names.
fn exchange_name(in_path: &str) -> &str {
    if in_path == DEFAULT_EXCHANGE { "" } else { in_path }
}

/// Returns the virtual host whose resources are to be listed.
///
/// # Errors
/// 404 if it does not exist.
fn one_vhost(broker: &Broker, name: &str) -> Result<Vec<Arc<str>>, ApiError> {
    if broker.has_vhost(name) { Ok(vec![name.into()]) } else { Err(ApiError::no_object()) }
}

fn all_vhosts(broker: &Broker) -> Vec<Arc<str>> {
    broker.catalog().vhosts().cloned().collect()
}

/// Checks that the virtual host of a resource to be declared exists.
///
/// # Errors
/// 404 `vhost_not_found` if it does not.
fn check_vhost_of_new(broker: &Broker, name: &str) -> Result<(), ApiError> {
    if broker.has_vhost(name) { Ok(()) } else { Err(ApiError::not_found("vhost_not_found")) }
}

/// The position of a walk that is ordered by virtual host and name. It stays valid when resources come and go.
struct WalkPosition {
    /// The virtual hosts that are not read in full yet.
    vhosts: VecDeque<Arc<str>>,
    /// The last name that was read in the first of them.
    after: Option<Arc<str>>,
}

impl WalkPosition {
    fn new(vhosts: Vec<Arc<str>>) -> Self {
        Self { vhosts: vhosts.into(), after: None }
    }

    /// Returns the current virtual host; `None` at the end.
    fn vhost(&self) -> Option<Arc<str>> {
        self.vhosts.front().cloned()
    }

    /// Moves behind `last`, the last name that was read; without one, to the next virtual host.
    fn advance(&mut self, last: Option<&Arc<str>>) {
        if last.is_none() {
            self.vhosts.pop_front();
        }
        self.after = last.cloned();
    }
}
