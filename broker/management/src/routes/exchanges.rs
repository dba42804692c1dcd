//! Exchanges: listed, shown, declared and deleted.
use super::{
    Done, ListAnswer, ObjectAnswer, WalkPosition, all_vhosts, check_vhost_of_new, declare_status, exchange_name,
    one_vhost,
};
use crate::api::Api;
use crate::error::ApiError;
use crate::json::{self, Fields};
use crate::list::{self, Query};
use crate::walk::{BATCH, Walk};
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use leveret_node::catalog::ExchangeDeclare;
use leveret_node::{Broker, Caller};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::sync::Arc;

pub(crate) async fn list_all(State(api): State<Api>, query: Query) -> ListAnswer {
    let walk = Exchanges { broker: api.broker.clone(), place: WalkPosition::new(all_vhosts(&api.broker)) };
    list::answer(&api, walk, query).await
}

pub(crate) async fn list(State(api): State<Api>, Path(vhost): Path<String>, query: Query) -> ListAnswer {
    let walk = Exchanges { broker: api.broker.clone(), place: WalkPosition::new(one_vhost(&api.broker, &vhost)?) };
    list::answer(&api, walk, query).await
}

pub(crate) async fn get(
    State(broker): State<Broker>,
    Path((vhost, name)): Path<(String, String)>,
    query: Query,
) -> ObjectAnswer {
    let name = exchange_name(&name);
    let declared = broker.catalog().exchange(&vhost, name).map_err(ApiError::at_path)?.declared.clone();
    Ok(Json(query.pick(view(&vhost, name, &declared))))
}

pub(crate) async fn put(
    State(broker): State<Broker>,
    Extension(caller): Extension<Caller>,
    Path((vhost, name)): Path<(String, String)>,
    body: Bytes,
) -> Done {
    check_vhost_of_new(&broker, &vhost)?;
    let mut fields = Fields::read(&body)?;
    let declare = ExchangeDeclare {
        kind: fields.text("type", "direct")?.parse()?,
        durable: fields.flag("durable", true)?,
        auto_delete: fields.flag("auto_delete", false)?,
        internal: fields.flag("internal", false)?,
        arguments: fields.table("arguments")?,
    };
    Ok(declare_status(broker.declare_exchange(&caller, &vhost, exchange_name(&name), declare).await?))
}

pub(crate) async fn delete(
    State(broker): State<Broker>,
    Extension(caller): Extension<Caller>,
    Path((vhost, name)): Path<(String, String)>,
    query: Query,
) -> Done {
    let deleted = broker.delete_exchange(&caller, &vhost, exchange_name(&name), query.is_true("if-unused")).await;
    if deleted.map_err(ApiError::at_path)? { Ok(StatusCode::NO_CONTENT) } else { Err(ApiError::no_object()) }
}

/// A walk through the exchanges of some virtual hosts.
struct Exchanges {
    broker: Broker,
    place: WalkPosition,
}

/// An exchange with its declaration.
struct ExchangeRow {
    vhost: Arc<str>,
    name: Arc<str>,
    declared: ExchangeDeclare,
}

impl Walk for Exchanges {
    type Row = ExchangeRow;

    fn rows(&mut self) -> Option<Vec<ExchangeRow>> {
        let vhost = self.place.vhost()?;
        let rows: Vec<_> = {
            let catalog = self.broker.catalog();
            let found = catalog.exchanges_after(&vhost, self.place.after.as_deref()).into_iter().flatten();
            let row = |(name, exchange): (&Arc<str>, &leveret_node::catalog::Exchange)| ExchangeRow {
                vhost: vhost.clone(),
                name: name.clone(),
                declared: exchange.declared.clone(),
            };
            found.take(BATCH).map(row).collect()
        };
        self.place.advance(rows.last().map(|row| &row.name));
        Some(rows)
    }

    fn name<'r>(&self, row: &'r ExchangeRow) -> Cow<'r, str> {
        list::named(&row.name)
    }

    fn show(&self, row: &ExchangeRow) -> Option<Value> {
        Some(view(&row.vhost, &row.name, &row.declared))
    }
}

fn view(vhost: &str, name: &str, declared: &ExchangeDeclare) -> Value {
    let ExchangeDeclare { kind, durable, auto_delete, internal, arguments } = declared;
    json!({
        "name": name, "vhost": vhost, "type": kind.name(), "durable": durable, "auto_delete": auto_delete,
        "internal": internal, "arguments": json::from_table(arguments), "user_who_performed_action": "",
        "policy": null,
    })
}
