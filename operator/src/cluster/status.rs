//! What is reported of a Broker.
use super::build;
use super::pods::Trouble;
use crate::kubernetes::conditions::{self, condition};
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::ResourceExt;
use leveret_api::{Broker, BrokerStatus, DefaultUser, NamedSecret};
use leveret_client::Overview;

/// What could not be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// One word for programs.
    pub(super) reason: String,
    /// For people.
    pub(super) message: String,
}

impl Problem {
    pub(super) fn new(reason: &str, message: String) -> Self {
        Self { reason: reason.to_owned(), message }
    }
}

/// What there is of a Broker.
#[derive(Default)]
pub(super) struct Observed {
    pub(super) set: Option<StatefulSet>,
    /// What the broker says of itself; why it says nothing, if it was asked.
    pub(super) overview: Option<Result<Overview, String>>,
    /// What the broker has run short of.
    pub(super) alarms: Vec<String>,
    /// The volume that is waited for to grow, and how far it is.
    pub(super) growing: Option<String>,
    /// What could not be done.
    pub(super) problem: Option<Problem>,
    /// What keeps a pod from being ready.
    pub(super) trouble: Option<Trouble>,
    /// What keeps the Service from having an address outside the cluster, if it is to have one.
    pub(super) address: Option<Trouble>,
    /// The image that the pods are to run; none while nothing is decided.
    pub(super) image: Option<String>,
    /// The operator's image that this Broker keeps.
    pub(super) default_image: Option<String>,
}

/// Pods: wanted, ready, of the newest make.
fn pods(broker: &Broker, observed: &Observed) -> (i32, i32, i32) {
    let wanted = broker.spec.replicas;
    let Some(set) = &observed.set else { return (wanted, 0, 0) };
    let Some((status, seen)) = set.status.as_ref().and_then(|status| Some((status, status.observed_generation?)))
    else {
        // It was made anew around its pods, and nobody has counted them yet: they are as they were.
        let before = broker.status.as_ref().map_or(0, |status| status.ready_replicas);
        return (wanted, before, before);
    };
    let is_current = Some(seen) >= set.metadata.generation;
    let updated = status.updated_replicas.filter(|_| is_current).unwrap_or(0);
    (wanted, status.ready_replicas.unwrap_or(0), updated)
}

/// Whether all pods are ready.
pub(super) fn is_up(broker: &Broker, observed: &Observed) -> bool {
    let (wanted, ready, _) = pods(broker, observed);
    ready >= wanted
}

/// Whether all pods are ready and of the newest make.
pub(super) fn is_rolled_out(broker: &Broker, observed: &Observed) -> bool {
    let (wanted, ready, updated) = pods(broker, observed);
    ready >= wanted && updated >= wanted
}

/// Status, reason, message of a condition.
type State = (&'static str, String, String);

fn state(status: &'static str, reason: &str, message: impl Into<String>) -> State {
    (status, reason.to_owned(), message.into())
}

fn ready(broker: &Broker, before: &BrokerStatus, observed: &Observed) -> State {
    let (wanted, ready, _) = pods(broker, observed);
    let was_ready = conditions::is_true(&before.conditions, "Ready");
    match &observed.overview {
        // One answer that is late says nothing against a broker that was ready and whose pods are.
        _ if ready >= wanted && was_ready => state("True", "AllPodsReady", "all pods answer"),
        Some(Ok(_)) if ready >= wanted => state("True", "AllPodsReady", "all pods answer"),
        Some(Err(why)) if ready >= wanted => state("False", "NotAnswering", why),
        None if ready >= wanted => state("False", "NotAnswering", "the management API was not asked yet"),
        _ => {
            let waiting = format!("{ready} of {wanted} pods are ready");
            match (&observed.problem, &observed.trouble) {
                (Some(problem), _) => state("False", &problem.reason, format!("{waiting}: {}", problem.message)),
                (_, Some(trouble)) => state("False", &trouble.reason, format!("{waiting}; {}", trouble.message)),
                _ => {
                    let message = format!("{waiting}; see the pods of StatefulSet {}", broker.name_any());
                    state("False", "PodsNotReady", message)
                }
            }
        }
    }
}

fn progressing(broker: &Broker, observed: &Observed) -> State {
    let (wanted, ready, updated) = pods(broker, observed);
    if broker.spec.paused {
        state("False", "Paused", "spec.paused is set: nothing is changed")
    } else if let Some(problem) = &observed.problem {
        state("False", &problem.reason, "not everything is as specified: see the condition Degraded")
    } else if ready < wanted || updated < wanted {
        let message = format!("{ready} of {wanted} pods are ready, {updated} of {wanted} are of the newest make");
        state("True", "RollingOut", message)
    } else if let Some(growing) = &observed.growing {
        state("True", "VolumesGrow", growing)
    } else if let Some(address) = &observed.address {
        state("True", &address.reason, &address.message)
    } else {
        state("False", "Done", "everything is as specified")
    }
}

fn degraded(broker: &Broker, before: &BrokerStatus, observed: &Observed) -> State {
    let trouble = observed.trouble.as_ref().filter(|trouble| trouble.is_wrong && !is_up(broker, observed));
    match (&observed.problem, trouble, &observed.overview) {
        (Some(problem), ..) => state("True", &problem.reason, &problem.message),
        (_, Some(trouble), _) => state("True", &trouble.reason, &trouble.message),
        _ if let Some(address) = observed.address.as_ref().filter(|address| address.is_wrong) => {
            state("True", &address.reason, &address.message)
        }
        // The way to a pod that has just become ready opens a moment later.
        (.., Some(Err(why))) if conditions::is_true(&before.conditions, "Ready") => state("True", "NotAnswering", why),
        _ if !observed.alarms.is_empty() => {
            let message =
                format!("the broker runs short of {}: publishers are held back", observed.alarms.join(" and "));
            state("True", "ResourceAlarm", message)
        }
        _ => state("False", "AsSpecified", ""),
    }
}

/// The status that follows from what there is.
pub(super) fn next(broker: &Broker, before: &BrokerStatus, observed: &Observed) -> BrokerStatus {
    let generation = broker.metadata.generation;
    let states = [
        ("Ready", ready(broker, before, observed)),
        ("Progressing", progressing(broker, observed)),
        ("Degraded", degraded(broker, before, observed)),
    ];
    let is_ready = states[0].1.0 == "True";
    let is_up = is_up(broker, observed);
    let numbers = observed.overview.as_ref().and_then(|overview| overview.as_ref().ok());
    let kept = |number: Option<i64>, old: Option<i64>| if is_up { number.or(old) } else { None };
    BrokerStatus {
        observed_generation: generation,
        conditions: states
            .into_iter()
            .map(|(type_, (status, reason, message))| {
                condition(&before.conditions, type_, (status, &reason, &message), generation)
            })
            .collect(),
        ready_replicas: pods(broker, observed).1,
        queues: kept(numbers.map(|overview| overview.object_totals.queues), before.queues),
        messages: kept(numbers.map(|overview| overview.queue_totals.messages), before.messages),
        connections: kept(numbers.map(|overview| overview.object_totals.connections), before.connections),
        alarms: observed.alarms.clone(),
        image: observed.image.clone().or_else(|| before.image.clone()),
        default_image: default_image(broker, before, observed, is_ready),
        default_user: Some(DefaultUser { secret_name: build::secret::name(broker), service_name: broker.name_any() }),
        binding: Some(NamedSecret { name: build::secret::name(broker) }),
    }
}

/// The operator's image that the Broker keeps: once it has been ready with it. One that has never run may be a mistake, and
/// is corrected with the operator.
fn default_image(broker: &Broker, before: &BrokerStatus, observed: &Observed, is_ready: bool) -> Option<String> {
    if observed.image.is_none() {
        return before.default_image.clone();
    }
    let is_proven = before.default_image.is_some() || is_ready && is_rolled_out(broker, observed);
    observed.default_image.clone().filter(|_| is_proven)
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
