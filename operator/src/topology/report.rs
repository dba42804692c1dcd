//! The report of a pass for one resource, and the event and the condition that follow from it.
use super::cluster_resource::ClusterResource;
use super::outcome::{
    BROKER_UNAVAILABLE, CHANGED, DELETION_REFUSED, Effect, INTERRUPTED, NOT_EMPTY, NOT_ON_BROKER, Outcome, REFUSED,
};
use crate::kubernetes::events::Notice;
use leveret_api::FINALIZER;

/// A resource with the outcome of a pass for it.
pub(super) struct Report {
    pub(super) resource: ClusterResource,
    pub(super) outcome: Outcome,
}

impl Report {
    /// Reports the same outcome for all resources.
    pub(super) fn for_all(resources: Vec<ClusterResource>, outcome: &Outcome) -> Vec<Self> {
        resources.into_iter().map(|resource| Self { resource, outcome: outcome.clone() }).collect()
    }

    /// Returns whether the outcome says only that the broker could not be asked.
    pub(super) fn is_broker_unavailable(&self) -> bool {
        matches!(self.outcome, Outcome::Waiting { reason: BROKER_UNAVAILABLE | BROKER_NOT_READY | INTERRUPTED, .. })
    }

    /// Returns whether the pass ended before it came to the resource.
    pub(super) fn is_interrupted(&self) -> bool {
        matches!(self.outcome, Outcome::Waiting { reason: INTERRUPTED, .. })
    }

    /// Returns the event for the outcome, if it is worth one.
    pub(super) fn notice(&self) -> Option<Notice> {
        let Self { resource: ClusterResource { resource, status, .. }, outcome } = self;
        let what = || resource.wanted.describe();
        let is_new = |reason: &str| status.conditions.iter().all(|condition| condition.reason != reason);
        match outcome {
            Outcome::Ready { effect: Effect::Restored, .. } => {
                let message = format!("{} was missing on the broker, and has been declared again", what());
                Some(Notice::warning("Restored", message))
            }
            Outcome::Ready { effect: Effect::Replaced(fields), .. } => {
                let message = format!("{} was changed on the broker: {fields}. It has been put back", what());
                Some(Notice::warning("Replaced", message))
            }
            Outcome::Ready { .. } if !resource.was_declared => {
                Some(Notice::normal("Declared", format!("{} is on the broker", what())))
            }
            Outcome::Refused { reason, message }
            | Outcome::Waiting {
                reason: reason @ (CHANGED | NOT_ON_BROKER | REFUSED | NOT_EMPTY | DELETION_REFUSED),
                message,
            } if is_new(reason) => Some(Notice::warning(*reason, message.clone())),
            _ => None,
        }
    }
}

/// Returns the outcome for a resource that our finalizer could not be put on. Returns `None` if the resource changed or
/// was deleted meanwhile, or if the API server does not answer as it should.
pub(super) fn finalizer_refused(error: kube::Error) -> Option<Outcome> {
    match error {
        kube::Error::Api(refusal) if !matches!(refusal.code, 401 | 404 | 409 | 429 | 503 | 504) => {
            let message = format!("the finalizer {FINALIZER} cannot be set: the API server says: {}", refusal.message);
            // Unlike a refusal of the broker, this is tried again with the next pass.
            Some(Outcome::waiting(REFUSED, message))
        }
        _ => None,
    }
}

/// The reason if the Broker is not Available.
pub(super) const BROKER_NOT_READY: &str = "BrokerNotReady";
