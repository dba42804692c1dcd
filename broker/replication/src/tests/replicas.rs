//! Tests of groups with three and five voters.
use super::cluster::{Cluster, Turn, member, until};
use super::net::Way;
use crate::types::{self, StoredMembership};
use crate::wire::SnapshotHead;
use crate::*;
use leveret_journal::faulty::{Call, DiskTrouble, Errno};
use std::collections::BTreeSet;
use std::sync::atomic::Ordering::SeqCst;
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_are_applied_on_all_nodes_in_the_same_order() {
    let cluster = Cluster::new(3, 2).await;
    let leader = cluster.leader(1).await;
    let term = cluster.nodes[&leader].groups.leader(1).unwrap().term;
    let (tell, mut told) = tokio::sync::mpsc::channel(200);
    for at in 0..200u8 {
        let tell = tell.clone();
        let answer = Box::new(move |outcome| tell.try_send(outcome).unwrap());
        cluster.nodes[&leader].groups.submit(1, term, vec![at; 200].into(), answer).await;
    }
    let mut last = 0;
    for _ in 0..200 {
        let index = told.recv().await.unwrap().unwrap();
        assert!(index > last, "the answers come in the order of the entries");
        last = index;
    }
    let entries = cluster.equal(1, 200).await;
    assert!(entries.iter().map(|entry| entry[0]).eq(0..200));
    assert_eq!(cluster.nodes[&leader].applied.turns(1), [Turn::Lead(term)]);
    let status = cluster.nodes[&leader].groups.status(1);
    assert_eq!((status.leader, status.voters), (Some(leader), BTreeSet::from([1, 2, 3])));
    assert_eq!(status.matched.len(), 2);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_is_applied_only_once_it_is_on_the_disk_and_sent_before_that() {
    let cluster = Cluster::new(3, 1).await;
    let leader = cluster.leader(0).await;
    cluster.write(0, &[1]).await;
    cluster.equal(0, 1).await;
    let node = &cluster.nodes[&leader];
    node.hold.set(true);
    let term = node.groups.leader(0).unwrap().term;
    assert!(node.groups.has_room_for(1, true));
    let (tell, mut told) = tokio::sync::oneshot::channel();
    node.groups.submit(0, term, vec![2].into(), Box::new(move |outcome| drop(tell.send(outcome)))).await;
    let others = || cluster.nodes.values().filter(|other| other.id != leader);
    until("the followers apply it", || others().all(|other| other.applied.entries(0).len() == 2)).await;
    // The leader knew before its followers that the entry is agreed on.
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert_eq!(node.applied.entries(0), [[1]], "it must not be applied before it is durable here");
    assert!(told.try_recv().is_err());
    node.hold.set(false);
    cluster.equal(0, 2).await;
    told.await.unwrap().unwrap();
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_away_catches_up_from_the_log() {
    let mut cluster = Cluster::new(3, 1).await;
    let away = cluster.leader(0).await % 3 + 1;
    cluster.write(0, &[1]).await;
    cluster.stop(away).await;
    for at in 0..100 {
        cluster.write(0, &[at, 7]).await;
    }
    cluster.start(away).await;
    cluster.equal(0, 101).await;
    assert_eq!(cluster.nodes[&away].applied.restored.load(SeqCst), 0);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_away_gets_a_snapshot_if_the_log_was_cut() {
    let mut cluster = Cluster::new(3, 1).await;
    let leader = cluster.leader(0).await;
    let away = leader % 3 + 1;
    cluster.write(0, &[1]).await;
    cluster.stop(away).await;
    for at in 0..100 {
        cluster.write(0, &[at, 7]).await;
    }
    for id in cluster.nodes.keys().copied().collect::<Vec<_>>() {
        cluster.nodes[&id].groups.snapshot(0).await.unwrap();
        until("the log is cut", || cluster.nodes[&id].groups.log_len(0) < 10).await;
    }
    cluster.write(0, &[2]).await;
    cluster.start(away).await;
    cluster.equal(0, 102).await;
    assert_eq!(cluster.nodes[&away].applied.restored.load(SeqCst), 1);
    // The log goes on behind the snapshot, with the same chain: also after a restart, and under this node as the leader.
    cluster.write(0, &[3]).await;
    cluster.equal(0, 103).await;
    cluster.stop(away).await;
    cluster.write(0, &[4]).await;
    cluster.start(away).await;
    cluster.equal(0, 104).await;
    let leader = cluster.leader(0).await;
    cluster.nodes[&leader].groups.transfer(0, away).await.unwrap();
    assert_eq!(cluster.leader(0).await, away);
    cluster.write(0, &[5]).await;
    cluster.equal(0, 105).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_with_a_full_disk_waits_for_room_before_it_installs_a_snapshot() {
    let mut cluster = Cluster::new(3, 1).await;
    let leader = cluster.leader(0).await;
    let away = leader % 3 + 1;
    // The disk is full before the snapshot is sent, or only when it is written.
    for (round, is_full_before) in (0u8..).zip([true, false]) {
        cluster.stop(away).await;
        for at in 0..50 {
            cluster.write(0, &[round, at]).await;
        }
        for id in cluster.nodes.keys().copied().collect::<Vec<_>>() {
            cluster.nodes[&id].groups.snapshot(0).await.unwrap();
            until("the log is cut", || cluster.nodes[&id].groups.log_len(0) < 10).await;
        }
        let disk = cluster.disks[&away].clone();
        if is_full_before {
            disk.leave_free(1 << 20);
        } else {
            disk.expect(DiskTrouble { calls: vec![Call::Rename], error: Errno::NoSpace, after: 0, times: 2 });
        }
        cluster.start(away).await;
        let group = cluster.nodes[&away].groups.group(0).clone();
        if is_full_before {
            let head = SnapshotHead {
                vote: types::vote(1, leader, true),
                last: types::log_id(1, 9),
                chain: 0,
                membership: StoredMembership::default(),
                bytes: 100,
                crc: 0,
            };
            let refused = receive_snapshot::begin(&group, leader, head).unwrap_err();
            assert!(refused.contains("no room for a snapshot"), "{refused}");
            disk.leave_free(1 << 30);
        } else {
            until("the snapshot is written in vain", || disk.troubles_met() == 2).await;
        }
        cluster.equal(0, (usize::from(round) + 1) * 50).await;
        assert_eq!(cluster.nodes[&away].groups.stopped(), None);
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_leads_when_the_leader_dies_and_nothing_answered_is_lost() {
    let mut cluster = Cluster::new(3, 3).await;
    let (mut expected, mut gaps) = (0, Vec::new());
    for round in 0..4u8 {
        for group in 0..3 {
            for at in 0..10 {
                cluster.write(group, &[round, at]).await;
            }
        }
        expected += 10;
        let dead = cluster.leader(0).await;
        let began = Instant::now();
        cluster.kill(dead).await;
        cluster.next_leader(0, dead).await;
        gaps.push(began.elapsed());
        for group in 0..3 {
            cluster.write(group, &[round, 77]).await;
        }
        expected += 1;
        cluster.start(dead).await;
        for group in 0..3 {
            cluster.equal(group, expected).await;
        }
    }
    // Without the quick takeover it takes 900 ms at least.
    assert!(gaps.iter().min() < Some(&std::time::Duration::from_millis(300)), "{gaps:?}");
    for group in 0..3 {
        let entries: Vec<_> = cluster.equal(group, expected).await.into_iter().collect();
        assert_eq!(entries.iter().collect::<BTreeSet<_>>().len(), expected);
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_restart_in_any_order() {
    let mut cluster = Cluster::new(3, 2).await;
    let orders = [[1, 2, 3], [3, 1, 2], [2, 3, 1], [3, 2, 1]];
    for (round, order) in (0..).zip(orders) {
        for group in 0..2 {
            cluster.write(group, &[round]).await;
        }
        for id in order {
            if round % 2 == 0 { cluster.stop(id).await } else { cluster.kill(id).await }
        }
        for id in order.into_iter().rev() {
            cluster.start(id).await;
        }
        cluster.settled().await;
        for group in 0..2 {
            let entries = cluster.equal(group, usize::from(round) + 1).await;
            assert!(entries.iter().map(|entry| entry[0]).eq(0..=round));
        }
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_and_entries_of_an_old_term_are_refused() {
    let cluster = Cluster::new(3, 1).await;
    for round in 1..7 {
        let leader = cluster.leader(0).await;
        let (node, to) = (&cluster.nodes[&leader], leader % 3 + 1);
        cluster.write(0, &[1]).await;
        cluster.equal(0, round).await;
        let term = node.groups.leader(0).unwrap().term;
        until("it has everything", || {
            let status = node.groups.status(0);
            status.matched.get(&to).copied().flatten() == status.last
        })
        .await;
        node.groups.transfer(0, to).await.unwrap();
        assert_eq!(cluster.leader(0).await, to);
        assert_eq!(node.applied.turns(0).last(), Some(&Turn::Follow));
        let refused = node.submit_in(0, term, &[9]).await.unwrap_err();
        assert_eq!((refused.leader, refused.is_open), (Some(to), false));
        let refused = cluster.nodes[&to].submit_in(0, term, &[9]).await.unwrap_err();
        assert!(!refused.is_open, "{refused}");
    }
    assert!(!cluster.nodes[&1].applied.entries(0).contains(&vec![9]));
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_in_one_direction_does_not_unseat_the_leader_for_long() {
    let cluster = Cluster::new(3, 1).await;
    let leader = cluster.leader(0).await;
    let other = leader % 3 + 1;
    let term = cluster.nodes[&leader].groups.leader(0).unwrap().term;
    // The follower hears nothing from the leader, but the leader and the third node hear the follower.
    cluster.net.set_cut([Way { from: leader, to: other }]);
    let began = Instant::now();
    let mut written = 0;
    while began.elapsed() < std::time::Duration::from_millis(2500) {
        cluster.nodes[&leader].submit(0, &[1]).await.unwrap();
        written += 1;
    }
    assert_eq!(cluster.nodes[&leader].groups.leader(0).unwrap(), GroupLeader { node: leader, term });
    cluster.net.set_cut([]);
    cluster.equal(0, written).await;
    let now = cluster.leader(0).await;
    assert_eq!(now, leader, "the follower comes back without an election");
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go() {
    let cluster = Cluster::without_members(4, 1).await;
    let first = &cluster.nodes[&1].groups;
    first.initialize(0, [(1, member(1))].into()).await.unwrap();
    until("node 1 leads", || first.leader(0).is_some_and(|leader| leader.node == 1)).await;
    cluster.nodes[&1].submit(0, &[1]).await.unwrap();
    for node in [2, 3, 4] {
        first.add_learner(0, node, member(node)).await.unwrap();
        until("it has the entries", || cluster.nodes[&node].applied.entries(0).len() == 1).await;
        until("it learns", || cluster.nodes[&node].groups.status(0).learners == BTreeSet::from([node])).await;
        first.promote(0, node).await.unwrap();
    }
    cluster.leader(0).await;
    first.remove(0, 2).await.unwrap();
    assert_eq!(first.status(0).voters, BTreeSet::from([1, 3, 4]));
    assert!(!first.status(0).members.contains_key(&2));
    cluster.nodes[&1].submit(0, &[2]).await.unwrap();
    first.remove(0, 1).await.unwrap();
    let rest = || [3, 4].map(|id| cluster.nodes[&id].groups.leader(0));
    until("another leads", || rest().iter().all(|leader| leader.is_some_and(|leader| leader.node > 2))).await;
    until("the removed leader follows", || cluster.nodes[&1].applied.turns(0).last() == Some(&Turn::Follow)).await;
    let leader = cluster.nodes[&3].groups.leader(0).unwrap().node;
    cluster.nodes[&leader].submit(0, &[3]).await.unwrap();
    until("both have it", || [3, 4].iter().all(|id| cluster.nodes[id].applied.entries(0).len() == 3)).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_voters_survive_the_loss_of_two() {
    let mut cluster = Cluster::new(5, 1).await;
    for round in 0..2 {
        cluster.write(0, &[round]).await;
        let dead = cluster.leader(0).await;
        cluster.kill(dead).await;
        cluster.next_leader(0, dead).await;
    }
    cluster.write(0, &[2]).await;
    cluster.equal(0, 3).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_its_disk_does_not_vote() {
    let mut cluster = Cluster::new(3, 1).await;
    let leader = cluster.leader(0).await;
    let (emptied, other) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    cluster.write(0, &[1]).await;
    cluster.equal(0, 1).await;
    for id in [emptied, other, leader] {
        cluster.stop(id).await;
    }
    cluster.disks.remove(&emptied);
    cluster.start(emptied).await;
    cluster.start(other).await;
    let began = Instant::now();
    while began.elapsed() < std::time::Duration::from_secs(2) {
        let turns = [emptied, other].map(|id| cluster.nodes[&id].applied.turns(0));
        assert_eq!(turns, [[], []], "only one of three knows what was agreed on");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    cluster.start(leader).await;
    cluster.equal(0, 1).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_keeps_what_a_slow_follower_needs_up_to_a_budget() {
    let cluster = Cluster::new(3, 1).await;
    let leader = cluster.leader(0).await;
    let slow = leader % 3 + 1;
    cluster.write(0, &[1]).await;
    cluster.equal(0, 1).await;
    let node = &cluster.nodes[&leader];
    cluster.nodes[&slow].hold.set(true);
    for _ in 0..600 {
        node.submit(0, &[7; 255]).await.unwrap(); // more than two segments
    }
    let purged = || 602 - node.groups.log_len(0).min(602);
    node.groups.snapshot(0).await.unwrap();
    assert!(purged() < 10, "the follower has not synced these entries: {}", purged());
    let current = node.groups.journal().usage().current;
    node.groups.snapshot_within(0, current).await.unwrap();
    until("segments before the current one are given up", || node.groups.first_segment(0) == Some(current)).await;
    assert!(node.groups.log_len(0) > 0, "what is within the budget is kept");
    cluster.nodes[&slow].hold.set(false);
    cluster.equal(0, 601).await;
    node.submit(0, &[2]).await.unwrap();
    cluster.equal(0, 602).await;
    node.groups.snapshot(0).await.unwrap();
    until("nobody needs anything", || node.groups.log_len(0) < 3).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_not_handed_to_a_node_that_is_not_fit_for_it() {
    let mut cluster = Cluster::new(3, 1).await;
    let leader = cluster.leader(0).await;
    let (away, other) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    cluster.stop(away).await;
    let node = &cluster.nodes[&leader];
    until("it is noticed", || !node.peers.is_connected(away)).await;
    let reason = node.groups.transfer(0, away).await.unwrap_err().to_string();
    assert!(reason.contains("cannot be reached"), "{reason}");
    assert!(matches!(node.groups.transfer(0, leader).await, Err(MemberError::Refused { .. })));
    assert!(matches!(node.groups.transfer(0, 9).await, Err(MemberError::Refused { .. })));
    assert!(matches!(cluster.nodes[&other].groups.transfer(0, leader).await, Err(MemberError::NotLeader(_))));
    let refused = cluster.nodes[&other].groups.add_learner(0, 4, member(4)).await.unwrap_err();
    assert!(matches!(refused, MemberError::NotLeader(NotLeader { leader: Some(known), .. }) if known == leader));
    assert!(matches!(node.groups.promote(0, 9).await, Err(MemberError::Refused { .. })));
    node.submit(0, &[1]).await.unwrap();
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposals_that_a_stopping_group_does_not_apply_are_answered() {
    let mut cluster = Cluster::new(3, 1).await;
    let leader = cluster.leader(0).await;
    for id in [leader % 3 + 1, (leader + 1) % 3 + 1] {
        cluster.stop(id).await;
    }
    let node = &cluster.nodes[&leader];
    let term = node.groups.leader(0).unwrap().term;
    let (tell, told) = tokio::sync::oneshot::channel();
    let answer = Box::new(move |outcome: SubmitOutcome| drop(tell.send(outcome)));
    node.groups.submit(0, term, vec![1].into(), answer).await;
    node.groups.stop().await;
    let refused = tokio::time::timeout(super::cluster::PATIENCE, told).await.unwrap().unwrap().unwrap_err();
    assert!(refused.is_open || refused.reason.contains("forward"), "{refused}");
    assert_eq!(node.applied.turns(0).last(), Some(&Turn::Follow));
    let refused = node.submit_in(0, term, &[2]).await.unwrap_err();
    assert!(refused.reason.contains("stopped"), "{refused}");
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_alone_gets_peers_and_keeps_its_entries() {
    let mut cluster = Cluster::without_members(0, 1).await;
    let disk = leveret_journal::faulty::FaultyDisk::new(1);
    let options = GroupsOptions { node: 1, groups: 1 };
    let alone = std::sync::Arc::<super::Lists>::default();
    let groups =
        Groups::open(std::sync::Arc::new(disk.clone()), super::journal_options(), options, alone, None).await.unwrap();
    for at in 0..20 {
        groups.write(0, vec![at].into()).await.unwrap();
    }
    groups.stop().await;
    cluster.disks.insert(1, disk);
    for id in 1..=3 {
        cluster.start(id).await;
    }
    let first = &cluster.nodes[&1].groups;
    assert_eq!(cluster.nodes[&1].applied.entries(0).len(), 20, "everything is applied when it is open");
    first.add_learner(0, 1, member(1)).await.unwrap();
    for id in [2, 3] {
        first.add_learner(0, id, member(id)).await.unwrap();
        until("it has the entries", || cluster.nodes[&id].applied.entries(0).len() == 20).await;
        first.promote(0, id).await.unwrap();
    }
    assert_eq!(first.status(0).voters, BTreeSet::from([1, 2, 3]));
    cluster.stop(1).await;
    cluster.next_leader(0, 1).await;
    cluster.write(0, &[77]).await;
    cluster.start(1).await;
    cluster.equal(0, 21).await;
    assert!(cluster.nodes.values().all(|node| node.groups.stopped().is_none()));
    cluster.stop_all().await;
}

/// Submits entries at whichever node leads until `until`, and returns those that were applied and those that may be.
async fn submit_until(cluster: &Cluster, until: Instant, writer: u8) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let (mut applied, mut open) = (Vec::new(), Vec::new());
    for number in 0u32.. {
        let leads =
            |node: &&super::cluster::ClusterNode| node.groups.leader(0).is_some_and(|leader| leader.node == node.id);
        if Instant::now() >= until {
            break;
        }
        let Some(node) = cluster.nodes.values().find(leads) else {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            continue;
        };
        tokio::time::sleep(std::time::Duration::from_millis(2)).await; // the log has room for so many
        let entry = [&[writer][..], &number.to_le_bytes(), &[3; 90]].concat();
        match node.submit(0, &entry).await {
            Ok(_) => applied.push(entry),
            Err(refused) if refused.is_open => open.push(entry),
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(1)).await,
        }
    }
    (applied, open)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_survive_links_that_break_again_and_again_and_changes_of_the_leader() {
    let cluster = Cluster::new(3, 1).await;
    let end = Instant::now() + std::time::Duration::from_secs(4);
    let trouble = async {
        for round in 0u64.. {
            if Instant::now() >= end {
                return;
            }
            match round % 4 {
                0 | 2 => cluster.net.reset(round / 2 % 3 + 1),
                1 => {
                    let (from, to) = (round / 4 % 3 + 1, (round / 4 + 1) % 3 + 1);
                    cluster.net.set_cut([Way { from, to }]);
                }
                _ => {
                    cluster.net.set_cut([]);
                    let leader = cluster.nodes[&1].groups.leader(0).map_or(1, |leader| leader.node);
                    let _ = cluster.nodes[&leader].groups.transfer(0, leader % 3 + 1).await;
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(20 + round * 37 % 160)).await;
        }
    };
    let writers = futures::future::join_all((0..4).map(|writer| submit_until(&cluster, end, writer)));
    let (written, ()) = tokio::join!(writers, trouble);
    cluster.net.set_cut([]);
    let answered: usize = written.iter().map(|(applied, _)| applied.len()).sum();
    assert!(answered > 100, "only {answered} entries were applied");
    cluster.write(0, &[200]).await;
    let last = |node: &super::cluster::ClusterNode| node.applied.entries(0).last() == Some(&vec![200]);
    until("all are equal", || cluster.nodes.values().all(last)).await;
    let entries = cluster.equal(0, cluster.nodes[&1].applied.entries(0).len()).await;
    let known: BTreeSet<&Vec<u8>> = entries.iter().collect();
    assert_eq!(known.len(), entries.len(), "no entry is applied twice");
    for (applied, open) in &written {
        assert!(applied.iter().all(|entry| known.contains(entry)), "what was answered is there");
        let own = entries.iter().filter(|entry| applied.first().is_some_and(|first| first[0] == entry[0]));
        assert!(own.clone().all(|entry| applied.contains(entry) || open.contains(entry)), "nothing else is");
        let in_order: Vec<_> = own.filter(|entry| applied.contains(entry)).collect();
        assert!(in_order.iter().copied().eq(applied.iter()), "in the order of the writer");
    }
    assert!(cluster.nodes.values().all(|node| node.groups.stopped().is_none()));
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_loses_power_under_load_and_comes_back_at_once_loses_nothing() {
    let mut cluster = Cluster::new(3, 1).await;
    let answered = std::sync::Arc::new(parking_lot::Mutex::new(Vec::new()));
    for round in 0..6u8 {
        let dead = cluster.leader(0).await;
        let node = &cluster.nodes[&dead];
        let term = node.groups.leader(0).unwrap().term;
        // In every other round its own disk holds the entries back, so that it loses some that the others have.
        node.hold.set(round % 2 == 1);
        for at in 0..150u8 {
            let (entry, answered) = (vec![round, at, 5, 5, 5], answered.clone());
            let answer = Box::new({
                let entry = entry.clone();
                move |outcome: SubmitOutcome| outcome.into_iter().for_each(|_| answered.lock().push(entry.clone()))
            });
            node.groups.submit(0, term, entry.into(), answer).await;
            if at % 20 == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        }
        cluster.kill(dead).await;
        if round % 3 == 0 {
            cluster.next_leader(0, dead).await;
        }
        cluster.start(dead).await;
        cluster.write(0, &[round, 200]).await;
    }
    let last = |node: &super::cluster::ClusterNode| node.applied.entries(0).last() == Some(&vec![5, 200]);
    until("all are equal", || cluster.nodes.values().all(last)).await;
    let entries = cluster.equal(0, cluster.nodes[&1].applied.entries(0).len()).await;
    let known: BTreeSet<&Vec<u8>> = entries.iter().collect();
    assert_eq!(known.len(), entries.len(), "no entry is applied twice");
    assert!(answered.lock().iter().all(|entry| known.contains(entry)), "what was answered is there");
    assert!(cluster.nodes.values().all(|node| node.groups.stopped().is_none()));
    cluster.stop_all().await;
}
