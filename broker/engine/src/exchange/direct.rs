//! `direct`: the routing key of the message equals that of the binding.
use super::steps::{Steps, TooManySteps};
use super::targets::Targets;
use std::collections::HashMap;

pub(crate) struct Direct<T>(HashMap<Box<[u8]>, Targets<T>, foldhash::fast::RandomState>);

impl<T> Default for Direct<T> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

impl<T: Copy + Ord> Direct<T> {
    pub(super) fn bind(&mut self, key: &[u8], target: T) {
        self.0.entry(key.into()).or_insert(Targets::None).add(target);
    }

    pub(super) fn unbind(&mut self, key: &[u8], target: T) {
        if let Some(targets) = self.0.get_mut(key) {
            targets.remove(target);
            if targets.is_empty() {
                self.0.remove(key);
            }
        }
    }

    pub(super) fn route(&self, key: &[u8], steps: &mut Steps, found: &mut dyn FnMut(T)) -> Result<(), TooManySteps> {
        let Some(targets) = self.0.get(key) else { return steps.spend(1) };
        steps.spend(targets.len())?;
        targets.each(found);
        Ok(())
    }
}
