//! The children of a Broker, one file each: pure, from the Broker to the object.
mod budget;
mod config;
mod pod;
pub(super) mod secret;
mod service;
mod set;
#[cfg(test)]
mod tests;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::{Resource, ResourceExt};
use leveret_api::Broker;
use std::collections::BTreeMap;

/// All that a Broker consists of.
pub(super) struct Children {
    /// Only when there is none: its password is made once.
    pub(super) secret: Option<Secret>,
    pub(super) config: ConfigMap,
    pub(super) account: ServiceAccount,
    pub(super) nodes: Service,
    pub(super) service: Service,
    pub(super) budget: PodDisruptionBudget,
    pub(super) set: StatefulSet,
}

/// The children of `broker`.
///
/// # Errors
/// What is wrong with its spec, for its condition.
pub(super) fn children(broker: &Broker, default_image: &str, secret: Option<&Secret>) -> Result<Children, String> {
    let config = config::build(broker)?;
    Ok(Children {
        secret: secret.is_none().then(|| secret::build(broker, &rand::random())),
        account: ServiceAccount {
            metadata: meta(broker, broker.name_any()),
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        },
        nodes: service::nodes(broker),
        service: service::clients(broker),
        budget: budget::build(broker),
        set: set::build(broker, default_image, &config)?,
        config,
    })
}

/// Name of the claim of a pod's volume, as StatefulSets make it.
pub(super) fn claim_name(broker: &Broker, pod: i32) -> String {
    format!("{}-{}-{pod}", pod::DATA, broker.name_any())
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

/// What its pods are found by.
fn selector(broker: &Broker) -> BTreeMap<String, String> {
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
const AMQP: i32 = 5672;
pub(super) const HTTP: i32 = 15672;
const METRICS: i32 = 15692;
