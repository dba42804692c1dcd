//! Types that the topology kinds (Exchange, Queue, Binding) have in common.
use crate::{Condition, SpecArguments};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Reference to the Broker that a topology resource is declared on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BrokerRef {
    /// Name of the Broker.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Namespace of the Broker. Default: the namespace of this resource. A Broker in another namespace must list the
    /// namespace of this resource in its `spec.topology.allowedNamespaces`; otherwise the condition Ready has the
    /// reason `NotAllowed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// What happens to an object on the broker when its resource is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// The object is deleted once it is empty: a queue that holds messages is kept, and the condition says how many.
    #[default]
    DeleteIfEmpty,
    /// The object is deleted, a queue with all its messages.
    Delete,
    /// The object stays on the broker.
    Retain,
}

/// State of the object on the broker, as the operator last saw it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopologyStatus {
    /// The `metadata.generation` of the resource that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The condition Ready is True if the object is on the broker as specified. If it is False, its reason and message
    /// say why, in the broker's own words where the broker refused something.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Number of messages that wait in the queue for a consumer. Only for Queues; updated at most every five seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_ready: Option<i64>,
    /// Number of messages that were delivered and are not acknowledged yet. Only for Queues; updated at most every five
    /// seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_unacked: Option<i64>,
    /// Number of consumers of the queue. Only for Queues; updated at most every five seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumers: Option<i64>,
    /// The arguments that the binding was declared with. Only for Bindings. They are a part of the identity of a
    /// binding: if `spec.arguments` differs from them, the condition Ready has the reason `ChangeRefused`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "arguments_schema")]
    pub arguments: Option<SpecArguments>,
}

/// Returns the default of `vhost`.
pub(crate) fn default_vhost() -> String {
    "/".to_owned()
}

/// Returns the default of `durable`.
pub(crate) fn yes() -> bool {
    true
}

/// Returns the schema of `arguments`: an object with any fields.
pub(crate) fn arguments_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}
