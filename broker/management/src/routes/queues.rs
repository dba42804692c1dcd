//! Queues, with their depth.
use super::{Done, Found, made};
use crate::error::Error;
use crate::json;
use crate::list::{self, Query};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query as QueryOf, State};
use axum::http::StatusCode;
use leveret_node::catalog::{ConnectionId, Queue as Declared, QueueDeclare};
use leveret_node::{Broker, DeleteOnly};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::Arc;

#[derive(Deserialize)]
struct Body {
    #[serde(default = "yes")]
    durable: bool,
    #[serde(default)]
    auto_delete: bool,
    #[serde(default)]
    exclusive: bool,
    #[serde(default)]
    arguments: Map<String, Value>,
}

fn yes() -> bool {
    true
}

pub(crate) async fn list_all(State(broker): State<Broker>, QueryOf(query): QueryOf<Query>) -> Found {
    let vhosts: Vec<_> = broker.catalog().vhosts().cloned().collect();
    let mut items = Vec::new();
    for vhost in vhosts {
        items.extend(views(&broker, &vhost)?);
    }
    Ok(Json(list::shape(items, &query)?))
}

pub(crate) async fn list(
    State(broker): State<Broker>,
    Path(vhost): Path<String>,
    QueryOf(query): QueryOf<Query>,
) -> Found {
    Ok(Json(list::shape(views(&broker, &vhost)?, &query)?))
}

pub(crate) async fn get(
    State(broker): State<Broker>,
    Path((vhost, name)): Path<(String, String)>,
    QueryOf(query): QueryOf<Query>,
) -> Found {
    let owner = broker.catalog().owner(&vhost, &name);
    let declared = broker.catalog().queue(&vhost, &name, owner)?.clone();
    let owners = owners(&broker);
    let view = view(&broker, (&vhost, &name), &declared, &owners);
    Ok(Json(list::columns(view.unwrap_or_default(), &query)))
}

pub(crate) async fn put(
    State(broker): State<Broker>,
    Path((vhost, name)): Path<(String, String)>,
    body: Bytes,
) -> Done {
    let Body { durable, auto_delete, exclusive, arguments } = json::body(&body)?;
    if exclusive {
        return Err(Error::bad_request("exclusive: a queue declared through the API belongs to no connection"));
    }
    let arguments = json::to_table(arguments);
    let declare =
        QueueDeclare { durable, auto_delete, arguments, exclusive: None, server_named: false, connection: None };
    Ok(made(broker.declare_queue(&vhost, &name, declare).await?.0))
}

pub(crate) async fn delete(
    State(broker): State<Broker>,
    Path((vhost, name)): Path<(String, String)>,
    QueryOf(query): QueryOf<Query>,
) -> Done {
    let (if_unused, if_empty) = (list::is_true(&query, "if-unused"), list::is_true(&query, "if-empty"));
    // The API may delete any queue, also one that belongs to a connection.
    let owner = broker.catalog().owner(&vhost, &name);
    broker.delete_queue(&vhost, &name, DeleteOnly { if_unused, if_empty }, owner).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn purge(State(broker): State<Broker>, Path((vhost, name)): Path<(String, String)>) -> Done {
    let owner = broker.catalog().owner(&vhost, &name);
    broker.purge_queue(&vhost, &name, owner).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Names of connections by identity.
type Owners = HashMap<ConnectionId, String>;

fn owners(broker: &Broker) -> Owners {
    broker.connections().iter().map(|connection| (connection.id, connection.name.clone())).collect()
}

fn views(broker: &Broker, vhost: &str) -> Result<Vec<Value>, Error> {
    let declared: Vec<(Arc<str>, Declared)> =
        broker.catalog().queues(vhost)?.map(|(name, queue)| (name.clone(), queue.clone())).collect();
    let owners = owners(broker);
    Ok(declared.iter().filter_map(|(name, queue)| view(broker, (vhost, name), queue, &owners)).collect())
}

fn view(broker: &Broker, (vhost, name): (&str, &str), declared: &Declared, owners: &Owners) -> Option<Value> {
    let queue = broker.queue(declared.id)?;
    let (depth, counters, memory) = queue.look(|queue| (queue.depth(), queue.counters(), queue.memory_bytes()));
    let owner = declared.exclusive.and_then(|owner| owners.get(&owner));
    Some(json!({
        "name": name, "vhost": vhost, "type": declared.queue_type(), "durable": declared.durable,
        "auto_delete": declared.auto_delete, "exclusive": declared.exclusive.is_some(),
        "arguments": json::from_table(&declared.arguments), "node": broker.name(), "state": "running",
        "owner_pid_details": owner.map(|name| json!({"name": name})),
        "messages": depth.ready + depth.unacked, "messages_ready": depth.ready,
        "messages_unacknowledged": depth.unacked, "message_bytes": depth.body_bytes, "consumers": depth.consumers,
        "memory": memory,
        "message_stats": {
            "publish": counters.published, "deliver_get": counters.delivered, "ack": counters.acked,
            "redeliver": counters.redelivered,
        },
    }))
}
