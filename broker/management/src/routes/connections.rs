//! AMQP connections: listed, shown and closed.
use super::{Done, ListAnswer, ObjectAnswer, one_vhost};
use crate::api::Api;
use crate::error::ApiError;
use crate::json;
use crate::list::{self, Query};
use crate::walk::{BATCH, Walk};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json};
use leveret_node::{Broker, Caller, Connection};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

pub(crate) async fn list(State(api): State<Api>, query: Query) -> ListAnswer {
    let walk = ConnectionWalk::new(&api.broker, |_| true);
    list::answer(&api, walk, query).await
}

pub(crate) async fn list_of_vhost(State(api): State<Api>, Path(vhost): Path<String>, query: Query) -> ListAnswer {
    one_vhost(&api.broker, &vhost)?;
    let walk = ConnectionWalk::new(&api.broker, |connection| *connection.vhost == *vhost);
    list::answer(&api, walk, query).await
}

pub(crate) async fn list_of_user(State(api): State<Api>, Path(user): Path<String>, query: Query) -> ListAnswer {
    let walk = ConnectionWalk::new(&api.broker, |connection| connection.user() == user);
    list::answer(&api, walk, query).await
}

pub(crate) async fn get(State(broker): State<Broker>, Path(name): Path<String>, query: Query) -> ObjectAnswer {
    Ok(Json(query.pick(view(&broker, &*find(&broker, &name)?))))
}

/// Closes a connection. The client is told the reason in the header `X-Reason`.
pub(crate) async fn close(
    State(broker): State<Broker>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Done {
    let connection = find(&broker, &name)?;
    broker.close_connection(&caller, &connection, reason(&headers));
    Ok(StatusCode::NO_CONTENT)
}

/// Closes all connections of a user.
pub(crate) async fn close_of_user(
    State(broker): State<Broker>,
    Extension(caller): Extension<Caller>,
    Path(user): Path<String>,
    headers: HeaderMap,
) -> Done {
    for connection in broker.connections().iter().filter(|connection| connection.user() == user) {
        broker.close_connection(&caller, connection, reason(&headers));
    }
    Ok(StatusCode::NO_CONTENT)
}

fn reason(headers: &HeaderMap) -> &str {
    let given = headers.get("x-reason").and_then(|reason| reason.to_str().ok());
    let given = given.map(|reason| reason.get(..REASON_BYTES_MAX).unwrap_or(reason));
    given.unwrap_or("Closed via management plugin")
}

pub(super) fn find(broker: &Broker, name: &str) -> Result<Arc<Connection>, ApiError> {
    let found = broker.connections().into_iter().find(|connection| connection.name == name);
    found.ok_or_else(ApiError::no_object)
}

/// A walk through the connections that were open when it began.
struct ConnectionWalk {
    broker: Broker,
    /// The connections that are not read yet, the next one at the end.
    unread: Vec<Arc<Connection>>,
}

impl ConnectionWalk {
    fn new(broker: &Broker, is_wanted: impl Fn(&Connection) -> bool) -> Self {
        let mut unread = broker.connections();
        unread.retain(|connection| is_wanted(connection));
        unread.reverse();
        Self { broker: broker.clone(), unread }
    }
}

impl Walk for ConnectionWalk {
    type Row = Arc<Connection>;

    fn rows(&mut self) -> Option<Vec<Arc<Connection>>> {
        if self.unread.is_empty() {
            return None;
        }
        let mut rows = self.unread.split_off(self.unread.len().saturating_sub(BATCH));
        rows.reverse();
        Some(rows)
    }

    fn name<'r>(&self, row: &'r Arc<Connection>) -> Cow<'r, str> {
        list::named(&row.name)
    }

    fn show(&self, row: &Arc<Connection>) -> Option<Value> {
        Some(view(&self.broker, row))
    }
}

fn view(broker: &Broker, connection: &Connection) -> Value {
    let state = if connection.blocked.load(Relaxed) { "blocked" } else { "running" };
    let given_name = connection.client.properties.get("connection_name").and_then(|name| name.as_str());
    json!({
        "name": connection.name, "node": broker.name(), "protocol": connection.client.protocol, "user": connection.user(),
        "user_provided_name": given_name, "user_who_performed_action": connection.user(),
        "vhost": &*connection.vhost, "peer_host": connection.client.peer.ip().to_canonical().to_string(),
        "peer_port": connection.client.peer.port(), "host": connection.client.local.ip().to_canonical().to_string(),
        "port": connection.client.local.port(), "state": state, "channels": connection.channels.lock().len(),
        "frame_max": connection.frame_max, "channel_max": connection.channel_max, "timeout": connection.heartbeat,
        "connected_at": connection.client.connected_at_ms, "client_properties": json::from_table(&connection.client.properties),
        "recv_oct": connection.received_bytes.load(Relaxed), "send_oct": connection.sent_bytes.load(Relaxed),
        "auth_mechanism": connection.client.mechanism, "ssl": false, "type": "network",
    })
}

/// The longest reason in bytes; the reply text of `connection.close` holds no more.
const REASON_BYTES_MAX: usize = 200;
