//! The third step: the children of a Broker, one file per child. Pure: from the Broker to the object.
mod budget;
mod config;
pub(super) mod pod;
pub(super) mod secret;
mod service;
mod set;
#[cfg(test)]
pub(super) mod tests;

use super::login::Logins;
use super::problem::Problem;
use super::shared_secret::SharedSecret;
use crate::kubernetes::child::Child;
use crate::kubernetes::place::Place;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PodSpec, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::{Resource, ResourceExt};
use leveret_api::Broker;
use std::collections::BTreeMap;

pub(super) use config::build as config;
pub(super) use pod::spec as pod_spec;
pub(super) use service::management_name;

/// The image of a Broker, and the names of the Secrets that it is pulled with.
#[derive(Clone, Copy)]
pub(super) struct Image<'a> {
    pub(super) name: &'a str,
    pub(super) pull_secrets: &'a [String],
}

/// The children of a Broker.
#[derive(Debug)]
pub(super) struct Children {
    /// The children that the pods need, in the order in which they are written: all before the StatefulSet.
    pub(super) before: Vec<Child>,
    pub(super) set: Child,
    /// The Secret for applications: it is written once the pods are to run with its login.
    pub(super) after: Child,
    /// The version of the login that the pods are to carry.
    pub(super) login_version: String,
}

/// The places of a Broker's Secrets.
pub(super) struct SecretPlaces {
    /// The Secret for applications.
    pub(super) public: Place,
    /// The Secret for the pods.
    pub(super) private: Place,
    /// The Secret that the nodes of the cluster share.
    pub(super) shared: Place,
}

pub(super) fn secret_places(broker: &Broker) -> SecretPlaces {
    let namespace = broker.namespace().unwrap_or_default();
    let place = |name: String| Place::of::<Secret>(&namespace, &name);
    SecretPlaces {
        public: place(secret::name(broker)),
        private: place(secret::login_name(broker)),
        shared: place(secret::shared_name(broker)),
    }
}

/// Returns the place of a Broker's StatefulSet.
pub(super) fn set_place(broker: &Broker) -> Place {
    Place::of::<StatefulSet>(&broker.namespace().unwrap_or_default(), &broker.name_any())
}

/// The secrets of a Broker.
#[derive(Clone, Debug)]
pub(super) struct Secrets {
    /// What clients and the operator log in with.
    pub(super) logins: Logins,
    /// What the nodes of the cluster know each other by.
    pub(super) shared: SharedSecret,
}

/// Returns the Broker as it is built while it has that number of pods, which is not always the one that it is to have.
pub(super) fn with_pods(broker: &Broker, pods: i32) -> Broker {
    let mut broker = broker.clone();
    broker.spec.replicas = pods;
    broker
}

/// Builds the children of a Broker from the parts that were found to be valid.
///
/// # Errors
/// An object cannot be written as JSON.
pub(super) fn children(
    broker: &Broker,
    config: &ConfigMap,
    pod: PodSpec,
    secrets: &Secrets,
) -> Result<Children, Problem> {
    let logins = &secrets.logins;
    let account = ServiceAccount {
        metadata: meta(broker, broker.name_any()),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    };
    let unwritable =
        |error: serde_json::Error| Problem::invalid_spec(format!("the children cannot be written: {error}"));
    let before = [
        Child::new(&secret::build_login(broker, secrets)),
        Child::new(&secret::build_shared(broker, &secrets.shared)),
        Child::new(config),
        Child::new(&account),
        Child::new(&service::nodes(broker)),
        Child::new(&service::clients(broker)),
        Child::new(&service::management(broker)),
        Child::new(&budget::build(broker)),
    ];
    let before = before.into_iter().collect::<Result<_, _>>().map_err(unwritable)?;
    let set = Child::new(&set::build(broker, pod, config, secrets)).map_err(unwritable)?;
    let after = Child::new(&secret::build(broker, &logins.current)).map_err(unwritable)?;
    Ok(Children { before, set, after, login_version: logins.version.clone() })
}

/// Returns the version of the login that the pods of a StatefulSet are to carry.
pub(super) fn login_version(set: &StatefulSet) -> Option<String> {
    set.spec.as_ref()?.template.metadata.as_ref()?.annotations.as_ref()?.get(pod::LOGIN).cloned()
}

/// Returns the name of the claim of a pod's volume, as StatefulSets form it.
pub(super) fn claim_name(broker: &Broker, pod: i32) -> String {
    format!("{}-{}-{pod}", pod::DATA, broker.name_any())
}

/// Returns the address at which the other nodes of the cluster reach the node in a pod.
pub(super) fn node_address(broker: &Broker, pod: i32) -> String {
    format!("{}.{}", pod_name(broker, pod), service::nodes_host(broker))
}

/// Returns the name of a pod, as StatefulSets form it.
pub(super) fn pod_name(broker: &Broker, pod: i32) -> String {
    format!("{}-{pod}", broker.name_any())
}

/// Returns the metadata of a child: name, namespace, labels and owner.
fn meta(broker: &Broker, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: broker.namespace(),
        labels: Some(labels(broker)),
        owner_references: Some(broker.controller_owner_ref(&()).into_iter().collect()),
        ..ObjectMeta::default()
    }
}

/// Returns the labels of all children of the Broker.
fn labels(broker: &Broker) -> BTreeMap<String, String> {
    let labels = [
        ("app.kubernetes.io/name", "leveret"),
        ("app.kubernetes.io/instance", &broker.name_any()),
        ("app.kubernetes.io/managed-by", "leveret-operator"),
    ];
    labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// Returns the labels that select the pods; StatefulSets also put them on the claims that they create.
pub(super) fn selector(broker: &Broker) -> BTreeMap<String, String> {
    let mut labels = labels(broker);
    labels.remove("app.kubernetes.io/managed-by");
    labels
}

fn label_selector(broker: &Broker) -> LabelSelector {
    LabelSelector { match_labels: Some(selector(broker)), ..LabelSelector::default() }
}

/// Selects the children of all Brokers.
pub(super) const SELECTOR: &str = "app.kubernetes.io/managed-by=leveret-operator";
/// The ports of a broker.
pub(super) const AMQP: i32 = 5672;
pub(super) const HTTP: i32 = 15672;
const METRICS: i32 = 15692;
/// The port for the other nodes of the cluster.
const CLUSTER: i32 = 25672;
