//! Decides what a node does that is no member yet: wait, found a cluster, or join one. The decisions are pure functions of
//! what the node is and of what its peers answered.
//!
//! A cluster is founded only if all listed peers answered that they are empty and that they see the same nodes. Each then
//! promises durably to found this cluster and no other (the file `founders`), and only after that gives the groups their
//! first members. Of two different sets of founders at most one can therefore get a majority.
use super::founders::{Addresses, MEMBERS_MAX};
use super::report::{MemberStage, NodeReport};

/// What was found at the address of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FoundPeer {
    /// This node itself.
    Own,
    /// Another node of the cluster, which reports this of itself.
    Node(u64, Box<NodeReport>),
    /// Nobody who answers; the text says why.
    Silent(String),
}

/// What a node without members knows of itself.
#[derive(Clone, Debug)]
pub(crate) struct Newcomer<'n> {
    pub(crate) node: u64,
    pub(crate) address: &'n str,
    /// Whether it has no entry of any group. A node with entries never founds a cluster.
    pub(crate) is_empty: bool,
    /// Whether it was told to join a cluster that exists.
    pub(crate) only_joins: bool,
}

/// What a node without members does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FormationStep {
    /// Ask again later. If all peers are empty, `proposal` says with which nodes this one would found a cluster.
    Wait { reason: String, proposal: Option<Addresses> },
    /// Found a cluster of these nodes.
    Found(Addresses),
    /// Ask the node at one of these addresses to be added to its cluster.
    Join(Vec<String>),
}

/// Decides what a node without members does next. `found` has one answer for each address that was asked.
pub(crate) fn next_step(own: &Newcomer<'_>, found: &[(String, FoundPeer)]) -> FormationStep {
    let wait = |reason: String| FormationStep::Wait { reason, proposal: None };
    let nodes = || {
        found.iter().filter_map(|(address, peer)| match peer {
            FoundPeer::Node(node, report) => Some((address, *node, &**report)),
            _ => None,
        })
    };
    let members: Vec<_> = nodes().filter(|(_, _, report)| report.is_established()).collect();
    if members.iter().any(|(_, _, report)| report.members.contains_key(&own.node)) {
        return wait("it was added to the cluster and waits for the logs".to_owned());
    }
    if !members.is_empty() {
        return FormationStep::Join(members.into_iter().map(|(address, _, _)| address.clone()).collect());
    }
    if own.only_joins {
        return wait(format!("no member of the cluster to join answers{}", silent(found)));
    }
    if !own.is_empty {
        return wait(format!("it has entries of a cluster, of which no member answers{}", silent(found)));
    }
    // These have promised to found a cluster in which this node takes part.
    let promised = nodes().filter_map(|(_, _, report)| report.founders.as_ref());
    if let Some(founders) = promised.clone().find(|founders| founders.contains_key(&own.node)) {
        return FormationStep::Found(founders.clone());
    }
    if let Some((address, ..)) =
        nodes().find(|(_, _, report)| report.stage != MemberStage::Empty || report.founders.is_some())
    {
        return wait(format!("the node at {address} has data, but its cluster has no leader yet"));
    }
    if found.iter().any(|(_, peer)| matches!(peer, FoundPeer::Silent(_))) {
        return wait(format!("a cluster is formed once all peers answer{}", silent(found)));
    }
    agree(own, nodes())
}

/// Decides whether a node founds a cluster with others, all of which are empty.
fn agree<'f>(
    own: &Newcomer<'_>,
    mut others: impl Iterator<Item = (&'f String, u64, &'f NodeReport)> + Clone,
) -> FormationStep {
    let mut proposal = Addresses::from([(own.node, own.address.to_owned())]);
    proposal.extend(others.clone().map(|(_, node, report)| (node, report.address.clone())));
    let mut addresses: Vec<_> = proposal.values().collect();
    addresses.sort();
    let is_twice = addresses.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone());
    let problem = if let Some(address) = is_twice {
        Some(format!("two nodes say that others reach them at {address}"))
    } else if proposal.len() > MEMBERS_MAX {
        Some(format!("a cluster has at most {MEMBERS_MAX} nodes"))
    } else {
        None
    };
    if let Some(reason) = problem {
        return FormationStep::Wait { reason, proposal: None };
    }
    match others.find(|(_, _, report)| report.proposal.as_ref() != Some(&proposal)) {
        Some((address, ..)) => {
            let reason = format!("the node at {address} does not see the same nodes yet; are its peers the same?");
            FormationStep::Wait { reason, proposal: Some(proposal) }
        }
        None => FormationStep::Found(proposal),
    }
}

/// Returns which addresses do not answer and why, to be appended to a text.
fn silent(found: &[(String, FoundPeer)]) -> String {
    let silent = found.iter().filter_map(|(address, peer)| match peer {
        FoundPeer::Silent(reason) if reason.starts_with(address.as_str()) => Some(reason.clone()),
        FoundPeer::Silent(reason) => Some(format!("{address}: {reason}")),
        _ => None,
    });
    let silent: Vec<_> = silent.collect();
    if silent.is_empty() { String::new() } else { format!(": {}", silent.join("; ")) }
}

/// What the reports of others say against a node that has members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Estranged {
    /// The node at the address is a member of another cluster.
    Foreign { address: String },
    /// The members have a newer set of members, to which the node does not belong. It may also be one that is about to
    /// be added and has not read that entry yet, so this counts only if it lasts.
    Removed,
}

/// Checks whether the cluster of a node that has members is that of the nodes which answered. `members` are those that it
/// knows, from the entry `configured_at`.
pub(crate) fn estranged(
    own: u64,
    members: &Addresses,
    configured_at: Option<u64>,
    found: &[(String, FoundPeer)],
) -> Option<Estranged> {
    let nodes = found.iter().filter_map(|(address, peer)| match peer {
        FoundPeer::Node(node, report) if report.is_established() => Some((address, *node, report)),
        _ => None,
    });
    let is_member = members.contains_key(&own);
    let fellows = nodes.clone().filter(|(_, node, _)| members.contains_key(node)).map(|(_, _, report)| report);
    if let Some(newest) = fellows.max_by_key(|report| report.configured_at) {
        let is_newer = newest.configured_at > configured_at;
        let is_newest =
            newest.configured_at.is_some() && (is_newer || (!is_member && newest.configured_at == configured_at));
        return (is_newest && !newest.members.contains_key(&own)).then_some(Estranged::Removed);
    }
    let mut foreign = nodes.filter(|(_, _, report)| is_member && !report.members.contains_key(&own));
    foreign.next().map(|(address, ..)| Estranged::Foreign { address: address.clone() })
}

#[cfg(test)]
mod tests {
    use super::super::report::GroupReport;
    use super::*;

    fn nodes(ids: &[u64]) -> Addresses {
        ids.iter().map(|id| (*id, format!("h{id}:1"))).collect()
    }

    fn empty(id: u64, proposal: &[u64]) -> (String, FoundPeer) {
        let proposal = (!proposal.is_empty()).then(|| nodes(proposal));
        let report = NodeReport { address: format!("h{id}:1"), proposal, ..NodeReport::default() };
        (report.address.clone(), FoundPeer::Node(id, Box::new(report)))
    }

    fn member(id: u64, members: &[u64], configured_at: u64, last: u64) -> (String, FoundPeer) {
        let report = NodeReport {
            stage: MemberStage::Member,
            address: format!("h{id}:1"),
            members: nodes(members),
            configured_at: Some(configured_at),
            groups: vec![GroupReport { last: Some(last), ..GroupReport::default() }],
            ..NodeReport::default()
        };
        (report.address.clone(), FoundPeer::Node(id, Box::new(report)))
    }

    fn founding(id: u64, founders: &[u64]) -> (String, FoundPeer) {
        let report = NodeReport {
            stage: MemberStage::Founding,
            address: format!("h{id}:1"),
            founders: Some(nodes(founders)),
            ..NodeReport::default()
        };
        (report.address.clone(), FoundPeer::Node(id, Box::new(report)))
    }

    fn silent_peer(id: u64) -> (String, FoundPeer) {
        (format!("h{id}:1"), FoundPeer::Silent("connection refused".to_owned()))
    }

    fn own() -> (String, FoundPeer) {
        ("h1:1".to_owned(), FoundPeer::Own)
    }

    const NEW: Newcomer<'_> = Newcomer { node: 1, address: "h1:1", is_empty: true, only_joins: false };

    fn reason(step: FormationStep) -> String {
        match step {
            FormationStep::Wait { reason, .. } => reason,
            other => panic!("{other:?} is no wait"),
        }
    }

    #[test]
    fn a_cluster_is_founded_only_if_all_are_empty_and_see_the_same_nodes() {
        let all = [1, 2, 3];
        let found = [own(), empty(2, &all), empty(3, &all)];
        assert_eq!(next_step(&NEW, &found), FormationStep::Found(nodes(&all)));
        for view in [&[][..], &[1, 2], &[1, 3, 9]] {
            let found = [own(), empty(2, &all), empty(3, view)];
            let FormationStep::Wait { reason, proposal } = next_step(&NEW, &found) else { panic!("{view:?}") };
            assert!(reason.contains("h3:1"), "{reason}");
            assert_eq!(proposal, Some(nodes(&all)));
        }
        let FormationStep::Wait { reason, proposal } = next_step(&NEW, &[own(), empty(2, &all), silent_peer(3)]) else {
            panic!("a peer is silent");
        };
        assert!(reason.contains("h3:1: connection refused"), "{reason}");
        assert_eq!(proposal, None, "the others must not count on it");
        assert_eq!(next_step(&NEW, &[own()]), FormationStep::Found(nodes(&[1])));
        let (address, FoundPeer::Node(_, report)) = empty(2, &all) else { panic!() };
        let same = FoundPeer::Node(3, report.clone());
        let twice = [own(), (address.clone(), FoundPeer::Node(2, report)), (address, same)];
        assert!(reason_of(&twice).contains("two nodes"));
    }

    fn reason_of(found: &[(String, FoundPeer)]) -> String {
        reason(next_step(&NEW, found))
    }

    #[test]
    fn a_node_without_members_joins_those_who_have_a_cluster() {
        let there = member(2, &[2, 3], 5, 9);
        assert_eq!(
            next_step(&NEW, &[own(), there.clone(), silent_peer(3)]),
            FormationStep::Join(vec!["h2:1".to_owned()])
        );
        let with_entries = Newcomer { is_empty: false, ..NEW };
        assert_eq!(next_step(&with_entries, &[there]), FormationStep::Join(vec!["h2:1".to_owned()]));
        assert!(reason_of(&[own(), member(2, &[1, 2, 3], 5, 9)]).contains("was added"));
        // A member whose cluster never had a leader is not joined.
        assert!(reason_of(&[member(2, &[2, 3], 0, 0), empty(3, &[1, 2, 3])]).contains("no leader yet"));
    }

    #[test]
    fn a_node_with_entries_and_one_that_only_joins_never_found_a_cluster() {
        let all = [1, 2, 3];
        let found = [own(), empty(2, &all), empty(3, &all)];
        assert!(reason(next_step(&Newcomer { is_empty: false, ..NEW }, &found)).contains("has entries"));
        assert!(reason(next_step(&Newcomer { only_joins: true, ..NEW }, &found)).contains("to join"));
        let promised = [founding(2, &all), silent_peer(3)];
        assert!(reason(next_step(&Newcomer { is_empty: false, ..NEW }, &promised)).contains("has entries"));
    }

    #[test]
    fn a_promise_of_others_is_followed_if_it_names_this_node() {
        assert_eq!(
            next_step(&NEW, &[founding(2, &[1, 2, 3]), silent_peer(3)]),
            FormationStep::Found(nodes(&[1, 2, 3]))
        );
        // The other has promised a cluster with an earlier identity of this node.
        assert!(reason_of(&[founding(2, &[2, 3, 7]), empty(3, &[1, 2, 3])]).contains("no leader yet"));
    }

    #[test]
    fn members_of_different_clusters_refuse_each_other() {
        let foreign = Some(Estranged::Foreign { address: "h2:1".to_owned() });
        assert_eq!(estranged(1, &nodes(&[1]), Some(4), &[own(), member(2, &[2], 5, 9)]), foreign);
        assert_eq!(estranged(1, &nodes(&[1]), Some(4), &[own(), empty(2, &[]), silent_peer(3)]), None);
        assert_eq!(estranged(1, &nodes(&[1, 2]), Some(4), &[member(2, &[1, 2], 9, 9)]), None);
        // A member that lags behind does not know this node yet.
        assert_eq!(estranged(1, &nodes(&[1, 2]), Some(4), &[member(2, &[2], 3, 9)]), None);
        assert_eq!(estranged(1, &nodes(&[1]), Some(4), &[founding(2, &[2, 3])]), None);
    }

    #[test]
    fn a_member_that_was_removed_learns_it_from_the_newest_report() {
        let removed = Some(Estranged::Removed);
        assert_eq!(estranged(1, &nodes(&[1, 2]), Some(4), &[member(2, &[2], 5, 9)]), removed);
        // It has the entry that removed it.
        assert_eq!(estranged(1, &nodes(&[2, 3]), Some(5), &[member(2, &[2, 3], 5, 9)]), removed);
        // A member was added after that, of which it does not know.
        let later = [member(2, &[2, 4], 7, 9), member(4, &[2, 4], 7, 9)];
        assert_eq!(estranged(1, &nodes(&[1, 2]), Some(4), &later), removed);
        // It is being added: it has not read the entry yet, and one of the others lags behind.
        let lagging = [member(2, &[2, 3], 5, 9), member(3, &[1, 2, 3], 8, 9)];
        assert_eq!(estranged(1, &nodes(&[2, 3]), Some(4), &lagging), None);
    }
}
