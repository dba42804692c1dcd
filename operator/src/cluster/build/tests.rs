//! The children of a Broker, without a cluster.
use super::*;
use crate::cluster::login::Login;
use crate::cluster::shared_secret::SharedSecret;
use serde_json::{Value, json};

pub(crate) fn broker(spec: Value) -> Broker {
    let broker = json!({
        "apiVersion": "leveret.dev/v1alpha1", "kind": "Broker",
        "metadata": {"name": "shop", "namespace": "trade", "uid": "u"}, "spec": spec,
    });
    serde_json::from_value(broker).unwrap()
}

pub(crate) fn image(name: &str) -> Image<'_> {
    Image { name, pull_secrets: &[] }
}

/// These logins, with a secret of the cluster.
pub(crate) fn secrets(logins: Logins) -> Secrets {
    Secrets { logins, shared: SharedSecret { secret: "s".to_owned(), version: "s1".to_owned() } }
}

/// Secrets with a login of that version.
fn secrets_of(version: &str) -> Secrets {
    let current = Login { username: "u".to_owned(), password: "p".to_owned() };
    secrets(Logins { current, previous: None, version: version.to_owned() })
}

/// The children of a Broker with these secrets.
pub(crate) fn children_of(broker: &Broker, image: Image<'_>, secrets: &Secrets) -> Children {
    children(broker, &config(broker).unwrap(), pod_spec(broker, image).unwrap(), secrets).unwrap()
}

/// The StatefulSet and the configuration; the message of the problem if the spec is wrong.
fn made(spec: Value) -> Result<(Value, String), String> {
    let broker = broker(spec);
    let message = |problem: Problem| problem.message;
    let config = config(&broker).map_err(message)?;
    let text = config.data.as_ref().unwrap()["leveret.toml"].clone();
    let set = set::build(&broker, pod_spec(&broker, image("image:1")).map_err(message)?, &config, &secrets_of("v1"));
    Ok((serde_json::to_value(set).unwrap(), text))
}

#[test]
fn a_broker_is_named_owned_and_restricted() {
    let (set, _) = made(json!({})).unwrap();
    assert_eq!(set["metadata"]["name"], "shop");
    assert_eq!(set["metadata"]["ownerReferences"][0]["uid"], "u");
    let pod = &set["spec"]["template"]["spec"];
    assert_eq!(pod["containers"][0]["image"], "image:1");
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(set["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"], "Retain");
    assert_eq!(set["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"], "1Gi");
    let budget = serde_json::to_value(budget::build(&broker(json!({})))).unwrap();
    assert_eq!(budget["spec"]["maxUnavailable"], 1);
    assert_eq!(service::nodes(&broker(json!({}))).metadata.name.as_deref(), Some("shop-nodes"));
}

#[test]
fn the_secret_has_the_shape_of_a_service_binding_and_agrees_with_itself() {
    let login = Login { username: "u".to_owned(), password: "p/w@:".to_owned() };
    let secret = secret::build(&broker(json!({})), &login);
    let field = |name: &str| String::from_utf8(secret.data.as_ref().unwrap()[name].0.clone()).unwrap();
    assert_eq!(
        (field("type"), field("provider"), field("host")),
        ("rabbitmq".into(), "leveret".into(), "shop.trade.svc".into())
    );
    assert_eq!(field("connection_string"), "amqp://u:p%2Fw%40%3A@shop.trade.svc:5672/");
    assert_eq!((field("username"), field("password")), (login.username, login.password));
}

#[test]
fn outside_the_cluster_only_amqp_is_published() {
    let ports = |kind: &str| {
        let service = service::clients(&broker(json!({"service": {"type": kind}})));
        let ports = service.spec.unwrap().ports.unwrap().into_iter().filter_map(|port| port.name);
        ports.collect::<Vec<_>>()
    };
    assert_eq!(ports("ClusterIP"), ["amqp", "http", "metrics"]);
    for kind in ["NodePort", "LoadBalancer"] {
        assert_eq!(ports(kind), ["amqp"], "{kind}");
    }
    let some = json!({"service": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["192.0.2.0/24"]}});
    let ranges = service::clients(&broker(some)).spec.unwrap().load_balancer_source_ranges;
    assert_eq!(ranges, Some(vec!["192.0.2.0/24".to_owned()]));
    let inside = service::management(&broker(json!({"service": {"type": "LoadBalancer"}})));
    assert_eq!(
        (inside.metadata.name.as_deref(), inside.spec.unwrap().type_.as_deref()),
        (Some("shop-management"), Some("ClusterIP"))
    );
}

#[test]
fn pods_are_restarted_with_another_login_and_say_last_why_they_end() {
    let of = |version: &str| {
        let broker = broker(json!({}));
        set::build(&broker, pod_spec(&broker, image("i")).unwrap(), &config(&broker).unwrap(), &secrets_of(version))
    };
    assert_ne!(of("a").spec.unwrap().template, of("b").spec.unwrap().template);
    assert_eq!(login_version(&of("a")).as_deref(), Some("a"));
    let container = of("a").spec.unwrap().template.spec.unwrap().containers.remove(0);
    assert_eq!(container.termination_message_policy.as_deref(), Some("FallbackToLogsOnError"));
    let from = container.env.unwrap().remove(1).value_from.unwrap().secret_key_ref.unwrap();
    assert_eq!((&*from.name, &*from.key), ("shop-login", "password"));
}

#[test]
fn configuration_reaches_the_file_and_the_pod() {
    let (one, text) = made(json!({"config": {"shutdown_grace_seconds": 20}})).unwrap();
    assert!(text.ends_with("shutdown_grace_seconds = 20\n"), "{text}");
    let annotation =
        |set: &Value| set["spec"]["template"]["metadata"]["annotations"]["leveret.dev/config-hash"].clone();
    assert_ne!(annotation(&one), annotation(&made(json!({})).unwrap().0));
    for key in ["amqp", "peer", "node_name", "cluster_name", "cluster_anything"] {
        let refused = made(json!({"config": {key: "x"}})).err().unwrap();
        assert_eq!(refused, format!("spec.config: {key} is set by the operator"));
    }
}

#[test]
fn more_nodes_change_the_configuration_file_and_no_pod() {
    let of = |replicas: i32| made(json!({"replicas": replicas, "config": {"log": "json"}})).unwrap();
    let ((one, file_of_one), (three, file_of_three)) = (of(1), of(3));
    assert_eq!(one["spec"]["template"], three["spec"]["template"]);
    assert_eq!((&one["spec"]["replicas"], &three["spec"]["replicas"]), (&json!(1), &json!(3)));
    let read = |file: &str| file.parse::<toml::Table>().unwrap();
    let (one, three) = (read(&file_of_one), read(&file_of_three));
    assert_eq!(one["peer"].as_array().unwrap().len(), 1);
    assert_eq!(three["peer"].as_array().unwrap()[2].as_str(), Some("shop-2.shop-nodes.trade.svc:25672"));
    assert_eq!((three["cluster_name"].as_str(), three["log"].as_str()), (Some("trade/shop"), Some("json")));
}

#[test]
fn pods_form_a_cluster_and_leave_it_in_order() {
    let (set, _) = made(json!({"replicas": 3, "config": {"shutdown_grace_seconds": 20}})).unwrap();
    assert_eq!(set["spec"]["updateStrategy"], json!({"type": "OnDelete"}));
    let pod = &set["spec"]["template"]["spec"];
    assert_eq!(pod["terminationGracePeriodSeconds"], 75);
    let container = &pod["containers"][0];
    assert_eq!(container["lifecycle"]["preStop"]["exec"]["command"][2], "transfer");
    let variable = |name: &str| container["env"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap();
    assert_eq!(variable("LEVERET_CLUSTER_ADDRESS")["value"], "$(POD_NAME).shop-nodes.trade.svc:25672");
    assert_eq!(variable("LEVERET_CLUSTER_SECRET")["valueFrom"]["secretKeyRef"]["name"], "shop-cluster");
    let spread = pod["topologySpreadConstraints"].as_array().unwrap();
    assert!(spread.iter().all(|one| one["whenUnsatisfiable"] == "ScheduleAnyway") && spread.len() == 2, "{spread:?}");
    let own = json!({"podTemplate": {"spec": {"topologySpreadConstraints": []}}});
    assert_eq!(made(own).unwrap().0["spec"]["template"]["spec"]["topologySpreadConstraints"], json!([]));
    let nodes = service::nodes(&broker(json!({}))).spec.unwrap();
    assert!(
        nodes.publish_not_ready_addresses == Some(true) && nodes.ports.unwrap().iter().any(|port| port.port == 25672)
    );
}

#[test]
fn a_pod_template_can_schedule_pods_but_not_lift_their_restrictions() {
    let spec = json!({"podTemplate": {"labels": {"team": "a", "app.kubernetes.io/name": "x"}, "spec": {"nodeSelector": {"disk": "fast"}}}});
    let (set, _) = made(spec).unwrap();
    assert_eq!(set["spec"]["template"]["spec"]["nodeSelector"]["disk"], "fast");
    assert_eq!(set["spec"]["template"]["metadata"]["labels"]["team"], "a");
    assert_eq!(set["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"], "leveret");
    for field in ["containers", "hostNetwork", "securityContext"] {
        let refused = made(json!({"podTemplate": {"spec": {field: null}}})).err().unwrap();
        assert!(refused.contains(field), "{refused}");
    }
    assert!(made(json!({"podTemplate": {"spec": {"tolerations": 5}}})).is_err());
    for (spec, field) in [
        (json!({"tolerationz": []}), ""),
        (json!({"tolerationz": [{"key": "a"}]}), "tolerationz"),
        (json!({"tolerations": [{"key": "a", "operater": "Exists"}]}), "tolerations.0.operater"),
        (json!({"affinity": {"nodeAffinity": {"preferred": 1}}}), "affinity.nodeAffinity.preferred"),
        (
            json!({"tolerations": [{"key": "a", "operator": "Exists"}], "dnsPolicy": "Default", "priorityClassName": "x"}),
            "",
        ),
    ] {
        let said = made(json!({"podTemplate": {"spec": spec}})).err().unwrap_or_default();
        let expected = if field.is_empty() {
            String::new()
        } else {
            format!("spec.podTemplate.spec.{field} is no field of a pod")
        };
        assert_eq!(said, expected, "{spec}");
    }
}

#[test]
fn images_are_pulled_with_the_secrets_of_all_brokers_unless_a_broker_has_its_own() {
    let names = ["team".to_owned(), "mirror".to_owned()];
    let secrets = |spec: Value| {
        let broker = broker(spec);
        let image = Image { name: "image:1", pull_secrets: &names };
        let set = set::build(&broker, pod_spec(&broker, image).unwrap(), &config(&broker).unwrap(), &secrets_of("v1"));
        let secrets = set.spec.unwrap().template.spec.unwrap().image_pull_secrets.unwrap();
        secrets.into_iter().map(|secret| secret.name).collect::<Vec<_>>()
    };
    assert_eq!(secrets(json!({})), ["team", "mirror"]);
    assert_eq!(secrets(json!({"podTemplate": {"spec": {"imagePullSecrets": [{"name": "own"}]}}})), ["own"]);
    let without = made(json!({})).unwrap().0;
    assert_eq!(without["spec"]["template"]["spec"]["imagePullSecrets"], Value::Null);
}
