//! The view of one watch: it enters events into the index and says which brokers need a pass because of them.
use super::cluster_resource::{BrokerKey, ClusterResource};
use super::index::Index;
use super::kinds::Kind;
use crate::kubernetes::guard::Guard;
use k8s_openapi::NamespaceResourceScope;
use kube::Resource;
use kube::api::ObjectMeta;
use kube::core::error_boundary::InvalidObject;
use kube::runtime::watcher;
use leveret_api::Broker;
use serde::de::DeserializeOwned;
use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::Arc;

/// The parts of a resource that a write of its status does not change.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    generation: Option<i64>,
    deleting: bool,
    finalizers: Vec<String>,
}

/// An object that was entered into the index.
#[derive(Clone)]
pub(super) struct IndexedObject {
    /// The broker that the object concerns.
    broker: BrokerKey,
    /// Another pass is made when one of these parts changes; `None`: whenever anything changes.
    stamp: Option<Stamp>,
}

/// A kind that is entered into the index.
pub(super) trait IndexedKind:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static
{
    /// Enters the object.
    fn enter(&self, index: &Index) -> IndexedObject;

    /// Removes the object.
    fn remove(index: &Index, broker: &BrokerKey, uid: &str);

    /// Enters an object that cannot be read, if its metadata says which broker it concerns.
    fn enter_unreadable(_: &Index, _: &InvalidObject) -> Option<IndexedObject> {
        None
    }
}

impl IndexedKind for Broker {
    fn enter(&self, index: &Index) -> IndexedObject {
        let broker = own_key(&self.metadata);
        index.put_broker(broker.clone(), Ok(Arc::new(self.clone())));
        // Any change of a Broker is a reason for a pass: its status says when it becomes ready.
        IndexedObject { broker, stamp: None }
    }

    fn remove(index: &Index, broker: &BrokerKey, _: &str) {
        index.remove_broker(broker);
    }

    fn enter_unreadable(index: &Index, invalid: &InvalidObject) -> Option<IndexedObject> {
        let broker = own_key(&invalid.metadata);
        index.put_broker(broker.clone(), Err(Arc::new(invalid.clone())));
        Some(IndexedObject { broker, stamp: None })
    }
}

impl<K: Kind> IndexedKind for K {
    fn enter(&self, index: &Index) -> IndexedObject {
        let (broker, meta) = (BrokerKey::referred_to_by(self), self.meta());
        index.put(broker.clone(), ClusterResource::of(self));
        // The operator itself writes the status, so a change of it is no reason for another pass.
        let stamp = Stamp {
            generation: meta.generation,
            deleting: meta.deletion_timestamp.is_some(),
            finalizers: meta.finalizers.clone().unwrap_or_default(),
        };
        IndexedObject { broker, stamp: Some(stamp) }
    }

    fn remove(index: &Index, broker: &BrokerKey, uid: &str) {
        index.remove(broker, uid);
    }
}

fn own_key(meta: &ObjectMeta) -> BrokerKey {
    BrokerKey::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

/// Returns the object of an event if it cannot be read, with the reason.
pub(super) fn unreadable_object<K>(event: &watcher::Event<Guard<K>>) -> Option<InvalidObject> {
    match event {
        watcher::Event::Apply(resource) | watcher::Event::InitApply(resource) => resource.0.as_ref().err().cloned(),
        _ => None,
    }
}

/// The objects that one watch has entered into the index, by uid.
pub(super) struct View {
    index: Arc<Index>,
    entries: HashMap<String, IndexedObject>,
    /// While the watch lists all objects anew: those that it has listed so far.
    listing: Option<HashMap<String, IndexedObject>>,
}

impl View {
    pub(super) fn new(index: Arc<Index>) -> Self {
        Self { index, entries: HashMap::new(), listing: None }
    }

    /// Enters an event into the index and returns the brokers that need a pass because of it.
    pub(super) fn enter<K: IndexedKind>(&mut self, event: watcher::Event<Guard<K>>) -> BTreeSet<BrokerKey> {
        let uid = |resource: &Guard<K>| resource.meta().uid.clone().unwrap_or_default();
        match event {
            watcher::Event::Apply(resource) => self.apply(&resource, uid(&resource)),
            watcher::Event::Delete(resource) => {
                let uid = uid(&resource);
                let before = self.entries.remove(&uid);
                let removed = before.into_iter().inspect(|entry| K::remove(&self.index, &entry.broker, &uid));
                removed.map(|entry| entry.broker).collect()
            }
            watcher::Event::Init => {
                self.listing = Some(HashMap::new());
                BTreeSet::new()
            }
            watcher::Event::InitApply(resource) => {
                let entered = self.enter_object(&resource).map(|entry| (uid(&resource), entry));
                self.listing.get_or_insert_default().extend(entered);
                BTreeSet::new()
            }
            // Objects that were not listed were deleted while the watch was interrupted.
            watcher::Event::InitDone => {
                let before = std::mem::replace(&mut self.entries, self.listing.take().unwrap_or_default());
                for (uid, IndexedObject { broker, .. }) in &before {
                    if self.entries.get(uid).is_none_or(|now| now.broker != *broker) && !self.has_broker(broker) {
                        K::remove(&self.index, broker, uid);
                    }
                }
                before.into_values().chain(self.entries.values().cloned()).map(|entry| entry.broker).collect()
            }
        }
    }

    fn apply<K: IndexedKind>(&mut self, resource: &Guard<K>, uid: String) -> BTreeSet<BrokerKey> {
        let before = self.entries.remove(&uid);
        let after = self.enter_object(resource);
        let mut concerned = BTreeSet::new();
        if let Some(IndexedObject { broker, .. }) = &before
            && after.as_ref().is_none_or(|after| after.broker != *broker)
        {
            K::remove(&self.index, broker, &uid);
            concerned.insert(broker.clone());
        }
        if let Some(IndexedObject { broker, stamp }) = &after {
            let is_changed = stamp.is_none() || before.is_none_or(|before| before.stamp != *stamp);
            concerned.extend(is_changed.then(|| broker.clone()));
        }
        self.entries.extend(after.map(|after| (uid, after)));
        concerned
    }

    /// Returns whether a Broker of that name is known under another uid: it has been entered in the place of the old one.
    fn has_broker(&self, key: &BrokerKey) -> bool {
        self.entries.values().any(|entry| entry.stamp.is_none() && entry.broker == *key)
    }

    fn enter_object<K: IndexedKind>(&self, resource: &Guard<K>) -> Option<IndexedObject> {
        match &resource.0 {
            Ok(resource) => Some(resource.enter(&self.index)),
            Err(invalid) => K::enter_unreadable(&self.index, invalid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use leveret_api::{FINALIZER, Queue};
    use serde_json::{Value, json};
    use watcher::Event;

    fn queue(uid: &str, broker: &str, generation: i64) -> Guard<Queue> {
        read(json!({
            "apiVersion": "leveret.dev/v1alpha1", "kind": "Queue",
            "metadata": {"name": uid, "namespace": "n", "uid": uid, "generation": generation},
            "spec": {"brokerRef": {"name": broker}},
        }))
    }

    fn read<K: Resource + DeserializeOwned>(value: Value) -> Guard<K> {
        serde_json::from_value(value).unwrap()
    }

    fn view() -> View {
        View::new(Arc::default())
    }

    fn names(keys: BTreeSet<BrokerKey>) -> Vec<String> {
        keys.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_change_of_a_resource_leads_to_a_pass_unless_it_is_its_status() {
        let mut view = view();
        let index = view.index.clone();
        let mut changes = |event| names(view.enter(event));
        let none: [&str; 0] = [];
        assert_eq!(changes(Event::Init), none);
        assert_eq!(changes(Event::InitApply(queue("a", "one", 1))), none);
        assert_eq!(changes(Event::InitApply(queue("b", "two", 1))), none);
        assert_eq!(changes(Event::InitDone), ["n/one", "n/two"]);
        assert_eq!(changes(Event::Apply(queue("a", "one", 1))), none, "its status was written");
        assert_eq!(changes(Event::Apply(queue("a", "one", 2))), ["n/one"]);
        let mut held = queue("b", "two", 1);
        held.meta_mut().finalizers = Some(vec![FINALIZER.to_owned()]);
        assert_eq!(changes(Event::Apply(held)), ["n/two"]);
        assert_eq!(changes(Event::Apply(queue("c", "three", 1))), ["n/three"]);
        assert_eq!(changes(Event::Delete(queue("c", "three", 1))), ["n/three"]);
        let referring = |name: &str| index.referring_to(&BrokerKey::new("n", name)).len();
        assert_eq!((referring("one"), referring("two"), referring("three")), (1, 1, 0));
        // The watch broke: c is new again, b went meanwhile.
        assert_eq!(changes(Event::Init), none);
        assert_eq!(changes(Event::InitApply(queue("a", "one", 2))), none);
        assert_eq!(changes(Event::InitApply(queue("c", "three", 1))), none);
        assert_eq!(referring("two"), 1, "it is there until the list is complete");
        assert_eq!(changes(Event::InitDone), ["n/one", "n/three", "n/two"]);
        assert_eq!((referring("one"), referring("two"), referring("three")), (1, 0, 1));
        assert!(!index.is_referred_to(&BrokerKey::new("n", "two")));
    }

    #[test]
    fn an_unreadable_object_keeps_no_other_from_being_looked_at() {
        let mut view = view();
        let (index, key) = (view.index.clone(), BrokerKey::new("n", "shop"));
        let broker = |spec: Value| -> Guard<Broker> {
            read(json!({
                "apiVersion": "leveret.dev/v1alpha1", "kind": "Broker",
                "metadata": {"name": "shop", "namespace": "n", "uid": "u"}, "spec": spec,
            }))
        };
        let bad = || broker(json!({"storage": {"size": null}}));
        assert!(unreadable_object(&Event::Apply(bad())).is_some());
        view.enter::<Broker>(Event::Init);
        view.enter(Event::InitApply(bad()));
        assert_eq!(names(view.enter::<Broker>(Event::InitDone)), ["n/shop"]);
        assert!(matches!(index.broker(&key), Some(Err(_))), "it is not gone: nothing of it may be let go");
        view.enter(Event::Apply(broker(json!({}))));
        assert!(matches!(index.broker(&key), Some(Ok(_))));
        view.enter(Event::Delete(bad()));
        assert!(index.broker(&key).is_none());

        // A queue that could be read and cannot any more is nobody's until it can again.
        let mut view = self::view();
        view.enter(Event::Apply(queue("a", "one", 1)));
        let mut bad = json!({"metadata": {"name": "a", "namespace": "n", "uid": "a"}, "spec": {"brokerRef": 7}});
        bad["apiVersion"] = json!("leveret.dev/v1alpha1");
        assert_eq!(names(view.enter::<Queue>(Event::Apply(read(bad)))), ["n/one"]);
        assert!(view.index.referring_to(&BrokerKey::new("n", "one")).is_empty());
    }
}
