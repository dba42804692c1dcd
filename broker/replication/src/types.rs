//! The types that openraft is used with, and the encoding of a group's members.
//!
//! The members of a group are encoded as `marker u8 = 255, version u8 = 2, number of configurations u8; for each the
//! number of its voters u8 and their node ids u64; number of all members u8; for each its node id u64, the length of its
//! address u16 and the address in UTF-8`. A member that is in no configuration is a learner. Two configurations are
//! a change of voters that is not finished. Version 1 has neither marker nor version nor addresses: it begins with the
//! number of configurations, which is never 255. Integers are little-endian.
//!
//! Members of which none has an address are encoded as version 1. So members that were decoded are encoded to the same
//! bytes again, which they have to be: the chain of the log covers these bytes, on every node.
use crate::responder::ProposalResponder;
use bytes::{Buf, Bytes};
use leveret_journal::RecordPlace;
use openraft::OptionalSend;
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
    /// What the leader that sent the entry says of it. Only set in an entry that came from a peer.
    pub(crate) sent: Option<SentSums>,
}

/// The checksums of an entry that came from a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SentSums {
    /// Chain of the entry in the log of the sender.
    pub(crate) chain: u32,
    /// CRC32 of the bytes, as the receiver calculated it.
    pub(crate) crc: u32,
}

impl Command {
    /// Returns the command of an entry that is not in the log yet.
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self { bytes, place: RecordPlace::default(), sent: None }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes.len())
    }
}

/// A member of a group: a voter or a learner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupMember {
    /// The address at which the member's node accepts links from other nodes. Empty if it was never told, as in a group
    /// whose only member is this node.
    pub address: String,
}

#[cfg(not(feature = "simulated"))]
type Runtime = openraft::impls::TokioRuntime;
#[cfg(feature = "simulated")]
type Runtime = crate::simulated::SimulatedRuntime;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TypeConfig;

impl openraft::RaftTypeConfig for TypeConfig {
    type D = Command;
    type R = ();
    type NodeId = u64;
    type Node = GroupMember;
    type Term = u64;
    type LeaderId = LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Command, u64, GroupMember>;
    type Entry = openraft::Entry<<Self::LeaderId as openraft::vote::RaftLeaderId>::Committed, Self::Payload>;
    type AsyncRuntime = Runtime;
    type Responder<T>
        = ProposalResponder<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

pub(crate) type Entry = openraft::alias::EntryOf<TypeConfig>;
pub(crate) type Payload = openraft::EntryPayload<Command, u64, GroupMember>;
pub(crate) type LogId = openraft::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::alias::VoteOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<u64, GroupMember>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;

pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: openraft::alias::CommittedLeaderIdOf::<TypeConfig>::new(term), index }
}

pub(crate) fn vote(term: u64, node: u64, committed: bool) -> Vote {
    Vote { leader_id: LeaderId { term, voted_for: node }, committed }
}

pub(crate) fn entry(id: LogId, payload: Payload) -> Entry {
    let mut entry: Entry = openraft::Entry { log_id: id, payload };
    entry.set_log_id(id);
    entry
}

/// Returns whether the only member of the group is one voter.
pub(crate) fn has_one_member(membership: &Membership) -> bool {
    membership.nodes().count() == 1 && membership.voter_ids().count() == 1
}

/// Encodes the members of a group as the head of this file describes.
pub(crate) fn encode_membership(membership: &Membership) -> Vec<u8> {
    let with_addresses = membership.nodes().any(|(_, member)| !member.address.is_empty());
    let mut bytes = if with_addresses { vec![MARKER, VERSION] } else { Vec::new() };
    bytes.push(membership.get_joint_config().len() as u8);
    for config in membership.get_joint_config() {
        bytes.push(config.len() as u8);
        config.iter().for_each(|id| bytes.extend_from_slice(&id.to_le_bytes()));
    }
    bytes.push(membership.nodes().count() as u8);
    for (id, member) in membership.nodes() {
        bytes.extend_from_slice(&id.to_le_bytes());
        if with_addresses {
            bytes.extend_from_slice(&(member.address.len() as u16).to_le_bytes());
            bytes.extend_from_slice(member.address.as_bytes());
        }
    }
    bytes
}

/// Decodes the result of [`encode_membership`] and removes it from the beginning of `bytes`. Returns `None` if the bytes cannot be decoded.
pub(crate) fn decode_membership(bytes: &mut &[u8]) -> Option<Membership> {
    let first = bytes.try_get_u8().ok()?;
    let with_addresses = first == MARKER;
    if with_addresses && bytes.try_get_u8().ok()? != VERSION {
        return None;
    }
    let configs_len = if with_addresses { bytes.try_get_u8().ok()? } else { first };
    let mut configs = Vec::new();
    for _ in 0..configs_len {
        let ids: Result<BTreeSet<u64>, _> = (0..bytes.try_get_u8().ok()?).map(|_| bytes.try_get_u64_le()).collect();
        configs.push(ids.ok()?);
    }
    let mut members = BTreeMap::new();
    for _ in 0..bytes.try_get_u8().ok()? {
        let id = bytes.try_get_u64_le().ok()?;
        let address = if with_addresses { decode_address(bytes)? } else { String::new() };
        members.insert(id, GroupMember { address });
    }
    Membership::new(configs, members).ok()
}

fn decode_address(bytes: &mut &[u8]) -> Option<String> {
    let len = usize::from(bytes.try_get_u16_le().ok()?);
    let (address, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    String::from_utf8(address.to_vec()).ok()
}

/// The first byte of encoded members that have addresses.
const MARKER: u8 = 255;
const VERSION: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_version_1_are_decoded_without_addresses() {
        let mut bytes = vec![1, 2];
        bytes.extend_from_slice(&7u64.to_le_bytes());
        bytes.extend_from_slice(&9u64.to_le_bytes());
        bytes.push(3);
        for id in [7u64, 8, 9] {
            bytes.extend_from_slice(&id.to_le_bytes());
        }
        bytes.push(77); // what follows
        let mut rest = &bytes[..];
        let membership = decode_membership(&mut rest).unwrap();
        assert_eq!(rest, [77]);
        assert_eq!(membership.voter_ids().collect::<Vec<_>>(), [7, 9]);
        assert_eq!(membership.learner_ids().collect::<Vec<_>>(), [8]);
        assert!(membership.nodes().all(|(_, member)| member.address.is_empty()));
        assert_eq!(
            encode_membership(&membership),
            bytes[..bytes.len() - 1],
            "the chain of old logs covers these bytes"
        );
    }

    #[test]
    fn no_members_of_version_1_are_decoded() {
        let mut rest = &[0, 0, 5][..];
        let membership = decode_membership(&mut rest).unwrap();
        assert_eq!((membership.nodes().count(), rest), (0, &[5][..]));
    }

    #[test]
    fn members_keep_their_addresses_and_a_cut_encoding_is_refused() {
        let member = |address: &str| GroupMember { address: address.to_owned() };
        let members = BTreeMap::from([(1, member("leveret-0.leveret:5680")), (2, member("")), (3, member("[::1]:9"))]);
        let membership = Membership::new(vec![[1, 2].into(), [1].into()], members).unwrap();
        let bytes = encode_membership(&membership);
        assert_eq!(decode_membership(&mut &bytes[..]), Some(membership));
        for len in 0..bytes.len() {
            assert_eq!(decode_membership(&mut &bytes[..len]), None, "{len}");
        }
    }
}
