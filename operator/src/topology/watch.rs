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
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Namespace and name of a Broker.
pub(super) type BrokerKey = (String, String);

/// A resource as the cluster has it.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) object: Object,
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
    let changed = Arc::new(Notify::new());
    let stores = Arc::new(Stores {
        exchanges: watch(&context, &changed, &stop).await,
        queues: watch(&context, &changed, &stop).await,
        bindings: watch(&context, &changed, &stop).await,
        brokers: watch(&context, &changed, &stop).await,
    });
    let mut workers: BTreeMap<BrokerKey, Arc<Notify>> = BTreeMap::new();
    while !stop.is_cancelled() {
        for key in stores.broker_keys() {
            let wake = workers.entry(key.clone()).or_insert_with(|| {
                let wake = Arc::new(Notify::new());
                let worker = worker::Worker::new(context.clone(), stores.clone(), key, wake.clone());
                tokio::spawn(worker.run(stop.clone()));
                wake
            });
            wake.notify_one();
        }
        tokio::select! {
            () = changed.notified() => {}
            () = stop.cancelled() => {}
        }
        // What comes in one apply is looked at in one pass.
        tokio::time::sleep(GATHER).await;
    }
}

async fn watch<K>(context: &Context, changed: &Arc<Notify>, stop: &CancellationToken) -> Vec<Store<K>>
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
        let stream = reflector::reflector(writer, watcher(api, watcher::Config::default()).default_backoff());
        let (changed, stop) = (changed.clone(), stop.clone());
        tokio::spawn(async move {
            let mut stream = std::pin::pin!(stream);
            loop {
                let event = tokio::select! {
                    event = stream.next() => event,
                    () = stop.cancelled() => return,
                };
                match event {
                    Some(Ok(_)) => changed.notify_one(),
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

impl Stores {
    fn broker_keys(&self) -> BTreeSet<BrokerKey> {
        fn of<K: Watched>(stores: &[Store<K>]) -> impl Iterator<Item = BrokerKey> {
            stores.iter().flat_map(Store::state).map(|resource| broker_key(&*resource))
        }
        of(&self.exchanges).chain(of(&self.queues)).chain(of(&self.bindings)).collect()
    }

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
        object,
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
