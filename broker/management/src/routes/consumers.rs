//! The consumers of queues.
use super::queues::LiveQueues;
use super::{ListAnswer, all_vhosts, channels, one_vhost};
use crate::api::Api;
use crate::list::{self, Query};
use crate::walk::{BATCH, Walk};
use axum::extract::{Path, State};
use leveret_node::{Broker, Connection, ConnectionId, ConsumerId, ConsumerView, Queue};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

pub(crate) async fn list_all(State(api): State<Api>, query: Query) -> ListAnswer {
    let walk = ConsumerWalk::new(&api.broker, all_vhosts(&api.broker));
    list::answer(&api, walk, query).await
}

pub(crate) async fn list(State(api): State<Api>, Path(vhost): Path<String>, query: Query) -> ListAnswer {
    let walk = ConsumerWalk::new(&api.broker, one_vhost(&api.broker, &vhost)?);
    list::answer(&api, walk, query).await
}

/// A walk through the consumers of all queues in some virtual hosts.
struct ConsumerWalk {
    broker: Broker,
    queues: LiveQueues,
    /// The queues whose consumers are not read in full yet.
    unread: VecDeque<Arc<Queue>>,
    /// The last consumer that was read of the first of them.
    after: Option<ConsumerId>,
    /// The connections that were open when the walk began.
    connections: HashMap<ConnectionId, Arc<Connection>>,
}

/// One consumer.
struct ConsumerRow {
    queue: Arc<Queue>,
    consumer: ConsumerView,
}

impl ConsumerWalk {
    fn new(broker: &Broker, vhosts: Vec<Arc<str>>) -> Self {
        let connections = broker.connections().into_iter().map(|connection| (connection.id, connection)).collect();
        Self {
            broker: broker.clone(),
            queues: LiveQueues::of(broker, vhosts),
            unread: VecDeque::new(),
            after: None,
            connections,
        }
    }
}

impl Walk for ConsumerWalk {
    type Row = ConsumerRow;

    fn rows(&mut self) -> Option<Vec<ConsumerRow>> {
        if self.unread.is_empty() {
            self.unread = self.queues.next()?.into();
        }
        let mut rows = Vec::new();
        while let Some(queue) = self.unread.front()
            && rows.len() < BATCH
        {
            let seen = queue.consumers_after(self.after, BATCH);
            self.after = seen.last().map(|consumer| consumer.id);
            rows.extend(seen.into_iter().map(|consumer| ConsumerRow { queue: queue.clone(), consumer }));
            if self.after.is_none() {
                self.unread.pop_front();
            }
        }
        Some(rows)
    }

    fn name<'r>(&self, row: &'r ConsumerRow) -> Cow<'r, str> {
        list::named(row.consumer.owner.as_ref().map_or("", |owner| &owner.tag))
    }

    fn show(&self, row: &ConsumerRow) -> Option<Value> {
        let ConsumerRow { queue, consumer } = row;
        let owner = consumer.owner.as_ref()?;
        let later = || self.broker.connections().into_iter().find(|connection| connection.id == owner.connection);
        // A consumer whose connection is closed is about to be removed.
        let connection = self.connections.get(&owner.connection).cloned().or_else(later)?;
        let channel = channels::details(&self.broker, &connection, owner.channel);
        Some(json!({
            "consumer_tag": owner.tag, "queue": {"name": &*queue.name, "vhost": &*queue.vhost},
            "ack_required": !consumer.no_ack, "exclusive": consumer.exclusive, "prefetch_count": consumer.prefetch,
            "active": true, "activity_status": "up", "arguments": {}, "channel_details": channel,
            // Deliveries have no acknowledgement timeout.
            "consumer_timeout": 0,
        }))
    }
}
