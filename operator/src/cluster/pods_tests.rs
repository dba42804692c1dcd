//! What pods are told to be in, by the parts of their status.
use super::*;
use crate::kubernetes::fake::Fake;
use serde_json::{Value, json};

fn said(status: Value) -> String {
    let pod = serde_json::from_value(json!({"metadata": {"name": "shop-0"}, "status": status})).unwrap();
    of_pod(&pod).map_or_else(String::new, |trouble| {
        format!("{} {}{}", trouble.reason, if trouble.is_wrong { "! " } else { "" }, trouble.message)
    })
}

#[test]
fn pods_say_why_they_are_not_ready() {
    let container = |fields: Value| {
        let mut container = json!({"name": "leveret", "image": "x", "imageID": "", "ready": false, "restartCount": 1});
        container.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        json!({"phase": "Running", "containerStatuses": [container]})
    };
    let ended = json!({"terminated": {"exitCode": 78, "reason": "Error", "message": "unknown key 'nonsense_key'\n"}});
    let table = [
        (json!({"phase": "Pending"}), ""),
        (json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}), ""),
        (
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}]}),
            "Unschedulable ! pod shop-0: 0/3 nodes are available",
        ),
        (
            container(
                json!({"state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}}, "lastState": ended}),
            ),
            "CrashLoopBackOff ! pod shop-0: it ended with exit code 78 (Error): unknown key 'nonsense_key'",
        ),
        (
            container(json!({"state": ended})),
            "ContainerEnded ! pod shop-0: it ended with exit code 78 (Error): unknown key 'nonsense_key'",
        ),
        (
            container(json!({"state": {"waiting": {"reason": "ErrImagePull", "message": "x/evil:1: not found"}}})),
            "ImagePullBackOff ! pod shop-0: x/evil:1: not found",
        ),
        (
            container(json!({"state": {"waiting": {"reason": "ContainerCreating"}}})),
            "ContainerCreating pod shop-0: ContainerCreating",
        ),
        (container(json!({"state": {"running": {}}})), "Starting pod shop-0: it runs, and is not ready yet"),
        (
            container(json!({"state": {"running": {}}, "lastState": ended})),
            "Restarting pod shop-0: it was started anew, and is not ready yet; before, it ended with exit code 78 (Error): unknown key 'nonsense_key'",
        ),
        (
            container(json!({"state": {"running": {}}, "lastState": ended, "restartCount": 2})),
            "CrashLoopBackOff ! pod shop-0: it ended with exit code 78 (Error): unknown key 'nonsense_key'",
        ),
        (
            json!({"phase": "Failed", "reason": "Evicted", "message": "the node was low on memory"}),
            "Evicted ! pod shop-0: the node was low on memory",
        ),
    ];
    for (status, expected) in table {
        assert_eq!(said(status.clone()), expected, "{status}");
    }
    let long = "x".repeat(5000);
    let text = said(container(json!({"state": {"waiting": {"reason": "ErrImagePull", "message": long}}})));
    assert!(text.chars().count() < 900, "{}", text.len());
}

#[tokio::test]
async fn a_pod_that_cannot_be_made_is_told_by_its_events() {
    let (fake, broker) = (Fake::default(), build::tests::broker(json!({})));
    let set: StatefulSet = serde_json::from_value(json!({"metadata": {"name": "shop", "uid": "s"}})).unwrap();
    let event = |time: &str, message: &str| json!({"metadata": {"name": time}, "involvedObject": {"uid": "s"}, "lastTimestamp": time, "message": message, "type": "Warning"});
    let events = "/api/v1/namespaces/trade/events";
    assert_eq!(trouble(&fake.client(), &broker, &set).await.unwrap(), None, "it is not told yet");
    fake.put(&format!("{events}/b"), event("2026-01-01T00:00:02Z", "no PriorityClass with name x was found"));
    fake.put(&format!("{events}/a"), event("2026-01-01T00:00:01Z", "older"));
    let told = trouble(&fake.client(), &broker, &set).await.unwrap().unwrap();
    assert_eq!((&*told.reason, &*told.message), ("PodNotCreated", "no PriorityClass with name x was found"));
    // A pod that waits for a volume is told what the volume waits for.
    let waits = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "unbound claims"}]});
    fake.put("/api/v1/namespaces/trade/pods/shop-0", json!({"metadata": {"name": "shop-0"}, "status": waits}));
    let claim = json!({"metadata": {"name": "data-shop-0", "uid": "s"}, "status": {"phase": "Pending"}});
    fake.put("/api/v1/namespaces/trade/persistentvolumeclaims/data-shop-0", claim);
    let told = trouble(&fake.client(), &broker, &set).await.unwrap().unwrap();
    assert_eq!(told.message, "pod shop-0: unbound claims; volume data-shop-0: no PriorityClass with name x was found");
}
