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
    Health::PodsReady { overview: Ok(Overview::default()), alarms }
}

fn silent() -> Health {
    Health::PodsReady { overview: Err("no answer".to_owned()), alarms: Vec::new() }
}

fn with_set(ready: i32) -> AppliedChildren {
    AppliedChildren { set: set(ready), ..AppliedChildren::default() }
}

fn conditions_of(before: &BrokerStatus, applied: &AppliedChildren, health: &Health) -> Vec<String> {
    let broker = build::tests::broker(json!({}));
    let status = next(&broker, before, applied, health);
    status.conditions.iter().map(|one| format!("{} {} {}", one.type_, one.status, one.reason)).collect()
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
            Health::PodsNotReady(None),
            ["Ready False NameTaken", "Progressing False NameTaken", "Degraded True NameTaken"],
        ),
        (
            with_set(0),
            Health::PodsNotReady(Some(crash)),
            ["Ready False CrashLoopBackOff", "Progressing True RollingOut", "Degraded True CrashLoopBackOff"],
        ),
        (
            with_set(0),
            Health::PodsNotReady(Some(starting)),
            ["Ready False Starting", "Progressing True RollingOut", "Degraded False AsSpecified"],
        ),
        (with_set(1), silent(), ["Ready False NotAnswering", "Progressing False Done", "Degraded False AsSpecified"]),
        (with_set(1), up(&[]), ["Ready True AllPodsReady", "Progressing False Done", "Degraded False AsSpecified"]),
        (
            without_address(false),
            up(&[]),
            ["Ready True AllPodsReady", "Progressing True NoAddress", "Degraded False AsSpecified"],
        ),
        (
            without_address(true),
            up(&[]),
            ["Ready True AllPodsReady", "Progressing True NoAddress", "Degraded True NoAddress"],
        ),
        (
            AppliedChildren { problem: taken(), ..with_set(1) },
            up(&[]),
            ["Ready True AllPodsReady", "Progressing False NameTaken", "Degraded True NameTaken"],
        ),
        (
            with_set(1),
            up(&["disk"]),
            ["Ready True AllPodsReady", "Progressing False Done", "Degraded True ResourceAlarm"],
        ),
    ];
    for (applied, health, expected) in table {
        assert_eq!(conditions_of(&BrokerStatus::default(), &applied, &health), expected);
    }
}

#[test]
fn one_late_answer_says_nothing_against_a_broker_that_was_ready() {
    let broker = build::tests::broker(json!({}));
    let before = next(&broker, &BrokerStatus::default(), &with_set(1), &up(&[]));
    let expected = ["Ready True AllPodsReady", "Progressing False Done", "Degraded True NotAnswering"];
    assert_eq!(conditions_of(&before, &with_set(1), &silent()), expected);
    assert_eq!(conditions_of(&before, &with_set(0), &Health::PodsNotReady(None))[0], "Ready False PodsNotReady");
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
