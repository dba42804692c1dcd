//! The number of pods follows the members.
use super::super::nodes::tests::{claim, make_unready, view, whole};
use super::*;
use serde_json::json;

fn set(replicas: i32) -> StatefulSet {
    serde_json::from_value(json!({"spec": {"replicas": replicas, "selector": {}, "serviceName": "", "template": {}}}))
        .unwrap()
}

/// Three nodes of which the last one was removed, and says so.
fn removed() -> BrokerNodes {
    let mut nodes = whole(3);
    for node in [0, 1] {
        nodes.0[node].answer.cluster = Some(view(&[0, 1]));
    }
    make_unready(&mut nodes, 2, "it was removed");
    nodes.0[2].answer.cluster.as_mut().unwrap().removed = true;
    nodes
}

#[test]
fn more_pods_come_at_once_and_fewer_when_members_have_left() {
    assert_eq!(pods(3, None, &whole(0)), 3, "a new Broker");
    assert_eq!(pods(3, Some(&set(1)), &whole(1)), 3);
    assert_eq!(pods(1, Some(&set(3)), &whole(3)), 3, "all are members");
    let mut nodes = removed();
    assert_eq!(pods(1, Some(&set(3)), &nodes), 3, "its volume is not given up yet");
    nodes.0[2].claim.as_mut().unwrap().metadata.deletion_timestamp =
        serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    assert_eq!(pods(1, Some(&set(3)), &nodes), 2);
    assert_eq!(pods(3, Some(&set(3)), &nodes), 3, "it is wanted again");
    nodes.0[2].claim = None;
    assert_eq!(pods(1, Some(&set(3)), &nodes), 2);
    for node in [0, 1] {
        make_unready(&mut nodes, node, "no majority");
    }
    assert_eq!(pods(1, Some(&set(3)), &nodes), 3, "nobody knows whether it is a member");
}

#[test]
fn pods_that_somebody_has_scaled_up_go_again_unless_their_nodes_have_joined() {
    let mut nodes = whole(1);
    let others = whole(3);
    for node in [1, 2] {
        nodes.0[node].pod = others.0[node].pod.clone();
        nodes.0[node].claim = Some(claim(2, &json!({})));
    }
    assert_eq!(pods(1, Some(&set(3)), &nodes), 2, "it does not answer yet");
    nodes.0[2].answer.cluster = Some(view(&[]));
    nodes.0[2].answer.lacks = Some("it asks to be added".to_owned());
    assert_eq!(pods(1, Some(&set(3)), &nodes), 2, "it is no member");
    nodes.0[0].answer.cluster = Some(view(&[0, 2]));
    assert_eq!(pods(1, Some(&set(3)), &nodes), 3);
}

#[test]
fn members_that_have_no_pod_get_one() {
    let mut nodes = whole(3);
    for node in [1, 2] {
        nodes.0[node].pod = None;
        nodes.0[node].answer = Default::default();
    }
    make_unready(&mut nodes, 0, "no majority");
    assert_eq!(pods(1, Some(&set(1)), &nodes), 3, "somebody has scaled the StatefulSet");
    nodes.0[0].pod = None;
    nodes.0[0].answer = Default::default();
    assert_eq!(pods(1, None, &nodes), 3, "the Broker was created again with fewer replicas");
    nodes.0[1].claim = None;
    assert_eq!(pods(1, None, &nodes), 1);
}
