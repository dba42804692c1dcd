//! Requests on a connection that wait for their answers.
use super::connection::FrameHandler;
use super::frame::{FrameToSend, LinkFrame};
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::sync::{mpsc, oneshot};

/// The reasons why a request gets no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// There is no connection. The request was not sent.
    #[error("there is no connection to node {0}")]
    NotConnected(u64),
    /// The connection has ended since. The request may have been handled.
    #[error("the connection to node {0} has ended")]
    Lost(u64),
}

/// An open connection that this node has dialled.
pub(super) struct OpenConnection {
    pub(super) node: u64,
    /// Number of the other node's start.
    pub(super) boot: u64,
    pub(super) queue: mpsc::Sender<FrameToSend>,
    pub(super) waiting: Arc<Waiting>,
}

/// The requests of one connection that wait for their answers, by number.
#[derive(Default)]
pub(super) struct Waiting {
    next: AtomicU64,
    answers: Mutex<BTreeMap<u64, oneshot::Sender<LinkFrame>>>,
}

/// The answer to a request that was sent. Dropping it gives the request up; an answer that arrives later is ignored.
pub(crate) struct PendingAnswer {
    node: u64,
    request: u64,
    waiting: Arc<Waiting>,
    answer: oneshot::Receiver<LinkFrame>,
}

impl OpenConnection {
    /// Sends a request. Waits for room in the queue of the connection.
    pub(super) async fn call(&self, kind: u8, group: u16, parts: Vec<Bytes>) -> Result<PendingAnswer, CallError> {
        let request = self.waiting.next.fetch_add(1, Relaxed) + 1;
        let (tell, answer) = oneshot::channel();
        self.waiting.answers.lock().insert(request, tell);
        let pending = PendingAnswer { node: self.node, request, waiting: self.waiting.clone(), answer };
        let frame = FrameToSend::new(kind, request, group, parts);
        self.queue.send(frame).await.map_err(|_| CallError::Lost(self.node))?;
        Ok(pending)
    }
}

impl PendingAnswer {
    /// Waits for the answer, which is returned once. May be dropped and called again before that.
    pub(crate) async fn get(&mut self) -> Result<LinkFrame, CallError> {
        (&mut self.answer).await.map_err(|_| CallError::Lost(self.node))
    }
}

impl Drop for PendingAnswer {
    fn drop(&mut self) {
        self.waiting.answers.lock().remove(&self.request);
    }
}

impl Waiting {
    /// Ends the wait of all requests, because no answer can arrive any more.
    pub(super) fn give_up(&self) {
        let answers = std::mem::take(&mut *self.answers.lock());
        drop(answers); // outside the lock
    }
}

/// Hands the answers that arrive on a connection to the requests that wait for them.
pub(super) struct AnswerHandler(pub(super) Arc<Waiting>);

impl FrameHandler for AnswerHandler {
    fn handle(&mut self, frame: LinkFrame) -> BoxFuture<'_, Result<(), String>> {
        let waits = self.0.answers.lock().remove(&frame.request);
        if let Some(waits) = waits {
            let _ = waits.send(frame); // fails if the request was given up at this moment
        }
        Box::pin(std::future::ready(Ok(())))
    }
}
