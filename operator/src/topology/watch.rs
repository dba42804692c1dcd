//! Watches the kinds of the topology, and keeps a worker for each broker that something refers to.
use super::index::{BrokerKey, Index, Watched, broker_key, seen};
use super::worker::Worker;
use crate::kubernetes::guard::Guard;
use crate::kubernetes::{Context, unreadable};
use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use leveret_api::{Binding, Broker, Exchange, Queue};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Runs until `stop` is cancelled, and its workers have ended.
pub(crate) async fn run(context: Context, stop: CancellationToken) {
    let (index, changed) = (Arc::new(Index::default()), Arc::new(Changed::default()));
    let (mut listed, mut tasks) = (Vec::new(), JoinSet::new());
    let watched =
        Watching { context: context.clone(), index: index.clone(), changed: changed.clone(), stop: stop.clone() };
    watched.start::<Broker>(&mut tasks, &mut listed);
    watched.start::<Exchange>(&mut tasks, &mut listed);
    watched.start::<Queue>(&mut tasks, &mut listed);
    watched.start::<Binding>(&mut tasks, &mut listed);
    // Nothing is decided on half of what there is: a Broker that was not listed yet is not gone.
    tokio::select! {
        _ = futures::future::join_all(listed) => {}
        () = failure(&mut tasks) => return,
        () = stop.cancelled() => return,
    }
    let mut workers: BTreeMap<BrokerKey, (Arc<Notify>, CancellationToken)> = BTreeMap::new();
    while !stop.is_cancelled() {
        for key in changed.take() {
            if !index.is_referred_to(&key) {
                if let Some((_, end)) = workers.remove(&key) {
                    end.cancel();
                }
                continue;
            }
            let (wake, _) = workers.entry(key.clone()).or_insert_with(|| {
                let (wake, end) = (Arc::new(Notify::new()), stop.child_token());
                let worker = Worker::new(context.clone(), index.clone(), key, wake.clone());
                let until = end.clone();
                tasks.spawn(async move {
                    worker.run(until).await;
                    Ended::InOrder
                });
                (wake, end)
            });
            wake.notify_one();
        }
        tokio::select! {
            () = changed.notify.notified() => {}
            () = stop.cancelled() => {}
            // Who works on half of what there is must not go on: the process ends, and starts anew.
            () = failure(&mut tasks) => return,
        }
        // What comes in one apply is looked at in one pass.
        tokio::time::sleep(GATHER).await;
    }
    while tasks.join_next().await.is_some() {}
}

/// How a task of the topology has ended.
#[derive(Debug)]
enum Ended {
    /// It was told to.
    InOrder,
    /// A watch that has nothing more to tell.
    Alone,
}

/// Waits for a task that ends though it was not told to.
async fn failure(tasks: &mut JoinSet<Ended>) {
    loop {
        match tasks.join_next().await {
            Some(Ok(Ended::InOrder)) => {}
            Some(ended) => return tracing::error!("a task of the topology has ended by itself: {ended:?}"),
            None => std::future::pending().await,
        }
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

/// Generation, whether it is being deleted, finalizers: what a status does not touch.
type Stamp = (Option<i64>, bool, Vec<String>);

/// A kind as it stands in the index.
trait Indexed:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static
{
    /// Enters it; the broker that it concerns, and what has to change of it for another look: none for anything.
    fn enter(&self, index: &Index) -> (BrokerKey, Option<Stamp>);
    /// Takes it out.
    fn leave(index: &Index, key: &BrokerKey, uid: &str);
    /// Enters one that cannot be read, if its place can be told.
    fn enter_unreadable(_: &Index, _: &kube::core::error_boundary::InvalidObject) -> Option<BrokerKey> {
        None
    }
}

impl Indexed for Broker {
    /// All of a Broker counts: it becomes ready in its status.
    fn enter(&self, index: &Index) -> (BrokerKey, Option<Stamp>) {
        let key = place(&self.metadata);
        index.put_broker(key.clone(), Ok(Arc::new(self.clone())));
        (key, None)
    }

    fn leave(index: &Index, key: &BrokerKey, _: &str) {
        index.remove_broker(key);
    }

    fn enter_unreadable(index: &Index, invalid: &kube::core::error_boundary::InvalidObject) -> Option<BrokerKey> {
        let key = place(&invalid.metadata);
        index.put_broker(key.clone(), Err(Arc::new(invalid.clone())));
        Some(key)
    }
}

impl<K: Watched> Indexed for K {
    /// The status is our own: that it was written is no reason to look again.
    fn enter(&self, index: &Index) -> (BrokerKey, Option<Stamp>) {
        let (key, meta) = (broker_key(self), self.meta());
        index.put(key.clone(), seen(self));
        let stamp = (meta.generation, meta.deletion_timestamp.is_some(), meta.finalizers.clone().unwrap_or_default());
        (key, Some(stamp))
    }

    fn leave(index: &Index, key: &BrokerKey, uid: &str) {
        index.remove(key, uid);
    }
}

fn place(meta: &kube::api::ObjectMeta) -> BrokerKey {
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

/// What the watches need.
#[derive(Clone)]
struct Watching {
    context: Context,
    index: Arc<Index>,
    changed: Arc<Changed>,
    stop: CancellationToken,
}

impl Watching {
    /// Starts to watch a kind; what is added to `listed` ends when all of it has been listed once.
    fn start<K: Indexed>(&self, tasks: &mut JoinSet<Ended>, listed: &mut Vec<oneshot::Receiver<()>>) {
        let apis: Vec<Api<Guard<K>>> = self.context.scope.apis(&self.context.client);
        for api in apis {
            let (tell, is_listed) = oneshot::channel();
            listed.push(is_listed);
            tasks.spawn(self.clone().watch(api, tell));
        }
    }

    async fn watch<K: Indexed>(self, api: Api<Guard<K>>, listed: oneshot::Sender<()>) -> Ended {
        let (kind, namespace) = (K::kind(&()), api.namespace().map(str::to_owned));
        let mut view = View { index: self.index.clone(), known: HashMap::new(), listing: None };
        // Who owns which field is half of an object, what was last applied a quarter; nothing here asks for it.
        let events = watcher(api, watcher::Config::default()).default_backoff().modify(|resource| {
            resource.meta_mut().managed_fields = None;
            resource.meta_mut().annotations = None;
        });
        let (mut events, mut listed, mut refusals) = (std::pin::pin!(events), Some(listed), 0);
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = self.stop.cancelled() => return Ended::InOrder,
            };
            match event {
                Some(Ok(event)) => {
                    let is_complete = matches!(event, watcher::Event::InitDone);
                    if let Some(invalid) = unread(&event) {
                        unreadable::report::<K>(&self.context, &invalid).await;
                    }
                    let concerned = view.changes(event);
                    if is_complete {
                        self.is_listed(&kind, namespace.as_deref(), true);
                        listed.take().map(|listed| listed.send(()));
                    }
                    concerned.into_iter().for_each(|key| self.changed.add(key));
                }
                Some(Err(error)) => {
                    tracing::warn!(namespace, "watching {kind}: {error}");
                    self.context.metrics.watch_failed(&kind);
                    refusals += 1;
                    // One namespace of several that is gone, or that refuses, is no reason to look after none.
                    if namespace.is_some() && refusals >= REFUSALS_MAX && listed.is_some() {
                        self.is_listed(&kind, namespace.as_deref(), false);
                        listed.take().map(|listed| listed.send(()));
                    }
                }
                None => return Ended::Alone,
            }
        }
    }

    /// Takes note whether the Brokers of a namespace are known.
    fn is_listed(&self, kind: &str, namespace: Option<&str>, is_listed: bool) {
        if let Some(namespace) = namespace
            && kind == Broker::kind(&())
        {
            self.index.set_blind(namespace, !is_listed);
        }
    }
}

/// What could not be read of an event.
fn unread<K>(event: &watcher::Event<Guard<K>>) -> Option<kube::core::error_boundary::InvalidObject> {
    match event {
        watcher::Event::Apply(resource) | watcher::Event::InitApply(resource) => resource.0.as_ref().err().cloned(),
        _ => None,
    }
}

/// Where a resource stands in the index, and what it was like when a change of it was last told.
type Known = (BrokerKey, Option<Stamp>);

/// What one watch has entered into the index, by uid.
struct View {
    index: Arc<Index>,
    known: HashMap<String, Known>,
    /// While all are listed anew: those that have come so far.
    listing: Option<HashMap<String, Known>>,
}

impl View {
    /// Enters an event into the index; the brokers that it concerns.
    fn changes<K: Indexed>(&mut self, event: watcher::Event<Guard<K>>) -> BTreeSet<BrokerKey> {
        let uid = |resource: &Guard<K>| resource.meta().uid.clone().unwrap_or_default();
        match event {
            watcher::Event::Apply(resource) => {
                let uid = uid(&resource);
                let before = self.known.remove(&uid);
                let after = self.enter(&resource);
                let mut concerned = BTreeSet::new();
                if let Some((key, _)) = &before
                    && after.as_ref().is_none_or(|(now, _)| now != key)
                {
                    K::leave(&self.index, key, &uid);
                    concerned.insert(key.clone());
                }
                if let Some((key, stamp)) = &after {
                    let is_news = stamp.is_none() || before.is_none_or(|(_, before)| before != *stamp);
                    concerned.extend(is_news.then(|| key.clone()));
                }
                self.known.extend(after.map(|after| (uid, after)));
                concerned
            }
            watcher::Event::Delete(resource) => {
                let uid = uid(&resource);
                let before = self.known.remove(&uid);
                before.into_iter().inspect(|(key, _)| K::leave(&self.index, key, &uid)).map(|(key, _)| key).collect()
            }
            watcher::Event::Init => {
                self.listing = Some(HashMap::new());
                BTreeSet::new()
            }
            watcher::Event::InitApply(resource) => {
                let entered = self.enter(&resource).map(|known| (uid(&resource), known));
                self.listing.get_or_insert_default().extend(entered);
                BTreeSet::new()
            }
            // What was not listed went unseen.
            watcher::Event::InitDone => {
                let before = std::mem::replace(&mut self.known, self.listing.take().unwrap_or_default());
                for (uid, (key, _)) in &before {
                    if self.known.get(uid).is_none_or(|(now, _)| now != key) && !self.is_taken(key) {
                        K::leave(&self.index, key, uid);
                    }
                }
                before.into_values().chain(self.known.values().cloned()).map(|(key, _)| key).collect()
            }
        }
    }

    /// Whether a Broker of that name is known, though one of another uid is gone: it has been entered in its place.
    fn is_taken(&self, key: &BrokerKey) -> bool {
        self.known.values().any(|(known, stamp)| stamp.is_none() && known == key)
    }

    fn enter<K: Indexed>(&self, resource: &Guard<K>) -> Option<Known> {
        match &resource.0 {
            Ok(resource) => Some(resource.enter(&self.index)),
            Err(invalid) => K::enter_unreadable(&self.index, invalid).map(|key| (key, None)),
        }
    }
}

/// After how many errors a namespace counts as listed, with nothing in it.
const REFUSALS_MAX: u32 = 3;
/// How long events are gathered before they are looked at.
const GATHER: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::fake::Fake;
    use leveret_api::FINALIZER;
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
        View { index: Arc::default(), known: HashMap::new(), listing: None }
    }

    fn names(keys: BTreeSet<BrokerKey>) -> Vec<String> {
        keys.into_iter().map(|(namespace, name)| format!("{namespace}/{name}")).collect()
    }

    #[test]
    fn a_broker_is_looked_at_when_something_of_it_changed_but_not_its_status() {
        let mut view = view();
        let index = view.index.clone();
        let mut changes = |event| names(view.changes(event));
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
        let referring = |name: &str| index.referring_to(&("n".to_owned(), name.to_owned())).len();
        assert_eq!((referring("one"), referring("two"), referring("three")), (1, 1, 0));
        // The watch broke: c is new again, b went meanwhile.
        assert_eq!(changes(Event::Init), none);
        assert_eq!(changes(Event::InitApply(queue("a", "one", 2))), none);
        assert_eq!(changes(Event::InitApply(queue("c", "three", 1))), none);
        assert_eq!(referring("two"), 1, "it is there until the list is complete");
        assert_eq!(changes(Event::InitDone), ["n/one", "n/three", "n/two"]);
        assert_eq!((referring("one"), referring("two"), referring("three")), (1, 0, 1));
        assert!(!index.is_referred_to(&("n".to_owned(), "two".to_owned())));
    }

    #[test]
    fn what_cannot_be_read_keeps_nothing_else_from_being_looked_at() {
        let mut view = view();
        let (index, key) = (view.index.clone(), ("n".to_owned(), "shop".to_owned()));
        let broker = |spec: Value| -> Guard<Broker> {
            read(json!({
                "apiVersion": "leveret.dev/v1alpha1", "kind": "Broker",
                "metadata": {"name": "shop", "namespace": "n", "uid": "u"}, "spec": spec,
            }))
        };
        let bad = || broker(json!({"storage": {"size": null}}));
        assert!(unread(&Event::Apply(bad())).is_some());
        view.changes::<Broker>(Event::Init);
        view.changes(Event::InitApply(bad()));
        assert_eq!(names(view.changes::<Broker>(Event::InitDone)), ["n/shop"]);
        assert!(matches!(index.broker(&key), Some(Err(_))), "it is not gone: nothing of it may be let go");
        view.changes(Event::Apply(broker(json!({}))));
        assert!(matches!(index.broker(&key), Some(Ok(_))));
        view.changes(Event::Delete(bad()));
        assert!(index.broker(&key).is_none());

        // A queue that could be read and cannot any more is nobody's until it can again.
        let mut view = self::view();
        view.changes(Event::Apply(queue("a", "one", 1)));
        let mut bad = json!({"metadata": {"name": "a", "namespace": "n", "uid": "a"}, "spec": {"brokerRef": 7}});
        bad["apiVersion"] = json!("leveret.dev/v1alpha1");
        assert_eq!(names(view.changes::<Queue>(Event::Apply(read(bad)))), ["n/one"]);
        assert!(view.index.referring_to(&("n".to_owned(), "one".to_owned())).is_empty());
    }

    #[tokio::test]
    async fn a_task_that_panics_is_a_failure_and_one_that_was_told_to_end_is_none() {
        let mut tasks = JoinSet::new();
        tasks.spawn(async { Ended::InOrder });
        let waits = tokio::time::timeout(Duration::from_millis(50), failure(&mut tasks)).await;
        assert!(waits.is_err() && tasks.is_empty());
        tasks.spawn(std::future::pending());
        tasks.spawn(async { panic!("a worker's mistake") });
        tokio::time::timeout(Duration::from_secs(10), failure(&mut tasks)).await.unwrap();
        tasks.spawn(async { Ended::Alone });
        tokio::time::timeout(Duration::from_secs(10), failure(&mut tasks)).await.unwrap();
    }

    #[tokio::test]
    async fn a_namespace_that_refuses_stops_no_other_and_lets_nothing_go() {
        let fake = Fake::default();
        let resources = "/apis/leveret.dev/v1alpha1/namespaces";
        for kind in ["brokers", "exchanges", "queues", "bindings"] {
            fake.refuse(&format!("GET {resources}/gone/{kind}"), 403, "Forbidden", "no such right");
        }
        for (name, broker) in
            [("waits", json!({"name": "shop", "namespace": "gone"})), ("told", json!({"name": "none"}))]
        {
            let queue = json!({
                "apiVersion": "leveret.dev/v1alpha1", "kind": "Queue",
                "metadata": {"name": name, "namespace": "here", "uid": name, "generation": 1}, "spec": {"brokerRef": broker},
            });
            fake.put(&format!("{resources}/here/queues/{name}"), queue);
        }
        let mut going = fake.get(&format!("{resources}/here/queues/waits")).unwrap();
        going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        going["metadata"]["finalizers"] = json!([FINALIZER]);
        fake.put(&format!("{resources}/here/queues/waits"), going);
        let namespaces = vec!["gone".to_owned(), "here".to_owned()];
        let context = Context::new(fake.client(), namespaces, "i", crate::metrics::Metrics::new().unwrap());
        let (stop, metrics) = (CancellationToken::new(), context.metrics.clone());
        let running = tokio::spawn(run(context, stop.clone()));
        let reason = |name: &str| {
            let queue = fake.get(&format!("{resources}/here/queues/{name}")).unwrap();
            queue["status"]["conditions"][0]["reason"].as_str().unwrap_or_default().to_owned()
        };
        let told = async {
            while reason("waits").is_empty() || reason("told").is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), told).await.unwrap();
        assert_eq!((&*reason("told"), &*reason("waits")), ("BrokerNotFound", "BrokerUnavailable"));
        let waits = fake.get(&format!("{resources}/here/queues/waits")).unwrap();
        assert_eq!(waits["metadata"]["finalizers"], json!([FINALIZER]), "it is not let go");
        assert!(metrics.text().contains("leveret_operator_watch_errors_total{kind=\"Broker\"}"));
        stop.cancel();
        running.await.unwrap();
    }
}
