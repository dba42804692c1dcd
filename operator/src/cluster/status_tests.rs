//! The status follows from what was applied and from the health, and its conditions do not contradict one another.
use super::*;
use crate::cluster::pods::Trouble;
use crate::cluster::problem::Problem;
use k8s_openapi::api::apps::v1::StatefulSet;
use leveret_client::Overview;
use serde_json::json;

fn set(ready: i32) -> Option<StatefulSet> {
    let set = json!({
        "metadata": {"name": "shop", "generation": 1},
        "status": {"replicas": 1, "readyReplicas": ready, "updatedReplicas": 1, "observedGeneration": 1},
    });
    serde_json::from_value(set).unwrap()
}

fn up(alarms: &[&str]) -> Health {
    let alarms = alarms.iter().map(|alarm| (*alarm).to_owned()).collect();
    Health { answer: Some(Ok(Overview::default())), alarms, ..Health::up() }
}

fn down(trouble: Option<Trouble>) -> Health {
    Health { trouble, ..Health::default() }
}

fn with_set(ready: i32) -> AppliedChildren {
    AppliedChildren { set: set(ready), ..AppliedChildren::default() }
}

/// Returns the reasons of the conditions Ready, Available, Progressing and Degraded, with `+` before those that are True.
fn conditions_of(before: &BrokerStatus, applied: &AppliedChildren, health: &Health) -> String {
    shown(&next(&build::tests::broker(json!({})), before, applied, health))
}

fn shown(status: &BrokerStatus) -> String {
    let one = |type_: &str| {
        let condition = status.conditions.iter().find(|condition| condition.type_ == type_).unwrap();
        format!("{} {}", if condition.status == "True" { "+" } else { "-" }, condition.reason)
    };
    ["Ready", "Available", "Progressing", "Degraded"].map(one).join(", ")
}

#[test]
fn conditions_agree() {
    let crash = Trouble { reason: "CrashLoopBackOff".to_owned(), message: "unknown key".to_owned(), is_wrong: true };
    let starting = Trouble { reason: "Starting".to_owned(), message: "it runs".to_owned(), is_wrong: false };
    let taken = || Some(Problem::new("NameTaken", "Service shop"));
    let without_address = |is_wrong| {
        let address = Trouble { reason: "NoAddress".to_owned(), message: "no quota".to_owned(), is_wrong };
        AppliedChildren { missing_address: Some(address), ..with_set(1) }
    };
    let table = [
        (
            AppliedChildren { problem: taken(), ..AppliedChildren::default() },
            down(None),
            "- NameTaken, - NameTaken, - NameTaken, + NameTaken",
        ),
        (with_set(0), down(Some(crash)), "- CrashLoopBackOff, - CrashLoopBackOff, + RollingOut, + CrashLoopBackOff"),
        (with_set(0), down(Some(starting)), "- Starting, - Starting, + RollingOut, - AsSpecified"),
        (with_set(1), Health::up(), "- NotAnswering, - NotAnswering, - Done, - AsSpecified"),
        (with_set(1), up(&[]), "+ AllPodsReady, + AllPodsReady, - Done, - AsSpecified"),
        (without_address(false), up(&[]), "+ AllPodsReady, + AllPodsReady, + NoAddress, - AsSpecified"),
        (without_address(true), up(&[]), "+ AllPodsReady, + AllPodsReady, + NoAddress, + NoAddress"),
        (
            AppliedChildren { problem: taken(), ..with_set(1) },
            up(&[]),
            "+ AllPodsReady, + AllPodsReady, - NameTaken, + NameTaken",
        ),
        (with_set(1), up(&["disk"]), "+ AllPodsReady, + AllPodsReady, - Done, + ResourceAlarm"),
    ];
    for (applied, health, expected) in table {
        assert_eq!(conditions_of(&BrokerStatus::default(), &applied, &health), expected);
    }
}

#[test]
fn one_late_answer_says_nothing_against_a_broker_that_was_ready() {
    let broker = build::tests::broker(json!({}));
    let before = next(&broker, &BrokerStatus::default(), &with_set(1), &up(&[]));
    let expected = "+ AllPodsReady, + AllPodsReady, - Done, + NotAnswering";
    assert_eq!(conditions_of(&before, &with_set(1), &Health::up()), expected);
    assert!(conditions_of(&before, &with_set(0), &down(None)).starts_with("- PodsNotReady"));
}

#[test]
fn a_stateful_set_that_is_made_anew_around_its_pods_changes_nothing() {
    let mut broker = build::tests::broker(json!({}));
    let before = next(&broker, &BrokerStatus::default(), &with_set(1), &up(&[]));
    let uncounted = json!({"metadata": {"name": "shop", "generation": 1}, "status": {"replicas": 0}});
    let anew = AppliedChildren { set: serde_json::from_value(uncounted).unwrap(), ..AppliedChildren::default() };
    broker.status = Some(before.clone());
    assert!(PodCounts::of(&broker, anew.set.as_ref()).are_rolled_out());
    assert_eq!(next(&broker, &before, &anew, &up(&[])), before);
    // The StatefulSet has counted before it took its pods over.
    let counted =
        json!({"metadata": {"name": "shop", "generation": 1}, "status": {"replicas": 0, "observedGeneration": 1}});
    let anew = AppliedChildren { set: serde_json::from_value(counted).unwrap(), ..AppliedChildren::default() };
    assert_eq!(next(&broker, &before, &anew, &up(&[])), before);
    // The first StatefulSet of a Broker has no pods yet.
    broker.status = None;
    assert!(!PodCounts::of(&broker, anew.set.as_ref()).are_ready());
}

#[test]
fn a_broker_is_available_while_a_majority_is_up_and_says_what_it_waits_for() {
    let broker = build::tests::broker(json!({"replicas": 3}));
    let set = json!({
        "metadata": {"name": "shop", "generation": 1},
        "spec": {"replicas": 3, "selector": {}, "serviceName": "", "template": {}},
        "status": {"replicas": 3, "readyReplicas": 2, "updatedReplicas": 3, "observedGeneration": 1},
    });
    let mut applied = AppliedChildren { set: serde_json::from_value(set).unwrap(), ..AppliedChildren::default() };
    let message = "pod shop-1: it runs, and is not ready yet; it says: no majority".to_owned();
    let trouble = Trouble { reason: "Starting".to_owned(), message: message.clone(), is_wrong: false };
    let health = Health { are_pods_ready: false, trouble: Some(trouble), members_up: Some(2), ..up(&[]) };
    let status = next(&broker, &BrokerStatus::default(), &applied, &health);
    assert_eq!(shown(&status), "- Starting, + MajorityUp, + RollingOut, - AsSpecified");
    assert_eq!((status.members.as_deref(), status.waits_for), (Some("2/3"), Some(message)));
    assert_eq!(status.queues, Some(0), "numbers are shown while a majority is up");

    // Members leave: those that stay are ready.
    let broker = build::tests::broker(json!({"replicas": 1}));
    applied.operation.waits_for = Some("a member leaves once the others are whole".to_owned());
    let health = Health { members_up: Some(3), ..up(&[]) };
    let status = next(&broker, &BrokerStatus::default(), &applied, &health);
    assert_eq!(shown(&status), "+ AllPodsReady, + AllPodsReady, + MembersLeave, - AsSpecified");
    assert_eq!((status.members.as_deref(), status.waits_for), (Some("3/1"), applied.operation.waits_for));
}
