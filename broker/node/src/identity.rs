//! The identity of a node, and the size of its log's segments: the file `node`, which is made at the first start and kept
//! for ever.
//!
//! Format, integers little-endian: `version u8 = 3, node u64, segment_bytes u32, log made u8`; a checksum follows
//! (journal's `write_whole`). Files of earlier versions have no version field and are recognized by their length: version 2
//! has the other three fields, version 1 the first two of these.
use bytes::{Buf, BufMut};
use leveret_journal::{Disk, is_passing, read_whole, write_whole};
use std::io::{self, ErrorKind};

/// The contents of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeIdentity {
    /// The number of the node, which its log has too.
    pub(crate) node: u64,
    pub(crate) segment_bytes: u32,
    /// Set once the log was opened: from then on a missing log means that it was lost.
    pub(crate) log_made: bool,
}

impl NodeIdentity {
    /// Reads the file; returns `None` if it does not exist.
    ///
    /// # Errors
    /// The error of the disk, or `InvalidData` if the version of the file is not known.
    pub(crate) fn read(disk: &dyn Disk) -> io::Result<Option<Self>> {
        let Some(bytes) = read_whole(disk, NAME)? else { return Ok(None) };
        let identity = decode(&bytes).ok_or_else(|| {
            let text = format!("an identity of {} bytes is of no version that is known", bytes.len());
            io::Error::new(ErrorKind::InvalidData, text)
        })?;
        Ok(Some(identity))
    }

    /// Writes the file.
    ///
    /// # Errors
    /// The error of the disk.
    pub(crate) fn write(&self, disk: &dyn Disk) -> io::Result<()> {
        let mut bytes = vec![VERSION];
        bytes.put_u64_le(self.node);
        bytes.put_u32_le(self.segment_bytes);
        bytes.put_u8(self.log_made.into());
        write_whole(disk, NAME, &[&bytes])
    }

    /// Notes in the file that the log was opened. On a full disk this is done at a later start.
    ///
    /// # Errors
    /// The error of the disk, unless it may pass.
    pub(crate) fn log_is_made(self, disk: &dyn Disk) -> io::Result<()> {
        if self.log_made {
            return Ok(());
        }
        match (Self { log_made: true, ..self }).write(disk) {
            Err(error) if is_passing(&error) => {
                tracing::warn!(%error, "the file 'node' cannot be written for now");
                Ok(())
            }
            written => written,
        }
    }
}

fn decode(mut bytes: &[u8]) -> Option<NodeIdentity> {
    let has_log_made = match bytes.len() {
        12 => false,
        13 => true,
        _ if bytes.try_get_u8().ok()? == VERSION => true,
        _ => return None,
    };
    let (node, segment_bytes) = (bytes.try_get_u64_le().ok()?, bytes.try_get_u32_le().ok()?);
    let log_made = has_log_made && bytes.try_get_u8().ok()? == 1;
    bytes.is_empty().then_some(NodeIdentity { node, segment_bytes, log_made })
}

const NAME: &str = "node";
const VERSION: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use leveret_journal::faulty::FaultyDisk;

    #[test]
    fn identities_of_all_versions_are_read() {
        let identity = NodeIdentity { node: 0x0807_0605_0403_0201, segment_bytes: 64 << 20, log_made: false };
        let made = NodeIdentity { log_made: true, ..identity };
        for (bytes, expected) in [
            (&b"\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\x04"[..], Some(identity)),
            (b"\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\x04\0", Some(identity)),
            (b"\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\x04\x01", Some(made)),
            (b"\x03\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\x04\x01", Some(made)),
            (b"\x04\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\x04\x01", None),
            (b"\x03\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\x04\x01\0", None),
            (b"", None),
        ] {
            assert_eq!(decode(bytes), expected, "{}", bytes.escape_ascii());
        }
        let disk = FaultyDisk::new(1);
        assert_eq!(NodeIdentity::read(&disk).unwrap(), None);
        made.write(&disk).unwrap();
        let golden = b"\x03\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\x04\x01";
        assert_eq!(read_whole(&disk, NAME).unwrap().as_deref(), Some(&golden[..]));
        assert_eq!(NodeIdentity::read(&disk).unwrap(), Some(made));
        write_whole(&disk, NAME, &[b"\x04"]).unwrap();
        assert_eq!(NodeIdentity::read(&disk).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
