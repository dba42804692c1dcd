//! Members leave one after the other, and no volume is given up that somebody may need.
use super::super::nodes::tests::{claim, make_unready, view, whole};
use super::*;
use serde_json::json;

/// Nodes of which the last one was removed from the cluster, and says so.
fn removed(count: i32) -> BrokerNodes {
    let mut nodes = whole(count);
    let rest: Vec<i32> = (0..count - 1).collect();
    for node in &mut nodes.0[..rest.len()] {
        node.answer.cluster = Some(view(&rest));
    }
    make_unready(&mut nodes, rest.len(), "it was removed");
    nodes.0[rest.len()].answer.cluster.as_mut().unwrap().removed = true;
    nodes
}

fn waits_for(step: DepartureStep) -> String {
    match step {
        DepartureStep::Wait(words) => words,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_last_member_leaves_when_the_others_are_whole_and_then_its_volume_is_given_up() {
    assert_eq!(next(3, 3, &whole(3)), DepartureStep::Done);
    let remove = DepartureStep::Remove { ordinal: 4, node: "n4".to_owned(), ask: 0 };
    assert_eq!(next(3, 5, &whole(5)), remove);
    let mut unreachable = whole(5);
    make_unready(&mut unreachable, 4, "it is down");
    assert_eq!(next(3, 5, &unreachable), remove, "the member that leaves need not be up");
    let mut broken = whole(3);
    make_unready(&mut broken, 1, "it is down");
    assert!(waits_for(next(1, 3, &broken)).ends_with("pod shop-1 is not ready: it is down"));

    let mut nodes = removed(3);
    nodes.0[0].answer.cluster.as_mut().unwrap().groups[1].voters.push("n2".to_owned());
    assert!(waits_for(next(1, 3, &nodes)).contains("leaves the groups"));
    let mut nodes = removed(3);
    assert_eq!(next(1, 3, &nodes), DepartureStep::DeleteClaim(2));
    nodes.0[2].claim.as_mut().unwrap().metadata.deletion_timestamp =
        serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    assert!(waits_for(next(1, 3, &nodes)).contains("is stopped"));
    nodes.0[2].answer.cluster.as_mut().unwrap().removed = false;
    nodes.0[2].claim.as_mut().unwrap().metadata.deletion_timestamp = None;
    assert!(waits_for(next(1, 3, &nodes)).contains("is stopped"), "it does not know yet that it was removed");
}

#[test]
fn a_volume_without_use_is_replaced_only_while_all_others_are_whole() {
    let renew = |reason: &str, ordinal| DepartureStep::Renew { ordinal, reason: format!("{reason} from the cluster") };
    assert_eq!(next(3, 3, &removed(3)), renew("it was removed", 2));
    let (mut nodes, deleted) = (removed(3), serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
    nodes.0[2].claim.as_mut().unwrap().metadata.deletion_timestamp = Some(deleted);
    assert_eq!(next(3, 3, &nodes), renew("it was removed", 2), "its pod runs, and holds the claim");
    nodes.0[2].pod = None;
    assert_eq!(next(3, 3, &nodes), DepartureStep::Done);
    let lost = json!({"phase": "Lost"});
    let mut nodes = whole(3);
    nodes.0[1].claim = Some(claim(1, &lost));
    make_unready(&mut nodes, 1, "");
    for node in [0, 2] {
        nodes.0[node].answer.cluster.as_mut().unwrap().members[1].state = "unreachable".to_owned();
    }
    assert!(matches!(next(3, 3, &nodes), DepartureStep::Renew { ordinal: 1, .. }));
    make_unready(&mut nodes, 2, "it is down");
    assert!(waits_for(next(3, 3, &nodes)).ends_with("pod shop-2 is not ready: it is down"));
    let mut alone = whole(1);
    alone.0[0].claim = Some(claim(0, &lost));
    assert_eq!(next(1, 1, &alone), DepartureStep::Done);
}
