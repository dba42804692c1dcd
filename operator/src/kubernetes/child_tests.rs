//! Objects of the owner are put back, objects of others are left alone.
use super::*;
use crate::kubernetes::fake::Fake;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use serde_json::json;

const SERVICE: &str = "/api/v1/namespaces/trade/services/shop";
const OWNER: &str = "owner";

fn service() -> Service {
    let service = json!({
        "metadata": {
            "name": "shop", "namespace": "trade", "labels": {"app": "shop"},
            "annotations": {"balancer": "fast", OURS: "balancer"},
            "ownerReferences": [{"apiVersion": "leveret.dev/v1alpha1", "kind": "Broker", "name": "shop", "uid": OWNER, "controller": true}],
        },
        "spec": {"type": "ClusterIP", "selector": {"app": "shop"}, "ports": [
            {"name": "amqp", "port": 5672, "protocol": "TCP"}, {"name": "http", "port": 15672, "protocol": "TCP"},
        ]},
    });
    serde_json::from_value(service).unwrap()
}

async fn write(fake: &Fake, service: &Service) -> kube::Result<Option<DynamicObject>> {
    let child = Child::new(service).unwrap();
    let ownership = inspect(&child.place, &fake.client(), OWNER).await?;
    child.write(&fake.client(), &ownership).await
}

#[tokio::test]
async fn a_child_is_made_once_and_not_written_again() {
    let fake = Fake::default();
    write(&fake, &service()).await.unwrap();
    assert_eq!(fake.writes(), [format!("POST {SERVICE}")]);
    let mut there = fake.get(SERVICE).unwrap();
    there["spec"]["clusterIP"] = json!("10.0.0.1");
    // A provider of load balancers sets fields, and somebody adds an owner reference and a label.
    there["spec"]["loadBalancerIP"] = json!("192.0.2.1");
    there["spec"]["loadBalancerClass"] = json!("example.com/fast");
    there["spec"]["healthCheckNodePort"] = json!(30000);
    there["metadata"]["labels"]["team"] = json!("theirs");
    let theirs = json!({"apiVersion": "v1", "kind": "Web", "name": "front", "uid": "x"});
    there["metadata"]["ownerReferences"].as_array_mut().unwrap().push(theirs);
    fake.put(SERVICE, there);
    write(&fake, &service()).await.unwrap();
    assert_eq!(fake.writes(), [""; 0]);
}

#[tokio::test]
async fn an_object_of_another_is_not_touched() {
    let fake = Fake::default();
    let theirs = |references: Value| {
        let fields =
            json!({"spec": {"selector": {"app": "web"}}, "metadata": {"name": "shop", "ownerReferences": references}});
        fake.put(SERVICE, fields);
    };
    let place = Place::of::<Service>("trade", "shop");
    for (references, words) in [
        (json!([]), "nobody controls it"),
        (
            json!([{"apiVersion": "v1", "kind": "Web", "name": "front", "uid": "x", "controller": true}]),
            "it is controlled by Web front",
        ),
        (json!([{"apiVersion": "v1", "kind": "Broker", "name": "shop", "uid": OWNER}]), "nobody controls it"),
    ] {
        theirs(references);
        let Ownership::Foreign(who) = inspect(&place, &fake.client(), OWNER).await.unwrap() else { panic!("{words}") };
        assert_eq!(who, words);
        assert!(write(&fake, &service()).await.unwrap().is_none());
        assert_eq!(fake.writes(), [""; 0]);
    }
}

#[tokio::test]
async fn somebody_who_was_faster_is_not_overwritten() {
    let fake = Fake::default();
    let child = Child::new(&service()).unwrap();
    let ownership = inspect(&child.place, &fake.client(), OWNER).await.unwrap();
    let theirs = json!({"metadata": {"name": "shop"}, "spec": {"selector": {"app": "web"}}});
    fake.put(SERVICE, theirs);
    let Err(kube::Error::Api(refusal)) = child.write(&fake.client(), &ownership).await else { panic!("it was taken") };
    assert_eq!(refusal.code, 409);
    assert_eq!(fake.get(SERVICE).unwrap()["spec"]["selector"]["app"], "web");
}

#[tokio::test]
async fn edits_are_put_back_and_what_is_allocated_stays() {
    let fake = Fake::default();
    write(&fake, &service()).await.unwrap();
    let mut edited = fake.get(SERVICE).unwrap();
    edited["spec"]["clusterIP"] = json!("10.0.0.1");
    edited["spec"]["selector"] = json!({"app": "evil", "more": "x"});
    edited["spec"]["externalIPs"] = json!(["1.2.3.4"]);
    edited["spec"]["ports"] = json!([
        {"name": "http", "port": 15672, "protocol": "TCP", "nodePort": 30001},
        {"name": "amqp", "port": 5673, "protocol": "TCP", "nodePort": 30002},
        {"name": "more", "port": 1, "protocol": "TCP"},
    ]);
    edited["metadata"]["annotations"]["theirs"] = json!("x");
    fake.put(SERVICE, edited);
    let mut without = service();
    without.metadata.annotations = Some([(OURS.to_owned(), String::new())].into());
    write(&fake, &without).await.unwrap();
    let there = fake.get(SERVICE).unwrap();
    assert_eq!(
        there["spec"],
        json!({"type": "ClusterIP", "clusterIP": "10.0.0.1", "selector": {"app": "shop"}, "ports": [
            {"name": "amqp", "port": 5672, "protocol": "TCP", "nodePort": 30002},
            {"name": "http", "port": 15672, "protocol": "TCP", "nodePort": 30001},
        ]})
    );
    assert_eq!(there["metadata"]["annotations"], json!({"theirs": "x", OURS: ""}), "what is not wanted any more went");
}

#[test]
fn entries_that_others_add_to_a_container_go() {
    let is = json!({"containers": [
        {"name": "side", "image": "evil"},
        {"name": "leveret", "image": "x:2", "env": [{"name": "USER", "value": "evil"}, {"name": "MORE", "value": "1"}],
         "terminationMessagePath": "/dev/termination-log", "resources": {"limits": {"memory": "1Gi", "cpu": "1500m"}}},
    ], "restartPolicy": "Always", "hostNetwork": true});
    let wanted = json!({"containers": [
        {"name": "leveret", "image": "x:1", "env": [{"name": "USER", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
         "resources": {"limits": {"memory": "1024Mi", "cpu": "1.5"}}},
    ]});
    let next = replaced(&is, &wanted, false);
    assert_eq!(
        next,
        json!({"containers": [
            {"name": "leveret", "image": "x:1", "env": [{"name": "USER", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
             "terminationMessagePath": "/dev/termination-log", "resources": {"limits": {"memory": "1Gi", "cpu": "1500m"}}},
        ], "restartPolicy": "Always"})
    );
}

#[test]
fn keys_of_a_configuration_file_are_the_owners_and_those_of_a_secret_everybodys() {
    let map = |kind: &str| {
        (json!({"kind": kind, "data": {"a": "1", "theirs": "2"}}), json!({"kind": kind, "data": {"a": "3"}}))
    };
    let (is, wanted) = map("ConfigMap");
    assert_eq!(put_back(&is, &wanted)["data"], json!({"a": "3"}));
    let (is, wanted) = map("Secret");
    assert_eq!(put_back(&is, &wanted)["data"], json!({"a": "3", "theirs": "2"}));
    assert_eq!(Child::new(&ConfigMap::default()).unwrap().wanted["kind"], "ConfigMap");
}
