//! The settings of a node that is part of a cluster.
use bytes::Bytes;
use std::time::Duration;

/// The settings of a node that is part of a cluster.
#[derive(Clone)]
pub struct ClusterOptions {
    /// The name of the cluster. Nodes of clusters with other names refuse each other.
    pub name: String,
    /// The secret that all nodes of the cluster share. It may only be empty if the wires authenticate the other side.
    pub secret: Bytes,
    /// The address at which other nodes reach this one, as `HOST:PORT`.
    pub address: String,
    /// The addresses of the nodes that form the cluster if all of them are empty. This node may be among them.
    pub peers: Vec<String>,
    /// The addresses of nodes of a cluster that exists. This node joins it, and never forms one with them.
    pub join: Vec<String>,
    /// Pauses and timeouts.
    pub times: ClusterTimes,
}

/// The pauses and timeouts of the tasks that keep a cluster together.
#[derive(Clone, Copy, Debug)]
pub struct ClusterTimes {
    /// Pause between two looks at the groups and their members.
    pub look: Duration,
    /// The time without a change after which leaders are moved to the nodes that are to lead.
    pub quiet: Duration,
    /// A report of another node that is older does not count.
    pub report_max: Duration,
}

impl Default for ClusterTimes {
    fn default() -> Self {
        Self { look: Duration::from_millis(500), quiet: Duration::from_secs(5), report_max: Duration::from_secs(3) }
    }
}
