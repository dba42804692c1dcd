//! A Broker's children in the cluster: whose they are, and how they are brought to what is wanted.
use super::address;
use super::build::{self, Children};
use super::status::Problem;
use crate::kubernetes::child::{Child, Place, Standing};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use kube::api::DynamicObject;
use kube::{Api, Client, ResourceExt};
use leveret_api::Broker;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What there is of a Broker before anything is decided.
pub(super) struct Found {
    /// The Secret for applications.
    pub(super) public: Option<Secret>,
    /// The Secret for the pods.
    pub(super) private: Option<Secret>,
    pub(super) set: Option<StatefulSet>,
    /// Names that are taken by objects of others.
    taken: Vec<String>,
}

impl Found {
    /// What is in the way: a Broker is made whole, or not at all.
    pub(super) fn problem(&self) -> Option<Problem> {
        taken(&self.taken)
    }
}

/// Looks at the objects that are read before the children can be described.
pub(super) async fn find(client: &Client, broker: &Broker) -> kube::Result<Found> {
    let owner = uid(broker);
    let [public, private] = build::secrets(broker);
    let set = build::set_place(broker);
    let (is_public, is_private, is_set, mut names) = tokio::try_join!(
        public.look(client, &owner),
        private.look(client, &owner),
        set.look(client, &owner),
        foreign_claims(client, broker),
    )?;
    for (place, standing) in [(&public, &is_public), (&private, &is_private), (&set, &is_set)] {
        names.extend(foreign(place, standing));
    }
    Ok(Found { public: read(is_public)?, private: read(is_private)?, set: read(is_set)?, taken: names })
}

/// What the API server has of the children, and whose it is.
pub(super) struct Looked {
    before: Vec<(Child, Standing)>,
    set: (Child, Standing),
    after: (Child, Standing),
    /// The version of the login that the pods are to carry.
    login_version: String,
}

/// Looks at all children.
///
/// # Errors
/// The problem that stands in the way: a name that is taken.
pub(super) async fn look(
    client: &Client,
    broker: &Broker,
    children: Children,
) -> kube::Result<Result<Looked, Problem>> {
    let owner = uid(broker);
    let before = children.before.into_iter().map(|child| look_at(client, child, &owner));
    let (before, set, after) = tokio::try_join!(
        futures::future::try_join_all(before),
        look_at(client, children.set, &owner),
        look_at(client, children.after, &owner)
    )?;
    let all = before.iter().chain([&set, &after]);
    let names: Vec<_> = all.filter_map(|(child, standing)| foreign(&child.place, standing)).collect();
    Ok(match taken(&names) {
        Some(problem) => Err(problem),
        None => Ok(Looked { before, set, after, login_version: children.login_version }),
    })
}

/// What was written of the children.
#[derive(Default)]
pub(super) struct Written {
    pub(super) set: Option<StatefulSet>,
    pub(super) problem: Option<Problem>,
    /// The StatefulSet was not there before.
    pub(super) is_new: bool,
    /// The Service that waits for the address of a load balancer.
    pub(super) without_address: Option<DynamicObject>,
}

/// Brings the children to what is wanted. What the API server refuses is told, all of it, and does not keep the others
/// from being written; the StatefulSet is written only when all that its pods are started with is as wanted, and a new
/// one waits for all children. The Secret for applications comes last, once the pods are to run with the login in it.
pub(super) async fn write(client: &Client, looked: Looked, with_set: bool) -> kube::Result<Written> {
    let (mut refusals, mut pods_can_start, mut written) = (Vec::new(), true, Written::default());
    for (child, standing) in &looked.before {
        match child.write(client, standing).await {
            Ok(Some(object)) if address::is_awaited(&object) => written.without_address = Some(object),
            Ok(_) => {}
            Err(error) => {
                pods_can_start &= matches!(child.place.kind(), "Service" | "PodDisruptionBudget");
                refusals.push(refusal(&child.place, error)?);
            }
        }
    }
    let (mut child, standing) = looked.set;
    let is_new = matches!(standing, Standing::Missing);
    if with_set && (refusals.is_empty() || pods_can_start && !is_new) {
        refusals.extend(keep_claims(&mut child, &standing));
        match child.write(client, &standing).await {
            Ok(set) => {
                written.set = set.map(typed).transpose()?;
                written.is_new = is_new;
            }
            Err(error) => refusals.push(set_refusal(refusal(&child.place, error)?, is_new)),
        }
    }
    let set = written.set.clone().map_or_else(|| read(standing), |set| Ok(Some(set)))?;
    if set.as_ref().and_then(build::login_version) == Some(looked.login_version) {
        let (child, standing) = &looked.after;
        if let Err(error) = child.write(client, standing).await {
            refusals.push(refusal(&child.place, error)?);
        }
    }
    written.problem = refusals
        .into_iter()
        .reduce(|first, next| Problem { message: format!("{}. {}", first.message, next.message), ..first });
    Ok(written)
}

/// The template of claims cannot be changed: a StatefulSet that is there keeps the one that it has, so that everything else
/// in it can be written. Their size is no problem of this place, another storage class is.
fn keep_claims(child: &mut Child, standing: &Standing) -> Option<Problem> {
    let class = |claims: Option<&Value>| claims.and_then(|claims| claims.pointer("/0/spec/storageClassName")).cloned();
    let (wanted, is) = child.keep(standing, "/spec/volumeClaimTemplates")?;
    let name = |class: Option<Value>| match class.as_ref().and_then(Value::as_str) {
        Some(class) => format!("'{class}'"),
        None => "the cluster's default".to_owned(),
    };
    let (wanted, is) = (class(Some(&wanted)), class(Some(&is)));
    let message = format!(
        "spec.storage.className is {}, the volumes were made with {}: it cannot be changed. {CLASS_ADVICE}",
        name(wanted.clone()),
        name(is.clone())
    );
    (wanted != is).then(|| Problem { reason: "ChangeRefused".to_owned(), message })
}

/// What the API server refused, in its own words.
///
/// # Errors
/// It is no refusal: somebody was faster, or the API server does not answer as it should. It is tried again.
pub(super) fn refusal(place: &Place, error: kube::Error) -> kube::Result<Problem> {
    match error {
        kube::Error::Api(status) if !matches!(status.code, 401 | 409 | 429 | 503 | 504) => {
            let reason = if status.reason.is_empty() { "Refused".to_owned() } else { status.reason.clone() };
            Ok(Problem { reason, message: format!("{place}: the API server says: {}", status.message) })
        }
        error => Err(error),
    }
}

/// A StatefulSet of which a part is to change that cannot be changed.
fn set_refusal(problem: Problem, is_new: bool) -> Problem {
    if is_new || !problem.message.contains("updates to statefulset spec for fields other than") {
        return problem;
    }
    Problem { reason: "ChangeRefused".to_owned(), message: format!("{}. {CLASS_ADVICE}", problem.message) }
}

async fn look_at(client: &Client, child: Child, owner: &str) -> kube::Result<(Child, Standing)> {
    let standing = child.place.look(client, owner).await?;
    Ok((child, standing))
}

/// Claims of the names that the StatefulSet would use, which no StatefulSet of this Broker's name has made.
async fn foreign_claims(client: &Client, broker: &Broker) -> kube::Result<Vec<String>> {
    let namespace = broker.namespace().unwrap_or_default();
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    let mut names = Vec::new();
    for pod in 0..broker.spec.replicas {
        let name = build::claim_name(broker, pod);
        let Some(claim) = claims.get_opt(&name).await? else { continue };
        let labels = claim.labels();
        let is_ours = build::selector(broker).iter().all(|(name, value)| labels.get(name) == Some(value));
        if !is_ours {
            names.push(format!("PersistentVolumeClaim {namespace}/{name} (no StatefulSet of this Broker made it)"));
        }
    }
    Ok(names)
}

fn foreign(place: &Place, standing: &Standing) -> Option<String> {
    match standing {
        Standing::Foreign(who) => Some(format!("{place} ({who})")),
        _ => None,
    }
}

fn taken(names: &[String]) -> Option<Problem> {
    if names.is_empty() {
        return None;
    }
    let message = format!(
        "there is something of that name already, which is not this Broker's: {}. Nothing of it is changed. Delete it if \
         nobody needs it, or give the Broker another name",
        names.join(", ")
    );
    Some(Problem { reason: "NameTaken".to_owned(), message })
}

fn read<K: DeserializeOwned>(standing: Standing) -> kube::Result<Option<K>> {
    match standing {
        Standing::Ours(object) => typed(*object).map(Some),
        _ => Ok(None),
    }
}

fn typed<K: DeserializeOwned>(object: DynamicObject) -> kube::Result<K> {
    let value = serde_json::to_value(object).map_err(kube::Error::SerdeError)?;
    serde_json::from_value(value).map_err(kube::Error::SerdeError)
}

fn uid(broker: &Broker) -> String {
    broker.metadata.uid.clone().unwrap_or_default()
}

/// What to do about a change of what cannot be changed.
const CLASS_ADVICE: &str = "Undo the change of spec.storage, or delete the Broker (its volumes are kept unless \
                            storage.retention is Delete) and create it anew";

#[cfg(test)]
#[path = "children_tests.rs"]
mod tests;
