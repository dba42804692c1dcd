//! Conditions as the API conventions define them: the transition time changes only when the status does.
use leveret_api::{Condition, Time};
use std::borrow::Cow;

/// The state of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State<'a> {
    /// `True` or `False`.
    pub(crate) status: &'static str,
    /// One word for programs.
    pub(crate) reason: Cow<'a, str>,
    /// A sentence for people.
    pub(crate) message: Cow<'a, str>,
}

impl<'a> State<'a> {
    pub(crate) fn new(status: &'static str, reason: impl Into<Cow<'a, str>>, message: impl Into<Cow<'a, str>>) -> Self {
        Self { status, reason: reason.into(), message: message.into() }
    }

    pub(crate) fn is_true(&self) -> bool {
        self.status == TRUE
    }
}

/// Returns a condition. It keeps the transition time of the one in `before` if the status is the same.
pub(crate) fn condition(
    before: &[Condition],
    type_: &str,
    State { status, reason, message }: State<'_>,
    generation: Option<i64>,
) -> Condition {
    let same = before.iter().find(|other| other.type_ == type_ && other.status == status);
    let now = || Time(k8s_openapi::jiff::Timestamp::now());
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.into_owned(),
        message: message.into_owned(),
        observed_generation: generation,
        last_transition_time: same.map_or_else(now, |same| same.last_transition_time.clone()),
    }
}

/// Returns whether the condition of that type is true.
pub(crate) fn is_true(conditions: &[Condition], type_: &str) -> bool {
    conditions.iter().any(|condition| condition.type_ == type_ && condition.status == TRUE)
}

const TRUE: &str = "True";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_change_is_that_of_the_status() {
        let state = |status, reason: &'static str| State::new(status, reason, "");
        let first = condition(&[], "Ready", state("False", "Waiting"), Some(1));
        let old = Condition { last_transition_time: Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH), ..first };
        let same = condition(std::slice::from_ref(&old), "Ready", state("False", "Refused"), Some(2));
        assert_eq!((same.last_transition_time, &*same.reason), (old.last_transition_time.clone(), "Refused"));
        let changed = condition(std::slice::from_ref(&old), "Ready", state("True", "Declared"), Some(2));
        assert_ne!(changed.last_transition_time, old.last_transition_time);
        assert!(is_true(&[changed], "Ready") && !is_true(&[old], "Ready"));
    }
}
