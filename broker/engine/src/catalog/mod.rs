//! The definitions: virtual hosts with their exchanges, queues and bindings, and the rules for declaring them.
//!
//! Refusals are worded as RabbitMQ words them, because clients and people search for these texts. Nothing depends on hash
//! order: everything that is listed or changed in sequence is in ordered maps. In order of use: `exchanges`, `queues`,
//! `arguments` (the settings of both), `access`, `bindings`, `limits`, `refusals`, `effects` (everything that a mutation
//! changed), `facts` (the effects that survive a restart), `unlink` (the part of a deletion that is done later), `route`,
//! `listing`.
mod access;
mod arguments;
mod bindings;
mod command;
mod effects;
mod exchanges;
mod facts;
#[cfg(test)]
mod facts_tests;
mod homes;
mod limits;
mod listing;
mod queues;
mod refusals;
mod route;
#[cfg(test)]
mod tests;
mod unlink;

pub use access::{Origin, Purpose};
pub use arguments::{DeliveryLimit, ExchangeSettings, QueueSettings, QueueType, idle_arguments};
pub use bindings::{Binding, BindingDeclare, Destination, properties_key};
pub use command::{CatalogCommand, CommandAnswer};
pub use effects::{Change, Effect};
pub use exchanges::{Exchange, ExchangeDeclare};
pub use facts::{Bond, Fact, QueueLife};
pub use homes::NodeRun;
pub use queues::{DeclareResult, DeclaredQueue, QueueDeclare};
pub use refusals::on_default_exchange;
pub use route::RouteProperties;
pub use unlink::{UNLINKED_AT_ONCE, UnlinkedObjects};

use leveret_model::refusal::Refusal;
use limits::Usage;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use unlink::Remains;

/// The identity of a queue. It is never used again: a queue that is declared again under the same name has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId(pub u64);

/// The identity of a connection, which no other connection of the cluster has or will have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    /// The start of the node that the client is connected to.
    pub run: NodeRun,
    /// The number of the connection among those of this start.
    pub number: u64,
}

/// The identity of an exchange on this node, for as long as the node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ExchangeId(u64);

/// The name of a virtual host, and the name of a queue in it.
type Names = (Arc<str>, Arc<str>);

/// All definitions.
pub struct Catalog {
    vhosts: BTreeMap<Arc<str>, Vhost>,
    /// The identity that the next queue gets. It follows from the commands, so that it is the same on every node.
    next_queue: u64,
    /// The identity that the next exchange gets.
    next_exchange: u64,
    /// The start of each node that runs, by node.
    running: BTreeMap<u64, u64>,
    /// The queues that belong to each connection: the virtual host and the name of each.
    exclusive: BTreeMap<ConnectionId, BTreeSet<Names>>,
    /// The memory that the definitions of one virtual host may take, in bytes.
    bytes_max: usize,
    /// The number of bindings that a deletion unlinks at once.
    unlinked_at_once: usize,
}

/// One virtual host.
pub(crate) struct Vhost {
    name: Arc<str>,
    exchanges: BTreeMap<Arc<str>, Exchange>,
    exchange_names: HashMap<ExchangeId, Arc<str>, foldhash::fast::FixedState>,
    queues: BTreeMap<Arc<str>, DeclaredQueue>,
    usage: Usage,
    remains: Remains,
}

impl Default for Catalog {
    fn default() -> Self {
        Self::new(limits::BYTES_MAX)
    }
}

impl Catalog {
    /// Returns a catalog with the virtual host `/` and the exchanges that every virtual host has. The definitions of each
    /// virtual host may take `bytes_max` bytes of memory, but never more than 512 MiB.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let mut catalog = Self {
            vhosts: BTreeMap::new(),
            next_queue: 1,
            next_exchange: 1,
            running: BTreeMap::new(),
            exclusive: BTreeMap::new(),
            bytes_max: bytes_max.min(limits::BYTES_MAX),
            unlinked_at_once: UNLINKED_AT_ONCE,
        };
        let _ = catalog.create_vhost("/"); // nothing follows the effects of a catalog that is being created
        catalog
    }

    /// Creates a virtual host with its predeclared exchanges. The answer is false if the virtual host exists already.
    pub fn create_vhost(&mut self, name: &str) -> Change<bool> {
        if self.vhosts.contains_key(name) {
            return Change::nothing(false);
        }
        let name: Arc<str> = name.into();
        let mut vhost = Vhost {
            name: name.clone(),
            exchanges: BTreeMap::new(),
            exchange_names: HashMap::default(),
            queues: BTreeMap::new(),
            usage: Usage::default(),
            remains: Remains::default(),
        };
        for (exchange, declare) in exchanges::predeclared() {
            vhost.add_exchange(self.next_exchange(), exchange, declare, None);
        }
        self.vhosts.insert(name.clone(), vhost);
        Change::one(true, Effect::VhostCreated { vhost: name })
    }

    /// Deletes a virtual host and everything in it. The answer is false if there is no such virtual host.
    pub fn delete_vhost(&mut self, name: &str) -> Change<bool> {
        let Some(vhost) = self.vhosts.remove(name) else { return Change::nothing(false) };
        for owned in self.exclusive.values_mut() {
            owned.retain(|(at, _)| **at != *name);
        }
        self.exclusive.retain(|_, owned| !owned.is_empty());
        let at = &vhost.name;
        let queues = vhost.queues.iter().map(|(name, queue)| queue.deleted(at.clone(), name.clone()));
        let mut change = Change { answer: true, effects: queues.collect() };
        change.effects.push(Effect::VhostDeleted { vhost: vhost.name });
        change
    }

    /// Returns whether there is a virtual host of that name.
    #[must_use]
    pub fn has_vhost(&self, name: &str) -> bool {
        self.vhosts.contains_key(name)
    }

    /// Returns the identity that the next queue will have.
    #[must_use]
    pub fn next_identity(&self) -> u64 {
        self.next_queue
    }

    /// Ensures that identities below `next` are not used again.
    fn raise_next_identity(&mut self, next: u64) {
        self.next_queue = self.next_queue.max(next);
    }

    fn next_queue(&mut self) -> QueueId {
        self.next_queue += 1;
        QueueId(self.next_queue - 1)
    }

    fn next_exchange(&mut self) -> ExchangeId {
        self.next_exchange += 1;
        ExchangeId(self.next_exchange - 1)
    }

    pub(crate) fn vhost(&self, name: &str) -> Result<&Vhost, Refusal> {
        self.vhosts.get(name).ok_or_else(|| Refusal::no_vhost(name))
    }

    fn vhost_mut(&mut self, name: &str) -> Result<&mut Vhost, Refusal> {
        self.vhosts.get_mut(name).ok_or_else(|| Refusal::no_vhost(name))
    }
}

impl Vhost {
    /// Checks that this node has memory for definitions of this size beside those that are left and are being unlinked.
    ///
    /// # Errors
    /// 406 naming the limit.
    fn admit(&self, added: Usage, bytes_max: usize) -> Result<(), Refusal> {
        let mut all = self.usage;
        all.add(self.remains.usage());
        all.check(added, bytes_max, &self.name)
    }
}
