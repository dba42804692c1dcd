//! Consumers of queues.
use super::queues::Figures;
use super::{Listed, all_vhosts, channels, one_vhost};
use crate::api::Api;
use crate::list::{self, Query};
use crate::walk::{BATCH, Walk};
use axum::extract::{Path, State};
use leveret_node::{Broker, Connection, ConnectionId, ConsumerId, ConsumerView, Queue};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

pub(crate) async fn list_all(State(api): State<Api>, query: Query) -> Listed {
    let walk = Consumers::new(&api.broker, all_vhosts(&api.broker));
    list::answer(&api, walk, query).await
}

pub(crate) async fn list(State(api): State<Api>, Path(vhost): Path<String>, query: Query) -> Listed {
    let walk = Consumers::new(&api.broker, one_vhost(&api.broker, &vhost)?);
    list::answer(&api, walk, query).await
}

/// All consumers of the queues of some virtual hosts.
struct Consumers {
    broker: Broker,
    queues: Figures,
    /// Queues that were found, and the last consumer seen of the first of them.
    found: VecDeque<Arc<Queue>>,
    after: Option<ConsumerId>,
    /// Who was connected when it began.
    connections: HashMap<ConnectionId, Arc<Connection>>,
}

/// One consumer.
struct Row {
    queue: Arc<Queue>,
    consumer: ConsumerView,
}

impl Consumers {
    fn new(broker: &Broker, vhosts: Vec<Arc<str>>) -> Self {
        let connections = broker.connections().into_iter().map(|connection| (connection.id, connection)).collect();
        Self {
            broker: broker.clone(),
            queues: Figures::of(broker, vhosts),
            found: VecDeque::new(),
            after: None,
            connections,
        }
    }
}

impl Walk for Consumers {
    type Row = Row;

    fn rows(&mut self) -> Option<Vec<Row>> {
        if self.found.is_empty() {
            self.found = self.queues.next()?.into();
        }
        let mut rows = Vec::new();
        while let Some(queue) = self.found.front()
            && rows.len() < BATCH
        {
            let seen = queue.consumers_after(self.after, BATCH);
            self.after = seen.last().map(|consumer| consumer.id);
            rows.extend(seen.into_iter().map(|consumer| Row { queue: queue.clone(), consumer }));
            if self.after.is_none() {
                self.found.pop_front();
            }
        }
        Some(rows)
    }

    fn name<'r>(&self, row: &'r Row) -> Cow<'r, str> {
        list::named(row.consumer.owner.as_ref().map_or("", |owner| &owner.tag))
    }

    fn show(&self, row: &Row) -> Option<Value> {
        let Row { queue, consumer } = row;
        let owner = consumer.owner.as_ref()?;
        let later = || self.broker.connections().into_iter().find(|connection| connection.id == owner.connection);
        // One whose connection is gone is about to go.
        let connection = self.connections.get(&owner.connection).cloned().or_else(later)?;
        let channel = channels::details(&self.broker, &connection, owner.channel);
        Some(json!({
            "consumer_tag": owner.tag, "queue": {"name": &*queue.name, "vhost": &*queue.vhost},
            "ack_required": !consumer.no_ack, "exclusive": consumer.exclusive, "prefetch_count": consumer.prefetch,
            "active": true, "activity_status": "up", "arguments": {}, "channel_details": channel,
            // There is no timeout.
            "consumer_timeout": 0,
        }))
    }
}
