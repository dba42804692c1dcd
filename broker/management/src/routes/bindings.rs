//! Bindings, those of the default exchange among them, which nobody made.
use super::{Done, Found, exchange_name, respond};
use crate::error::Error;
use crate::json;
use crate::list::{self, Query};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query as QueryOf, State};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::Response;
use leveret_model::table::FieldTable;
use leveret_node::Broker;
use leveret_node::catalog::{Binding, Destination, properties_key};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    routing_key: String,
    #[serde(default)]
    arguments: Map<String, Value>,
}

/// Virtual host, source, `q` or `e`, destination.
type Ends = (String, String, String, String);

pub(crate) async fn list_all(State(broker): State<Broker>, QueryOf(query): QueryOf<Query>) -> Found {
    let vhosts: Vec<_> = broker.catalog().vhosts().cloned().collect();
    let mut items = Vec::new();
    for vhost in vhosts {
        items.extend(views(&broker, &vhost, |_, _| true)?);
    }
    Ok(Json(list::shape(items, &query)?))
}

pub(crate) async fn list(
    State(broker): State<Broker>,
    Path(vhost): Path<String>,
    QueryOf(query): QueryOf<Query>,
) -> Found {
    Ok(Json(list::shape(views(&broker, &vhost, |_, _| true)?, &query)?))
}

pub(crate) async fn from_exchange(State(broker): State<Broker>, Path((vhost, name)): Path<(String, String)>) -> Found {
    let name = exchange_name(&name);
    broker.catalog().exchange(&vhost, name)?;
    Ok(Json(views(&broker, &vhost, |source, _| source == name)?.into()))
}

pub(crate) async fn to_exchange(State(broker): State<Broker>, Path((vhost, name)): Path<(String, String)>) -> Found {
    broker.catalog().exchange(&vhost, exchange_name(&name))?;
    let wanted = Destination::Exchange(name);
    Ok(Json(views(&broker, &vhost, |_, binding| binding.destination == wanted)?.into()))
}

pub(crate) async fn to_queue(State(broker): State<Broker>, Path((vhost, name)): Path<(String, String)>) -> Found {
    let owner = broker.catalog().owner(&vhost, &name);
    broker.catalog().queue(&vhost, &name, owner)?;
    let wanted = Destination::Queue(name);
    Ok(Json(views(&broker, &vhost, |_, binding| binding.destination == wanted)?.into()))
}

pub(crate) async fn between(State(broker): State<Broker>, Path(ends): Path<Ends>) -> Found {
    Ok(Json(between_views(&broker, &ends)?.into()))
}

pub(crate) async fn get(
    State(broker): State<Broker>,
    Path((vhost, source, kind, destination, properties)): Path<(String, String, String, String, String)>,
) -> Found {
    let to = to_destination(&kind, &destination)?;
    let named = broker.catalog().binding_named(&vhost, exchange_name(&source), &to, &properties)?.cloned();
    let key = named.map_or_else(|| properties.clone(), |binding| binding.properties_key);
    let found = between_views(&broker, &(vhost, source, kind, destination))?;
    let found = found.into_iter().find(|binding| binding["properties_key"] == key);
    Ok(Json(found.ok_or_else(|| Error::not_found(format!("no binding with properties '{properties}'")))?))
}

pub(crate) async fn bind(
    State(broker): State<Broker>,
    Path((vhost, source, kind, destination)): Path<Ends>,
    body: Bytes,
) -> Result<Response, Error> {
    let Body { routing_key, arguments } = json::body(&body)?;
    let arguments = json::to_table(arguments);
    let to = to_destination(&kind, &destination)?;
    let route = (routing_key.as_bytes(), &arguments);
    broker.bind(&vhost, exchange_name(&source), to.clone(), route, None).await?;
    let key = properties_key(route.0, route.1);
    let location = format!("{}/{}", quoted(&destination), quoted(&key));
    Ok(respond((StatusCode::CREATED, [(LOCATION, location)])))
}

pub(crate) async fn unbind(
    State(broker): State<Broker>,
    Path((vhost, source, kind, destination, properties)): Path<(String, String, String, String, String)>,
) -> Done {
    let source = exchange_name(&source);
    let to = to_destination(&kind, &destination)?;
    let found = broker.catalog().binding_named(&vhost, source, &to, &properties)?.cloned();
    let Some(binding) = found else {
        return Err(Error::not_found(format!("no binding with properties '{properties}'")));
    };
    broker.unbind(&vhost, source, &to, (&binding.routing_key, &binding.arguments), None).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn quoted(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn to_destination(kind: &str, name: &str) -> Result<Destination, Error> {
    match kind {
        "q" => Ok(Destination::Queue(name.to_owned())),
        "e" => Ok(Destination::Exchange(exchange_name(name).to_owned())),
        other => Err(Error::not_found(format!("'{other}' is neither q (queue) nor e (exchange)"))),
    }
}

fn between_views(broker: &Broker, (vhost, source, kind, destination): &Ends) -> Result<Vec<Value>, Error> {
    let (source, wanted) = (exchange_name(source), to_destination(kind, destination)?);
    broker.catalog().exchange(vhost, source)?;
    views(broker, vhost, |from, binding| from == source && binding.destination == wanted)
}

fn views(broker: &Broker, vhost: &str, wanted: impl Fn(&str, &Binding) -> bool) -> Result<Vec<Value>, Error> {
    let catalog = broker.catalog();
    let default = catalog.queues(vhost)?.map(|(name, _)| Binding {
        destination: Destination::Queue(name.to_string()),
        routing_key: name.as_bytes().into(),
        arguments: FieldTable::default(),
        properties_key: properties_key(name.as_bytes(), &FieldTable::default()),
    });
    let default = default.filter(|binding| wanted("", binding)).map(|binding| view(vhost, "", &binding));
    let bound = catalog.bindings(vhost)?.filter(|(source, binding)| wanted(source, binding));
    Ok(default.chain(bound.map(|(source, binding)| view(vhost, source, binding))).collect())
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
