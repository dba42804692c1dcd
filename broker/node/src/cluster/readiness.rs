//! Whether a node can serve clients: it knows a leader for each group, that leader has a majority, and this node has the
//! group's entries.
use super::report::{GroupReport, MemberStage};
use super::room::FULL;
use super::state::{Cluster, REMOVED};
use leveret_replication::{GroupId, GroupStatus};

impl Cluster {
    /// Checks whether this node can serve clients.
    ///
    /// # Errors
    /// What is missing, in words.
    pub(crate) fn readiness(&self) -> Result<(), String> {
        let statuses = self.statuses();
        match self.stage(&statuses) {
            MemberStage::Removed => return Err(REMOVED.to_owned()),
            MemberStage::Empty | MemberStage::Joining | MemberStage::Founding => {
                return Err(format!("this node is no member of a cluster yet: {}", self.waits_for.lock()));
            }
            MemberStage::Member => {}
        }
        let groups = (0..).zip(&statuses);
        let problems: Vec<String> = groups.filter_map(|(group, status)| self.problem(group, status)).collect();
        match &problems[..] {
            [] => Ok(()),
            [only] => Err(only.clone()),
            [first, others @ ..] => Err(format!("{first} ({} further groups are not ready)", others.len())),
        }
    }

    /// Returns what a group lacks so that this node can serve clients.
    fn problem(&self, group: GroupId, status: &GroupStatus) -> Option<String> {
        if !status.members.contains_key(&self.node) {
            return Some(format!("group {group}: this node is no member of it yet"));
        }
        let Some(leader) = status.leader.filter(|leader| self.leads_on(group, *leader, status)) else {
            return Some(format!("group {group} has no leader with a majority: {}", self.voters_in_words(status)));
        };
        if self.caught_up.lock().contains(&group) {
            return None;
        }
        let applied = status.applied.map_or_else(|| "none".to_owned(), |applied| applied.to_string());
        let why = if self.is_full() { format!(": {FULL}") } else { String::new() };
        Some(format!("group {group}: this node has the entries up to {applied}, node {leader:016x} has more{why}"))
    }

    /// Returns whether a node leads a group and has a majority, as far as this node knows.
    pub(super) fn leads_on(&self, group: GroupId, leader: u64, status: &GroupStatus) -> bool {
        if leader == self.node {
            return self.has_quorum(status);
        }
        let report = self.report_of(leader);
        // A report of an earlier term is older than what this node has heard from the leader itself.
        let leads =
            |group: &GroupReport| group.term < status.term || group.led.as_ref().is_some_and(|led| led.has_quorum);
        report.is_some_and(|report| report.group(group).is_some_and(leads))
    }

    fn voters_in_words(&self, status: &GroupStatus) -> String {
        let missing = status.voters.iter().filter(|voter| !self.reaches(**voter));
        let missing: Vec<_> = missing
            .map(|voter| match status.members.get(voter).filter(|member| !member.address.is_empty()) {
                Some(member) => member.address.clone(),
                None => format!("node {voter:016x}"),
            })
            .collect();
        let all = status.voters.len();
        let words = format!("{} of {all} voters can be reached", all - missing.len());
        if missing.is_empty() { words } else { format!("{words}, not {}", missing.join(", ")) }
    }

    /// Notes of which groups this node has had all entries since it last lost their leader.
    pub(super) fn note_caught_up(&self, statuses: &[GroupStatus]) {
        let mut caught_up = self.caught_up.lock();
        for (group, status) in (0..).zip(statuses) {
            let leader = status.leader.filter(|leader| self.leads_on(group, *leader, status));
            let Some(leader) = leader else {
                caught_up.remove(&group);
                continue;
            };
            let last = match leader == self.node {
                true => status.last,
                false => self.report_of(leader).and_then(|report| report.group(group)?.last),
            };
            if last.is_some() && status.applied >= last {
                caught_up.insert(group);
            }
        }
    }
}
