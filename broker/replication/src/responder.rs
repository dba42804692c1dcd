//! The responder through which openraft says what became of a proposal.
use openraft::alias::LogIdOf;
use openraft::raft::responder::Responder;
use openraft::{OptionalSend, RaftTypeConfig};

/// Hands the result of a proposal to the function that waits for it. openraft drops the responders of a group that
/// stops; the function is called then too, with `None`.
pub(crate) struct ProposalResponder<T>(Option<Box<dyn FnOnce(Option<T>) + Send>>);

impl<T> ProposalResponder<T> {
    pub(crate) fn new(answer: Box<dyn FnOnce(Option<T>) + Send>) -> Self {
        Self(Some(answer))
    }
}

impl<C: RaftTypeConfig, T: OptionalSend + 'static> Responder<C, T> for ProposalResponder<T> {
    fn on_commit(&mut self, _: LogIdOf<C>) {}

    fn on_complete(mut self, result: T) {
        if let Some(answer) = self.0.take() {
            answer(Some(result));
        }
    }
}

impl<T> Drop for ProposalResponder<T> {
    fn drop(&mut self) {
        if let Some(answer) = self.0.take() {
            answer(None);
        }
    }
}
