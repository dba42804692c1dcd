//! The quick replacement of a leader whose process has ended. Its followers notice that their connections broke and that
//! new ones are refused. A follower that alone sees this may itself be what is cut off. So the followers ask one another,
//! and only when a majority of the voters has lost the leader do they stop waiting for it and hold an ordinary
//! election, with a vote beforehand. The one with the longest log begins; the others do if it does not.
//!
//! A leader that still lives may be replaced like this while it believes that it leads. Its entries are not agreed on
//! any more then, but reads that rely on the time since it last heard from its followers would be wrong.
use crate::link::{Lane, Peers};
use crate::log_store::LogStore;
use crate::replica::Group;
use crate::types::{LogId, Membership, TypeConfig, Vote};
use crate::wire::{self, AskAnswer};
use futures::future::join_all;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::TransferLeaderRequest;
use std::collections::BTreeSet;
use std::time::Duration;

/// Replaces the leader of each group that was led by a node whose process has ended.
pub(crate) fn begin(groups: &[Group], peers: &Peers, lost: u64) {
    for group in groups {
        let vote = vote(group);
        if vote.committed && vote.leader_id.voted_for == lost {
            let (group, asking) = (group.clone(), peers.clone());
            peers.spawn(async move { replace(&group, &asking, vote).await });
        }
    }
}

/// Answers whether this node has lost the leader of `asked_vote` too. If so, it does not wait for that leader any more.
pub(crate) async fn asked(group: &Group, from: u64, asked_vote: Vote) -> Result<AskAnswer, String> {
    let leader = asked_vote.leader_id.voted_for;
    let has_lost = vote(group) == asked_vote
        && asked_vote.committed
        && group.peers.as_ref().is_some_and(|peers| peers.is_gone(leader));
    if has_lost {
        stop_waiting(group, asked_vote, from).await.map_err(|error| error.to_string())?;
    }
    Ok(AskAnswer { has_lost, last: last(&group.log) })
}

async fn replace(group: &Group, peers: &Peers, lost_vote: Vote) {
    let (lost, number) = (lost_vote.leader_id.voted_for, group.log.group);
    for round in 0..ROUNDS {
        let membership = group.raft.metrics().borrow_watched().membership_config.membership().clone();
        let is_voter = membership.voter_ids().any(|voter| voter == group.node);
        if vote(group) != lost_vote || !peers.is_gone(lost) || !is_voter {
            return;
        }
        let others = membership.voter_ids().filter(|voter| ![lost, group.node].contains(voter));
        let answers = join_all(others.map(|voter| ask(peers, number, voter, lost_vote))).await;
        let agreed: Vec<(Option<LogId>, u64)> = answers.into_iter().flatten().collect();
        let who = agreed.iter().map(|(_, voter)| *voter).chain([group.node]).collect();
        let mut pause = ASK_AGAIN;
        if let Some((_, other)) = agreed.first().filter(|_| is_majority(&membership, &who)) {
            if stop_waiting(group, lost_vote, *other).await.is_err() {
                return;
            }
            let own = (last(&group.log), group.node);
            if agreed.iter().all(|other| *other < own) || round >= PATIENT_ROUNDS {
                tracing::info!(
                    group = number,
                    "node {lost:016x} does not lead any more: asking the others for their votes"
                );
                let _ = group.raft.trigger().elect(true).await; // fails if the group stops
                pause = ELECTION;
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// Asks a voter whether it has lost the leader too. Returns its last entry and the voter if so.
async fn ask(peers: &Peers, group: u16, voter: u64, lost: Vote) -> Option<(Option<LogId>, u64)> {
    let asking = async {
        let mut answer =
            peers.call(voter, Lane::Control, wire::ASK, group, vec![wire::encode_vote(&lost)]).await.ok()?;
        answer.get().await.ok()
    };
    let frame = tokio::time::timeout(ASK_MAX, asking).await.ok()??;
    let answer = (frame.kind == wire::ANSWER).then(|| wire::decode_ask_answer(frame.body))??;
    answer.has_lost.then_some((answer.last, voter))
}

/// Makes this node vote for others although it heard from the leader lately. openraft does so for a leader that hands
/// over to another node.
async fn stop_waiting(group: &Group, vote: Vote, other: u64) -> Result<(), openraft::error::Fatal<TypeConfig>> {
    group.raft.handle_transfer_leader(TransferLeaderRequest::new(vote, other, None)).await.map(drop)
}

/// Returns whether the nodes are a majority of the voters, in both configurations if the voters are being changed.
fn is_majority(membership: &Membership, nodes: &BTreeSet<u64>) -> bool {
    membership.get_joint_config().iter().all(|voters| voters.intersection(nodes).count() * 2 > voters.len())
}

fn vote(group: &Group) -> Vote {
    group.raft.metrics().borrow_watched().vote
}

fn last(log: &LogStore) -> Option<LogId> {
    log.table.lock().last()
}

/// The rounds of questions after which the ordinary election is left to do it.
const ROUNDS: u32 = 12;
/// The rounds in which a node waits for one with a longer log.
const PATIENT_ROUNDS: u32 = 4;
const ASK_MAX: Duration = Duration::from_millis(20);
const ASK_AGAIN: Duration = Duration::from_millis(5);
/// The time that an election is given. A second one that begins meanwhile would only cost a term.
const ELECTION: Duration = Duration::from_millis(50);
