//! Routing within one exchange: one file per exchange type.
//!
//! Each type keeps its bindings in the form that is fastest to route with; the catalog has the list of bindings itself.
//! An exchange is given all keys of a message at once, and answers within a bounded number of [steps](Steps).
mod direct;
mod headers;
mod positions;
mod steps;
mod targets;
#[cfg(test)]
mod tests;
mod topic;

pub(crate) use headers::{SentHeaders, check as check_headers_binding};
pub(crate) use steps::{STEPS_MAX, Steps, TooManySteps};

use direct::Direct;
use headers::Headers;
use leveret_model::exchange::ExchangeType;
use leveret_model::table::FieldTable;
use targets::Targets;
use topic::Topic;

/// The bindings of one exchange, by its type. `T` is the target of a binding.
pub(crate) enum Router<T> {
    /// Targets by equal routing key.
    Direct(Direct<T>),
    /// Every target.
    Fanout(Targets<T>),
    /// Targets by pattern.
    Topic(Topic<T>),
    /// Targets by headers.
    Headers(Headers<T>),
}

impl<T: Copy + Ord> Router<T> {
    pub(crate) fn new(kind: ExchangeType) -> Self {
        match kind {
            ExchangeType::Direct => Self::Direct(Direct::default()),
            ExchangeType::Fanout => Self::Fanout(Targets::None),
            ExchangeType::Topic => Self::Topic(Topic::default()),
            ExchangeType::Headers => Self::Headers(Headers::default()),
        }
    }

    /// Adds a binding, which must not be there yet.
    pub(crate) fn bind(&mut self, key: &[u8], arguments: &FieldTable, target: T) {
        match self {
            Self::Direct(direct) => direct.bind(key, target),
            Self::Fanout(targets) => targets.add(target),
            Self::Topic(topic) => topic.bind(key, target),
            Self::Headers(headers) => headers.bind(arguments, target),
        }
    }

    /// Removes one binding, which must be there.
    pub(crate) fn unbind(&mut self, key: &[u8], arguments: &FieldTable, target: T) {
        match self {
            Self::Direct(direct) => direct.unbind(key, target),
            Self::Fanout(targets) => targets.remove(target),
            Self::Topic(topic) => topic.unbind(key, target),
            Self::Headers(headers) => headers.unbind(arguments, target),
        }
    }

    /// Calls `found` with each target of a message that has these keys. A target may be passed several times.
    ///
    /// # Errors
    /// [`TooManySteps`] if routing would cost more steps than are left.
    pub(crate) fn route(
        &self,
        keys: &[&[u8]],
        headers: &SentHeaders<'_>,
        steps: &mut Steps,
        found: &mut dyn FnMut(T),
    ) -> Result<(), TooManySteps> {
        match self {
            Self::Direct(direct) => keys.iter().try_for_each(|key| direct.route(key, steps, found)),
            Self::Fanout(targets) => {
                steps.spend(targets.len())?;
                targets.each(found);
                Ok(())
            }
            Self::Topic(topic) => keys.iter().try_for_each(|key| topic.route(key, steps, found)),
            Self::Headers(bound) => bound.route(headers, steps, found),
        }
    }
}

/// Returns about how many bytes a binding takes in addition to its key and arguments.
pub(crate) fn binding_bytes(kind: ExchangeType, key: &[u8]) -> usize {
    match kind {
        ExchangeType::Topic => topic::nodes_of(key) * topic::NODE_BYTES,
        _ => 0,
    }
}
