//! Decides what to do on the broker for a resource that stays. Pure.
use super::kinds::{Comparison, Correction, Inventory};
use super::outcome::{CHANGED, Effect, Outcome};
use super::resource::{ResourceKey, TopologyResource};
use leveret_client::DeleteOnly;

/// The work of a pass for one resource.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Nothing is done on the broker; the outcome is known already.
    Report(Outcome),
    /// The object is missing: declare it.
    Declare,
    /// The object differs, and nobody loses anything if it is deleted and declared again. The text names the fields
    /// that differ.
    Replace(String),
    /// The resource is being deleted: delete the object too, under these conditions (`if_empty`: only an empty queue).
    Delete(DeleteOnly),
}

/// Compares the object that a resource wants with the one on the broker and decides what to do.
pub(super) fn decide(resource: &TopologyResource, owner: Option<&ResourceKey>, inventory: &Inventory) -> Step {
    let what = || resource.wanted.describe();
    if let Some(owner) = owner {
        let message = format!("{} belongs to {owner}, which was there first", what());
        return Step::Report(Outcome::Refused { reason: "Conflict", message });
    }
    if let Some(message) = &resource.refused_change {
        return Step::Report(Outcome::Refused { reason: "ChangeRefused", message: message.clone() });
    }
    match (resource.wanted.compare(inventory), &resource.recent_refusal) {
        (Comparison::Equal(numbers), _) => Step::Report(Outcome::Ready { effect: Effect::Unchanged, numbers }),
        (Comparison::Missing, Some(refusal)) => Step::Report(refusal.clone()),
        (Comparison::Missing, None) => Step::Declare,
        (Comparison::Different { fields, correction }, _) if resource.was_declared => match correction {
            Correction::Replace => Step::Replace(fields),
            Correction::Wait(reason) => {
                let message = format!("{} was changed on the broker: {fields}. It stays so while {reason}", what());
                Step::Report(Outcome::waiting(CHANGED, message))
            }
        },
        (Comparison::Different { fields, .. }, _) => {
            let advice = "Delete it there, or delete this resource and create it as it is there";
            let message = format!("{} differs on the broker: {fields}. {advice}", what());
            Step::Report(Outcome::Refused { reason: "Different", message })
        }
    }
}
