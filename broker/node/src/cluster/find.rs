//! The way of a node into a cluster: asks the peers who they are until this node is a member, and after that whether it
//! still is one while it hears from no leader.
use super::formation::{self, Estranged, FormationStep, FoundPeer, Newcomer};
use super::founders::{self, Addresses};
use super::options::ClusterOptions;
use super::question::{CHANGE_MAX, ClusterQuestion, ClusterReply, REPORT_MAX};
use super::report::MemberStage;
use super::state::{self, Cluster};
use crate::open_error::OpenError;
use futures::future::join_all;
use leveret_replication::{AskError, GroupMember};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

impl Cluster {
    /// Checks, for a node that has members, that its peers do not belong to another cluster. Peers that do not answer
    /// are not waited for.
    ///
    /// # Errors
    /// [`OpenError::ForeignCluster`] if one does.
    pub(super) async fn check_peers(&self) -> Result<(), OpenError> {
        if self.stage(&self.statuses()) != MemberStage::Member {
            return Ok(());
        }
        let found = self.ask_all().await;
        match self.estranged(&found) {
            Some(Estranged::Foreign { address }) => Err(OpenError::ForeignCluster { address }),
            Some(Estranged::Removed) | None => Ok(()),
        }
    }

    /// Finds the way into a cluster, and then looks whether it has to be found again.
    pub(super) async fn find(self: Arc<Self>) {
        let look = self.options.times.look;
        loop {
            match self.stage(&self.statuses()) {
                MemberStage::Removed => {}
                MemberStage::Member => self.stay().await,
                MemberStage::Founding => self.found().await,
                MemberStage::Empty | MemberStage::Joining => self.enter().await,
            }
            tokio::time::sleep(look).await;
        }
    }

    /// Looks, while group 0 has no leader, whether this node was removed from its cluster meanwhile.
    async fn stay(&self) {
        self.wait_for("");
        let Some(status) = self.groups().map(|groups| groups.status(0)) else { return };
        if status.leader.is_some_and(|leader| self.leads_on(0, leader, &status)) {
            return;
        }
        let found = self.ask_all().await;
        let estranged = self.estranged(&found);
        if found.iter().any(|(_, peer)| matches!(peer, FoundPeer::Node(..))) {
            self.suspect_removal(estranged == Some(Estranged::Removed));
        }
    }

    fn estranged(&self, found: &[(String, FoundPeer)]) -> Option<Estranged> {
        let status = self.groups()?.status(0);
        formation::estranged(self.node, &state::addresses(&status), status.configured_at, found)
    }

    /// Takes the next step of a node that is no member yet.
    async fn enter(&self) {
        let found = self.ask_all().await;
        let stage = self.stage(&self.statuses());
        if !matches!(stage, MemberStage::Empty | MemberStage::Joining) {
            return;
        }
        let own = Newcomer {
            node: self.node,
            address: &self.options.address,
            is_empty: stage == MemberStage::Empty,
            only_joins: self.options.peers.is_empty(),
        };
        let step = formation::next_step(&own, &found);
        let proposal = match &step {
            FormationStep::Wait { proposal, .. } => proposal.clone(),
            FormationStep::Found(founders) => Some(founders.clone()),
            FormationStep::Join(_) => None,
        };
        *self.proposal.lock() = proposal;
        match step {
            FormationStep::Wait { reason, .. } => self.wait_for(&reason),
            FormationStep::Found(founders) => self.promise(founders).await,
            FormationStep::Join(addresses) => self.join(addresses).await,
        }
    }

    /// Promises durably to found a cluster of these nodes, and does so.
    async fn promise(&self, founders: Addresses) {
        tracing::info!("a cluster is formed of {} nodes", founders.len());
        let Some(node) = self.broker() else { return };
        let Some(storage) = node.storage.get() else { return };
        let (disk, promised) = (storage.groups.journal().disk().clone(), founders.clone());
        if let Err(error) = storage.off_thread(move || founders::write(&*disk, &promised)).await {
            return self.wait_for(&format!("the file 'founders' cannot be written: {error}"));
        }
        *self.founders.lock() = Some(founders);
        self.found().await;
    }

    /// Gives each group the founders as its first members, group 0 last: once that has members, all have.
    async fn found(&self) {
        let (Some(groups), Some(founders)) = (self.groups(), self.founders.lock().clone()) else { return };
        let members: BTreeMap<u64, GroupMember> =
            founders.into_iter().map(|(node, address)| (node, GroupMember { address })).collect();
        for group in (0..groups.len()).rev() {
            if let Err(error) = groups.initialize(group, members.clone()).await {
                return self.wait_for(&format!("the members of a group cannot be set: {error}"));
            }
        }
    }

    /// Asks members of a cluster, one after the other, to add this node.
    async fn join(&self, mut addresses: Vec<String>) {
        self.wait_for("it asks a cluster to be added");
        let question = ClusterQuestion::Join(self.options.address.clone());
        let mut asked = BTreeSet::new();
        while let Some(address) = addresses.pop() {
            if asked.len() >= JOIN_ASKED_MAX || !asked.insert(address.clone()) {
                continue;
            }
            match self.ask(&address, &question, CHANGE_MAX).await {
                Ok((_, ClusterReply::Done)) => {
                    return self.wait_for("it was added to a cluster and waits for the logs");
                }
                Ok((_, ClusterReply::Elsewhere(leader))) if !leader.is_empty() => addresses.push(leader),
                Ok((_, ClusterReply::Refused(reason))) => {
                    self.wait_for(&format!("the cluster at {address} does not add it: {reason}"));
                }
                Ok(_) => self.wait_for("the cluster that it joins has no leader at the moment"),
                Err(error) => self.wait_for(&format!("the cluster that it joins does not answer: {error}")),
            }
        }
    }

    /// Asks all peers, and all members that are known, who they are.
    async fn ask_all(&self) -> Vec<(String, FoundPeer)> {
        let ClusterOptions { peers, join, .. } = &self.options;
        let mut addresses: BTreeSet<String> = peers.iter().chain(join).cloned().collect();
        addresses.extend(self.addresses().into_values().filter(|address| !address.is_empty()));
        addresses.remove(&self.options.address);
        let asked = addresses.into_iter().map(|address| async {
            let found = match self.ask(&address, &ClusterQuestion::Report, REPORT_MAX).await {
                Ok((node, ClusterReply::Report(report))) => FoundPeer::Node(node, report),
                Ok(_) => FoundPeer::Silent("it sent something that is no report".to_owned()),
                Err(AskError::Own(_)) => FoundPeer::Own,
                Err(error) => FoundPeer::Silent(error.to_string()),
            };
            (address, found)
        });
        join_all(asked).await
    }

    /// Asks the node at an address. Returns its identity and its reply.
    pub(super) async fn ask(
        &self,
        address: &str,
        question: &ClusterQuestion,
        limit: Duration,
    ) -> Result<(u64, ClusterReply), AskError> {
        let answer = self.peers.ask(address, question.encode(), limit).await?;
        let reply = ClusterReply::decode(&answer.body).ok_or_else(|| AskError::Failed {
            address: address.to_owned(),
            reason: "its reply is of a version that is not known".to_owned(),
        })?;
        if let ClusterReply::Report(report) = &reply {
            self.heard.note(answer.node, Arc::new((**report).clone()));
        }
        Ok((answer.node, reply))
    }
}

/// The most members that are asked in a row to add this node.
const JOIN_ASKED_MAX: usize = 8;
