//! What the kinds that stand for something inside a broker have in common.
use crate::{Arguments, Condition};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The broker that an object belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BrokerRef {
    /// Name of the Broker.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Its namespace, unless it is the object's own. That Broker has to allow it: `spec.topology.allowedNamespaces`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// What happens on the broker when the resource is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Deleted once it is empty: a queue with messages waits, and says how many hold it.
    #[default]
    DeleteIfEmpty,
    /// Deleted with all that is in it.
    Delete,
    /// Left on the broker.
    Retain,
}

/// What became of the object on its broker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopologyStatus {
    /// The generation of the spec that this speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: it is on the broker as specified. Otherwise reason and message say why not, in the broker's own words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Queues: messages that wait for a consumer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_ready: Option<i64>,
    /// Queues: messages delivered and not settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_unacked: Option<i64>,
    /// Queues: consumers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumers: Option<i64>,
    /// Bindings: the arguments that it was declared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "declared_schema")]
    pub arguments: Option<Arguments>,
}

/// The default of `vhost`.
pub(crate) fn default_vhost() -> String {
    "/".to_owned()
}

/// The default of `durable`.
pub(crate) fn yes() -> bool {
    true
}

/// The default of names that may be empty.
pub(crate) fn arguments_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object", "x-kubernetes-preserve-unknown-fields": true,
        "description": "Further arguments as the broker takes them. One that it does not honour is refused, with its name in the condition.",
    })
}

fn declared_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object", "x-kubernetes-preserve-unknown-fields": true,
        "description": "Bindings: the arguments that it was declared with. They are a part of what it is, and cannot be changed.",
    })
}
