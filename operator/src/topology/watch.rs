//! Watches Brokers and all kinds of the topology, and keeps one worker per broker that a resource refers to.
use super::cluster_resource::BrokerKey;
use super::index::Index;
use super::kinds::{Kind, KindVisitor, visit_kinds};
use super::view::{IndexedKind, View, unreadable_object};
use super::worker::Worker;
use crate::kubernetes::guard::Guard;
use crate::kubernetes::{Context, unreadable};
use futures::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use leveret_api::Broker;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Runs until `stop` is cancelled and the workers have ended.
pub(crate) async fn run(context: Context, stop: CancellationToken) {
    let (index, pending) = (Arc::new(Index::default()), Arc::new(PendingBrokers::default()));
    let watch = Watch { context: context.clone(), index: index.clone(), pending: pending.clone(), stop: stop.clone() };
    let mut watches = Watches { watch, tasks: JoinSet::new(), listed: Vec::new() };
    watches.start::<Broker>();
    visit_kinds(&mut watches);
    let Watches { mut tasks, listed, .. } = watches;
    // Nothing is decided before everything has been listed: a Broker that was not listed yet may exist.
    tokio::select! {
        _ = futures::future::join_all(listed) => {}
        () = failure(&mut tasks) => return,
        () = stop.cancelled() => return,
    }
    let mut workers: BTreeMap<BrokerKey, WorkerHandle> = BTreeMap::new();
    while !stop.is_cancelled() {
        for key in pending.take() {
            if !index.is_referred_to(&key) {
                if let Some(worker) = workers.remove(&key) {
                    worker.end.cancel();
                }
                continue;
            }
            let worker = workers.entry(key.clone()).or_insert_with(|| {
                let handle = WorkerHandle { wake: Arc::default(), end: stop.child_token() };
                let worker = Worker::new(context.clone(), index.clone(), key, handle.wake.clone());
                let end = handle.end.clone();
                tasks.spawn(async move {
                    worker.run(end).await;
                    TaskEnd::Stopped
                });
                handle
            });
            worker.wake.notify_one();
        }
        tokio::select! {
            () = pending.notify.notified() => {}
            () = stop.cancelled() => {}
            // Without one of its tasks the operator would work with half of the cluster's state: the process ends and is
            // started anew.
            () = failure(&mut tasks) => return,
        }
        // The resources of one `kubectl apply` are looked at in one pass.
        tokio::time::sleep(GATHER).await;
    }
    while tasks.join_next().await.is_some() {}
}

/// A running worker.
struct WorkerHandle {
    wake: Arc<Notify>,
    end: CancellationToken,
}

/// The end of a task of the topology.
#[derive(Debug)]
enum TaskEnd {
    /// The task was told to end.
    Stopped,
    /// The stream of a watch has ended by itself.
    StreamEnded,
}

/// Waits until a task ends without having been told to, and logs that.
async fn failure(tasks: &mut JoinSet<TaskEnd>) {
    loop {
        match tasks.join_next().await {
            Some(Ok(TaskEnd::Stopped)) => {}
            Some(end) => return tracing::error!("a task of the topology has ended by itself: {end:?}"),
            None => std::future::pending().await,
        }
    }
}

/// The brokers that wait for a pass.
#[derive(Default)]
struct PendingBrokers {
    brokers: Mutex<BTreeSet<BrokerKey>>,
    notify: Notify,
}

impl PendingBrokers {
    fn add(&self, broker: BrokerKey) {
        self.brokers.lock().unwrap_or_else(PoisonError::into_inner).insert(broker);
        self.notify.notify_one();
    }

    fn take(&self) -> BTreeSet<BrokerKey> {
        std::mem::take(&mut self.brokers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The watches that have been started.
struct Watches {
    watch: Watch,
    tasks: JoinSet<TaskEnd>,
    /// One entry per watch; it resolves once the watch has listed everything.
    listed: Vec<oneshot::Receiver<()>>,
}

impl Watches {
    /// Starts to watch the kind `K` in every namespace that the operator looks after.
    fn start<K: IndexedKind>(&mut self) {
        let apis: Vec<Api<Guard<K>>> = self.watch.context.scope.apis(&self.watch.context.client);
        for api in apis {
            let (sender, listed) = oneshot::channel();
            self.listed.push(listed);
            self.tasks.spawn(self.watch.clone().run(api, sender));
        }
    }
}

impl KindVisitor for Watches {
    fn visit<K: Kind>(&mut self) {
        self.start::<K>();
    }
}

/// A watch of one kind in one namespace, or in all.
#[derive(Clone)]
struct Watch {
    context: Context,
    index: Arc<Index>,
    pending: Arc<PendingBrokers>,
    stop: CancellationToken,
}

impl Watch {
    async fn run<K: IndexedKind>(self, api: Api<Guard<K>>, listed: oneshot::Sender<()>) -> TaskEnd {
        let (kind, namespace) = (K::kind(&()), api.namespace().map(str::to_owned));
        let mut view = View::new(self.index.clone());
        // Managed fields are half of an object and the last applied configuration a quarter; nothing here reads them.
        let events = watcher(api, watcher::Config::default()).default_backoff().modify(|resource| {
            resource.meta_mut().managed_fields = None;
            resource.meta_mut().annotations = None;
        });
        let (mut events, mut listed, mut errors) = (std::pin::pin!(events), Some(listed), 0);
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = self.stop.cancelled() => return TaskEnd::Stopped,
            };
            match event {
                Some(Ok(event)) => {
                    let is_complete = matches!(event, watcher::Event::InitDone);
                    if let Some(invalid) = unreadable_object(&event) {
                        unreadable::report::<K>(&self.context, &invalid).await;
                    }
                    let concerned = view.enter(event);
                    if is_complete {
                        self.set_listed(&kind, namespace.as_deref(), true);
                        listed.take().map(|listed| listed.send(()));
                    }
                    concerned.into_iter().for_each(|key| self.pending.add(key));
                }
                Some(Err(error)) => {
                    tracing::warn!(namespace, "watching {kind}: {error}");
                    self.context.metrics.watch_failed(&kind);
                    errors += 1;
                    // One namespace that does not exist or refuses does not stop the others.
                    if namespace.is_some() && errors >= ERRORS_MAX && listed.is_some() {
                        self.set_listed(&kind, namespace.as_deref(), false);
                        listed.take().map(|listed| listed.send(()));
                    }
                }
                None => return TaskEnd::StreamEnded,
            }
        }
    }

    /// Notes whether the Brokers of a namespace are known.
    fn set_listed(&self, kind: &str, namespace: Option<&str>, is_listed: bool) {
        if let Some(namespace) = namespace
            && kind == Broker::kind(&())
        {
            self.index.set_unlisted(namespace, !is_listed);
        }
    }
}

/// The number of errors after which a namespace counts as listed, with nothing in it.
const ERRORS_MAX: u32 = 3;
/// How long events are gathered before a pass looks at them.
const GATHER: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::fake::Fake;
    use leveret_api::FINALIZER;
    use serde_json::json;

    #[tokio::test]
    async fn a_task_that_panics_is_a_failure_and_one_that_was_stopped_is_not() {
        let mut tasks = JoinSet::new();
        tasks.spawn(async { TaskEnd::Stopped });
        let waits = tokio::time::timeout(Duration::from_millis(50), failure(&mut tasks)).await;
        assert!(waits.is_err() && tasks.is_empty());
        tasks.spawn(std::future::pending());
        tasks.spawn(async { panic!("a worker's mistake") });
        tokio::time::timeout(Duration::from_secs(10), failure(&mut tasks)).await.unwrap();
        tasks.spawn(async { TaskEnd::StreamEnded });
        tokio::time::timeout(Duration::from_secs(10), failure(&mut tasks)).await.unwrap();
    }

    #[tokio::test]
    async fn a_namespace_that_refuses_stops_no_other_and_releases_no_finalizer() {
        let fake = Fake::default();
        let resources = "/apis/leveret.dev/v1alpha1/namespaces";
        for kind in crate::crds::plural_names() {
            fake.refuse(&format!("GET {resources}/gone/{kind}"), 403, "Forbidden", "no such right");
        }
        for (name, broker) in
            [("waits", json!({"name": "shop", "namespace": "gone"})), ("lost", json!({"name": "none"}))]
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
        let have_conditions = async {
            while reason("waits").is_empty() || reason("lost").is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), have_conditions).await.unwrap();
        assert_eq!((&*reason("lost"), &*reason("waits")), ("BrokerNotFound", "BrokerUnavailable"));
        let waits = fake.get(&format!("{resources}/here/queues/waits")).unwrap();
        assert_eq!(waits["metadata"]["finalizers"], json!([FINALIZER]), "it is not let go");
        assert!(metrics.text().contains("leveret_operator_watch_errors_total{kind=\"Broker\"}"));
        stop.cancel();
        running.await.unwrap();
    }
}
