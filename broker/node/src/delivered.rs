//! Up to where each durable queue had been delivered when the node was stopped in order: what came after was delivered to
//! nobody, and is not marked as redelivered after the next start.
//!
//! Deliveries are not logged. So this is a file of its own, `delivered`, which is there between a stop in order and the next
//! start alone: `version u8 = 1`, then of each queue `uid u64, sequence u64`, little-endian; a checksum of all follows
//! (journal's `write_whole`). Without it everything counts as delivered.
use crate::queue::QueueId;
use bytes::{Buf, BufMut};
use leveret_journal::{Disk, read_whole, write_whole};
use std::collections::HashMap;
use std::io;

/// The first sequence of each queue that was delivered to nobody.
pub(crate) type Delivered = HashMap<QueueId, u64>;

pub(crate) fn write(disk: &dyn Disk, queues: impl Iterator<Item = (QueueId, u64)>) -> io::Result<()> {
    let mut bytes = vec![VERSION];
    for (queue, below) in queues {
        bytes.put_u64_le(queue.0);
        bytes.put_u64_le(below);
    }
    write_whole(disk, NAME, &[&bytes])
}

/// Reads the file, which is gone afterwards: from then on deliveries are made that it does not know of. One that is damaged or
/// of a later version says nothing.
///
/// # Errors
/// The disk's, if the file is there and does not go.
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
    fn it_is_read_once_and_damage_says_nothing() {
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
