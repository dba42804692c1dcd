//! One file a resource.
pub(crate) mod access;
pub(crate) mod bindings;
pub(crate) mod channels;
pub(crate) mod connections;
pub(crate) mod consumers;
pub(crate) mod exchanges;
pub(crate) mod health;
pub(crate) mod nodes;
pub(crate) mod overview;
pub(crate) mod queues;
pub(crate) mod vhosts;

use crate::error::Error;
use axum::Json;
use axum::http::StatusCode;
use axum::response::Response;
use leveret_node::Broker;
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::Arc;

/// A resource; or why not.
pub(crate) type Found = Result<Json<Value>, Error>;
/// A list; or why not.
pub(crate) type Listed = Result<Response, Error>;
/// Nothing but a status; or why not.
pub(crate) type Done = Result<StatusCode, Error>;

/// 201 for what is new, 204 for what was there as it should be.
fn made(created: bool) -> StatusCode {
    if created { StatusCode::CREATED } else { StatusCode::NO_CONTENT }
}

/// The default exchange has no name; in paths it is written so.
const DEFAULT_EXCHANGE: &str = "amq.default";

fn exchange_name(in_path: &str) -> &str {
    if in_path == DEFAULT_EXCHANGE { "" } else { in_path }
}

/// A virtual host that a list is of.
fn one_vhost(broker: &Broker, name: &str) -> Result<Vec<Arc<str>>, Error> {
    if broker.has_vhost(name) { Ok(vec![name.into()]) } else { Err(Error::no_object()) }
}

fn all_vhosts(broker: &Broker) -> Vec<Arc<str>> {
    broker.catalog().vhosts().cloned().collect()
}

/// A virtual host that something is to be made in.
fn in_vhost(broker: &Broker, name: &str) -> Result<(), Error> {
    if broker.has_vhost(name) { Ok(()) } else { Err(Error::not_found("vhost_not_found")) }
}

/// How far a walk by virtual host and name has come.
struct Place {
    vhosts: VecDeque<Arc<str>>,
    /// The last name seen in the first of them.
    after: Option<Arc<str>>,
}

impl Place {
    fn new(vhosts: Vec<Arc<str>>) -> Self {
        Self { vhosts: vhosts.into(), after: None }
    }

    /// The virtual host where it is; none at the end.
    fn vhost(&self) -> Option<Arc<str>> {
        self.vhosts.front().cloned()
    }

    /// Goes on behind the last of these names, or to the next virtual host if there are none.
    fn go_on(&mut self, last: Option<&Arc<str>>) {
        if last.is_none() {
            self.vhosts.pop_front();
        }
        self.after = last.cloned();
    }
}
