//! The channels of the open AMQP connections.
use super::connections::find;
use super::{ListAnswer, ObjectAnswer, one_vhost};
use crate::api::Api;
use crate::error::ApiError;
use crate::list::{self, Query};
use crate::walk::{BATCH, Walk};
use axum::Json;
use axum::extract::{Path, State};
use leveret_node::{Broker, ChannelView, Connection};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

pub(crate) async fn list(State(api): State<Api>, query: Query) -> ListAnswer {
    let walk = ChannelWalk::new(&api.broker, api.broker.connections());
    list::answer(&api, walk, query).await
}

pub(crate) async fn list_of_vhost(State(api): State<Api>, Path(vhost): Path<String>, query: Query) -> ListAnswer {
    one_vhost(&api.broker, &vhost)?;
    let mut connections = api.broker.connections();
    connections.retain(|connection| *connection.vhost == *vhost);
    let walk = ChannelWalk::new(&api.broker, connections);
    list::answer(&api, walk, query).await
}

pub(crate) async fn list_of_connection(State(api): State<Api>, Path(name): Path<String>, query: Query) -> ListAnswer {
    let walk = ChannelWalk::new(&api.broker, vec![find(&api.broker, &name)?]);
    list::answer(&api, walk, query).await
}

/// Answers with the channel of this name, which is the name of its connection followed by its number: `NAME (1)`.
pub(crate) async fn get(State(broker): State<Broker>, Path(name): Path<String>, query: Query) -> ObjectAnswer {
    let parts = name.strip_suffix(')').and_then(|name| name.rsplit_once(" ("));
    let (connection, number) = parts.ok_or_else(ApiError::no_object)?;
    let number: u16 = number.parse().map_err(|_| ApiError::no_object())?;
    let connection = find(&broker, connection)?;
    let channel = connection.channels.lock().get(&number).cloned().ok_or_else(ApiError::no_object)?;
    Ok(Json(query.pick(view(&broker, &ChannelRow { connection, number, channel }))))
}

/// A walk through the channels of connections that were open when it began.
struct ChannelWalk {
    broker: Broker,
    /// The connections that are not read yet, the next one at the end.
    unread: Vec<Arc<Connection>>,
}

struct ChannelRow {
    connection: Arc<Connection>,
    number: u16,
    channel: Arc<ChannelView>,
}

impl ChannelRow {
    fn name(&self) -> String {
        format!("{} ({})", self.connection.name, self.number)
    }
}

impl ChannelWalk {
    fn new(broker: &Broker, mut connections: Vec<Arc<Connection>>) -> Self {
        connections.reverse();
        Self { broker: broker.clone(), unread: connections }
    }
}

impl Walk for ChannelWalk {
    type Row = ChannelRow;

    fn rows(&mut self) -> Option<Vec<ChannelRow>> {
        let mut rows = Vec::new();
        while rows.len() < BATCH {
            let Some(connection) = self.unread.pop() else { break };
            let row = |(&number, channel): (&u16, &Arc<ChannelView>)| ChannelRow {
                connection: connection.clone(),
                number,
                channel: channel.clone(),
            };
            rows.extend(connection.channels.lock().iter().map(row));
        }
        (!rows.is_empty() || !self.unread.is_empty()).then_some(rows)
    }

    fn name<'r>(&self, row: &'r ChannelRow) -> Cow<'r, str> {
        Cow::Owned(row.name())
    }

    fn show(&self, row: &ChannelRow) -> Option<Value> {
        Some(view(&self.broker, row))
    }
}

fn view(broker: &Broker, row: &ChannelRow) -> Value {
    let ChannelRow { connection, number, channel } = row;
    json!({
        "name": row.name(), "number": number, "node": broker.name(), "user": connection.user(),
        "user_who_performed_action": connection.user(), "vhost": &*connection.vhost, "state": "running",
        "connection_details": connection_details(connection), "prefetch_count": channel.prefetch.load(Relaxed),
        "global_prefetch_count": channel.global_prefetch.load(Relaxed), "confirm": channel.confirm.load(Relaxed),
        "transactional": false, "consumer_count": channel.consumers.load(Relaxed),
        "messages_unacknowledged": channel.unacked.load(Relaxed), "messages_unconfirmed": 0,
        "messages_uncommitted": 0, "acks_uncommitted": 0,
    })
}

/// Returns the `channel_details` by which other objects refer to a channel.
pub(super) fn details(broker: &Broker, connection: &Connection, number: u16) -> Value {
    json!({
        "name": format!("{} ({number})", connection.name), "number": number, "node": broker.name(),
        "connection_name": connection.name,
        "peer_host": connection.client.peer.ip().to_canonical().to_string(), "peer_port": connection.client.peer.port(),
        "user": connection.user(),
    })
}

fn connection_details(connection: &Connection) -> Value {
    json!({
        "name": connection.name, "peer_host": connection.client.peer.ip().to_canonical().to_string(),
        "peer_port": connection.client.peer.port(),
    })
}
