//! Changes of the members on request. The leader of group 0 carries them out; other nodes pass them on to it.
use super::membership;
use super::question::{CHANGE_MAX, ClusterQuestion, ClusterReply, REPORT_MAX};
use super::state::Cluster;
use leveret_replication::{GroupMember, MemberError};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// The reasons why a cluster is not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// This node is not part of a cluster.
    #[error("this node was not started as part of a cluster")]
    NoCluster,
    /// The change is not possible.
    #[error("{0}")]
    Refused(String),
    /// No member has this identity, name or address.
    #[error("no member is '{0}'")]
    NotFound(String),
    /// The cluster cannot change its members at the moment.
    #[error("{0}")]
    Unavailable(String),
}

impl Cluster {
    /// Adds the node `node`, which others reach at `address`. To be called on the leader of group 0.
    pub(super) async fn admit(&self, node: u64, address: String) -> ClusterReply {
        let _one_at_a_time = self.changing.lock().await;
        let Some(groups) = self.groups() else { return closing() };
        let status = groups.status(0);
        match self.with_surroundings(|around| membership::admit(&status, node, &address, around)) {
            Ok(true) => {}
            Ok(false) => return ClusterReply::Done,
            Err(reason) => return ClusterReply::Refused(reason),
        }
        tracing::info!("node {node:016x} at {address} is added to the cluster");
        self.in_time(groups.add_learner(0, node, GroupMember { address })).await
    }

    /// Asks who is at an address, and adds that node. To be called on the leader of group 0.
    pub(super) async fn add(&self, address: String) -> ClusterReply {
        match self.ask(&address, &ClusterQuestion::Report, REPORT_MAX).await {
            Err(error) => ClusterReply::Refused(error.to_string()),
            Ok((node, ClusterReply::Report(report))) => {
                let is_member = self.groups().is_some_and(|groups| groups.status(0).members.contains_key(&node));
                if is_member {
                    return ClusterReply::Done;
                }
                if report.members.is_empty() && report.founders.is_none() {
                    return self.admit(node, report.address).await;
                }
                ClusterReply::Refused(format!(
                    "the node at {address} has data of a cluster: empty its data folder first"
                ))
            }
            Ok(_) => ClusterReply::Refused(format!("the node at {address} sent something that is no report")),
        }
    }

    /// Removes a member, after it has handed over the groups that it leads. To be called on the leader of group 0.
    pub(super) async fn remove(&self, node: u64) -> ClusterReply {
        let _one_at_a_time = self.changing.lock().await;
        let Some(groups) = self.groups() else { return closing() };
        let status = groups.status(0);
        if let Err(reason) = self.with_surroundings(|around| membership::dismiss(&status, node, around)) {
            return ClusterReply::Refused(reason);
        }
        if node == self.node {
            self.leave_for(LEAVE);
            self.hand_over_all(Instant::now() + HAND_OVER_MAX).await;
            return match groups.status(0).leader.filter(|leader| *leader != self.node) {
                Some(leader) => ClusterReply::Elsewhere(self.address_of(leader)),
                None => ClusterReply::Refused("no other node takes over its groups".to_owned()),
            };
        }
        let address = status.members.get(&node).map(|member| member.address.clone()).unwrap_or_default();
        if self.peers.is_connected(node)
            && let Err(error) = self.ask(&address, &ClusterQuestion::HandOver, HAND_OVER_MAX).await
        {
            tracing::warn!("node {node:016x} is removed without having handed over its groups: {error}");
        }
        tracing::info!("node {node:016x} at {address} is removed from the cluster");
        self.in_time(groups.remove(0, node)).await
    }

    /// Answers with who leads group 0 unless this node does.
    pub(super) fn elsewhere(&self) -> Option<ClusterReply> {
        let leader = self.groups()?.leader(0).map(|leader| leader.node);
        if leader == Some(self.node) {
            return None;
        }
        Some(ClusterReply::Elsewhere(leader.map(|leader| self.address_of(leader)).unwrap_or_default()))
    }

    fn address_of(&self, node: u64) -> String {
        self.addresses().remove(&node).unwrap_or_default()
    }

    /// Waits for a change of the members, but not for ever: without a majority it is never agreed on.
    async fn in_time(&self, change: impl Future<Output = Result<(), MemberError>>) -> ClusterReply {
        match timeout(AGREE_MAX, change).await {
            Ok(Ok(())) => ClusterReply::Done,
            Ok(Err(error)) => ClusterReply::Refused(error.to_string()),
            Err(_) => ClusterReply::Refused("the members have not agreed on it in time".to_owned()),
        }
    }

    /// Has the leader of group 0 carry out a change, whichever node that is.
    ///
    /// # Errors
    /// [`ClusterError`] if the change is not possible, or no leader carries it out in time.
    pub(super) async fn have_changed(&self, question: &ClusterQuestion) -> Result<(), ClusterError> {
        let deadline = Instant::now() + CHANGE_MAX;
        let mut why = "group 0 has no leader".to_owned();
        while Instant::now() < deadline {
            let mut leader = match self.elsewhere() {
                None => self.carry_out(self.node, question).await,
                Some(elsewhere) => elsewhere,
            };
            if let ClusterReply::Elsewhere(address) = &leader
                && !address.is_empty()
            {
                match self.ask(address, question, CHANGE_MAX).await {
                    Ok((_, reply)) => leader = reply,
                    Err(error) => why = error.to_string(),
                }
            }
            match leader {
                ClusterReply::Done => return Ok(()),
                ClusterReply::Refused(reason) if reason.ends_with("try again") => why = reason,
                ClusterReply::Refused(reason) => return Err(ClusterError::Refused(reason)),
                ClusterReply::Elsewhere(_) | ClusterReply::Report(_) => {}
            }
            tokio::time::sleep(RETRY).await;
        }
        Err(ClusterError::Unavailable(format!("the change was not made in time: {why}")))
    }

    /// Makes a change that the node `from` asks for. To be called on the leader of group 0.
    pub(super) async fn carry_out(&self, from: u64, question: &ClusterQuestion) -> ClusterReply {
        match question {
            ClusterQuestion::Join(address) => self.admit(from, address.clone()).await,
            ClusterQuestion::Add(address) => self.add(address.clone()).await,
            ClusterQuestion::Remove(node) => self.remove(*node).await,
            ClusterQuestion::Report | ClusterQuestion::HandOver => {
                ClusterReply::Refused("this is no change of the members".to_owned())
            }
        }
    }

    /// Returns the member that is meant by an identity, a name or an address.
    ///
    /// # Errors
    /// [`ClusterError::NotFound`] if there is no such member.
    pub(super) fn member_named(&self, text: &str) -> Result<u64, ClusterError> {
        let members = self.addresses();
        let named = |node: u64| self.name_of(node).is_some_and(|name| name == text);
        let is_meant = |node: &u64, address: &str| format!("{node:016x}") == text || address == text || named(*node);
        // Two members may have one address while a lost one is replaced: then only the identity is clear.
        let meant: Vec<_> = members.iter().filter(|(node, address)| is_meant(node, address)).collect();
        match meant[..] {
            [(node, _)] => Ok(*node),
            [] => Err(ClusterError::NotFound(text.to_owned())),
            _ => Err(ClusterError::Refused(format!("several members are '{text}': name one by its identity"))),
        }
    }
}

fn closing() -> ClusterReply {
    ClusterReply::Refused("the node is stopping".to_owned())
}

/// The longest time that a removed member may take to hand over its groups.
const HAND_OVER_MAX: Duration = Duration::from_secs(8);
/// The time for which a member that is being removed leads no group.
pub(super) const LEAVE: Duration = Duration::from_secs(30);
/// The longest time that the members may take to agree on a change.
const AGREE_MAX: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(200);
