//! What is reported follows from what there is, and the conditions do not contradict one another.
use super::*;
use serde_json::json;

fn set(ready: i32) -> Option<StatefulSet> {
    let set = json!({
        "metadata": {"name": "shop", "generation": 1},
        "status": {"replicas": 1, "readyReplicas": ready, "updatedReplicas": 1, "observedGeneration": 1},
    });
    serde_json::from_value(set).unwrap()
}

fn said(before: &BrokerStatus, observed: &Observed) -> Vec<String> {
    let broker = build::tests::broker(json!({}));
    let status = next(&broker, before, observed);
    status.conditions.iter().map(|one| format!("{} {} {}", one.type_, one.status, one.reason)).collect()
}

#[test]
fn conditions_agree() {
    let crash = Trouble { reason: "CrashLoopBackOff".to_owned(), message: "unknown key".to_owned(), is_wrong: true };
    let starting = Trouble { reason: "Starting".to_owned(), message: "it runs".to_owned(), is_wrong: false };
    let taken = Some(Problem::new("NameTaken", "Service shop".to_owned()));
    let address = |is_wrong| Trouble { reason: "NoAddress".to_owned(), message: "no quota".to_owned(), is_wrong };
    let answers = || Some(Ok(Overview::default()));
    let silent = || Some(Err("no answer".to_owned()));
    let table = [
        (
            Observed { problem: taken.clone(), ..Observed::default() },
            ["Ready False NameTaken", "Progressing False NameTaken", "Degraded True NameTaken"],
        ),
        (
            Observed { set: set(0), trouble: Some(crash), ..Observed::default() },
            ["Ready False CrashLoopBackOff", "Progressing True RollingOut", "Degraded True CrashLoopBackOff"],
        ),
        (
            Observed { set: set(0), trouble: Some(starting), ..Observed::default() },
            ["Ready False Starting", "Progressing True RollingOut", "Degraded False AsSpecified"],
        ),
        (
            Observed { set: set(1), overview: silent(), ..Observed::default() },
            ["Ready False NotAnswering", "Progressing False Done", "Degraded False AsSpecified"],
        ),
        (
            Observed { set: set(1), overview: answers(), ..Observed::default() },
            ["Ready True AllPodsReady", "Progressing False Done", "Degraded False AsSpecified"],
        ),
        (
            Observed { set: set(1), overview: answers(), address: Some(address(false)), ..Observed::default() },
            ["Ready True AllPodsReady", "Progressing True NoAddress", "Degraded False AsSpecified"],
        ),
        (
            Observed { set: set(1), overview: answers(), address: Some(address(true)), ..Observed::default() },
            ["Ready True AllPodsReady", "Progressing True NoAddress", "Degraded True NoAddress"],
        ),
        (
            Observed { set: set(1), overview: answers(), problem: taken, ..Observed::default() },
            ["Ready True AllPodsReady", "Progressing False NameTaken", "Degraded True NameTaken"],
        ),
        (
            Observed { set: set(1), overview: answers(), alarms: vec!["disk".to_owned()], ..Observed::default() },
            ["Ready True AllPodsReady", "Progressing False Done", "Degraded True ResourceAlarm"],
        ),
    ];
    for (observed, expected) in table {
        assert_eq!(said(&BrokerStatus::default(), &observed), expected);
    }
}

#[test]
fn one_late_answer_says_nothing_against_a_broker_that_was_ready() {
    let broker = build::tests::broker(json!({}));
    let up = Observed { set: set(1), overview: Some(Ok(Overview::default())), ..Observed::default() };
    let before = next(&broker, &BrokerStatus::default(), &up);
    let late = Observed { overview: Some(Err("no answer".to_owned())), ..up };
    let expected = ["Ready True AllPodsReady", "Progressing False Done", "Degraded True NotAnswering"];
    assert_eq!(said(&before, &late), expected);
    assert_eq!(said(&before, &Observed { set: set(0), ..late })[0], "Ready False PodsNotReady");
}

#[test]
fn a_stateful_set_that_is_made_anew_around_its_pods_changes_nothing() {
    let mut broker = build::tests::broker(json!({}));
    let up = Observed { set: set(1), overview: Some(Ok(Overview::default())), ..Observed::default() };
    let before = next(&broker, &BrokerStatus::default(), &up);
    let unseen = json!({"metadata": {"name": "shop", "generation": 1}, "status": {"replicas": 0}});
    let anew = || Observed { set: serde_json::from_value(unseen.clone()).unwrap(), ..Observed::default() };
    broker.status = Some(before.clone());
    assert!(is_up(&broker, &anew()) && is_rolled_out(&broker, &anew()));
    assert_eq!(next(&broker, &before, &Observed { overview: Some(Ok(Overview::default())), ..anew() }), before);
    // The first one of a Broker has no pods yet.
    broker.status = None;
    assert!(!is_up(&broker, &anew()));
}
