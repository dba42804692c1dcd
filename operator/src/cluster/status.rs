//! What is reported of a Broker.
use super::build;
use crate::kubernetes::conditions::condition;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use leveret_api::{Broker, BrokerStatus, DefaultUser, NamedSecret};
use leveret_client::Overview;

/// What there is of a Broker.
#[derive(Default)]
pub(super) struct Observed {
    pub(super) secret: Option<Secret>,
    pub(super) set: Option<StatefulSet>,
    pub(super) overview: Option<Overview>,
    /// The volume that is waited for to grow, and how far it is.
    pub(super) growing: Option<String>,
    /// Reason and message of what could not be done.
    pub(super) problem: Option<(&'static str, String)>,
}

/// Pods: wanted, ready, of the newest make.
fn pods(broker: &Broker, observed: &Observed) -> (i32, i32, i32) {
    let status = observed.set.as_ref().and_then(|set| set.status.as_ref());
    let ready = status.and_then(|status| status.ready_replicas).unwrap_or(0);
    let is_current = status.is_some_and(|status| {
        status.observed_generation >= observed.set.as_ref().and_then(|set| set.metadata.generation)
    });
    let updated = status.and_then(|status| status.updated_replicas).filter(|_| is_current).unwrap_or(0);
    (broker.spec.replicas, ready, updated)
}

/// Whether all pods answer.
pub(super) fn is_up(broker: &Broker, observed: &Observed) -> bool {
    let (wanted, ready, _) = pods(broker, observed);
    ready >= wanted
}

/// The status that follows from what there is.
pub(super) fn next(broker: &Broker, before: &BrokerStatus, observed: &Observed) -> BrokerStatus {
    let (wanted, ready, updated) = pods(broker, observed);
    let generation = broker.metadata.generation;
    let waiting = format!("{ready} of {wanted} pods are ready");
    let ready_state = if ready >= wanted {
        ("True", "AllPodsReady", "all pods answer".to_owned())
    } else {
        ("False", "PodsNotReady", format!("{waiting}; see the pods of StatefulSet {}", broker.name_any()))
    };
    let progressing = if broker.spec.paused {
        ("False", "Paused", "spec.paused is set: nothing is changed".to_owned())
    } else if ready < wanted || updated < wanted {
        ("True", "RollingOut", format!("{waiting}, {updated} of {wanted} are of the newest make"))
    } else if let Some(growing) = &observed.growing {
        ("True", "VolumesGrow", growing.clone())
    } else {
        ("False", "Done", "everything is as specified".to_owned())
    };
    let degraded = match &observed.problem {
        Some((reason, message)) => ("True", *reason, message.clone()),
        None => ("False", "AsSpecified", String::new()),
    };
    let states = [("Ready", ready_state), ("Progressing", progressing), ("Degraded", degraded)];
    let numbers = observed.overview.as_ref();
    let kept = |number: Option<i64>, old: Option<i64>| if ready >= wanted { number.or(old) } else { None };
    BrokerStatus {
        observed_generation: generation,
        conditions: states
            .into_iter()
            .map(|(type_, (status, reason, message))| {
                condition(&before.conditions, type_, (status, reason, &message), generation)
            })
            .collect(),
        ready_replicas: ready,
        queues: kept(numbers.map(|overview| overview.object_totals.queues), before.queues),
        messages: kept(numbers.map(|overview| overview.queue_totals.messages), before.messages),
        connections: kept(numbers.map(|overview| overview.object_totals.connections), before.connections),
        default_user: Some(DefaultUser { secret_name: build::secret::name(broker), service_name: broker.name_any() }),
        binding: Some(NamedSecret { name: build::secret::name(broker) }),
    }
}
