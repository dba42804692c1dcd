//! A resource, reduced to what a pass over its broker needs.
use super::kinds::{BrokerObject, Kind};
use super::outcome::Outcome;
use leveret_api::DeletionPolicy;
use std::borrow::Cow;

/// The name of a resource in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ResourceKey {
    pub(crate) kind: Cow<'static, str>,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl std::fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &*self.namespace {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

/// The age of a resource: of two that want the same object, the older one has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Age {
    /// The time of creation, in seconds since 1970.
    pub(crate) created: i64,
    /// Decides between resources that were created in the same second.
    pub(crate) uid: String,
}

/// A resource that wants an object on a broker.
#[derive(Clone, Debug)]
pub(crate) struct TopologyResource {
    pub(crate) key: ResourceKey,
    pub(crate) wanted: BrokerObject,
    pub(crate) deletion_policy: DeletionPolicy,
    /// Set while the resource is being deleted.
    pub(crate) deleting: bool,
    pub(crate) age: Age,
    #[cfg_attr(not(feature = "kubernetes"), allow(dead_code, reason = "reported to Kubernetes"))]
    pub(crate) generation: i64,
    /// Set if the broker had the object as wanted, in this generation of the spec: if the object is missing or
    /// different now, it was lost.
    pub(crate) was_declared: bool,
    /// The mistake in the spec if it asks for another object than the declared one, which cannot be changed. `wanted`
    /// is then the declared object.
    pub(crate) refused_change: Option<String>,
    /// The broker's last refusal, as long as the broker is not asked again.
    pub(crate) recent_refusal: Option<Outcome>,
}

impl TopologyResource {
    /// Returns a resource that was just created, and of which nothing is known but its spec.
    pub(crate) fn new<K: Kind>(resource: &K, namespace: String, name: String, age: Age) -> Self {
        Self {
            wanted: resource.object(&name).into(),
            key: ResourceKey { kind: K::kind(&()), namespace, name },
            deletion_policy: resource.deletion_policy(),
            deleting: false,
            age,
            generation: 1,
            was_declared: false,
            refused_change: None,
            recent_refusal: None,
        }
    }
}
