//! The pod of a broker: one container, as restricted as Kubernetes knows it.
use super::{AMQP, HTTP, Image, METRICS, config, labels, secret};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::ResourceExt;
use leveret_api::Broker;
use serde_json::{Value, json};

/// Name of the volume with the data.
pub(super) const DATA: &str = "data";

/// Name of the container that the broker runs in.
pub(crate) const CONTAINER: &str = "leveret";

/// Annotation with the version of the login that the pod runs with.
pub(super) const LOGIN: &str = "leveret.dev/login";

/// The pod; its annotations change with the configuration and the login, so that new ones reach the broker.
pub(super) fn template(
    broker: &Broker,
    image: Image<'_>,
    config_hash: &str,
    login_version: &str,
) -> Result<PodTemplateSpec, String> {
    let wanted = &broker.spec.pod_template;
    let mut pod_labels = wanted.labels.clone();
    pod_labels.extend(labels(broker));
    let mut annotations = wanted.annotations.clone();
    let scrape = [("prometheus.io/scrape", "true".to_owned()), ("prometheus.io/port", METRICS.to_string())];
    let versions = [("leveret.dev/config-hash", config_hash.to_owned()), (LOGIN, login_version.to_owned())];
    annotations.extend(scrape.into_iter().chain(versions).map(|(name, value)| (name.to_owned(), value)));
    let mut spec = json!({
        "serviceAccountName": broker.name_any(),
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 30,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container(broker, image.name)],
        "volumes": [{"name": "config", "configMap": {"name": config::name(broker)}}],
    });
    for (name, value) in wanted.spec.clone().unwrap_or_default() {
        if spec.get(&name).is_some() || FORBIDDEN.contains(&&*name) {
            return Err(format!(
                "spec.podTemplate.spec.{name} is set by the operator; what schedules a pod can be set"
            ));
        }
        spec[name] = value;
    }
    if let Some(fields) = spec.as_object_mut() {
        for (name, value) in
            [("dnsPolicy", "ClusterFirst"), ("restartPolicy", "Always"), ("schedulerName", "default-scheduler")]
        {
            fields.entry(name).or_insert_with(|| json!(value));
        }
        if !image.pull_secrets.is_empty() {
            let secrets: Vec<_> = image.pull_secrets.iter().map(|name| json!({"name": name})).collect();
            fields.entry("imagePullSecrets").or_insert_with(|| json!(secrets));
        }
    }
    let template = json!({"metadata": {"labels": pod_labels, "annotations": annotations}, "spec": spec});
    let read: PodTemplateSpec = serde_json::from_value(template.clone())
        .map_err(|error| format!("spec.podTemplate is no part of a pod: {error}"))?;
    let known = serde_json::to_value(&read).map_err(|error| format!("spec.podTemplate cannot be written: {error}"))?;
    match unknown(&template["spec"], &known["spec"]) {
        Some(field) => Err(format!("spec.podTemplate.spec.{field} is no field of a pod")),
        None => Ok(read),
    }
}

/// The path of the first field that was not understood: it is not in what was read.
fn unknown(said: &Value, known: &Value) -> Option<String> {
    let below = |name: String, said: &Value, known: &Value| {
        unknown(said, known).map(|rest| if rest.is_empty() { name.clone() } else { format!("{name}.{rest}") })
    };
    match (said, known) {
        (Value::Null, _) => None,
        (Value::Object(said), Value::Object(known)) => {
            said.iter().find_map(|(name, value)| below(name.clone(), value, known.get(name).unwrap_or(&Value::Null)))
        }
        (Value::Array(said), Value::Array(known)) => {
            let pairs = said.iter().zip(known).enumerate();
            pairs.into_iter().find_map(|(at, (said, known))| below(at.to_string(), said, known))
        }
        // Nothing in it: it may be left out.
        (Value::Object(said), _) if said.is_empty() => None,
        (Value::Array(said), _) if said.is_empty() => None,
        (_, Value::Null) => Some(String::new()),
        _ => None,
    }
}

fn container(broker: &Broker, image: &str) -> Value {
    let from_secret = |variable: &str, key: &str| json!({"name": variable, "valueFrom": {"secretKeyRef": {"name": secret::login_name(broker), "key": key}}});
    let get = |path: &str| json!({"path": path, "port": "http", "scheme": "HTTP"});
    json!({
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["serve", "--config", format!("/etc/leveret/{}", config::FILE), "--data-dir", "/var/lib/leveret/data"],
        "env": [
            from_secret("LEVERET_DEFAULT_USER", "username"),
            from_secret("LEVERET_DEFAULT_PASS", "password"),
        ],
        // What the broker said last is what its condition says when it does not start.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "ports": [
            {"name": "amqp", "containerPort": AMQP, "protocol": "TCP"},
            {"name": "http", "containerPort": HTTP, "protocol": "TCP"},
            {"name": "metrics", "containerPort": METRICS, "protocol": "TCP"},
        ],
        // An hour to come up: a log that is long is read for long, and must not be read anew again and again.
        "startupProbe": {"httpGet": get("/health/live"), "periodSeconds": 1, "timeoutSeconds": 3, "failureThreshold": 3600, "successThreshold": 1},
        "readinessProbe": {"httpGet": get("/health/ready"), "periodSeconds": 1, "timeoutSeconds": 3, "failureThreshold": 3, "successThreshold": 1},
        "livenessProbe": {"httpGet": get("/health/live"), "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6, "successThreshold": 1},
        "resources": broker.spec.resources,
        "securityContext": {
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": DATA, "mountPath": "/var/lib/leveret"},
            {"name": "config", "mountPath": "/etc/leveret", "readOnly": true},
        ],
    })
}

/// Fields that would take from the pod what keeps it apart from its node.
const FORBIDDEN: [&str; 4] = ["hostNetwork", "hostPID", "hostIPC", "initContainers"];
const USER: i64 = 65532;
