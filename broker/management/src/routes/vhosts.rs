//! Virtual hosts.
use super::{ListAnswer, ObjectAnswer, all_vhosts};
use crate::api::Api;
use crate::error::ApiError;
use crate::list::{self, Query};
use crate::walk::Walk;
use axum::Json;
use axum::extract::{Path, State};
use leveret_node::Broker;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::sync::Arc;

pub(crate) async fn list(State(api): State<Api>, query: Query) -> ListAnswer {
    let names = all_vhosts(&api.broker);
    list::answer(&api, Vhosts { broker: api.broker.clone(), names: Some(names) }, query).await
}

pub(crate) async fn get(State(broker): State<Broker>, Path(vhost): Path<String>, query: Query) -> ObjectAnswer {
    if !broker.has_vhost(&vhost) {
        return Err(ApiError::no_object());
    }
    Ok(Json(query.pick(view(&broker, &vhost))))
}

struct Vhosts {
    broker: Broker,
    names: Option<Vec<Arc<str>>>,
}

impl Walk for Vhosts {
    type Row = Arc<str>;

    fn rows(&mut self) -> Option<Vec<Arc<str>>> {
        self.names.take()
    }

    fn name<'r>(&self, row: &'r Arc<str>) -> Cow<'r, str> {
        list::named(row)
    }

    fn show(&self, row: &Arc<str>) -> Option<Value> {
        Some(view(&self.broker, row))
    }
}

fn view(broker: &Broker, name: &str) -> Value {
    let state = json!({broker.name(): "running"});
    json!({
        "name": name, "description": "", "tags": [], "default_queue_type": "classic", "tracing": false,
        "cluster_state": state, "metadata": {"description": "", "tags": [], "default_queue_type": "classic"},
    })
}
