//! Messages to other nodes that are sent without waiting.
use bytes::Bytes;
use leveret_replication::Peers;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::sync::Notify;

/// Sends messages to other nodes without waiting, in order. How many there are is bounded by what the nodes want.
#[derive(Clone)]
pub(crate) struct Outgoing {
    pub(crate) peers: Peers,
    pub(crate) queues: Arc<Mutex<BTreeMap<u64, OutgoingQueue>>>,
}

/// The messages to one node.
#[derive(Clone)]
pub(crate) struct OutgoingQueue {
    messages: Arc<Mutex<VecDeque<(u8, Bytes)>>>,
    /// The bytes of the messages that wait.
    waiting: Arc<AtomicUsize>,
    /// Notified when there is a message.
    some: Arc<Notify>,
    /// Notified when a message was sent.
    sent: Arc<Notify>,
}

impl Outgoing {
    /// Sends a message on a channel. It is lost if there is no connection, or if very many bytes wait.
    pub(crate) fn send(&self, node: u64, channel: u8, message: Bytes) {
        let queue = self.queue(node);
        if queue.waiting.load(Relaxed) > OUTGOING_MAX {
            return;
        }
        queue.waiting.fetch_add(message.len(), Relaxed);
        queue.messages.lock().push_back((channel, message));
        queue.some.notify_one();
    }

    fn queue(&self, node: u64) -> OutgoingQueue {
        let begin = || {
            let queue = OutgoingQueue {
                messages: Arc::default(),
                waiting: Arc::default(),
                some: Arc::default(),
                sent: Arc::default(),
            };
            self.peers.spawn(queue.clone().send_all(self.peers.clone(), node));
            queue
        };
        self.queues.lock().entry(node).or_insert_with(begin).clone()
    }

    /// Returns the messages to a node, if publishers should wait because many bytes wait to be sent.
    pub(crate) fn full(&self, node: u64) -> Option<OutgoingQueue> {
        Some(self.queue(node)).filter(OutgoingQueue::is_full)
    }
}

impl OutgoingQueue {
    /// Sends what waits, for ever.
    async fn send_all(self, peers: Peers, node: u64) {
        loop {
            let next = self.messages.lock().pop_front();
            let Some((channel, message)) = next else {
                self.some.notified().await;
                continue;
            };
            let bytes = message.len();
            // What is lost is said again once there is a connection.
            let _ = peers.send(node, channel, message).await;
            self.waiting.fetch_sub(bytes, Relaxed);
            self.sent.notify_waiters();
        }
    }

    fn is_full(&self) -> bool {
        self.waiting.load(Relaxed) > WAITING_MAX
    }

    /// Waits while publishers should wait.
    pub(crate) async fn until_room(&self) {
        loop {
            let sent = self.sent.notified();
            if !self.is_full() {
                return;
            }
            sent.await;
        }
    }
}

/// While more bytes than this wait to be sent to a node, further messages are lost.
const OUTGOING_MAX: usize = 256 << 20;
/// Publishers wait while more bytes than this wait to be sent to a node.
const WAITING_MAX: usize = 4 << 20;
