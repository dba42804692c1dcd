//! One node of the broker: the async shell around the rules.
//!
//! [`Broker`] is the cheap handle that every protocol and the HTTP API go through. Its functions that a client or a
//! tool can reach are the *doors* of the node: one file for each purpose, in the order of a message's journey:
//! `declare`, `publish` with `message` (properties that the broker looks at), `subscribe`, `ledger` and `settle`;
//! `caller` says who makes a request at a door. Behind the doors are `effects` (the consequences of a change of the
//! catalog), `queue` (the engine's queue behind its lock), `connections`, `limits`, `auth`, `memory` and `clock`.
//!
//! Durable queues: `shard`, `outbox` and `entry` (the operations of this node for the log, and their format), `forward` and
//! `inbox` (handing them to the leader of the log), `shards`, `contents`, `place` and `files` (the state that the queues
//! share), `storage` and `identity` (opening and closing), `apply` and `replica` (applying the log), `leading` (serving the
//! queues of a shard), `restore` (putting a snapshot in place), `catch_up` and `arrivals` (the contents that come with the
//! snapshot of another node), `agreement` (declarations that the shards lack after a start), `fetch` and `read` (reading contents
//! back), `maintain`, `upkeep`, `relocate` and `archive` (keeping the log in bounds). Definitions: `definition_log` and
//! `commands` (changes on their way into the log of group 0), `definitions` (their encoding in snapshots). Several nodes:
//! `cluster` (who the members are and which of them leads), `ask` with `ask_messages` (requests about a queue that its leader
//! answers), `fronts` with `node_sink` and `grants` (consumers on nodes that do not lead their queue), `links`, `outgoing` and
//! `peer_messages` (what nodes send each other). `health` reports whether all of that works, `tasks` decides which panics end
//! the process.
//!
//! Lock order: catalog, queues, queue, outbox, output; queue, contents, files. No lock is held across an
//! await.
mod activity;
mod agreement;
mod apply;
mod archive;
mod arrivals;
mod ask;
mod ask_messages;
mod auth;
mod caller;
mod catch_up;
#[cfg(test)]
mod catch_up_tests;
#[cfg(test)]
mod claims_tests;
mod clock;
mod cluster;
#[cfg(test)]
mod cluster_tests;
mod commands;
mod connections;
mod contents;
mod declare;
mod definition_log;
mod definitions;
mod deleted;
mod delivered;
mod due;
mod effects;
mod entry;
mod fetch;
mod figures;
mod files;
mod forward;
mod fronts;
mod grants;
mod health;
mod held;
mod identity;
mod inbox;
mod lacking;
mod leading;
mod ledger;
mod limits;
mod links;
mod maintain;
mod memory;
mod message;
#[cfg(any(test, feature = "mutants"))]
pub mod mutants;
mod node_sink;
mod open_error;
mod opened;
mod outbox;
mod outcome;
mod outgoing;
mod peer_messages;
mod place;
mod publish;
mod queue;
mod queue_figures;
mod read;
mod read_failure;
mod relocate;
mod replica;
mod restore;
mod settle;
mod shard;
mod shards;
#[cfg(feature = "simulated")]
mod simulated;
mod storage;
mod subscribe;
mod tasks;
#[cfg(test)]
mod test_node;
#[cfg(test)]
mod test_wires;
mod throttle;
mod upkeep;
mod waiter;

pub use auth::{Identity, WrongLogin, owned_part};
pub use caller::Caller;
pub use clock::Clock;
pub use cluster::{
    ClusterError, ClusterOptions, ClusterTimes, ClusterView, GroupView, HandOverLate, MemberState, MemberView,
};
pub use connections::{ChannelView, Churn, Client, Connection, ConnectionId, Hello, Tuned};
pub use deleted::{DeleteOnly, DeletedQueue};
pub use figures::{ConsumerView, Descriptors, Listener, descriptors};
pub use health::{StorageTrouble, Trouble};
pub use held::{HeldBytes, TooMuchHeld};
pub use ledger::{Ledger, Subscriber, UnknownTag};
pub use leveret_engine::catalog;
pub use leveret_engine::queue::{
    Body, ConsumerId, ConsumerOwner, Counters, DWELL_BOUNDS_SECONDS, Delivery, DeliveryId, Depth, Dwell, Extent, Fill,
    MessageId, Sink, Source, Subscription,
};
pub use leveret_replication::{TcpWires, TlsFileError, TlsFiles, TlsWires, Wires};
pub use limits::{Limits, LimitsError, Permit, Wishes};
pub use maintain::StorageUsage;
pub use memory::{Memory, available_bytes, default_max};
pub use message::{Message, MessageError, RoutedMessage};
pub use open_error::OpenError;
pub use opened::{OpenedMemory, TooMuchOpened};
pub use publish::{Lag, PART_QUEUES, Route, RouteMemory, RoutedRun};
pub use queue::{Queue, QueueId};
pub use queue_figures::{FiguresElsewhere, QueueFigures};
pub use settle::{Outcome, Settlement};
#[cfg(feature = "simulated")]
pub use simulated::ReplicaView;
pub use storage::StorageOptions;
pub use tasks::{EXIT_AFTER_PANIC, install_panic_hook};
pub use throttle::Throttle;
pub use waiter::{Confirm, Waiter};

use leveret_engine::catalog::Catalog;
use parking_lot::{RwLock, RwLockReadGuard};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The options of a node.
#[derive(Clone, Debug)]
pub struct Options {
    /// The name of the node, which the API shows.
    pub name: String,
    /// The memory budget in bytes: while more is used, publishers are held back.
    pub memory_max: u64,
    /// The size of the largest message that is accepted, in bytes.
    pub message_bytes_max: u64,
    /// The name of the only user, who exists from the start.
    pub default_user: String,
    /// The password of the default user.
    pub default_pass: String,
    /// The limits on the number of clients.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: "leveret@localhost".to_owned(),
            memory_max: default_max(),
            message_bytes_max: 16 << 20,
            default_user: "guest".to_owned(),
            default_pass: "guest".to_owned(),
            limits: Limits::default(),
        }
    }
}

/// A node of the broker; cheap to clone.
#[derive(Clone)]
pub struct Broker(Arc<Node>);

pub(crate) struct Node {
    options: Options,
    clock: Clock,
    memory: Arc<Memory>,
    logins: auth::Logins,
    places: Arc<limits::Places>,
    catalog: RwLock<Catalog>,
    generations: publish::Generations,
    definitions: definition_log::DefinitionLog,
    queues: Queues,
    connections: connections::Connections,
    activity: activity::Activity,
    network: Network,
    stopping: CancellationToken,
    /// The shards; set when storage is announced or begins to open.
    shards: OnceLock<Arc<shards::Shards>>,
    storage: OnceLock<storage::Storage>,
}

/// Through what clients and other nodes reach the node.
#[derive(Default)]
struct Network {
    listeners: figures::Listeners,
    /// The receivers of the messages of other nodes.
    messages: Arc<peer_messages::MessageChannels>,
    /// The starts of other nodes from which messages come.
    starts: fronts::KnownStarts,
    /// The cluster; not set if the node is the only one.
    cluster: OnceLock<Arc<cluster::Cluster>>,
}

impl Node {
    /// Returns this start of the node. Before storage is opened, and without storage, it has no numbers.
    pub(crate) fn run(&self) -> catalog::NodeRun {
        self.definitions.run.get().copied().unwrap_or_default()
    }

    fn queue_context(&self) -> queue::QueueContext {
        queue::QueueContext {
            memory: self.memory.clone(),
            unfinished: self.queues.unfinished.clone(),
            shards: self.shards.get().cloned(),
            node: self.run().node,
        }
    }
}

/// The queues of the node.
#[derive(Default)]
struct Queues {
    /// The declared queues by identity.
    by_id: RwLock<QueuesById>,
    /// The durable queues whose declaration is on its way into the log of their shard.
    declared: replica::DeclaredQueues,
    /// The list of the queues with more to deliver than one visit may.
    unfinished: Arc<due::DueQueues>,
}

impl Queues {
    /// Closes a queue and removes it from the declared ones. Returns what is left of it; `None` if it is not declared.
    fn stop_serving(&self, id: QueueId) -> Option<DeletedQueue> {
        let queue = self.by_id.read().get(&id).cloned()?;
        let deleted = queue.close();
        self.by_id.write().remove(&id);
        Some(deleted)
    }
}

type QueuesById = HashMap<QueueId, Arc<Queue>, foldhash::fast::RandomState>;

impl Broker {
    /// Starts a node that has only the predeclared exchanges. Everything is in memory until
    /// [`open_storage`](Self::open_storage). The node's tasks run until [`stop`](Self::stop). To be called inside a tokio
    /// runtime.
    #[must_use]
    pub fn start(options: Options) -> Self {
        let node = Node {
            clock: Clock::start(),
            memory: Arc::new(Memory::new(options.memory_max)),
            logins: auth::Logins::new(&options.default_user, &options.default_pass),
            places: limits::Places::new(options.limits),
            catalog: RwLock::new(Catalog::new((options.memory_max / DEFINITIONS_PART) as usize)),
            generations: publish::Generations::default(),
            definitions: definition_log::DefinitionLog::new(),
            queues: Queues::default(),
            connections: connections::Connections::default(),
            activity: activity::Activity::default(),
            network: Network::default(),
            stopping: CancellationToken::new(),
            shards: OnceLock::new(),
            storage: OnceLock::new(),
            options,
        };
        let broker = Self(Arc::new(node));
        let forward = forward::ForwardMessages(Arc::downgrade(&broker.0));
        broker.0.network.messages.register(forward::CHANNEL, Arc::new(forward));
        let away = publish::AwayMessages(Arc::downgrade(&broker.0));
        broker.0.network.messages.register(publish::AWAY_CHANNEL, Arc::new(away));
        let asks = ask::AskMessages(Arc::downgrade(&broker.0));
        broker.0.network.messages.register(ask_messages::CHANNEL, Arc::new(asks));
        let fronts = fronts::FrontMessages(Arc::downgrade(&broker.0));
        broker.0.network.messages.register(grants::CHANNEL, Arc::new(fronts));
        broker.spawn_critical("upkeep", broker.clone().upkeep());
        broker.spawn_critical("deliveries that go on", broker.clone().go_on());
        broker
    }

    /// Ends the tasks of the node, and whatever waits for them.
    pub fn stop(&self) {
        self.0.stopping.cancel();
    }

    /// Notes that something happens, so that the tasks that check something regularly do so for a while. To be called by
    /// protocols when they receive bytes from a client.
    #[inline]
    pub fn mark_activity(&self) {
        self.0.activity.mark();
    }

    /// Samples the memory ten times per second, and makes empty queues free memory every five seconds; neither happens
    /// while the node is idle.
    async fn upkeep(self) {
        let mut quiet_since = None;
        for tick in 0u64.. {
            tokio::select! {
                () = self.0.activity.watch(SAMPLE_EVERY, &mut quiet_since) => self.0.memory.sample(),
                () = self.0.stopping.cancelled() => return,
            }
            if self.0.memory.is_alarmed() {
                self.0.activity.mark(); // memory may be freed by itself, and publishers wait for it
            }
            if tick % TRIM_EVERY_TICKS == 0 {
                let queues: Vec<_> = self.0.queues.by_id.read().values().cloned().collect();
                for queue in queues {
                    queue.trim();
                }
            }
        }
    }

    /// Continues with deliveries that were too many for one visit to their queue.
    async fn go_on(self) {
        loop {
            let queues = tokio::select! {
                queues = self.0.queues.unfinished.take() => queues,
                () = self.0.stopping.cancelled() => return,
            };
            for queue in queues.into_iter().filter_map(|id| self.queue(id)) {
                queue.go_on(self.clock().now());
                tokio::task::yield_now().await;
            }
        }
    }

    /// Returns the name of the node.
    pub fn name(&self) -> &str {
        &self.0.options.name
    }

    /// Returns the options that the node was started with.
    pub fn options(&self) -> &Options {
        &self.0.options
    }

    /// Returns the clock of the node.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Returns the memory budget of the node.
    pub fn memory(&self) -> &Memory {
        &self.0.memory
    }

    pub(crate) fn node(&self) -> &Node {
        &self.0
    }

    /// Locks the catalog (exchanges, queues, bindings) for reading. The lock must be held only for a short time, never
    /// across an await.
    pub fn catalog(&self) -> RwLockReadGuard<'_, Catalog> {
        self.0.catalog.read()
    }

    /// Returns the queues whose changes are logged, in the order of their identities.
    pub(crate) fn durable_queues(&self) -> Vec<Arc<Queue>> {
        let mut queues: Vec<_> = self.queues().values().filter(|queue| queue.shards.is_some()).cloned().collect();
        queues.sort_by_key(|queue| queue.id);
        queues
    }

    pub(crate) fn queues(&self) -> RwLockReadGuard<'_, QueuesById> {
        self.0.queues.by_id.read()
    }
}

/// The definitions of a virtual host may take this part of the memory budget.
const DEFINITIONS_PART: u64 = 4;
const SAMPLE_EVERY: Duration = Duration::from_millis(100);
const TRIM_EVERY_TICKS: u64 = 50;
