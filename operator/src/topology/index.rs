//! The resources and Brokers of the cluster, by the Broker that a resource refers to: a pass over one broker touches no
//! resource of another.
use super::cluster_resource::{BrokerKey, ClusterResource};
use kube::core::error_boundary::InvalidObject;
use leveret_api::Broker;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

/// A Broker, or the reason why it cannot be read.
pub(super) type ReadBroker = Result<Arc<Broker>, Arc<InvalidObject>>;

/// Everything that is watched. The watches write it, and the workers read it.
#[derive(Default)]
pub(super) struct Index(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    brokers: HashMap<BrokerKey, ReadBroker>,
    /// Namespaces whose Brokers cannot be listed.
    unlisted: HashSet<String>,
    /// The resources by their Broker, then by uid.
    resources: HashMap<BrokerKey, BTreeMap<String, ClusterResource>>,
}

impl Index {
    /// Returns the Broker of that name, or the reason why it cannot be read; `None` if it is not known.
    pub(super) fn broker(&self, key: &BrokerKey) -> Option<ReadBroker> {
        self.with(|entries| entries.brokers.get(key).cloned())
    }

    /// Returns all resources that refer to a Broker.
    pub(super) fn referring_to(&self, key: &BrokerKey) -> Vec<ClusterResource> {
        self.with(|entries| entries.resources.get(key).into_iter().flat_map(BTreeMap::values).cloned().collect())
    }

    /// Returns whether any resource refers to a Broker.
    pub(super) fn is_referred_to(&self, key: &BrokerKey) -> bool {
        self.with(|entries| entries.resources.contains_key(key))
    }

    /// Returns whether the Brokers of a namespace are not known because they cannot be listed.
    pub(super) fn is_unlisted(&self, namespace: &str) -> bool {
        self.with(|entries| entries.unlisted.contains(namespace))
    }

    pub(super) fn set_unlisted(&self, namespace: &str, is_unlisted: bool) {
        self.with(|entries| match is_unlisted {
            true => entries.unlisted.insert(namespace.to_owned()),
            false => entries.unlisted.remove(namespace),
        });
    }

    pub(super) fn put_broker(&self, key: BrokerKey, broker: ReadBroker) {
        self.with(|entries| entries.brokers.insert(key, broker));
    }

    pub(super) fn remove_broker(&self, key: &BrokerKey) {
        self.with(|entries| entries.brokers.remove(key));
    }

    pub(super) fn put(&self, key: BrokerKey, resource: ClusterResource) {
        let uid = resource.uid().to_owned();
        self.with(|entries| entries.resources.entry(key).or_default().insert(uid, resource));
    }

    pub(super) fn remove(&self, key: &BrokerKey, uid: &str) {
        self.with(|entries| {
            let Some(of_broker) = entries.resources.get_mut(key) else { return };
            of_broker.remove(uid);
            if of_broker.is_empty() {
                entries.resources.remove(key);
            }
        });
    }

    fn with<T>(&self, with: impl FnOnce(&mut Entries) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
