//! When this node leads a group, for those that have to know: calls [`GroupStates::lead`] and [`GroupStates::follow`], in
//! turns, for one term after the other.
use crate::types::Vote;
use crate::{GroupId, GroupStates};
use parking_lot::Mutex;
use std::sync::Arc;

pub(crate) struct Leadership {
    pub(crate) group: GroupId,
    node: u64,
    pub(crate) states: Arc<dyn GroupStates>,
    state: Mutex<LeadState>,
}

#[derive(Default)]
struct LeadState {
    /// The newest vote that this node gave, or is about to save.
    vote: Option<Vote>,
    /// The term for which `lead` was called and `follow` was not.
    led: Option<u64>,
    /// True once the group stops; `lead` is not called any more.
    stopped: bool,
}

impl Leadership {
    pub(crate) fn new(group: GroupId, node: u64, states: Arc<dyn GroupStates>, vote: Option<Vote>) -> Arc<Self> {
        Arc::new(Self { group, node, states, state: Mutex::new(LeadState { vote, led: None, stopped: false }) })
    }

    /// Called before a vote is saved.
    pub(crate) fn voted(&self, vote: &Vote) {
        let mut state = self.state.lock();
        state.vote = Some(*vote);
        if state.led.is_some_and(|term| !self.is_leader(vote, term)) {
            self.follow(&mut state);
        }
    }

    /// Called when the first entry of a leader's `term`, which has no content, is applied.
    pub(crate) fn term_begins(&self, term: u64) {
        let mut state = self.state.lock();
        if state.stopped || state.led == Some(term) || !state.vote.is_some_and(|vote| self.is_leader(&vote, term)) {
            return;
        }
        self.follow(&mut state);
        state.led = Some(term);
        self.states.lead(self.group, term);
    }

    /// Called when openraft says that this node does not lead any more in a term in which it was the leader.
    pub(crate) fn resigned(&self, vote: &Vote) {
        let mut state = self.state.lock();
        if state.led.is_some_and(|term| self.is_leader(vote, term)) {
            self.follow(&mut state);
        }
    }

    /// Called when the group stops.
    pub(crate) fn stop(&self) {
        let mut state = self.state.lock();
        state.stopped = true;
        self.follow(&mut state);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.state.lock().stopped
    }

    fn is_leader(&self, vote: &Vote, term: u64) -> bool {
        vote.committed && vote.leader_id.term == term && vote.leader_id.voted_for == self.node
    }

    fn follow(&self, state: &mut LeadState) {
        if state.led.take().is_some() {
            self.states.follow(self.group);
        }
    }
}
