//! One pod is restarted at a time, and none that the others need.
use super::super::nodes::tests::{make_unready, pod, whole};
use super::*;
use serde_json::json;

fn set(revision: &str) -> StatefulSet {
    let template = json!({"metadata": {"annotations": {"leveret.dev/cluster-secret": "v"}}});
    let set = json!({
        "metadata": {"name": "shop", "generation": 2},
        "spec": {"replicas": 3, "selector": {}, "serviceName": "", "template": template},
        "status": {"replicas": 3, "observedGeneration": 2, "updateRevision": revision},
    });
    serde_json::from_value(set).unwrap()
}

fn outdated(ordinals: &[usize]) -> BrokerNodes {
    let mut nodes = whole(3);
    for ordinal in ordinals {
        nodes.0[*ordinal].pod = Some(pod(*ordinal as i32, "old", true));
    }
    nodes
}

#[test]
fn pods_are_restarted_one_after_the_other_while_the_cluster_is_whole() {
    assert_eq!(next(&set("new"), 3, &whole(3)), RolloutStep::Done);
    assert_eq!(next(&set("new"), 3, &outdated(&[0, 1, 2])), RolloutStep::Evict(2));
    let mut nodes = outdated(&[0, 1]);
    assert_eq!(next(&set("new"), 3, &nodes), RolloutStep::Evict(1));
    make_unready(&mut nodes, 2, "it catches up");
    let RolloutStep::Wait(words) = next(&set("new"), 3, &nodes) else { panic!("another one is not ready") };
    assert!(words.ends_with("pod shop-2 is not ready: it catches up"), "{words}");
    nodes.0[2].pod = None;
    assert!(matches!(next(&set("new"), 3, &nodes), RolloutStep::Wait(_)));
    let mut unseen = set("newer");
    unseen.metadata.generation = Some(3);
    assert_eq!(next(&unseen, 3, &outdated(&[0])), RolloutStep::Done, "its controller has not looked at it yet");
    let mut stopping = outdated(&[2]);
    stopping.0[2].pod.as_mut().unwrap().metadata.deletion_timestamp =
        serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    assert_eq!(next(&set("new"), 3, &stopping), RolloutStep::Done);
}

#[test]
fn a_pod_that_serves_nobody_is_replaced_before_those_that_serve() {
    let mut nodes = outdated(&[0, 1, 2]);
    make_unready(&mut nodes, 0, "it catches up");
    assert_eq!(next(&set("new"), 3, &nodes), RolloutStep::Replace(0));
    // It is not ready, but it votes: while another one is down, it is needed.
    make_unready(&mut nodes, 1, "it is down");
    assert!(matches!(next(&set("new"), 3, &nodes), RolloutStep::Wait(_)));
    // One whose container does not run can always be replaced.
    nodes.0[1].pod.as_mut().unwrap().status.as_mut().unwrap().container_statuses = None;
    assert_eq!(next(&set("new"), 3, &nodes), RolloutStep::Replace(1));
    let mut nodes = outdated(&[0, 1, 2]);
    (0..3).for_each(|node| make_unready(&mut nodes, node, "unknown secret"));
    assert_eq!(next(&set("new"), 3, &nodes), RolloutStep::Replace(2), "nobody is served: there is nothing to lose");
    let mut nodes = outdated(&[0, 1, 2]);
    for node in &mut nodes.0[..3] {
        node.answer.cluster = None;
        node.answer.lacks = Some("no answer within 3 s".to_owned());
    }
    assert_eq!(next(&set("new"), 3, &nodes), RolloutStep::Evict(2), "clients are served, though nobody answers");
    make_unready(&mut nodes, 1, "no answer within 3 s");
    assert_eq!(next(&set("new"), 3, &nodes), RolloutStep::Evict(1));
    let mut nodes = outdated(&[0, 1]);
    for node in &mut nodes.0[..2] {
        node.answer.cluster = None;
        node.answer.lacks = Some("the login was refused".to_owned());
    }
    assert_eq!(next(&set("new"), 3, &nodes), RolloutStep::Evict(1), "only a restart gives it the login");
}

#[test]
fn nodes_that_cannot_be_in_one_cluster_with_restarted_ones_do_not_wait_for_these() {
    let mut nodes = outdated(&[0, 1]);
    make_unready(&mut nodes, 2, "another secret");
    let mut set = set("new");
    let template = set.spec.as_mut().unwrap().template.metadata.as_mut().unwrap();
    template.annotations.as_mut().unwrap().insert("leveret.dev/cluster-secret".to_owned(), "w".to_owned());
    assert_eq!(next(&set, 3, &nodes), RolloutStep::Replace(1));
    let mut nodes = outdated(&[0]);
    nodes.0[0].answer.cluster = None;
    nodes.0[0].answer.is_alone = true;
    (1..3).for_each(|node| make_unready(&mut nodes, node, "shop-0 does not answer"));
    assert_eq!(next(&self::set("new"), 3, &nodes), RolloutStep::Replace(0), "an earlier operator has started it");
}

#[test]
fn a_single_pod_is_restarted_at_once() {
    let mut nodes = whole(1);
    nodes.0[0].pod = Some(pod(0, "old", true));
    assert_eq!(next(&set("new"), 1, &nodes), RolloutStep::Evict(0));
    make_unready(&mut nodes, 0, "the log is read");
    assert_eq!(next(&set("new"), 1, &nodes), RolloutStep::Replace(0));
}
