//! The fifth step: the status of a Broker, derived from what was applied and from the health of its pods. Pure.
use super::apply::AppliedChildren;
use super::build;
use super::health::Health;
use super::pods::PodCounts;
use super::validate::ImageChoice;
use crate::kubernetes::conditions::{self, State};
use kube::ResourceExt;
use leveret_api::{Broker, BrokerStatus, DefaultUser, NamedSecret};

/// Returns the status of a Broker that follows from a reconciliation. `before` is its present status.
pub(super) fn next(broker: &Broker, before: &BrokerStatus, applied: &AppliedChildren, health: &Health) -> BrokerStatus {
    let counted = PodCounts::of(broker, applied.set.as_ref());
    let pods = if health.is_up() { counted.all_ready() } else { counted };
    StatusInputs { broker, before, applied, health, pods }.status()
}

/// Everything that a status is derived from.
struct StatusInputs<'a> {
    broker: &'a Broker,
    before: &'a BrokerStatus,
    applied: &'a AppliedChildren,
    health: &'a Health,
    pods: PodCounts,
}

impl StatusInputs<'_> {
    fn status(&self) -> BrokerStatus {
        let Self { broker, before, applied, health, pods } = self;
        let generation = broker.metadata.generation;
        let ready = self.ready();
        let is_ready = ready.is_true();
        let states = [("Ready", ready), ("Progressing", self.progressing()), ("Degraded", self.degraded())];
        let conditions =
            states.map(|(type_, state)| conditions::condition(&before.conditions, type_, state, generation));
        let (overview, alarms) = match health {
            Health::PodsReady { overview, alarms } => (overview.as_ref().ok(), alarms.clone()),
            Health::PodsNotReady(_) => (None, Vec::new()),
        };
        // A broker that does not answer for a moment keeps its numbers.
        let number = |number: Option<i64>, before: Option<i64>| number.or(before).filter(|_| health.is_up());
        let secret = build::secret::name(broker);
        BrokerStatus {
            observed_generation: generation,
            conditions: conditions.into(),
            ready_replicas: pods.ready,
            queues: number(overview.map(|overview| overview.object_totals.queues), before.queues),
            messages: number(overview.map(|overview| overview.queue_totals.messages), before.messages),
            connections: number(overview.map(|overview| overview.object_totals.connections), before.connections),
            alarms,
            image: applied.image.as_ref().map(|image| image.name().to_owned()).or_else(|| before.image.clone()),
            default_image: self.default_image(is_ready),
            default_user: Some(DefaultUser { secret_name: secret.clone(), service_name: broker.name_any() }),
            binding: Some(NamedSecret { name: secret }),
        }
    }

    fn ready(&self) -> State<'_> {
        let PodCounts { wanted, ready, .. } = self.pods;
        let was_ready = conditions::is_true(&self.before.conditions, "Ready");
        match self.health {
            // One late answer is no reason to report a broker as not ready: it was ready before, and its pods are.
            Health::PodsReady { .. } if was_ready => State::new("True", "AllPodsReady", "all pods answer"),
            Health::PodsReady { overview: Ok(_), .. } => State::new("True", "AllPodsReady", "all pods answer"),
            Health::PodsReady { overview: Err(error), .. } => State::new("False", "NotAnswering", error),
            Health::PodsNotReady(trouble) => {
                let waiting = format!("{ready} of {wanted} pods are ready");
                match (&self.applied.problem, trouble) {
                    (Some(problem), _) => {
                        State::new("False", &problem.reason, format!("{waiting}: {}", problem.message))
                    }
                    (_, Some(trouble)) => {
                        State::new("False", &trouble.reason, format!("{waiting}; {}", trouble.message))
                    }
                    _ => {
                        let message = format!("{waiting}; see the pods of StatefulSet {}", self.broker.name_any());
                        State::new("False", "PodsNotReady", message)
                    }
                }
            }
        }
    }

    fn progressing(&self) -> State<'_> {
        let PodCounts { wanted, ready, updated } = self.pods;
        if self.broker.spec.paused {
            State::new("False", "Paused", "spec.paused is set: nothing is changed")
        } else if let Some(problem) = &self.applied.problem {
            State::new("False", &problem.reason, "not everything is as specified: see the condition Degraded")
        } else if !self.pods.are_rolled_out() {
            let message = format!("{ready} of {wanted} pods are ready, {updated} of {wanted} have the newest template");
            State::new("True", "RollingOut", message)
        } else if let Some(growing) = &self.applied.growing {
            State::new("True", "VolumesGrow", growing)
        } else if let Some(address) = &self.applied.missing_address {
            State::new("True", &address.reason, &address.message)
        } else {
            State::new("False", "Done", "everything is as specified")
        }
    }

    fn degraded(&self) -> State<'_> {
        if let Some(problem) = &self.applied.problem {
            return State::new("True", &problem.reason, &problem.message);
        }
        if let Health::PodsNotReady(Some(trouble)) = self.health
            && trouble.is_wrong
        {
            return State::new("True", &trouble.reason, &trouble.message);
        }
        if let Some(address) = self.applied.missing_address.as_ref().filter(|address| address.is_wrong) {
            return State::new("True", &address.reason, &address.message);
        }
        match self.health {
            // A Service may need a moment until it leads to a pod that has just become ready, so this is no reason to
            // warn.
            Health::PodsReady { overview: Err(error), .. } if conditions::is_true(&self.before.conditions, "Ready") => {
                State::new("True", "NotAnswering", error)
            }
            Health::PodsReady { alarms, .. } if !alarms.is_empty() => {
                let message = format!("the broker has run short of {}: publishers are held back", alarms.join(" and "));
                State::new("True", "ResourceAlarm", message)
            }
            _ => State::new("False", "AsSpecified", ""),
        }
    }

    /// Returns the default image that the Broker keeps, which is one that it has been ready with. An image that has
    /// never run may be a mistake, which is corrected by changing the operator's default.
    fn default_image(&self, is_ready: bool) -> Option<String> {
        match &self.applied.image {
            None => self.before.default_image.clone(),
            Some(ImageChoice::Own(_)) => None,
            Some(ImageChoice::Default(image)) => {
                let is_proven = self.before.default_image.is_some() || is_ready && self.pods.are_rolled_out();
                is_proven.then(|| image.clone())
            }
        }
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
