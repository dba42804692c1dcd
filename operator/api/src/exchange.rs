//! The kind `Exchange`.
use crate::topology::{arguments_schema, default_vhost, yes};
use crate::{BrokerRef, DeletionPolicy, SpecArguments, TopologyStatus};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The exchange that is to exist on the broker.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "leveret.dev",
    version = "v1alpha1",
    kind = "Exchange",
    namespaced,
    category = "leveret",
    shortname = "lvrx",
    status = "TopologyStatus",
    derive = "PartialEq",
    doc = "An exchange on a Broker. The operator declares it, declares it again if it is lost, and deletes it with this resource.",
    printcolumn(name = "Broker", type_ = "string", json_path = ".spec.brokerRef.name"),
    printcolumn(name = "Vhost", type_ = "string", json_path = ".spec.vhost"),
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("has(self.name) == has(oldSelf.name) && (!has(self.name) || self.name == oldSelf.name)").message("name cannot be changed: delete the Exchange and create a new one"))]
#[x_kube(validation = Rule::new("has(self.arguments) == has(oldSelf.arguments) && (!has(self.arguments) || self.arguments == oldSelf.arguments)").message("arguments cannot be changed: delete the Exchange and create a new one"))]
#[serde(rename_all = "camelCase")]
pub struct ExchangeSpec {
    /// The Broker that the exchange is declared on. This field is immutable.
    #[x_kube(validation = Rule::new("self == oldSelf").message("brokerRef cannot be changed: delete the Exchange and create a new one"))]
    pub broker_ref: BrokerRef,
    /// Name of the virtual host on the broker. Default: `/`, so far the only one that a Leveret broker has. This field
    /// is immutable.
    #[serde(default = "default_vhost")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("vhost cannot be changed: delete the Exchange and create a new one"))]
    #[x_kube(validation = Rule::new("!self.matches('[\\r\\n]')").message("a name must have no line breaks"))]
    pub vhost: String,
    /// Name of the exchange on the broker. Default: `metadata.name`. Names that begin with `amq.` are reserved for the
    /// broker. This field is immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new("!self.startsWith('amq.')").message("names that begin with amq. are reserved for the broker"))]
    #[x_kube(validation = Rule::new("!self.matches('[\\r\\n]')").message("a name must have no line breaks"))]
    pub name: Option<String>,
    /// How the exchange selects the bindings that a message follows:
    /// - `direct` (the default): those whose routing key equals that of the message.
    /// - `fanout`: all.
    /// - `topic`: those whose pattern matches the routing key of the message.
    /// - `headers`: those whose arguments match the headers of the message.
    ///
    /// This field is immutable.
    #[serde(default, rename = "type")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("type cannot be changed: delete the Exchange and create a new one"))]
    pub kind: ExchangeType,
    /// Whether the exchange survives a restart of the broker. Default: true. If it does not survive, the operator
    /// declares it again after the restart. This field is immutable.
    #[serde(default = "yes")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("durable cannot be changed: delete the Exchange and create a new one"))]
    pub durable: bool,
    /// Whether the broker deletes the exchange when the last binding from it is removed. Default: false. The operator
    /// declares the exchange again as long as this resource exists. This field is immutable.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message("autoDelete cannot be changed: delete the Exchange and create a new one"))]
    pub auto_delete: bool,
    /// Whether clients are kept from publishing to the exchange, so that it gets messages only through bindings from
    /// other exchanges. Default: false. This field is immutable.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message("internal cannot be changed: delete the Exchange and create a new one"))]
    pub internal: bool,
    /// Further arguments, such as `alternate-exchange`. Default: none. The broker refuses arguments that begin with
    /// `x-` and that it does not support: the condition Ready then has the reason `Refused` and names the argument.
    /// This field is immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "arguments_schema")]
    pub arguments: Option<SpecArguments>,
    /// What happens to the exchange on the broker when this resource is deleted:
    /// - `DeleteIfEmpty` (the default) and `Delete`: it is deleted with its bindings. An exchange holds no messages, so
    ///   both do the same.
    /// - `Retain`: it stays on the broker.
    ///
    /// If the Broker is gone, this resource is deleted at once.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// Type of an exchange: how it selects the bindings that a message follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExchangeType {
    /// Bindings whose routing key equals that of the message.
    #[default]
    Direct,
    /// All bindings.
    Fanout,
    /// Bindings whose pattern of words matches the routing key of the message.
    Topic,
    /// Bindings whose arguments match the headers of the message.
    Headers,
}

impl ExchangeType {
    /// Returns the name of the type in AMQP.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
        }
    }
}
