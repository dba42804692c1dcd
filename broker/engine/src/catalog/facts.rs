//! Facts: the definitions as a list, of which a snapshot consists, and how the catalog is made of it. The logs of earlier
//! versions have the changes of the catalog as facts, too.
//!
//! Facts are applied without deciding anything. A fact that was applied before changes nothing.
use super::bindings::{Destination, Ends};
use super::exchanges::ExchangeDeclare;
use super::{Catalog, ConnectionId, DeclaredQueue, NodeRun, QueueId, QueueSettings};
use leveret_model::table::FieldTable;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A definition that was made or deleted.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// The identities of queues below this one are in use or were used.
    NextId(u64),
    /// A virtual host was created, with its predeclared exchanges.
    Vhost(Arc<str>),
    /// A virtual host was deleted with everything in it.
    VhostGone(Arc<str>),
    /// A durable exchange was declared.
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
    /// A queue was declared whose contents are logged.
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
    /// A node runs, as far as is known.
    Running(NodeRun),
    /// A transient exchange was declared.
    TransientExchange {
        /// The virtual host.
        vhost: Arc<str>,
        /// The name.
        name: Arc<str>,
        /// The declaration.
        declare: ExchangeDeclare,
        /// The start of the node that answers for it.
        home: NodeRun,
    },
    /// A queue was declared that ends with a start of a node.
    TransientQueue {
        /// The virtual host.
        vhost: Arc<str>,
        /// The name.
        name: Arc<str>,
        /// The identity of the queue.
        id: QueueId,
        /// How long the queue lives.
        life: QueueLife,
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

/// How long a queue lives that is not logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLife {
    /// True if it was declared as durable.
    pub durable: bool,
    /// The start of the node that it lives on.
    pub home: NodeRun,
    /// The number of the connection that it belongs to; `None` if all may use it.
    pub owner: Option<u64>,
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
    /// Returns the catalog that [`facts`](Self::facts) were made of, with the bounds of this one. Its exchanges get
    /// identities that those of this one never had, so that no cached route means another exchange.
    #[must_use]
    pub fn restored(&self, facts: Vec<Fact>) -> Self {
        let mut restored = Self {
            vhosts: BTreeMap::new(),
            next_queue: 1,
            next_exchange: self.next_exchange,
            running: BTreeMap::new(),
            exclusive: BTreeMap::new(),
            bytes_max: self.bytes_max,
            unlinked_at_once: self.unlinked_at_once,
        };
        if !facts.iter().any(|fact| matches!(fact, Fact::Vhost(_))) {
            restored.replay(Fact::Vhost("/".into())); // earlier versions did not say that it is there
        }
        facts.into_iter().for_each(|fact| restored.replay(fact));
        restored
    }

    /// Applies a fact of the log. The change was accepted when it was logged, so nothing is refused, and all consequences
    /// of the change are facts of their own. A fact that was applied before changes nothing.
    pub fn replay(&mut self, fact: Fact) {
        match fact {
            Fact::NextId(next) => self.raise_next_identity(next),
            Fact::Vhost(name) => drop(self.create_vhost(&name)),
            Fact::VhostGone(name) => drop(self.delete_vhost(&name)),
            Fact::Exchange { vhost, name, declare } => {
                self.put_exchange(&vhost, &name, declare, None);
            }
            Fact::TransientExchange { vhost, name, declare, home } => {
                self.put_exchange(&vhost, &name, declare, Some(home));
            }
            Fact::Running(run) => self.set_running(run),
            Fact::ExchangeGone { vhost, name } => {
                if let Some(vhost) = self.vhosts.get_mut(&vhost) {
                    vhost.take_exchange(&name);
                }
            }
            Fact::Queue { vhost, name, id, auto_delete, arguments } => {
                self.put_queue(&vhost, &name, DeclaredQueue::durable(id, auto_delete, arguments));
            }
            Fact::TransientQueue {
                vhost,
                name,
                id,
                life: QueueLife { durable, home, owner },
                auto_delete,
                arguments,
            } => {
                let settings = QueueSettings::of_accepted(&arguments);
                let exclusive = owner.map(|number| ConnectionId { run: home, number });
                let (home, sources) = (Some(home), BTreeSet::new());
                let queue = DeclaredQueue { id, durable, home, exclusive, auto_delete, arguments, settings, sources };
                if let Some(owner) = exclusive {
                    self.exclusive.entry(owner).or_default().insert((vhost.clone(), name.clone()));
                }
                self.put_queue(&vhost, &name, queue);
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

    fn put_exchange(&mut self, vhost: &str, name: &str, declare: ExchangeDeclare, home: Option<NodeRun>) {
        let id = self.next_exchange();
        if let Some(vhost) = self.vhosts.get_mut(vhost) {
            vhost.take_exchange(name);
            vhost.add_exchange(id, name, declare, home);
        }
    }

    fn put_queue(&mut self, vhost: &str, name: &Arc<str>, queue: DeclaredQueue) {
        self.raise_next_identity(queue.id.0 + 1);
        if let Some(vhost) = self.vhosts.get_mut(vhost) {
            vhost.take_queue(name);
            vhost.add_queue(name, queue);
        }
    }

    /// Returns facts that restore the catalog.
    #[must_use]
    pub fn facts(&self) -> Vec<Fact> {
        let mut facts = vec![Fact::NextId(self.next_queue)];
        facts.extend(self.starts().map(Fact::Running));
        let mut bonds = Vec::new();
        for (at, vhost) in &self.vhosts {
            facts.push(Fact::Vhost(at.clone()));
            for (name, exchange) in &vhost.exchanges {
                let (vhost, name, declare) = (at.clone(), name.clone(), exchange.declared.clone());
                if let Some(home) = exchange.home {
                    facts.push(Fact::TransientExchange { vhost, name, declare, home });
                } else if !name.is_empty() && !name.starts_with("amq.") {
                    facts.push(Fact::Exchange { vhost, name, declare });
                }
            }
            for (name, queue) in &vhost.queues {
                facts.push(queue.clone().into_fact(at.clone(), name.clone()));
            }
            for (source, exchange) in &vhost.exchanges {
                for binding in exchange.bindings.iter() {
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
