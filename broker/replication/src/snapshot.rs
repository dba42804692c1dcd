//! The snapshot file of a group.
//!
//! It holds `version u8 = 2`; the log id of the last entry that the snapshot covers: `1 if there is one u8, term u64, index
//! u64`; the log id of the entry that set the members, in the same form; the members (see
//! [`types::encode_membership`]); the two parts that [`GroupStates::snapshot`](crate::GroupStates::snapshot) returned:
//! `length of the state u64, state, local part`; and a checksum of all that (see [`write_whole`]). Integers are
//! little-endian. Version 1 had the state alone, without its length.
use crate::types::{self, LogId, StoredMembership};
use crate::{GroupId, GroupSnapshot};
use bytes::Buf;
use leveret_journal::{Disk, read_whole, write_whole};
use std::io;

/// A snapshot that was read from its file.
pub(crate) struct StoredSnapshot {
    /// The last entry that the snapshot covers.
    pub(crate) last: Option<LogId>,
    pub(crate) membership: StoredMembership,
    /// The encoded state of the group.
    pub(crate) snapshot: GroupSnapshot,
}

impl GroupSnapshot {
    /// Returns the length of both parts in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.state.len() + self.local.len()
    }
}

/// Replaces the snapshot file of a group atomically.
pub(crate) fn write(
    disk: &dyn Disk,
    group: GroupId,
    last: Option<LogId>,
    membership: &StoredMembership,
    GroupSnapshot { state, local }: &GroupSnapshot,
) -> io::Result<()> {
    let mut bytes = vec![VERSION];
    put(&mut bytes, last);
    put(&mut bytes, *membership.log_id());
    bytes.extend_from_slice(&types::encode_membership(membership.membership()));
    bytes.extend_from_slice(&(state.len() as u64).to_le_bytes());
    write_whole(disk, &file_name(group), &[&bytes, state, local])
}

/// Reads the snapshot file of a group. Returns `None` if there is none. The error is `InvalidData` if the file is
/// damaged or was written by a newer version.
pub(crate) fn read(disk: &dyn Disk, group: GroupId) -> io::Result<Option<StoredSnapshot>> {
    let Some(bytes) = read_whole(disk, &file_name(group))? else { return Ok(None) };
    let unknown =
        || io::Error::new(io::ErrorKind::InvalidData, format!("{} has an unknown format version", file_name(group)));
    decode(bytes).map(Some).ok_or_else(unknown)
}

fn decode(mut bytes: Vec<u8>) -> Option<StoredSnapshot> {
    let mut rest = &bytes[..];
    let version = rest.try_get_u8().ok()?;
    (1..=VERSION).contains(&version).then_some(())?;
    let (last, members_id) = (get(&mut rest)?, get(&mut rest)?);
    let membership = StoredMembership::new(members_id, types::decode_membership(&mut rest)?);
    let state_len = if version == 1 { rest.len() } else { usize::try_from(rest.try_get_u64_le().ok()?).ok()? };
    let head = bytes.len() - rest.len();
    bytes.drain(..head); // no second copy of the state, which may take much of the memory
    let local = (state_len <= bytes.len()).then(|| bytes.split_off(state_len))?;
    Some(StoredSnapshot { last, membership, snapshot: GroupSnapshot { state: bytes, local } })
}

fn put(bytes: &mut Vec<u8>, id: Option<LogId>) {
    bytes.push(u8::from(id.is_some()));
    let (term, index) = id.map_or((0, 0), |id| (id.leader_id.term, id.index));
    bytes.extend_from_slice(&term.to_le_bytes());
    bytes.extend_from_slice(&index.to_le_bytes());
}

fn get(bytes: &mut &[u8]) -> Option<Option<LogId>> {
    let has = bytes.try_get_u8().ok()?;
    let (term, index) = (bytes.try_get_u64_le().ok()?, bytes.try_get_u64_le().ok()?);
    Some((has == 1).then(|| types::log_id(term, index)))
}

/// Returns the name of a group's snapshot file.
pub(crate) fn file_name(group: GroupId) -> String {
    format!("groups/{group}.snapshot")
}

const VERSION: u8 = 2;
