//! Proposals: entries that are submitted to a group. Each gets exactly one answer, also when the group stops.
use crate::GroupId;
use crate::responder::ProposalResponder;
use crate::types::TypeConfig;
use openraft::error::{ClientWriteError, ForwardToLeader};
use openraft::raft::ClientWriteResult;

/// The answer to a proposal: the index of the entry once it is applied on this node, or why it was not.
pub type SubmitOutcome = Result<u64, NotLeader>;

/// The error of a proposal that was not applied, because the group has stopped, is not led by this node, or is not led
/// in the term for which the entry was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("group {group} takes no entries: {reason}")]
pub struct NotLeader {
    /// Number of the group.
    pub group: GroupId,
    /// The node that leads the group now, if that is known.
    pub leader: Option<u64>,
    /// True if the entry may still be applied: it was in this node's log, from where the next leader may have it, or
    /// the group stopped before that was known. False if the entry will never be applied.
    pub is_open: bool,
    /// The error of openraft.
    pub reason: String,
}

impl NotLeader {
    /// Returns the error for an error of openraft after which nothing is known of the entry.
    pub(crate) fn stopped(group: GroupId, reason: impl ToString) -> Self {
        Self { group, leader: None, is_open: true, reason: reason.to_string() }
    }

    pub(crate) fn refused(group: GroupId, error: ClientWriteError<TypeConfig>) -> Self {
        let reason = error.to_string();
        let (leader, is_open) = match error {
            ClientWriteError::ForwardToLeader(ForwardToLeader { leader_id, .. }) => (leader_id, false),
            ClientWriteError::LogEntryDiscarded(ForwardToLeader { leader_id, .. }) => (leader_id, true),
            ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_) => (None, false),
        };
        Self { group, leader, is_open, reason }
    }
}

/// Returns the responder that calls `answer` with the outcome of a proposal for `group`.
pub(crate) fn responder(
    group: GroupId,
    answer: Box<dyn FnOnce(SubmitOutcome) + Send>,
) -> ProposalResponder<ClientWriteResult<TypeConfig>> {
    let respond = move |result: Option<ClientWriteResult<TypeConfig>>| {
        answer(match result {
            Some(Ok(written)) => Ok(written.log_id.index),
            Some(Err(error)) => Err(NotLeader::refused(group, error)),
            None => Err(NotLeader::stopped(group, "the group has stopped")),
        });
    };
    ProposalResponder::new(Box::new(respond))
}
