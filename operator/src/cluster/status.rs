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
    let pods = if health.are_pods_ready { counted.all_ready() } else { counted };
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
        let states = [
            ("Ready", ready),
            ("Available", self.available()),
            ("Progressing", self.progressing()),
            ("Degraded", self.degraded()),
        ];
        let conditions =
            states.map(|(type_, state)| conditions::condition(&before.conditions, type_, state, generation));
        let overview = health.answer.as_ref().and_then(|answer| answer.as_ref().ok());
        // A broker that does not answer for a moment keeps its numbers.
        let number = |number: Option<i64>, before: Option<i64>| number.or(before).filter(|_| health.is_up());
        let secret = build::secret::name(broker);
        BrokerStatus {
            observed_generation: generation,
            conditions: conditions.into(),
            ready_replicas: pods.ready,
            members: Some(format!("{}/{}", self.members_up(), broker.spec.replicas)),
            waits_for: self.waits_for(),
            queues: number(overview.map(|overview| overview.object_totals.queues), before.queues),
            messages: number(overview.map(|overview| overview.queue_totals.messages), before.messages),
            connections: number(overview.map(|overview| overview.object_totals.connections), before.connections),
            alarms: health.alarms.clone(),
            image: applied.image.as_ref().map(|image| image.name().to_owned()).or_else(|| before.image.clone()),
            default_image: self.default_image(is_ready),
            default_user: Some(DefaultUser { secret_name: secret.clone(), service_name: broker.name_any() }),
            binding: Some(NamedSecret { name: secret }),
        }
    }

    fn ready(&self) -> State<'_> {
        let PodCounts { wanted, ready, .. } = self.pods;
        if !self.health.are_pods_ready {
            let waiting = format!("{ready} of {wanted} pods are ready");
            return match (&self.applied.problem, &self.health.trouble) {
                (Some(problem), _) => State::new("False", &problem.reason, format!("{waiting}: {}", problem.message)),
                (_, Some(trouble)) => State::new("False", &trouble.reason, format!("{waiting}; {}", trouble.message)),
                _ => {
                    let message = format!("{waiting}; see the pods of StatefulSet {}", self.broker.name_any());
                    State::new("False", "PodsNotReady", message)
                }
            };
        }
        let was_ready = conditions::is_true(&self.before.conditions, "Ready");
        match &self.health.answer {
            // One late answer is no reason to report a broker as not ready: it was ready before, and its pods are.
            Some(Err(error)) if !was_ready => State::new("False", "NotAnswering", error),
            _ => State::new("True", "AllPodsReady", "all pods answer"),
        }
    }

    fn available(&self) -> State<'_> {
        let PodCounts { wanted, ready, .. } = self.pods;
        let was_available = conditions::is_true(&self.before.conditions, "Available");
        match &self.health.answer {
            None => {
                let State { reason, message, .. } = self.ready();
                State { status: "False", reason, message }
            }
            Some(Err(error)) if !was_available => State::new("False", "NotAnswering", error),
            Some(_) if ready < wanted => {
                let message = format!("{ready} of {wanted} pods are ready, and a majority of the members is up");
                State::new("True", "MajorityUp", message)
            }
            Some(_) => State::new("True", "AllPodsReady", "all pods answer"),
        }
    }

    fn progressing(&self) -> State<'_> {
        let PodCounts { wanted, ready, updated } = self.pods;
        let waits = self.applied.operation.waits_for.as_ref().map(|words| format!("; {words}")).unwrap_or_default();
        let present = self.present_pods();
        if self.broker.spec.paused {
            State::new("False", "Paused", "spec.paused is set: nothing is changed")
        } else if let Some(problem) = &self.applied.problem {
            State::new("False", &problem.reason, "not everything is as specified: see the condition Degraded")
        } else if present > wanted {
            State::new("True", "MembersLeave", format!("there are {present} pods, and are to be {wanted}{waits}"))
        } else if !self.pods.are_rolled_out() {
            let message =
                format!("{ready} of {wanted} pods are ready, {updated} of {wanted} have the newest template{waits}");
            State::new("True", "RollingOut", message)
        } else if self.applied.operation.is_under_way {
            State::new("True", "RollingOut", format!("{wanted} pods are ready{waits}"))
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
        let missing_address = self.applied.missing_address.as_ref();
        if let Some(trouble) = self.health.trouble.as_ref().or(missing_address).filter(|trouble| trouble.is_wrong) {
            return State::new("True", &trouble.reason, &trouble.message);
        }
        match &self.health.answer {
            // A Service may need a moment until it leads to a pod that has just become ready, so this is no reason to
            // warn.
            Some(Err(error)) if conditions::is_true(&self.before.conditions, "Ready") => {
                State::new("True", "NotAnswering", error)
            }
            Some(_) if !self.health.alarms.is_empty() => {
                let alarms = self.health.alarms.join(" and ");
                let message = format!("the broker has run short of {alarms}: publishers are held back");
                State::new("True", "ResourceAlarm", message)
            }
            _ => State::new("False", "AsSpecified", ""),
        }
    }

    /// Returns the number of pods that the StatefulSet has to run.
    fn present_pods(&self) -> i32 {
        self.applied.set.as_ref().and_then(|set| set.spec.as_ref()?.replicas).unwrap_or(0)
    }

    /// Returns the number of members that are up. While no node is ready to tell it, there is no majority.
    fn members_up(&self) -> usize {
        let ready = if self.health.is_up() { usize::try_from(self.pods.ready).unwrap_or(0) } else { 0 };
        self.health.members_up.unwrap_or(ready)
    }

    fn waits_for(&self) -> Option<String> {
        let (health, applied) = (self.health, self.applied);
        let problem = applied.problem.as_ref().map(|problem| &problem.message);
        let trouble = health.trouble.as_ref().map(|trouble| &trouble.message);
        let silent = health.answer.as_ref().and_then(|answer| answer.as_ref().err());
        let address = applied.missing_address.as_ref().map(|address| &address.message);
        let operation = applied.operation.waits_for.as_ref();
        problem.or(operation).or(trouble).or(applied.growing.as_ref()).or(address).or(silent).cloned()
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
