//! Keeps the connections to one node open: dials again after each end, with growing pauses.
use super::calls::{AnswerHandler, OpenConnection, Waiting};
use super::connection::{self, ConnectionEnd};
use super::handshake::{self, HandshakeError};
use super::options::{Lane, LinkDirection};
use super::state::{Peer, PeerChange, PeersInner};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// The reasons why a node cannot be connected to.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("{address}: {error}")]
    Wire { address: String, error: io::Error },
    #[error("{address}: no answer in time")]
    Late { address: String },
    #[error("{address}: {error}")]
    Handshake { address: String, error: HandshakeError },
}

/// Keeps one connection to a node open until the future is dropped.
pub(super) async fn keep_open(peers: Arc<PeersInner>, peer: Arc<Peer>, lane: Lane) {
    let times = peers.options.times;
    let mut log = DialLog { node: peer.node, lane, last: None };
    let mut pause = Duration::ZERO;
    let mut quick = 0;
    loop {
        tokio::time::sleep(pause).await;
        match connect(&peers, &peer, lane).await {
            Ok(end) => {
                log.ended(&end);
                // A process that has just ended may still accept connections for a moment.
                quick = if matches!(end, ConnectionEnd::Broken(_)) { QUICK_REDIALS } else { 0 };
                pause = if quick > 0 { Duration::ZERO } else { times.redial_min };
            }
            Err(error) => {
                note_refusal(&peers, &peer, lane, &error);
                log.failed(&error);
                (quick, pause) = match quick {
                    0 => (0, (pause * 2).clamp(times.redial_min, times.redial_max)),
                    quick => (quick - 1, QUICK_PAUSE),
                };
            }
        }
    }
}

/// If nobody accepts connections at the node's address any more, its process has ended.
fn note_refusal(peers: &PeersInner, peer: &Peer, lane: Lane, error: &DialError) {
    let refused = matches!(error, DialError::Wire { error, .. } if error.kind() == io::ErrorKind::ConnectionRefused);
    if refused && lane == Lane::Control && !peer.is_gone.swap(true, Relaxed) {
        tracing::warn!("the process of node {:016x} has ended", peer.node);
        peers.tell(peer.node, PeerChange::Gone);
    }
}

/// Dials the node, and uses the connection until it ends.
async fn connect(peers: &Arc<PeersInner>, peer: &Arc<Peer>, lane: Lane) -> Result<ConnectionEnd, DialError> {
    let (options, address) = (&peers.options, peer.address.lock().clone());
    let late = |_| DialError::Late { address: address.clone() };
    let dialled = timeout(options.times.dial_max, peers.wires.dial(address.clone())).await.map_err(late)?;
    let mut wire = dialled.map_err(|error| DialError::Wire { address: address.clone(), error })?;
    let shaken = handshake::dialled(&mut wire, options, lane, peer.node);
    let other = timeout(options.times.handshake_max, shaken).await.map_err(late)?;
    let other = other.map_err(|error| DialError::Handshake { address: address.clone(), error })?;
    let (queue, to_send) = mpsc::channel(QUEUE);
    let waiting = Arc::new(Waiting::default());
    let open = Arc::new(OpenConnection { node: peer.node, boot: other.boot, queue, waiting: waiting.clone() });
    let _open = Opened::new(peers, peer, lane, &open);
    drop(open);
    let mut handler = AnswerHandler(waiting);
    Ok(connection::run(wire, to_send, &mut handler, options.times, options.frame_bytes_max).await)
}

/// A connection that requests can be sent on, until this is dropped.
struct Opened {
    peers: Arc<PeersInner>,
    peer: Arc<Peer>,
    lane: Lane,
    boot: u64,
    waiting: Arc<Waiting>,
}

impl Opened {
    fn new(peers: &Arc<PeersInner>, peer: &Arc<Peer>, lane: Lane, open: &Arc<OpenConnection>) -> Self {
        *peer.lane(lane).lock() = Some(open.clone());
        if lane == Lane::Control {
            peer.is_gone.store(false, Relaxed);
        }
        if lane == Lane::Append {
            peers.tell(peer.node, PeerChange::Back);
        }
        if lane == Lane::Messages {
            peers.messages.connected(peer.node, open.boot, LinkDirection::Outgoing);
        }
        let waiting = open.waiting.clone();
        Self { peers: peers.clone(), peer: peer.clone(), lane, boot: open.boot, waiting }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        *self.peer.lane(self.lane).lock() = None;
        self.waiting.give_up();
        if self.lane == Lane::Messages {
            self.peers.messages.disconnected(self.peer.node, self.boot, LinkDirection::Outgoing);
        }
    }
}

/// Logs why there is no connection, but the same reason only every [`LOG_EVERY`].
struct DialLog {
    node: u64,
    lane: Lane,
    last: Option<(String, Instant)>,
}

impl DialLog {
    fn ended(&mut self, end: &ConnectionEnd) {
        self.last = None;
        if self.lane == Lane::Control {
            tracing::warn!("the connection to node {:016x} has ended: {end}", self.node);
        }
    }

    fn failed(&mut self, error: &DialError) {
        let text = error.to_string();
        let is_new = self.last.as_ref().is_none_or(|(last, at)| *last != text || at.elapsed() >= LOG_EVERY);
        if is_new && self.lane == Lane::Control {
            tracing::warn!("node {:016x} cannot be reached: {text}", self.node);
        }
        if is_new {
            self.last = Some((text, Instant::now()));
        }
    }
}

/// The most frames that wait to be sent on one connection.
const QUEUE: usize = 256;
/// After a connection was broken, the node is dialled this many times with short pauses, to see whether it has ended.
const QUICK_REDIALS: u32 = 4;
const QUICK_PAUSE: Duration = Duration::from_millis(3);
const LOG_EVERY: Duration = Duration::from_secs(10);
