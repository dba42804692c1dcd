//! Queues, with their depth and rates.
use super::{Done, ListAnswer, ObjectAnswer, WalkPosition, all_vhosts, check_vhost_of_new, declare_status, one_vhost};
use crate::api::Api;
use crate::error::ApiError;
use crate::figures::figures_of;
use crate::json::{self, Fields};
use crate::list::{self, Query};
use crate::rates::{message_counts, message_stats};
use crate::walk::{BATCH, Walk};
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use leveret_model::table::FieldTable;
use leveret_node::catalog::{self, Catalog, ConnectionId, Purpose, QueueDeclare};
use leveret_node::{Broker, Caller, DeleteOnly, FiguresElsewhere, MemberView, Queue, QueueFigures, QueueId, Trouble};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

pub(crate) async fn list_all(State(api): State<Api>, query: Query) -> ListAnswer {
    let walk = QueueWalk::new(&api, all_vhosts(&api.broker)).await;
    list::answer(&api, walk, query).await
}

pub(crate) async fn list(State(api): State<Api>, Path(vhost): Path<String>, query: Query) -> ListAnswer {
    let walk = QueueWalk::new(&api, one_vhost(&api.broker, &vhost)?).await;
    list::answer(&api, walk, query).await
}

pub(crate) async fn get(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path((vhost, name)): Path<(String, String)>,
    query: Query,
) -> ObjectAnswer {
    let declared = {
        let catalog = api.broker.catalog();
        let queue = catalog.queue(&vhost, &name, caller.origin, Purpose::Administer).map_err(ApiError::at_path)?;
        QueueRow::new(&vhost.into(), &name.into(), queue)
    };
    // A queue in the catalog that is still being created counts as missing.
    let queue = api.broker.queue(declared.id).ok_or_else(ApiError::no_object)?;
    let figures = api.broker.figures(&queue).await;
    let shown = QueueWalk::with(&api, Vec::new(), Arc::default()).view(&declared, &queue, figures);
    Ok(Json(query.pick(shown)))
}

pub(crate) async fn put(
    State(broker): State<Broker>,
    Extension(caller): Extension<Caller>,
    Path((vhost, name)): Path<(String, String)>,
    body: Bytes,
) -> Done {
    check_vhost_of_new(&broker, &vhost)?;
    let mut fields = Fields::read(&body)?;
    if fields.flag("exclusive", false)? {
        return Err(ApiError::bad_request(
            "exclusive: a queue declared through the API has no connection that could own it",
        ));
    }
    let declare = QueueDeclare {
        durable: fields.flag("durable", true)?,
        auto_delete: fields.flag("auto_delete", false)?,
        arguments: fields.table("arguments")?,
        exclusive: false,
        server_named: false,
    };
    Ok(declare_status(broker.declare_queue(&caller, &vhost, &name, declare).await?.0))
}

pub(crate) async fn delete(
    State(broker): State<Broker>,
    Extension(caller): Extension<Caller>,
    Path((vhost, name)): Path<(String, String)>,
    query: Query,
) -> Done {
    let only = DeleteOnly { if_unused: query.is_true("if-unused"), if_empty: query.is_true("if-empty") };
    broker.delete_queue(&caller, &vhost, &name, only).await.map_err(ApiError::at_path)?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn purge(
    State(broker): State<Broker>,
    Extension(caller): Extension<Caller>,
    Path((vhost, name)): Path<(String, String)>,
) -> Done {
    broker.purge_queue(&caller, &vhost, &name).await.map_err(ApiError::at_path)?;
    Ok(StatusCode::NO_CONTENT)
}

/// The declaration of a queue.
pub(crate) struct QueueRow {
    vhost: Arc<str>,
    name: Arc<str>,
    id: QueueId,
    kind: &'static str,
    durable: bool,
    auto_delete: bool,
    owner: Option<ConnectionId>,
    arguments: FieldTable,
}

impl QueueRow {
    fn new(vhost: &Arc<str>, name: &Arc<str>, queue: &catalog::DeclaredQueue) -> Self {
        Self {
            vhost: vhost.clone(),
            name: name.clone(),
            id: queue.id,
            kind: queue.settings.queue_type.name(),
            durable: queue.durable,
            auto_delete: queue.auto_delete,
            owner: queue.exclusive,
            arguments: queue.arguments.clone(),
        }
    }
}

/// A walk through the queues of some virtual hosts.
pub(crate) struct QueueWalk {
    api: Api,
    place: WalkPosition,
    /// The figures as the other nodes know them.
    elsewhere: Arc<FiguresElsewhere>,
    /// The names of the members of the cluster, if there is one.
    members: Option<Members>,
    /// The names of all connections, read when the first exclusive queue needs one.
    connection_names: std::cell::OnceCell<HashMap<ConnectionId, String>>,
}

/// The names of the members of a cluster.
struct Members {
    all: Value,
    /// The names of those that can be reached.
    online: Value,
}

impl Members {
    fn of(broker: &Broker) -> Option<Self> {
        let members = broker.cluster_view()?.members;
        let names = |is_named: &dyn Fn(&MemberView) -> bool| {
            members.iter().filter(|member| is_named(member)).map(|member| json!(member.shown_name())).collect()
        };
        Some(Self { all: names(&|_| true), online: names(&|member| member.state.is_up()) })
    }
}

impl QueueWalk {
    pub(crate) async fn new(api: &Api, vhosts: Vec<Arc<str>>) -> Self {
        Self::with(api, vhosts, api.figures.elsewhere(&api.broker).await)
    }

    fn with(api: &Api, vhosts: Vec<Arc<str>>, elsewhere: Arc<FiguresElsewhere>) -> Self {
        Self {
            api: api.clone(),
            place: WalkPosition::new(vhosts),
            elsewhere,
            members: Members::of(&api.broker),
            connection_names: std::cell::OnceCell::new(),
        }
    }

    fn connection_name(&self, connection: ConnectionId) -> Option<&String> {
        let names = self.connection_names.get_or_init(|| {
            let connections = self.api.broker.connections();
            connections.iter().map(|connection| (connection.id, connection.name.clone())).collect()
        });
        names.get(&connection)
    }
}

impl Walk for QueueWalk {
    type Row = QueueRow;

    fn rows(&mut self) -> Option<Vec<QueueRow>> {
        let vhost = self.place.vhost()?;
        let rows: Vec<_> = {
            let catalog = self.api.broker.catalog();
            next_queues(&catalog, &vhost, &self.place).map(|(name, queue)| QueueRow::new(&vhost, name, queue)).collect()
        };
        self.place.advance(rows.last().map(|row| &row.name));
        Some(rows)
    }

    fn name<'r>(&self, row: &'r QueueRow) -> Cow<'r, str> {
        list::named(&row.name)
    }

    fn show(&self, row: &QueueRow) -> Option<Value> {
        let (broker, queue) = (&self.api.broker, self.api.broker.queue(row.id)?);
        if queue.is_deleted() {
            return None;
        }
        Some(self.view(row, &queue, figures_of(broker, &self.elsewhere, &queue)))
    }
}

impl QueueWalk {
    /// Returns a queue with its figures as JSON.
    fn view(&self, row: &QueueRow, queue: &Queue, figures: QueueFigures) -> Value {
        let (broker, QueueFigures { depth, counters, .. }) = (&self.api.broker, figures);
        let memory = queue.look(|queue| queue.memory_bytes());
        let rates = self.api.rates.observe(broker, row.id, figures, broker.clock().now());
        let server = broker.server_name(queue);
        let owner = row.owner.and_then(|owner| self.connection_name(owner));
        let state = match queue.trouble() {
            None => "running".to_owned(),
            Some(Trouble::Retrying(reason)) => format!("retrying a failed read: {reason}"),
            Some(Trouble::Unreadable(reason)) => format!("unreadable: {reason}"),
        };
        let mut shown = json!({
            "name": &*row.name, "vhost": &*row.vhost, "type": row.kind, "durable": row.durable,
            "auto_delete": row.auto_delete, "exclusive": row.owner.is_some(),
            "arguments": json::from_table(&row.arguments), "node": server.as_deref().unwrap_or(broker.name()), "state": state,
            "owner_pid_details": owner.map(|name| json!({"name": name})), "consumers": depth.consumers,
            "message_bytes": depth.body_bytes, "memory": memory, "policy": null, "operator_policy": null,
            "effective_policy_definition": {}, "exclusive_consumer_tag": null,
            "message_stats": message_stats(counters, rates),
        });
        for (name, value) in message_counts(depth, rates) {
            shown[name] = value;
        }
        if let (Some(members), true) = (&self.members, row.durable) {
            shown["leader"] = json!(server);
            shown["members"] = members.all.clone();
            shown["online"] = members.online.clone();
        }
        shown
    }
}

/// Returns the next queues of a virtual host, at most [`BATCH`] of them.
fn next_queues<'c>(
    catalog: &'c Catalog,
    vhost: &str,
    place: &WalkPosition,
) -> impl Iterator<Item = (&'c Arc<str>, &'c catalog::DeclaredQueue)> {
    catalog.queues_after(vhost, place.after.as_deref()).into_iter().flatten().take(BATCH)
}

/// A pass through the live queues, for callers that read their figures.
pub(crate) struct LiveQueues {
    broker: Broker,
    place: WalkPosition,
}

impl LiveQueues {
    /// Begins a pass through the queues of all virtual hosts.
    pub(crate) fn new(broker: &Broker) -> Self {
        Self::of(broker, all_vhosts(broker))
    }

    /// Begins a pass through the queues of these virtual hosts.
    pub(crate) fn of(broker: &Broker, vhosts: Vec<Arc<str>>) -> Self {
        Self { broker: broker.clone(), place: WalkPosition::new(vhosts) }
    }

    /// Begins again, with all virtual hosts.
    pub(crate) fn restart(&mut self) {
        self.place = WalkPosition::new(all_vhosts(&self.broker));
    }

    /// Returns the next queues, perhaps none; `None` at the end.
    pub(crate) fn next(&mut self) -> Option<Vec<Arc<Queue>>> {
        let vhost = self.place.vhost()?;
        let found: Vec<_> = {
            let catalog = self.broker.catalog();
            next_queues(&catalog, &vhost, &self.place).map(|(name, queue)| (name.clone(), queue.id)).collect()
        };
        self.place.advance(found.last().map(|(name, _)| name));
        let queues = found.into_iter().filter_map(|(_, id)| self.broker.queue(id));
        Some(queues.filter(|queue| !queue.is_deleted()).collect())
    }
}
