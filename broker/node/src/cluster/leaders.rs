//! Decides which node is to lead a group. The decisions are pure functions.
use leveret_replication::{GroupId, GroupStatus};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Returns the voter that is to lead a group when nothing speaks against it: the groups are dealt out to the voters in the
/// order of their identities. `None` if there are no voters.
pub(crate) fn preferred(group: GroupId, voters: &BTreeSet<u64>) -> Option<u64> {
    voters.iter().nth(usize::from(group) % voters.len().max(1)).copied()
}

/// What speaks for a node as a leader; a greater one is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fitness {
    /// Whether its disk has room for further messages.
    pub(crate) has_room: bool,
    /// The number of voters of the group that it reaches, itself included.
    pub(crate) reached: usize,
}

/// Returns the voter to which the leader `own` hands a group in quiet times: the preferred one, if it has all entries and
/// no voter is fitter.
pub(crate) fn successor_when_quiet(
    group: GroupId,
    status: &GroupStatus,
    own: u64,
    fitness: impl Fn(u64) -> Option<Fitness>,
) -> Option<u64> {
    let preferred = preferred(group, &status.voters)?;
    let has_all = status.matched.get(&preferred).copied().flatten() == status.last;
    let most = status.voters.iter().filter_map(|voter| fitness(*voter)).max();
    let is_fittest = most.is_some() && fitness(preferred) == most;
    (preferred != own && !status.is_changing && has_all && is_fittest).then_some(preferred)
}

/// Returns the voter to which the leader `own` hands a group at once because it is fitter: of the fittest, the one with
/// the most entries. `None` if none is fitter.
pub(crate) fn fitter(
    group: GroupId,
    status: &GroupStatus,
    own: u64,
    fitness: impl Fn(u64) -> Option<Fitness>,
) -> Option<u64> {
    let first = successors(group, status, own, &fitness).first().copied()?;
    (fitness(first) > fitness(own)).then_some(first)
}

/// Returns the voters to which the leader `own` can hand a group because it has to, the best first: the fittest, and of
/// these the ones with the most entries, and then the preferred one.
pub(crate) fn successors(
    group: GroupId,
    status: &GroupStatus,
    own: u64,
    fitness: impl Fn(u64) -> Option<Fitness>,
) -> Vec<u64> {
    let others = status.voters.iter().copied().filter(|voter| *voter != own);
    let fit: BTreeMap<u64, Fitness> = others.filter_map(|voter| Some((voter, fitness(voter)?))).collect();
    // Without this node the groups are dealt out in the same way.
    let preferred = preferred(group, &fit.keys().copied().collect());
    let mut best: Vec<u64> = fit.keys().copied().collect();
    best.sort_by_key(|voter| {
        let matched = status.matched.get(voter).copied().flatten();
        (Reverse(fit[voter]), Reverse(matched), Some(*voter) != preferred)
    });
    best
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

    const FIT: Fitness = Fitness { has_room: true, reached: 3 };

    /// Has all nodes be fit except for one.
    fn all_but(node: u64, fitness: Option<Fitness>) -> impl Fn(u64) -> Option<Fitness> {
        move |other| if other == node { fitness } else { Some(FIT) }
    }

    #[test]
    fn a_group_goes_to_the_preferred_node_only_if_that_has_everything_and_can_lead() {
        let complete = status(&[(20, Some(50)), (30, Some(50))]);
        assert_eq!(successor_when_quiet(1, &complete, 10, |_| Some(FIT)), Some(20));
        assert_eq!(successor_when_quiet(1, &complete, 10, all_but(20, None)), None);
        assert_eq!(successor_when_quiet(0, &complete, 10, |_| Some(FIT)), None, "this is the preferred one");
        let lacking = status(&[(20, Some(49)), (30, Some(50))]);
        assert_eq!(successor_when_quiet(1, &lacking, 10, |_| Some(FIT)), None);
        let unsettled = GroupStatus { is_changing: true, ..complete };
        assert_eq!(successor_when_quiet(1, &unsettled, 10, |_| Some(FIT)), None);
    }

    #[test]
    fn a_group_leaves_a_leader_that_lacks_room_or_does_not_reach_all_for_one_that_is_fitter() {
        let status = status(&[(20, Some(50)), (30, Some(49))]);
        for weaker in [Fitness { has_room: false, ..FIT }, Fitness { reached: 2, ..FIT }] {
            assert_eq!(fitter(1, &status, 10, all_but(10, Some(weaker))), Some(20), "{weaker:?}");
            assert_eq!(fitter(1, &status, 10, all_but(20, Some(weaker))), None, "{weaker:?}");
            let stays = successor_when_quiet(1, &status, 10, all_but(20, Some(weaker)));
            assert_eq!(stays, None, "the preferred one is no better: {weaker:?}");
            // Nodes 10 and 20 do not reach each other, or are full: only 30 is left.
            let only_30 = |node| Some(if node == 30 { FIT } else { weaker });
            assert_eq!(fitter(0, &status, 10, only_30), Some(30), "{weaker:?}");
            assert_eq!(fitter(0, &status, 30, only_30), None, "{weaker:?}");
            assert_eq!(successor_when_quiet(0, &status, 30, only_30), None, "{weaker:?}");
            assert_eq!(fitter(1, &status, 10, |_| Some(weaker)), None, "all are the same: {weaker:?}");
            assert_eq!(successor_when_quiet(1, &status, 10, |_| Some(weaker)), Some(20), "{weaker:?}");
            let ordered = successors(1, &status, 10, all_but(20, Some(weaker)));
            assert_eq!(ordered, [30, 20], "the weaker one is the last resort: {weaker:?}");
        }
    }

    #[test]
    fn a_node_that_leaves_hands_its_groups_to_those_with_the_most_entries() {
        let status = status(&[(20, Some(49)), (30, Some(50)), (40, None)]);
        assert_eq!(successors(1, &status, 10, |_| Some(FIT)), [30, 20, 40]);
        assert_eq!(successors(1, &status, 10, all_but(30, None)), [20, 40]);
        let equal = GroupStatus { matched: [(20, Some(50)), (30, Some(50))].into(), ..status };
        let equal = GroupStatus { voters: [10, 20, 30].into(), ..equal };
        assert_eq!(successors(0, &equal, 10, |_| Some(FIT)), [20, 30]);
        assert_eq!(successors(1, &equal, 10, |_| Some(FIT)), [30, 20]);
    }
}
