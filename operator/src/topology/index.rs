//! What the cluster has of our kinds, by the broker that it refers to: a pass over one broker touches nothing of another.
use super::kinds::Wanted;
use super::object::{Key, Kind, Object};
use super::outcome::CHANGED;
use crate::kubernetes::conditions;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use kube::core::error_boundary::InvalidObject;
use leveret_api::{Binding, Broker, Exchange, FINALIZER, Queue, TopologyStatus};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

/// Namespace and name of a Broker.
pub(super) type BrokerKey = (String, String);

/// A resource as the cluster has it.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) object: Arc<Object>,
    pub(super) reference: Arc<ObjectReference>,
    pub(super) resource_version: Option<String>,
    pub(super) finalizers: Vec<String>,
    pub(super) status: TopologyStatus,
}

/// A kind as it is watched.
pub(super) trait Watched:
    Kind
    + Resource<Scope = NamespaceResourceScope, DynamicType = ()>
    + DeserializeOwned
    + Clone
    + Debug
    + Send
    + Sync
    + 'static
{
    fn status(&self) -> Option<&TopologyStatus>;
}

impl Watched for Exchange {
    fn status(&self) -> Option<&TopologyStatus> {
        self.status.as_ref()
    }
}

impl Watched for Queue {
    fn status(&self) -> Option<&TopologyStatus> {
        self.status.as_ref()
    }
}

impl Watched for Binding {
    fn status(&self) -> Option<&TopologyStatus> {
        self.status.as_ref()
    }
}

/// A Broker, or why it cannot be read.
pub(super) type BrokerSeen = Result<Arc<Broker>, Arc<InvalidObject>>;

/// All that is watched. Shared: written by the watches, read by the workers.
#[derive(Default)]
pub(super) struct Index(Mutex<Content>);

#[derive(Default)]
struct Content {
    brokers: HashMap<BrokerKey, BrokerSeen>,
    /// Namespaces whose Brokers cannot be listed.
    blind: HashSet<String>,
    /// By broker, then by uid.
    resources: HashMap<BrokerKey, BTreeMap<String, Seen>>,
}

impl Index {
    /// The Broker of that name.
    pub(super) fn broker(&self, key: &BrokerKey) -> Option<BrokerSeen> {
        self.with(|content| content.brokers.get(key).cloned())
    }

    /// All that refers to a broker.
    pub(super) fn referring_to(&self, key: &BrokerKey) -> Vec<Seen> {
        self.with(|content| content.resources.get(key).into_iter().flat_map(BTreeMap::values).cloned().collect())
    }

    /// Whether anything refers to a broker.
    pub(super) fn is_referred_to(&self, key: &BrokerKey) -> bool {
        self.with(|content| content.resources.contains_key(key))
    }

    /// Whether the Brokers of a namespace are not known, since they cannot be listed.
    pub(super) fn is_blind(&self, namespace: &str) -> bool {
        self.with(|content| content.blind.contains(namespace))
    }

    pub(super) fn set_blind(&self, namespace: &str, is_blind: bool) {
        self.with(|content| match is_blind {
            true => content.blind.insert(namespace.to_owned()),
            false => content.blind.remove(namespace),
        });
    }

    pub(super) fn put_broker(&self, key: BrokerKey, broker: BrokerSeen) {
        self.with(|content| content.brokers.insert(key, broker));
    }

    pub(super) fn remove_broker(&self, key: &BrokerKey) {
        self.with(|content| content.brokers.remove(key));
    }

    pub(super) fn put(&self, key: BrokerKey, seen: Seen) {
        let uid = seen.uid().to_owned();
        self.with(|content| content.resources.entry(key).or_default().insert(uid, seen));
    }

    pub(super) fn remove(&self, key: &BrokerKey, uid: &str) {
        self.with(|content| {
            let Some(of_broker) = content.resources.get_mut(key) else { return };
            of_broker.remove(uid);
            if of_broker.is_empty() {
                content.resources.remove(key);
            }
        });
    }

    fn with<T>(&self, with: impl FnOnce(&mut Content) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The broker that a resource refers to.
pub(super) fn broker_key<K: Watched>(resource: &K) -> BrokerKey {
    let own = resource.meta().namespace.clone().unwrap_or_default();
    let broker = resource.broker();
    (broker.namespace.clone().unwrap_or(own), broker.name.clone())
}

/// A resource, reduced to what is looked at.
pub(super) fn seen<K: Watched>(resource: &K) -> Seen {
    let meta = resource.meta();
    let (namespace, name) = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
    let status = resource.status().cloned().unwrap_or_default();
    let generation = meta.generation.unwrap_or_default();
    let says = |reason| status.conditions.iter().any(|condition| condition.reason == reason);
    let was_declared = (conditions::is_true(&status.conditions, "Ready") || says(CHANGED))
        && status.observed_generation == Some(generation);
    let created = meta.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    let (wanted, changed) = as_declared(resource.wanted(&name), &status);
    let object = Object {
        wanted,
        key: Key { kind: K::KIND, namespace, name },
        deletion_policy: resource.deletion_policy(),
        deleting: meta.deletion_timestamp.is_some(),
        age: (created, meta.uid.clone().unwrap_or_default()),
        generation,
        was_declared,
        changed,
        refused: None,
    };
    Seen {
        object: Arc::new(object),
        reference: Arc::new(resource.object_ref(&())),
        resource_version: meta.resource_version.clone(),
        finalizers: meta.finalizers.clone().unwrap_or_default(),
        status,
    }
}

/// A binding as it was declared: its arguments are a part of what it is, and one with others would be another, beside the one
/// that is there. The API server refuses most changes of them, but does not see that one has got another name.
fn as_declared(mut wanted: Wanted, status: &TopologyStatus) -> (Wanted, Option<String>) {
    let Wanted::Binding(binding) = &mut wanted else { return (wanted, None) };
    match &status.arguments {
        Some(declared) if *declared != binding.arguments => {
            let said = serde_json::Value::Object(declared.clone());
            binding.arguments = declared.clone();
            let advice = "Set them back, or delete the Binding and create it anew";
            (wanted, Some(format!("arguments cannot be changed: it was declared with {said}. {advice}")))
        }
        _ => (wanted, None),
    }
}

impl Seen {
    pub(super) fn uid(&self) -> &str {
        &self.object.age.1
    }

    /// Whether its condition speaks of it as it is now.
    pub(super) fn is_told(&self) -> bool {
        !self.status.conditions.is_empty() && self.status.observed_generation == Some(self.object.generation)
    }

    /// Whether the resource is held until we let it go.
    pub(super) fn is_held(&self) -> bool {
        self.finalizers.iter().any(|finalizer| finalizer == FINALIZER)
    }
}
