//! The troubles of pods that follow from the parts of their status.
use super::*;
use crate::kubernetes::fake::Fake;
use serde_json::{Value, json};

fn trouble_in(status: Value) -> String {
    let pod = serde_json::from_value(json!({"metadata": {"name": "shop-0"}, "status": status})).unwrap();
    pod_trouble(&pod).map_or_else(String::new, |trouble| {
        format!("{} {}{}", trouble.reason, if trouble.is_wrong { "! " } else { "" }, trouble.message)
    })
}

/// A pod's status with the broker's container.
fn container(fields: Value) -> Value {
    let mut container = json!({"name": "leveret", "image": "x", "imageID": "", "ready": false, "restartCount": 1});
    container.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    json!({"phase": "Running", "containerStatuses": [container]})
}

/// The state of a container whose configuration is wrong.
fn ended() -> Value {
    json!({"terminated": {"exitCode": 78, "reason": "Error", "message": "unknown key 'nonsense_key'\n"}})
}

#[test]
fn pods_say_why_they_are_not_ready() {
    let ended = ended();
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
        assert_eq!(trouble_in(status.clone()), expected, "{status}");
    }
    let long = "x".repeat(5000);
    let text = trouble_in(container(json!({"state": {"waiting": {"reason": "ErrImagePull", "message": long}}})));
    assert!(text.chars().count() < 900, "{}", text.len());
}

#[test]
fn added_containers_are_named_if_the_broker_waits_for_them() {
    let others = |init: Value, ours: Value, side: Value| {
        let one = |name: &str, fields: Value| {
            let mut one = container(fields)["containerStatuses"][0].clone();
            one["name"] = json!(name);
            one
        };
        json!({
            "phase": "Pending", "initContainerStatuses": [one("mesh-init", init)],
            "containerStatuses": [one("mesh", side), one("leveret", ours)],
        })
    };
    let done = || json!({"ready": true, "state": {"terminated": {"exitCode": 0}}});
    let running = || json!({"state": {"running": {}}});
    let initializing = || json!({"state": {"waiting": {"reason": "PodInitializing"}}});
    let no_image = || json!({"state": {"waiting": {"reason": "ErrImagePull", "message": "mesh:1: not found"}}});
    let table = [
        (
            others(
                done(),
                json!({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended()}),
                running(),
            ),
            "CrashLoopBackOff ! pod shop-0: it ended with exit code 78 (Error): unknown key 'nonsense_key'",
        ),
        (
            others(no_image(), initializing(), initializing()),
            "ImagePullBackOff ! pod shop-0: container mesh-init: mesh:1: not found",
        ),
        (
            others(done(), json!({"ready": true, "state": {"running": {}}}), no_image()),
            "ImagePullBackOff ! pod shop-0: container mesh: mesh:1: not found",
        ),
        (others(done(), running(), running()), "Starting pod shop-0: it runs, and is not ready yet"),
    ];
    for (status, expected) in table {
        assert_eq!(trouble_in(status.clone()), expected, "{status}");
    }
}

#[tokio::test]
async fn a_pod_that_cannot_be_made_is_explained_by_its_events() {
    let (fake, broker) = (Fake::default(), build::tests::broker(json!({})));
    let set: StatefulSet = serde_json::from_value(json!({"metadata": {"name": "shop", "uid": "s"}})).unwrap();
    let event = |time: &str, message: &str| json!({"metadata": {"name": time}, "involvedObject": {"uid": "s"}, "lastTimestamp": time, "message": message, "type": "Warning"});
    let events = "/api/v1/namespaces/trade/events";
    assert_eq!(trouble(&fake.client(), &broker, &set, &|_| None).await.unwrap(), None, "it is not told yet");
    fake.put(&format!("{events}/b"), event("2026-01-01T00:00:02Z", "no PriorityClass with name x was found"));
    fake.put(&format!("{events}/a"), event("2026-01-01T00:00:01Z", "older"));
    let told = trouble(&fake.client(), &broker, &set, &|_| None).await.unwrap().unwrap();
    assert_eq!((&*told.reason, &*told.message), ("PodNotCreated", "no PriorityClass with name x was found"));
    // A pod that waits for a volume is told what the volume waits for.
    let waits = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "unbound claims"}]});
    fake.put("/api/v1/namespaces/trade/pods/shop-0", json!({"metadata": {"name": "shop-0"}, "status": waits}));
    let claim = json!({"metadata": {"name": "data-shop-0", "uid": "s"}, "status": {"phase": "Pending"}});
    fake.put("/api/v1/namespaces/trade/persistentvolumeclaims/data-shop-0", claim);
    let told = trouble(&fake.client(), &broker, &set, &|_| None).await.unwrap().unwrap();
    assert_eq!(told.message, "pod shop-0: unbound claims; volume data-shop-0: no PriorityClass with name x was found");
}

#[tokio::test]
async fn a_pod_that_is_not_ready_for_long_is_explained_by_its_newest_warning() {
    let (fake, broker) = (Fake::default(), build::tests::broker(json!({})));
    let set: StatefulSet = serde_json::from_value(json!({"metadata": {"name": "shop", "uid": "s"}})).unwrap();
    let put = |state: Value, created: String, owner: Value| {
        let container =
            json!({"name": "leveret", "image": "x", "imageID": "", "ready": false, "restartCount": 0, "state": state});
        let meta = json!({"name": "shop-0", "namespace": "trade", "uid": "p", "creationTimestamp": created, "ownerReferences": [owner]});
        let status = json!({"phase": "Running", "containerStatuses": [container]});
        fake.put("/api/v1/namespaces/trade/pods/shop-0", json!({"metadata": meta, "status": status}));
    };
    let owner = |kind: &str, name: &str, uid: &str| json!({"apiVersion": "v1", "kind": kind, "name": name, "uid": uid, "controller": true});
    let event = |name: &str, reason: &str, time: &str, message: &str| {
        let event = json!({"metadata": {"name": name}, "involvedObject": {"uid": "p"}, "reason": reason, "lastTimestamp": time, "message": message, "type": "Warning"});
        fake.put(&format!("/api/v1/namespaces/trade/events/{name}"), event);
    };
    let told = async || trouble(&fake.client(), &broker, &set, &|_| None).await.unwrap().unwrap();
    let (now, long_ago) = (Timestamp::now().to_string(), "2026-01-01T00:00:00Z".to_owned());
    let creating = json!({"waiting": {"reason": "ContainerCreating"}});
    event("c", "FailedScheduling", "2026-01-01T00:00:09Z", "0/3 nodes are available");
    put(creating.clone(), long_ago.clone(), owner("StatefulSet", "shop", "s"));
    assert!(!told().await.is_wrong, "it has a node by now");
    event("a", "FailedMount", "2026-01-01T00:00:01Z", "older");
    event("b", "FailedAttachVolume", "2026-01-01T00:00:02Z", "Multi-Attach error for volume x");
    let is = told().await;
    assert!(is.is_wrong, "{is:?}");
    assert_eq!(
        (&*is.reason, &*is.message),
        ("ContainerCreating", "pod shop-0: ContainerCreating; Multi-Attach error for volume x")
    );
    put(creating, now, owner("StatefulSet", "shop", "s"));
    assert!(!told().await.is_wrong, "it has just been made");
    event("d", "Unhealthy", "2026-01-01T00:00:03Z", "Readiness probe failed: 503");
    put(json!({"running": {}}), long_ago.clone(), owner("StatefulSet", "shop", "s"));
    let is = told().await;
    assert_eq!(
        (is.is_wrong, &*is.message),
        (true, "pod shop-0: it runs, and is not ready yet; Readiness probe failed: 503")
    );
    // A pod of another says nothing of this Broker.
    put(json!({"running": {}}), long_ago.clone(), owner("ReplicaSet", "web", "w"));
    let is = told().await;
    assert_eq!((&*is.reason, is.is_wrong), ("NameTaken", true), "{is:?}");
    put(json!({"running": {}}), long_ago, owner("StatefulSet", "shop", "before"));
    assert_eq!(told().await.reason, "PodTerminating");
}

#[tokio::test]
async fn a_stateful_set_that_has_not_taken_over_its_pods_yet_counts_none_of_those_that_are_ready() {
    let broker = build::tests::broker(json!({}));
    let set = |replicas: i32| -> StatefulSet {
        let set = json!({
            "metadata": {"name": "shop", "uid": "new", "generation": 1},
            "status": {"replicas": replicas, "observedGeneration": 1},
        });
        serde_json::from_value(set).unwrap()
    };
    let pod = |ready: &str, controller: &str| {
        let owner = json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "shop", "uid": controller, "controller": true}]);
        let owners = if controller.is_empty() { json!([]) } else { owner };
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "shop-0", "namespace": "trade", "ownerReferences": owners},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        })
    };
    let fake = Fake::default();
    let client = fake.client();
    assert!(!are_uncounted(&client, &broker, &set(0)).await.unwrap(), "there is no pod");
    let table = [("True", "", true), ("True", "new", true), ("True", "old", false), ("False", "", false)];
    for (ready, controller, expected) in table {
        fake.put("/api/v1/namespaces/trade/pods/shop-0", pod(ready, controller));
        let uncounted = are_uncounted(&client, &broker, &set(0)).await.unwrap();
        assert_eq!(uncounted, expected, "ready {ready}, controlled by '{controller}'");
        assert!(!are_uncounted(&client, &broker, &set(1)).await.unwrap(), "the set has counted");
    }
}
