//! Exchanges.
use super::{Done, Found, exchange_name, made};
use crate::error::Error;
use crate::json;
use crate::list::{self, Query};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query as QueryOf, State};
use axum::http::StatusCode;
use leveret_node::Broker;
use leveret_node::catalog::{Exchange, ExchangeDeclare};
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
struct Body {
    #[serde(rename = "type", default = "direct")]
    kind: String,
    #[serde(default = "yes")]
    durable: bool,
    #[serde(default)]
    auto_delete: bool,
    #[serde(default)]
    internal: bool,
    #[serde(default)]
    arguments: Map<String, Value>,
}

fn direct() -> String {
    "direct".to_owned()
}

fn yes() -> bool {
    true
}

pub(crate) async fn list_all(State(broker): State<Broker>, QueryOf(query): QueryOf<Query>) -> Found {
    let items = {
        let catalog = broker.catalog();
        let vhosts = catalog.vhosts().filter_map(|vhost| Some((vhost, catalog.exchanges(vhost).ok()?)));
        vhosts.flat_map(|(vhost, exchanges)| exchanges.map(|(name, exchange)| view(vhost, name, exchange))).collect()
    };
    Ok(Json(list::shape(items, &query)?))
}

pub(crate) async fn list(
    State(broker): State<Broker>,
    Path(vhost): Path<String>,
    QueryOf(query): QueryOf<Query>,
) -> Found {
    let items = broker.catalog().exchanges(&vhost)?.map(|(name, exchange)| view(&vhost, name, exchange)).collect();
    Ok(Json(list::shape(items, &query)?))
}

pub(crate) async fn get(State(broker): State<Broker>, Path((vhost, name)): Path<(String, String)>) -> Found {
    let name = exchange_name(&name);
    Ok(Json(view(&vhost, name, broker.catalog().exchange(&vhost, name)?)))
}

pub(crate) async fn put(
    State(broker): State<Broker>,
    Path((vhost, name)): Path<(String, String)>,
    body: Bytes,
) -> Done {
    let Body { kind, durable, auto_delete, internal, arguments } = json::body(&body)?;
    let arguments = json::to_table(arguments);
    let declare = ExchangeDeclare { kind: kind.parse()?, durable, auto_delete, internal, arguments };
    Ok(made(broker.declare_exchange(&vhost, exchange_name(&name), declare).await?))
}

pub(crate) async fn delete(
    State(broker): State<Broker>,
    Path((vhost, name)): Path<(String, String)>,
    QueryOf(query): QueryOf<Query>,
) -> Done {
    let existed = broker.delete_exchange(&vhost, exchange_name(&name), list::is_true(&query, "if-unused")).await?;
    if existed {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Error::not_found(format!("no exchange '{name}' in vhost '{vhost}'")))
    }
}

fn view(vhost: &str, name: &str, exchange: &Exchange) -> Value {
    let ExchangeDeclare { kind, durable, auto_delete, internal, arguments } = &exchange.declared;
    json!({
        "name": name, "vhost": vhost, "type": kind.name(), "durable": durable, "auto_delete": auto_delete,
        "internal": internal, "arguments": json::from_table(arguments), "user_who_performed_action": "",
    })
}
