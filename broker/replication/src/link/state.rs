//! The data that the tasks of a node's links share.
use super::accepted::AcceptedConnections;
use super::calls::OpenConnection;
use super::connection::PeerRequests;
use super::options::{Lane, PeerMessages, PeerQuestions, PeersOptions};
use super::refusals::RefusalLog;
use super::wires::Wires;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What has become of a node that this node keeps connections to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerChange {
    /// The process of the node has ended.
    Gone,
    /// Entries can be sent to it again.
    Back,
}

/// Called with a node and what has become of it.
pub(crate) type ChangeNotice = Arc<dyn Fn(u64, PeerChange) + Send + Sync>;

pub(super) struct PeersInner {
    pub(super) options: PeersOptions,
    pub(super) wires: Arc<dyn Wires>,
    pub(super) messages: Arc<dyn PeerMessages>,
    pub(super) requests: Mutex<Option<Arc<dyn PeerRequests>>>,
    pub(super) changes: Mutex<Option<ChangeNotice>>,
    pub(super) questions: Mutex<Option<Arc<dyn PeerQuestions>>>,
    /// Permits for answering a question.
    pub(super) answering: Semaphore,
    pub(super) accepted: AcceptedConnections,
    pub(super) refusals: RefusalLog,
    pub(super) stopping: CancellationToken,
    pub(super) tasks: TaskTracker,
    pub(super) peers: Mutex<BTreeMap<u64, Arc<Peer>>>,
}

impl PeersInner {
    pub(super) fn new(options: PeersOptions, wires: Arc<dyn Wires>, messages: Arc<dyn PeerMessages>) -> Self {
        Self {
            options,
            wires,
            messages,
            requests: Mutex::default(),
            changes: Mutex::default(),
            questions: Mutex::default(),
            answering: Semaphore::new(ANSWERS_MAX),
            accepted: AcceptedConnections::default(),
            refusals: RefusalLog::default(),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
            peers: Mutex::default(),
        }
    }
}

/// A node that this node keeps connections to.
pub(super) struct Peer {
    pub(super) node: u64,
    pub(super) address: Mutex<String>,
    /// True from when the node refused a connection until there is one again.
    pub(super) is_gone: AtomicBool,
    /// Room for messages that wait to be sent, in bytes.
    pub(super) room: Arc<Semaphore>,
    lanes: [Mutex<Option<Arc<OpenConnection>>>; Lane::ALL.len()],
    pub(super) forgotten: CancellationToken,
}

impl PeersInner {
    /// Tells what has become of a node.
    pub(super) fn tell(&self, node: u64, change: PeerChange) {
        let changes = self.changes.lock().clone();
        if let Some(changes) = changes {
            changes(node, change);
        }
    }
}

impl Peer {
    pub(super) fn new(node: u64, address: String, room: u32) -> Self {
        Self {
            node,
            address: Mutex::new(address),
            is_gone: AtomicBool::new(false),
            room: Arc::new(Semaphore::new(room as usize)),
            lanes: Default::default(),
            forgotten: CancellationToken::new(),
        }
    }

    pub(super) fn lane(&self, lane: Lane) -> &Mutex<Option<Arc<OpenConnection>>> {
        &self.lanes[lane as usize - 1]
    }
}

/// The most questions that are answered at the same time; further ones wait.
const ANSWERS_MAX: usize = 64;
