//! The members of a group: the first ones, learners, voters, and the leader.
use crate::GroupId;
use crate::group::Groups;
use crate::proposal::NotLeader;
use crate::replica::Group;
use crate::types::GroupMember;
use futures::future::BoxFuture;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::error::{ClientWriteError, InitializeError, RaftError};
use openraft::{ChangeMembers, ServerState};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a node knows of one of its groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupStatus {
    /// The node that leads the group, if that is known.
    pub leader: Option<u64>,
    /// The newest term that this node knows of.
    pub term: u64,
    /// The nodes that vote. While voters are being changed, those of before and of after.
    pub voters: BTreeSet<u64>,
    /// The nodes that get the entries and do not vote.
    pub learners: BTreeSet<u64>,
    /// Index of the entry that these members come from. Until that entry is applied, they are not agreed on.
    pub configured_at: Option<u64>,
    /// Whether voters are being changed.
    pub is_changing: bool,
    /// The members with their addresses.
    pub members: BTreeMap<u64, GroupMember>,
    /// Index of the last entry in this node's log.
    pub last: Option<u64>,
    /// Index of the last entry that is applied on this node.
    pub applied: Option<u64>,
    /// If this node leads the group: the index up to which the log of each other member is known to agree with it and to
    /// be durable; `None` if nothing is known yet. Empty on other nodes.
    pub matched: BTreeMap<u64, Option<u64>>,
}

/// The reasons why the members of a group are not changed, or another node does not become its leader.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// This node does not lead the group, or does not any more.
    #[error(transparent)]
    NotLeader(#[from] NotLeader),
    /// An earlier change is not finished, or the change is not possible.
    #[error("group {group}: {reason}")]
    Refused {
        /// Number of the group.
        group: GroupId,
        /// What is wrong.
        reason: String,
    },
    /// The node to lead has not become the leader in time.
    #[error("node {to:016x} has not become the leader of group {group} in time")]
    Late {
        /// Number of the group.
        group: GroupId,
        /// The node that was to lead.
        to: u64,
    },
}

impl Groups {
    /// Makes the given nodes, of which this is one, the first voters of a group. To be called on each of them with the
    /// same members: a node that has no log does not vote, because it may have lost one. Does nothing if the group has
    /// members already.
    ///
    /// # Errors
    /// [`MemberError::Refused`] if the members are not valid, or the group has stopped.
    pub fn initialize(
        &self,
        group: GroupId,
        members: BTreeMap<u64, GroupMember>,
    ) -> BoxFuture<'_, Result<(), MemberError>> {
        Box::pin(async move {
            let refused = |reason: String| MemberError::Refused { group, reason };
            members.values().try_for_each(|member| check_address(group, member))?;
            match self.group(group).raft.initialize(members).await {
                Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
                Err(error) => Err(refused(error.to_string())),
            }
        })
    }

    /// Adds a node that gets the entries of a group and does not vote, or changes the address of a member. Returns once
    /// that is agreed on, not once the node has the entries. Only on the leader.
    ///
    /// # Errors
    /// [`MemberError`] if this node does not lead the group or an earlier change is not finished.
    pub fn add_learner(
        &self,
        group: GroupId,
        node: u64,
        member: GroupMember,
    ) -> BoxFuture<'_, Result<(), MemberError>> {
        Box::pin(async move {
            check_address(group, &member)?;
            self.change(group, ChangeMembers::SetNodes(BTreeMap::from([(node, member)])), true).await
        })
    }

    /// Makes a learner a voter. It should have nearly all entries: see [`GroupStatus::matched`]. Only on the leader.
    ///
    /// # Errors
    /// [`MemberError`] if this node does not lead the group, an earlier change is not finished, or the node is no member.
    pub fn promote(&self, group: GroupId, node: u64) -> BoxFuture<'_, Result<(), MemberError>> {
        Box::pin(self.change(group, ChangeMembers::AddVoterIds(BTreeSet::from([node])), true))
    }

    /// Removes a voter or a learner from a group. Only on the leader, which may remove itself.
    ///
    /// # Errors
    /// [`MemberError`] if this node does not lead the group, an earlier change is not finished, or no voter would be left.
    pub fn remove(&self, group: GroupId, node: u64) -> BoxFuture<'_, Result<(), MemberError>> {
        Box::pin(async move {
            if self.status(group).voters.contains(&node) {
                return self.change(group, ChangeMembers::RemoveVoters(BTreeSet::from([node])), false).await;
            }
            self.change(group, ChangeMembers::RemoveNodes(BTreeSet::from([node])), false).await
        })
    }

    /// Ends a change of the voters that has come half way, because the leader that began it has ended: see
    /// [`GroupStatus::is_changing`]. Only on the leader.
    ///
    /// # Errors
    /// [`MemberError`] if this node does not lead the group, or if the first half is not agreed on yet.
    pub fn finish_change(&self, group: GroupId) -> BoxFuture<'_, Result<(), MemberError>> {
        // Without a further voter, what follows a change that has come half way is its second half.
        Box::pin(self.change(group, ChangeMembers::AddVoterIds(BTreeSet::new()), false))
    }

    async fn change(
        &self,
        group: GroupId,
        change: ChangeMembers<u64, GroupMember>,
        keep_as_learners: bool,
    ) -> Result<(), MemberError> {
        let changed = self.group(group).raft.change_membership(change, keep_as_learners).await;
        changed.map(drop).map_err(|error| match error {
            RaftError::Fatal(fatal) => NotLeader::stopped(group, fatal).into(),
            RaftError::APIError(error @ ClientWriteError::ChangeMembershipError(_)) => {
                MemberError::Refused { group, reason: error.to_string() }
            }
            RaftError::APIError(error) => NotLeader::refused(group, error).into(),
        })
    }

    /// Makes another voter the leader of a group, and waits until it is. Only on the leader. Refuses a voter that
    /// cannot be reached or lags behind: openraft's leader takes no entries from the beginning of a transfer on, and
    /// does not go back if the other node does not take over.
    ///
    /// # Errors
    /// [`MemberError`] if this node does not lead the group, the voter is not fit to lead, or it has not become the leader
    /// within two seconds.
    pub fn transfer(&self, group: GroupId, to: u64) -> BoxFuture<'_, Result<(), MemberError>> {
        Box::pin(async move {
            let raft = &self.group(group).raft;
            self.check_transfer(group, to)?;
            raft.trigger().transfer_leader(to).await.map_err(|fatal| NotLeader::stopped(group, fatal))?;
            let wait = raft.wait(Some(TRANSFER_MAX));
            let led = wait.metrics(|metrics| metrics.current_leader == Some(to), "it leads");
            led.await.map(drop).map_err(|_| MemberError::Late { group, to })
        })
    }

    fn check_transfer(&self, group: GroupId, to: u64) -> Result<(), MemberError> {
        let refused = |reason: String| Err(MemberError::Refused { group, reason });
        let Group { node, peers, raft, .. } = self.group(group);
        let status = self.status(group);
        if status.leader != Some(*node) || raft.metrics().borrow_watched().state != ServerState::Leader {
            let reason = "this node does not lead it".to_owned();
            return Err(NotLeader { group, leader: status.leader, is_open: false, reason }.into());
        }
        if to == *node || !status.voters.contains(&to) {
            return refused(format!("node {to:016x} is no other voter"));
        }
        if !peers.as_ref().is_some_and(|peers| peers.is_connected(to)) {
            return refused(format!("node {to:016x} cannot be reached"));
        }
        let lag = status.last.unwrap_or(0).saturating_sub(status.matched.get(&to).copied().flatten().unwrap_or(0));
        if lag > TRANSFER_LAG_MAX { refused(format!("node {to:016x} lags {lag} entries behind")) } else { Ok(()) }
    }

    /// Returns what this node knows of a group.
    #[must_use]
    pub fn status(&self, group: GroupId) -> GroupStatus {
        let group = self.group(group);
        let metrics = group.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let replication = metrics.replication.iter().flatten().filter(|(node, _)| **node != group.node);
        GroupStatus {
            leader: metrics.current_leader,
            term: metrics.current_term,
            voters: membership.voter_ids().collect(),
            learners: membership.learner_ids().collect(),
            configured_at: metrics.membership_config.log_id().map(|id| id.index),
            is_changing: membership.get_joint_config().len() > 1,
            members: membership.nodes().map(|(node, member)| (*node, member.clone())).collect(),
            last: metrics.last_log_index,
            applied: metrics.last_applied.map(|id| id.index),
            matched: replication.map(|(node, matched)| (*node, matched.map(|id| id.index))).collect(),
        }
    }
}

fn check_address(group: GroupId, member: &GroupMember) -> Result<(), MemberError> {
    if member.address.len() <= ADDRESS_BYTES_MAX {
        return Ok(());
    }
    let reason = format!("an address of {} bytes is too long", member.address.len());
    Err(MemberError::Refused { group, reason })
}

/// The longest time that another node may take to become the leader.
const TRANSFER_MAX: Duration = Duration::from_secs(2);
/// A voter that lags further behind, in entries, is not made leader.
const TRANSFER_LAG_MAX: u64 = 256;
/// The longest address of a member in bytes.
const ADDRESS_BYTES_MAX: usize = 1024;
