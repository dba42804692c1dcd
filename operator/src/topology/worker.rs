//! The worker of one broker. It makes a pass whenever something changed, and one every two seconds to find changes on
//! the broker. If a pass takes long, these become rarer, so that a broker with many objects is not asked for its lists
//! all the time.
use super::cluster_resource::{BrokerKey, ClusterResource};
use super::index::{Index, ReadBroker};
use super::memory::{Budget, Memory, StatusChange};
use super::outcome::{BROKER_UNAVAILABLE, Outcome};
use super::report::{BROKER_NOT_READY, Report, finalizer_refused};
use super::{deletion, reconcile};
use crate::cluster::connect;
use crate::kubernetes::{Context, apply, conditions, unreadable};
use crate::watchdog::Job;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use leveret_api::{Broker, FINALIZER, TopologyStatus};
use leveret_client::Client;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub(super) struct Worker {
    context: Context,
    index: Arc<Index>,
    broker: BrokerKey,
    /// Notified when something changed that a pass has to look at.
    wake: Arc<Notify>,
    connect: Connect,
    /// The connection of the last pass.
    connection: Option<Connection>,
    memory: Memory,
    /// The budget of writes for numbers alone.
    budget: Budget,
    /// Since when the broker cannot be asked.
    unavailable_since: Option<Instant>,
    /// The state of the Broker at the beginning of the present pass.
    broker_state: Option<BrokerState>,
    /// The present pass, for the watchdog.
    job: Option<Job>,
}

/// Logs in at the broker of a Broker.
type Connect = Box<dyn Fn(kube::Client, Broker) -> BoxFuture<'static, anyhow::Result<Client>> + Send + Sync>;

/// A client of a broker.
struct Connection {
    /// The uid of the Broker that the client was made for: a Broker that was created again has another password.
    broker_uid: String,
    client: Client,
}

/// The state of a Broker that the outcomes of a pass depend on: they are reported only while it stays the same.
#[derive(PartialEq, Eq)]
struct BrokerState {
    uid: String,
    is_available: bool,
}

/// A write to a resource that follows from a report.
struct Write {
    report: Report,
    change: Change,
}

/// A change of a resource.
enum Change {
    /// The status is written.
    Status(TopologyStatus),
    /// Our finalizer is removed.
    LetGo,
    /// Nothing is written; there may be an event to record.
    None,
}

/// A status that was written.
struct WrittenStatus {
    resource: ClusterResource,
    status: TopologyStatus,
    /// The version that the write made.
    version: Option<String>,
}

/// The resources that a broker may be asked about, and reports for all others.
#[derive(Default)]
struct Selection {
    selected: Vec<ClusterResource>,
    reports: Vec<Report>,
}

impl Worker {
    pub(super) fn new(context: Context, index: Arc<Index>, broker: BrokerKey, wake: Arc<Notify>) -> Self {
        let connect: Connect = Box::new(|kubernetes, broker| {
            async move { connect::client(&kubernetes, &broker).await.map(|session| session.client) }.boxed()
        });
        Self {
            context,
            index,
            broker,
            wake,
            connect,
            connection: None,
            memory: Memory::default(),
            budget: Budget::new(Instant::now()),
            unavailable_since: None,
            broker_state: None,
            job: None,
        }
    }

    /// Runs until `stop` is cancelled; a pass that is under way then has [`END_MAX`] to end.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut took = Duration::ZERO;
        loop {
            let pause = Pause::after(took);
            tokio::select! {
                () = async {
                    tokio::time::sleep(pause.min).await;
                    self.wake.notified().await;
                } => {}
                () = tokio::time::sleep(pause.max) => {}
                () = stop.cancelled() => return,
            }
            let started = Instant::now();
            let resources = self.index.referring_to(&self.broker);
            if resources.is_empty() {
                continue;
            }
            let metrics = self.context.metrics.clone();
            let mut pass = std::pin::pin!(self.pass(resources));
            let failed = tokio::select! {
                failed = &mut pass => failed,
                () = stop.cancelled() => {
                    let _ = tokio::time::timeout(END_MAX, pass).await;
                    return;
                }
            };
            took = started.elapsed();
            metrics.reconciled("topology", took, failed);
        }
    }

    /// Makes a pass over the resources and returns whether something failed.
    async fn pass(&mut self, resources: Vec<ClusterResource>) -> bool {
        self.job = Some(self.context.watchdog.begin(format!("topology of Broker {}", self.broker)));
        let failed = self.reconcile(resources).await;
        self.job = None;
        failed
    }

    async fn reconcile(&mut self, resources: Vec<ClusterResource>) -> bool {
        let resources = self.memory.overlay(resources, Instant::now());
        self.broker_state = self.current_broker_state();
        let broker = match self.index.broker(&self.broker) {
            Some(Err(invalid)) => {
                let message = unreadable::message("Broker", &invalid.error);
                let outcome = Outcome::waiting("BrokerUnreadable", message);
                return self.report(Report::for_all(resources, &outcome)).await;
            }
            broker => broker.and_then(ReadBroker::ok),
        };
        let broker = broker.filter(|broker| broker.metadata.deletion_timestamp.is_none());
        let Selection { selected, mut reports } = self.select(resources, broker.as_deref());
        let answers = self.ask(broker.as_deref(), selected).await;
        let is_unavailable = answers.iter().any(Report::is_broker_unavailable);
        reports.extend(self.without_short_outages(answers, is_unavailable));
        self.report(reports).await || is_unavailable
    }

    /// Selects the resources that the broker has to be asked about: those that may refer to it and whose outcome does
    /// not follow from the Broker alone.
    fn select(&self, resources: Vec<ClusterResource>, broker: Option<&Broker>) -> Selection {
        // In a namespace whose Brokers cannot be listed, a Broker that is not known may still exist.
        let is_gone = broker.is_none() && !self.index.is_unlisted(&self.broker.namespace);
        let mut selection = Selection::default();
        for resource in resources {
            let refusal = not_allowed(&resource, &self.broker, broker);
            match refusal.or_else(|| deletion::without_broker(&resource.resource, is_gone)) {
                Some(outcome) => selection.reports.push(Report { resource, outcome }),
                None => selection.selected.push(resource),
            }
        }
        selection
    }

    fn current_broker_state(&self) -> Option<BrokerState> {
        let broker = self.index.broker(&self.broker)?.ok();
        let uid = broker.as_ref().and_then(|broker| broker.metadata.uid.clone()).unwrap_or_default();
        Some(BrokerState { uid, is_available: broker.is_some_and(|broker| is_available(&broker)) })
    }

    /// Removes the reports that the broker cannot be asked while that has lasted only a short time, as during a restart
    /// or a change of the password. A resource without a condition gets its report at once.
    fn without_short_outages(&mut self, mut reports: Vec<Report>, is_unavailable: bool) -> Vec<Report> {
        if !is_unavailable {
            self.unavailable_since = None;
            return reports;
        }
        let since = *self.unavailable_since.get_or_insert_with(Instant::now);
        if since.elapsed() < OUTAGE_MAX {
            reports.retain(|report| {
                let is_first = !report.resource.has_current_condition() && !report.is_interrupted();
                !report.is_broker_unavailable() || is_first
            });
        }
        reports
    }

    /// Asks the broker to have the objects of the resources as wanted.
    async fn ask(&mut self, broker: Option<&Broker>, resources: Vec<ClusterResource>) -> Vec<Report> {
        if resources.is_empty() {
            return Vec::new();
        }
        let client = match self.connect(broker).await {
            Ok(client) => client,
            Err(outcome) => return Report::for_all(resources, &outcome),
        };
        let Selection { selected, mut reports } = self.add_finalizers(resources).await;
        let wanted: Vec<_> = selected.iter().map(|resource| resource.resource.clone()).collect();
        let paused = broker.is_some_and(|broker| broker.spec.paused);
        let mut answer = reconcile::pass(&client, wanted.clone(), paused).await.map_err(unavailable);
        if answer.is_err() {
            // The connections may be broken, or the password may have changed: log in again and try once more.
            self.connection = None;
            answer = match self.connect(broker).await {
                Ok(client) => reconcile::pass(&client, wanted, paused).await.map_err(unavailable),
                Err(outcome) => Err(outcome),
            };
        }
        match answer {
            Ok(outcomes) => {
                let pairs = selected.into_iter().zip(outcomes);
                reports.extend(pairs.map(|(resource, outcome)| Report { resource, outcome }));
            }
            Err(outcome) => {
                self.connection = None;
                reports.extend(Report::for_all(selected, &outcome));
            }
        }
        reports
    }

    /// Returns a client of the broker, or the outcome for all resources if there is none.
    async fn connect(&mut self, broker: Option<&Broker>) -> Result<Client, Outcome> {
        let BrokerKey { namespace, name } = &self.broker;
        let Some(broker) = broker else {
            if self.index.is_unlisted(namespace) {
                let message = format!("the operator cannot list the Brokers of namespace {namespace}: see its log");
                return Err(Outcome::waiting(BROKER_UNAVAILABLE, message));
            }
            let message = format!("there is no Broker {name} in namespace {namespace}");
            return Err(Outcome::waiting("BrokerNotFound", message));
        };
        if !is_available(broker) {
            return Err(Outcome::waiting(BROKER_NOT_READY, format!("Broker {namespace}/{name} is not ready")));
        }
        let broker_uid = broker.metadata.uid.clone().unwrap_or_default();
        if let Some(connection) = self.connection.as_ref().filter(|connection| connection.broker_uid == broker_uid) {
            return Ok(connection.client.clone());
        }
        let client = (self.connect)(self.context.client.clone(), broker.clone()).await;
        let client = client.map_err(|error| Outcome::waiting(BROKER_UNAVAILABLE, format!("{error:#}")))?;
        self.connection = Some(Connection { broker_uid, client: client.clone() });
        Ok(client)
    }

    /// Puts our finalizer on the resources that have none, before anything is declared for them. Selects those that have
    /// it then; the others get a report with the words of the API server.
    async fn add_finalizers(&mut self, resources: Vec<ClusterResource>) -> Selection {
        let this = &*self;
        let to_hold = resources.into_iter().filter(|resource| resource.has_finalizer() || !resource.resource.deleting);
        let writes = to_hold.map(|mut resource| async move {
            if resource.has_finalizer() {
                return (resource, Ok(None));
            }
            resource.finalizers.push(FINALIZER.to_owned());
            let written = this.set_finalizers(&resource, &resource.finalizers).await;
            (resource, written.map(Some))
        });
        let written: Vec<_> = futures::stream::iter(writes).buffered(WRITES_MAX).collect().await;
        let mut selection = Selection::default();
        for (resource, written) in written {
            match written {
                Ok(version) => {
                    if let Some(version) = version {
                        self.memory.record_finalizer(&resource, version.as_deref());
                    }
                    selection.selected.push(resource);
                }
                Err(error) => {
                    log_failed_write(&resource, &error);
                    let refusal = finalizer_refused(error);
                    selection.reports.extend(refusal.map(|outcome| Report { resource, outcome }));
                }
            }
        }
        selection
    }

    /// Writes what is new in the reports to the resources. Returns whether one of them is a refusal.
    async fn report(&mut self, reports: Vec<Report>) -> bool {
        let now = Instant::now();
        let (mut writes, mut numbers) = (Vec::new(), Vec::new());
        let mut failed = false;
        for report in reports {
            let Report { resource, outcome } = &report;
            failed |= matches!(outcome, Outcome::Refused { .. });
            if matches!(outcome, Outcome::LetGo { .. }) && resource.resource.deleting {
                if resource.has_finalizer() {
                    writes.push(Write { report, change: Change::LetGo });
                }
                continue;
            }
            self.memory.record_outcome(resource, outcome, now);
            match self.memory.status_change(resource, outcome, now) {
                StatusChange::Condition(status) => writes.push(Write { report, change: Change::Status(status) }),
                StatusChange::Numbers(status) => numbers.push(Write { report, change: Change::Status(status) }),
                StatusChange::None if report.notice().is_some() => {
                    writes.push(Write { report, change: Change::None });
                }
                StatusChange::None => {}
            }
        }
        // Numbers take turns: the resources whose status was written longest ago come first.
        numbers.sort_by_key(|write| self.memory.written_at(&write.report.resource));
        numbers.truncate(self.budget.take(numbers.len(), now));
        writes.extend(numbers);
        let this = &*self;
        let written: Vec<_> = futures::stream::iter(writes.into_iter().map(|write| this.write(write)))
            .buffer_unordered(WRITES_MAX)
            .collect()
            .await;
        for WrittenStatus { resource, status, version } in written.into_iter().flatten() {
            self.memory.record_status(&resource, status, version.as_deref(), now);
        }
        failed
    }

    /// Makes a write and records its event. Returns the status if one was written.
    async fn write(&self, Write { report, change }: Write) -> Option<WrittenStatus> {
        // If the Broker has changed since the pass began, nothing is written: the next pass comes at once and reports
        // again.
        if !matches!(change, Change::LetGo) && self.current_broker_state() != self.broker_state {
            return None;
        }
        let resource = &report.resource;
        let result = match &change {
            Change::None => Ok(None),
            Change::Status(status) => apply::status(&self.context.client, &resource.place(), status).await,
            Change::LetGo => {
                let left: Vec<_> = resource.finalizers.iter().filter(|name| *name != FINALIZER).cloned().collect();
                self.set_finalizers(resource, &left).await
            }
        };
        self.job.iter().for_each(Job::progressed);
        match result {
            Ok(version) => {
                if let Some(notice) = report.notice() {
                    self.context.event(&resource.reference, notice).await;
                }
                let Change::Status(status) = change else { return None };
                Some(WrittenStatus { resource: report.resource, status, version })
            }
            Err(error) => {
                log_failed_write(resource, &error);
                None
            }
        }
    }

    async fn set_finalizers(&self, resource: &ClusterResource, finalizers: &[String]) -> kube::Result<Option<String>> {
        let version = resource.resource_version.as_deref();
        apply::finalizers(&self.context.client, &resource.place(), version, finalizers).await
    }
}

fn log_failed_write(resource: &ClusterResource, error: &kube::Error) {
    match error {
        // The resource was deleted or changed meanwhile: an event of the watch follows.
        kube::Error::Api(refusal) if matches!(refusal.code, 404 | 409) => {}
        error => tracing::warn!("{} cannot be written: {error}", resource.resource.key),
    }
}

/// Returns whether a majority of the Broker's members is up, so that any pod that is ready can be asked.
fn is_available(broker: &Broker) -> bool {
    broker.status.as_ref().is_some_and(|status| conditions::is_true(&status.conditions, "Available"))
}

fn unavailable(error: leveret_client::Error) -> Outcome {
    Outcome::waiting(BROKER_UNAVAILABLE, error.to_string())
}

/// Returns the outcome for a resource that may not refer to the Broker; `None` if it may.
fn not_allowed(resource: &ClusterResource, key: &BrokerKey, broker: Option<&Broker>) -> Option<Outcome> {
    let namespace = &resource.resource.key.namespace;
    if key.allows(namespace, broker) {
        return None;
    }
    let message =
        format!("Broker {key} does not allow namespace {namespace}: add it to its spec.topology.allowedNamespaces");
    Some(if resource.resource.deleting {
        Outcome::LetGo { message }
    } else {
        Outcome::Refused { reason: "NotAllowed", message }
    })
}

/// The time between two passes.
#[derive(Debug, PartialEq, Eq)]
struct Pause {
    /// The pause if something changed; changes that arrive meanwhile are handled in the same pass.
    min: Duration,
    /// The pause if nothing is known to have changed.
    max: Duration,
}

impl Pause {
    /// Returns the pause after a pass that took this long.
    fn after(took: Duration) -> Self {
        Self { min: took.min(PASS_EVERY), max: (took * PAUSE_FACTOR).max(PASS_EVERY) }
    }
}

/// How long a broker may be unavailable before the conditions of its resources say so.
const OUTAGE_MAX: Duration = Duration::from_secs(15);
/// How often a pass looks for changes that were made on the broker.
const PASS_EVERY: Duration = Duration::from_secs(2);
/// The ratio of pause to pass if nothing is known to have changed: at most a tenth of the time goes into such passes.
const PAUSE_FACTOR: u32 = 10;
/// How long a pass that is under way may take to end.
const END_MAX: Duration = Duration::from_secs(2);
/// Writes to the API server at a time.
const WRITES_MAX: usize = 32;

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
