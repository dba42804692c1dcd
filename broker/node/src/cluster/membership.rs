//! Decides how the members of groups change. Who belongs to the cluster is decided in group 0; the other groups follow, one
//! step at a time. The decisions are pure functions of what the leader of a group knows, so each can be taken again at any
//! time, by any later leader.
use super::founders::{Addresses, MEMBERS_MAX, TEXT_MAX};
use leveret_replication::GroupStatus;

/// One change of the members of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MemberStep {
    /// Add a node as a learner, or change the address of a member.
    Add {
        /// The node.
        node: u64,
        /// The address at which others reach it.
        address: String,
    },
    /// Make a learner a voter.
    Promote(u64),
    /// Remove a member.
    Remove(u64),
    /// End a change of the voters that an earlier leader has begun.
    Finish,
}

/// What a leader knows of the other nodes.
pub(crate) struct Surroundings<'s> {
    /// The leader.
    pub(crate) own: u64,
    /// Tells whether there is a connection to a node.
    pub(crate) is_reachable: &'s dyn Fn(u64) -> bool,
}

impl Surroundings<'_> {
    fn reaches(&self, node: u64) -> bool {
        node == self.own || (self.is_reachable)(node)
    }

    /// Returns whether a majority of the voters, without `except`, can be reached.
    pub(crate) fn has_quorum(&self, status: &GroupStatus, except: Option<u64>) -> bool {
        let voters = || status.voters.iter().filter(|voter| Some(**voter) != except);
        voters().filter(|voter| self.reaches(**voter)).count() * 2 > voters().count()
    }
}

/// Returns the next step by which a shard that this node leads gets the same members as the cluster.
pub(crate) fn step_of_shard(
    status: &GroupStatus,
    cluster: &Addresses,
    around: &Surroundings<'_>,
) -> Option<MemberStep> {
    if is_unsettled(status) {
        return finish(status);
    }
    if !cluster.contains_key(&around.own) {
        return None; // a leader that is no member of the cluster any more lets another node lead first
    }
    let lacking = cluster.iter().find(|(node, address)| {
        status.members.get(node).is_none_or(|member| member.address != **address && !address.is_empty())
    });
    if let Some((node, address)) = lacking {
        return Some(MemberStep::Add { node: *node, address: address.clone() });
    }
    promotion(status, around).or_else(|| {
        let gone = status.members.keys().find(|node| !cluster.contains_key(node))?;
        Some(MemberStep::Remove(*gone))
    })
}

/// Returns the next step by which group 0, which this node leads, follows from what is known of its members. `reported` has
/// the addresses that the nodes report now.
pub(crate) fn step_of_definitions(
    status: &GroupStatus,
    reported: &Addresses,
    around: &Surroundings<'_>,
) -> Option<MemberStep> {
    if is_unsettled(status) {
        return finish(status);
    }
    let moved = status.members.iter().find_map(|(node, member)| {
        let address = reported.get(node).filter(|address| **address != member.address && !address.is_empty())?;
        // The address of another member is only taken over once that one is gone.
        let is_free = status.members.iter().all(|(other, member)| other == node || member.address != **address);
        is_free.then(|| MemberStep::Add { node: *node, address: address.clone() })
    });
    moved.or_else(|| promotion(status, around)).or_else(|| {
        let replaced = status.members.keys().find(|node| replacement(status, **node, around).is_some())?;
        Some(MemberStep::Remove(*replaced))
    })
}

/// Returns the voter that has taken the place of a member: it has the same address and can be reached, which the member
/// cannot.
fn replacement(status: &GroupStatus, node: u64, around: &Surroundings<'_>) -> Option<u64> {
    let address = &status.members.get(&node)?.address;
    if around.reaches(node) || address.is_empty() {
        return None;
    }
    let has_same = |other: &&u64| {
        **other != node
            && around.reaches(**other)
            && status.members.get(other).is_some_and(|member| member.address == *address)
    };
    status.voters.iter().find(has_same).copied()
}

/// Returns the step that makes a learner a voter which has nearly all entries.
fn promotion(status: &GroupStatus, around: &Surroundings<'_>) -> Option<MemberStep> {
    let last = status.last.unwrap_or(0);
    let is_near = |node: &&u64| {
        let matched = status.matched.get(node).copied().flatten();
        around.reaches(**node) && matched.is_some_and(|matched| matched + PROMOTION_LAG_MAX >= last)
    };
    status.learners.iter().find(is_near).copied().map(MemberStep::Promote)
}

/// Returns the step that ends a change of the voters which has come half way: whoever began it does not lead any more, or
/// has given up.
fn finish(status: &GroupStatus) -> Option<MemberStep> {
    (status.is_changing && status.configured_at <= status.applied).then_some(MemberStep::Finish)
}

/// Returns whether an earlier change is not finished.
fn is_unsettled(status: &GroupStatus) -> bool {
    status.is_changing || status.configured_at > status.applied
}

/// Decides whether the leader of group 0 adds a node. Returns false if it is a member already.
///
/// # Errors
/// The reason why it is not added now.
pub(crate) fn admit(status: &GroupStatus, node: u64, address: &str, around: &Surroundings<'_>) -> Result<bool, String> {
    if address.is_empty() || address.len() > TEXT_MAX {
        return Err(format!("an address has 1 to {TEXT_MAX} bytes"));
    }
    if status.members.contains_key(&node) {
        return Ok(false);
    }
    if is_unsettled(status) {
        return Err("an earlier change of the members is not finished: try again".to_owned());
    }
    if status.members.values().any(|member| member.address.is_empty()) {
        return Err("the address of a member is not known yet: try again".to_owned());
    }
    if status.members.len() >= MEMBERS_MAX {
        return Err(format!("a cluster has at most {MEMBERS_MAX} members"));
    }
    let same = status.members.iter().find(|(other, member)| member.address == address && around.reaches(**other));
    if let Some((other, _)) = same {
        return Err(format!("member {other:016x} is at {address} and can be reached"));
    }
    Ok(true)
}

/// Decides whether the leader of group 0 may remove a member.
///
/// # Errors
/// The reason why it is not removed.
pub(crate) fn dismiss(status: &GroupStatus, node: u64, around: &Surroundings<'_>) -> Result<(), String> {
    if !status.members.contains_key(&node) {
        return Err(format!("node {node:016x} is no member"));
    }
    if is_unsettled(status) {
        return Err("an earlier change of the members is not finished: try again".to_owned());
    }
    if status.voters.iter().all(|voter| *voter == node) {
        return Err("it is the only voter: without it there is no cluster".to_owned());
    }
    if !around.has_quorum(status, Some(node)) {
        return Err("a majority of the other voters cannot be reached: they could not go on without it".to_owned());
    }
    Ok(())
}

/// A learner that lacks at most this many entries is made a voter.
const PROMOTION_LAG_MAX: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use leveret_replication::GroupMember;

    fn address(node: u64) -> String {
        format!("h{}:1", node % 10)
    }

    /// Returns the status of a group that node 1 leads, with 100 entries.
    fn status(voters: &[u64], learners: &[(u64, Option<u64>)]) -> GroupStatus {
        let ids = || voters.iter().chain(learners.iter().map(|(node, _)| node));
        let voters_matched = voters.iter().filter(|voter| **voter != 1).map(|voter| (*voter, Some(100)));
        GroupStatus {
            leader: Some(1),
            voters: voters.iter().copied().collect(),
            learners: learners.iter().map(|(node, _)| *node).collect(),
            members: ids().map(|node| (*node, GroupMember { address: address(*node) })).collect(),
            configured_at: Some(7),
            last: Some(100),
            applied: Some(100),
            matched: learners.iter().copied().chain(voters_matched).collect(),
            ..GroupStatus::default()
        }
    }

    fn cluster(nodes: &[u64]) -> Addresses {
        nodes.iter().map(|node| (*node, address(*node))).collect()
    }

    fn add(node: u64) -> Option<MemberStep> {
        Some(MemberStep::Add { node, address: address(node) })
    }

    fn shard(status: &GroupStatus, nodes: &[u64], unreachable: &[u64]) -> Option<MemberStep> {
        let is_reachable = |node: u64| !unreachable.contains(&node);
        step_of_shard(status, &cluster(nodes), &Surroundings { own: 1, is_reachable: &is_reachable })
    }

    #[test]
    fn a_shard_follows_the_cluster_step_by_step() {
        assert_eq!(shard(&status(&[1, 2], &[]), &[1, 2], &[]), None);
        assert_eq!(shard(&status(&[1], &[]), &[1, 2, 3], &[]), add(2));
        assert_eq!(shard(&status(&[1], &[(2, None)]), &[1, 2, 3], &[]), add(3));
        assert_eq!(shard(&status(&[1], &[(2, None), (3, Some(3))]), &[1, 2, 3], &[]), None, "they lag behind");
        let near = status(&[1], &[(2, None), (3, Some(36))]);
        assert_eq!(shard(&near, &[1, 2, 3], &[]), Some(MemberStep::Promote(3)));
        assert_eq!(shard(&near, &[1, 2, 3], &[3]), None, "it cannot be reached");
        assert_eq!(shard(&status(&[1, 2, 3], &[]), &[1, 2], &[]), Some(MemberStep::Remove(3)));
        assert_eq!(shard(&status(&[1, 2], &[(3, None)]), &[1, 2], &[3]), Some(MemberStep::Remove(3)));
        assert_eq!(shard(&status(&[1, 2, 3], &[]), &[2, 3], &[]), None, "another node has to lead first");
    }

    #[test]
    fn nothing_is_changed_while_an_earlier_change_is_not_finished() {
        let half_way = GroupStatus { is_changing: true, ..status(&[1], &[]) };
        for (unsettled, next) in [
            (half_way.clone(), Some(MemberStep::Finish)),
            (GroupStatus { applied: Some(6), ..half_way }, None),
            (GroupStatus { applied: Some(6), ..status(&[1], &[]) }, None),
        ] {
            assert_eq!(shard(&unsettled, &[1, 2], &[]), next);
            assert_eq!(shard(&unsettled, &[2], &[]), next, "whoever leads ends it");
            let around = Surroundings { own: 1, is_reachable: &|_| true };
            assert_eq!(step_of_definitions(&unsettled, &cluster(&[1]), &around), next);
            admit(&unsettled, 2, "h2:1", &around).unwrap_err();
        }
    }

    #[test]
    fn a_member_that_moved_gets_its_new_address() {
        let mut alone = status(&[1], &[]);
        alone.members.insert(1, GroupMember::default());
        assert_eq!(shard(&alone, &[1], &[]), add(1));
        let around = Surroundings { own: 1, is_reachable: &|_| true };
        assert_eq!(step_of_definitions(&alone, &cluster(&[1]), &around), add(1));
        admit(&alone, 2, "h2:1", &around).unwrap_err();
        let mut two = status(&[1, 2], &[]);
        assert_eq!(step_of_definitions(&two, &cluster(&[1, 2]), &around), None);
        two.members.insert(2, GroupMember { address: "old:1".to_owned() });
        assert_eq!(step_of_definitions(&two, &cluster(&[1, 2]), &around), add(2));
        two.members.insert(1, GroupMember { address: address(2) });
        assert_eq!(step_of_definitions(&two, &[(2, address(2))].into(), &around), None, "another member is there");
    }

    #[test]
    fn a_lost_member_is_replaced_by_the_one_at_its_address_and_never_while_it_can_be_reached() {
        // Nodes 3 and 13 have the same address.
        let lost = |node: u64| node != 3;
        let around = Surroundings { own: 1, is_reachable: &lost };
        let none = Addresses::new();
        assert_eq!(admit(&status(&[1, 2, 3], &[]), 13, &address(13), &around), Ok(true));
        let added = status(&[1, 2, 3], &[(13, Some(0))]);
        assert_eq!(step_of_definitions(&added, &none, &around), None, "it has no entries yet");
        let near = status(&[1, 2, 3], &[(13, Some(99))]);
        assert_eq!(step_of_definitions(&near, &none, &around), Some(MemberStep::Promote(13)));
        let both = status(&[1, 2, 3, 13], &[]);
        assert_eq!(step_of_definitions(&both, &none, &around), Some(MemberStep::Remove(3)));
        let all = Surroundings { own: 1, is_reachable: &|_| true };
        assert_eq!(step_of_definitions(&both, &none, &all), None);
        let nobody = Surroundings { own: 1, is_reachable: &|_| false };
        assert_eq!(step_of_definitions(&both, &none, &nobody), None);
        let refused = admit(&status(&[1, 2, 3], &[]), 13, &address(13), &all).unwrap_err();
        assert!(refused.contains("can be reached"), "{refused}");
    }

    #[test]
    fn a_node_is_added_once_and_a_member_removed_only_if_the_others_can_go_on() {
        let all = Surroundings { own: 1, is_reachable: &|_| true };
        assert_eq!(admit(&status(&[1, 2], &[]), 2, "h2:1", &all), Ok(false));
        let many: Vec<u64> = (1..=15).map(|node| node * 100 + node % 10).collect();
        admit(&status(&many, &[]), 7, "h7:7", &all).unwrap_err();
        admit(&status(&[1], &[]), 7, "", &all).unwrap_err();
        assert_eq!(dismiss(&status(&[1, 2, 3], &[]), 3, &all), Ok(()));
        assert!(dismiss(&status(&[1], &[]), 1, &all).unwrap_err().contains("only voter"));
        assert!(dismiss(&status(&[1], &[(2, None)]), 1, &all).unwrap_err().contains("only voter"));
        assert!(dismiss(&status(&[1], &[]), 9, &all).unwrap_err().contains("no member"));
        let without_2 = |node: u64| node != 2;
        let around = Surroundings { own: 1, is_reachable: &without_2 };
        assert_eq!(dismiss(&status(&[1, 2, 3], &[]), 2, &around), Ok(()), "a dead member can be removed");
        assert!(dismiss(&status(&[1, 2, 3], &[]), 3, &around).unwrap_err().contains("majority"));
    }
}
