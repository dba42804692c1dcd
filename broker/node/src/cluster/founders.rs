//! The nodes that formed the cluster: the file `founders`, which a node writes before it gives any group its first
//! members.
//!
//! A node that has the file has promised to be a member of this cluster and of no other, so two different sets of
//! founders can never both get a majority. If the node ends before all groups have their members, it goes on at the next
//! start. The file is kept: founders that were not reached in time learn from it that they are meant.
//!
//! Format, integers little-endian: `version u8 = 1, number of nodes u8; for each its identity u64, the length of its
//! address u16, the address in UTF-8`; a checksum follows (journal's `write_whole`).
use bytes::{Buf, BufMut};
use leveret_journal::{Disk, read_whole, write_whole};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};

/// Nodes by their identity, each with the address at which others reach it.
pub(crate) type Addresses = BTreeMap<u64, String>;

/// Reads the file; returns `None` if it does not exist.
///
/// # Errors
/// The error of the disk, or `InvalidData` if the file cannot be decoded.
pub(crate) fn read(disk: &dyn Disk) -> io::Result<Option<Addresses>> {
    let Some(bytes) = read_whole(disk, NAME)? else { return Ok(None) };
    let decoded = bytes.split_first().filter(|(version, _)| **version == VERSION).and_then(|(_, rest)| {
        let mut rest = rest;
        take(&mut rest).filter(|_| rest.is_empty())
    });
    let wrong = || io::Error::new(ErrorKind::InvalidData, "the founders are of no version that is known");
    decoded.map(Some).ok_or_else(wrong)
}

/// Writes the file.
///
/// # Errors
/// The error of the disk.
pub(crate) fn write(disk: &dyn Disk, founders: &Addresses) -> io::Result<()> {
    let mut bytes = vec![VERSION];
    put(&mut bytes, founders);
    write_whole(disk, NAME, &[&bytes])
}

/// Appends addresses, of which there are at most [`MEMBERS_MAX`].
pub(crate) fn put(out: &mut Vec<u8>, addresses: &Addresses) {
    out.put_u8(addresses.len().min(MEMBERS_MAX) as u8);
    for (node, address) in addresses.iter().take(MEMBERS_MAX) {
        out.put_u64_le(*node);
        put_text(out, address);
    }
}

/// Removes the addresses that [`put`] has written from the beginning of `bytes`. Returns `None` if they are malformed.
pub(crate) fn take(bytes: &mut &[u8]) -> Option<Addresses> {
    let count = usize::from(bytes.try_get_u8().ok()?);
    if count > MEMBERS_MAX {
        return None;
    }
    (0..count).map(|_| Some((bytes.try_get_u64_le().ok()?, take_text(bytes)?))).collect()
}

/// Appends a text, cut to [`TEXT_MAX`] bytes.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    let cut = &text[..text.floor_char_boundary(TEXT_MAX)];
    out.put_u16_le(cut.len() as u16);
    out.put_slice(cut.as_bytes());
}

/// Removes a text from the beginning of `bytes`. Returns `None` if it is malformed.
pub(crate) fn take_text(bytes: &mut &[u8]) -> Option<String> {
    let len = usize::from(bytes.try_get_u16_le().ok()?);
    let (text, rest) = bytes.split_at_checked(len).filter(|_| len <= TEXT_MAX)?;
    *bytes = rest;
    String::from_utf8(text.to_vec()).ok()
}

/// The most members of a cluster.
pub(crate) const MEMBERS_MAX: usize = 15;
/// The longest text in bytes, for instance an address.
pub(crate) const TEXT_MAX: usize = 1024;
const NAME: &str = "founders";
const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use leveret_journal::faulty::FaultyDisk;

    #[test]
    fn founders_are_kept_and_damaged_ones_refused() {
        let disk = FaultyDisk::new(1);
        assert_eq!(read(&disk).unwrap(), None);
        let founders = Addresses::from([(3, "a:1".to_owned()), (u64::MAX, "[::1]:25672".to_owned())]);
        write(&disk, &founders).unwrap();
        assert_eq!(read(&disk).unwrap(), Some(founders.clone()));
        let mut bytes = Vec::new();
        put(&mut bytes, &founders);
        for len in 0..bytes.len() {
            assert_eq!(take(&mut &bytes[..len]), None, "{len}");
        }
        for wrong in [&b"\x02\0"[..], b"\x01\0\0", b"", b"\x01\xff"] {
            write_whole(&disk, NAME, &[wrong]).unwrap();
            assert_eq!(read(&disk).unwrap_err().kind(), ErrorKind::InvalidData);
        }
    }
}
