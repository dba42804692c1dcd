//! Everything that a mutation of the catalog changed, so that whoever keeps something that follows from the catalog (the
//! log, cached routes, the queues themselves, counters) learns of it in one place.
use super::{Bond, DeclaredQueue, ExchangeDeclare, Fact, QueueId};
use std::sync::Arc;

/// The answer of a mutation, and what it changed, in order. A mutation that changed nothing has no effects.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "effects that nobody follows leave the node different from its catalog"]
pub struct Change<T> {
    /// What the mutation answers to whoever asked for it.
    pub answer: T,
    /// What it changed.
    pub effects: Vec<Effect>,
}

/// One thing that changed. Bindings that go with one of their ends are no effects of their own.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// A virtual host was created, with its predeclared exchanges.
    VhostCreated {
        /// Its name.
        vhost: Arc<str>,
    },
    /// A virtual host was deleted with its exchanges and bindings. Its queues are effects of their own, before this one.
    VhostDeleted {
        /// Its name.
        vhost: Arc<str>,
    },
    /// An exchange was created.
    ExchangeCreated {
        /// The virtual host of the exchange.
        vhost: Arc<str>,
        /// The name of the exchange.
        name: Arc<str>,
        /// The declaration that made it.
        declare: ExchangeDeclare,
    },
    /// An exchange was deleted with the bindings from it and to it.
    ExchangeDeleted {
        /// The virtual host of the exchange.
        vhost: Arc<str>,
        /// The name of the exchange.
        name: Arc<str>,
        /// Whether the exchange would have survived a restart.
        durable: bool,
        /// Why it was deleted.
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
        /// Whether the log has the queue.
        is_logged: bool,
        /// Whether there were bindings to it.
        had_bindings: bool,
        /// Why it was deleted.
        cause: Cause,
    },
    /// A binding was made.
    Bound {
        /// The binding.
        binding: Bond,
        /// Whether it survives a restart, as both of its ends do.
        is_logged: bool,
    },
    /// A binding was removed; its ends are still there.
    Unbound {
        /// The binding.
        binding: Bond,
        /// Whether it would have survived a restart.
        is_logged: bool,
    },
}

/// Why something was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The mutation was asked to delete it.
    Request,
    /// It was an auto-delete exchange and lost its last binding.
    Cascade,
    /// Its virtual host was deleted.
    Vhost,
}

impl<T> Change<T> {
    pub(super) fn nothing(answer: T) -> Self {
        Self { answer, effects: Vec::new() }
    }

    pub(super) fn one(answer: T, effect: Effect) -> Self {
        Self { answer, effects: vec![effect] }
    }

    /// Makes another answer of this one.
    pub fn map<U>(self, answer: impl FnOnce(T) -> U) -> Change<U> {
        Change { answer: answer(self.answer), effects: self.effects }
    }
}

impl Effect {
    /// Returns whether routes from an exchange with a name may be different now. Those of the default exchange, which finds
    /// queues by their names, may be different after every effect.
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

    /// Returns whether the effect is about something that survives a restart, so that the log has to have it. A fact about a
    /// virtual host that was deleted covers everything in it.
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

    /// Returns what the log has to have of the effect.
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
