//! Handles the requests that replicas on other nodes send to the groups of this node. Nothing that arrives is trusted to
//! be sound: what openraft would take for a broken invariant is refused here.
use crate::GroupId;
use crate::link::{Answers, FrameHandler, Lane, LinkFrame, PeerRequests};
use crate::receive_snapshot;
use crate::replica::Group;
use crate::takeover;
use crate::types::TypeConfig;
use crate::wire::{self, ReceivedAppend};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use leveret_journal::Journal;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};

/// Handles the requests for all groups of a node.
pub(crate) struct GroupRequests {
    pub(crate) groups: Arc<[Group]>,
}

impl PeerRequests for GroupRequests {
    fn handler(&self, from: u64, lane: Lane, answers: Answers) -> Box<dyn FrameHandler> {
        let groups = self.groups.clone();
        match lane {
            Lane::Append => Box::new(AppendHandler { groups, answers, streams: BTreeMap::new() }),
            Lane::Control | Lane::Snapshot | Lane::Messages | Lane::Questions => Box::new(RequestHandler {
                groups,
                from,
                answers,
                places: Arc::new(Semaphore::new(REQUESTS_MAX)),
                beating: Arc::default(),
            }),
        }
    }
}

/// Handles heartbeats, votes, questions and parts of snapshots, each in a task of its own. None of them depends on
/// another that is not answered yet.
struct RequestHandler {
    groups: Arc<[Group]>,
    from: u64,
    answers: Answers,
    places: Arc<Semaphore>,
    /// The groups whose heartbeat is being handled.
    beating: Arc<Mutex<BTreeSet<GroupId>>>,
}

/// A heartbeat that is being handled; it is over when this is dropped.
struct Beating {
    group: GroupId,
    all: Arc<Mutex<BTreeSet<GroupId>>>,
}

impl Drop for Beating {
    fn drop(&mut self) {
        self.all.lock().remove(&self.group);
    }
}

impl FrameHandler for RequestHandler {
    fn handle(&mut self, frame: LinkFrame) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let Some(group) = self.groups.get(usize::from(frame.group)).cloned() else {
                return Err(format!("there is no group {}", frame.group));
            };
            let is_heartbeat = frame.kind == wire::HEARTBEAT;
            if is_heartbeat && !self.beating.lock().insert(frame.group) {
                // A group that installs a snapshot answers late. Its heartbeats must not take the places of others: this one
                // is not answered, as it would not be in time.
                return Ok(());
            }
            let beating = is_heartbeat.then(|| Beating { group: frame.group, all: self.beating.clone() });
            let place = self.places.clone().acquire_owned().await.map_err(|error| error.to_string())?;
            let (from, answers) = (self.from, self.answers.clone());
            tokio::spawn(async move {
                let (request, number) = (frame.request, frame.group);
                match handle(&group, from, frame).await {
                    Ok(answer) => answers.send(wire::ANSWER, request, number, answer).await,
                    Err(reason) => answers.send(wire::REFUSAL, request, number, reason.into()).await,
                }
                drop((place, beating));
            });
            Ok(())
        })
    }
}

/// Handles one request and returns the body of the answer, or why there is none.
async fn handle(group: &Group, from: u64, frame: LinkFrame) -> Result<Bytes, String> {
    let raft = &group.raft;
    let fail = |error: &dyn std::fmt::Display| error.to_string();
    match frame.kind {
        wire::HEARTBEAT => heartbeat(group, frame.body).await.map(|answer| wire::encode_append_answer(&answer)),
        wire::VOTE | wire::PRE_VOTE => {
            let request = wire::decode_vote_request(frame.body).ok_or(MALFORMED)?;
            if group.log.table.lock().last().is_none() {
                return Err("this replica has no log and does not know what it agreed to earlier".to_owned());
            }
            let voted = if frame.kind == wire::VOTE { raft.vote(request).await } else { raft.pre_vote(request).await };
            Ok(wire::encode_vote_response(&voted.map_err(|error| fail(&error))?))
        }
        wire::TRANSFER => {
            let request = wire::decode_transfer(frame.body).ok_or(MALFORMED)?;
            let taken = raft.handle_transfer_leader(request).await.map_err(|error| fail(&error))?;
            taken.map(|()| Bytes::new()).map_err(|error| fail(&error))
        }
        wire::ASK => {
            let vote = wire::decode_vote(frame.body).ok_or(MALFORMED)?;
            Ok(wire::encode_ask_answer(takeover::asked(group, from, vote).await?))
        }
        wire::SNAPSHOT_BEGIN => {
            let head = wire::decode_snapshot_head(frame.body).ok_or(MALFORMED)?;
            receive_snapshot::begin(group, from, head).map(wire::encode_offset)
        }
        wire::SNAPSHOT_PART => {
            let mut body = frame.body;
            let offset = wire::decode_offset(&mut body).ok_or(MALFORMED)?;
            receive_snapshot::part(group, from, offset, &body).map(wire::encode_offset)
        }
        wire::CONTENTS_WANTED => receive_snapshot::wanted(group, from).await,
        wire::CONTENTS_PART => receive_snapshot::contents(group, from, frame.body).await.map(|()| Bytes::new()),
        wire::SNAPSHOT_END => receive_snapshot::end(group, from).await.map(|vote| wire::encode_vote(&vote)),
        kind => Err(format!("requests of kind {kind} are not known")),
    }
}

async fn heartbeat(group: &Group, body: Bytes) -> Result<StreamAppendResult<TypeConfig>, String> {
    let request = checked(group, body)?.request;
    let (prev, entries) = (request.prev_log_id, request.entries.last().map(|entry| entry.log_id));
    let answer = group.raft.append_entries(request).await.map_err(|error| error.to_string())?;
    if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
        group.heard.now();
    }
    Ok(match answer {
        AppendEntriesResponse::Success => Ok(entries.or(prev)),
        AppendEntriesResponse::PartialSuccess(agreed) => Ok(agreed),
        AppendEntriesResponse::Conflict => Err(StreamAppendError::Conflict(prev.ok_or(MALFORMED)?)),
        AppendEntriesResponse::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote)),
    })
}

/// Decodes an append and compares its chains with those of this node's log. If they differ, the group stops.
fn checked(group: &Group, body: Bytes) -> Result<ReceivedAppend, String> {
    let append = wire::decode_append(body).ok_or(MALFORMED)?;
    let ReceivedAppend { request, chains, .. } = &append;
    let diverged = {
        let table = group.log.table.lock();
        let differs = |id, chain| table.chain_of(id).is_some_and(|own| own != chain);
        let before =
            request.prev_log_id.zip(chains.before).filter(|(id, chain)| differs(*id, *chain)).map(|(id, _)| id);
        let entries = request.entries.iter().zip(&chains.entries);
        // Entries behind the log are compared when they are appended.
        let known = entries.take_while(|(entry, _)| entry.log_id.index < table.next());
        before.or_else(|| {
            known
                .map(|(entry, chain)| (entry.log_id, *chain))
                .find(|(id, chain)| differs(*id, *chain))
                .map(|(id, _)| id)
        })
    };
    match diverged {
        Some(id) => Err(group.stop_diverged(id.index)),
        None => Ok(append),
    }
}

/// Handles appends. Those of one stream are passed to openraft in their order, without waiting for the answers.
struct AppendHandler {
    groups: Arc<[Group]>,
    answers: Answers,
    streams: BTreeMap<GroupId, AppendStream>,
}

/// The newest stream of a group.
struct AppendStream {
    number: u64,
    requests: mpsc::Sender<AppendEntriesRequest<TypeConfig>>,
    /// The requests that were passed on and are not answered yet.
    waiting: Arc<Mutex<VecDeque<WaitingAppend>>>,
}

/// A request that was passed on.
struct WaitingAppend {
    request: u64,
    _room: Option<PromisedRoom>,
}

/// Room in the log for the entries of a request. It is kept until the request is answered, when they are in the log or will
/// not be.
struct PromisedRoom {
    journal: Journal,
    bytes: usize,
}

impl Drop for PromisedRoom {
    fn drop(&mut self) {
        self.journal.redeem(self.bytes);
    }
}

impl FrameHandler for AppendHandler {
    fn handle(&mut self, frame: LinkFrame) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let (request, number) = (frame.request, frame.group);
            let Some(group) = self.groups.get(usize::from(number)).cloned() else {
                return Err(format!("there is no group {number}"));
            };
            if frame.kind != wire::APPEND {
                return Err(format!("requests of kind {} are not known", frame.kind));
            }
            if let Err(reason) = self.pass_on(group, request, frame.body).await {
                self.answers.send(wire::REFUSAL, request, number, reason.into()).await;
            }
            Ok(())
        })
    }
}

impl AppendHandler {
    async fn pass_on(&mut self, group: Group, request: u64, body: Bytes) -> Result<(), String> {
        let append = checked(&group, body)?;
        let _room = promised(&group, &append.request)?;
        let number = group.log.group;
        let stream = match self.streams.get(&number).filter(|stream| stream.number == append.stream) {
            Some(stream) => stream,
            None => {
                let stream = AppendStream::begin(append.stream, group, self.answers.clone());
                self.streams.insert(number, stream);
                &self.streams[&number]
            }
        };
        stream.waiting.lock().push_back(WaitingAppend { request, _room });
        stream.requests.send(append.request).await.map_err(|_| "the stream has ended".to_owned())
    }
}

/// Promises room for entries, or refuses them if the log has none: an append that fails would stop the group.
fn promised(group: &Group, request: &AppendEntriesRequest<TypeConfig>) -> Result<Option<PromisedRoom>, String> {
    use openraft::EntryPayload::Normal;
    let len = |entry: &crate::types::Entry| if let Normal(command) = &entry.payload { command.bytes.len() } else { 0 };
    let bytes: usize = request.entries.iter().map(len).sum();
    let largest = request.entries.iter().map(len).max().unwrap_or(0);
    let journal = &group.log.journal;
    if largest > journal.record_bytes_max() {
        return Err(format!("an entry of {largest} bytes does not fit into this node's log"));
    }
    if bytes == 0 {
        return Ok(None);
    }
    match journal.promise(bytes, true) {
        true => Ok(Some(PromisedRoom { journal: journal.clone(), bytes })),
        false => Err("the log has no room".to_owned()),
    }
}

impl AppendStream {
    /// Begins a stream. It ends when this is dropped, or after an answer that is an error.
    fn begin(number: u64, group: Group, answers: Answers) -> Self {
        let (requests, arriving) = mpsc::channel(APPENDS_MAX);
        let waiting = Arc::new(Mutex::new(VecDeque::new()));
        tokio::spawn(answer_appends(group, arriving, waiting.clone(), answers));
        Self { number, requests, waiting }
    }
}

async fn answer_appends(
    group: Group,
    arriving: mpsc::Receiver<AppendEntriesRequest<TypeConfig>>,
    waiting: Arc<Mutex<VecDeque<WaitingAppend>>>,
    answers: Answers,
) {
    let arriving = futures::stream::unfold(arriving, |mut arriving| async move {
        let request = arriving.recv().await?;
        Some((request, arriving))
    });
    let mut answered = std::pin::pin!(group.raft.stream_append(arriving));
    while let Some(answer) = answered.next().await {
        let Some(WaitingAppend { request, .. }) = waiting.lock().pop_front() else { return };
        let number = group.log.group;
        if let Ok(Ok(_) | Err(StreamAppendError::Conflict(_))) = answer {
            group.heard.now();
        }
        match answer {
            Ok(answer) => answers.send(wire::ANSWER, request, number, wire::encode_append_answer(&answer)).await,
            Err(fatal) => answers.send(wire::REFUSAL, request, number, fatal.to_string().into()).await,
        }
    }
}

const MALFORMED: &str = "the request cannot be decoded";
/// The most requests of one connection that are handled at a time.
const REQUESTS_MAX: usize = 256;
/// The most appends of one stream that wait to be passed to openraft. Senders have two on their way.
const APPENDS_MAX: usize = 4;
