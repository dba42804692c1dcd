//! What became of an object in a pass.

/// What is reported of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is on the broker as wanted.
    Ready {
        /// What was done for that.
        done: Done,
        /// Queues: ready, unacknowledged, consumers.
        numbers: Option<(i64, i64, i64)>,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// It was there.
    Nothing,
    /// Declared for the first time.
    Created,
    /// It had been there and was gone.
    Restored,
}

impl Outcome {
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
