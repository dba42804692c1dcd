//! Which nodes are members, and what keeps a cluster from being whole.
use super::*;
use leveret_client::ClusterGroup;
use serde_json::{Value, json};

fn address(ordinal: i32) -> String {
    format!("shop-{ordinal}.shop-nodes.trade.svc:25672")
}

/// A pod of the template `revision` in which a broker runs.
pub(in crate::cluster) fn pod(ordinal: i32, revision: &str, ready: bool) -> Pod {
    let ready = if ready { "True" } else { "False" };
    let name = format!("shop-{ordinal}");
    let container = json!({"name": "leveret", "image": "x", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}});
    let labels = json!({"controller-revision-hash": revision});
    let annotations = json!({"leveret.dev/cluster-secret": "v"});
    let pod = json!({
        "metadata": {"name": name, "namespace": "trade", "uid": name, "labels": labels, "annotations": annotations},
        "status": {
            "podIP": format!("10.0.0.{ordinal}"), "conditions": [{"type": "Ready", "status": ready}],
            "containerStatuses": [container],
        },
    });
    serde_json::from_value(pod).unwrap()
}

pub(in crate::cluster) fn claim(ordinal: i32, status: &Value) -> PersistentVolumeClaim {
    let name = format!("data-shop-{ordinal}");
    serde_json::from_value(json!({"metadata": {"name": name, "uid": name}, "status": status})).unwrap()
}

/// The cluster of the nodes with these ordinals, as each of them sees it. The identity of a node is `n` and its ordinal.
pub(in crate::cluster) fn view(ordinals: &[i32]) -> ClusterStatus {
    let ids: Vec<String> = ordinals.iter().map(|ordinal| format!("n{ordinal}")).collect();
    let member = |ordinal: &i32| ClusterMember {
        node: format!("n{ordinal}"),
        name: Some(format!("leveret@shop-{ordinal}")),
        address: address(*ordinal),
        state: "running".to_owned(),
        voter: true,
        leads: Vec::new(),
    };
    let group = |group| ClusterGroup { group, leader: ids.first().cloned(), voters: ids.clone(), learners: Vec::new() };
    ClusterStatus {
        members: ordinals.iter().map(member).collect(),
        groups: (0..3).map(group).collect(),
        ready: true,
        ..ClusterStatus::default()
    }
}

/// The nodes of a Broker with this number of pods, all of which are members that are up.
pub(in crate::cluster) fn whole(count: i32) -> BrokerNodes {
    let all: Vec<i32> = (0..count).collect();
    let node = |ordinal| {
        let exists = ordinal < count;
        let answer = NodeAnswer { cluster: exists.then(|| view(&all)), ..NodeAnswer::default() };
        BrokerNode {
            ordinal,
            address: address(ordinal),
            pod: exists.then(|| pod(ordinal, "new", true)),
            claim: exists.then(|| claim(ordinal, &json!({"phase": "Bound"}))),
            answer,
        }
    };
    BrokerNodes((0..5).map(node).collect())
}

/// Makes a node one that runs and lacks something.
pub(in crate::cluster) fn make_unready(nodes: &mut BrokerNodes, ordinal: usize, lacks: &str) {
    let node = &mut nodes.0[ordinal];
    node.answer.lacks = Some(lacks.to_owned());
    node.pod = node.pod.as_ref().map(|pod| {
        let mut pod = pod.clone();
        pod.status.as_mut().unwrap().conditions.as_mut().unwrap()[0].status = "False".to_owned();
        pod
    });
}

#[test]
fn a_cluster_is_whole_if_all_nodes_are_ready_and_see_each_other_up() {
    for count in [1, 3, 5] {
        assert_eq!(whole(count).whole(count, None), Ok(()));
    }
    let said = |change: &dyn Fn(&mut BrokerNodes)| {
        let mut nodes = whole(3);
        change(&mut nodes);
        nodes.whole(3, None).unwrap_err()
    };
    let seen = |nodes: &mut BrokerNodes, change: &dyn Fn(&mut ClusterStatus)| {
        change(nodes.0[2].answer.cluster.as_mut().unwrap());
    };
    assert_eq!(said(&|nodes| nodes.0[1].pod = None), "pod shop-1 does not exist");
    assert_eq!(said(&|nodes| make_unready(nodes, 1, "the log is read")), "pod shop-1 is not ready: the log is read");
    let down = said(&|nodes| seen(nodes, &|view| view.members[0].state = "unreachable".to_owned()));
    assert_eq!(down, "member leveret@shop-0 is unreachable");
    let full = said(&|nodes| seen(nodes, &|view| view.members[0].state = "full".to_owned()));
    assert_eq!(full, "member leveret@shop-0 is full", "if another one ended, nothing could be confirmed");
    let learner = said(&|nodes| seen(nodes, &|view| view.members[0].voter = false));
    assert_eq!(learner, "member leveret@shop-0 is running");
    let without = said(&|nodes| seen(nodes, &|view| drop(view.members.remove(1))));
    assert_eq!(without, "shop-1 is no member of the cluster yet");
    let twice = said(&|nodes| {
        seen(nodes, &|view| view.members.push(ClusterMember { node: "old".to_owned(), ..view.members[0].clone() }));
    });
    assert_eq!(twice, "the cluster has 4 members instead of 3");
    assert_eq!(said(&|nodes| seen(nodes, &|view| view.groups[1].leader = None)), "group 1 has no leader");
    let lacking = said(&|nodes| seen(nodes, &|view| drop(view.groups[2].voters.pop())));
    assert_eq!(lacking, "group 2 does not have the members of the cluster yet");
    let leaving = |view: &mut ClusterStatus| view.members[0].state = "leaving".to_owned();
    let mut nodes = whole(3);
    seen(&mut nodes, &leaving);
    assert_eq!(nodes.whole(3, None), Ok(()), "a node that leads nothing for a while still votes");
}

#[test]
fn a_node_that_is_left_out_may_lack_everything() {
    let mut nodes = whole(3);
    nodes.0[1].pod = None;
    for node in [0, 2] {
        let view = nodes.0[node].answer.cluster.as_mut().unwrap();
        view.members[1].state = "unreachable".to_owned();
        view.groups[0].voters.remove(1);
        view.groups[0].learners.push("n1".to_owned());
    }
    assert!(nodes.whole(3, None).is_err());
    assert_eq!(nodes.whole(3, Some(1)), Ok(()));
    assert!(nodes.whole(3, Some(0)).is_err());
    assert_eq!(nodes.members_up(), Some(2));
}

#[test]
fn only_nodes_that_are_ready_are_believed_about_members() {
    let mut nodes = whole(3);
    assert_eq!((nodes.is_member(2), nodes.is_member(3), nodes.needed()), (Some(true), Some(false), 3));
    // It has left the cluster, and one group has not let it go yet.
    for node in [0, 1] {
        let view = nodes.0[node].answer.cluster.as_mut().unwrap();
        view.members.pop();
        view.groups[0].voters.pop();
    }
    make_unready(&mut nodes, 2, "it was removed");
    assert_eq!(nodes.is_member(2), None);
    for node in [0, 1] {
        nodes.0[node].answer.cluster = Some(view(&[0, 1]));
    }
    assert_eq!((nodes.is_member(2), nodes.needed()), (Some(false), 2), "what the removed node knows is old");
    make_unready(&mut nodes, 0, "no majority");
    make_unready(&mut nodes, 1, "no majority");
    assert_eq!((nodes.is_member(2), nodes.needed()), (None, 3), "nobody knows better");
}
