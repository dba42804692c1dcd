//! The children of a Broker, one file each: pure, from the Broker to the object.
mod budget;
mod config;
pub(super) mod pod;
pub(super) mod secret;
mod service;
mod set;
#[cfg(test)]
pub(super) mod tests;

use super::login::Logins;
use crate::kubernetes::child::{Child, Place};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::{Resource, ResourceExt};
use leveret_api::Broker;
use std::collections::BTreeMap;

pub(super) use service::management_name;

/// The image of a Broker, and the names of Secrets that it is pulled with.
#[derive(Clone, Copy)]
pub(super) struct Image<'a> {
    pub(super) name: &'a str,
    pub(super) pull_secrets: &'a [String],
}

/// All that a Broker consists of.
#[derive(Debug)]
pub(super) struct Children {
    /// In the order in which they are made: what the pods need comes before the pods.
    pub(super) before: Vec<Child>,
    pub(super) set: Child,
    /// The Secret for applications: it is written once the pods are to run with its login.
    pub(super) after: Child,
    /// The version of the login that the pods are to carry.
    pub(super) login_version: String,
}

/// Where a Broker's Secrets are: for applications, for the pods.
pub(super) fn secrets(broker: &Broker) -> [Place; 2] {
    let namespace = broker.namespace().unwrap_or_default();
    [secret::name(broker), secret::login_name(broker)].map(|name| Place::of::<Secret>(&namespace, &name))
}

/// Where a Broker's StatefulSet is.
pub(super) fn set_place(broker: &Broker) -> Place {
    Place::of::<StatefulSet>(&broker.namespace().unwrap_or_default(), &broker.name_any())
}

/// The children of `broker`, which runs `image`.
///
/// # Errors
/// What is wrong with its spec, for its condition.
pub(super) fn children(broker: &Broker, image: Image<'_>, logins: &Logins) -> Result<Children, String> {
    let config = config::build(broker)?;
    let account = ServiceAccount {
        metadata: meta(broker, broker.name_any()),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    };
    let set = set::build(broker, image, &config, &logins.version)?;
    let unwritable = |error: serde_json::Error| format!("the children cannot be written: {error}");
    let before = [
        Child::new(&secret::build_login(broker, logins)),
        Child::new(&config),
        Child::new(&account),
        Child::new(&service::nodes(broker)),
        Child::new(&service::clients(broker)),
        Child::new(&service::management(broker)),
        Child::new(&budget::build(broker)),
    ];
    let before = before.into_iter().collect::<Result<_, _>>().map_err(unwritable)?;
    let after = Child::new(&secret::build(broker, &logins.current)).map_err(unwritable)?;
    let login_version = logins.version.clone();
    Ok(Children { before, set: Child::new(&set).map_err(unwritable)?, after, login_version })
}

/// The version of the login that the pods of a StatefulSet are to carry.
pub(super) fn login_version(set: &StatefulSet) -> Option<String> {
    set.spec.as_ref()?.template.metadata.as_ref()?.annotations.as_ref()?.get(pod::LOGIN).cloned()
}

/// Name of the claim of a pod's volume, as StatefulSets make it.
pub(super) fn claim_name(broker: &Broker, pod: i32) -> String {
    format!("{}-{}-{pod}", pod::DATA, broker.name_any())
}

/// Name of a pod.
pub(super) fn pod_name(broker: &Broker, pod: i32) -> String {
    format!("{}-{pod}", broker.name_any())
}

/// Name, namespace, labels, owner.
fn meta(broker: &Broker, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: broker.namespace(),
        labels: Some(labels(broker)),
        owner_references: Some(broker.controller_owner_ref(&()).into_iter().collect()),
        ..ObjectMeta::default()
    }
}

/// Labels of everything that belongs to the broker.
fn labels(broker: &Broker) -> BTreeMap<String, String> {
    let labels = [
        ("app.kubernetes.io/name", "leveret"),
        ("app.kubernetes.io/instance", &broker.name_any()),
        ("app.kubernetes.io/managed-by", "leveret-operator"),
    ];
    labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// What its pods are found by; StatefulSets put these labels on the claims that they make.
pub(super) fn selector(broker: &Broker) -> BTreeMap<String, String> {
    let mut labels = labels(broker);
    labels.remove("app.kubernetes.io/managed-by");
    labels
}

fn label_selector(broker: &Broker) -> LabelSelector {
    LabelSelector { match_labels: Some(selector(broker)), ..LabelSelector::default() }
}

/// What all brokers' objects are found by.
pub(super) const SELECTOR: &str = "app.kubernetes.io/managed-by=leveret-operator";
/// Ports of a broker.
pub(super) const AMQP: i32 = 5672;
pub(super) const HTTP: i32 = 15672;
const METRICS: i32 = 15692;
