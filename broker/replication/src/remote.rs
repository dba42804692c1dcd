//! Requests from a group on this node to its replica on another node.
use crate::link::{CallError, Lane, LinkFrame, Peers, PendingAnswer};
use crate::log_store::LogStore;
use crate::types::TypeConfig;
use crate::wire::{self, SentChains};
use bytes::Bytes;
use openraft::error::{RPCError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use std::time::Duration;

/// The way from a group on this node to its replica on another.
pub(crate) struct PeerNetwork {
    pub(crate) log: LogStore,
    pub(crate) peers: Option<Peers>,
    pub(crate) target: u64,
    /// The lane for appends: that of heartbeats, or that of entries.
    pub(crate) lane: Lane,
}

/// The reasons why a replica does not answer as it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplicaError {
    #[error("a group with one member has no peers")]
    NoPeers,
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("node {0:016x} does not answer in time")]
    Late(u64),
    #[error("node {0:016x} refuses: {1}")]
    Refused(u64, String),
    #[error("the answer of node {0:016x} cannot be decoded")]
    Malformed(u64),
    #[error("an entry that was to be sent is not in the log any more")]
    Truncated,
}

impl From<ReplicaError> for RPCError<TypeConfig> {
    fn from(error: ReplicaError) -> Self {
        RPCError::Unreachable(Unreachable::new(&error))
    }
}

impl PeerNetwork {
    /// Sends a request.
    pub(crate) async fn send(&self, lane: Lane, kind: u8, parts: Vec<Bytes>) -> Result<PendingAnswer, ReplicaError> {
        let peers = self.peers.as_ref().ok_or(ReplicaError::NoPeers)?;
        Ok(peers.call(self.target, lane, kind, self.log.group, parts).await?)
    }

    /// Waits for an answer and decodes it.
    pub(crate) async fn answer<T>(
        &self,
        answer: &mut PendingAnswer,
        answer_max: Duration,
        decode: impl FnOnce(Bytes) -> Option<T>,
    ) -> Result<T, ReplicaError> {
        let frame =
            tokio::time::timeout(answer_max, answer.get()).await.map_err(|_| ReplicaError::Late(self.target))??;
        decode_answer(self.target, frame, decode)
    }

    pub(crate) async fn call<T>(
        &self,
        kind: u8,
        parts: Vec<Bytes>,
        option: &RPCOption,
        decode: impl FnOnce(Bytes) -> Option<T>,
    ) -> Result<T, ReplicaError> {
        let mut answer = self.send(Lane::Control, kind, parts).await?;
        self.answer(&mut answer, option.hard_ttl(), decode).await
    }

    /// Encodes an append with the chains that this node's log has for its entries.
    pub(crate) fn encode(
        &self,
        request: &AppendEntriesRequest<TypeConfig>,
        stream: u64,
    ) -> Result<Vec<Bytes>, ReplicaError> {
        let table = self.log.table.lock();
        let before = request.prev_log_id.and_then(|id| table.chain_of(id));
        let entries: Option<Vec<u32>> = request.entries.iter().map(|entry| table.chain_of(entry.log_id)).collect();
        drop(table);
        let chains = SentChains { before, entries: entries.ok_or(ReplicaError::Truncated)? };
        Ok(wire::encode_append(request, stream, &chains))
    }

    pub(crate) async fn append_answer(
        &self,
        answer: &mut PendingAnswer,
    ) -> Result<StreamAppendResult<TypeConfig>, ReplicaError> {
        self.answer(answer, ANSWER_MAX, wire::decode_append_answer).await
    }

    pub(crate) async fn heartbeat(
        &self,
        request: &AppendEntriesRequest<TypeConfig>,
        answer_max: Duration,
    ) -> Result<StreamAppendResult<TypeConfig>, ReplicaError> {
        let parts = self.encode(request, 0)?;
        let mut answer = self.send(Lane::Control, wire::HEARTBEAT, parts).await?;
        self.answer(&mut answer, answer_max, wire::decode_append_answer).await
    }
}

fn decode_answer<T>(node: u64, frame: LinkFrame, decode: impl FnOnce(Bytes) -> Option<T>) -> Result<T, ReplicaError> {
    match frame.kind {
        wire::ANSWER => decode(frame.body).ok_or(ReplicaError::Malformed(node)),
        wire::REFUSAL => Err(ReplicaError::Refused(node, String::from_utf8_lossy(&frame.body).into_owned())),
        _ => Err(ReplicaError::Malformed(node)),
    }
}

/// A replica that takes longer to make an append durable is treated as unreachable.
const ANSWER_MAX: Duration = Duration::from_secs(10);
