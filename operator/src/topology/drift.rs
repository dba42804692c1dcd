//! What a resource that stays needs done on the broker. Pure.
use super::kinds::{Actual, Found};
use super::object::{Key, Object};
use super::outcome::{CHANGED, Done, Outcome};
use leveret_client::DeleteOnly;

/// What is to be done for a resource.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Nothing: this is what there is to say.
    Report(Outcome),
    /// It is missing.
    Declare,
    /// It is different, and nobody loses anything if it is made anew.
    Replace(String),
    /// Its resource goes, and so does it, if it is as it has to be for that.
    Delete(DeleteOnly),
}

/// Compares what is wanted with what is there.
pub(super) fn decide(object: &Object, owner: Option<&Key>, actual: &Actual) -> Step {
    let what = || object.wanted.describe();
    if let Some(owner) = owner {
        let message = format!("{} belongs to {owner}, which was there first", what());
        return Step::Report(Outcome::Refused { reason: "Conflict", message });
    }
    if let Some(message) = &object.changed {
        return Step::Report(Outcome::Refused { reason: "ChangeRefused", message: message.clone() });
    }
    match (object.wanted.find(actual), &object.refused) {
        (Found::Equal(numbers), _) => Step::Report(Outcome::Ready { done: Done::Nothing, numbers }),
        (Found::Missing, Some(outcome)) => Step::Report(outcome.clone()),
        (Found::Missing, None) => Step::Declare,
        (Found::Different { named, in_use: None }, _) if object.was_declared => Step::Replace(named),
        (Found::Different { named, in_use: Some(in_use) }, _) if object.was_declared => {
            let message = format!("{} was changed on the broker: {named}. It stays so while {in_use}", what());
            Step::Report(Outcome::waiting(CHANGED, message))
        }
        (Found::Different { named, .. }, _) => {
            let advice = "Delete it there, or delete this resource and create it as it is there";
            let message = format!("{} differs on the broker: {named}. {advice}", what());
            Step::Report(Outcome::Refused { reason: "Different", message })
        }
    }
}
