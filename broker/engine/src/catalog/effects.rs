//! The effects of a mutation of the catalog: everything that it changed. All parts of the node that derive something from
//! the catalog (the log, cached routes, the queues themselves, counters) learn of changes from these effects.
use super::{Bond, DeclaredQueue, ExchangeDeclare, QueueId};
use std::sync::Arc;

/// The answer of a mutation, and its effects in order. A mutation that changed nothing has no effects.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "effects that nobody follows leave the node different from its catalog"]
pub struct Change<T> {
    /// The answer to the caller of the mutation.
    pub answer: T,
    /// The changes that the mutation made.
    pub effects: Vec<Effect>,
}

/// One thing that changed. Bindings that are removed because one of their ends is deleted are no effects of their own.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// A virtual host was created, with its predeclared exchanges.
    VhostCreated {
        /// The name of the virtual host.
        vhost: Arc<str>,
    },
    /// A virtual host was deleted with its exchanges and bindings. The deletions of its queues are effects of their own,
    /// before this one.
    VhostDeleted {
        /// The name of the virtual host.
        vhost: Arc<str>,
    },
    /// An exchange was created.
    ExchangeCreated {
        /// The virtual host of the exchange.
        vhost: Arc<str>,
        /// The name of the exchange.
        name: Arc<str>,
        /// The declaration that made the exchange.
        declare: ExchangeDeclare,
    },
    /// An exchange was deleted with the bindings from it and to it.
    ExchangeDeleted {
        /// The virtual host of the exchange.
        vhost: Arc<str>,
        /// The name of the exchange.
        name: Arc<str>,
    },
    /// A queue was created.
    QueueCreated {
        /// The virtual host of the queue.
        vhost: Arc<str>,
        /// The name of the queue.
        name: Arc<str>,
        /// The queue, without bindings.
        queue: DeclaredQueue,
    },
    /// A queue was deleted with the bindings to it.
    QueueDeleted {
        /// The virtual host of the queue.
        vhost: Arc<str>,
        /// The name of the queue.
        name: Arc<str>,
        /// The identity of the queue.
        id: QueueId,
        /// True if the contents of the queue are logged.
        is_logged: bool,
        /// True if there were bindings to the queue.
        had_bindings: bool,
    },
    /// A binding was made.
    Bound {
        /// The binding.
        binding: Bond,
    },
    /// A binding was removed; its ends still exist.
    Unbound {
        /// The binding.
        binding: Bond,
    },
}

impl<T> Change<T> {
    pub(super) fn nothing(answer: T) -> Self {
        Self { answer, effects: Vec::new() }
    }

    pub(super) fn one(answer: T, effect: Effect) -> Self {
        Self { answer, effects: vec![effect] }
    }

    /// Returns the change with an answer computed from this one, and the same effects.
    pub fn map<U>(self, answer: impl FnOnce(T) -> U) -> Change<U> {
        Change { answer: answer(self.answer), effects: self.effects }
    }
}

impl Effect {
    /// Returns whether routes that begin at a named exchange may differ after this effect. Routes of the default
    /// exchange, which finds queues by their names, may differ after every effect.
    #[must_use]
    pub fn changes_bindings(&self) -> bool {
        match self {
            Self::QueueCreated { .. } => false,
            Self::QueueDeleted { had_bindings, .. } => *had_bindings,
            Self::VhostCreated { .. }
            | Self::VhostDeleted { .. }
            | Self::ExchangeCreated { .. }
            | Self::ExchangeDeleted { .. }
            | Self::Bound { .. }
            | Self::Unbound { .. } => true,
        }
    }
}
