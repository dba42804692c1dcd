//! The effects of a mutation of the catalog: everything that it changed. All parts of the node that derive something from
//! the catalog (the log, cached routes, the queues themselves, counters) learn of changes from these effects.
use super::{Bond, DeclaredQueue, ExchangeDeclare, Fact, QueueId};
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
        /// True if the exchange would have survived a restart.
        durable: bool,
        /// The reason for the deletion.
        cause: Cause,
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
        /// True if the queue is in the log.
        is_logged: bool,
        /// True if there were bindings to the queue.
        had_bindings: bool,
        /// The reason for the deletion.
        cause: Cause,
    },
    /// A binding was made.
    Bound {
        /// The binding.
        binding: Bond,
        /// True if the binding survives a restart, because both of its ends do.
        is_logged: bool,
    },
    /// A binding was removed; its ends still exist.
    Unbound {
        /// The binding.
        binding: Bond,
        /// True if the binding would have survived a restart.
        is_logged: bool,
    },
}

/// The reason why an exchange or queue was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The mutation was a request to delete it.
    Request,
    /// The exchange was declared as auto-delete and lost its last binding.
    Cascade,
    /// The virtual host was deleted.
    Vhost,
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

    /// Returns whether the effect concerns a definition that survives a restart, so that it has to be logged. The fact
    /// about the deletion of a virtual host covers everything in the virtual host.
    #[must_use]
    pub fn is_logged(&self) -> bool {
        match self {
            Self::VhostCreated { .. } | Self::VhostDeleted { .. } => true,
            Self::ExchangeCreated { declare, .. } => declare.durable,
            Self::ExchangeDeleted { durable, .. } => *durable,
            Self::QueueCreated { queue, .. } => queue.is_logged(),
            Self::QueueDeleted { is_logged, cause, .. } => *is_logged && *cause != Cause::Vhost,
            Self::Bound { is_logged, .. } | Self::Unbound { is_logged, .. } => *is_logged,
        }
    }

    /// Returns the fact that has to be logged for the effect, or `None` if none has to be.
    #[must_use]
    pub fn into_fact(self) -> Option<Fact> {
        self.is_logged().then(|| match self {
            Self::VhostCreated { vhost } => Fact::Vhost(vhost),
            Self::VhostDeleted { vhost } => Fact::VhostGone(vhost),
            Self::ExchangeCreated { vhost, name, declare } => Fact::Exchange { vhost, name, declare },
            Self::ExchangeDeleted { vhost, name, .. } => Fact::ExchangeGone { vhost, name },
            Self::QueueCreated { vhost, name, queue } => queue.into_fact(vhost, name),
            Self::QueueDeleted { vhost, name, .. } => Fact::QueueGone { vhost, name },
            Self::Bound { binding, .. } => Fact::Bound(binding),
            Self::Unbound { binding, .. } => Fact::Unbound(binding),
        })
    }
}
