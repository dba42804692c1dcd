//! The bodies of the frames with which groups talk to one another.
//!
//! Each body begins with `version u8 = 1`. Integers are little-endian. These parts occur in several bodies: a log id is
//! `1 if there is one u8, term u64, index u64`; a vote is `term u64, node u64, 1 if it is committed u8`; a chain is
//! `1 if it is known u8, chain u32`. The bodies of requests:
//! - **Heartbeat, append**: `number of the stream u64`, the vote of the leader, the log id of the entry before the first,
//!   its chain, the log id of the last committed entry, `number of entries u32`; for each entry `kind of its record u8,
//!   term u64, index u64, chain u32, length u32`, and its bytes. The answer is `0 u8` and the log id up to which the logs
//!   agree, `1 u8` and the log id at which they do not, or `2 u8` and a vote that is higher than that of the leader.
//! - **Vote, vote beforehand**: the vote, the log id of the candidate's last entry, `1 if the leader hands over u8`. The
//!   answer is the voter's vote, `1 if the vote is granted u8`, and the log id of the voter's last entry.
//! - **Transfer**: the leader's vote, `node u64` that is to lead, the log id of the leader's last entry. The answer is
//!   `0 u8` if the node does so.
//! - **Ask** whether the voter has lost the leader too: the leader's vote. The answer is `1 if it has u8` and the log id
//!   of its last entry.
//! - **Begin of a snapshot**: see [`SnapshotHead`]. The answer is `offset u64`: how many bytes the receiver has already.
//! - **Part of a snapshot**: `offset u64`, then bytes. The answer is the offset after these bytes.
//! - **Contents wanted**: nothing. The answer is what the states of the receiver say, for those of the sender: which
//!   contents are to be sent. It is empty if none are. These two bodies and the next have no version here.
//! - **Part of the contents**: as the states of the sender say. The answer is empty.
//! - **End of a snapshot**: nothing. The answer is the receiver's vote.
//!
//! An answer of the kind [`REFUSAL`] has the reason as text in UTF-8.
use crate::log_table::{BLANK, MEMBERSHIP, NORMAL};
use crate::types::{self, Command, Entry, LogId, Payload, SentSums, StoredMembership, TypeConfig, Vote};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest, VoteRequest, VoteResponse,
};

// Kinds of frames.
pub(crate) const HEARTBEAT: u8 = 1;
pub(crate) const APPEND: u8 = 2;
pub(crate) const VOTE: u8 = 3;
pub(crate) const PRE_VOTE: u8 = 4;
pub(crate) const TRANSFER: u8 = 5;
pub(crate) const ASK: u8 = 6;
pub(crate) const SNAPSHOT_BEGIN: u8 = 7;
pub(crate) const SNAPSHOT_PART: u8 = 8;
pub(crate) const SNAPSHOT_END: u8 = 9;
pub(crate) const CONTENTS_WANTED: u8 = 10;
pub(crate) const CONTENTS_PART: u8 = 11;
pub(crate) const ANSWER: u8 = 128;
pub(crate) const REFUSAL: u8 = 129;

/// The chains of the entries in an append, as the sender has them.
pub(crate) struct SentChains {
    /// Chain of the entry before the first; `None` if there is none, or the sender does not know it any more.
    pub(crate) before: Option<u32>,
    pub(crate) entries: Vec<u32>,
}

/// An append that has arrived.
pub(crate) struct ReceivedAppend {
    /// Number of the stream that it belongs to.
    pub(crate) stream: u64,
    pub(crate) request: AppendEntriesRequest<TypeConfig>,
    pub(crate) chains: SentChains,
}

/// The head of a snapshot: `vote of the leader, log id of the last entry that the snapshot covers, its chain u32, log id
/// of the entry that set the members, length of the state in bytes u64, CRC32 of the state u32`, and the members (see
/// [`types::encode_membership`]).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SnapshotHead {
    pub(crate) vote: Vote,
    pub(crate) last: LogId,
    pub(crate) chain: u32,
    pub(crate) membership: StoredMembership,
    pub(crate) bytes: u64,
    pub(crate) crc: u32,
}

/// The answer to the question whether a voter has lost the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AskAnswer {
    pub(crate) has_lost: bool,
    pub(crate) last: Option<LogId>,
}

/// Encodes an append. The bytes of large entries are not copied; they are parts of their own.
pub(crate) fn encode_append(
    request: &AppendEntriesRequest<TypeConfig>,
    stream: u64,
    chains: &SentChains,
) -> Vec<Bytes> {
    let mut parts = Vec::new();
    let mut out = begin(APPEND_HEAD + request.entries.len() * (ENTRY_HEAD + 64));
    out.put_u64_le(stream);
    put_vote(&mut out, &request.vote);
    put_log_id(&mut out, request.prev_log_id);
    out.put_u8(u8::from(chains.before.is_some()));
    out.put_u32_le(chains.before.unwrap_or(0));
    put_log_id(&mut out, request.leader_commit);
    out.put_u32_le(request.entries.len() as u32);
    for (entry, chain) in request.entries.iter().zip(&chains.entries) {
        let (kind, bytes) = match &entry.payload {
            Payload::Blank => (BLANK, Bytes::new()),
            Payload::Normal(command) => (NORMAL, command.bytes.clone()),
            Payload::Membership(members) => (MEMBERSHIP, types::encode_membership(members).into()),
        };
        out.put_u8(kind);
        out.put_u64_le(entry.log_id.leader_id.term);
        out.put_u64_le(entry.log_id.index);
        out.put_u32_le(*chain);
        out.put_u32_le(bytes.len() as u32);
        if bytes.len() < COPIED_MAX {
            out.put_slice(&bytes);
        } else {
            parts.extend([out.split().freeze(), bytes]);
        }
    }
    parts.push(out.freeze());
    parts
}

/// Decodes an append. Returns `None` if it is not one, or not one that a leader could send: its vote has to be committed,
/// its entries have to follow on one another, and their terms must neither fall nor exceed that of the vote.
pub(crate) fn decode_append(mut body: Bytes) -> Option<ReceivedAppend> {
    let from = &mut body;
    check_version(from)?;
    let stream = from.try_get_u64_le().ok()?;
    let vote = get_vote(from)?;
    let prev_log_id = get_log_id(from)?;
    let before_known = from.try_get_u8().ok()? == 1;
    let before = from.try_get_u32_le().ok()?;
    let leader_commit = get_log_id(from)?;
    let count = from.try_get_u32_le().ok()? as usize;
    if count > from.len() / ENTRY_HEAD || !vote.committed || prev_log_id.is_some_and(|id| id.leader_id > term(&vote)) {
        return None;
    }
    let mut chains = SentChains { before: before_known.then_some(before), entries: Vec::with_capacity(count) };
    let mut entries = Vec::with_capacity(count);
    let mut last = prev_log_id;
    for _ in 0..count {
        let (entry, chain) = get_entry(from)?;
        let id = entry.log_id;
        let follows = id.index == last.map_or(0, |last| last.index + 1) && last.is_none_or(|last| last < id);
        if !follows || id.leader_id > term(&vote) {
            return None;
        }
        last = Some(id);
        entries.push(entry);
        chains.entries.push(chain);
    }
    let request = AppendEntriesRequest { vote, prev_log_id, entries, leader_commit };
    from.is_empty().then_some(ReceivedAppend { stream, request, chains })
}

fn term(vote: &Vote) -> openraft::alias::CommittedLeaderIdOf<TypeConfig> {
    types::log_id(vote.leader_id.term, 0).leader_id
}

fn get_entry(from: &mut Bytes) -> Option<(Entry, u32)> {
    let kind = from.try_get_u8().ok()?;
    let (term, index) = (from.try_get_u64_le().ok()?, from.try_get_u64_le().ok()?);
    let (chain, len) = (from.try_get_u32_le().ok()?, from.try_get_u32_le().ok()? as usize);
    if len > from.len() || index == u64::MAX {
        return None;
    }
    let bytes = from.split_to(len);
    let payload = match kind {
        BLANK => bytes.is_empty().then_some(Payload::Blank)?,
        NORMAL => {
            let sent = SentSums { chain, crc: crc32fast::hash(&bytes) };
            Payload::Normal(Command { sent: Some(sent), ..Command::new(bytes) })
        }
        MEMBERSHIP => {
            let mut rest = &bytes[..];
            let members = types::decode_membership(&mut rest)?;
            rest.is_empty().then_some(Payload::Membership(members))?
        }
        _ => return None,
    };
    Some((types::entry(types::log_id(term, index), payload), chain))
}

pub(crate) fn encode_append_answer(answer: &StreamAppendResult<TypeConfig>) -> Bytes {
    let mut out = begin(19);
    match answer {
        Ok(agreed) => {
            out.put_u8(0);
            put_log_id(&mut out, *agreed);
        }
        Err(StreamAppendError::Conflict(at)) => {
            out.put_u8(1);
            put_log_id(&mut out, Some(*at));
        }
        Err(StreamAppendError::HigherVote(vote)) => {
            out.put_u8(2);
            put_vote(&mut out, vote);
        }
    }
    out.freeze()
}

pub(crate) fn decode_append_answer(mut body: Bytes) -> Option<StreamAppendResult<TypeConfig>> {
    let from = &mut body;
    check_version(from)?;
    Some(match from.try_get_u8().ok()? {
        0 => Ok(get_log_id(from)?),
        1 => Err(StreamAppendError::Conflict(get_log_id(from)??)),
        2 => Err(StreamAppendError::HigherVote(get_vote(from)?)),
        _ => return None,
    })
}

pub(crate) fn encode_vote_request(request: &VoteRequest<TypeConfig>) -> Bytes {
    let mut out = begin(36);
    put_vote(&mut out, &request.vote);
    put_log_id(&mut out, request.last_log_id);
    out.put_u8(u8::from(request.leadership_transfer));
    out.freeze()
}

pub(crate) fn decode_vote_request(mut body: Bytes) -> Option<VoteRequest<TypeConfig>> {
    let from = &mut body;
    check_version(from)?;
    let mut request = VoteRequest::new(get_vote(from)?, get_log_id(from)?);
    request.leadership_transfer = from.try_get_u8().ok()? == 1;
    Some(request)
}

pub(crate) fn encode_vote_response(response: &VoteResponse<TypeConfig>) -> Bytes {
    let mut out = begin(36);
    put_vote(&mut out, &response.vote);
    out.put_u8(u8::from(response.vote_granted));
    put_log_id(&mut out, response.last_log_id);
    out.freeze()
}

pub(crate) fn decode_vote_response(mut body: Bytes) -> Option<VoteResponse<TypeConfig>> {
    let from = &mut body;
    check_version(from)?;
    let (vote, granted) = (get_vote(from)?, from.try_get_u8().ok()? == 1);
    Some(VoteResponse::new(vote, get_log_id(from)?, granted))
}

pub(crate) fn encode_transfer(request: &TransferLeaderRequest<TypeConfig>) -> Bytes {
    let mut out = begin(43);
    put_vote(&mut out, request.from_leader());
    out.put_u64_le(*request.to_node_id());
    put_log_id(&mut out, request.last_log_id().copied());
    out.freeze()
}

pub(crate) fn decode_transfer(mut body: Bytes) -> Option<TransferLeaderRequest<TypeConfig>> {
    let from = &mut body;
    check_version(from)?;
    let (vote, to) = (get_vote(from)?, from.try_get_u64_le().ok()?);
    Some(TransferLeaderRequest::new(vote, to, get_log_id(from)?))
}

/// Encodes a vote: the question whether its leader is lost, or a receiver's answer to a snapshot.
pub(crate) fn encode_vote(vote: &Vote) -> Bytes {
    let mut out = begin(18);
    put_vote(&mut out, vote);
    out.freeze()
}

pub(crate) fn decode_vote(mut body: Bytes) -> Option<Vote> {
    check_version(&mut body)?;
    get_vote(&mut body)
}

pub(crate) fn encode_ask_answer(answer: AskAnswer) -> Bytes {
    let mut out = begin(19);
    out.put_u8(u8::from(answer.has_lost));
    put_log_id(&mut out, answer.last);
    out.freeze()
}

pub(crate) fn decode_ask_answer(mut body: Bytes) -> Option<AskAnswer> {
    let from = &mut body;
    check_version(from)?;
    Some(AskAnswer { has_lost: from.try_get_u8().ok()? == 1, last: get_log_id(from)? })
}

pub(crate) fn encode_snapshot_head(head: &SnapshotHead) -> Bytes {
    let mut out = begin(256);
    put_vote(&mut out, &head.vote);
    put_log_id(&mut out, Some(head.last));
    out.put_u32_le(head.chain);
    put_log_id(&mut out, *head.membership.log_id());
    out.put_u64_le(head.bytes);
    out.put_u32_le(head.crc);
    out.put_slice(&types::encode_membership(head.membership.membership()));
    out.freeze()
}

/// Decodes the head of a snapshot. Returns `None` if it is not one, or not one that the leader of its vote could send.
pub(crate) fn decode_snapshot_head(mut body: Bytes) -> Option<SnapshotHead> {
    let from = &mut body;
    check_version(from)?;
    let (vote, last) = (get_vote(from)?, get_log_id(from)??);
    let (chain, members_id) = (from.try_get_u32_le().ok()?, get_log_id(from)?);
    let (bytes, crc) = (from.try_get_u64_le().ok()?, from.try_get_u32_le().ok()?);
    let mut rest = &from[..];
    let membership = StoredMembership::new(members_id, types::decode_membership(&mut rest)?);
    let is_sound = rest.is_empty() && vote.committed && last.leader_id <= term(&vote) && members_id <= Some(last);
    is_sound.then_some(SnapshotHead { vote, last, chain, membership, bytes, crc })
}

/// Encodes the offset of a part of a snapshot.
pub(crate) fn encode_offset(offset: u64) -> Bytes {
    let mut out = begin(9);
    out.put_u64_le(offset);
    out.freeze()
}

/// Decodes an offset and removes it from the beginning of `body`.
pub(crate) fn decode_offset(body: &mut Bytes) -> Option<u64> {
    check_version(body)?;
    body.try_get_u64_le().ok()
}

fn begin(capacity: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(capacity);
    out.put_u8(VERSION);
    out
}

fn check_version(from: &mut Bytes) -> Option<()> {
    (from.try_get_u8().ok()? == VERSION).then_some(())
}

fn put_log_id(out: &mut BytesMut, id: Option<LogId>) {
    out.put_u8(u8::from(id.is_some()));
    let (term, index) = id.map_or((0, 0), |id| (id.leader_id.term, id.index));
    out.put_u64_le(term);
    out.put_u64_le(index);
}

fn get_log_id(from: &mut Bytes) -> Option<Option<LogId>> {
    let has = from.try_get_u8().ok()?;
    let (term, index) = (from.try_get_u64_le().ok()?, from.try_get_u64_le().ok()?);
    (has <= 1 && index < u64::MAX).then(|| (has == 1).then(|| types::log_id(term, index)))
}

fn put_vote(out: &mut BytesMut, vote: &Vote) {
    out.put_u64_le(vote.leader_id.term);
    out.put_u64_le(vote.leader_id.voted_for);
    out.put_u8(u8::from(vote.committed));
}

fn get_vote(from: &mut Bytes) -> Option<Vote> {
    let (term, node) = (from.try_get_u64_le().ok()?, from.try_get_u64_le().ok()?);
    let committed = from.try_get_u8().ok()? == 1;
    (term <= TERM_MAX).then(|| types::vote(term, node, committed))
}

const VERSION: u8 = 1;
/// The largest term that is taken from a peer: the next terms must not overflow.
const TERM_MAX: u64 = 1 << 62;
/// Bytes of an append before its entries.
const APPEND_HEAD: usize = 1 + 8 + 17 + 17 + 5 + 17 + 4;
/// Bytes of an entry before its own.
const ENTRY_HEAD: usize = 1 + 8 + 8 + 4 + 4;
/// The bytes of smaller entries are copied, because a part of its own costs more.
const COPIED_MAX: usize = 2048;
