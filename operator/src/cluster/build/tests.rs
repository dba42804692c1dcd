//! What a Broker consists of, without a cluster.
use super::*;
use serde_json::{Value, json};

fn broker(spec: Value) -> Broker {
    let broker = json!({
        "apiVersion": "leveret.dev/v1alpha1", "kind": "Broker",
        "metadata": {"name": "shop", "namespace": "trade", "uid": "u"}, "spec": spec,
    });
    serde_json::from_value(broker).unwrap()
}

fn made(spec: Value) -> Result<Children, String> {
    children(&broker(spec), "image:1", None)
}

#[test]
fn a_broker_is_named_owned_and_restricted() {
    let children = made(json!({})).unwrap();
    let set = serde_json::to_value(&children.set).unwrap();
    assert_eq!(set["metadata"]["name"], "shop");
    assert_eq!(set["metadata"]["ownerReferences"][0]["uid"], "u");
    let pod = &set["spec"]["template"]["spec"];
    assert_eq!(pod["containers"][0]["image"], "image:1");
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(set["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"], "Retain");
    assert_eq!(set["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"], "1Gi");
    let budget = serde_json::to_value(&children.budget).unwrap();
    assert_eq!(budget["spec"]["maxUnavailable"], 1);
    assert_eq!(children.nodes.metadata.name.as_deref(), Some("shop-nodes"));
}

#[test]
fn the_secret_has_the_shape_of_a_service_binding_and_is_made_once() {
    let secret = made(json!({})).unwrap().secret.unwrap();
    let fields = secret.string_data.clone().unwrap();
    assert_eq!((&*fields["type"], &*fields["provider"], &*fields["host"]), ("rabbitmq", "leveret", "shop.trade.svc"));
    let expected = format!("amqp://{}:{}@shop.trade.svc:5672/", fields["username"], fields["password"]);
    assert_eq!(fields["connection_string"], expected);
    assert!(fields["password"].len() == 24);
    assert!(children(&broker(json!({})), "image:1", Some(&secret)).unwrap().secret.is_none());
}

#[test]
fn configuration_reaches_the_file_and_the_pod() {
    let one = made(json!({"config": {"shutdown_grace_seconds": 20}})).unwrap();
    let text = &one.config.data.as_ref().unwrap()["leveret.toml"];
    assert!(text.ends_with("shutdown_grace_seconds = 20\n"), "{text}");
    let annotation = |children: &Children| {
        let set = serde_json::to_value(&children.set).unwrap();
        set["spec"]["template"]["metadata"]["annotations"]["leveret.dev/config-hash"].clone()
    };
    assert_ne!(annotation(&one), annotation(&made(json!({})).unwrap()));
    let refused = made(json!({"config": {"amqp": "x"}})).err().unwrap();
    assert_eq!(refused, "spec.config: amqp is set by the operator");
}

#[test]
fn pods_can_be_scheduled_but_not_freed() {
    let spec = json!({"podTemplate": {"labels": {"team": "a", "app.kubernetes.io/name": "x"}, "spec": {"nodeSelector": {"disk": "fast"}}}});
    let set = serde_json::to_value(&made(spec).unwrap().set).unwrap();
    assert_eq!(set["spec"]["template"]["spec"]["nodeSelector"]["disk"], "fast");
    assert_eq!(set["spec"]["template"]["metadata"]["labels"]["team"], "a");
    assert_eq!(set["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"], "leveret");
    for field in ["containers", "hostNetwork", "securityContext"] {
        let refused = made(json!({"podTemplate": {"spec": {field: null}}})).err().unwrap();
        assert!(refused.contains(field), "{refused}");
    }
    assert!(made(json!({"podTemplate": {"spec": {"tolerations": 5}}})).is_err());
}
