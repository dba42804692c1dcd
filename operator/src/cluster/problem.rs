//! A problem: the reason why a Broker is not as its spec says.

/// The reason why a part of a Broker's spec is not applied, for its conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// One word for programs.
    pub(super) reason: String,
    /// A sentence for people.
    pub(super) message: String,
}

impl Problem {
    pub(super) fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into() }
    }

    /// Returns the problem that a field of the spec cannot be honoured.
    pub(super) fn invalid_spec(message: impl Into<String>) -> Self {
        Self::new("InvalidSpec", message)
    }
}
