//! One broker's worker: a pass whenever something changed, and every two seconds to see what changed on the broker; less
//! often where a pass takes long, so that a broker with many objects is not asked for its lists all the time.
use super::index::{BrokerKey, BrokerSeen, Index, Seen};
use super::kinds::Wanted;
use super::memory::{Budget, Memory, News};
use super::outcome::{BROKER_UNAVAILABLE, CHANGED, Done, INTERRUPTED, NOT_THERE, Outcome, REFUSED};
use super::{deletion, reconcile};
use crate::cluster::connect;
use crate::kubernetes::{Context, apply, conditions, unreadable};
use crate::pulse::Beat;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use leveret_api::{Binding, Broker, Exchange, FINALIZER, Queue, TopologyStatus};
use leveret_client::Client;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub(super) struct Worker {
    context: Context,
    index: Arc<Index>,
    broker: BrokerKey,
    wake: Arc<Notify>,
    connect: Connect,
    /// How to reach the broker, and which one it is: a Broker made anew has another password.
    client: Option<(String, Client)>,
    memory: Memory,
    /// For numbers alone.
    budget: Budget,
    /// Since when the broker cannot be asked.
    away_since: Option<Instant>,
    /// The Broker that the pass under way is about.
    about: About,
    /// Of the pass under way.
    beat: Option<Beat>,
}

/// Logs in at the broker of a Broker.
type Connect = Box<dyn Fn(kube::Client, Broker) -> BoxFuture<'static, anyhow::Result<Client>> + Send + Sync>;

/// Uid of a Broker and whether it is ready: what is reported of its resources holds as long as this is the same.
type About = Option<(String, bool)>;

/// A write that a pass leads to.
struct Write {
    seen: Seen,
    outcome: Outcome,
    change: Change,
}

enum Change {
    /// There is news for its status.
    Status(TopologyStatus),
    /// Our finalizer is taken from it.
    LetGo,
    /// Its status is as it was; there may be an event to tell.
    Nothing,
}

impl Worker {
    pub(super) fn new(context: Context, index: Arc<Index>, broker: BrokerKey, wake: Arc<Notify>) -> Self {
        let connect: Connect = Box::new(|kubernetes, broker| {
            async move { connect::client(&kubernetes, &broker).await.map(|(client, _)| client) }.boxed()
        });
        Self {
            context,
            index,
            broker,
            wake,
            connect,
            client: None,
            memory: Memory::default(),
            budget: Budget::new(Instant::now()),
            away_since: None,
            about: None,
            beat: None,
        }
    }

    /// Runs until `stop` is cancelled; a pass that is under way then has a moment to end.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut took = Duration::ZERO;
        loop {
            let (at_least, at_most) = pause(took);
            tokio::select! {
                () = async {
                    tokio::time::sleep(at_least).await;
                    self.wake.notified().await;
                } => {}
                () = tokio::time::sleep(at_most) => {}
                () = stop.cancelled() => return,
            }
            let started = Instant::now();
            let seen = self.index.referring_to(&self.broker);
            if seen.is_empty() {
                continue;
            }
            let metrics = self.context.metrics.clone();
            let mut pass = std::pin::pin!(self.pass(seen));
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

    /// Whether something failed.
    async fn pass(&mut self, seen: Vec<Seen>) -> bool {
        let (namespace, name) = &self.broker;
        self.beat = Some(self.context.pulse.begin(format!("topology of Broker {namespace}/{name}")));
        let failed = self.look(seen).await;
        self.beat = None;
        failed
    }

    async fn look(&mut self, seen: Vec<Seen>) -> bool {
        let seen = self.memory.recall(seen, Instant::now());
        self.about = self.about();
        let broker = match self.index.broker(&self.broker) {
            Some(Err(invalid)) => {
                let message = unreadable::message("Broker", &invalid.error);
                let outcome = Outcome::waiting("BrokerUnreadable", message);
                return self.report(seen.into_iter().map(|seen| (seen, outcome.clone())).collect()).await;
            }
            broker => broker.and_then(BrokerSeen::ok),
        };
        let broker = broker.filter(|broker| broker.metadata.deletion_timestamp.is_none());
        let (seen, refused) = allowed(seen, &self.broker, broker.as_deref());
        let mut reports = refused;
        // Where Brokers cannot be listed, one that is not known is not gone.
        let is_gone = broker.is_none() && !self.index.is_blind(&self.broker.0);
        let mut to_ask = Vec::new();
        for seen in seen {
            match deletion::without_broker(&seen.object, is_gone) {
                Some(outcome) => reports.push((seen, outcome)),
                None => to_ask.push(seen),
            }
        }
        let asked = self.ask(broker.as_deref(), to_ask).await;
        let is_away = asked.iter().any(|(_, outcome)| says_away(outcome));
        reports.extend(self.patient(asked, is_away));
        self.report(reports).await || is_away
    }

    fn about(&self) -> About {
        let broker = self.index.broker(&self.broker)?.ok();
        let uid = broker.as_ref().and_then(|broker| broker.metadata.uid.clone()).unwrap_or_default();
        Some((uid, broker.is_some_and(|broker| is_ready(&broker))))
    }

    /// Leaves out that the broker is away as long as that is a moment: a restart, another password. A resource that has not
    /// been told anything yet is told at once.
    fn patient(&mut self, mut reports: Vec<(Seen, Outcome)>, is_away: bool) -> Vec<(Seen, Outcome)> {
        if !is_away {
            self.away_since = None;
            return reports;
        }
        let since = *self.away_since.get_or_insert_with(Instant::now);
        if since.elapsed() < AWAY_MAX {
            let is_interrupted = |outcome: &Outcome| matches!(outcome, Outcome::Waiting { reason: INTERRUPTED, .. });
            reports.retain(|(seen, outcome)| !says_away(outcome) || !seen.is_told() && !is_interrupted(outcome));
        }
        reports
    }

    /// What the broker makes of them.
    async fn ask(&mut self, broker: Option<&Broker>, seen: Vec<Seen>) -> Vec<(Seen, Outcome)> {
        let all = |seen: Vec<Seen>, outcome: Outcome| seen.into_iter().map(|seen| (seen, outcome.clone())).collect();
        if seen.is_empty() {
            return Vec::new();
        }
        let client = match self.connect(broker).await {
            Ok(client) => client,
            Err(waiting) => return all(seen, waiting),
        };
        let (held, mut reports) = self.hold(seen).await;
        let objects: Vec<_> = held.iter().map(|seen| seen.object.clone()).collect();
        let paused = broker.is_some_and(|broker| broker.spec.paused);
        let mut answer = unless_away(reconcile::pass(&client, objects.clone(), paused).await);
        if answer.is_err() {
            // Its connections may lead nowhere, its password may be another by now: once more, with a new login.
            self.client = None;
            answer = match self.connect(broker).await {
                Ok(client) => unless_away(reconcile::pass(&client, objects, paused).await),
                Err(waiting) => Err(waiting),
            };
        }
        match answer {
            Ok(outcomes) => reports.extend(held.into_iter().zip(outcomes)),
            Err(waiting) => {
                self.client = None;
                reports.extend(all(held, waiting));
            }
        }
        reports
    }

    async fn connect(&mut self, broker: Option<&Broker>) -> Result<Client, Outcome> {
        let (namespace, name) = &self.broker;
        let Some(broker) = broker else {
            if self.index.is_blind(namespace) {
                let message = format!("the operator cannot list the Brokers of namespace {namespace}: see its log");
                return Err(Outcome::waiting(BROKER_UNAVAILABLE, message));
            }
            let message = format!("there is no Broker {name} in namespace {namespace}");
            return Err(Outcome::waiting("BrokerNotFound", message));
        };
        if !is_ready(broker) {
            return Err(Outcome::waiting(BROKER_NOT_READY, format!("Broker {namespace}/{name} is not ready")));
        }
        let uid = broker.metadata.uid.clone().unwrap_or_default();
        if let Some((known, client)) = &self.client
            && *known == uid
        {
            return Ok(client.clone());
        }
        let client = (self.connect)(self.context.client.clone(), broker.clone()).await;
        let client = client.map_err(|error| Outcome::waiting(BROKER_UNAVAILABLE, format!("{error:#}")))?;
        self.client = Some((uid, client.clone()));
        Ok(client)
    }

    /// Puts our finalizer on what has none, before anything is declared for it. What cannot be held is left out, with what
    /// the API server says.
    async fn hold(&mut self, seen: Vec<Seen>) -> (Vec<Seen>, Vec<(Seen, Outcome)>) {
        let this = &*self;
        let tried =
            seen.into_iter().filter(|seen| seen.is_held() || !seen.object.deleting).map(|mut seen| async move {
                if seen.is_held() {
                    return (seen, Ok(None));
                }
                seen.finalizers.push(FINALIZER.to_owned());
                let written = this.set_finalizers(&seen, &seen.finalizers).await;
                (seen, written.map(Some))
            });
        let tried: Vec<_> = futures::stream::iter(tried).buffered(WRITES_MAX).collect().await;
        let (mut held, mut refused) = (Vec::new(), Vec::new());
        for (seen, written) in tried {
            match written {
                Ok(version) => {
                    if let Some(version) = version {
                        self.memory.held(&seen, version.as_deref());
                    }
                    held.push(seen);
                }
                Err(error) => {
                    self.log(&seen, &error);
                    refused.extend(finalizer_refused(error).map(|outcome| (seen, outcome)));
                }
            }
        }
        (held, refused)
    }

    async fn report(&mut self, reports: Vec<(Seen, Outcome)>) -> bool {
        let now = Instant::now();
        let (mut writes, mut numbers) = (Vec::new(), Vec::new());
        let mut failed = false;
        for (seen, outcome) in reports {
            failed |= matches!(outcome, Outcome::Refused { .. });
            if matches!(outcome, Outcome::LetGo { .. }) && seen.object.deleting {
                if seen.is_held() {
                    writes.push(Write { seen, outcome, change: Change::LetGo });
                }
                continue;
            }
            self.memory.became(&seen, &outcome, now);
            match self.memory.news(&seen, &outcome, now) {
                News::Condition(status) => writes.push(Write { seen, outcome, change: Change::Status(status) }),
                News::Numbers(status) => numbers.push(Write { seen, outcome, change: Change::Status(status) }),
                News::None if note(&seen, &outcome).is_some() => {
                    writes.push(Write { seen, outcome, change: Change::Nothing });
                }
                News::None => {}
            }
        }
        // Numbers take turns: those that were written longest ago come first.
        numbers.sort_by_key(|write| self.memory.written_at(&write.seen));
        numbers.truncate(self.budget.take(numbers.len(), now));
        writes.extend(numbers);
        let this = &*self;
        let done: Vec<_> = futures::stream::iter(writes.into_iter().map(|write| this.write(write)))
            .buffer_unordered(WRITES_MAX)
            .collect()
            .await;
        for (seen, status, version) in done.into_iter().flatten() {
            self.memory.wrote(&seen, status, version.as_deref(), now);
        }
        failed
    }

    /// What was written, and the version that it made.
    async fn write(&self, Write { seen, outcome, change }: Write) -> Option<(Seen, TopologyStatus, Option<String>)> {
        // What has changed meanwhile is looked at anew, and at once.
        if !matches!(change, Change::LetGo) && self.about() != self.about {
            return None;
        }
        let result = match &change {
            Change::Nothing => Ok(None),
            Change::Status(status) => self.set_status(&seen, status).await,
            Change::LetGo => {
                let left: Vec<_> = seen.finalizers.iter().filter(|name| *name != FINALIZER).cloned().collect();
                self.set_finalizers(&seen, &left).await
            }
        };
        self.beat.iter().for_each(Beat::goes_on);
        match result {
            Ok(version) => {
                self.event(&seen, &outcome).await;
                let Change::Status(status) = change else { return None };
                Some((seen, status, version))
            }
            Err(error) => {
                self.log(&seen, &error);
                None
            }
        }
    }

    async fn event(&self, seen: &Seen, outcome: &Outcome) {
        if let Some((warning, reason, note)) = note(seen, outcome) {
            self.context.event(&seen.reference, warning, reason, note).await;
        }
    }

    fn log(&self, seen: &Seen, error: &kube::Error) {
        match error {
            // It went meanwhile, or changed: there will be an event for that.
            kube::Error::Api(refusal) if matches!(refusal.code, 404 | 409) => {}
            error => tracing::warn!("{} cannot be written: {error}", seen.object.key),
        }
    }

    async fn set_finalizers(&self, seen: &Seen, finalizers: &[String]) -> kube::Result<Option<String>> {
        let (client, key) = (&self.context.client, &seen.object.key);
        let (place, version) = ((&*key.namespace, &*key.name), seen.resource_version.as_deref());
        match &seen.object.wanted {
            Wanted::Exchange(_) => apply::finalizers::<Exchange>(client, place, version, finalizers).await,
            Wanted::Queue(_) => apply::finalizers::<Queue>(client, place, version, finalizers).await,
            Wanted::Binding(_) => apply::finalizers::<Binding>(client, place, version, finalizers).await,
        }
    }

    async fn set_status(&self, seen: &Seen, status: &TopologyStatus) -> kube::Result<Option<String>> {
        let (client, key) = (&self.context.client, &seen.object.key);
        let place = (&*key.namespace, &*key.name);
        match &seen.object.wanted {
            Wanted::Exchange(_) => apply::status::<Exchange>(client, place, status).await,
            Wanted::Queue(_) => apply::status::<Queue>(client, place, status).await,
            Wanted::Binding(_) => apply::status::<Binding>(client, place, status).await,
        }
    }
}

fn is_ready(broker: &Broker) -> bool {
    broker.status.as_ref().is_some_and(|status| conditions::is_true(&status.conditions, "Ready"))
}

fn unless_away(answer: Result<Vec<Outcome>, leveret_client::Error>) -> Result<Vec<Outcome>, Outcome> {
    answer.map_err(|error| Outcome::waiting(BROKER_UNAVAILABLE, error.to_string()))
}

/// Whether all that is told is that the broker could not be asked.
fn says_away(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Waiting { reason: BROKER_UNAVAILABLE | BROKER_NOT_READY | INTERRUPTED, .. })
}

/// What there is to tell of a finalizer that was not written; nothing if the resource changed or went, or if the API server
/// does not answer as it should.
fn finalizer_refused(error: kube::Error) -> Option<Outcome> {
    match error {
        kube::Error::Api(refusal) if !matches!(refusal.code, 401 | 404 | 409 | 429 | 503 | 504) => {
            let message = format!("the finalizer {FINALIZER} cannot be set: the API server says: {}", refusal.message);
            // It is asked again with the next pass.
            Some(Outcome::waiting(REFUSED, message))
        }
        _ => None,
    }
}

/// Splits off what may not refer to this broker, with what it is told.
fn allowed(seen: Vec<Seen>, broker: &BrokerKey, spec: Option<&Broker>) -> (Vec<Seen>, Vec<(Seen, Outcome)>) {
    let lists = |namespace: &str| {
        spec.is_some_and(|broker| {
            broker.spec.topology.allowed_namespaces.iter().any(|allowed| allowed == "*" || allowed == namespace)
        })
    };
    let (mut may, mut refused) = (Vec::new(), Vec::new());
    for seen in seen {
        let namespace = &seen.object.key.namespace;
        if *namespace == broker.0 || spec.is_none() || lists(namespace) {
            may.push(seen);
            continue;
        }
        let message = format!(
            "Broker {}/{} does not allow namespace {namespace}: add it to its spec.topology.allowedNamespaces",
            broker.0, broker.1
        );
        let outcome = if seen.object.deleting {
            Outcome::LetGo { message }
        } else {
            Outcome::Refused { reason: "NotAllowed", message }
        };
        refused.push((seen, outcome));
    }
    (may, refused)
}

/// How long to wait for the next pass, after one that took so long: at least, though something changed, so that what comes
/// meanwhile is looked at together; at most, though nothing did.
fn pause(took: Duration) -> (Duration, Duration) {
    (took.min(LOOK_EVERY), (took * SHARE).max(LOOK_EVERY))
}

/// What is worth an event: whether it is a warning, a word for programs, a sentence for people.
fn note(seen: &Seen, outcome: &Outcome) -> Option<(bool, &'static str, String)> {
    let what = || seen.object.wanted.describe();
    let is_new = |reason: &str| seen.status.conditions.iter().all(|condition| condition.reason != reason);
    match outcome {
        Outcome::Ready { done: Done::Restored, .. } => {
            Some((true, "Restored", format!("{} was missing on the broker, and has been declared again", what())))
        }
        Outcome::Ready { done: Done::Replaced(named), .. } => {
            Some((true, "Replaced", format!("{} was changed on the broker: {named}. It has been put back", what())))
        }
        Outcome::Ready { .. } if !seen.object.was_declared => {
            Some((false, "Declared", format!("{} is on the broker", what())))
        }
        Outcome::Refused { reason, message }
        | Outcome::Waiting {
            reason: reason @ (CHANGED | NOT_THERE | REFUSED | "NotEmpty" | "DeletionRefused"),
            message,
        } if is_new(reason) => Some((true, reason, message.clone())),
        _ => None,
    }
}

/// The Broker is not ready.
const BROKER_NOT_READY: &str = "BrokerNotReady";
/// How long a broker may be away before its resources are told so.
const AWAY_MAX: Duration = Duration::from_secs(15);
/// How often a broker is looked at, for what was changed there.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Passes for which nothing is known to have changed take one part in so many of the time.
const SHARE: u32 = 10;
/// How long a pass that is under way may take to end.
const END_MAX: Duration = Duration::from_secs(2);
/// Writes to the API server at a time.
const WRITES_MAX: usize = 32;

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
