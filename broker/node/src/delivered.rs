//! The file `delivered`: how far each durable queue had been delivered when the node was stopped in order. Later messages
//! were delivered to nobody, and are not marked as redelivered after the next start.
//!
//! Deliveries are not logged, so this is a file of its own, which exists only between an orderly stop and the next start:
//! `version u8 = 1`, then `uid u64, sequence u64` for each queue, little-endian; a checksum of everything follows
//! (journal's `write_whole`). Without the file every message counts as delivered.
use crate::queue::QueueId;
use bytes::{Buf, BufMut};
use leveret_journal::{Disk, read_whole, write_whole};
use std::collections::HashMap;
use std::io;

/// For each queue, the sequence number of the first message that was delivered to nobody.
pub(crate) type Delivered = HashMap<QueueId, u64>;

pub(crate) fn write(disk: &dyn Disk, queues: impl Iterator<Item = (QueueId, u64)>) -> io::Result<()> {
    let mut bytes = vec![VERSION];
    for (queue, below) in queues {
        bytes.put_u64_le(queue.0);
        bytes.put_u64_le(below);
    }
    write_whole(disk, NAME, &[&bytes])
}

/// Reads the file and removes it, because deliveries made from now on are not in it. Returns an empty map if the file does
/// not exist, is damaged or has a later version.
///
/// # Errors
/// The error of the disk, if the file exists and cannot be removed.
pub(crate) fn take(disk: &dyn Disk) -> io::Result<Delivered> {
    let bytes = match read_whole(disk, NAME) {
        Ok(None) => return Ok(Delivered::new()),
        Ok(Some(bytes)) => bytes,
        Err(error) => {
            tracing::warn!(%error, "all messages are delivered as redelivered");
            Vec::new()
        }
    };
    disk.remove(NAME)?;
    disk.sync_folder("")?;
    Ok(decode(&bytes).unwrap_or_default())
}

fn decode(bytes: &[u8]) -> Option<Delivered> {
    let (&VERSION, mut rest) = bytes.split_first()? else { return None };
    let mut delivered = Delivered::new();
    while !rest.is_empty() {
        delivered.insert(QueueId(rest.try_get_u64_le().ok()?), rest.try_get_u64_le().ok()?);
    }
    Some(delivered)
}

const NAME: &str = "delivered";
const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use leveret_journal::faulty::FaultyDisk;

    #[test]
    fn the_file_is_read_once_and_a_damaged_file_counts_as_empty() {
        let disk = FaultyDisk::new(1);
        let queues = || [(QueueId(7), 70), (QueueId(9), 0)].into_iter();
        write(&disk, queues()).unwrap();
        assert_eq!(take(&disk).unwrap(), queues().collect());
        assert_eq!(take(&disk).unwrap(), Delivered::new());
        write(&disk, queues()).unwrap();
        disk.flip(NAME, 3);
        assert_eq!(take(&disk).unwrap(), Delivered::new());
        assert!(disk.open(NAME).is_err(), "it is gone all the same");
        write(&disk, queues()).unwrap();
        let bytes = read_whole(&disk, NAME).unwrap().unwrap();
        assert!((0..bytes.len()).all(|len| decode(&bytes[..len]).is_none_or(|part| part.len() < 2)));
    }
}
