//! Conditions as the API conventions have them: the time changes only when the status does.
use leveret_api::{Condition, Time};

/// A condition with its new state; the time of the last change is taken over from `before` if the status is the same.
pub(crate) fn condition(
    before: &[Condition],
    type_: &str,
    (status, reason, message): (&str, &str, &str),
    generation: Option<i64>,
) -> Condition {
    let same = before.iter().find(|other| other.type_ == type_ && other.status == status);
    let now = || Time(k8s_openapi::jiff::Timestamp::now());
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: generation,
        last_transition_time: same.map_or_else(now, |same| same.last_transition_time.clone()),
    }
}

/// Whether a condition is true.
pub(crate) fn is_true(conditions: &[Condition], type_: &str) -> bool {
    conditions.iter().any(|condition| condition.type_ == type_ && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_change_is_that_of_the_status() {
        let first = condition(&[], "Ready", ("False", "Waiting", "a"), Some(1));
        let old = Condition { last_transition_time: Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH), ..first };
        let same = condition(std::slice::from_ref(&old), "Ready", ("False", "Refused", "b"), Some(2));
        assert_eq!((same.last_transition_time, &*same.reason), (old.last_transition_time.clone(), "Refused"));
        let changed = condition(std::slice::from_ref(&old), "Ready", ("True", "Declared", ""), Some(2));
        assert_ne!(changed.last_transition_time, old.last_transition_time);
        assert!(is_true(&[changed], "Ready") && !is_true(&[old], "Ready"));
    }
}
