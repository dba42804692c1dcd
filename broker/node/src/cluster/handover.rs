//! A node lets others lead the groups that it leads: before it stops or is removed, and in quiet times so that the leaders
//! are spread over the nodes.
use super::leaders::{self, Fitness};
use super::report::MemberStage;
use super::state::Cluster;
use leveret_replication::{GroupId, GroupStatus, Groups, MemberError};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// The reasons why a node that hands over its groups does not finish in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not in time: {0}")]
pub struct HandOverLate(pub String);

impl Cluster {
    /// Has this node lead no group for a while, if that can be avoided.
    pub(super) fn leave_for(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut leaves_until = self.leaves_until.lock();
        *leaves_until = (*leaves_until).max(Some(until));
    }

    /// Hands all groups that this node leads to other voters. Gives up at `deadline`, and when no other voter can take one.
    /// Returns the groups that this node still leads.
    pub(super) async fn hand_over_all(&self, deadline: Instant) -> Vec<GroupId> {
        loop {
            let Some(groups) = self.groups() else { return Vec::new() };
            let led: Vec<_> = (0..groups.len()).filter(|group| self.leads(&groups, *group)).collect();
            let can = led.iter().any(|group| !self.successors(*group, &groups.status(*group)).is_empty());
            if !can || Instant::now() >= deadline {
                return led;
            }
            for group in led {
                let _ = timeout_at(deadline, self.hand_over(&groups, group)).await;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Hands a group to the first voter that takes it.
    pub(super) async fn hand_over(&self, groups: &Groups, group: GroupId) {
        let status = groups.status(group);
        for to in self.successors(group, &status) {
            match groups.transfer(group, to).await {
                Ok(()) => return,
                Err(error) => tracing::debug!("group {group} is not handed over: {error}"),
            }
        }
    }

    fn successors(&self, group: GroupId, status: &GroupStatus) -> Vec<u64> {
        leaders::successors(group, status, self.node, |node| self.fitness(node, status))
    }

    /// Hands the groups for which another node is fitter to that node and, if it is quiet, those that other nodes are to lead
    /// to these.
    pub(super) async fn spread(&self, groups: &Groups, statuses: &[GroupStatus], is_quiet: bool) {
        for (group, status) in (0..).zip(statuses).filter(|(group, _)| self.leads(groups, *group)) {
            let fitness = |node| self.fitness(node, status);
            let to = leaders::fitter(group, status, self.node, fitness).or_else(|| match is_quiet {
                true => leaders::successor_when_quiet(group, status, self.node, fitness),
                false => None,
            });
            let Some(to) = to else { continue };
            match groups.transfer(group, to).await {
                Err(MemberError::Late { .. }) => {
                    tracing::info!("group {group} was not handed to node {to:016x} in time");
                    return; // the group may take no entries for a moment: do not risk that for others too
                }
                Err(error) => tracing::info!("group {group} is not handed to another node: {error}"),
                Ok(()) => {}
            }
        }
    }

    /// Returns whether there is no other member, so that nothing can be handed over.
    pub(super) fn is_only_member(&self) -> bool {
        self.statuses().iter().all(|status| status.members.keys().all(|member| *member == self.node))
    }

    fn leads(&self, groups: &Groups, group: GroupId) -> bool {
        groups.leader(group).is_some_and(|leader| leader.node == self.node)
    }

    /// Returns what speaks for a node as the leader of a group; `None` if it cannot lead: it cannot be reached, is no
    /// member, or hands over its own groups.
    fn fitness(&self, node: u64, status: &GroupStatus) -> Option<Fitness> {
        let count = |reaches: &dyn Fn(u64) -> bool| status.voters.iter().filter(|voter| reaches(**voter)).count();
        if node == self.node {
            let reached = count(&|voter| self.reaches(voter));
            return Some(Fitness { has_room: !self.is_full(), reached });
        }
        let report = self.report_of(node)?;
        let reached = count(&|voter| voter == node || report.reached.contains(&voter));
        let is_fit = report.stage == MemberStage::Member && !report.is_leaving;
        is_fit.then_some(Fitness { has_room: !report.is_full, reached })
    }

    /// Hands over all groups, and waits until all other members have all entries that there were then.
    ///
    /// # Errors
    /// [`HandOverLate`] with what is missing if that takes longer than `limit`.
    pub(super) async fn hand_over_and_wait(&self, limit: Duration) -> Result<(), HandOverLate> {
        if self.is_only_member() {
            return Ok(());
        }
        let began = Instant::now();
        let deadline = began + limit;
        self.leave_for(limit.max(LEAVE_MIN));
        let mut wanted = BTreeMap::new();
        loop {
            let led = self.hand_over_all(deadline).await;
            let missing = match led.first() {
                Some(group) => Some(format!("this node still leads {} groups, the first is {group}", led.len())),
                None => self.incomplete(&mut wanted, began + AGAIN),
            };
            let Some(missing) = missing else { return Ok(()) };
            if Instant::now() >= deadline {
                return Err(HandOverLate(missing));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Returns what the other members lack of the entries `wanted`: for each group those that its leader had when it was
    /// first seen. Reports from before `since` do not count: a member may have ended meanwhile.
    fn incomplete(&self, wanted: &mut BTreeMap<GroupId, u64>, since: Instant) -> Option<String> {
        (0..).zip(self.statuses()).find_map(|(group, status)| {
            let others = || status.members.keys().filter(|member| **member != self.node);
            let leader = status.leader.filter(|leader| *leader != self.node);
            let Some(leader) = leader else { return Some(format!("group {group} has no other leader")) };
            let heard = self.heard_from(leader).filter(|heard| heard.at >= since);
            let report = heard.as_ref().and_then(|heard| heard.report.group(group));
            let Some((last, led)) = report.and_then(|group| Some((group.last?, group.led.as_ref()?))) else {
                return Some(format!("group {group}: its leader {leader:016x} has not reported yet"));
            };
            let wanted = *wanted.entry(group).or_insert(last);
            let has = |member: &&u64| **member == leader || led.reached.get(member).is_some_and(|has| *has >= wanted);
            let lacking = others().find(|member| !has(member))?;
            Some(format!("group {group}: node {lacking:016x} lacks entries or cannot be reached"))
        })
    }
}

const AGAIN: Duration = Duration::from_millis(50);
/// The shortest time for which a node that hands over its groups leads none.
const LEAVE_MIN: Duration = Duration::from_secs(30);
