//! `Broker`.
use crate::Condition;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A broker.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "leveret.dev",
    version = "v1alpha1",
    kind = "Broker",
    namespaced,
    category = "leveret",
    shortname = "lvr",
    status = "BrokerStatus",
    derive = "PartialEq",
    doc = "An AMQP message broker: pods with persistent volumes, a Service for clients, a Secret to log in with.",
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".spec.replicas"),
    printcolumn(name = "Up", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Queues", type_ = "integer", json_path = ".status.queues"),
    printcolumn(name = "Messages", type_ = "integer", json_path = ".status.messages"),
    printcolumn(name = "Connections", type_ = "integer", json_path = ".status.connections"),
    printcolumn(name = "Image", type_ = "string", json_path = ".status.image", priority = 1),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[kube(validation = Rule::new("size(self.metadata.name) <= 40").message("a Broker's name has at most 40 characters: the names of its pods and services are made of it"))]
#[kube(validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("a Broker's name consists of lower-case letters, digits and -, begins with a letter and does not end with -: its Services are named after it"))]
#[serde(rename_all = "camelCase")]
pub struct BrokerSpec {
    /// Pods. One, until queues are replicated.
    #[serde(default = "one")]
    #[x_kube(validation = Rule::new("self == 1").message("replicas: only 1 is supported until queues are replicated"))]
    pub replicas: i32,
    /// The broker's container image. Unless it is given, the Broker keeps the image that was the operator's default when
    /// the Broker was first Ready without one (`status.defaultImage`), so that a newer operator restarts no broker that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^\S+$"))]
    pub image: Option<String>,
    /// The volume of each pod.
    #[serde(default)]
    pub storage: Storage,
    /// What each pod may use.
    #[serde(default)]
    pub resources: Resources,
    /// The Service that clients connect to.
    #[serde(default)]
    pub service: Service,
    /// Keys of the broker's own configuration file, such as `shutdown_grace_seconds: 20`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub config: Option<serde_json::Map<String, serde_json::Value>>,
    /// Who may declare something in this broker.
    #[serde(default)]
    pub topology: Topology,
    /// How its pods are scheduled and labelled.
    #[serde(default)]
    pub pod_template: PodTemplate,
    /// The operator changes nothing of this broker while this is set.
    #[serde(default)]
    pub paused: bool,
}

/// A volume a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// Its size, such as 10Gi. It can grow.
    #[serde(default = "default_size")]
    #[schemars(schema_with = "quantity_schema")]
    pub size: Quantity,
    /// Its storage class, unless it is the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
    /// What happens to the volumes when the Broker is deleted.
    #[serde(default)]
    pub retention: Retention,
}

/// What happens to volumes when their Broker is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Retention {
    /// Kept: a Broker of the same name finds its data again.
    #[default]
    Retain,
    /// Deleted.
    Delete,
}

/// What a pod may use: requests and limits by resource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("!has(self.requests) || !has(self.limits) || self.requests.all(name, !(name in self.limits) || !quantity(string(self.requests[name])).isGreaterThan(quantity(string(self.limits[name]))))").message("a request is not larger than the limit of the same resource"))]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What it is sure to get, such as `cpu: 100m` and `memory: 128Mi`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "quantities_schema")]
    pub requests: BTreeMap<String, Quantity>,
    /// What it may use at most; the memory budget of the broker is a share of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "quantities_schema")]
    pub limits: BTreeMap<String, Quantity>,
}

/// The Service for clients.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("!has(self.loadBalancerSourceRanges) || size(self.loadBalancerSourceRanges) == 0 || (has(self.type) && self.type == 'LoadBalancer')").message("loadBalancerSourceRanges: only a Service of type LoadBalancer has them"))]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// How it is reached. NodePort and LoadBalancer publish AMQP alone: management and metrics stay inside the cluster, at
    /// the Service `NAME-management`.
    #[serde(default, rename = "type")]
    pub kind: ServiceType,
    /// Annotations, such as a load balancer's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Addresses that may connect through a load balancer, such as `192.0.2.0/24`. Unless some are given all may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 50), regex(pattern = r"^[0-9a-fA-F.:]+/[0-9]{1,3}$")))]
    pub load_balancer_source_ranges: Vec<String>,
}

/// How a Service is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceType {
    /// From inside the cluster.
    #[default]
    ClusterIP,
    /// At a port of every node.
    NodePort,
    /// At a load balancer's address.
    LoadBalancer,
}

/// Who may declare something in a broker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Topology {
    /// Namespaces besides the Broker's own whose objects may refer to it; `*` allows all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_namespaces: Vec<String>,
}

/// What is added to the pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Merged into the pod's spec: nodeSelector, tolerations, affinity, topologySpreadConstraints, priorityClassName and
    /// whatever else schedules a pod. Containers, volumes and security are the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub spec: Option<serde_json::Map<String, serde_json::Value>>,
}

/// What became of a broker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BrokerStatus {
    /// The generation of the spec that this speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: all pods answer, and the management API answers through its Service. Progressing: something is being changed. Degraded: something is wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Pods that answer.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Queues on the broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<i64>,
    /// Messages in all queues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<i64>,
    /// Clients connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<i64>,
    /// Resources that have run short: memory, disk. Publishers are held back as long as one is listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alarms: Vec<String>,
    /// The image that the pods are to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The operator's default image when this Broker was first Ready without an image of its own: it keeps this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_image: Option<String>,
    /// Where clients find user, password and address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_user: Option<DefaultUser>,
    /// The same Secret, as the Service Binding specification looks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<NamedSecret>,
}

/// The user that is there from the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DefaultUser {
    /// Name of the Secret with username, password, host, port and connection_string.
    pub secret_name: String,
    /// Name of the Service that clients connect to.
    pub service_name: String,
}

/// A Secret by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NamedSecret {
    /// Its name.
    pub name: String,
}

impl Default for Storage {
    fn default() -> Self {
        Self { size: default_size(), class_name: None, retention: Retention::Retain }
    }
}

fn one() -> i32 {
    1
}

fn default_size() -> Quantity {
    Quantity("1Gi".to_owned())
}

fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// A quantity that is larger than zero, and small enough to be counted: Kubernetes has nothing larger than 2^63-1. Null is not meant: the API server takes the default instead of it.
fn quantity_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "x-kubernetes-int-or-string": true,
        "nullable": false,
        "maxLength": 32,
        "pattern": QUANTITY,
        "x-kubernetes-validations": [{
            "rule": "isQuantity(string(self)) && quantity(string(self)).isGreaterThan(quantity('0')) && quantity(string(self)).isLessThan(quantity('8E'))",
            "message": "a quantity larger than 0 and smaller than 8E is expected, such as 500m, 128Mi or 10Gi",
        }],
    })
}

/// Quantities by the name of a resource that pods can ask for.
fn quantities_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": quantity_schema(generator),
        "x-kubernetes-validations": [{
            "rule": "self.all(name, name in ['cpu', 'memory', 'ephemeral-storage'] || name.startsWith('hugepages-') || name.contains('/'))",
            "message": "cpu, memory, ephemeral-storage, hugepages-SIZE or a device plugin's VENDOR/NAME is expected",
        }],
    })
}

/// How quantities are written, without a sign.
/// Source: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>.
const QUANTITY: &str = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][0-9]+)?$";
