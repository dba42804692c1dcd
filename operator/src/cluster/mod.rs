//! Runs each Broker as pods, volumes, Services and Secrets.
//!
//! `reconcile` goes through the five steps: `gather`, `validate`, `build` (one file per child), `apply`, `status`. The
//! last step derives the status from the results of `apply` and from the `health` of the pods. `children` reads and
//! writes the children, `login` decides which password the pods run with and `shared_secret` by which secret their nodes
//! know each other, `volumes` has volumes grow, `pods` finds out why a pod is not ready, and `address` why a Service has no
//! address. The rest of the operator reaches a broker through `connect`.
//!
//! What the nodes of a Broker are and say (`nodes`) is observed by `ask`. From that follow how many pods there are now
//! (`size`), which member leaves the cluster next (`departure`), and which pod is restarted next (`rollout`); `operate` takes
//! these steps. They are decided again and again from what is so at the moment, so each may fail or be cut short.
mod address;
mod apply;
mod ask;
mod build;
mod children;
pub(crate) mod connect;
mod departure;
mod gather;
mod health;
mod login;
mod nodes;
mod operate;
mod pods;
mod problem;
mod reconcile;
mod rollout;
mod shared_secret;
mod size;
mod status;
mod validate;
mod volumes;

use crate::kubernetes::Context;
use crate::kubernetes::guard::Guard;
use futures::StreamExt;
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::runtime::controller::Action;
use kube::runtime::{Controller, watcher};
use kube::{Api, Resource};
use leveret_api::Broker;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Defaults for all Brokers.
pub(crate) struct Defaults {
    pub(crate) image: String,
    /// The names of the Secrets that images are pulled with.
    pub(crate) pull_secrets: Vec<String>,
}

/// The state that all reconciliations share.
pub(crate) struct Work {
    pub(crate) context: Context,
    pub(crate) defaults: Defaults,
    /// Returns the URL of the management API of the broker in the pod with an IP address.
    management: Box<dyn Fn(&str) -> String + Send + Sync>,
    /// The times when the numbers of Brokers were last written, by uid.
    numbers_written: Mutex<HashMap<String, Instant>>,
    /// The Brokers that do not answer although pods are ready.
    silent: Waiting,
    /// The Brokers whose next step waits.
    stalled: Waiting,
}

/// The Brokers that wait for something: by uid, the time of the first attempt without success.
#[derive(Default)]
pub(crate) struct Waiting(Mutex<HashMap<String, Instant>>);

impl Waiting {
    /// Notes that a Broker does not wait any more.
    pub(crate) fn end(&self, broker: &Broker) {
        let uid = broker.metadata.uid.as_deref().unwrap_or_default();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// Returns how long to wait before the next attempt: a short time at first, because most things need only a moment,
    /// then a longer and longer one.
    pub(crate) fn next_try(&self, broker: &Broker) -> Duration {
        let uid = broker.metadata.uid.clone().unwrap_or_default();
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pause(waiting.entry(uid).or_insert_with(Instant::now).elapsed())
    }
}

impl Work {
    fn new(context: Context, defaults: Defaults) -> Self {
        let management = Box::new(ask::management);
        let (numbers_written, silent, stalled) = (Mutex::default(), Waiting::default(), Waiting::default());
        Self { context, defaults, management, numbers_written, silent, stalled }
    }

    /// Returns whether the numbers of a Broker may be written again; if so, they count as written now.
    pub(crate) fn numbers_are_due(&self, broker: &Broker) -> bool {
        let uid = broker.metadata.uid.clone().unwrap_or_default();
        let mut written = self.numbers_written.lock().unwrap_or_else(PoisonError::into_inner);
        let due = written.get(&uid).is_none_or(|then| then.elapsed() >= NUMBERS_EVERY);
        if due {
            written.insert(uid, Instant::now());
        }
        due
    }
}

/// Reconciles all Brokers until `stop` is cancelled.
pub(crate) async fn run(context: Context, defaults: Defaults, stop: CancellationToken) {
    let brokers: Vec<Api<Guard<Broker>>> = context.scope.apis(&context.client);
    let sets: Vec<Api<StatefulSet>> = context.scope.apis(&context.client);
    let work = Arc::new(Work::new(context, defaults));
    let controllers = brokers.into_iter().zip(sets).map(|(brokers, sets)| {
        let metrics = work.context.metrics.clone();
        Controller::new(brokers, watcher::Config::default())
            .owns(sets, watcher::Config::default().labels(build::SELECTOR))
            .graceful_shutdown_on(stop.clone().cancelled_owned())
            .run(reconcile::reconcile, retry, work.clone())
            .for_each(move |done| {
                match done {
                    Err(kube::runtime::controller::Error::QueueError(error)) => {
                        tracing::warn!("watching Brokers and their StatefulSets: {error}");
                        metrics.watch_failed("Broker");
                    }
                    // `retry` logs it.
                    Err(error) => tracing::debug!("{error}"),
                    Ok(_) => {}
                }
                std::future::ready(())
            })
    });
    futures::future::join_all(controllers).await;
}

fn retry(broker: Arc<Guard<Broker>>, error: &kube::Error, _: Arc<Work>) -> Action {
    let meta = broker.meta();
    tracing::warn!(namespace = meta.namespace, broker = meta.name, "cannot be reconciled: {error}");
    Action::requeue(Duration::from_secs(2))
}

/// Returns how long to wait before the next attempt after the time `silent` without success.
fn pause(silent: Duration) -> Duration {
    if silent < OPENS_WITHIN { TRY_MIN } else { (silent / 10).min(TRY_MAX) }
}

/// The longest time that a Service needs until it leads to pods that are ready.
const OPENS_WITHIN: Duration = Duration::from_secs(10);
/// The shortest and the longest time between two attempts.
const TRY_MIN: Duration = Duration::from_millis(250);
const TRY_MAX: Duration = Duration::from_secs(10);
/// How often changed numbers are written into a Broker's status.
const NUMBERS_EVERY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_stays_silent_is_asked_less_and_less_often() {
        let seconds = Duration::from_secs;
        for (silent, expected) in [(0, TRY_MIN), (9, TRY_MIN), (30, seconds(3)), (3600, TRY_MAX)] {
            assert_eq!(pause(seconds(silent)), expected, "{silent}");
        }
    }
}
