//! Accepts the connections of other nodes and serves them.
use super::ask;
use super::connection::{self, Answers, FrameHandler};
use super::frame::LinkFrame;
use super::handshake::{self, HandshakeError, OtherSide};
use super::options::{Lane, LinkDirection, PeerMessages};
use super::state::PeersInner;
use super::wires::Wire;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

/// Accepts connections until the future is dropped.
pub(super) async fn accept_all(peers: Arc<PeersInner>) {
    let unknown = Arc::new(Semaphore::new(UNKNOWN_MAX));
    loop {
        let Ok(place) = unknown.clone().acquire_owned().await else { return };
        match peers.wires.accept().await {
            Ok(wire) => {
                let stopping = peers.stopping.clone();
                let serving = serve(peers.clone(), wire, place);
                peers.tasks.spawn(async move { stopping.run_until_cancelled_owned(serving).await });
            }
            Err(error) => {
                peers.refusals.log(&format!("a connection of another node cannot be accepted: {error}"));
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves a connection to its end. `place` is one of those for connections that are not authenticated yet.
async fn serve(peers: Arc<PeersInner>, wire: Wire, place: OwnedSemaphorePermit) {
    let (options, from) = (&peers.options, wire.from.clone());
    let (wire, other) = match timeout(options.times.handshake_max, authenticate(&peers, wire)).await {
        Ok(Ok(Authenticated { wire, other })) => (wire, other),
        Ok(Err(error)) => return peers.refusals.log(&format!("a connection from {from}: {error}")),
        Err(_) => return peers.refusals.log(&format!("a connection from {from}: no handshake in time")),
    };
    drop(place);
    if other.lane == Lane::Questions {
        return ask::answer(&peers, wire, other).await;
    }
    let (connection, replaced) = peers.accepted.add(other);
    let _ended = connection.ended.clone().drop_guard();
    for replaced in replaced {
        replaced.end.cancel();
        replaced.ended.cancelled().await; // so that its notices come before those of this connection
    }
    let (queue, to_send) = mpsc::channel(QUEUE);
    if let Some(mut handler) = handler(&peers, other, Answers(queue)) {
        let run = connection::run(wire, to_send, &mut *handler, options.times, options.frame_bytes_max);
        if let Some(end) = connection.end.run_until_cancelled(run).await {
            tracing::debug!("the connection of node {:016x} for {:?} has ended: {end}", other.node, other.lane);
        }
    }
    peers.accepted.remove(other, connection.number);
}

/// A connection whose other side is known.
pub(super) struct Authenticated {
    wire: Wire,
    other: OtherSide,
}

/// Finds out who is at the other side of a connection, and whether it belongs to the cluster. The caller bounds the time.
pub(super) async fn authenticate(peers: &PeersInner, wire: Wire) -> Result<Authenticated, HandshakeError> {
    let mut wire = peers.wires.admit(wire).await?;
    match handshake::accepted(&mut wire, &peers.options).await {
        Ok(other) => Ok(Authenticated { wire, other }),
        Err(error) => {
            if matches!(error, HandshakeError::SpeaksTls) {
                wire.part().await; // it has sent more than was read
            }
            Err(error)
        }
    }
}

/// Returns the handler for a connection, or `None` if requests are not handled yet.
fn handler(peers: &PeersInner, other: OtherSide, answers: Answers) -> Option<Box<dyn FrameHandler>> {
    if other.lane != Lane::Messages {
        let requests = peers.requests.lock().clone()?;
        return Some(requests.handler(other.node, other.lane, answers));
    }
    let messages = peers.messages.clone();
    messages.connected(other.node, other.boot, LinkDirection::Incoming);
    Some(Box::new(MessageHandler { messages, other, _answers: answers }))
}

/// Hands on the messages of a connection.
struct MessageHandler {
    messages: Arc<dyn PeerMessages>,
    other: OtherSide,
    /// Messages have no answers, but the connection stays open as long as there could be some.
    _answers: Answers,
}

impl FrameHandler for MessageHandler {
    fn handle(&mut self, frame: LinkFrame) -> BoxFuture<'_, Result<(), String>> {
        let channel = frame.kind - 1; // a sign of life, 0, never gets here
        self.messages.received(self.other.node, channel, frame.body);
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Drop for MessageHandler {
    fn drop(&mut self) {
        self.messages.disconnected(self.other.node, self.other.boot, LinkDirection::Incoming);
    }
}

/// The most connections that are not authenticated yet; further ones wait to be accepted.
const UNKNOWN_MAX: usize = 64;
/// The most answers that wait to be sent on one connection.
const QUEUE: usize = 256;
/// Pause after a connection could not be accepted, for instance for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
