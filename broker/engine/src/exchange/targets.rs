//! The targets of the bindings of one key, of one pattern or of a whole exchange: each target once, in order, with the
//! number of bindings that lead to it. The cost of adding, removing or finding a target hardly grows with their number.
use std::collections::BTreeMap;

#[derive(Default)]
pub(crate) enum Targets<T> {
    #[default]
    None,
    /// The usual case, which allocates no memory: one target, and the number of its bindings.
    One(T, u32),
    Many(BTreeMap<T, u32>),
}

impl<T: Copy + Ord> Targets<T> {
    pub(super) fn add(&mut self, target: T) {
        match self {
            Self::None => *self = Self::One(target, 1),
            Self::One(only, bindings) if *only == target => *bindings += 1,
            Self::One(only, bindings) => *self = Self::Many(BTreeMap::from([(*only, *bindings), (target, 1)])),
            Self::Many(targets) => *targets.entry(target).or_default() += 1,
        }
    }

    /// Removes one binding to the target.
    pub(super) fn remove(&mut self, target: T) {
        match self {
            Self::One(only, bindings) if *only == target => {
                *bindings -= 1;
                if *bindings == 0 {
                    *self = Self::None;
                }
            }
            Self::Many(targets) => {
                if let Some(bindings) = targets.get_mut(&target) {
                    *bindings -= 1;
                    if *bindings == 0 {
                        targets.remove(&target);
                    }
                }
                if targets.is_empty() {
                    *self = Self::None;
                }
            }
            _ => {}
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(..) => 1,
            Self::Many(targets) => targets.len(),
        }
    }

    pub(super) fn each(&self, found: &mut dyn FnMut(T)) {
        match self {
            Self::None => {}
            Self::One(only, _) => found(*only),
            Self::Many(targets) => targets.keys().for_each(|&target| found(target)),
        }
    }
}
