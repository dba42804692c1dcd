//! What is declared: virtual hosts with their exchanges, queues and bindings, and the rules for declaring them.
//!
//! Refusals are worded as RabbitMQ words them, since clients and people search for these texts. Nothing depends on hash
//! order: whatever is listed or changed in sequence lies in ordered maps. In order of use: `vhost`, `exchanges`,
//! `queues`, `bindings`, `route`, `listing`.
mod bindings;
mod exchanges;
mod listing;
mod queues;
mod route;
#[cfg(test)]
mod tests;

pub use bindings::{Binding, Destination};
pub use exchanges::{Exchange, ExchangeDeclare};
pub use queues::{Declared, Queue, QueueDeclare};
pub use route::Routed;

use leveret_model::refusal::Refusal;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Names a queue for ever: declared again under the same name it is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId(pub u64);

/// Names a connection for as long as the node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// Names an exchange for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ExchangeId(u64);

/// Everything that is declared.
pub struct Catalog {
    vhosts: BTreeMap<Arc<str>, Vhost>,
    /// The next identity of a queue or an exchange.
    next_id: u64,
}

/// One virtual host.
#[derive(Default)]
pub(crate) struct Vhost {
    exchanges: BTreeMap<Arc<str>, Exchange>,
    exchange_names: HashMap<ExchangeId, Arc<str>, foldhash::fast::FixedState>,
    queues: BTreeMap<Arc<str>, Queue>,
}

impl Default for Catalog {
    /// The virtual host `/` with the exchanges that every virtual host has.
    fn default() -> Self {
        let mut catalog = Self { vhosts: BTreeMap::new(), next_id: 1 };
        catalog.create_vhost("/");
        catalog
    }
}

impl Catalog {
    /// Makes a virtual host with its predeclared exchanges. False if it is there already.
    pub fn create_vhost(&mut self, name: &str) -> bool {
        if self.vhosts.contains_key(name) {
            return false;
        }
        let mut vhost = Vhost::default();
        for (exchange, declare) in exchanges::predeclared() {
            vhost.add_exchange(self.next_id(), exchange, declare);
        }
        self.vhosts.insert(name.into(), vhost);
        true
    }

    /// Removes a virtual host and all that is in it: its queues.
    pub fn delete_vhost(&mut self, name: &str) -> Option<Vec<QueueId>> {
        let vhost = self.vhosts.remove(name)?;
        Some(vhost.queues.values().map(|queue| queue.id).collect())
    }

    /// Whether there is such a virtual host.
    #[must_use]
    pub fn has_vhost(&self, name: &str) -> bool {
        self.vhosts.contains_key(name)
    }

    /// The identity that the next queue or exchange will have.
    #[must_use]
    pub fn next_identity(&self) -> u64 {
        self.next_id
    }

    /// Identities below `next` are not given any more.
    pub fn raise_next_identity(&mut self, next: u64) {
        self.next_id = self.next_id.max(next);
    }

    /// Whether a binding outlives a restart: both of its ends do.
    #[must_use]
    pub fn is_logged(&self, vhost: &str, source: &str, destination: &Destination) -> bool {
        let exchange = |name: &str| self.exchange(vhost, name).is_ok_and(|exchange| exchange.declared.durable);
        exchange(source)
            && match destination {
                Destination::Exchange(name) => exchange(name),
                Destination::Queue(name) => {
                    self.vhost(vhost).is_ok_and(|vhost| vhost.queues.get(&**name).is_some_and(Queue::is_logged))
                }
            }
    }

    fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    pub(crate) fn vhost(&self, name: &str) -> Result<&Vhost, Refusal> {
        self.vhosts.get(name).ok_or_else(|| Refusal::no_vhost(name))
    }

    fn vhost_mut(&mut self, name: &str) -> Result<&mut Vhost, Refusal> {
        self.vhosts.get_mut(name).ok_or_else(|| Refusal::no_vhost(name))
    }
}

/// The text for a declaration that differs from what is there.
fn inequivalent(
    what: (&str, &str, &str),
    argument: &str,
    received: impl std::fmt::Display,
    current: impl std::fmt::Display,
) -> Refusal {
    let (kind, name, vhost) = what;
    Refusal::precondition(format!(
        "inequivalent arg '{argument}' for {kind} '{name}' in vhost '{vhost}': received '{received}' but current is '{current}'"
    ))
}
