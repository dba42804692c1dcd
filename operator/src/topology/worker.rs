//! One broker's worker: a pass whenever something changed, and every two seconds to see what changed on the broker.
use super::outcome::{Done, Outcome};
use super::reconcile;
use super::watch::{BrokerKey, Seen, Stores};
use crate::cluster::connect;
use crate::kubernetes::{Context, apply, conditions};
use futures::StreamExt;
use leveret_api::{Binding, Broker, Exchange, FINALIZER, Queue, TopologyStatus};
use leveret_client::{Client, Error};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub(super) struct Worker {
    context: Context,
    stores: Arc<Stores>,
    broker: BrokerKey,
    wake: Arc<Notify>,
    /// How to reach the broker, and which one it is: a Broker made anew has another password.
    client: Option<(String, Client)>,
    /// When numbers were last written into a status, by uid.
    written: HashMap<String, Instant>,
}

impl Worker {
    pub(super) fn new(context: Context, stores: Arc<Stores>, broker: BrokerKey, wake: Arc<Notify>) -> Self {
        Self { context, stores, broker, wake, client: None, written: HashMap::new() }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = stop.cancelled() => return,
            }
            let started = Instant::now();
            let seen = self.stores.referring_to(&self.broker);
            if seen.is_empty() {
                continue;
            }
            let failed = self.pass(seen).await;
            self.context.metrics.reconciled("topology", started.elapsed(), failed);
        }
    }

    /// Whether something failed.
    async fn pass(&mut self, seen: Vec<Seen>) -> bool {
        let broker = self.stores.broker(&self.broker);
        let broker = broker.filter(|broker| broker.metadata.deletion_timestamp.is_none());
        let (seen, refused) = allowed(seen, &self.broker, broker.as_deref());
        let mut reports = refused;
        match self.connect(broker.as_deref()).await {
            Err(waiting) => reports.extend(seen.into_iter().map(|seen| {
                let let_go = seen.object.deleting && broker.is_none();
                let gone = || Outcome::LetGo { message: "its Broker is gone".to_owned() };
                let outcome = if let_go { gone() } else { waiting.clone() };
                (seen, outcome)
            })),
            Ok(client) => {
                let held = self.hold(seen).await;
                let objects = held.iter().map(|seen| seen.object.clone()).collect();
                match reconcile::pass(&client, objects).await {
                    Ok(outcomes) => reports.extend(held.into_iter().zip(outcomes)),
                    Err(error) => {
                        if matches!(error, Error::Unauthorized(_)) {
                            self.client = None;
                        }
                        let waiting = Outcome::Waiting { reason: "BrokerUnavailable", message: error.to_string() };
                        reports.extend(held.into_iter().map(|seen| (seen, waiting.clone())));
                    }
                }
            }
        }
        self.report(reports).await
    }

    async fn connect(&mut self, broker: Option<&Broker>) -> Result<Client, Outcome> {
        let (namespace, name) = &self.broker;
        let waiting = |reason, message| Outcome::Waiting { reason, message };
        let Some(broker) = broker else {
            return Err(waiting("BrokerNotFound", format!("there is no Broker {name} in namespace {namespace}")));
        };
        let ready = broker.status.as_ref().is_some_and(|status| conditions::is_true(&status.conditions, "Ready"));
        if !ready {
            return Err(waiting("BrokerNotReady", format!("Broker {namespace}/{name} is not ready")));
        }
        let uid = broker.metadata.uid.clone().unwrap_or_default();
        if let Some((known, client)) = &self.client
            && *known == uid
        {
            return Ok(client.clone());
        }
        let client = connect::client(&self.context.client, broker).await;
        let client = client.map_err(|error| waiting("BrokerUnavailable", format!("{error:#}")))?;
        self.client = Some((uid, client.clone()));
        Ok(client)
    }

    /// Puts our finalizer on what has none, before anything is declared for it; what cannot be held is left out.
    async fn hold(&self, seen: Vec<Seen>) -> Vec<Seen> {
        let held = seen.into_iter().map(|mut seen| async move {
            if seen.is_held() {
                return Some(seen);
            }
            if seen.object.deleting {
                return None;
            }
            let mut finalizers = seen.finalizers.clone();
            finalizers.push(FINALIZER.to_owned());
            match self.set_finalizers(&seen, &finalizers).await {
                Ok(()) => {
                    seen.finalizers = finalizers;
                    Some(seen)
                }
                Err(error) => {
                    tracing::debug!("{} cannot be held: {error}", seen.object.key);
                    None
                }
            }
        });
        futures::stream::iter(held).buffered(WRITES_MAX).filter_map(|held| async { held }).collect().await
    }

    async fn report(&mut self, reports: Vec<(Seen, Outcome)>) -> bool {
        let now = Instant::now();
        let mut writes = Vec::new();
        let mut failed = false;
        for (seen, outcome) in reports {
            failed |= !matches!(outcome, Outcome::Ready { .. } | Outcome::LetGo { .. });
            let recent = self.written.get(&seen.object.age.1).is_some_and(|then| now - *then < NUMBERS_EVERY);
            let status = next_status(&seen, &outcome);
            let let_go = matches!(outcome, Outcome::LetGo { .. }) && seen.object.deleting;
            let changed = differs(&seen.status, &status, recent);
            if let_go || changed || matches!(outcome, Outcome::Ready { done: Done::Restored, .. }) {
                if let_go {
                    self.written.remove(&seen.object.age.1);
                } else {
                    self.written.insert(seen.object.age.1.clone(), now);
                }
                writes.push((seen, outcome, status, let_go));
            }
        }
        let this = &*self;
        futures::stream::iter(writes.into_iter().map(|write| this.write(write)))
            .buffer_unordered(WRITES_MAX)
            .collect::<Vec<()>>()
            .await;
        failed
    }

    async fn write(&self, (seen, outcome, status, let_go): (Seen, Outcome, TopologyStatus, bool)) {
        let key = &seen.object.key;
        let result = if let_go {
            let left: Vec<_> = seen.finalizers.iter().filter(|name| *name != FINALIZER).cloned().collect();
            self.set_finalizers(&seen, &left).await
        } else {
            self.set_status(&seen, &status).await
        };
        match result {
            Ok(()) => {}
            // It went meanwhile, or changed: there will be an event for that.
            Err(kube::Error::Api(refusal)) if matches!(refusal.code, 404 | 409) => return,
            Err(error) => {
                tracing::warn!("{key} cannot be written: {error}");
                return;
            }
        }
        let what = seen.object.wanted.describe();
        let event = |warning, reason, note| self.context.event(&seen.reference, warning, reason, note);
        match outcome {
            Outcome::Ready { done: Done::Restored, .. } => {
                event(true, "Restored", format!("{what} was missing on the broker, and has been declared again")).await;
            }
            Outcome::Ready { .. } if !seen.object.was_ready => {
                event(false, "Declared", format!("{what} is on the broker")).await
            }
            Outcome::Refused { reason, message } if condition_changed(&seen, reason) => {
                event(true, reason, message).await
            }
            _ => {}
        }
    }

    async fn set_finalizers(&self, seen: &Seen, finalizers: &[String]) -> kube::Result<()> {
        let (client, key) = (&self.context.client, &seen.object.key);
        let (place, version) = ((&*key.namespace, &*key.name), seen.resource_version.as_deref());
        match key.kind {
            "Exchange" => apply::finalizers::<Exchange>(client, place, version, finalizers).await,
            "Queue" => apply::finalizers::<Queue>(client, place, version, finalizers).await,
            _ => apply::finalizers::<Binding>(client, place, version, finalizers).await,
        }
    }

    async fn set_status(&self, seen: &Seen, status: &TopologyStatus) -> kube::Result<()> {
        let (client, key) = (&self.context.client, &seen.object.key);
        let place = (&*key.namespace, &*key.name);
        match key.kind {
            "Exchange" => apply::status::<Exchange>(client, place, status).await,
            "Queue" => apply::status::<Queue>(client, place, status).await,
            _ => apply::status::<Binding>(client, place, status).await,
        }
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

fn next_status(seen: &Seen, outcome: &Outcome) -> TopologyStatus {
    let generation = Some(seen.object.generation);
    let condition = conditions::condition(&seen.status.conditions, "Ready", outcome.condition(), generation);
    let numbers = match outcome {
        Outcome::Ready { numbers, .. } => *numbers,
        _ => None,
    };
    TopologyStatus {
        observed_generation: generation,
        conditions: vec![condition],
        messages_ready: numbers.map(|(ready, ..)| ready),
        messages_unacked: numbers.map(|(_, unacked, _)| unacked),
        consumers: numbers.map(|(.., consumers)| consumers),
    }
}

/// Whether a status is worth writing: numbers alone are not, if they were written a moment ago.
fn differs(before: &TopologyStatus, after: &TopologyStatus, recent: bool) -> bool {
    let numbers = |status: &TopologyStatus| (status.messages_ready, status.messages_unacked, status.consumers);
    before.observed_generation != after.observed_generation
        || before.conditions != after.conditions
        || numbers(before) != numbers(after) && !recent
}

fn condition_changed(seen: &Seen, reason: &str) -> bool {
    seen.status.conditions.iter().all(|condition| condition.reason != reason)
}

/// How often a broker is looked at, for what was changed there.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often changed numbers are written into a status.
const NUMBERS_EVERY: Duration = Duration::from_secs(5);
/// Writes to the API server at a time.
const WRITES_MAX: usize = 32;
