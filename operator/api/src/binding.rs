//! `Binding`.
use crate::topology::{arguments_schema, default_vhost};
use crate::{Arguments, BrokerRef, DeletionPolicy, TopologyStatus};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A binding of a broker.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "leveret.dev",
    version = "v1alpha1",
    kind = "Binding",
    namespaced,
    category = "leveret",
    shortname = "lvrb",
    status = "TopologyStatus",
    derive = "PartialEq",
    doc = "A binding inside a Broker, from an exchange to a queue or another exchange. It waits for both of them.",
    printcolumn(name = "Broker", type_ = "string", json_path = ".spec.brokerRef.name"),
    printcolumn(name = "Vhost", type_ = "string", json_path = ".spec.vhost"),
    printcolumn(name = "Source", type_ = "string", json_path = ".spec.source"),
    printcolumn(name = "Destination", type_ = "string", json_path = ".spec.destination"),
    printcolumn(name = "Key", type_ = "string", json_path = ".spec.routingKey"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("has(self.arguments) == has(oldSelf.arguments) && (!has(self.arguments) || self.arguments == oldSelf.arguments)").message("arguments cannot be changed: delete the Binding and create it anew"))]
#[serde(rename_all = "camelCase")]
pub struct BindingSpec {
    /// The broker that it is in.
    #[x_kube(validation = Rule::new("self == oldSelf").message("brokerRef cannot be changed: delete the Binding and create another"))]
    pub broker_ref: BrokerRef,
    /// Virtual host of the broker.
    #[serde(default = "default_vhost")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("vhost cannot be changed: delete the Binding and create another"))]
    #[x_kube(validation = Rule::new("!self.matches('[\\r\\n]')").message("a name has no line breaks"))]
    pub vhost: String,
    /// Name of the exchange that messages come from, on the broker. The default exchange cannot be bound.
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("source cannot be changed: delete the Binding and create another"))]
    #[x_kube(validation = Rule::new("!self.matches('[\\r\\n]')").message("a name has no line breaks"))]
    pub source: String,
    /// Name of the queue or exchange that they go to, on the broker.
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("destination cannot be changed: delete the Binding and create another"))]
    #[x_kube(validation = Rule::new("!self.matches('[\\r\\n]')").message("a name has no line breaks"))]
    pub destination: String,
    /// Whether the destination is a queue or an exchange.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message("destinationType cannot be changed: delete the Binding and create another"))]
    pub destination_type: DestinationType,
    /// The routing key, or the pattern of a topic exchange.
    #[serde(default)]
    #[schemars(length(max = 255))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("routingKey cannot be changed: delete the Binding and create another"))]
    pub routing_key: String,
    /// Arguments: what a headers exchange compares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "arguments_schema")]
    pub arguments: Option<Arguments>,
    /// What happens on the broker when this resource is deleted. A binding holds no messages: DeleteIfEmpty deletes.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// What a binding leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DestinationType {
    /// A queue.
    #[default]
    Queue,
    /// An exchange.
    Exchange,
}
