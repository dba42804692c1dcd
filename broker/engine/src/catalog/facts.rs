//! Facts: the form in which the log has the changes of the catalog, and how the catalog is restored from them.
//!
//! The effects of a mutation name everything that changed: for example, the end of an auto-delete exchange that lost its
//! last binding is a fact of its own. Bindings are removed with their ends, so the fact about the end covers them. Facts
//! can therefore be applied again without deciding anything: transient bindings are missing after a restart, but nothing
//! follows from their absence.
use super::bindings::{Destination, Ends};
use super::exchanges::ExchangeDeclare;
use super::{Catalog, QueueId};
use leveret_model::table::FieldTable;
use std::sync::Arc;

/// A definition that was made or deleted.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// Identities below this one are in use or were used.
    NextId(u64),
    /// A virtual host was created, with its predeclared exchanges.
    Vhost(Arc<str>),
    /// A virtual host was deleted with everything in it.
    VhostGone(Arc<str>),
    /// An exchange was declared.
    Exchange {
        /// The virtual host.
        vhost: Arc<str>,
        /// The name.
        name: Arc<str>,
        /// The declaration.
        declare: ExchangeDeclare,
    },
    /// An exchange was deleted with the bindings from it and to it.
    ExchangeGone {
        /// The virtual host.
        vhost: Arc<str>,
        /// The name.
        name: Arc<str>,
    },
    /// A queue was declared.
    Queue {
        /// The virtual host.
        vhost: Arc<str>,
        /// The name.
        name: Arc<str>,
        /// The identity of the queue.
        id: QueueId,
        /// True if the queue is deleted when its last consumer leaves.
        auto_delete: bool,
        /// The arguments as they were declared.
        arguments: FieldTable,
    },
    /// A queue was deleted with the bindings to it.
    QueueGone {
        /// The virtual host.
        vhost: Arc<str>,
        /// The name.
        name: Arc<str>,
    },
    /// A binding was made.
    Bound(Bond),
    /// A binding was removed; its ends still exist.
    Unbound(Bond),
}

/// A binding in the form that facts and effects use.
#[derive(Clone, Debug, PartialEq)]
pub struct Bond {
    /// The virtual host of both ends.
    pub vhost: Arc<str>,
    /// The exchange that the binding leads from.
    pub source: Arc<str>,
    /// The queue or exchange that it leads to.
    pub destination: Destination,
    /// The routing key or pattern.
    pub routing_key: Vec<u8>,
    /// The arguments.
    pub arguments: FieldTable,
}

impl Catalog {
    /// Applies a fact of the log. The change was accepted when it was logged, so nothing is refused, and all consequences
    /// of the change are facts of their own. A fact that was applied before changes nothing.
    pub fn replay(&mut self, fact: Fact) {
        match fact {
            Fact::NextId(next) => self.raise_next_identity(next),
            Fact::Vhost(name) => drop(self.create_vhost(&name)),
            Fact::VhostGone(name) => drop(self.delete_vhost(&name)),
            Fact::Exchange { vhost, name, declare } => {
                let id = self.next_id();
                if let Some(vhost) = self.vhosts.get_mut(&vhost) {
                    vhost.take_exchange(&name);
                    vhost.add_exchange(id, &name, declare);
                }
            }
            Fact::ExchangeGone { vhost, name } => {
                if let Some(vhost) = self.vhosts.get_mut(&vhost) {
                    vhost.take_exchange(&name);
                }
            }
            Fact::Queue { vhost, name, id, auto_delete, arguments } => {
                self.raise_next_identity(id.0 + 1);
                if let Some(vhost) = self.vhosts.get_mut(&vhost) {
                    vhost.take_queue(&name);
                    vhost.add_queue(&name, super::DeclaredQueue::durable(id, auto_delete, arguments));
                }
            }
            Fact::QueueGone { vhost, name } => {
                if let Some(vhost) = self.vhosts.get_mut(&vhost) {
                    vhost.take_queue(&name);
                }
            }
            Fact::Bound(bond) => {
                if let Some(vhost) = self.vhosts.get_mut(&bond.vhost)
                    && let Some(ends) = Ends::find(vhost, &bond.source, &bond.destination)
                {
                    vhost.add_binding(&ends, &bond.routing_key, &bond.arguments);
                }
            }
            Fact::Unbound(bond) => {
                if let Some(vhost) = self.vhosts.get_mut(&bond.vhost)
                    && let Some(ends) = Ends::find(vhost, &bond.source, &bond.destination)
                {
                    vhost.remove_binding(&ends, &bond.routing_key, &bond.arguments);
                }
            }
        }
        let _ = self.unlink(usize::MAX);
    }

    /// Returns facts that restore the part of the catalog that survives a restart.
    #[must_use]
    pub fn durable_facts(&self) -> Vec<Fact> {
        let mut facts = vec![Fact::NextId(self.next_id)];
        let mut bonds = Vec::new();
        for (at, vhost) in &self.vhosts {
            facts.push(Fact::Vhost(at.clone()));
            for (name, exchange) in &vhost.exchanges {
                let declare = exchange.declared.clone();
                if declare.durable && !name.is_empty() && !name.starts_with("amq.") {
                    facts.push(Fact::Exchange { vhost: at.clone(), name: name.clone(), declare });
                }
            }
            for (name, queue) in vhost.queues.iter().filter(|(_, queue)| queue.is_logged()) {
                facts.push(queue.clone().into_fact(at.clone(), name.clone()));
            }
            for (source, exchange) in vhost.exchanges.iter().filter(|(_, exchange)| exchange.declared.durable) {
                for binding in exchange.bindings.iter().filter(|binding| vhost.is_logged(&binding.destination)) {
                    bonds.push(Fact::Bound(Bond {
                        vhost: at.clone(),
                        source: source.clone(),
                        destination: binding.destination.clone(),
                        routing_key: binding.routing_key.to_vec(),
                        arguments: binding.arguments.clone(),
                    }));
                }
            }
        }
        facts.extend(bonds);
        facts
    }
}
