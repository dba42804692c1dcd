//! The network between the members of a group, as openraft needs it, over the links to their nodes.
//!
//! Entries are streamed: [`WINDOW`] appends are on their way at a time, each of about a mebibyte at most. Heartbeats, votes
//! and snapshots have connections of their own. Every failure is reported as `Unreachable`, after which openraft waits
//! before it tries again; after any other error it would repeat the call at once.
use crate::link::{Lane, Peers, PendingAnswer};
use crate::log_store::LogStore;
use crate::remote::{PeerNetwork, ReplicaError};
use crate::send_snapshot;
use crate::snapshot_data::SnapshotData;
use crate::types::{GroupMember, TypeConfig, Vote};
use crate::wire;
use futures::{Stream, StreamExt};
use openraft::OptionalSend;
use openraft::alias::SnapshotOf;
use openraft::base::{BoxFuture, BoxStream};
use openraft::error::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use std::collections::VecDeque;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Makes the connections of one group.
pub(crate) struct GroupNetwork {
    pub(crate) log: LogStore,
    /// The links to other nodes; `None` in a group that this node is the only member of.
    pub(crate) peers: Option<Peers>,
}

impl GroupNetwork {
    fn client(&self, target: u64, member: &GroupMember, lane: Lane) -> PeerNetwork {
        if let Some(peers) = &self.peers {
            peers.introduce(target, &member.address);
        }
        PeerNetwork { log: self.log.clone(), peers: self.peers.clone(), target, lane }
    }
}

impl RaftNetworkFactory<TypeConfig> for GroupNetwork {
    type Network = PeerNetwork;

    async fn new_client(&mut self, target: u64, member: &GroupMember) -> PeerNetwork {
        self.client(target, member, Lane::Append)
    }

    async fn new_heartbeat_client(&mut self, target: u64, member: &GroupMember) -> PeerNetwork {
        self.client(target, member, Lane::Control)
    }
}

impl RaftNetworkV2<TypeConfig> for PeerNetwork {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let last = request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id);
        Ok(match self.heartbeat(&request, option.hard_ttl()).await? {
            Ok(agreed) if agreed < last => AppendEntriesResponse::PartialSuccess(agreed),
            Ok(_) => AppendEntriesResponse::Success,
            Err(StreamAppendError::Conflict(_)) => AppendEntriesResponse::Conflict,
            Err(StreamAppendError::HigherVote(vote)) => AppendEntriesResponse::HigherVote(vote),
        })
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, AppendOutcome>, RPCError<TypeConfig>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let network = &*self;
        let stream: BoxStream<'s, AppendOutcome> = if self.lane == Lane::Control {
            let answer_max = option.hard_ttl();
            Box::pin(input.then(move |request| async move { Ok(network.heartbeat(&request, answer_max).await?) }))
        } else {
            let number = STREAMS.fetch_add(1, Relaxed);
            let window = AppendWindow { network, input: Some(input), stream: number, sent: VecDeque::new() };
            Box::pin(futures::stream::unfold(window, AppendWindow::next))
        };
        Box::pin(std::future::ready(Ok(stream)))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let body = wire::encode_vote_request(&request);
        Ok(self.call(wire::VOTE, vec![body], &option, wire::decode_vote_response).await?)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let body = wire::encode_vote_request(&request);
        Ok(self.call(wire::PRE_VOTE, vec![body], &option, wire::decode_vote_response).await?)
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let body = wire::encode_transfer(&request);
        self.call(wire::TRANSFER, vec![body], &option, |_| Some(())).await?;
        Ok(Ok(()))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = send_snapshot::send(self, vote, snapshot.snapshot) => match sent {
                Ok(vote) => Ok(SnapshotResponse { vote }),
                Err(error) => Err(StreamingError::Unreachable(Unreachable::from_string(error))),
            },
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        let growing = [50, 100, 200, 500].into_iter().chain(std::iter::repeat(BACKOFF_MAX_MS));
        Some(Backoff::new(growing.map(Duration::from_millis)))
    }
}

/// An item of the stream that openraft reads the answers to its appends from.
type AppendOutcome = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

/// The appends of one stream that are on their way.
struct AppendWindow<'a, S> {
    network: &'a PeerNetwork,
    /// The appends that openraft wants to send; `None` once there are no more, or one has failed.
    input: Option<S>,
    /// Number of the stream.
    stream: u64,
    /// The appends that are sent and not answered yet.
    sent: VecDeque<PendingAnswer>,
}

/// What happens next in a stream of appends.
enum AppendStep {
    Answered(Result<StreamAppendResult<TypeConfig>, ReplicaError>),
    Next(Option<AppendEntriesRequest<TypeConfig>>),
}

impl<'a, S> AppendWindow<'a, S>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
{
    /// Returns the next answer, after sending what fits into the window. Returns `None` when there is nothing more to
    /// send or to wait for.
    async fn next(mut self) -> Option<(AppendOutcome, Self)> {
        loop {
            match self.step().await? {
                AppendStep::Answered(answered) => {
                    self.sent.pop_front();
                    if !matches!(answered, Ok(Ok(_))) {
                        self.end();
                    }
                    return Some((answered.map_err(RPCError::from), self));
                }
                AppendStep::Next(None) => self.input = None,
                AppendStep::Next(Some(request)) => {
                    if let Err(error) = self.send(&request).await {
                        self.end();
                        return Some((Err(error.into()), self));
                    }
                }
            }
        }
    }

    async fn step(&mut self) -> Option<AppendStep> {
        let network = self.network;
        let input = self.input.as_mut().filter(|_| self.sent.len() < WINDOW);
        match (self.sent.front_mut(), input) {
            (None, None) => None,
            (Some(oldest), None) => Some(AppendStep::Answered(network.append_answer(oldest).await)),
            (None, Some(input)) => Some(AppendStep::Next(input.next().await)),
            (Some(oldest), Some(input)) => Some(tokio::select! {
                biased;
                answer = network.append_answer(oldest) => AppendStep::Answered(answer),
                request = input.next() => AppendStep::Next(request),
            }),
        }
    }

    async fn send(&mut self, request: &AppendEntriesRequest<TypeConfig>) -> Result<(), ReplicaError> {
        let parts = self.network.encode(request, self.stream)?;
        self.sent.push_back(self.network.send(Lane::Append, wire::APPEND, parts).await?);
        Ok(())
    }

    /// Ends the stream: after an error, openraft decides anew what to send.
    fn end(&mut self) {
        self.input = None;
        self.sent.clear();
    }
}

/// Numbers the streams, so that the receiver notices when a new one begins.
static STREAMS: AtomicU64 = AtomicU64::new(1);
/// The most appends of a stream that are on their way at a time.
const WINDOW: usize = 2;
/// openraft logs each attempt. When the connection is back, it is told to try at once.
const BACKOFF_MAX_MS: u64 = 1000;
