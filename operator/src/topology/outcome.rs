//! The outcome of a pass for one resource.
use super::kinds::Numbers;

/// The outcome of a pass for one resource, as it is reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The object is on the broker as wanted.
    Ready {
        /// The effect of the pass on the broker.
        effect: Effect,
        /// The numbers of a queue.
        numbers: Option<Numbers>,
    },
    /// The object is not on the broker yet; the next pass tries again.
    Waiting {
        /// One word for programs.
        reason: &'static str,
        /// A sentence for people.
        message: String,
    },
    /// The object cannot be declared unless somebody changes something.
    Refused {
        /// One word for programs.
        reason: &'static str,
        /// A sentence for people, in the broker's own words if the broker refused.
        message: String,
    },
    /// The resource may be deleted: its object is gone from the broker, or stays there as the deletion policy says.
    LetGo {
        /// A sentence for people: what happened to the object.
        message: String,
    },
}

/// The effect of a pass on an object that is on the broker afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing: the object was there.
    Unchanged,
    /// The object was declared for the first time.
    Created,
    /// The object had been there, was missing, and was declared again.
    Restored,
    /// The object had been changed on the broker and was restored. The text names the fields that differed.
    Replaced(String),
}

/// The condition `Ready` that follows from an outcome.
#[cfg_attr(not(feature = "kubernetes"), allow(dead_code, reason = "conditions are for Kubernetes"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReadyCondition<'a> {
    /// `True` or `False`.
    pub(crate) status: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) message: &'a str,
}

impl Outcome {
    pub(crate) fn waiting(reason: &'static str, message: impl Into<String>) -> Self {
        Self::Waiting { reason, message: message.into() }
    }

    /// Returns the condition `Ready` of the resource.
    #[cfg_attr(not(feature = "kubernetes"), allow(dead_code, reason = "conditions are for Kubernetes"))]
    pub(crate) fn condition(&self) -> ReadyCondition<'_> {
        match self {
            Self::Ready { .. } => {
                ReadyCondition { status: "True", reason: "Declared", message: "on the broker as specified" }
            }
            Self::Waiting { reason, message } | Self::Refused { reason, message } => {
                ReadyCondition { status: "False", reason, message }
            }
            Self::LetGo { message } => ReadyCondition { status: "False", reason: "Deleted", message },
        }
    }
}

/// The object was changed on the broker, and restoring it would take something from its users.
pub(crate) const CHANGED: &str = "Changed";
/// The broker cannot be asked, although its Broker is Ready.
pub(crate) const BROKER_UNAVAILABLE: &str = "BrokerUnavailable";
/// The pass took too long and ended before it came to this resource.
pub(crate) const INTERRUPTED: &str = "Interrupted";
/// The broker refused the declaration: it is not asked again for a while.
pub(crate) const REFUSED: &str = "Refused";
/// The broker accepts the declaration but does not have the object afterwards.
pub(crate) const NOT_ON_BROKER: &str = "NotOnBroker";
/// The object that is to be deleted holds messages.
pub(crate) const NOT_EMPTY: &str = "NotEmpty";
/// The broker refused to delete the object.
pub(crate) const DELETION_REFUSED: &str = "DeletionRefused";
