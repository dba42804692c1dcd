//! The types that openraft is used with, and the encoding of a group's members.
use bytes::{Buf, Bytes};
use leveret_journal::RecordPlace;
use openraft::entry::RaftEntry;
use openraft::impls::leader_id_std::LeaderId;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The content of a normal log entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) bytes: Bytes,
    /// The place of the bytes in the journal. Only set in an entry that was read from the log.
    pub(crate) place: RecordPlace,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes.len())
    }
}

#[cfg(not(feature = "simulated"))]
type Runtime = openraft::impls::TokioRuntime;
#[cfg(feature = "simulated")]
type Runtime = crate::simulated::SimulatedRuntime;

openraft::declare_raft_types!(pub(crate) TypeConfig:
    D = Command,
    R = (),
    NodeId = u64,
    Node = openraft::EmptyNode,
    LeaderId = LeaderId<Self::Term, Self::NodeId>,
    AsyncRuntime = Runtime,
);

pub(crate) type Entry = openraft::alias::EntryOf<TypeConfig>;
pub(crate) type LogId = openraft::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::alias::VoteOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<u64, openraft::EmptyNode>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;

pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: openraft::alias::CommittedLeaderIdOf::<TypeConfig>::new(term), index }
}

pub(crate) fn vote(term: u64, node: u64, committed: bool) -> Vote {
    Vote { leader_id: LeaderId { term, voted_for: node }, committed }
}

pub(crate) fn entry(id: LogId, payload: openraft::EntryPayload<Command, u64, openraft::EmptyNode>) -> Entry {
    let mut entry: Entry = openraft::Entry { log_id: id, payload };
    entry.set_log_id(id);
    entry
}

/// Encodes the members of a group: the number of configurations (u8); for each the number of its voters (u8) and their
/// node ids (u64); then the number of all members (u8) and their node ids (u64). Little-endian.
pub(crate) fn encode_membership(membership: &Membership) -> Vec<u8> {
    let mut bytes = vec![membership.get_joint_config().len() as u8];
    for config in membership.get_joint_config() {
        bytes.push(config.len() as u8);
        config.iter().for_each(|id| bytes.extend_from_slice(&id.to_le_bytes()));
    }
    bytes.push(membership.nodes().count() as u8);
    membership.nodes().for_each(|(id, _)| bytes.extend_from_slice(&id.to_le_bytes()));
    bytes
}

/// Decodes the result of [`encode_membership`] and removes it from the beginning of `bytes`. Returns `None` if the
/// bytes cannot be decoded.
pub(crate) fn decode_membership(bytes: &mut &[u8]) -> Option<Membership> {
    let mut configs = Vec::new();
    for _ in 0..bytes.try_get_u8().ok()? {
        let ids: Result<BTreeSet<u64>, _> = (0..bytes.try_get_u8().ok()?).map(|_| bytes.try_get_u64_le()).collect();
        configs.push(ids.ok()?);
    }
    let nodes: Option<BTreeMap<u64, openraft::EmptyNode>> =
        (0..bytes.try_get_u8().ok()?).map(|_| Some((bytes.try_get_u64_le().ok()?, openraft::EmptyNode {}))).collect();
    Membership::new(configs, nodes?).ok()
}
