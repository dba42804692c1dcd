//! Bindings, including the implicit ones of the default exchange: one per queue, with its name as the routing key.
use super::{Done, ListAnswer, ObjectAnswer, all_vhosts, check_vhost_of_new, exchange_name, one_vhost};
use crate::api::Api;
use crate::error::ApiError;
use crate::json::{self, Fields};
use crate::list::{self, Query};
use crate::walk::{BATCH, Walk};
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use leveret_model::table::FieldTable;
use leveret_node::catalog::{Binding, BindingDeclare, Destination, Origin, Purpose, properties_key};
use leveret_node::{Broker, Caller};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

/// The path of the bindings between two resources: virtual host, source, `q` or `e`, destination.
type BindingPath = (String, String, String, String);

pub(crate) async fn list_all(State(api): State<Api>, query: Query) -> ListAnswer {
    let walk = BindingWalk::new(&api.broker, all_vhosts(&api.broker), WantedEnds::default());
    list::answer(&api, walk, query).await
}

pub(crate) async fn list(State(api): State<Api>, Path(vhost): Path<String>, query: Query) -> ListAnswer {
    let walk = BindingWalk::new(&api.broker, one_vhost(&api.broker, &vhost)?, WantedEnds::default());
    list::answer(&api, walk, query).await
}

pub(crate) async fn from_exchange(
    State(api): State<Api>,
    Path((vhost, name)): Path<(String, String)>,
    query: Query,
) -> ListAnswer {
    let name = exchange_name(&name);
    api.broker.catalog().exchange(&vhost, name).map_err(ApiError::at_path)?;
    let wanted = WantedEnds { source: Some(name.into()), destination: None };
    list::answer(&api, BindingWalk::new(&api.broker, vec![vhost.into()], wanted), query).await
}

pub(crate) async fn to_exchange(
    State(api): State<Api>,
    Path((vhost, name)): Path<(String, String)>,
    query: Query,
) -> ListAnswer {
    let name = exchange_name(&name);
    api.broker.catalog().exchange(&vhost, name).map_err(ApiError::at_path)?;
    let wanted = WantedEnds { source: None, destination: Some(Destination::Exchange(name.to_owned())) };
    list::answer(&api, BindingWalk::new(&api.broker, vec![vhost.into()], wanted), query).await
}

pub(crate) async fn to_queue(
    State(api): State<Api>,
    Path((vhost, name)): Path<(String, String)>,
    query: Query,
) -> ListAnswer {
    {
        let catalog = api.broker.catalog();
        catalog.queue(&vhost, &name, Origin::Api, Purpose::Administer).map_err(ApiError::at_path)?;
    }
    let wanted = WantedEnds { source: None, destination: Some(Destination::Queue(name)) };
    list::answer(&api, BindingWalk::new(&api.broker, vec![vhost.into()], wanted), query).await
}

pub(crate) async fn between(
    State(api): State<Api>,
    Path((vhost, source, kind, destination)): Path<BindingPath>,
    query: Query,
) -> ListAnswer {
    let (source, to) = (exchange_name(&source), to_destination(&kind, &destination)?);
    api.broker.catalog().exchange(&vhost, source).map_err(ApiError::at_path)?;
    let wanted = WantedEnds { source: Some(source.into()), destination: Some(to) };
    list::answer(&api, BindingWalk::new(&api.broker, vec![vhost.into()], wanted), query).await
}

pub(crate) async fn get(
    State(broker): State<Broker>,
    Path((vhost, source, kind, destination, properties)): Path<(String, String, String, String, String)>,
) -> ObjectAnswer {
    let (source, to) = (exchange_name(&source), to_destination(&kind, &destination)?);
    let binding = if source.is_empty() {
        let catalog = broker.catalog();
        let found = catalog.queue(&vhost, &destination, Origin::Api, Purpose::Administer);
        found.map_err(ApiError::at_path)?;
        let binding = of_default_exchange(&destination);
        // The properties key is the escaped name of the queue; the plain name is accepted too.
        let is_named = binding.properties_key == properties || destination == properties;
        Some(binding).filter(|binding| binding.destination == to && is_named)
    } else {
        find(&broker, &vhost, source, &to, &properties)?
    };
    Ok(Json(view(&vhost, source, &binding.ok_or_else(ApiError::no_object)?)))
}

pub(crate) async fn bind(
    State(broker): State<Broker>,
    Extension(caller): Extension<Caller>,
    Path((vhost, source, kind, destination)): Path<BindingPath>,
    body: Bytes,
) -> Result<Response, ApiError> {
    check_vhost_of_new(&broker, &vhost)?;
    let mut fields = Fields::read(&body)?;
    let (routing_key, arguments) = (fields.text("routing_key", "")?, fields.table("arguments")?);
    let (source, to) = (exchange_name(&source), to_destination(&kind, &destination)?);
    broker.bind(&caller, &vhost, BindingDeclare::new(source, &to, routing_key.as_bytes(), &arguments)).await?;
    let key = properties_key(routing_key.as_bytes(), &arguments);
    let location = format!("{}/{}", percent_encoded(&destination), percent_encoded(&key));
    Ok((StatusCode::CREATED, [(LOCATION, location)]).into_response())
}

pub(crate) async fn unbind(
    State(broker): State<Broker>,
    Extension(caller): Extension<Caller>,
    Path((vhost, source, kind, destination, properties)): Path<(String, String, String, String, String)>,
) -> Done {
    let (source, to) = (exchange_name(&source), to_destination(&kind, &destination)?);
    let binding = find(&broker, &vhost, source, &to, &properties)?.ok_or_else(ApiError::no_object)?;
    broker.unbind(&caller, &vhost, BindingDeclare::new(source, &to, &binding.routing_key, &binding.arguments)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Returns the binding whose properties key is `properties`.
fn find(
    broker: &Broker,
    vhost: &str,
    source: &str,
    to: &Destination,
    properties: &str,
) -> Result<Option<Binding>, ApiError> {
    let catalog = broker.catalog();
    Ok(catalog.binding_named(vhost, source, to, properties).map_err(ApiError::at_path)?.cloned())
}

fn percent_encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn to_destination(kind: &str, name: &str) -> Result<Destination, ApiError> {
    match kind {
        "q" => Ok(Destination::Queue(name.to_owned())),
        "e" => Ok(Destination::Exchange(exchange_name(name).to_owned())),
        _ => Err(ApiError::no_object()),
    }
}

/// The ends that the bindings of a list have to have; `None` for any.
#[derive(Default)]
struct WantedEnds {
    source: Option<Arc<str>>,
    destination: Option<Destination>,
}

/// A walk through the bindings of some virtual hosts: in each, those of the default exchange come first, then those of the
/// other exchanges by name.
struct BindingWalk {
    broker: Broker,
    vhosts: VecDeque<Arc<str>>,
    wanted: WantedEnds,
    place: Where,
}

/// The position of a walk in a virtual host.
enum Where {
    /// Among the bindings of the default exchange, behind that of this queue.
    Default(Option<Arc<str>>),
    /// Behind all bindings of this exchange.
    After(Arc<str>),
    /// Among the bindings of this exchange, behind this one.
    In(Arc<str>, Binding),
}

/// A binding with its virtual host and source.
struct BindingRow {
    vhost: Arc<str>,
    source: Arc<str>,
    binding: Binding,
}

impl BindingWalk {
    fn new(broker: &Broker, vhosts: Vec<Arc<str>>, wanted: WantedEnds) -> Self {
        Self { broker: broker.clone(), vhosts: vhosts.into(), wanted, place: Where::Default(None) }
    }

    /// Returns the next bindings of the default exchange, behind that of the queue `after`, and moves the position.
    fn of_default(&mut self, vhost: &Arc<str>, after: Option<Arc<str>>) -> Vec<Binding> {
        let is_default = self.wanted.source.as_ref().is_none_or(|source| source.is_empty());
        let names: Vec<Arc<str>> = match &self.wanted.destination {
            _ if !is_default => Vec::new(),
            Some(Destination::Exchange(_)) => Vec::new(),
            Some(Destination::Queue(_)) if after.is_some() => Vec::new(),
            Some(Destination::Queue(name)) => {
                let catalog = self.broker.catalog();
                let found = catalog.queue(vhost, name, Origin::Api, Purpose::Administer);
                found.map(|_| name.as_str().into()).into_iter().collect()
            }
            None => {
                let catalog = self.broker.catalog();
                let found = catalog.queues_after(vhost, after.as_deref()).into_iter().flatten();
                found.take(BATCH).map(|(name, _)| name.clone()).collect()
            }
        };
        self.place = match names.last() {
            Some(last) => Where::Default(Some(last.clone())),
            None => Where::After("".into()),
        };
        names.iter().map(|name| of_default_exchange(name)).collect()
    }

    /// Returns the next exchange behind `after` whose bindings are wanted.
    fn next_source(&self, vhost: &str, after: &str) -> Option<Arc<str>> {
        match &self.wanted.source {
            Some(source) => (**source > *after).then(|| source.clone()),
            None => {
                let catalog = self.broker.catalog();
                catalog.exchanges_after(vhost, Some(after)).ok()?.next().map(|(name, _)| name.clone())
            }
        }
    }

    /// Returns the wanted ones among the next [`LOOK`] bindings of an exchange, behind `last`, and moves the position.
    fn of_source(&mut self, vhost: &str, source: &Arc<str>, last: Option<&Binding>) -> Vec<Binding> {
        let catalog = self.broker.catalog();
        let next = catalog.bindings_after(vhost, source, last).into_iter().flatten();
        let looked_at: Vec<&Binding> = next.take(LOOK).collect();
        let wanted = |binding: &&&Binding| self.wanted.destination.as_ref().is_none_or(|to| binding.destination == *to);
        let found = looked_at.iter().filter(wanted).map(|binding| (**binding).clone()).collect();
        self.place = match looked_at.last() {
            Some(last) => Where::In(source.clone(), (**last).clone()),
            None => Where::After(source.clone()),
        };
        found
    }
}

impl Walk for BindingWalk {
    type Row = BindingRow;

    fn rows(&mut self) -> Option<Vec<BindingRow>> {
        let vhost = self.vhosts.front()?.clone();
        let (source, found) = match std::mem::replace(&mut self.place, Where::Default(None)) {
            Where::Default(after) => ("".into(), self.of_default(&vhost, after)),
            Where::In(source, last) => (source.clone(), self.of_source(&vhost, &source, Some(&last))),
            Where::After(source) => match self.next_source(&vhost, &source) {
                Some(source) => (source.clone(), self.of_source(&vhost, &source, None)),
                None => {
                    self.vhosts.pop_front();
                    return Some(Vec::new());
                }
            },
        };
        let row = |binding| BindingRow { vhost: vhost.clone(), source: source.clone(), binding };
        Some(found.into_iter().map(row).collect())
    }

    fn name<'r>(&self, row: &'r BindingRow) -> Cow<'r, str> {
        list::named(&row.source)
    }

    fn show(&self, row: &BindingRow) -> Option<Value> {
        Some(view(&row.vhost, &row.source, &row.binding))
    }
}

/// Returns the implicit binding of a queue to the default exchange.
fn of_default_exchange(queue: &str) -> Binding {
    Binding {
        destination: Destination::Queue(queue.to_owned()),
        routing_key: queue.as_bytes().into(),
        arguments: FieldTable::default(),
        properties_key: properties_key(queue.as_bytes(), &FieldTable::default()),
    }
}

fn view(vhost: &str, source: &str, binding: &Binding) -> Value {
    let (kind, destination) = match &binding.destination {
        Destination::Queue(name) => ("queue", name),
        Destination::Exchange(name) => ("exchange", name),
    };
    json!({
        "source": source, "vhost": vhost, "destination": destination, "destination_type": kind,
        "routing_key": String::from_utf8_lossy(&binding.routing_key),
        "arguments": json::from_table(&binding.arguments), "properties_key": binding.properties_key,
    })
}

/// How many bindings are examined in one acquisition of the catalog's lock.
const LOOK: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use leveret_node::Options;
    use leveret_node::catalog::QueueDeclare;
    use std::collections::BTreeSet;

    #[tokio::test]
    async fn a_walk_returns_each_lasting_binding_once_while_others_are_added_and_removed() {
        let broker = Broker::start(Options::default());
        broker.declare_queue(&Caller::system(), "/", "q", QueueDeclare::default()).await.unwrap();
        let (to, none) = (Destination::Queue("q".to_owned()), FieldTable::default());
        let keys: Vec<_> = (0..2000).map(|number| format!("key-{number:04}")).collect();
        for key in &keys {
            broker
                .bind(&Caller::system(), "/", BindingDeclare::new("amq.direct", &to, key.as_bytes(), &none))
                .await
                .unwrap();
        }
        let wanted = WantedEnds { source: Some("amq.direct".into()), destination: Some(to.clone()) };
        let mut walk = BindingWalk::new(&broker, vec!["/".into()], wanted);
        let (mut seen, mut gone) = (Vec::new(), BTreeSet::new());
        while let Some(rows) = walk.rows() {
            seen.extend(rows.into_iter().map(|row| String::from_utf8(row.binding.routing_key.to_vec()).unwrap()));
            // Remove the binding at which the walk stands and some before it, and add others between them.
            if let Some(last) = seen.last() {
                broker
                    .unbind(&Caller::system(), "/", BindingDeclare::new("amq.direct", &to, last.as_bytes(), &none))
                    .await
                    .unwrap();
            }
            for key in seen.iter().rev().skip(1).step_by(3) {
                if gone.insert(key.clone()) {
                    broker
                        .unbind(&Caller::system(), "/", BindingDeclare::new("amq.direct", &to, key.as_bytes(), &none))
                        .await
                        .unwrap();
                    let new = format!("{key}-new");
                    broker
                        .bind(&Caller::system(), "/", BindingDeclare::new("amq.direct", &to, new.as_bytes(), &none))
                        .await
                        .unwrap();
                }
            }
        }
        assert!(gone.len() > 500, "{}", gone.len());
        let times = |key: &String| seen.iter().filter(|other| *other == key).count();
        assert!(keys.iter().all(|key| times(key) == 1));
        broker.stop();
    }

    #[tokio::test]
    async fn deleting_the_queue_at_which_a_walk_stands_hides_no_other_binding() {
        let broker = Broker::start(Options::default());
        let names: Vec<_> = (0..300).map(|number| format!("q{number:03}")).collect();
        for name in &names {
            broker.declare_queue(&Caller::system(), "/", name, QueueDeclare::default()).await.unwrap();
        }
        let mut walk = BindingWalk::new(&broker, vec!["/".into()], WantedEnds::default());
        let mut seen = Vec::new();
        while let Some(rows) = walk.rows() {
            seen.extend(rows.into_iter().map(|row| row.binding.properties_key));
            if let Some(last) = seen.last() {
                let _ = broker.delete_queue(&Caller::system(), "/", last, Default::default()).await;
            }
        }
        assert_eq!(seen, names);
        broker.stop();
    }
}
