//! `direct`: the routing key equals the binding's.
use super::remove_one;
use std::collections::HashMap;

pub(crate) struct Direct<T>(HashMap<Box<[u8]>, Vec<T>, foldhash::fast::RandomState>);

impl<T> Default for Direct<T> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

impl<T: Copy + PartialEq> Direct<T> {
    pub(super) fn bind(&mut self, key: &[u8], target: T) {
        self.0.entry(key.into()).or_default().push(target);
    }

    pub(super) fn unbind(&mut self, key: &[u8], target: T) {
        if let Some(targets) = self.0.get_mut(key) {
            remove_one(targets, &target);
            if targets.is_empty() {
                self.0.remove(key);
            }
        }
    }

    pub(super) fn route(&self, key: &[u8], found: &mut dyn FnMut(T)) {
        self.0.get(key).into_iter().flatten().for_each(|&target| found(target));
    }
}
