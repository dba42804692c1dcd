//! [`Peers`], the handle to the links of a node.
use super::accept;
use super::ask::{self, AskError, PeerAnswer};
use super::calls::{CallError, PendingAnswer};
use super::connection::PeerRequests;
use super::dial;
use super::frame::FrameToSend;
use super::options::{Lane, PeerMessages, PeerQuestions, PeersOptions, SendError};
use super::state::{ChangeNotice, Peer, PeersInner};
use super::wires::Wires;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// The links to the other nodes of the cluster; cheap to clone.
#[derive(Clone)]
pub struct Peers(Arc<PeersInner>);

impl Peers {
    /// Begins to accept connections of other nodes. Must be called in a tokio runtime. `messages` gets the messages that
    /// other nodes send.
    ///
    /// # Panics
    /// If there is no secret, and the wires do not authenticate the other side either.
    #[must_use]
    pub fn start(options: PeersOptions, wires: Arc<dyn Wires>, messages: Arc<dyn PeerMessages>) -> Self {
        let is_closed = !options.secret.is_empty() || wires.are_authenticated();
        assert!(is_closed, "links without a secret and without certificates are open to everybody");
        let inner = Arc::new(PeersInner::new(options, wires, messages));
        let (stopping, accepting) = (inner.stopping.clone(), accept::accept_all(inner.clone()));
        inner.tasks.spawn(async move { stopping.run_until_cancelled_owned(accepting).await });
        let wires = inner.wires.clone();
        let links = Self(inner);
        links.spawn(async move { wires.maintain().await });
        links
    }

    /// Returns the identity of this node.
    #[must_use]
    pub fn node(&self) -> u64 {
        self.0.options.node
    }

    /// Keeps connections to a node open from now on. If the node is known already, it is dialled at the new address
    /// once its connections have ended. Does nothing for this node itself, and for an empty address.
    pub fn introduce(&self, node: u64, address: &str) {
        if node == self.node() || address.is_empty() || self.0.stopping.is_cancelled() {
            return;
        }
        let mut peers = self.0.peers.lock();
        if let Some(peer) = peers.get(&node) {
            address.clone_into(&mut peer.address.lock());
            return;
        }
        let peer = Arc::new(Peer::new(node, address.to_owned(), self.0.options.message_bytes_max));
        peers.insert(node, peer.clone());
        for lane in Lane::ALL {
            let (stopping, forgotten) = (self.0.stopping.clone(), peer.forgotten.clone());
            let dialling = dial::keep_open(self.0.clone(), peer.clone(), lane);
            self.0.tasks.spawn(async move {
                tokio::select! {
                    () = dialling => {}
                    () = stopping.cancelled() => {}
                    () = forgotten.cancelled() => {}
                }
            });
        }
    }

    /// Closes the connections to a node and dials it no more. Its own connections to this node stay.
    pub fn forget(&self, node: u64) {
        if let Some(peer) = self.0.peers.lock().remove(&node) {
            peer.forgotten.cancel();
        }
    }

    /// Sends a message on a channel, of which there are 255. The messages to one node arrive in the order in which they
    /// were sent, whatever their channel. Waits while more bytes than [`PeersOptions::message_bytes_max`] are on their
    /// way to the node's socket. Returns when the message is queued; it may still be lost if the connection breaks, which
    /// [`PeerMessages::disconnected`] says.
    ///
    /// # Errors
    /// [`SendError`] if there is no connection or the message is too large.
    ///
    /// # Panics
    /// If the channel is 255.
    pub async fn send(&self, node: u64, channel: u8, message: Bytes) -> Result<(), SendError> {
        assert!(channel < u8::MAX, "channel 255 does not exist");
        if message.len() > self.0.options.frame_bytes_max {
            return Err(SendError::TooLarge(message.len()));
        }
        let absent = || SendError::NotConnected(node);
        let peer = self.0.peers.lock().get(&node).cloned().ok_or_else(absent)?;
        let bytes = (message.len() as u64 + MESSAGE_COST).min(u64::from(self.0.options.message_bytes_max)) as u32;
        let open = peer.lane(Lane::Messages).lock().clone().ok_or_else(absent)?;
        let room = peer.room.clone().acquire_many_owned(bytes).await.map_err(|_| absent())?;
        let mut frame = FrameToSend::new(channel + 1, 0, 0, vec![message]);
        frame.room = Some(room);
        open.queue.send(frame).await.map_err(|_| absent())
    }

    /// Asks the node that listens at `address`, which need not be known, and waits for the answer for at most `limit`.
    /// The connections that are kept open have no part in it.
    ///
    /// # Errors
    /// [`AskError`] if there is no answer in time.
    pub fn ask<'a>(
        &'a self,
        address: &'a str,
        question: Bytes,
        limit: Duration,
    ) -> BoxFuture<'a, Result<PeerAnswer, AskError>> {
        Box::pin(ask::ask(&self.0, address, question, limit))
    }

    /// Sets who answers the questions of other nodes. Until then they are not answered.
    pub fn answer_with(&self, questions: Arc<dyn PeerQuestions>) {
        *self.0.questions.lock() = Some(questions);
    }

    /// Returns whether there is a connection to a node.
    #[must_use]
    pub fn is_connected(&self, node: u64) -> bool {
        let peer = self.0.peers.lock().get(&node).cloned();
        peer.is_some_and(|peer| peer.lane(Lane::Control).lock().is_some())
    }

    /// Returns whether the process of a node has ended, as far as this node can see: its last connection broke, and it
    /// refuses new ones.
    #[must_use]
    pub fn is_gone(&self, node: u64) -> bool {
        self.0.peers.lock().get(&node).is_some_and(|peer| peer.is_gone.load(Relaxed))
    }

    /// Ends all connections, and waits until their tasks have ended.
    pub async fn stop(&self) {
        self.0.stopping.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
        self.0.requests.lock().take(); // these refer to the links
        self.0.changes.lock().take();
        self.0.questions.lock().take();
    }

    /// Sends a request to a node. Returns when it is queued, with what its answer can be waited for with.
    pub(crate) async fn call(
        &self,
        node: u64,
        lane: Lane,
        kind: u8,
        group: u16,
        parts: Vec<Bytes>,
    ) -> Result<PendingAnswer, CallError> {
        let peer = self.0.peers.lock().get(&node).cloned();
        let open = peer.and_then(|peer| peer.lane(lane).lock().clone());
        open.ok_or(CallError::NotConnected(node))?.call(kind, group, parts).await
    }

    /// Sets who handles the requests of other nodes, and who is told what becomes of nodes.
    pub(crate) fn serve(&self, requests: Arc<dyn PeerRequests>, changes: ChangeNotice) {
        *self.0.requests.lock() = Some(requests);
        *self.0.changes.lock() = Some(changes);
    }

    /// Spawns a task that ends when the links stop.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.0.stopping.clone();
        self.0.tasks.spawn(async move { stopping.run_until_cancelled_owned(task).await });
    }
}

/// What a message takes of the room for messages beside its own bytes.
const MESSAGE_COST: u64 = 64;
