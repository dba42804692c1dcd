//! A bound on the work of routing one message: whatever bindings a client has made, one publish ends in milliseconds.
//!
//! A step takes about ten nanoseconds. A target that is found costs one step; a node of a trie of patterns, an argument
//! that is compared, a header that is sorted and a word that is looked up cost [`VISIT`] steps each.

/// The number of steps that are left for a message.
pub(crate) struct Steps(u64);

/// The error if routing a message would cost more than [`STEPS_MAX`] steps.
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

/// The steps for an access to another place in memory.
pub(super) const VISIT: usize = 4;
/// The most steps that routing one message may cost.
pub(crate) const STEPS_MAX: u64 = 1_000_000;
