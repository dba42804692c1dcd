//! What people see of a cluster.
use super::report::MemberStage;
use super::state::Cluster;
use leveret_replication::GroupId;

/// A cluster, as one of its nodes sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterView {
    /// The name of the cluster.
    pub name: String,
    /// The identity of the node that was asked.
    pub node: u64,
    /// What that node lacks before it can serve clients; `None` if it can.
    pub lacks: Option<String>,
    /// Whether that node was removed from the cluster.
    pub is_removed: bool,
    /// The members in the order of their identities.
    pub members: Vec<MemberView>,
    /// The groups in the order of their numbers.
    pub groups: Vec<GroupView>,
}

/// A member of a cluster, as another sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberView {
    /// The identity of the member.
    pub node: u64,
    /// The name of the member, if it has told it.
    pub name: Option<String>,
    /// The address at which other nodes reach it.
    pub address: String,
    /// The state of the member.
    pub state: MemberState,
    /// Whether it votes in group 0.
    pub is_voter: bool,
    /// The groups that it leads.
    pub leads: Vec<GroupId>,
}

/// The state of a member, as another sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// It takes part in the cluster.
    Running,
    /// It takes part in the cluster, but its disk has no room for further messages.
    Full,
    /// It has not got all entries yet, and does not vote.
    CatchingUp,
    /// It hands its groups over to others.
    Leaving,
    /// It was removed from the cluster.
    Removed,
    /// It cannot be reached.
    Unreachable,
}

impl MemberView {
    /// Returns the name of the member; its address if it has not told its name.
    #[must_use]
    pub fn shown_name(&self) -> &str {
        self.name.as_ref().unwrap_or(&self.address)
    }
}

impl MemberState {
    /// Returns whether the member is up, as far as is known.
    #[must_use]
    pub fn is_up(self) -> bool {
        !matches!(self, Self::Unreachable | Self::Removed)
    }

    /// Returns the name of the state.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Full => "full",
            Self::CatchingUp => "catching up",
            Self::Leaving => "leaving",
            Self::Removed => "removed",
            Self::Unreachable => "unreachable",
        }
    }
}

/// A group, as one of its members sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupView {
    /// Number of the group; 0 has the definitions.
    pub group: GroupId,
    /// The node that leads it, if that is known.
    pub leader: Option<u64>,
    /// The term in which it leads.
    pub term: u64,
    /// The members that vote.
    pub voters: Vec<u64>,
    /// The members that do not vote.
    pub learners: Vec<u64>,
    /// Index of the last entry in the log of the node that was asked.
    pub last: Option<u64>,
    /// Index of the last entry that is applied there.
    pub applied: Option<u64>,
}

impl Cluster {
    pub(crate) fn view(&self) -> ClusterView {
        let statuses = self.statuses();
        let groups: Vec<GroupView> = (0..)
            .zip(&statuses)
            .map(|(group, status)| GroupView {
                group,
                leader: status.leader,
                term: status.term,
                voters: status.voters.iter().copied().collect(),
                learners: status.learners.iter().copied().collect(),
                last: status.last,
                applied: status.applied,
            })
            .collect();
        let members = statuses.first().into_iter().flat_map(|definitions| {
            definitions.members.iter().map(|(node, member)| MemberView {
                node: *node,
                name: self.name_of(*node),
                address: member.address.clone(),
                state: self.state_of(*node, definitions.voters.contains(node)),
                is_voter: definitions.voters.contains(node),
                leads: groups.iter().filter(|group| group.leader == Some(*node)).map(|group| group.group).collect(),
            })
        });
        ClusterView {
            name: self.options.name.clone(),
            node: self.node,
            lacks: self.readiness().err(),
            is_removed: self.is_removed(),
            members: members.collect(),
            groups,
        }
    }

    /// Says of something that `leader` leads why it cannot be had: the end of a sentence about it.
    pub(crate) fn why_silent(&self, leader: u64) -> String {
        let named = |node| self.name_of(node).unwrap_or_else(|| format!("{node:016x}"));
        match self.reaches(leader) {
            true => format!("is led by node {}, which has not answered in time", named(leader)),
            false => format!("is led by node {}, which node {} cannot reach", named(leader), named(self.node)),
        }
    }

    fn state_of(&self, node: u64, is_voter: bool) -> MemberState {
        let (stage, is_leaving, is_full) = if node == self.node {
            (self.stage(&self.statuses()), self.is_leaving(), self.is_full())
        } else {
            let Some(report) = self.report_of(node) else { return MemberState::Unreachable };
            (report.stage, report.is_leaving, report.is_full)
        };
        match stage {
            MemberStage::Removed => MemberState::Removed,
            _ if !is_voter => MemberState::CatchingUp,
            _ if is_leaving => MemberState::Leaving,
            _ if is_full => MemberState::Full,
            _ => MemberState::Running,
        }
    }
}
