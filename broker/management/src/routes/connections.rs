//! Clients that are connected, and their channels.
use super::{Done, Found};
use crate::error::Error;
use crate::json;
use crate::list::{self, Query};
use axum::Json;
use axum::extract::{Path, Query as QueryOf, State};
use axum::http::{HeaderMap, StatusCode};
use leveret_node::{Broker, Connection};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

pub(crate) async fn list(State(broker): State<Broker>, QueryOf(query): QueryOf<Query>) -> Found {
    let items = broker.connections().iter().map(|connection| view(&broker, connection)).collect();
    Ok(Json(list::shape(items, &query)?))
}

pub(crate) async fn get(State(broker): State<Broker>, Path(name): Path<String>) -> Found {
    Ok(Json(view(&broker, &*find(&broker, &name)?)))
}

/// Makes a client go; the header `X-Reason` is what it is told.
pub(crate) async fn close(State(broker): State<Broker>, Path(name): Path<String>, headers: HeaderMap) -> Done {
    let connection = find(&broker, &name)?;
    let reason = headers.get("x-reason").and_then(|reason| reason.to_str().ok());
    broker.close_connection(&connection, reason.unwrap_or("Closed via management API"));
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn channels(State(broker): State<Broker>, QueryOf(query): QueryOf<Query>) -> Found {
    let connections = broker.connections();
    let items = connections.iter().flat_map(|connection| channel_views(&broker, connection)).collect();
    Ok(Json(list::shape(items, &query)?))
}

fn find(broker: &Broker, name: &str) -> Result<Arc<Connection>, Error> {
    let found = broker.connections().into_iter().find(|connection| connection.name == name);
    found.ok_or_else(|| Error::not_found(format!("no connection '{name}'")))
}

fn view(broker: &Broker, connection: &Connection) -> Value {
    let state = if connection.blocked.load(Relaxed) { "blocked" } else { "running" };
    json!({
        "name": connection.name, "node": broker.name(), "protocol": connection.protocol, "user": &*connection.user,
        "vhost": &*connection.vhost, "peer_host": connection.peer.ip().to_canonical().to_string(),
        "peer_port": connection.peer.port(), "host": connection.local.ip().to_canonical().to_string(),
        "port": connection.local.port(), "state": state, "channels": connection.channels.lock().len(),
        "frame_max": connection.frame_max, "channel_max": connection.channel_max, "timeout": connection.heartbeat,
        "connected_at": connection.connected_at_ms, "client_properties": json::from_table(&connection.client_properties),
        "recv_oct": connection.received_bytes.load(Relaxed), "send_oct": connection.sent_bytes.load(Relaxed),
        "auth_mechanism": connection.mechanism, "ssl": false, "type": "network",
    })
}

fn channel_views(broker: &Broker, connection: &Connection) -> Vec<Value> {
    let details = json!({
        "name": connection.name, "peer_host": connection.peer.ip().to_canonical().to_string(),
        "peer_port": connection.peer.port(),
    });
    let channels = connection.channels.lock();
    let view = |(number, channel): (&u16, &Arc<leveret_node::ChannelView>)| {
        json!({
            "name": format!("{} ({number})", connection.name), "number": number, "node": broker.name(),
            "user": &*connection.user, "vhost": &*connection.vhost, "state": "running", "connection_details": details,
            "prefetch_count": channel.prefetch.load(Relaxed),
            "global_prefetch_count": channel.global_prefetch.load(Relaxed), "confirm": channel.confirm.load(Relaxed),
            "transactional": false, "consumer_count": channel.consumers.load(Relaxed),
            "messages_unacknowledged": channel.unacked.load(Relaxed), "messages_unconfirmed": 0,
        })
    };
    channels.iter().map(view).collect()
}
