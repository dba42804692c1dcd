//! The health of a Broker: the reason why its pods are not ready, and what the broker answers if one of them is.
use super::connect;
use super::nodes::BrokerNodes;
use super::pods::{self, PodCounts, Trouble};
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::Client;
use leveret_api::Broker;
use leveret_client::Overview;

/// The health of a Broker.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Set if all pods are ready.
    pub(super) are_pods_ready: bool,
    /// The reason why not all pods are ready, if one is known.
    pub(super) trouble: Option<Trouble>,
    /// The broker's numbers, or the reason why the operator or a client gets no answer. `None` if no pod is ready, so
    /// that the broker was not asked.
    pub(super) answer: Option<Result<Overview, String>>,
    /// The resources that a node has run short of.
    pub(super) alarms: Vec<String>,
    /// The number of members that are up, if a node that is ready says so.
    pub(super) members_up: Option<usize>,
}

impl Health {
    /// Returns whether a pod is ready, so that the broker could answer.
    pub(super) fn is_up(&self) -> bool {
        self.answer.is_some()
    }

    pub(super) fn is_answering(&self) -> bool {
        matches!(self.answer, Some(Ok(_)))
    }

    /// Returns the health of a Broker whose pods are ready, and which does not answer.
    #[cfg(test)]
    pub(super) fn up() -> Self {
        Self { are_pods_ready: true, answer: Some(Err("no answer".to_owned())), ..Self::default() }
    }
}

/// Looks for the reason why pods of the StatefulSet are not ready, and asks the broker if one is.
pub(super) async fn observe(
    client: &Client,
    broker: &Broker,
    set: Option<&StatefulSet>,
    nodes: &BrokerNodes,
) -> kube::Result<Health> {
    let Some(set) = set else { return Ok(Health::default()) };
    let counts = PodCounts::of(broker, Some(set));
    let mut health = Health { are_pods_ready: counts.are_ready(), ..Health::default() };
    if !health.are_pods_ready {
        health.are_pods_ready = pods::are_uncounted(client, broker, set).await?;
    }
    if !health.are_pods_ready {
        let said = |ordinal| nodes.of(ordinal)?.answer.lacks.clone();
        health.trouble = pods::trouble(client, broker, set, &said).await?;
    }
    if health.are_pods_ready || counts.ready > 0 {
        let (session, greeting) = tokio::join!(connect::client(client, broker), connect::amqp(broker));
        health.answer = Some(match (session, greeting) {
            (Ok(session), Ok(())) => Ok(of_all_nodes(session.overview, nodes)),
            (Ok(_), Err(error)) | (Err(error), _) => Err(format!("{error:#}")),
        });
        let mut alarms: Vec<_> = nodes.0.iter().flat_map(|node| node.answer.alarms.clone()).collect();
        alarms.sort_by(|one, other| other.cmp(one));
        alarms.dedup();
        health.alarms = alarms;
    }
    health.members_up = nodes.members_up();
    Ok(health)
}

/// Returns the numbers of one node with the clients of all nodes.
fn of_all_nodes(mut overview: Overview, nodes: &BrokerNodes) -> Overview {
    let connections: i64 = nodes.0.iter().map(|node| node.answer.connections).sum();
    overview.object_totals.connections = overview.object_totals.connections.max(connections);
    overview
}
