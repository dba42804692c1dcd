//! Decides what to do on the broker before a resource may be deleted. Pure.
use super::drift::Step;
use super::kinds::{Comparison, Inventory, Numbers};
use super::outcome::{BROKER_UNAVAILABLE, DELETION_REFUSED, NOT_EMPTY, Outcome};
use super::resource::{ResourceKey, TopologyResource};
use leveret_api::DeletionPolicy;
use leveret_client::{DeleteOnly, Error};

/// Decides whether the resource may go, has to wait, or needs its object deleted from the broker first.
pub(super) fn decide(resource: &TopologyResource, owner: Option<&ResourceKey>, inventory: &Inventory) -> Step {
    let what = resource.wanted.describe();
    let let_go = |message: String| Step::Report(Outcome::LetGo { message });
    if let Some(owner) = owner {
        return let_go(format!("{what} stays on the broker: it belongs to {owner}"));
    }
    if resource.deletion_policy == DeletionPolicy::Retain {
        return let_go(format!("{what} stays on the broker, as deletionPolicy says"));
    }
    if resource.wanted.is_predeclared() {
        return let_go(format!("{what} stays: it is the broker's own"));
    }
    let if_empty = resource.deletion_policy == DeletionPolicy::DeleteIfEmpty;
    match resource.wanted.compare(inventory) {
        Comparison::Missing => let_go(format!("{what} was not on the broker")),
        // Somebody else made the object: the resource never had it, or lost it.
        Comparison::Different { fields, .. } => let_go(format!("{what} stays on the broker, it is another: {fields}")),
        Comparison::Equal(Some(Numbers { ready, unacked, .. })) if if_empty && ready + unacked > 0 => {
            let message = format!("{ready} messages ready and {unacked} unacknowledged hold {what}. {ADVICE}");
            Step::Report(Outcome::waiting(NOT_EMPTY, message))
        }
        Comparison::Equal(numbers) => {
            // A queue without consumers has no delivered message. If one were delivered between this list and the
            // deletion, the queue would look empty: `if_unused` then has the broker refuse.
            let if_unused = if_empty && numbers.is_some_and(|numbers| numbers.consumers == 0);
            Step::Delete(DeleteOnly { if_empty, if_unused })
        }
    }
}

/// Returns the outcome that follows from the broker's answer to the deletion.
pub(super) fn outcome(resource: &TopologyResource, if_empty: bool, answer: Result<(), Error>) -> Outcome {
    let what = resource.wanted.describe();
    match answer {
        Ok(()) | Err(Error::NotFound(_)) => Outcome::LetGo { message: format!("{what} was deleted from the broker") },
        Err(Error::Refused { reason, .. }) if if_empty && resource.wanted.empty_numbers().is_some() => {
            let message = format!("{what} holds messages or is in use. {ADVICE}. The broker says: {reason}");
            Outcome::waiting(NOT_EMPTY, message)
        }
        Err(error @ (Error::Refused { .. } | Error::Unauthorized { .. })) => {
            let advice = "Set deletionPolicy to Retain to let the resource go without it";
            let message = format!("{what} cannot be deleted. {advice}. The broker says: {error}");
            Outcome::waiting(DELETION_REFUSED, message)
        }
        Err(error) => Outcome::waiting(BROKER_UNAVAILABLE, error.to_string()),
    }
}

/// Returns the outcome for a resource that is being deleted and may go without asking its broker: its Broker is gone,
/// or the object is to be retained. Returns `None` for all others.
#[cfg_attr(not(feature = "kubernetes"), allow(dead_code, reason = "resources are deleted in Kubernetes only"))]
pub(super) fn without_broker(resource: &TopologyResource, broker_is_gone: bool) -> Option<Outcome> {
    let is_retained = resource.deletion_policy == DeletionPolicy::Retain;
    let message = match (broker_is_gone, is_retained) {
        (true, _) => "its Broker is gone".to_owned(),
        (_, true) => format!("{} stays on the broker, as deletionPolicy says", resource.wanted.describe()),
        _ => return None,
    };
    resource.deleting.then_some(Outcome::LetGo { message })
}

const ADVICE: &str = "Consume or purge them, or set deletionPolicy to Delete or Retain";
