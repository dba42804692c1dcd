//! Decides which node is to lead a group. The decisions are pure functions.
use leveret_replication::{GroupId, GroupStatus};
use std::collections::BTreeSet;

/// Returns the voter that is to lead a group when nothing speaks against it: the groups are dealt out to the voters in the
/// order of their identities. `None` if there are no voters.
pub(crate) fn preferred(group: GroupId, voters: &BTreeSet<u64>) -> Option<u64> {
    voters.iter().nth(usize::from(group) % voters.len().max(1)).copied()
}

/// Returns the voter to which the leader `own` hands a group in quiet times: the preferred one, if it has all entries and
/// `is_fit` says that it can lead.
pub(crate) fn successor_when_quiet(
    group: GroupId,
    status: &GroupStatus,
    own: u64,
    is_fit: impl Fn(u64) -> bool,
) -> Option<u64> {
    let preferred = preferred(group, &status.voters)?;
    let has_all = status.matched.get(&preferred).copied().flatten() == status.last;
    (preferred != own && !status.is_changing && has_all && is_fit(preferred)).then_some(preferred)
}

/// Returns the voters to which the leader `own` can hand a group because it has to, the best first: those that can lead
/// by `is_fit`, and of these the ones with the most entries, and then the preferred one.
pub(crate) fn successors(group: GroupId, status: &GroupStatus, own: u64, is_fit: impl Fn(u64) -> bool) -> Vec<u64> {
    let mut fit: Vec<u64> = status.voters.iter().copied().filter(|voter| *voter != own && is_fit(*voter)).collect();
    // Without this node the groups are dealt out in the same way.
    let preferred = preferred(group, &fit.iter().copied().collect());
    fit.sort_by_key(|voter| {
        let matched = status.matched.get(voter).copied().flatten();
        (std::cmp::Reverse(matched), Some(*voter) != preferred)
    });
    fit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(matched: &[(u64, Option<u64>)]) -> GroupStatus {
        let voters = matched.iter().map(|(voter, _)| *voter).chain([10]).collect();
        GroupStatus { voters, last: Some(50), matched: matched.iter().copied().collect(), ..GroupStatus::default() }
    }

    #[test]
    fn groups_are_dealt_out_to_the_voters() {
        let voters = BTreeSet::from([30, 10, 20]);
        let all: Vec<_> = (0..13).map(|group| preferred(group, &voters).unwrap()).collect();
        assert_eq!(all[..4], [10, 20, 30, 10]);
        for voter in voters {
            assert!((4..=5).contains(&all.iter().filter(|one| **one == voter).count()));
        }
        assert_eq!(preferred(3, &BTreeSet::new()), None);
    }

    #[test]
    fn a_group_goes_to_the_preferred_node_only_if_that_has_everything_and_can_lead() {
        let complete = status(&[(20, Some(50)), (30, Some(50))]);
        assert_eq!(successor_when_quiet(1, &complete, 10, |_| true), Some(20));
        assert_eq!(successor_when_quiet(1, &complete, 10, |node| node != 20), None);
        assert_eq!(successor_when_quiet(0, &complete, 10, |_| true), None, "this is the preferred one");
        let lacking = status(&[(20, Some(49)), (30, Some(50))]);
        assert_eq!(successor_when_quiet(1, &lacking, 10, |_| true), None);
        let unsettled = GroupStatus { is_changing: true, ..complete };
        assert_eq!(successor_when_quiet(1, &unsettled, 10, |_| true), None);
    }

    #[test]
    fn a_node_that_leaves_hands_its_groups_to_those_with_the_most_entries() {
        let status = status(&[(20, Some(49)), (30, Some(50)), (40, None)]);
        assert_eq!(successors(1, &status, 10, |_| true), [30, 20, 40]);
        assert_eq!(successors(1, &status, 10, |node| node != 30), [20, 40]);
        let equal = GroupStatus { matched: [(20, Some(50)), (30, Some(50))].into(), ..status };
        let equal = GroupStatus { voters: [10, 20, 30].into(), ..equal };
        assert_eq!(successors(0, &equal, 10, |_| true), [20, 30]);
        assert_eq!(successors(1, &equal, 10, |_| true), [30, 20]);
    }
}
