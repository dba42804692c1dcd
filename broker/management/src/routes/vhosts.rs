//! Virtual hosts.
use super::Found;
use crate::error::Error;
use crate::list::{self, Query};
use axum::Json;
use axum::extract::{Path, Query as QueryOf, State};
use leveret_node::Broker;
use serde_json::{Value, json};

pub(crate) async fn list(State(broker): State<Broker>, QueryOf(query): QueryOf<Query>) -> Found {
    let names: Vec<_> = broker.catalog().vhosts().cloned().collect();
    Ok(Json(list::shape(names.iter().map(|name| view(&broker, name)).collect(), &query)?))
}

pub(crate) async fn get(State(broker): State<Broker>, Path(vhost): Path<String>) -> Found {
    if !broker.has_vhost(&vhost) {
        return Err(Error::not_found(format!("no vhost '{vhost}'")));
    }
    Ok(Json(view(&broker, &vhost)))
}

fn view(broker: &Broker, name: &str) -> Value {
    let state = json!({broker.name(): "running"});
    json!({"name": name, "description": "", "tags": [], "default_queue_type": "classic", "tracing": false, "cluster_state": state})
}
