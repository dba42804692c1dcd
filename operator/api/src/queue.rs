//! The kind `Queue`.
use crate::topology::{arguments_schema, default_vhost, yes};
use crate::{BrokerRef, DeletionPolicy, SpecArguments, TopologyStatus};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// The queue that is to exist on the broker.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "leveret.dev",
    version = "v1alpha1",
    kind = "Queue",
    namespaced,
    category = "leveret",
    shortname = "lvrq",
    status = "TopologyStatus",
    derive = "PartialEq",
    doc = "A queue on a Broker. The operator declares it, declares it again if it is lost, and deletes it with this resource once it is empty.",
    printcolumn(name = "Broker", type_ = "string", json_path = ".spec.brokerRef.name"),
    printcolumn(name = "Vhost", type_ = "string", json_path = ".spec.vhost"),
    printcolumn(name = "Messages", type_ = "integer", json_path = ".status.messagesReady"),
    printcolumn(name = "Unacked", type_ = "integer", json_path = ".status.messagesUnacked"),
    printcolumn(name = "Consumers", type_ = "integer", json_path = ".status.consumers"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("has(self.name) == has(oldSelf.name) && (!has(self.name) || self.name == oldSelf.name)").message("name cannot be changed: delete the Queue and create a new one"))]
#[x_kube(validation = Rule::new("has(self.arguments) == has(oldSelf.arguments) && (!has(self.arguments) || self.arguments == oldSelf.arguments)").message("arguments cannot be changed: delete the Queue and create a new one"))]
#[serde(rename_all = "camelCase")]
pub struct QueueSpec {
    /// The Broker that the queue is declared on. This field is immutable.
    #[x_kube(validation = Rule::new("self == oldSelf").message("brokerRef cannot be changed: delete the Queue and create a new one"))]
    pub broker_ref: BrokerRef,
    /// Name of the virtual host on the broker. Default: `/`, so far the only one that a Leveret broker has. This field
    /// is immutable.
    #[serde(default = "default_vhost")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("vhost cannot be changed: delete the Queue and create a new one"))]
    #[x_kube(validation = Rule::new("!self.matches('[\\r\\n]')").message("a name must have no line breaks"))]
    pub vhost: String,
    /// Name of the queue on the broker. Default: `metadata.name`. Names that begin with `amq.` are reserved for the
    /// broker. This field is immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new("!self.startsWith('amq.')").message("names that begin with amq. are reserved for the broker"))]
    #[x_kube(validation = Rule::new("!self.matches('[\\r\\n]')").message("a name must have no line breaks"))]
    pub name: Option<String>,
    /// Whether the queue and its messages survive a restart of the broker. Default: true. If they do not survive, the
    /// operator declares the queue again after the restart, without the messages. This field is immutable.
    #[serde(default = "yes")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("durable cannot be changed: delete the Queue and create a new one"))]
    pub durable: bool,
    /// Whether the broker deletes the queue, with its messages, when its last consumer leaves. Default: false. The
    /// operator declares the queue again as long as this resource exists. This field is immutable.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message("autoDelete cannot be changed: delete the Queue and create a new one"))]
    pub auto_delete: bool,
    /// Further arguments, such as `x-queue-type: quorum` and `x-delivery-limit: 5`. Default: none. The broker refuses
    /// arguments that begin with `x-` and that it does not support: the condition Ready then has the reason `Refused`
    /// and names the argument. This field is immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "arguments_schema")]
    pub arguments: Option<SpecArguments>,
    /// What happens to the queue on the broker when this resource is deleted:
    /// - `DeleteIfEmpty` (the default): it is deleted once it holds no messages, neither ready nor unacknowledged.
    ///   Until then this resource stays, and its condition Ready has the reason `NotEmpty` and the number of messages.
    /// - `Delete`: it is deleted with all its messages.
    /// - `Retain`: it stays on the broker with its messages.
    ///
    /// If the Broker is gone, this resource is deleted at once.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}
