//! What a node reports of itself: to the members of its cluster over channel 1, twice per second, and to whoever asks.
//!
//! Format, integers little-endian: `version u8 = 2, stage u8, leaving u8, full u8, name, address, founders, proposal, members`
//! (each of these three as `founders` describes, the first two after a `u8` that says whether they follow), `number of reached
//! nodes u8, for each its identity u64`, `configured at, number of groups u8`, then each group as `leader, term u64, last,
//! applied, leads u8`, and if it is led here `quorum u8, number of members u8, for each its identity u64 and the index that it
//! has`. Texts have their length (u16) before them, an optional number is `u8 = 0` or `u8 = 1, u64`.
use super::founders::{self, Addresses};
use bytes::{Buf, BufMut};
use leveret_replication::GroupId;
use std::collections::{BTreeMap, BTreeSet};

/// How far a node has got on its way into a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum MemberStage {
    /// The data folder is empty, and the node has promised nothing.
    #[default]
    Empty = 0,
    /// It has promised to found a cluster, and not all groups have their members yet.
    Founding = 1,
    /// It has entries of some group, but does not know who the members are.
    Joining = 2,
    /// It is a member of a cluster.
    Member = 3,
    /// It was a member and was removed.
    Removed = 4,
}

/// What a node reports of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeReport {
    pub(crate) stage: MemberStage,
    /// True while the node hands its groups to others.
    pub(crate) is_leaving: bool,
    /// True while the node's disk has no room for further messages.
    pub(crate) is_full: bool,
    /// The name of the node, for people.
    pub(crate) name: String,
    /// The address at which others reach the node.
    pub(crate) address: String,
    pub(crate) founders: Option<Addresses>,
    /// The nodes with which this one would found a cluster: all listed peers, if all of them are empty.
    pub(crate) proposal: Option<Addresses>,
    /// The members of group 0, as far as the node knows.
    pub(crate) members: Addresses,
    /// The members of any group that the node is connected to.
    pub(crate) reached: BTreeSet<u64>,
    /// Index of the entry of group 0 that these members come from, if it is applied.
    pub(crate) configured_at: Option<u64>,
    /// The groups in the order of their numbers.
    pub(crate) groups: Vec<GroupReport>,
}

/// What a node reports of one of its groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupReport {
    pub(crate) leader: Option<u64>,
    pub(crate) term: u64,
    /// Index of the last entry in the node's log.
    pub(crate) last: Option<u64>,
    /// Index of the last entry that is applied on the node.
    pub(crate) applied: Option<u64>,
    /// What only the leader knows; `None` if the node does not lead the group.
    pub(crate) led: Option<LedReport>,
}

/// What a node reports of a group that it leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LedReport {
    /// Whether the leader is connected to a majority of the voters.
    pub(crate) has_quorum: bool,
    /// The other members that the leader is connected to, with the index of the last entry that each is known to have.
    pub(crate) reached: BTreeMap<u64, u64>,
}

impl NodeReport {
    /// Returns whether the node belongs to a cluster whose groups have had a leader.
    pub(crate) fn is_established(&self) -> bool {
        let has_begun = self.groups.first().is_some_and(|group| group.last >= Some(FIRST_OF_LEADER));
        self.stage == MemberStage::Member && has_begun
    }

    pub(crate) fn group(&self, group: GroupId) -> Option<&GroupReport> {
        self.groups.get(usize::from(group))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, self.stage as u8, self.is_leaving.into(), self.is_full.into()];
        founders::put_text(&mut out, &self.name);
        founders::put_text(&mut out, &self.address);
        for addresses in [&self.founders, &self.proposal] {
            out.put_u8(addresses.is_some().into());
            addresses.iter().for_each(|addresses| founders::put(&mut out, addresses));
        }
        founders::put(&mut out, &self.members);
        out.put_u8(self.reached.len().min(REACHED_MAX) as u8);
        self.reached.iter().take(REACHED_MAX).for_each(|node| out.put_u64_le(*node));
        put_number(&mut out, self.configured_at);
        out.put_u8(self.groups.len() as u8);
        for GroupReport { leader, term, last, applied, led } in &self.groups {
            put_number(&mut out, *leader);
            out.put_u64_le(*term);
            put_number(&mut out, *last);
            put_number(&mut out, *applied);
            out.put_u8(led.is_some().into());
            let Some(LedReport { has_quorum, reached }) = led else { continue };
            out.put_u8((*has_quorum).into());
            out.put_u8(reached.len().min(founders::MEMBERS_MAX) as u8);
            for (node, index) in reached.iter().take(founders::MEMBERS_MAX) {
                out.put_u64_le(*node);
                out.put_u64_le(*index);
            }
        }
        out
    }

    /// Decodes a report; returns `None` if it has another version or is malformed.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (&version, mut rest) = bytes.split_first()?;
        (version == VERSION).then_some(())?;
        let bytes = &mut rest;
        let report = Self {
            stage: stage(bytes.try_get_u8().ok()?)?,
            is_leaving: take_flag(bytes)?,
            is_full: take_flag(bytes)?,
            name: founders::take_text(bytes)?,
            address: founders::take_text(bytes)?,
            founders: take_addresses(bytes)?,
            proposal: take_addresses(bytes)?,
            members: founders::take(bytes)?,
            reached: (0..bytes.try_get_u8().ok()?).map(|_| bytes.try_get_u64_le().ok()).collect::<Option<_>>()?,
            configured_at: take_number(bytes)?,
            groups: (0..bytes.try_get_u8().ok()?).map(|_| take_group(bytes)).collect::<Option<_>>()?,
        };
        rest.is_empty().then_some(report)
    }
}

fn stage(number: u8) -> Option<MemberStage> {
    use MemberStage::{Empty, Founding, Joining, Member, Removed};
    [Empty, Founding, Joining, Member, Removed].into_iter().find(|stage| *stage as u8 == number)
}

fn put_number(out: &mut Vec<u8>, number: Option<u64>) {
    out.put_u8(number.is_some().into());
    number.iter().for_each(|number| out.put_u64_le(*number));
}

fn take_number(bytes: &mut &[u8]) -> Option<Option<u64>> {
    Some(if take_flag(bytes)? { Some(bytes.try_get_u64_le().ok()?) } else { None })
}

fn take_flag(bytes: &mut &[u8]) -> Option<bool> {
    match bytes.try_get_u8().ok()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn take_addresses(bytes: &mut &[u8]) -> Option<Option<Addresses>> {
    Some(if take_flag(bytes)? { Some(founders::take(bytes)?) } else { None })
}

fn take_group(bytes: &mut &[u8]) -> Option<GroupReport> {
    let (leader, term) = (take_number(bytes)?, bytes.try_get_u64_le().ok()?);
    let (last, applied) = (take_number(bytes)?, take_number(bytes)?);
    if !take_flag(bytes)? {
        return Some(GroupReport { leader, term, last, applied, led: None });
    }
    let has_quorum = take_flag(bytes)?;
    let count = bytes.try_get_u8().ok()?;
    let member = |_| Some((bytes.try_get_u64_le().ok()?, bytes.try_get_u64_le().ok()?));
    let reached = (0..count).map(member).collect::<Option<_>>()?;
    Some(GroupReport { leader, term, last, applied, led: Some(LedReport { has_quorum, reached }) })
}

const VERSION: u8 = 2;
/// The most nodes of which a report says that they are reached: more than a cluster has, also while its members change.
const REACHED_MAX: usize = 64;
/// Index of the first entry that a leader writes: the one before it has the founders.
const FIRST_OF_LEADER: u64 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_decoded_and_malformed_ones_refused() {
        let addresses = Addresses::from([(1, "a:1".to_owned()), (2, "b:2".to_owned())]);
        let led = LedReport { has_quorum: true, reached: [(2, 9), (3, 7)].into() };
        let group = GroupReport { leader: Some(1), term: 4, last: Some(9), applied: Some(8), led: Some(led) };
        let report = NodeReport {
            stage: MemberStage::Member,
            is_leaving: true,
            is_full: true,
            name: "leveret@a".to_owned(),
            address: "a:1".to_owned(),
            founders: Some(addresses.clone()),
            proposal: None,
            members: addresses,
            reached: [2, 7].into(),
            configured_at: Some(3),
            groups: vec![group, GroupReport::default()],
        };
        let bytes = report.encode();
        assert_eq!(NodeReport::decode(&bytes), Some(report.clone()));
        assert!(report.is_established());
        for len in 0..bytes.len() {
            assert_eq!(NodeReport::decode(&bytes[..len]), None, "{len}");
        }
        assert_eq!(NodeReport::decode(&[&bytes[..], &[0]].concat()), None);
        let other = NodeReport::default();
        assert_eq!(NodeReport::decode(&other.encode()), Some(other.clone()));
        assert!(!other.is_established());
    }
}
