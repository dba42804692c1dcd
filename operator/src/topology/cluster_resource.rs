//! A resource as the cluster has it: what a pass needs to know of it, and what is needed to write to it.
use super::kinds::Kind;
use super::outcome::CHANGED;
use super::resource::{Age, TopologyResource};
use crate::kubernetes::conditions;
use crate::kubernetes::place::Place;
use k8s_openapi::api::core::v1::ObjectReference;
use leveret_api::{Broker, FINALIZER, TopologyStatus};
use std::sync::Arc;

/// The name of a Broker in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct BrokerKey {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl BrokerKey {
    pub(super) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// Returns the Broker that a resource refers to. It is in the resource's own namespace unless the resource names
    /// another.
    pub(super) fn referred_to_by<K: Kind>(resource: &K) -> Self {
        let (own, broker) = (resource.meta().namespace.as_deref().unwrap_or_default(), resource.broker());
        Self::new(broker.namespace.as_deref().unwrap_or(own), &broker.name)
    }

    /// Returns whether a resource of `namespace` may refer to the Broker: it is in the same namespace, or the Broker's
    /// spec allows it. A Broker that is not known forbids nothing.
    pub(super) fn allows(&self, namespace: &str, broker: Option<&Broker>) -> bool {
        let Some(broker) = broker else { return true };
        let listed = &broker.spec.topology.allowed_namespaces;
        namespace == self.namespace || listed.iter().any(|allowed| allowed == "*" || allowed == namespace)
    }
}

impl std::fmt::Display for BrokerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A resource as the cluster has it.
#[derive(Clone)]
pub(super) struct ClusterResource {
    pub(super) resource: Arc<TopologyResource>,
    /// Names the resource in events.
    pub(super) reference: Arc<ObjectReference>,
    pub(super) resource_version: Option<String>,
    pub(super) finalizers: Vec<String>,
    pub(super) status: TopologyStatus,
}

impl ClusterResource {
    pub(super) fn of<K: Kind>(resource: &K) -> Self {
        let meta = resource.meta();
        let (namespace, name) = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        let created = meta.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
        let age = Age { created, uid: meta.uid.clone().unwrap_or_default() };
        let status = resource.status().cloned().unwrap_or_default();
        let generation = meta.generation.unwrap_or_default();
        let has_reason = |reason| status.conditions.iter().any(|condition| condition.reason == reason);
        let was_declared = (conditions::is_true(&status.conditions, "Ready") || has_reason(CHANGED))
            && status.observed_generation == Some(generation);
        let mut object = resource.object(&name);
        let refused_change = K::keep_declared(&mut object, &status);
        let reduced = TopologyResource {
            wanted: object.into(),
            deleting: meta.deletion_timestamp.is_some(),
            generation,
            was_declared,
            refused_change,
            ..TopologyResource::new(resource, namespace, name, age)
        };
        Self {
            resource: Arc::new(reduced),
            reference: Arc::new(resource.object_ref(&())),
            resource_version: meta.resource_version.clone(),
            finalizers: meta.finalizers.clone().unwrap_or_default(),
            status,
        }
    }

    pub(super) fn uid(&self) -> &str {
        &self.resource.age.uid
    }

    /// Returns the place of the resource at the API server.
    pub(super) fn place(&self) -> Place {
        let key = &self.resource.key;
        Place::new(self.resource.wanted.api_resource(), &key.namespace, &key.name)
    }

    /// Returns whether the resource has a condition for its present generation.
    pub(super) fn has_current_condition(&self) -> bool {
        !self.status.conditions.is_empty() && self.status.observed_generation == Some(self.resource.generation)
    }

    /// Returns whether our finalizer keeps the resource from being deleted.
    pub(super) fn has_finalizer(&self) -> bool {
        self.finalizers.iter().any(|finalizer| finalizer == FINALIZER)
    }
}
