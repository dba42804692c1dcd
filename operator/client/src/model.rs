//! Bodies of requests and answers: only the fields that are used; other fields of an answer are ignored.
use serde::{Deserialize, Serialize};

/// Arguments of a declaration, by name.
pub type Arguments = serde_json::Map<String, serde_json::Value>;

/// A virtual host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "the API's names")]
pub struct Vhost {
    pub name: String,
    /// The type of queues that are declared without a type; `None` means classic.
    #[serde(default)]
    pub default_queue_type: Option<String>,
}

/// A queue.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[allow(missing_docs, reason = "the API's names")]
pub struct QueueInfo {
    pub name: String,
    pub vhost: String,
    #[serde(default)]
    pub durable: bool,
    #[serde(default)]
    pub auto_delete: bool,
    /// True if the queue belongs to one client connection and is deleted with it.
    #[serde(default)]
    pub exclusive: bool,
    #[serde(default)]
    pub arguments: Arguments,
    #[serde(default)]
    pub messages_ready: i64,
    #[serde(default)]
    pub messages_unacknowledged: i64,
    #[serde(default)]
    pub consumers: i64,
}

/// An exchange.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[allow(missing_docs, reason = "the API's names")]
pub struct ExchangeInfo {
    pub name: String,
    pub vhost: String,
    #[serde(rename = "type", default)]
    pub kind: String,
    #[serde(default)]
    pub durable: bool,
    #[serde(default)]
    pub auto_delete: bool,
    #[serde(default)]
    pub internal: bool,
    #[serde(default)]
    pub arguments: Arguments,
}

/// A binding.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[allow(missing_docs, reason = "the API's names")]
pub struct BindingInfo {
    pub source: String,
    pub vhost: String,
    pub destination: String,
    pub destination_type: String,
    #[serde(default)]
    pub routing_key: String,
    #[serde(default)]
    pub arguments: Arguments,
    #[serde(default)]
    pub properties_key: String,
}

/// The alarms of a node: which resources it has run short of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Node {
    pub(crate) mem_alarm: bool,
    pub(crate) disk_free_alarm: bool,
}

/// Number of messages in all queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the API's names")]
pub struct QueueTotals {
    pub messages: i64,
}

/// Numbers of objects on a broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the API's names")]
pub struct ObjectTotals {
    pub connections: i64,
    pub queues: i64,
}

/// Version and totals of a broker.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the API's names")]
pub struct Overview {
    pub rabbitmq_version: String,
    pub queue_totals: QueueTotals,
    pub object_totals: ObjectTotals,
}

/// Request body that declares a queue.
#[derive(Serialize)]
pub(crate) struct QueueBody<'a> {
    pub(crate) durable: bool,
    pub(crate) auto_delete: bool,
    pub(crate) arguments: &'a Arguments,
}

/// Request body that declares an exchange.
#[derive(Serialize)]
pub(crate) struct ExchangeBody<'a> {
    #[serde(rename = "type")]
    pub(crate) kind: &'a str,
    pub(crate) durable: bool,
    pub(crate) auto_delete: bool,
    pub(crate) internal: bool,
    pub(crate) arguments: &'a Arguments,
}

/// Request body that creates a binding.
#[derive(Serialize)]
pub(crate) struct BindingBody<'a> {
    pub(crate) routing_key: &'a str,
    pub(crate) arguments: &'a Arguments,
}

/// The cluster of a Leveret node, as that node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ClusterStatus {
    /// The name of the cluster.
    pub name: String,
    /// The identity of the node that was asked.
    pub node: String,
    /// Whether that node can serve clients.
    pub ready: bool,
    /// What it lacks if it cannot.
    pub reason: Option<String>,
    /// Whether that node was removed from the cluster, and serves nothing any more.
    pub removed: bool,
    /// The members of the cluster.
    pub members: Vec<ClusterMember>,
    /// The Raft groups, in the order of their numbers.
    pub groups: Vec<ClusterGroup>,
}

/// A Raft group of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ClusterGroup {
    /// The number of the group.
    pub group: u16,
    /// The identity of the node that leads it, if that is known.
    pub leader: Option<String>,
    /// The identities of the members that vote.
    pub voters: Vec<String>,
    /// The identities of the members that do not vote yet.
    pub learners: Vec<String>,
}

/// A member of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ClusterMember {
    /// The identity of the member.
    pub node: String,
    /// The name of the member, if it is known.
    pub name: Option<String>,
    /// The address at which other members reach it.
    pub address: String,
    /// The state: `running`, `full`, `catching up`, `leaving`, `removed` or `unreachable`.
    pub state: String,
    /// Whether it votes.
    pub voter: bool,
    /// The groups that it leads.
    pub leads: Vec<u16>,
}

/// Request body that adds a member.
#[derive(Serialize)]
pub(crate) struct MemberBody<'a> {
    pub(crate) address: &'a str,
}
