//! Where a message goes: one file a type of exchange.
//!
//! A type keeps bindings in the form that answers fastest; which bindings there are is the catalog's business.
mod direct;
mod headers;
#[cfg(test)]
mod tests;
mod topic;

pub(crate) use headers::check as check_headers_binding;
pub(crate) use topic::check as check_topic_pattern;

use direct::Direct;
use headers::Headers;
use leveret_model::exchange::ExchangeType;
use leveret_model::table::FieldTable;
use topic::Topic;

/// The bindings of one exchange, by its type. `T` is what a binding leads to.
pub(crate) enum Router<T> {
    /// Queues by equal key.
    Direct(Direct<T>),
    /// Every target.
    Fanout(Vec<T>),
    /// Targets by pattern.
    Topic(Topic<T>),
    /// Targets by headers.
    Headers(Headers<T>),
}

impl<T: Copy + PartialEq> Router<T> {
    pub(crate) fn new(kind: ExchangeType) -> Self {
        match kind {
            ExchangeType::Direct => Self::Direct(Direct::default()),
            ExchangeType::Fanout => Self::Fanout(Vec::new()),
            ExchangeType::Topic => Self::Topic(Topic::default()),
            ExchangeType::Headers => Self::Headers(Headers::default()),
        }
    }

    /// Adds a binding that is not there yet.
    pub(crate) fn bind(&mut self, key: &[u8], arguments: &FieldTable, target: T) {
        match self {
            Self::Direct(direct) => direct.bind(key, target),
            Self::Fanout(targets) => targets.push(target),
            Self::Topic(topic) => topic.bind(key, target),
            Self::Headers(headers) => headers.bind(arguments, target),
        }
    }

    /// Removes one binding that is there.
    pub(crate) fn unbind(&mut self, key: &[u8], arguments: &FieldTable, target: T) {
        match self {
            Self::Direct(direct) => direct.unbind(key, target),
            Self::Fanout(targets) => remove_one(targets, &target),
            Self::Topic(topic) => topic.unbind(key, target),
            Self::Headers(headers) => headers.unbind(arguments, target),
        }
    }

    /// Calls `found` with each target of a message; one bound twice may come twice.
    pub(crate) fn route(&self, key: &[u8], headers: Option<&FieldTable>, found: &mut dyn FnMut(T)) {
        match self {
            Self::Direct(direct) => direct.route(key, found),
            Self::Fanout(targets) => targets.iter().for_each(|&target| found(target)),
            Self::Topic(topic) => topic.route(key, found),
            Self::Headers(bound) => bound.route(headers, found),
        }
    }
}

fn remove_one<T: PartialEq>(targets: &mut Vec<T>, target: &T) {
    if let Some(at) = targets.iter().position(|other| other == target) {
        targets.remove(at);
    }
}
