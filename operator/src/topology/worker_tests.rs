//! The reports of a worker, and their times, with an API server and a broker that are both inside the test.
use super::*;
use crate::kubernetes::fake::Fake as ApiServer;
use crate::metrics::Metrics;
use leveret_api::{Binding, Queue};
use leveret_client::fake::Fake;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};

const QUEUES: &str = "/apis/leveret.dev/v1alpha1/namespaces/n/queues";

struct Scene {
    api: ApiServer,
    broker: Fake,
    index: Arc<Index>,
    worker: Worker,
    logins: Arc<AtomicUsize>,
}

impl Scene {
    /// A broker and a number of queues that no pass has looked at.
    async fn of(queues: usize) -> Self {
        let (api, broker, index) = (ApiServer::default(), Fake::start().await.unwrap(), Arc::new(Index::default()));
        let key = BrokerKey::new("n", "shop");
        index.put_broker(key.clone(), Ok(Arc::new(ready_broker("True"))));
        for number in 0..queues {
            let queue = json!({
                "apiVersion": "leveret.dev/v1alpha1", "kind": "Queue",
                "metadata": {"name": format!("q{number}"), "namespace": "n", "uid": format!("u{number}"), "generation": 1},
                "spec": {"brokerRef": {"name": "shop"}},
            });
            api.put(&format!("{QUEUES}/q{number}"), queue);
        }
        let context = Context::new(api.client(), Vec::new(), "i", Metrics::new().unwrap());
        let mut worker = Worker::new(context, index.clone(), key, Arc::default());
        let (logins, url) = (Arc::new(AtomicUsize::new(0)), broker.url.clone());
        let counted = logins.clone();
        worker.connect = Box::new(move |_, _| {
            counted.fetch_add(1, Ordering::Relaxed);
            let client = Client::from_url(&url).map_err(anyhow::Error::from);
            async move { client }.boxed()
        });
        Self { api, broker, index, worker, logins }
    }

    /// Makes a pass over the present queues and returns the names of those whose status was written.
    async fn pass(&mut self) -> Vec<String> {
        self.api.writes();
        for number in 0.. {
            let Some(queue) = self.api.get(&format!("{QUEUES}/q{number}")) else { break };
            let queue: Queue = serde_json::from_value(queue).unwrap();
            self.index.put(BrokerKey::referred_to_by(&queue), ClusterResource::of(&queue));
        }
        self.worker.pass(self.index.referring_to(&self.worker.broker)).await;
        let writes = self.api.writes();
        let names =
            writes.iter().filter_map(|write| write.strip_suffix("/status")?.rsplit('/').next().map(str::to_owned));
        names.collect()
    }

    fn says(&self, queue: &str) -> Value {
        self.api.get(&format!("{QUEUES}/{queue}")).unwrap()["status"]["conditions"][0].clone()
    }
}

fn ready_broker(is_ready: &str) -> Broker {
    let broker = json!({
        "apiVersion": "leveret.dev/v1alpha1", "kind": "Broker",
        "metadata": {"name": "shop", "namespace": "n", "uid": "u"}, "spec": {},
        "status": {"conditions": [{"type": "Available", "status": is_ready, "reason": "x", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
    });
    serde_json::from_value(broker).unwrap()
}

#[test]
fn passes_that_take_long_come_less_often() {
    let millis = Duration::from_millis;
    assert_eq!(Pause::after(millis(5)), Pause { min: millis(5), max: PASS_EVERY });
    assert_eq!(Pause::after(millis(900)), Pause { min: millis(900), max: millis(9000) });
    assert_eq!(Pause::after(millis(5000)).min, PASS_EVERY);
}

#[tokio::test]
async fn a_short_outage_of_the_broker_changes_no_status() {
    let mut scene = Scene::of(3).await;
    assert_eq!(scene.pass().await, ["q0", "q1", "q2"]);
    assert_eq!(scene.pass().await, [""; 0]);
    // The broker restarts: first its Broker is not ready, then its connections lead nowhere.
    let put = |scene: &Scene, is_ready| {
        scene.index.put_broker(scene.worker.broker.clone(), Ok(Arc::new(ready_broker(is_ready))))
    };
    put(&scene, "False");
    assert_eq!(scene.pass().await, [""; 0]);
    put(&scene, "True");
    scene.broker.cut("GET /api/queues");
    assert_eq!(scene.pass().await, [""; 0]);
    // A new resource gets its condition at once, the others when the broker has been away for long.
    let new = json!({
        "apiVersion": "leveret.dev/v1alpha1", "kind": "Queue",
        "metadata": {"name": "q3", "namespace": "n", "uid": "u3", "generation": 1}, "spec": {"brokerRef": {"name": "shop"}},
    });
    scene.api.put(&format!("{QUEUES}/q3"), new);
    assert_eq!(scene.pass().await, ["q3"]);
    scene.worker.unavailable_since = scene.worker.unavailable_since.and_then(|since| since.checked_sub(OUTAGE_MAX));
    assert_eq!(scene.pass().await, ["q0", "q1", "q2"]);
    assert_eq!(scene.says("q0")["reason"], "BrokerUnavailable");
    scene.broker.cut("nothing");
    assert_eq!(scene.pass().await.len(), 4);
    assert_eq!(scene.worker.unavailable_since, None);
}

#[tokio::test]
async fn a_refused_login_is_tried_anew_before_anything_is_reported() {
    let mut scene = Scene::of(2).await;
    scene.pass().await;
    assert_eq!(scene.logins.load(Ordering::Relaxed), 1);
    let old = Fake::start().await.unwrap();
    old.refuse("GET /api/vhosts?columns=name,default_queue_type", 401, "Login failed");
    let client = Client::from_url(&old.url).unwrap();
    scene.worker.connection = Some(Connection { broker_uid: "u".to_owned(), client });
    scene.broker.remove("/queues/%2F/q0");
    assert_eq!(scene.pass().await, [""; 0], "it is as it was, and that is what is reported");
    assert_eq!(scene.logins.load(Ordering::Relaxed), 2);
    assert_eq!(
        scene.broker.writes().last().unwrap(),
        r#"PUT /api/queues/%2F/q1 {"durable":true,"auto_delete":false,"arguments":{}}"#
    );
    assert!(scene.worker.unavailable_since.is_none());
}

#[tokio::test]
async fn a_report_ends_when_the_broker_changes() {
    let mut scene = Scene::of(3).await;
    let reports: Vec<_> = (0..3)
        .map(|number| {
            let queue = scene.api.get(&format!("{QUEUES}/q{number}")).unwrap();
            let resource = ClusterResource::of(&serde_json::from_value::<Queue>(queue).unwrap());
            Report { resource, outcome: Outcome::waiting("Missing", "x") }
        })
        .collect();
    scene.worker.broker_state = scene.worker.current_broker_state();
    scene.index.put_broker(scene.worker.broker.clone(), Ok(Arc::new(ready_broker("False"))));
    scene.worker.report(reports).await;
    assert_eq!(scene.api.writes(), [""; 0]);
}

#[tokio::test]
async fn a_refused_finalizer_is_reported_in_the_words_of_the_api_server() {
    let mut scene = Scene::of(2).await;
    scene.api.refuse(&format!("PATCH {QUEUES}/q0"), 403, "Forbidden", "admission policy denies finalizers");
    assert_eq!(scene.pass().await, ["q0", "q1"]);
    let told = scene.says("q0");
    assert_eq!((&told["status"], &told["reason"]), (&json!("False"), &json!("Refused")));
    assert!(told["message"].as_str().unwrap().ends_with("admission policy denies finalizers"), "{told}");
    assert!(scene.broker.writes().iter().all(|call| !call.contains("/q0 ")), "nothing is declared that is not held");
    scene.api.allow(&format!("PATCH {QUEUES}/q0"));
    assert_eq!(scene.pass().await, ["q0"]);
    assert_eq!(scene.says("q0")["reason"], "Declared");
}

#[tokio::test]
async fn numbers_of_busy_queues_take_turns() {
    let mut scene = Scene::of(120).await;
    scene.pass().await;
    let busy = |scene: &Scene, ready: i64| {
        for number in 0..120 {
            scene.broker.put(&format!("/queues/%2F/q{number}"), json!({"durable": true, "messages_ready": ready}));
        }
    };
    let mut written = std::collections::BTreeSet::new();
    for pass in 1..=3_i64 {
        busy(&scene, pass);
        scene.worker.budget = Budget::new(Instant::now());
        scene.worker.memory.age(Duration::from_secs(6));
        let now = scene.pass().await;
        assert!(now.len() <= 50, "{}", now.len());
        written.extend(now);
    }
    assert_eq!(written.len(), 120, "each comes to its turn");
}

#[tokio::test]
async fn a_binding_whose_argument_is_renamed_leaves_no_other_binding_behind() {
    let mut scene = Scene::of(0).await;
    scene.broker.put("/exchanges/%2F/x", json!({"type": "headers", "durable": true}));
    scene.broker.put("/queues/%2F/q", json!({"durable": true}));
    let path = "/apis/leveret.dev/v1alpha1/namespaces/n/bindings/b";
    let binding = json!({
        "apiVersion": "leveret.dev/v1alpha1", "kind": "Binding",
        "metadata": {"name": "b", "namespace": "n", "uid": "b", "generation": 1},
        "spec": {"brokerRef": {"name": "shop"}, "source": "x", "destination": "q", "routingKey": "k", "arguments": {"color": "red"}},
    });
    scene.api.put(path, binding);
    let look = async |scene: &mut Scene| {
        let binding: Binding = serde_json::from_value(scene.api.get(path).unwrap()).unwrap();
        scene.worker.pass(vec![ClusterResource::of(&binding)]).await;
        (scene.api.get(path).unwrap(), scene.broker.writes())
    };
    let (mut declared, writes) = look(&mut scene).await;
    assert_eq!(writes, [r#"POST /api/bindings/%2F/e/x/q/q {"routing_key":"k","arguments":{"color":"red"}}"#]);
    assert_eq!(declared["status"]["arguments"], json!({"color": "red"}));
    declared["spec"]["arguments"] = json!({"colour": "red"});
    declared["metadata"]["generation"] = json!(2);
    scene.api.put(path, declared);
    let (mut refused, writes) = look(&mut scene).await;
    let told = &refused["status"]["conditions"][0];
    assert_eq!((&told["reason"], writes), (&json!("ChangeRefused"), Vec::new()), "{told}");
    assert_eq!(refused["status"]["arguments"], json!({"color": "red"}));
    refused["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    scene.api.put(path, refused);
    assert_eq!(look(&mut scene).await.1, ["DELETE /api/bindings/%2F/e/x/q/q/k"]);
}
