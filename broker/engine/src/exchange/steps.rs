//! The work that routing one message may cost: whatever a client has bound, one publish ends in milliseconds.
//!
//! A step is about ten nanoseconds: a target that is found costs one; a node of a trie of patterns, an argument that is compared,
//! a header that is put into order and a word that is looked up cost [`VISIT`].

/// Steps that are left for a message.
pub(crate) struct Steps(u64);

/// A message would cost more than [`STEPS_MAX`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooManySteps;

impl Steps {
    pub(crate) fn for_a_message() -> Self {
        Self(STEPS_MAX)
    }

    #[inline]
    pub(crate) fn spend(&mut self, steps: usize) -> Result<(), TooManySteps> {
        self.0 = self.0.checked_sub(steps as u64).ok_or(TooManySteps)?;
        Ok(())
    }

    pub(crate) fn spent(&self) -> u64 {
        STEPS_MAX - self.0
    }
}

/// Steps for going somewhere else in memory.
pub(super) const VISIT: usize = 4;
/// Steps that one message may cost.
pub(crate) const STEPS_MAX: u64 = 1_000_000;
