//! The state of a group as a file: `version u8, has a log id u8, term u64, index u64, members (see types), log id of the members
//! likewise`, then the state as [`Applied`](crate::Applied) gave it; a checksum of all follows (journal's `write_whole`).
use crate::GroupId;
use crate::types::{self, LogId, StoredMembership};
use leveret_journal::{Disk, read_whole, write_whole};
use std::io;

/// A snapshot as it was read.
pub(crate) struct Stored {
    pub(crate) last: Option<LogId>,
    pub(crate) membership: StoredMembership,
    pub(crate) state: Vec<u8>,
}

pub(crate) fn write(
    disk: &dyn Disk,
    group: GroupId,
    last: Option<LogId>,
    membership: &StoredMembership,
    state: &[u8],
) -> io::Result<()> {
    let mut bytes = vec![VERSION];
    put(&mut bytes, last);
    put(&mut bytes, *membership.log_id());
    bytes.extend_from_slice(&types::encode_membership(membership.membership()));
    write_whole(disk, &file_name(group), &[&bytes, state])
}

pub(crate) fn read(disk: &dyn Disk, group: GroupId) -> io::Result<Option<Stored>> {
    let Some(bytes) = read_whole(disk, &file_name(group))? else { return Ok(None) };
    let damaged =
        || io::Error::new(io::ErrorKind::InvalidData, format!("{} is of a version not known", file_name(group)));
    decode(bytes).map(Some).ok_or_else(damaged)
}

fn decode(mut bytes: Vec<u8>) -> Option<Stored> {
    let mut rest = &bytes[..];
    if types::take(&mut rest)? != VERSION {
        return None;
    }
    let (last, members_id) = (get(&mut rest)?, get(&mut rest)?);
    let membership = StoredMembership::new(members_id, types::decode_membership(&mut rest)?);
    let head = bytes.len() - rest.len();
    bytes.drain(..head); // in place: the state may be as large as the memory allows
    Some(Stored { last, membership, state: bytes })
}

fn put(bytes: &mut Vec<u8>, id: Option<LogId>) {
    bytes.push(u8::from(id.is_some()));
    let (term, index) = id.map_or((0, 0), |id| (id.leader_id.term, id.index));
    bytes.extend_from_slice(&term.to_le_bytes());
    bytes.extend_from_slice(&index.to_le_bytes());
}

fn get(bytes: &mut &[u8]) -> Option<Option<LogId>> {
    let has = types::take(bytes)?;
    let (term, index) = (types::take_long(bytes)?, types::take_long(bytes)?);
    Some((has == 1).then(|| types::log_id(term, index)))
}

/// Name of the file with the state of a group.
pub(crate) fn file_name(group: GroupId) -> String {
    format!("groups/{group}.snapshot")
}

const VERSION: u8 = 1;
