//! The settings of the links, and the traits through which the rest of the node uses them.
use bytes::Bytes;
use futures::future::BoxFuture;
use std::time::Duration;

/// The settings of a node's links.
#[derive(Clone)]
pub struct PeersOptions {
    /// Identity of this node.
    pub node: u64,
    /// Identity of the cluster. Nodes of other clusters are refused.
    pub cluster: u64,
    /// A number that differs at each start of this node, so that peers notice a restart.
    pub boot: u64,
    /// The secret that all nodes of the cluster share. It may only be empty if the wires authenticate the other side.
    pub secret: Bytes,
    /// The largest body of a frame in bytes. It must not be smaller than the largest entry of the log and 64 KiB.
    pub frame_bytes_max: usize,
    /// The most bytes of messages that wait to be sent to one node, beside one message that is larger.
    pub message_bytes_max: u32,
    /// Timeouts and pauses.
    pub times: LinkTimes,
}

/// The timeouts and pauses of links.
#[derive(Clone, Copy, Debug)]
pub struct LinkTimes {
    /// The longest time that connecting may take.
    pub dial_max: Duration,
    /// The longest time that a handshake may take.
    pub handshake_max: Duration,
    /// A side that has sent nothing for this long sends a sign of life.
    pub keep_alive: Duration,
    /// A connection on which nothing arrives for this long is closed.
    pub silence_max: Duration,
    /// A connection on which nothing can be written for this long is closed.
    pub stall_max: Duration,
    /// Pause before a node is dialled again; doubled after each failure, up to `redial_max`.
    pub redial_min: Duration,
    /// The longest pause before a node is dialled again.
    pub redial_max: Duration,
}

impl Default for LinkTimes {
    fn default() -> Self {
        Self {
            dial_max: Duration::from_secs(3),
            handshake_max: Duration::from_secs(3),
            keep_alive: Duration::from_secs(1),
            silence_max: Duration::from_secs(4),
            stall_max: Duration::from_secs(30),
            redial_min: Duration::from_millis(20),
            redial_max: Duration::from_secs(1),
        }
    }
}

/// One of the connections to a node. Each has its own, so that none waits behind another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Lane {
    /// Heartbeats, votes and questions about the leader.
    Control = 1,
    /// Entries of the logs.
    Append = 2,
    /// Snapshots.
    Snapshot = 3,
    /// Messages of the node itself.
    Messages = 4,
    /// One question and its answer. No such connection is kept open.
    Questions = 5,
}

impl Lane {
    /// The connections that are kept open.
    pub(crate) const ALL: [Self; 4] = [Self::Control, Self::Append, Self::Snapshot, Self::Messages];

    pub(crate) fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().chain([Self::Questions]).find(|lane| *lane as u8 == number)
    }
}

/// Which of two nodes sends messages over a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkDirection {
    /// This node sends.
    Outgoing,
    /// The other node sends.
    Incoming,
}

/// Receives the messages that other nodes send with [`Peers::send`](super::Peers::send). The methods are called by one
/// task per connection and must not block. A node that does not read its messages in time slows their senders down.
pub trait PeerMessages: Send + Sync + 'static {
    /// A message has arrived. The messages of one connection arrive in the order in which they were sent.
    fn received(&self, from: u64, channel: u8, message: Bytes);

    /// A connection for messages is open. All messages of an incoming connection come after this call. The boot is the
    /// number of the other node's start: if it differs from the one before, that node was restarted.
    fn connected(&self, _node: u64, _boot: u64, _direction: LinkDirection) {}

    /// A connection for messages has ended, after all messages that came over it. Messages that were sent and have not
    /// arrived are lost.
    fn disconnected(&self, _node: u64, _boot: u64, _direction: LinkDirection) {}
}

/// Answers the questions of other nodes.
pub trait PeerQuestions: Send + Sync + 'static {
    /// Returns the answer to a question of the node `from`. It is not sent if it takes longer than half a minute or has
    /// more than 64 KiB.
    fn answer(&self, from: u64, question: Bytes) -> BoxFuture<'static, Bytes>;
}

/// The reasons why a message is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There is no connection to the node.
    #[error("there is no connection to node {0}")]
    NotConnected(u64),
    /// The message is larger than [`PeersOptions::frame_bytes_max`].
    #[error("a message of {0} bytes is larger than a frame may be")]
    TooLarge(usize),
}
