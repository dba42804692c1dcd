//! The pod of a broker: one container, as restricted as Kubernetes knows it.
use super::{AMQP, HTTP, METRICS, config, labels, secret};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::ResourceExt;
use leveret_api::Broker;
use serde_json::{Value, json};

/// Name of the volume with the data.
pub(super) const DATA: &str = "data";

/// The pod; its annotation changes with the configuration, so that a new one reaches the broker.
pub(super) fn template(broker: &Broker, image: &str, config_hash: &str) -> Result<PodTemplateSpec, String> {
    let wanted = &broker.spec.pod_template;
    let mut pod_labels = wanted.labels.clone();
    pod_labels.extend(labels(broker));
    let mut annotations = wanted.annotations.clone();
    let scrape = [("prometheus.io/scrape", "true".to_owned()), ("prometheus.io/port", METRICS.to_string())];
    let config = [("leveret.dev/config-hash", config_hash.to_owned())];
    annotations.extend(scrape.into_iter().chain(config).map(|(name, value)| (name.to_owned(), value)));
    let mut spec = json!({
        "serviceAccountName": broker.name_any(),
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 30,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container(broker, image)],
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
    let template = json!({"metadata": {"labels": pod_labels, "annotations": annotations}, "spec": spec});
    serde_json::from_value(template).map_err(|error| format!("spec.podTemplate is no part of a pod: {error}"))
}

fn container(broker: &Broker, image: &str) -> Value {
    let from_secret = |variable: &str, key: &str| json!({"name": variable, "valueFrom": {"secretKeyRef": {"name": secret::name(broker), "key": key}}});
    let get = |path: &str| json!({"path": path, "port": "http"});
    json!({
        "name": "leveret",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["serve", "--config", format!("/etc/leveret/{}", config::FILE), "--data-dir", "/var/lib/leveret/data"],
        "env": [
            from_secret("LEVERET_DEFAULT_USER", "username"),
            from_secret("LEVERET_DEFAULT_PASS", "password"),
        ],
        "ports": [
            {"name": "amqp", "containerPort": AMQP},
            {"name": "http", "containerPort": HTTP},
            {"name": "metrics", "containerPort": METRICS},
        ],
        "startupProbe": {"httpGet": get("/health/ready"), "periodSeconds": 1, "failureThreshold": 300},
        "readinessProbe": {"httpGet": get("/health/ready"), "periodSeconds": 1, "timeoutSeconds": 3},
        "livenessProbe": {"httpGet": get("/health/live"), "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6},
        "resources": {"requests": broker.spec.resources.requests, "limits": broker.spec.resources.limits},
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
