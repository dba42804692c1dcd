//! Tests of what a group does with requests that no honest leader sends.
use super::cluster::{Cluster, until};
use crate::link::{Lane, Peers};
use crate::types::{self, Command, Payload, StoredMembership};
use crate::wire::{self, AskAnswer, SentChains, SnapshotHead};
use crate::{GroupMember, RecordPlace};
use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::{AppendEntriesRequest, StreamAppendError, TransferLeaderRequest, VoteRequest, VoteResponse};
use std::collections::BTreeMap;
use std::time::Duration;

fn append(prev: Option<types::LogId>, bytes: &'static [u8]) -> AppendEntriesRequest<types::TypeConfig> {
    let first = prev.map_or(0, |id| id.index + 1);
    let payloads = [Payload::Blank, Payload::Normal(Command::new(Bytes::from_static(bytes)))];
    let entries =
        (first..).zip(payloads).map(|(index, payload)| types::entry(types::log_id(9, index), payload)).collect();
    AppendEntriesRequest { vote: types::vote(9, 1, true), prev_log_id: prev, entries, leader_commit: prev }
}

fn joined(parts: Vec<Bytes>) -> Bytes {
    parts.concat().into()
}

#[test]
fn appends_are_decoded_as_they_were_encoded_and_cut_ones_are_refused() {
    let large: &'static [u8] = Box::leak(vec![3; 10_000].into_boxed_slice());
    for (prev, bytes) in [(None, &b"abc"[..]), (Some(types::log_id(8, 41)), large)] {
        let request = append(prev, bytes);
        let chains = SentChains { before: prev.map(|_| 6), entries: vec![7, 8] };
        let body = joined(wire::encode_append(&request, 5, &chains));
        let decoded = wire::decode_append(body.clone()).unwrap();
        assert_eq!(
            (decoded.stream, decoded.chains.before, &decoded.chains.entries[..]),
            (5, prev.map(|_| 6), &[7, 8][..])
        );
        assert_eq!((decoded.request.vote, decoded.request.prev_log_id), (request.vote, prev));
        let Payload::Normal(command) = &decoded.request.entries[1].payload else { panic!() };
        assert_eq!((&command.bytes[..], command.sent.unwrap().chain), (bytes, 8));
        for len in 0..body.len().min(300) {
            assert!(wire::decode_append(body.slice(..len)).is_none(), "{len}");
        }
    }
}

#[test]
fn appends_that_no_leader_sends_are_refused() {
    let good = append(Some(types::log_id(8, 41)), b"abc");
    let chains = || SentChains { before: None, entries: vec![7, 8] };
    let decodes = |request: &AppendEntriesRequest<_>| {
        wire::decode_append(joined(wire::encode_append(request, 0, &chains()))).is_some()
    };
    assert!(decodes(&good));
    let with = |change: &dyn Fn(&mut AppendEntriesRequest<types::TypeConfig>)| {
        let mut request = good.clone();
        change(&mut request);
        decodes(&request)
    };
    assert!(!with(&|request| request.vote.committed = false));
    assert!(!with(&|request| request.vote.leader_id.term = 8), "entries of a later term");
    assert!(!with(&|request| request.vote.leader_id.term = u64::MAX), "the next term would overflow");
    assert!(!with(&|request| request.entries.swap(0, 1)));
    assert!(!with(&|request| request.prev_log_id = Some(types::log_id(8, 40))), "a gap");
    assert!(!with(&|request| request.prev_log_id = None));
    assert!(!with(&|request| request.entries[1].log_id = types::log_id(7, 43)), "the terms fall");
}

#[test]
fn other_requests_are_decoded_as_they_were_encoded_and_garbage_does_no_harm() {
    let (vote, last) = (types::vote(3, 2, true), Some(types::log_id(2, 9)));
    let mut request = VoteRequest::new(vote, last);
    request.leadership_transfer = true;
    assert_eq!(wire::decode_vote_request(wire::encode_vote_request(&request)), Some(request));
    let response = VoteResponse::new(vote, last, true);
    assert_eq!(wire::decode_vote_response(wire::encode_vote_response(&response)), Some(response));
    let transfer = TransferLeaderRequest::new(vote, 7, None);
    assert_eq!(wire::decode_transfer(wire::encode_transfer(&transfer)), Some(transfer));
    let answer = AskAnswer { has_lost: true, last };
    assert_eq!(wire::decode_ask_answer(wire::encode_ask_answer(answer)), Some(answer));
    for answer in
        [Ok(last), Ok(None), Err(StreamAppendError::Conflict(last.unwrap())), Err(StreamAppendError::HigherVote(vote))]
    {
        assert_eq!(wire::decode_append_answer(wire::encode_append_answer(&answer)), Some(answer));
    }
    let members = openraft::Membership::new(vec![[1].into()], BTreeMap::from([(1, GroupMember::default())])).unwrap();
    let membership = StoredMembership::new(Some(types::log_id(1, 2)), members);
    let head = SnapshotHead { vote, last: last.unwrap(), chain: 4, membership, bytes: 5, crc: 6 };
    assert_eq!(wire::decode_snapshot_head(wire::encode_snapshot_head(&head)), Some(head.clone()));
    let later = SnapshotHead { last: types::log_id(4, 9), ..head };
    assert_eq!(wire::decode_snapshot_head(wire::encode_snapshot_head(&later)), None, "the entry is of a later term");
    for seed in 0..20_000u64 {
        let garbage: Bytes =
            (0..seed % 120).map(|at| (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (at % 57)) as u8).collect();
        let garbage: Bytes = [&[1], &garbage[..]].concat().into();
        let _ = wire::decode_append(garbage.clone()).is_some();
        let _ = wire::decode_vote_request(garbage.clone());
        let _ = wire::decode_transfer(garbage.clone());
        let _ = wire::decode_snapshot_head(garbage.clone());
        let _ = wire::decode_append_answer(garbage);
    }
}

/// Sends a request to node 2 over the links of node 1. Returns the kind and the body of the answer.
async fn call(peers: &Peers, to: u64, lane: Lane, kind: u8, body: Bytes) -> (u8, Bytes) {
    let mut answer = peers.call(to, lane, kind, 0, vec![body]).await.unwrap();
    let frame = tokio::time::timeout(Duration::from_secs(5), answer.get()).await.unwrap().unwrap();
    (frame.kind, frame.body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_whose_log_differs_from_that_of_its_leader_stops_and_says_so() {
    for forge_known_entry in [true, false] {
        let cluster = Cluster::new(3, 1).await;
        let leader = cluster.leader(0).await;
        cluster.write(0, &[1]).await;
        cluster.write(0, &[2]).await;
        cluster.equal(0, 2).await;
        let node = &cluster.nodes[&leader];
        let victim = leader % 3 + 1;
        let log = &node.groups.group(0).log;
        let vote = node.groups.group(0).raft.metrics().borrow_watched().vote;
        let last = log.table.lock().last().unwrap();
        let entry = |index: u64, bytes: &'static [u8]| {
            let command = Command { place: RecordPlace::default(), ..Command::new(Bytes::from_static(bytes)) };
            types::entry(types::log_id(last.leader_id.term, index), Payload::Normal(command))
        };
        let prev = if forge_known_entry { types::log_id(last.leader_id.term, last.index - 1) } else { last };
        let entries = vec![entry(prev.index + 1, b"forged")];
        let request = AppendEntriesRequest { vote, prev_log_id: Some(prev), entries, leader_commit: None };
        let chains = SentChains { before: None, entries: vec![0x1234_5678] };
        let body = joined(wire::encode_append(&request, 1 << 40, &chains));
        let (kind, _) = call(&node.peers, victim, Lane::Append, wire::APPEND, body).await;
        assert_eq!(kind, wire::REFUSAL);
        let groups = &cluster.nodes[&victim].groups;
        until("the group stops", || groups.stopped().is_some()).await;
        let reason = groups.stopped().unwrap().reason;
        assert!(reason.contains("differs from that of its leader"), "{reason}");
        assert!(cluster.nodes[&victim].applied.entries(0) == [[1], [2]]);
        // The others go on.
        node.submit(0, &[3]).await.unwrap();
        cluster.stop_all().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_that_are_too_large_too_long_or_damaged_are_refused() {
    let cluster = Cluster::new(3, 1).await;
    let leader = cluster.leader(0).await;
    cluster.write(0, &[1]).await;
    cluster.equal(0, 1).await;
    let (node, victim) = (&cluster.nodes[&leader], leader % 3 + 1);
    let vote = node.groups.group(0).raft.metrics().borrow_watched().vote;
    let membership = StoredMembership::default();
    let last = types::log_id(vote.leader_id.term, 1000);
    let head = SnapshotHead { vote, last, chain: 1, membership, bytes: 8, crc: 5 };
    let send = async |kind, body| call(&node.peers, victim, Lane::Snapshot, kind, body).await.0;
    let part = |offset, len| joined(vec![wire::encode_offset(offset), vec![0; len].into()]);
    assert_eq!(send(wire::SNAPSHOT_PART, part(0, 3)).await, wire::REFUSAL, "none was begun");
    let huge = SnapshotHead { bytes: u64::MAX, ..head.clone() };
    assert_eq!(send(wire::SNAPSHOT_BEGIN, wire::encode_snapshot_head(&huge)).await, wire::REFUSAL);
    assert_eq!(send(wire::SNAPSHOT_BEGIN, wire::encode_snapshot_head(&head)).await, wire::ANSWER);
    assert_eq!(send(wire::SNAPSHOT_PART, part(0, 9)).await, wire::REFUSAL);
    let (kind, mut next) = call(&node.peers, victim, Lane::Snapshot, wire::SNAPSHOT_PART, part(0, 5)).await;
    assert_eq!((kind, wire::decode_offset(&mut next)), (wire::ANSWER, Some(5)));
    let (_, mut next) = call(&node.peers, victim, Lane::Snapshot, wire::SNAPSHOT_PART, part(2, 3)).await;
    assert_eq!(wire::decode_offset(&mut next), Some(5), "a part that does not follow is left out");
    let begun =
        call(&node.peers, victim, Lane::Snapshot, wire::SNAPSHOT_BEGIN, wire::encode_snapshot_head(&head)).await;
    assert_eq!(wire::decode_offset(&mut begun.1.clone()), Some(5), "the transfer goes on where it was");
    assert_eq!(send(wire::SNAPSHOT_PART, part(5, 3)).await, wire::ANSWER);
    assert_eq!(send(wire::SNAPSHOT_END, Bytes::new()).await, wire::REFUSAL, "the checksum does not match");
    assert_eq!(send(77, Bytes::new()).await, wire::REFUSAL);
    cluster.write(0, &[2]).await;
    cluster.equal(0, 2).await;
    cluster.stop_all().await;
}
