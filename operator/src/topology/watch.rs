//! Watches the kinds of the topology, and keeps a worker for each broker that something refers to.
use super::object::{Key, Kind, Object};
use super::outcome::CHANGED;
use super::worker;
use crate::kubernetes::{Context, conditions};
use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use leveret_api::{Binding, Broker, Exchange, FINALIZER, Queue, TopologyStatus};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Namespace and name of a Broker.
pub(super) type BrokerKey = (String, String);

/// A resource as the cluster has it.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) object: Arc<Object>,
    pub(super) reference: k8s_openapi::api::core::v1::ObjectReference,
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

/// What the cluster has of our kinds, kept up to date.
pub(super) struct Stores {
    exchanges: Vec<Store<Exchange>>,
    queues: Vec<Store<Queue>>,
    bindings: Vec<Store<Binding>>,
    brokers: Vec<Store<Broker>>,
}

/// Runs until `stop` is cancelled.
pub(crate) async fn run(context: Context, stop: CancellationToken) {
    let changed = Arc::new(Changed::default());
    let stores = Arc::new(Stores {
        exchanges: watch(&context, &changed, &stop, topology_change::<Exchange>).await,
        queues: watch(&context, &changed, &stop, topology_change::<Queue>).await,
        bindings: watch(&context, &changed, &stop, topology_change::<Binding>).await,
        brokers: watch(&context, &changed, &stop, broker_change).await,
    });
    let mut workers: BTreeMap<BrokerKey, Arc<Notify>> = BTreeMap::new();
    while !stop.is_cancelled() {
        for key in changed.take() {
            let wake = workers.entry(key.clone()).or_insert_with(|| {
                let wake = Arc::new(Notify::new());
                let worker = worker::Worker::new(context.clone(), stores.clone(), key, wake.clone());
                tokio::spawn(worker.run(stop.clone()));
                wake
            });
            wake.notify_one();
        }
        tokio::select! {
            () = changed.notify.notified() => {}
            () = stop.cancelled() => {}
        }
        // What comes in one apply is looked at in one pass.
        tokio::time::sleep(GATHER).await;
    }
}

/// The brokers that have to be looked at.
#[derive(Default)]
struct Changed {
    brokers: Mutex<BTreeSet<BrokerKey>>,
    notify: Notify,
}

impl Changed {
    fn add(&self, broker: BrokerKey) {
        self.brokers.lock().unwrap_or_else(PoisonError::into_inner).insert(broker);
        self.notify.notify_one();
    }

    fn take(&self) -> BTreeSet<BrokerKey> {
        std::mem::take(&mut self.brokers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Which broker a change concerns, and what of a resource has to change for that: none for anything.
type ChangeOf<K> = fn(&K) -> (BrokerKey, Option<Stamp>);

/// Generation, whether it is being deleted, finalizers: what a status does not touch.
type Stamp = (Option<i64>, bool, Vec<String>);

/// The status is our own: that it was written is no reason to look again.
fn topology_change<K: Watched>(resource: &K) -> (BrokerKey, Option<Stamp>) {
    let meta = resource.meta();
    let stamp = (meta.generation, meta.deletion_timestamp.is_some(), meta.finalizers.clone().unwrap_or_default());
    (broker_key(resource), Some(stamp))
}

/// All of a Broker counts: it becomes ready in its status.
fn broker_change(broker: &Broker) -> (BrokerKey, Option<Stamp>) {
    let key = (broker.metadata.namespace.clone().unwrap_or_default(), broker.metadata.name.clone().unwrap_or_default());
    (key, None)
}

async fn watch<K>(
    context: &Context,
    changed: &Arc<Changed>,
    stop: &CancellationToken,
    change_of: ChangeOf<K>,
) -> Vec<Store<K>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + DeserializeOwned
        + Clone
        + Debug
        + Send
        + Sync
        + 'static,
{
    let apis: Vec<Api<K>> = context.scope.apis(&context.client);
    let mut stores = Vec::new();
    for api in apis {
        let (store, writer) = reflector::store();
        // Who owns which field is half of an object, what was last applied a quarter; nothing here asks for it.
        let events = watcher(api, watcher::Config::default()).default_backoff();
        let events = events.modify(|resource| {
            resource.meta_mut().managed_fields = None;
            resource.meta_mut().annotations = None;
        });
        let stream = reflector::reflector(writer, events);
        let (changed, stop) = (changed.clone(), stop.clone());
        tokio::spawn(async move {
            let mut stream = std::pin::pin!(stream);
            let mut stamps = Stamps::default();
            loop {
                let event = tokio::select! {
                    event = stream.next() => event,
                    () = stop.cancelled() => return,
                };
                match event {
                    Some(Ok(event)) => stamps.changes(event, change_of).into_iter().for_each(|key| changed.add(key)),
                    Some(Err(error)) => tracing::warn!("watching {}: {error}", K::kind(&())),
                    None => return,
                }
            }
        });
        let _ = store.wait_until_ready().await;
        stores.push(store);
    }
    stores
}

/// What resources were like when a change of them was last told, by uid.
#[derive(Default)]
struct Stamps {
    known: HashMap<String, (BrokerKey, Option<Stamp>)>,
    /// While all are listed anew: those that have come so far.
    listing: Option<HashMap<String, (BrokerKey, Option<Stamp>)>>,
}

impl Stamps {
    /// The brokers that an event concerns.
    fn changes<K: Resource<DynamicType = ()>>(
        &mut self,
        event: watcher::Event<K>,
        change_of: ChangeOf<K>,
    ) -> BTreeSet<BrokerKey> {
        let uid = |resource: &K| resource.meta().uid.clone().unwrap_or_default();
        match event {
            watcher::Event::Apply(resource) => {
                let (key, stamp) = change_of(&resource);
                let before = self.known.insert(uid(&resource), (key.clone(), stamp.clone()));
                let is_news = stamp.is_none() || before.is_none_or(|(_, before)| before != stamp);
                is_news.then_some(key).into_iter().collect()
            }
            watcher::Event::Delete(resource) => {
                self.known.remove(&uid(&resource));
                [change_of(&resource).0].into()
            }
            watcher::Event::Init => {
                self.listing = Some(HashMap::new());
                BTreeSet::new()
            }
            watcher::Event::InitApply(resource) => {
                self.listing.get_or_insert_default().insert(uid(&resource), change_of(&resource));
                BTreeSet::new()
            }
            // The store has the new list from here on; what is not in it went unseen.
            watcher::Event::InitDone => {
                let before = std::mem::replace(&mut self.known, self.listing.take().unwrap_or_default());
                before.into_values().chain(self.known.values().cloned()).map(|(key, _)| key).collect()
            }
        }
    }
}

impl Stores {
    /// The Broker of that name.
    pub(super) fn broker(&self, key: &BrokerKey) -> Option<Arc<Broker>> {
        let (namespace, name) = key;
        let reference = reflector::ObjectRef::new(name).within(namespace);
        self.brokers.iter().find_map(|store| store.get(&reference))
    }

    /// All that refers to a broker.
    pub(super) fn referring_to(&self, key: &BrokerKey) -> Vec<Seen> {
        fn of<'a, K: Watched>(stores: &'a [Store<K>], key: &'a BrokerKey) -> impl Iterator<Item = Seen> + 'a {
            let all = stores.iter().flat_map(Store::state);
            all.filter(move |resource| broker_key(&**resource) == *key).map(|resource| seen(&*resource))
        }
        of(&self.exchanges, key).chain(of(&self.queues, key)).chain(of(&self.bindings, key)).collect()
    }
}

fn broker_key<K: Watched>(resource: &K) -> BrokerKey {
    let own = resource.meta().namespace.clone().unwrap_or_default();
    let broker = resource.broker();
    (broker.namespace.clone().unwrap_or(own), broker.name.clone())
}

fn seen<K: Watched>(resource: &K) -> Seen {
    let meta = resource.meta();
    let (namespace, name) = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
    let status = resource.status().cloned().unwrap_or_default();
    let generation = meta.generation.unwrap_or_default();
    let says = |reason| status.conditions.iter().any(|condition| condition.reason == reason);
    let was_declared = (conditions::is_true(&status.conditions, "Ready") || says(CHANGED))
        && status.observed_generation == Some(generation);
    let created = meta.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    let object = Object {
        wanted: resource.wanted(&name),
        key: Key { kind: K::KIND, namespace, name },
        deletion_policy: resource.deletion_policy(),
        deleting: meta.deletion_timestamp.is_some(),
        age: (created, meta.uid.clone().unwrap_or_default()),
        generation,
        was_declared,
        refused: None,
    };
    Seen {
        object: Arc::new(object),
        reference: resource.object_ref(&()),
        resource_version: meta.resource_version.clone(),
        finalizers: meta.finalizers.clone().unwrap_or_default(),
        status,
    }
}

impl Seen {
    pub(super) fn uid(&self) -> &str {
        &self.object.age.1
    }

    /// Whether the resource is held until we let it go.
    pub(super) fn is_held(&self) -> bool {
        self.finalizers.iter().any(|finalizer| finalizer == FINALIZER)
    }
}

/// How long events are gathered before they are looked at.
const GATHER: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;
    use watcher::Event;

    fn queue(uid: &str, broker: &str, generation: i64) -> Queue {
        let value = serde_json::json!({
            "apiVersion": "leveret.dev/v1alpha1", "kind": "Queue",
            "metadata": {"name": uid, "namespace": "n", "uid": uid, "generation": generation},
            "spec": {"brokerRef": {"name": broker}},
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_broker_is_looked_at_when_something_of_it_changed_but_not_its_status() {
        let mut stamps = Stamps::default();
        let mut changes = |event| {
            let keys = stamps.changes(event, topology_change::<Queue>);
            keys.into_iter().map(|(namespace, name)| format!("{namespace}/{name}")).collect::<Vec<_>>()
        };
        let none: [&str; 0] = [];
        assert_eq!(changes(Event::Init), none);
        assert_eq!(changes(Event::InitApply(queue("a", "one", 1))), none);
        assert_eq!(changes(Event::InitApply(queue("b", "two", 1))), none);
        assert_eq!(changes(Event::InitDone), ["n/one", "n/two"]);
        assert_eq!(changes(Event::Apply(queue("a", "one", 1))), none, "its status was written");
        assert_eq!(changes(Event::Apply(queue("a", "one", 2))), ["n/one"]);
        let mut held = queue("b", "two", 1);
        held.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
        assert_eq!(changes(Event::Apply(held)), ["n/two"]);
        assert_eq!(changes(Event::Apply(queue("c", "three", 1))), ["n/three"]);
        assert_eq!(changes(Event::Delete(queue("c", "three", 1))), ["n/three"]);
        // The watch broke: c is new again, b went meanwhile.
        assert_eq!(changes(Event::Init), none);
        assert_eq!(changes(Event::InitApply(queue("c", "three", 1))), none);
        assert_eq!(changes(Event::InitDone), ["n/one", "n/three", "n/two"]);
    }
}
