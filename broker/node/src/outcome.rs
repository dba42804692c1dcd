//! What a command that changes the definitions came to.
use crate::deleted::DeletedQueue;
use crate::memory::NO_MAJORITY;
use crate::queue::Queue;
use leveret_engine::catalog::CommandAnswer;
use leveret_model::refusal::{Refusal, RefusalKind};
use std::sync::Arc;
use tokio::sync::oneshot;

/// What a command came to on this node.
pub(crate) struct CommandOutcome {
    /// The catalog's answer.
    pub(crate) answer: CommandAnswer,
    /// The queue that was created, if one was.
    pub(crate) created: Option<CreatedQueue>,
    /// The queues that were deleted.
    pub(crate) deleted: Vec<DeletedQueue>,
}

impl CommandOutcome {
    /// Returns the outcome of a command that changed nothing.
    pub(crate) fn unchanged(answer: CommandAnswer) -> Self {
        Self { answer, created: None, deleted: Vec::new() }
    }
}

/// A queue that was created.
pub(crate) enum CreatedQueue {
    /// The queue exists.
    Here(Arc<Queue>),
    /// The queue exists once the log of its shard has its declaration, and is sent here then.
    InShard(oneshot::Receiver<Arc<Queue>>),
}

/// Returns the refusal of a node that is about to end.
pub(crate) fn stopping() -> Refusal {
    Refusal::new(RefusalKind::Stopping, "the node is stopping: what was asked may not be durable".to_owned())
}

/// Returns the refusal of a request that needs a majority of the nodes while this node cannot reach one.
pub(crate) fn no_majority() -> Refusal {
    Refusal::new(RefusalKind::Stopping, format!("{NO_MAJORITY}: what was asked may be done once they can"))
}

/// Returns the refusal of a request that was carried out, or not, while this node was cut off.
pub(crate) fn overtaken() -> Refusal {
    let text = "the node was cut off from the others: what was asked has been done, or undone by another request since";
    Refusal::new(RefusalKind::Stopping, text.to_owned())
}
