//! The refusal of a request: a kind, which each protocol maps to a code of its own, and a text that names the value.

/// A refused request. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// The reason, for programs.
    pub kind: RefusalKind,
    /// The reason, for people: it names what was wrong.
    pub text: String,
}

/// The reasons to refuse a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// The client is not allowed to do that, or the name is reserved.
    AccessRefused,
    /// There is no such object.
    NotFound,
    /// The object belongs to another connection.
    ResourceLocked,
    /// The object exists and differs from the request, or an argument is not supported.
    PreconditionFailed,
    /// There is no such type or command.
    CommandInvalid,
    /// The connection may not do that.
    NotAllowed,
    /// The node is about to end. It is not known whether the change is durable.
    Stopping,
}

impl Refusal {
    /// Returns a refusal with its text.
    #[must_use]
    pub fn new(kind: RefusalKind, text: String) -> Self {
        Self { kind, text }
    }

    /// Returns a refusal because the object differs from the request or because of an argument.
    #[must_use]
    pub fn precondition(text: String) -> Self {
        Self::new(RefusalKind::PreconditionFailed, text)
    }

    /// Returns the refusal for a queue that does not exist.
    #[must_use]
    pub fn no_queue(vhost: &str, name: &str) -> Self {
        Self::new(RefusalKind::NotFound, format!("no queue '{name}' in vhost '{vhost}'"))
    }

    /// Returns the refusal for an exchange that does not exist.
    #[must_use]
    pub fn no_exchange(vhost: &str, name: &str) -> Self {
        Self::new(RefusalKind::NotFound, format!("no exchange '{name}' in vhost '{vhost}'"))
    }

    /// Returns the refusal for a virtual host that does not exist.
    #[must_use]
    pub fn no_vhost(name: &str) -> Self {
        Self::new(RefusalKind::NotFound, format!("no vhost '{name}'"))
    }
}
