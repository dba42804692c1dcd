//! `Exchange`.
use crate::topology::{arguments_schema, default_vhost, yes};
use crate::{Arguments, BrokerRef, DeletionPolicy, TopologyStatus};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An exchange of a broker.
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
    doc = "An exchange inside a Broker: declared there, put back when it is lost, deleted with the resource.",
    printcolumn(name = "Broker", type_ = "string", json_path = ".spec.brokerRef.name"),
    printcolumn(name = "Vhost", type_ = "string", json_path = ".spec.vhost"),
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("has(self.name) == has(oldSelf.name) && (!has(self.name) || self.name == oldSelf.name)").message("name cannot be changed: delete the Exchange and create another"))]
#[x_kube(validation = Rule::new("has(self.arguments) == has(oldSelf.arguments) && (!has(self.arguments) || self.arguments == oldSelf.arguments)").message("arguments cannot be changed: delete the Exchange and create it anew"))]
#[serde(rename_all = "camelCase")]
pub struct ExchangeSpec {
    /// The broker that it is in.
    #[x_kube(validation = Rule::new("self == oldSelf").message("brokerRef cannot be changed: delete the Exchange and create another"))]
    pub broker_ref: BrokerRef,
    /// Virtual host of the broker.
    #[serde(default = "default_vhost")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("vhost cannot be changed: delete the Exchange and create another"))]
    #[x_kube(validation = Rule::new("!self.matches('[\\r\\n]')").message("a name has no line breaks"))]
    pub vhost: String,
    /// Its name on the broker, unless it is the resource's own. `amq.` is reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new("!self.startsWith('amq.')").message("names that begin with amq. are reserved for the broker"))]
    #[x_kube(validation = Rule::new("!self.matches('[\\r\\n]')").message("a name has no line breaks"))]
    pub name: Option<String>,
    /// How it chooses queues.
    #[serde(default, rename = "type")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("type cannot be changed: delete the Exchange and create it anew"))]
    pub kind: ExchangeType,
    /// It outlives a restart of the broker.
    #[serde(default = "yes")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("durable cannot be changed: delete the Exchange and create it anew"))]
    pub durable: bool,
    /// It goes with its last binding.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message("autoDelete cannot be changed: delete the Exchange and create it anew"))]
    pub auto_delete: bool,
    /// Clients cannot publish to it; only bindings lead there.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message("internal cannot be changed: delete the Exchange and create it anew"))]
    pub internal: bool,
    /// Further arguments, such as alternate-exchange.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "arguments_schema")]
    pub arguments: Option<Arguments>,
    /// What happens on the broker when this resource is deleted. Exchanges hold no messages: DeleteIfEmpty deletes.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// Types of exchanges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExchangeType {
    /// By a routing key that is equal.
    #[default]
    Direct,
    /// To all that is bound.
    Fanout,
    /// By a pattern of words.
    Topic,
    /// By the message's headers.
    Headers,
}

impl ExchangeType {
    /// The name that the broker knows it by.
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
