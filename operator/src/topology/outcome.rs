//! What became of an object in a pass.
use super::kinds::Numbers;

/// What is reported of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is on the broker as wanted.
    Ready {
        /// What was done for that.
        done: Done,
        /// Queues: what they hold.
        numbers: Option<Numbers>,
    },
    /// Not yet; it will be tried again.
    Waiting {
        /// One word for programs.
        reason: &'static str,
        /// For people.
        message: String,
    },
    /// Not like this.
    Refused {
        /// One word for programs.
        reason: &'static str,
        /// For people, in the broker's own words where it spoke.
        message: String,
    },
    /// It is gone from the broker, or stays there as the policy says: the resource may go.
    LetGo {
        /// What was done for that.
        message: String,
    },
}

/// What was done to have an object on the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// It was there.
    Nothing,
    /// Declared for the first time.
    Created,
    /// It had been there and was gone.
    Restored,
    /// Somebody had made another of it: what was different.
    Replaced(String),
}

impl Outcome {
    pub(crate) fn waiting(reason: &'static str, message: impl Into<String>) -> Self {
        Self::Waiting { reason, message: message.into() }
    }

    /// The condition `Ready`: status, reason, message.
    #[cfg_attr(not(feature = "kubernetes"), allow(dead_code, reason = "conditions are for Kubernetes"))]
    pub(crate) fn condition(&self) -> (&'static str, &'static str, &str) {
        match self {
            Self::Ready { .. } => ("True", "Declared", "on the broker as specified"),
            Self::Waiting { reason, message } | Self::Refused { reason, message } => ("False", reason, message),
            Self::LetGo { message } => ("False", "Deleted", message),
        }
    }
}

/// The broker has another thing by that name, and it was ours: put back as soon as nothing is lost by it.
pub(crate) const CHANGED: &str = "Changed";
/// The broker cannot be asked, though it should answer.
pub(crate) const BROKER_UNAVAILABLE: &str = "BrokerUnavailable";
/// A pass took too long, and ended before it came to this.
pub(crate) const INTERRUPTED: &str = "Interrupted";
/// The broker refused it: it is not asked again for a while.
pub(crate) const REFUSED: &str = "Refused";
/// The broker takes the declaration, and has no such thing all the same.
pub(crate) const NOT_THERE: &str = "NotOnBroker";
