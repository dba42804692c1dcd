//! A Broker becomes pods, volumes, services and a Secret.
//!
//! `reconcile` is the way: gather, validate, build (one file a child object, pure), apply, `status`. `children` looks at
//! the objects that there are and writes them, `login` decides which password the pods run with, `volumes` has volumes
//! grow, `pods` knows why a pod is not ready. `connect` is how the rest of the operator reaches a broker.
mod build;
mod children;
pub(crate) mod connect;
mod login;
mod pods;
mod reconcile;
mod status;
mod volumes;

use crate::kubernetes::Context;
use futures::StreamExt;
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::{Controller, watcher};
use kube::{Api, Resource};
use leveret_api::Broker;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// What a reconciliation needs.
pub(crate) struct Work {
    pub(crate) context: Context,
    /// Image of brokers that name none.
    pub(crate) default_image: String,
    /// When a Broker's numbers were last written, by uid.
    numbers_written: Mutex<HashMap<String, Instant>>,
}

impl Work {
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
pub(crate) async fn run(context: Context, default_image: String, stop: CancellationToken) {
    let brokers: Vec<Api<DeserializeGuard<Broker>>> = context.scope.apis(&context.client);
    let sets: Vec<Api<StatefulSet>> = context.scope.apis(&context.client);
    let work = Arc::new(Work { context, default_image, numbers_written: Mutex::default() });
    let controllers = brokers.into_iter().zip(sets).map(|(brokers, sets)| {
        Controller::new(brokers, watcher::Config::default())
            .owns(sets, watcher::Config::default().labels(build::SELECTOR))
            .graceful_shutdown_on(stop.clone().cancelled_owned())
            .run(reconcile::reconcile, retry, work.clone())
            .for_each(|done| async move {
                if let Err(error) = done {
                    tracing::debug!("{error}");
                }
            })
    });
    futures::future::join_all(controllers).await;
}

fn retry(broker: Arc<DeserializeGuard<Broker>>, error: &kube::Error, _: Arc<Work>) -> Action {
    let meta = broker.meta();
    tracing::warn!(namespace = meta.namespace, broker = meta.name, "cannot be reconciled: {error}");
    Action::requeue(Duration::from_secs(2))
}

/// How often changed numbers are written into a Broker's status.
const NUMBERS_EVERY: Duration = Duration::from_secs(5);
