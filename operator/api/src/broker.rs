//! The kind `Broker`.
use crate::Condition;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The broker that is to run.
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
    doc = "An AMQP message broker. The operator runs it as pods with persistent volumes, a Service for clients and a Secret with their login.",
    printcolumn(name = "Members", type_ = "string", json_path = ".status.members"),
    printcolumn(name = "Queues", type_ = "integer", json_path = ".status.queues"),
    printcolumn(name = "Messages", type_ = "integer", json_path = ".status.messages"),
    printcolumn(name = "Connections", type_ = "integer", json_path = ".status.connections"),
    printcolumn(name = "Image", type_ = "string", json_path = ".status.image", priority = 1),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Waits for", type_ = "string", json_path = ".status.waitsFor"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[kube(validation = Rule::new("size(self.metadata.name) <= 40").message("a Broker's name must have at most 40 characters, because the names of its pods and Services are derived from it"))]
#[kube(validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("a Broker's name must consist of lower-case letters, digits and '-', begin with a letter and not end with '-', because its Services are named after it"))]
#[serde(rename_all = "camelCase")]
pub struct BrokerSpec {
    /// Number of broker pods: 1 (the default), 3 or 5. Several pods form a cluster, in which each has all durable messages: a
    /// confirm then means that a majority has the message on disk. Of 3 pods one may be lost, of 5 two, with their nodes and
    /// volumes. A change restarts no pod. If the number is reduced, the members with the highest ordinals leave the cluster
    /// one after the other, and then their pods and volumes are deleted.
    #[serde(default = "one")]
    #[x_kube(validation = Rule::new("self in [1, 3, 5]").message("replicas must be 1, 3 or 5: one more than 1 or 3 would let no more of them be lost"))]
    pub replicas: i32,
    /// Container image of the broker. Default: the operator's default image. Once the Broker has been Ready with the
    /// default image, it keeps that image (`status.defaultImage`), so that an upgrade of the operator does not restart
    /// a running broker. A change of the image restarts the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^\S+$"))]
    pub image: Option<String>,
    /// The persistent volume of each pod.
    #[serde(default)]
    pub storage: Storage,
    /// CPU, memory and other resources of each pod. A change restarts the pods.
    #[serde(default)]
    pub resources: Resources,
    /// The Service that clients connect to. It has the name of the Broker.
    #[serde(default)]
    pub service: Service,
    /// Settings for the broker's configuration file, by key, such as `shutdown_grace_seconds: 20`. Default: none. The
    /// command `leveret config` prints all keys and their defaults. The keys `data_dir`, `amqp`, `http`, `metrics`,
    /// `default_user`, `default_pass`, `node_name`, `peer`, `join` and those that begin with `cluster_` are set by the
    /// operator: if one of them is given, nothing of the Broker is changed and the condition Degraded has the reason
    /// `InvalidSpec`. A change restarts the pods, one after the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub config: Option<serde_json::Map<String, serde_json::Value>>,
    /// Which namespaces may declare exchanges, queues and bindings on this Broker.
    #[serde(default)]
    pub topology: Topology,
    /// Labels, annotations and scheduling of the pods. A change restarts the pods, one after the other.
    #[serde(default)]
    pub pod_template: PodTemplate,
    /// Whether the operator leaves this Broker alone: while it is true, the operator changes neither the objects that
    /// the Broker consists of nor the exchanges, queues and bindings on it, and only updates the status. Deleting a
    /// paused Broker still deletes its objects. Default: false.
    #[serde(default)]
    pub paused: bool,
}

/// The persistent volume of each pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// Size of the volume, such as `10Gi`. Default: `1Gi`. It can be increased while the broker runs if the storage
    /// class allows volume expansion; the condition Progressing has the reason `VolumesGrow` until the volume has its
    /// new size. It cannot be decreased.
    #[serde(default = "default_size")]
    #[schemars(schema_with = "quantity_schema")]
    pub size: Quantity,
    /// Storage class of the volume. Default: the default storage class of the cluster. It cannot be changed once the
    /// volume exists: the condition Degraded then has the reason `ChangeRefused`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
    /// What happens to the volumes when the Broker is deleted:
    /// - `Retain` (the default): they are kept. A Broker that is created later with the same name finds its data again.
    /// - `Delete`: they are deleted, with all messages on them.
    #[serde(default)]
    pub retention: Retention,
}

/// What happens to the volumes of a Broker when it is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Retention {
    /// They are kept: a Broker that is created later with the same name finds its data again.
    #[default]
    Retain,
    /// They are deleted.
    Delete,
}

/// Requests and limits of a pod, by resource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("!has(self.requests) || !has(self.limits) || self.requests.all(name, !(name in self.limits) || !quantity(string(self.requests[name])).isGreaterThan(quantity(string(self.limits[name]))))").message("a request must not be larger than the limit of the same resource"))]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// Resources that are reserved for the pod, such as `cpu: 100m` and `memory: 128Mi`. Default: none; Kubernetes then
    /// takes the limit of the resource, if there is one. A request must not be larger than the limit of the same
    /// resource.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "quantities_schema")]
    pub requests: BTreeMap<String, Quantity>,
    /// Resources that the pod may use at most, such as `memory: 1Gi`. Default: no limit. The memory budget of the
    /// broker is 60 % of the memory limit (without a limit: of the memory of the node), unless `memory_max` in
    /// `spec.config` says otherwise; while the budget is used up, publishers are blocked.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "quantities_schema")]
    pub limits: BTreeMap<String, Quantity>,
}

/// The Service that clients connect to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("!has(self.loadBalancerSourceRanges) || size(self.loadBalancerSourceRanges) == 0 || (has(self.type) && self.type == 'LoadBalancer')").message("loadBalancerSourceRanges can only be set for a Service of type LoadBalancer"))]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// How clients reach the Service:
    /// - `ClusterIP` (the default): from inside the cluster, at the ports 5672 (AMQP), 15672 (management) and 15692
    ///   (metrics).
    /// - `NodePort`: at a port of every node, AMQP only.
    /// - `LoadBalancer`: at the address of a load balancer, AMQP only.
    ///
    /// Whatever the type is, the Service `NAME-management` offers management and metrics inside the cluster.
    #[serde(default, rename = "type")]
    pub kind: ServiceType,
    /// Annotations of the Service, such as those that configure the load balancer of a cloud provider. Default: none.
    /// An annotation that is removed here is removed from the Service; annotations that others have set on the Service
    /// stay.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Address ranges that may connect through the load balancer, such as `192.0.2.0/24`. Default: none, which lets all
    /// addresses connect. Only for the type `LoadBalancer`, and only if the cluster's load balancer supports it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 50), regex(pattern = r"^[0-9a-fA-F.:]+/[0-9]{1,3}$")))]
    pub load_balancer_source_ranges: Vec<String>,
}

/// How a Service is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceType {
    /// Clients connect from inside the cluster.
    #[default]
    ClusterIP,
    /// Clients connect to a port of any node.
    NodePort,
    /// Clients connect to the address of a load balancer.
    LoadBalancer,
}

/// Which namespaces may declare exchanges, queues and bindings on a Broker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Topology {
    /// Other namespaces whose Exchanges, Queues and Bindings may refer to this Broker; `*` allows all namespaces.
    /// Default: none, so that only the Broker's own namespace may. When a namespace is removed from the list, the
    /// condition Ready of its resources gets the reason `NotAllowed`; what they have declared stays on the broker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_namespaces: Vec<String>,
}

/// Labels, annotations and fields that are added to the pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Labels of the pods. Default: none. They cannot replace the labels that the operator sets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pods. Default: none. They cannot replace the annotations that the operator sets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Fields that are added to the pods' spec, such as `nodeSelector`, `tolerations`, `affinity`,
    /// `topologySpreadConstraints`, `priorityClassName` and `imagePullSecrets`. Default: none, except that the pods are
    /// spread over nodes and zones as far as possible unless `topologySpreadConstraints` are given. If a field is unknown,
    /// or is one that the operator sets or forbids (such as `containers`, `initContainers`, `volumes`,
    /// `securityContext` and `hostNetwork`), nothing of the Broker is changed and the condition Degraded has the reason
    /// `InvalidSpec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub spec: Option<serde_json::Map<String, serde_json::Value>>,
}

/// State of a broker, as the operator last saw it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BrokerStatus {
    /// The `metadata.generation` of the Broker that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The conditions of the Broker:
    /// - `Ready`: all pods are ready, and the broker has answered AMQP and its management API through the Services. It
    ///   stays True as long as all pods are ready; if the broker stops answering, `Degraded` says so.
    /// - `Available`: clients can use the broker, because at least one pod is ready. A pod is ready only while a majority
    ///   of the members is up. Topology resources are processed while it is True.
    /// - `Progressing`: pods are being started or replaced, members join or leave, volumes grow, or the Service waits for
    ///   the address of a load balancer.
    /// - `Degraded`: something is not as specified or does not work; the message says what.
    ///
    /// The messages quote the API server, the scheduler, the kubelet or the broker where one of them has reported the
    /// problem.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Number of pods that are ready.
    #[serde(default)]
    pub ready_replicas: i32,
    /// How many members of the cluster are up and vote, and how many there are to be, such as `3/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<String>,
    /// What the Broker waits for, in the words of the broker, of Kubernetes or of the operator. Absent if it waits for
    /// nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// Number of queues on the broker. Updated at most every five seconds; absent while no pod is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<i64>,
    /// Number of messages in all queues. Updated at most every five seconds; absent while no pod is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<i64>,
    /// Number of client connections. Updated at most every five seconds; absent while no pod is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<i64>,
    /// Resources that the broker has run short of: `memory`, `disk`. Publishers are blocked as long as one is listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alarms: Vec<String>,
    /// The container image that the pods are to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The operator's default image at the time at which this Broker was first Ready without `spec.image`. The Broker
    /// keeps it until `spec.image` is set; if `spec.image` is removed later, the Broker takes the operator's default
    /// image of that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_image: Option<String>,
    /// Where clients find the user, the password and the address of the broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_user: Option<DefaultUser>,
    /// The Secret of `defaultUser` once more, in the field in which the Service Binding specification expects it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<NamedSecret>,
}

/// Names of the objects that a client needs to connect as the default user.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DefaultUser {
    /// Name of the Secret with `username`, `password`, `host`, `port` and `connection_string`. To change the login,
    /// edit `username` or `password` in it: the operator then restarts the pods with the new login.
    pub secret_name: String,
    /// Name of the Service that clients connect to.
    pub service_name: String,
}

/// Reference to a Secret in the namespace of the Broker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NamedSecret {
    /// Name of the Secret.
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

/// Returns the schema of a quantity that is larger than zero and smaller than 8E, since Kubernetes has no numbers above
/// 2^63-1. It is not nullable, so that the API server replaces null by the default.
fn quantity_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "x-kubernetes-int-or-string": true,
        "nullable": false,
        "maxLength": 32,
        "pattern": QUANTITY,
        "x-kubernetes-validations": [{
            "rule": "isQuantity(string(self)) && quantity(string(self)).isGreaterThan(quantity('0')) && quantity(string(self)).isLessThan(quantity('8E'))",
            "message": "the value must be a quantity larger than 0 and smaller than 8E, such as 500m, 128Mi or 10Gi",
        }],
    })
}

/// Returns the schema of quantities by the name of a resource that pods can ask for.
fn quantities_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": quantity_schema(generator),
        "x-kubernetes-validations": [{
            "rule": "self.all(name, name in ['cpu', 'memory', 'ephemeral-storage'] || name.startsWith('hugepages-') || name.contains('/'))",
            "message": "the name of a resource must be cpu, memory, ephemeral-storage, hugepages-SIZE or VENDOR/NAME of a device plugin",
        }],
    })
}

/// Regular expression for the notation of quantities, without a sign.
/// Source: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>.
const QUANTITY: &str = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][0-9]+)?$";
