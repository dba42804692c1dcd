//! The kind `Binding`.
use crate::topology::{arguments_schema, default_vhost};
use crate::{BrokerRef, DeletionPolicy, SpecArguments, TopologyStatus};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The binding that is to exist on the broker.
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
    doc = "A binding on a Broker, from an exchange to a queue or to another exchange. The operator declares it once both exist.",
    printcolumn(name = "Broker", type_ = "string", json_path = ".spec.brokerRef.name"),
    printcolumn(name = "Vhost", type_ = "string", json_path = ".spec.vhost"),
    printcolumn(name = "Source", type_ = "string", json_path = ".spec.source"),
    printcolumn(name = "Destination", type_ = "string", json_path = ".spec.destination"),
    printcolumn(name = "Key", type_ = "string", json_path = ".spec.routingKey"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("has(self.arguments) == has(oldSelf.arguments) && (!has(self.arguments) || self.arguments == oldSelf.arguments)").message("arguments cannot be changed: delete the Binding and create a new one"))]
#[serde(rename_all = "camelCase")]
pub struct BindingSpec {
    /// The Broker that the binding is declared on. This field is immutable.
    #[x_kube(validation = Rule::new("self == oldSelf").message("brokerRef cannot be changed: delete the Binding and create a new one"))]
    pub broker_ref: BrokerRef,
    /// Name of the virtual host on the broker. Default: `/`, so far the only one that a Leveret broker has. This field
    /// is immutable.
    #[serde(default = "default_vhost")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("vhost cannot be changed: delete the Binding and create a new one"))]
    #[x_kube(validation = Rule::new("!self.matches('[\\r\\n]')").message("a name must have no line breaks"))]
    pub vhost: String,
    /// Name, on the broker, of the exchange that the messages come from. The default exchange (whose name is empty)
    /// cannot be bound. This field is immutable.
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("source cannot be changed: delete the Binding and create a new one"))]
    #[x_kube(validation = Rule::new("!self.matches('[\\r\\n]')").message("a name must have no line breaks"))]
    pub source: String,
    /// Name, on the broker, of the queue or exchange that the messages go to. This field is immutable.
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("destination cannot be changed: delete the Binding and create a new one"))]
    #[x_kube(validation = Rule::new("!self.matches('[\\r\\n]')").message("a name must have no line breaks"))]
    pub destination: String,
    /// Whether the destination is a `queue` (the default) or an `exchange`. This field is immutable.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message("destinationType cannot be changed: delete the Binding and create a new one"))]
    pub destination_type: DestinationType,
    /// The routing key. Default: the empty key. For a direct exchange it must equal the routing key of a message. For a
    /// topic exchange it is a pattern of words separated by dots, in which `*` stands for one word and `#` for any
    /// number of words. Fanout and headers exchanges ignore it. This field is immutable.
    #[serde(default)]
    #[schemars(length(max = 255))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("routingKey cannot be changed: delete the Binding and create a new one"))]
    pub routing_key: String,
    /// Arguments of the binding. Default: none. For a headers exchange they are the headers that a message must have,
    /// and `x-match`, which says whether all of them (`all`, the default) or at least one (`any`) must match. Headers
    /// whose names begin with `x-` count only with `all-with-x` and `any-with-x`. This field is immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "arguments_schema")]
    pub arguments: Option<SpecArguments>,
    /// What happens to the binding on the broker when this resource is deleted:
    /// - `DeleteIfEmpty` (the default) and `Delete`: it is deleted. A binding holds no messages, so both do the same.
    /// - `Retain`: it stays on the broker.
    ///
    /// If the Broker is gone, this resource is deleted at once.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// Kind of the destination of a binding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DestinationType {
    /// A queue.
    #[default]
    Queue,
    /// An exchange.
    Exchange,
}
