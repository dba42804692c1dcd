//! Reads the children of a Broker in the cluster, checks whether they belong to it, and writes those that differ from
//! what is wanted.
use super::address;
use super::build::{self, Children};
use super::problem::Problem;
use crate::kubernetes::child::{Child, Ownership, inspect};
use crate::kubernetes::place::Place;
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::Client;
use kube::api::DynamicObject;
use leveret_api::Broker;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A wanted child, and the object that exists in its place.
struct InspectedChild {
    child: Child,
    ownership: Ownership,
}

/// All children of a Broker. No object of somebody else has one of their names.
pub(super) struct InspectedChildren {
    before: Vec<InspectedChild>,
    set: InspectedChild,
    after: InspectedChild,
    /// The version of the login that the pods are to carry.
    login_version: String,
}

/// Reads the objects in the places of all children.
///
/// # Errors
/// The problem that a name is taken. None of the children is written then.
pub(super) async fn inspect_all(
    client: &Client,
    broker: &Broker,
    children: Children,
) -> kube::Result<Result<InspectedChildren, Problem>> {
    let owner = owner_uid(broker);
    let before = children.before.into_iter().map(|child| inspect_child(client, child, &owner));
    let (before, set, after) = tokio::try_join!(
        futures::future::try_join_all(before),
        inspect_child(client, children.set, &owner),
        inspect_child(client, children.after, &owner)
    )?;
    let all = before.iter().chain([&set, &after]);
    let names: Vec<_> = all.filter_map(|inspected| foreign(&inspected.child.place, &inspected.ownership)).collect();
    Ok(match names_taken(&names) {
        Some(problem) => Err(problem),
        None => Ok(InspectedChildren { before, set, after, login_version: children.login_version }),
    })
}

async fn inspect_child(client: &Client, child: Child, owner: &str) -> kube::Result<InspectedChild> {
    let ownership = inspect(&child.place, client, owner).await?;
    Ok(InspectedChild { child, ownership })
}

/// The result of writing the children.
#[derive(Default)]
pub(super) struct WriteResult {
    /// The StatefulSet, if it was written or found to be as wanted.
    pub(super) set: Option<StatefulSet>,
    /// The refusals of the API server.
    pub(super) problem: Option<Problem>,
    /// Set if the StatefulSet was created.
    pub(super) is_new: bool,
    /// The Service that waits for the address of a load balancer.
    pub(super) without_address: Option<DynamicObject>,
}

/// Brings the children to what is wanted. The StatefulSet is written only if `with_set` is true.
///
/// If the API server refuses a child, the others are written all the same, and all refusals are collected. The
/// StatefulSet is written only when everything that its pods are started with is as wanted, and a new one only when all
/// children before it are. The Secret for applications comes last, once the pods are to run with the login in it.
pub(super) async fn write(client: &Client, children: InspectedChildren, with_set: bool) -> kube::Result<WriteResult> {
    let (mut refusals, mut pods_can_start, mut result) = (Vec::new(), true, WriteResult::default());
    for InspectedChild { child, ownership } in &children.before {
        match child.write(client, ownership).await {
            Ok(Some(object)) if address::is_awaited(&object) => result.without_address = Some(object),
            Ok(_) => {}
            Err(error) => {
                pods_can_start &= matches!(child.place.kind(), "Service" | "PodDisruptionBudget");
                refusals.push(refusal(&child.place, error)?);
            }
        }
    }
    let InspectedChild { mut child, ownership } = children.set;
    let is_new = matches!(ownership, Ownership::Missing);
    if with_set && (refusals.is_empty() || pods_can_start && !is_new) {
        refusals.extend(keep_claim_template(&mut child, &ownership));
        match child.write(client, &ownership).await {
            Ok(set) => {
                result.set = set.map(typed).transpose()?;
                result.is_new = is_new;
            }
            Err(error) => refusals.push(set_refusal(refusal(&child.place, error)?, is_new)),
        }
    }
    let set: Option<StatefulSet> = match (&result.set, ownership) {
        (Some(set), _) => Some(set.clone()),
        (None, Ownership::Ours(object)) => Some(typed(*object)?),
        (None, _) => None,
    };
    if set.as_ref().and_then(build::login_version) == Some(children.login_version) {
        let InspectedChild { child, ownership } = &children.after;
        if let Err(error) = child.write(client, ownership).await {
            refusals.push(refusal(&child.place, error)?);
        }
    }
    result.problem = refusals
        .into_iter()
        .reduce(|first, next| Problem { message: format!("{}. {}", first.message, next.message), ..first });
    Ok(result)
}

/// Keeps the template of claims of a StatefulSet that exists, which cannot be changed, so that everything else in it can be
/// written. Another storage class is a problem; another size is not, since `volumes` handles it.
fn keep_claim_template(child: &mut Child, ownership: &Ownership) -> Option<Problem> {
    let class = |claims: &Value| claims.pointer("/0/spec/storageClassName").cloned();
    let kept = child.keep(ownership, "/spec/volumeClaimTemplates")?;
    let name = |class: Option<Value>| match class.as_ref().and_then(Value::as_str) {
        Some(class) => format!("'{class}'"),
        None => "the cluster's default".to_owned(),
    };
    let (wanted, present) = (class(&kept.wanted), class(&kept.present));
    let message = format!(
        "spec.storage.className is {}, the volumes were made with {}: it cannot be changed. {CLASS_ADVICE}",
        name(wanted.clone()),
        name(present.clone())
    );
    (wanted != present).then(|| Problem::new("ChangeRefused", message))
}

/// Returns the problem of a child that the API server refuses, in the words of the API server.
///
/// # Errors
/// The given error, if it is not a refusal: somebody else wrote the object meanwhile, or the API server does not answer
/// as it should. The reconciliation is then tried again.
pub(super) fn refusal(place: &Place, error: kube::Error) -> kube::Result<Problem> {
    match error {
        kube::Error::Api(status) if !matches!(status.code, 401 | 409 | 429 | 503 | 504) => {
            let reason = if status.reason.is_empty() { "Refused" } else { &status.reason };
            Ok(Problem::new(reason, format!("{place}: the API server says: {}", status.message)))
        }
        error => Err(error),
    }
}

/// Returns the problem of a StatefulSet that is refused, with advice if a part of it was to change that cannot be
/// changed.
fn set_refusal(problem: Problem, is_new: bool) -> Problem {
    if is_new || !problem.message.contains("updates to statefulset spec for fields other than") {
        return problem;
    }
    Problem::new("ChangeRefused", format!("{}. {CLASS_ADVICE}", problem.message))
}

/// Returns the place and the controller of an object that has the name of a child but belongs to somebody else; `None`
/// for any other object.
pub(super) fn foreign(place: &Place, ownership: &Ownership) -> Option<String> {
    match ownership {
        Ownership::Foreign(controller) => Some(format!("{place} ({controller})")),
        _ => None,
    }
}

/// Returns the problem that the listed objects have the names of children; `None` if there are none.
pub(super) fn names_taken(foreign_objects: &[String]) -> Option<Problem> {
    if foreign_objects.is_empty() {
        return None;
    }
    let message = format!(
        "objects that do not belong to this Broker have the names of its children: {}. They are not changed. Delete \
         them if nobody needs them, or give the Broker another name",
        foreign_objects.join(", ")
    );
    Some(Problem::new("NameTaken", message))
}

pub(super) fn typed<K: DeserializeOwned>(object: DynamicObject) -> kube::Result<K> {
    let value = serde_json::to_value(object).map_err(kube::Error::SerdeError)?;
    serde_json::from_value(value).map_err(kube::Error::SerdeError)
}

pub(super) fn owner_uid(broker: &Broker) -> String {
    broker.metadata.uid.clone().unwrap_or_default()
}

/// The advice if a part of the storage was changed that cannot be changed.
const CLASS_ADVICE: &str = "Undo the change of spec.storage, or delete the Broker (its volumes are kept unless \
                            storage.retention is Delete) and create it anew";

#[cfg(test)]
#[path = "children_tests.rs"]
mod tests;
