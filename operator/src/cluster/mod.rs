//! A Broker becomes pods, volumes, services and a Secret.
//!
//! `reconcile` is the way: gather, validate, build (one file a child object, pure), apply, `status`. `children` looks at
//! the objects that there are and writes them, `login` decides which password the pods run with, `volumes` has volumes
//! grow, `pods` knows why a pod is not ready, `address` why a Service has no address. `connect` is how the rest of the
//! operator reaches a broker.
mod address;
mod build;
mod children;
pub(crate) mod connect;
mod login;
mod pods;
mod reconcile;
mod status;
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

/// What all Brokers have that do not say otherwise.
pub(crate) struct Defaults {
    pub(crate) image: String,
    /// Names of Secrets that images are pulled with.
    pub(crate) pull_secrets: Vec<String>,
}

/// What a reconciliation needs.
pub(crate) struct Work {
    pub(crate) context: Context,
    pub(crate) defaults: Defaults,
    /// When a Broker's numbers were last written, by uid.
    numbers_written: Mutex<HashMap<String, Instant>>,
    /// Since when a Broker whose pods are ready does not answer, by uid.
    silent_since: Mutex<HashMap<String, Instant>>,
}

impl Work {
    /// A Broker answers, or has no pods that could.
    pub(crate) fn is_not_silent(&self, broker: &Broker) {
        let uid = broker.metadata.uid.as_deref().unwrap_or_default();
        self.silent_since.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// When to look again at a Broker whose pods are ready, and which does not answer: at once while the way to it opens,
    /// and less and less often then.
    pub(crate) fn look_again(&self, broker: &Broker) -> Duration {
        let uid = broker.metadata.uid.clone().unwrap_or_default();
        let mut silent = self.silent_since.lock().unwrap_or_else(PoisonError::into_inner);
        pause(silent.entry(uid).or_insert_with(Instant::now).elapsed())
    }

    /// Whether a Broker's numbers may be written again; if so, it counts as done.
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

/// Looks after all Brokers until `stop` is cancelled.
pub(crate) async fn run(context: Context, defaults: Defaults, stop: CancellationToken) {
    let brokers: Vec<Api<Guard<Broker>>> = context.scope.apis(&context.client);
    let sets: Vec<Api<StatefulSet>> = context.scope.apis(&context.client);
    let (numbers_written, silent_since) = (Mutex::default(), Mutex::default());
    let work = Arc::new(Work { context, defaults, numbers_written, silent_since });
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
                    // It is told where it is tried again.
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

/// How long to wait before a Broker is asked again that is silent for so long.
fn pause(silent: Duration) -> Duration {
    if silent < OPENS_WITHIN { LOOK_AT_ONCE } else { (silent / 10).min(LOOK_AT_MOST) }
}

/// How long the way to pods that are ready takes to open.
const OPENS_WITHIN: Duration = Duration::from_secs(10);
const LOOK_AT_ONCE: Duration = Duration::from_millis(250);
const LOOK_AT_MOST: Duration = Duration::from_secs(10);
/// How often changed numbers are written into a Broker's status.
const NUMBERS_EVERY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_stays_silent_is_asked_less_and_less_often() {
        let seconds = Duration::from_secs;
        for (silent, expected) in [(0, LOOK_AT_ONCE), (9, LOOK_AT_ONCE), (30, seconds(3)), (3600, LOOK_AT_MOST)] {
            assert_eq!(pause(seconds(silent)), expected, "{silent}");
        }
    }
}
