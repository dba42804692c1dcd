//! The file `delivered`: how far each durable queue had been delivered when the node was stopped in order. Later messages
//! were delivered to nobody, and are not marked as redelivered after the next start.
//!
//! Deliveries are not logged, so this is a file of its own, which exists only between an orderly stop and the next start:
//! `version u8 = 2`, then `uid u64, sequence u64, term u64` for each queue, little-endian; a checksum of everything follows
//! (journal's `write_whole`). `term` is the one in which the node led the shard of the queue: if another node led it since,
//! that one may have delivered further messages. Version 1 has no terms, and comes from a node that was the only one.
//! Without the file every message counts as delivered.
use crate::queue::QueueId;
use bytes::{Buf, BufMut};
use leveret_journal::{Disk, read_whole, write_whole};
use std::collections::HashMap;
use std::io;

/// How far the queues had been delivered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Delivered(HashMap<QueueId, Reached>);

/// How far one queue had been delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reached {
    /// The sequence number of the first message that was delivered to nobody.
    pub(crate) below: u64,
    /// The term in which the node served the queue; `None` if it was the only node.
    pub(crate) term: Option<u64>,
}

impl Delivered {
    /// Returns the sequence number from which on no message of a queue was delivered before `term`, in which this node
    /// begins to serve the queue.
    pub(crate) fn below(&self, queue: QueueId, term: u64) -> u64 {
        let is_next = |reached: &&Reached| reached.term.is_none_or(|before| before.checked_add(1) == Some(term));
        self.0.get(&queue).filter(is_next).map_or(u64::MAX, |reached| reached.below)
    }
}

pub(crate) fn write(disk: &dyn Disk, queues: impl Iterator<Item = (QueueId, Reached)>) -> io::Result<()> {
    let mut bytes = vec![VERSION];
    for (queue, Reached { below, term }) in queues {
        bytes.put_u64_le(queue.0);
        bytes.put_u64_le(below);
        bytes.put_u64_le(term.unwrap_or_default());
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
        Ok(None) => return Ok(Delivered::default()),
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
    let (&version, mut rest) = bytes.split_first()?;
    (1..=VERSION).contains(&version).then_some(())?;
    let mut delivered = Delivered::default();
    while !rest.is_empty() {
        let (queue, below) = (QueueId(rest.try_get_u64_le().ok()?), rest.try_get_u64_le().ok()?);
        let term = if version == 1 { None } else { Some(rest.try_get_u64_le().ok()?) };
        delivered.0.insert(queue, Reached { below, term });
    }
    Some(delivered)
}

const NAME: &str = "delivered";
const VERSION: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use leveret_journal::faulty::FaultyDisk;

    fn reached(below: u64) -> Reached {
        Reached { below, term: Some(4) }
    }

    #[test]
    fn the_file_is_read_once_and_a_damaged_file_counts_as_empty() {
        let disk = FaultyDisk::new(1);
        let queues = || [(QueueId(7), reached(70)), (QueueId(9), reached(0))].into_iter();
        write(&disk, queues()).unwrap();
        assert_eq!(take(&disk).unwrap(), Delivered(queues().collect()));
        assert_eq!(take(&disk).unwrap(), Delivered::default());
        write(&disk, queues()).unwrap();
        disk.flip(NAME, 3);
        assert_eq!(take(&disk).unwrap(), Delivered::default());
        assert!(disk.open(NAME).is_err(), "it is gone all the same");
        write(&disk, queues()).unwrap();
        let bytes = read_whole(&disk, NAME).unwrap().unwrap();
        assert!((0..bytes.len()).all(|len| decode(&bytes[..len]).is_none_or(|part| part.0.len() < 2)));
    }

    #[test]
    fn what_was_delivered_counts_only_if_no_other_node_served_the_queue_since() {
        let delivered = Delivered([(QueueId(7), reached(70))].into_iter().collect());
        assert_eq!([4, 5, 6].map(|term| delivered.below(QueueId(7), term)), [u64::MAX, 70, u64::MAX]);
        assert_eq!(delivered.below(QueueId(8), 5), u64::MAX);
        let older = [&[1][..], &7u64.to_le_bytes(), &70u64.to_le_bytes()].concat();
        assert_eq!(decode(&older).unwrap().below(QueueId(7), 99), 70);
    }
}
