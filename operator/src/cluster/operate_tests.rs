//! Each step makes its calls, and says what it waits for in the words of whoever refuses it.
use super::*;
use crate::cluster::Defaults;
use crate::cluster::build::tests::broker;
use crate::cluster::login::Login;
use crate::cluster::nodes::tests::{make_unready, pod, view, whole};
use crate::kubernetes::Context;
use crate::kubernetes::fake::Fake as ApiServer;
use crate::metrics::Metrics;
use leveret_client::fake::Fake;
use serde_json::json;

const CORE: &str = "/api/v1/namespaces/trade";

/// A Broker with three nodes, each of which has a fake broker.
struct Scene {
    api: ApiServer,
    brokers: Vec<Fake>,
    work: Work,
    nodes: BrokerNodes,
}

impl Scene {
    async fn new() -> Self {
        let (api, nodes) = (ApiServer::default(), whole(3));
        let mut brokers = Vec::new();
        for node in &nodes.0[..3] {
            let fake = Fake::start().await.unwrap();
            fake.put("/leveret/cluster", json!({"name": "c"}));
            brokers.push(fake);
            api.put(&format!("{CORE}/pods/shop-{}", node.ordinal), serde_json::to_value(&node.pod).unwrap());
            let claim = format!("{CORE}/persistentvolumeclaims/data-shop-{}", node.ordinal);
            api.put(&claim, serde_json::to_value(&node.claim).unwrap());
        }
        let context = Context::new(api.client(), Vec::new(), "i", Metrics::new().unwrap());
        let mut work = Work::new(context, Defaults { image: "i".to_owned(), pull_secrets: Vec::new() });
        let urls: Vec<String> = brokers.iter().map(|broker| broker.url.clone()).collect();
        work.management = Box::new(move |address| {
            let ordinal: usize = address.rsplit('.').next().and_then(|digit| digit.parse().ok()).unwrap();
            urls[ordinal].clone()
        });
        Self { api, brokers, work, nodes }
    }

    /// Takes the next step for a Broker that is to have `wanted` pods. Returns what it waits for.
    async fn step(&self, wanted: i32) -> String {
        let template = json!({"metadata": {"annotations": {"leveret.dev/cluster-secret": "v"}}});
        let set = json!({
            "metadata": {"name": "shop", "generation": 1},
            "spec": {"replicas": 3, "selector": {}, "serviceName": "", "template": template},
            "status": {"replicas": 3, "observedGeneration": 1, "updateRevision": "new"},
        });
        let (set, broker) = (serde_json::from_value(set).unwrap(), broker(json!({"replicas": wanted})));
        let current = Login { username: "u".to_owned(), password: "p".to_owned() };
        let logins = Logins { current, previous: None, version: "v".to_owned() };
        let operation = operate(&broker, &self.work, &set, &self.nodes, &logins).await.unwrap();
        operation.waits_for.unwrap_or_else(|| if operation.is_under_way { "" } else { "nothing to do" }.to_owned())
    }

    /// Returns the writes to the API server, without events.
    fn writes(&self) -> Vec<String> {
        let mut writes = self.api.writes();
        writes.retain(|write| !write.contains("/events"));
        writes
    }
}

#[tokio::test]
async fn a_pod_is_evicted_once_other_nodes_lead_and_the_budget_allows_it() {
    let mut scene = Scene::new().await;
    assert_eq!(scene.step(3).await, "nothing to do");
    scene.nodes.0[2].pod = Some(pod(2, "old", true));
    let transfer = "POST /api/leveret/cluster/transfer";
    scene.brokers[2].refuse(transfer, 503, "not in time: group 1: node n0 lacks entries");
    assert!(scene.step(3).await.ends_with("node n0 lacks entries"));
    assert_eq!(scene.writes(), [""; 0]);
    scene.brokers[2] = {
        let fake = Fake::start().await.unwrap();
        fake.put("/leveret/cluster", json!({"name": "c"}));
        fake
    };
    let url = scene.brokers[2].url.clone();
    scene.work.management = Box::new(move |_| url.clone());
    let evict = format!("POST {CORE}/pods/shop-2/eviction");
    scene.api.refuse(&evict, 429, "TooManyRequests", "it would violate the pod's disruption budget");
    assert!(scene.step(3).await.ends_with("it would violate the pod's disruption budget"));
    scene.api.allow(&evict);
    scene.writes();
    assert_eq!(scene.step(3).await, "");
    assert_eq!(scene.writes(), [evict]);
    assert_eq!(scene.brokers[2].writes(), [transfer, transfer]);
    assert!(scene.api.get(&format!("{CORE}/pods/shop-2")).is_none());
}

#[tokio::test]
async fn pods_that_serve_clients_are_evicted_if_no_broker_answers() {
    let mut scene = Scene::new().await;
    for (node, ordinal) in scene.nodes.0[..3].iter_mut().zip(0..) {
        node.pod = Some(pod(ordinal, "old", true));
        node.answer.cluster = None;
        node.answer.lacks = Some("the login was refused".to_owned());
    }
    let evict = format!("POST {CORE}/pods/shop-2/eviction");
    scene.api.refuse(&evict, 429, "TooManyRequests", "it would violate the pod's disruption budget");
    assert!(scene.step(3).await.ends_with("it would violate the pod's disruption budget"));
    assert_eq!(scene.writes(), [evict]);
    assert_eq!(scene.brokers[2].writes(), [""; 0]);
}

#[tokio::test]
async fn a_departure_that_waits_for_a_pod_does_not_keep_that_pod_from_its_newest_template() {
    let mut scene = Scene::new().await;
    make_unready(&mut scene.nodes, 1, "it ends for lack of memory");
    assert!(scene.step(1).await.ends_with("pod shop-1 is not ready: it ends for lack of memory"));
    assert_eq!(scene.writes(), [""; 0]);
    scene.nodes.0[1].pod = Some(pod(1, "old", false));
    assert_eq!(scene.step(1).await, "");
    assert_eq!(scene.writes(), [format!("DELETE {CORE}/pods/shop-1")]);
}

#[tokio::test]
async fn a_member_is_removed_by_another_and_its_volume_deleted_afterwards() {
    let mut scene = Scene::new().await;
    assert_eq!(scene.step(1).await, "", "it is removed already");
    scene.brokers[0].put("/leveret/cluster/members/n2", json!({}));
    assert_eq!(scene.step(1).await, "");
    let remove = "DELETE /api/leveret/cluster/members/n2";
    assert_eq!(scene.brokers[0].writes(), [remove, remove]);
    scene.brokers[0].refuse(remove, 400, "a majority of the other voters cannot be reached");
    assert!(scene.step(1).await.ends_with("a majority of the other voters cannot be reached"));
    assert_eq!(scene.writes(), [""; 0]);
    (0..2).for_each(|node| scene.nodes.0[node].answer.cluster = Some(view(&[0, 1])));
    make_unready(&mut scene.nodes, 2, "it was removed");
    scene.nodes.0[2].answer.cluster.as_mut().unwrap().removed = true;
    let claim = format!("DELETE {CORE}/persistentvolumeclaims/data-shop-2");
    scene.api.refuse(&claim, 403, "Forbidden", "the operator may not delete claims");
    assert!(scene.step(1).await.ends_with("the operator may not delete claims"));
    scene.api.allow(&claim);
    scene.writes();
    assert_eq!(scene.step(1).await, "");
    assert_eq!(scene.writes(), [&*claim]);
    // If it is wanted after all, it gets an empty volume.
    assert_eq!(scene.step(3).await, "");
    assert_eq!(scene.writes(), [claim, format!("DELETE {CORE}/pods/shop-2")]);
}
