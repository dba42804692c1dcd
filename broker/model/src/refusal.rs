//! Why something is not done: a kind that every protocol has a code for, and a text that names the value.

/// A request refused. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// What sort of refusal.
    pub kind: RefusalKind,
    /// What was wrong, with the names that it was wrong with.
    pub text: String,
}

/// Sorts of refusal: AMQP's reply codes (0-9-1 spec 1.3) say it best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// 403: not allowed to this client, or a name that is reserved.
    AccessRefused,
    /// 404: there is no such thing.
    NotFound,
    /// 405: it belongs to another connection.
    ResourceLocked,
    /// 406: it is there, but not so; or an argument is not supported.
    PreconditionFailed,
    /// 503: there is no such type or command.
    CommandInvalid,
    /// 530: the connection may not do that.
    NotAllowed,
    /// 320: the node is about to end. Nobody knows whether what was asked is durable.
    Stopping,
}

impl RefusalKind {
    /// The spec's reply code.
    #[must_use]
    pub fn reply_code(self) -> u16 {
        match self {
            Self::AccessRefused => 403,
            Self::NotFound => 404,
            Self::ResourceLocked => 405,
            Self::PreconditionFailed => 406,
            Self::CommandInvalid => 503,
            Self::NotAllowed => 530,
            Self::Stopping => 320,
        }
    }
}

impl Refusal {
    /// A refusal with its text.
    #[must_use]
    pub fn new(kind: RefusalKind, text: String) -> Self {
        Self { kind, text }
    }

    /// 406 with a text.
    #[must_use]
    pub fn precondition(text: String) -> Self {
        Self::new(RefusalKind::PreconditionFailed, text)
    }

    /// 404 for a queue.
    #[must_use]
    pub fn no_queue(vhost: &str, name: &str) -> Self {
        Self::new(RefusalKind::NotFound, format!("no queue '{name}' in vhost '{vhost}'"))
    }

    /// 404 for an exchange.
    #[must_use]
    pub fn no_exchange(vhost: &str, name: &str) -> Self {
        Self::new(RefusalKind::NotFound, format!("no exchange '{name}' in vhost '{vhost}'"))
    }

    /// 404 for a virtual host.
    #[must_use]
    pub fn no_vhost(name: &str) -> Self {
        Self::new(RefusalKind::NotFound, format!("no vhost '{name}'"))
    }
}
