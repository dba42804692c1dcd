//! The cluster: its members and groups, and changes of its members. These routes are our own; RabbitMQ has none of them.
use super::{Done, ObjectAnswer};
use crate::error::ApiError;
use crate::json::Fields;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use leveret_node::{Broker, ClusterError, ClusterView};
use serde_json::{Value, json};
use std::time::Duration;

pub(crate) async fn get(State(broker): State<Broker>) -> ObjectAnswer {
    let view = broker.cluster_view().ok_or(ClusterError::NoCluster)?;
    Ok(Json(shown(&view)))
}

/// Adds the node at the `address` in the body. Returns once that is agreed on; the node becomes a voter once it has the
/// entries.
pub(crate) async fn add(State(broker): State<Broker>, body: Bytes) -> Done {
    let address = Fields::read(&body)?.text("address", "")?;
    if address.is_empty() {
        return Err(ApiError::bad_request("address: the HOST:PORT at which others reach the node is missing"));
    }
    broker.add_member(&address).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes the member with this identity, name or address.
pub(crate) async fn remove(State(broker): State<Broker>, Path(member): Path<String>) -> Done {
    broker.remove_member(&member).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lets other nodes lead the groups that this node leads, and waits a while until all others have all entries. 503 says
/// what is missing; the request can be repeated until it succeeds.
pub(crate) async fn transfer(State(broker): State<Broker>) -> Done {
    broker.hand_over_and_wait(TRANSFER_MAX).await.map_err(|late| ApiError::unavailable(late.to_string()))?;
    Ok(StatusCode::NO_CONTENT)
}

fn shown(view: &ClusterView) -> Value {
    let members = view.members.iter().map(|member| {
        json!({
            "node": id(member.node), "name": member.name, "address": member.address, "state": member.state.name(),
            "voter": member.is_voter, "leads": member.leads,
        })
    });
    let groups = view.groups.iter().map(|group| {
        json!({
            "group": group.group, "leader": group.leader.map(id), "term": group.term,
            "voters": group.voters.iter().copied().map(id).collect::<Vec<_>>(),
            "learners": group.learners.iter().copied().map(id).collect::<Vec<_>>(),
            "last": group.last, "applied": group.applied,
        })
    });
    json!({
        "name": view.name, "node": id(view.node), "ready": view.lacks.is_none(), "reason": view.lacks,
        "removed": view.is_removed,
        "members": members.collect::<Vec<_>>(), "groups": groups.collect::<Vec<_>>(),
    })
}

/// Returns an identity as text: as a number it would be too large for many JSON parsers.
fn id(node: u64) -> String {
    format!("{node:016x}")
}

impl From<ClusterError> for ApiError {
    fn from(error: ClusterError) -> Self {
        match error {
            ClusterError::NoCluster | ClusterError::NotFound(_) => Self::not_found(error.to_string()),
            ClusterError::Refused(_) => Self::bad_request(error.to_string()),
            ClusterError::Unavailable(_) => Self::unavailable(error.to_string()),
        }
    }
}

/// The longest time that one request waits until the other members have all entries.
const TRANSFER_MAX: Duration = Duration::from_secs(5);
