//! Takes the next step of what needs more than writing the children: members leave the cluster, useless volumes are given
//! up, and pods are restarted one after the other.
use super::departure::{self, DepartureStep};
use super::login::Logins;
use super::nodes::{BrokerNode, BrokerNodes};
use super::rollout::{self, RolloutStep};
use super::{Work, ask};
use crate::kubernetes::events::Notice;
use crate::kubernetes::only;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::EvictParams;
use kube::{Api, Resource, ResourceExt};
use leveret_api::Broker;
use leveret_client::Error;

/// The progress of the steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Operation {
    /// Set if a step was taken, or has to wait: the next look comes soon.
    pub(super) is_under_way: bool,
    /// What the next step waits for, in words.
    pub(super) waits_for: Option<String>,
}

impl Operation {
    fn taken() -> Self {
        Self { is_under_way: true, waits_for: None }
    }

    fn waiting(words: impl Into<String>) -> Self {
        Self { is_under_way: true, waits_for: Some(words.into()) }
    }
}

/// Takes the next step for a Broker whose StatefulSet is as wanted. Members leave before pods are restarted.
pub(super) async fn operate(
    broker: &Broker,
    work: &Work,
    set: &StatefulSet,
    nodes: &BrokerNodes,
    logins: &Logins,
) -> kube::Result<Operation> {
    if set.metadata.deletion_timestamp.is_some() {
        return Ok(Operation::default());
    }
    let present = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
    let operator = Operator { broker, work, nodes, logins };
    match departure::next(broker.spec.replicas, present, nodes) {
        DepartureStep::Done => {}
        DepartureStep::Wait(words) => {
            // A pod that serves nobody with its old template may be what is waited for.
            return match rollout::next(set, present, nodes) {
                RolloutStep::Replace(ordinal) => operator.replace(ordinal, NEWEST_TEMPLATE).await,
                _ => Ok(Operation::waiting(words)),
            };
        }
        DepartureStep::Remove { ordinal, node, ask } => return operator.remove(ordinal, &node, ask).await,
        DepartureStep::DeleteClaim(ordinal) => return operator.delete_claim(ordinal).await,
        DepartureStep::Renew { ordinal, reason } => return operator.renew(ordinal, &reason).await,
    }
    match rollout::next(set, present, nodes) {
        RolloutStep::Done => Ok(Operation::default()),
        RolloutStep::Wait(words) => Ok(Operation::waiting(words)),
        RolloutStep::Replace(ordinal) => operator.replace(ordinal, NEWEST_TEMPLATE).await,
        RolloutStep::Evict(ordinal) => operator.evict(ordinal, present).await,
    }
}

/// Everything that steps need.
struct Operator<'a> {
    broker: &'a Broker,
    work: &'a Work,
    nodes: &'a BrokerNodes,
    logins: &'a Logins,
}

impl Operator<'_> {
    /// Has a member removed from the cluster by another one.
    async fn remove(&self, ordinal: i32, node: &str, ask: i32) -> kube::Result<Operation> {
        let pod = self.pod_name(ordinal);
        let removed = match self.client(ask).await {
            Ok(client) => match client.remove_member(node).await {
                Err(Error::NotFound(_)) => return Ok(Operation::taken()), // the answer to an earlier request was lost
                removed => removed.map_err(|error| error.to_string()),
            },
            Err(words) => Err(words),
        };
        if let Err(words) = removed {
            return Ok(Operation::waiting(format!(
                "the node of pod {pod} is not removed from the cluster yet: {words}"
            )));
        }
        let message = format!("the node of pod {pod} was removed from the cluster");
        self.event(Notice::normal("MemberRemoved", message)).await;
        Ok(Operation::taken())
    }

    /// Deletes the claim of a node. Kubernetes keeps it until the pod is gone.
    async fn delete_claim(&self, ordinal: i32) -> kube::Result<Operation> {
        let Some(claim) = self.nodes.of(ordinal).and_then(|node| node.claim.as_ref()) else {
            return Ok(Operation::taken());
        };
        let claims: Api<PersistentVolumeClaim> = self.api();
        let deleted = claims.delete(&claim.name_any(), &only(claim.uid())).await.map(drop);
        self.told(deleted, &format!("volume {}", claim.name_any())).await
    }

    /// Deletes the claim and the pod of a node whose data is of no use.
    async fn renew(&self, ordinal: i32, reason: &str) -> kube::Result<Operation> {
        let message = format!("pod {} and its volume are replaced by empty ones: {reason}", self.pod_name(ordinal));
        let operation = self.delete_claim(ordinal).await?;
        if operation.waits_for.is_some() {
            return Ok(operation);
        }
        self.event(Notice::normal("VolumeReplaced", message)).await;
        self.replace(ordinal, reason).await
    }

    /// Deletes a pod, so that the StatefulSet makes it again.
    async fn replace(&self, ordinal: i32, reason: &str) -> kube::Result<Operation> {
        let Some(pod) = self.pod(ordinal) else { return Ok(Operation::taken()) };
        let pods: Api<Pod> = self.api();
        let deleted = pods.delete(&pod.name_any(), &only(pod.uid())).await.map(drop);
        self.restarted(deleted, pod, reason).await
    }

    /// Lets others lead what the node in a pod leads if it answers, and then evicts the pod, which its PodDisruptionBudget
    /// may refuse.
    async fn evict(&self, ordinal: i32, present: i32) -> kube::Result<Operation> {
        let Some(pod) = self.pod(ordinal) else { return Ok(Operation::taken()) };
        if present > 1 && self.nodes.of(ordinal).is_some_and(BrokerNode::is_ready) {
            let transferred =
                async { self.client(ordinal).await?.transfer_leaders().await.map_err(|error| error.to_string()) };
            if let Err(words) = transferred.await {
                let message = format!("pod {} is restarted once other nodes lead: {words}", pod.name_any());
                return Ok(Operation::waiting(message));
            }
        }
        let pods: Api<Pod> = self.api();
        let parameters = EvictParams { delete_options: Some(only(pod.uid())), ..EvictParams::default() };
        let evicted = pods.evict(&pod.name_any(), &parameters).await.map(drop);
        self.restarted(evicted, pod, NEWEST_TEMPLATE).await
    }

    async fn restarted(&self, result: kube::Result<()>, pod: &Pod, reason: &str) -> kube::Result<Operation> {
        let was_made = result.is_ok();
        let operation = self.told(result, &format!("pod {}", pod.name_any())).await?;
        if was_made {
            let message = format!("pod {} is restarted: {reason}", pod.name_any());
            self.event(Notice::normal("PodRestarted", message)).await;
        }
        Ok(operation)
    }

    /// Returns how a deletion went. A refusal is reported in the words of the API server, and tried again.
    async fn told(&self, result: kube::Result<()>, what: &str) -> kube::Result<Operation> {
        match result {
            Ok(()) => Ok(Operation::taken()),
            // It is gone already, or was replaced by another one meanwhile.
            Err(kube::Error::Api(refusal)) if matches!(refusal.code, 404 | 409) => Ok(Operation::taken()),
            Err(kube::Error::Api(refusal)) if matches!(refusal.code, 403 | 429 | 500) => {
                Ok(Operation::waiting(format!("{what} cannot be replaced yet: {}", refusal.message)))
            }
            Err(error) => Err(error),
        }
    }

    /// Returns a client of the broker in a pod; the reason in words if there is none.
    async fn client(&self, ordinal: i32) -> Result<leveret_client::Client, String> {
        let url = self.pod(ordinal).and_then(|pod| ask::url(self.work, pod));
        let url = url.ok_or_else(|| format!("no broker runs in pod {}", self.pod_name(ordinal)))?;
        ask::client_for_changes(&url, self.logins).await.map_err(|error| error.to_string())
    }

    fn pod(&self, ordinal: i32) -> Option<&Pod> {
        self.nodes.of(ordinal).and_then(|node: &BrokerNode| node.pod.as_ref())
    }

    fn pod_name(&self, ordinal: i32) -> String {
        super::build::pod_name(self.broker, ordinal)
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.work.context.client.clone(), &self.broker.namespace().unwrap_or_default())
    }

    async fn event(&self, notice: Notice) {
        self.work.context.event(&self.broker.object_ref(&()), notice).await;
    }
}

/// The reason why a pod is restarted in a rollout.
const NEWEST_TEMPLATE: &str = "it gets the newest template";

#[cfg(test)]
#[path = "operate_tests.rs"]
mod tests;
