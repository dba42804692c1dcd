//! The pod of a broker: one container, with the strictest restrictions that Kubernetes has.
use super::{AMQP, CLUSTER, HTTP, Image, METRICS, Secrets, config, labels, secret, selector, service};
use crate::cluster::problem::Problem;
use crate::cluster::shared_secret::SECRET;
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use leveret_api::Broker;
use serde_json::{Value, json};

/// The name of the volume with the data.
pub(super) const DATA: &str = "data";

/// The name of the container that the broker runs in.
pub(crate) const CONTAINER: &str = "leveret";

/// The annotation with the version of the login that the pod runs with.
pub(super) const LOGIN: &str = "leveret.dev/login";

/// The annotation with the version of the secret that the node in the pod shares with the others.
pub(in crate::cluster) const SHARED: &str = "leveret.dev/cluster-secret";

/// Returns the template of the pods. Its annotations change with the configuration and the secrets, so that a change of
/// either restarts the pods.
pub(super) fn template(broker: &Broker, pod: PodSpec, config_hash: &str, secrets: &Secrets) -> PodTemplateSpec {
    let wanted = &broker.spec.pod_template;
    let mut pod_labels = wanted.labels.clone();
    pod_labels.extend(labels(broker));
    let mut annotations = wanted.annotations.clone();
    let scrape = [("prometheus.io/scrape", "true".to_owned()), ("prometheus.io/port", METRICS.to_string())];
    let versions = [
        ("leveret.dev/config-hash", config_hash.to_owned()),
        (LOGIN, secrets.logins.version.clone()),
        (SHARED, secrets.shared.version.clone()),
    ];
    annotations.extend(scrape.into_iter().chain(versions).map(|(name, value)| (name.to_owned(), value)));
    let metadata = ObjectMeta { labels: Some(pod_labels), annotations: Some(annotations), ..ObjectMeta::default() };
    PodTemplateSpec { metadata: Some(metadata), spec: Some(pod) }
}

/// Returns the spec of the pods, including the fields of `spec.podTemplate`.
///
/// # Errors
/// A field of `spec.podTemplate` that the operator sets itself, that a pod does not have, or that has another type.
pub(in crate::cluster) fn spec(broker: &Broker, image: Image<'_>) -> Result<PodSpec, Problem> {
    let mut spec = json!({
        "serviceAccountName": broker.name_any(),
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": stop_seconds_max(broker),
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container(broker, image.name)],
        "volumes": [{"name": "config", "configMap": {"name": config::name(broker)}}],
    });
    for (name, value) in broker.spec.pod_template.spec.clone().unwrap_or_default() {
        if spec.get(&name).is_some() || FORBIDDEN.contains(&&*name) {
            return Err(Problem::invalid_spec(format!(
                "spec.podTemplate.spec.{name} is set by the operator; fields that schedule a pod can be set"
            )));
        }
        spec[name] = value;
    }
    if let Some(fields) = spec.as_object_mut() {
        for (name, value) in
            [("dnsPolicy", "ClusterFirst"), ("restartPolicy", "Always"), ("schedulerName", "default-scheduler")]
        {
            fields.entry(name).or_insert_with(|| json!(value));
        }
        fields.entry("topologySpreadConstraints").or_insert_with(|| json!(spread(broker)));
        if !image.pull_secrets.is_empty() {
            let secrets: Vec<_> = image.pull_secrets.iter().map(|name| json!({"name": name})).collect();
            fields.entry("imagePullSecrets").or_insert_with(|| json!(secrets));
        }
    }
    let read: PodSpec = serde_json::from_value(spec.clone())
        .map_err(|error| Problem::invalid_spec(format!("spec.podTemplate does not fit a pod: {error}")))?;
    let known = serde_json::to_value(&read)
        .map_err(|error| Problem::invalid_spec(format!("spec.podTemplate cannot be written: {error}")))?;
    match unknown_field(&spec, &known) {
        Some(field) => Err(Problem::invalid_spec(format!("spec.podTemplate.spec.{field} is no field of a pod"))),
        None => Ok(read),
    }
}

/// Returns constraints that spread the pods over nodes and zones as far as there are any.
fn spread(broker: &Broker) -> [Value; 2] {
    ["kubernetes.io/hostname", "topology.kubernetes.io/zone"].map(|key| {
        json!({
            "maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector(broker)},
        })
    })
}

/// Returns the longest time that a pod may take to stop, in seconds: its node lets others lead, and waits until they have
/// all entries; then it waits for its leaders, its clients and its HTTP connections, up to the grace that the configuration
/// has for each of them.
fn stop_seconds_max(broker: &Broker) -> u64 {
    let config = broker.spec.config.as_ref();
    let grace = config.and_then(|config| config.get("shutdown_grace_seconds")).and_then(Value::as_f64).unwrap_or(10.0);
    TRANSFER_SECONDS_MAX + 3 * grace.clamp(0.0, 86_400.0).ceil() as u64 + 10
}

/// Returns the path of the first field of `spec` that a pod does not have: it is missing in `known`, which is `spec`
/// after it was read as a pod and written again.
fn unknown_field(spec: &Value, known: &Value) -> Option<String> {
    let below = |name: String, spec: &Value, known: &Value| {
        unknown_field(spec, known).map(|rest| if rest.is_empty() { name.clone() } else { format!("{name}.{rest}") })
    };
    match (spec, known) {
        (Value::Null, _) => None,
        (Value::Object(spec), Value::Object(known)) => {
            spec.iter().find_map(|(name, value)| below(name.clone(), value, known.get(name).unwrap_or(&Value::Null)))
        }
        (Value::Array(spec), Value::Array(known)) => {
            let pairs = spec.iter().zip(known).enumerate();
            pairs.into_iter().find_map(|(at, (spec, known))| below(at.to_string(), spec, known))
        }
        // An empty value may be left out when it is written again.
        (Value::Object(spec), _) if spec.is_empty() => None,
        (Value::Array(spec), _) if spec.is_empty() => None,
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
            {"name": "LEVERET_CLUSTER_SECRET", "valueFrom": {"secretKeyRef": {"name": secret::shared_name(broker), "key": SECRET}}},
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
            {"name": "LEVERET_CLUSTER_ADDRESS", "value": format!("$(POD_NAME).{}", service::nodes_host(broker))},
        ],
        // Others lead, and have everything, before this node stops.
        "lifecycle": {"preStop": {"exec": {"command": [
            "/leveret", "cluster", "transfer", "--timeout", TRANSFER_SECONDS_MAX.to_string(),
        ]}}},
        // The last lines that the broker printed go into the condition of a Broker that does not start.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "ports": [
            {"name": "amqp", "containerPort": AMQP, "protocol": "TCP"},
            {"name": "http", "containerPort": HTTP, "protocol": "TCP"},
            {"name": "metrics", "containerPort": METRICS, "protocol": "TCP"},
            {"name": "cluster", "containerPort": CLUSTER, "protocol": "TCP"},
        ],
        // An hour to start: reading a long log takes long, and must not be interrupted and begun again.
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

/// Fields that would give the pod access to its node, or run other containers before the broker.
const FORBIDDEN: [&str; 4] = ["hostNetwork", "hostPID", "hostIPC", "initContainers"];
/// The user and the group that the broker runs as.
const USER: i64 = 65532;
/// How long a pod that is being stopped waits at most until others lead and have all entries, in seconds.
const TRANSFER_SECONDS_MAX: u64 = 5;
