//! What happens on the broker before a resource goes. Pure.
use super::drift::Step;
use super::kinds::{Actual, Found, Numbers};
use super::object::{Key, Object};
use super::outcome::{BROKER_UNAVAILABLE, Outcome};
use leveret_api::DeletionPolicy;
use leveret_client::{DeleteOnly, Error};

/// Whether the resource may go, must wait, or has to be deleted from the broker first.
pub(super) fn decide(object: &Object, owner: Option<&Key>, actual: &Actual) -> Step {
    let what = object.wanted.describe();
    let let_go = |message: String| Step::Report(Outcome::LetGo { message });
    if let Some(owner) = owner {
        return let_go(format!("{what} stays on the broker: it belongs to {owner}"));
    }
    if object.deletion_policy == DeletionPolicy::Retain {
        return let_go(format!("{what} stays on the broker, as deletionPolicy says"));
    }
    if object.wanted.is_predeclared() {
        return let_go(format!("{what} stays: it is the broker's own"));
    }
    let if_empty = object.deletion_policy == DeletionPolicy::DeleteIfEmpty;
    match object.wanted.find(actual) {
        Found::Missing => let_go(format!("{what} was not on the broker")),
        // It was made by somebody else: this resource never had it, or lost it.
        Found::Different { named, .. } => let_go(format!("{what} stays on the broker, it is another: {named}")),
        Found::Equal(Some(Numbers { ready, unacked, .. })) if if_empty && ready + unacked > 0 => {
            let message = format!("{ready} messages ready and {unacked} unacknowledged hold {what}. {ADVICE}");
            Step::Report(Outcome::waiting(NOT_EMPTY, message))
        }
        Found::Equal(numbers) => {
            // A queue without consumers has no message under way. Were one delivered between this look and the deletion,
            // the queue would look empty: then it is in use, and stays.
            let if_unused = if_empty && numbers.is_some_and(|numbers| numbers.consumers == 0);
            Step::Delete(DeleteOnly { if_empty, if_unused })
        }
    }
}

/// What the broker's answer to the deletion comes to.
pub(super) fn deleted(object: &Object, if_empty: bool, answer: Result<(), Error>) -> Outcome {
    let what = object.wanted.describe();
    match answer {
        Ok(()) | Err(Error::NotFound(_)) => Outcome::LetGo { message: format!("{what} was deleted from the broker") },
        Err(Error::Refused { reason, .. }) if if_empty && object.wanted.nothing_yet().is_some() => Outcome::waiting(
            NOT_EMPTY,
            format!("{what} holds messages or is in use. {ADVICE}. The broker says: {reason}"),
        ),
        Err(error @ (Error::Refused { .. } | Error::Unauthorized { .. })) => {
            let advice = "Set deletionPolicy to Retain to let the resource go without it";
            Outcome::waiting("DeletionRefused", format!("{what} cannot be deleted. {advice}. The broker says: {error}"))
        }
        Err(error) => Outcome::waiting(BROKER_UNAVAILABLE, error.to_string()),
    }
}

/// Whether a resource may go though its broker cannot be asked.
#[cfg_attr(not(feature = "kubernetes"), allow(dead_code, reason = "resources go in Kubernetes"))]
pub(super) fn without_broker(object: &Object, broker_is_gone: bool) -> Option<Outcome> {
    let retained = object.deletion_policy == DeletionPolicy::Retain;
    let message = match (broker_is_gone, retained) {
        (true, _) => "its Broker is gone".to_owned(),
        (_, true) => format!("{} stays on the broker, as deletionPolicy says", object.wanted.describe()),
        _ => return None,
    };
    object.deleting.then_some(Outcome::LetGo { message })
}

const NOT_EMPTY: &str = "NotEmpty";
const ADVICE: &str = "Consume or purge them, or set deletionPolicy to Delete or Retain";
