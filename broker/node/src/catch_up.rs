//! Brings contents from a node that sends its snapshot to one that lacks entries which were purged. The receiver says which
//! runs it wants; the sender reads them wherever they lie on its disk by now.
//!
//! The sender keeps nothing for the transfer. A run that it does not have any more was settled, or its queue deleted, by an
//! entry that follows on the snapshot and is agreed on: the receiver applies that entry before it may lead the shard, and no
//! leader grants the run's messages to it. Until then the run is absent there (see `contents`).
use crate::Node;
use crate::archive;
use crate::arrivals;
use crate::files::disk_free_min;
use bytes::Bytes;
use leveret_engine::queue::RunName;
use leveret_replication::{ContentsPart, GroupId};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// Writes contents that have arrived to the archive, and notes where they lie.
///
/// # Errors
/// The node is starting, or its disk failed or has little room.
pub(crate) async fn keep_arrived(
    node: Arc<Node>,
    group: GroupId,
    runs: BTreeMap<RunName, Bytes>,
) -> Result<(), String> {
    let storage = node.storage.get().ok_or(STARTING)?;
    if runs.is_empty() {
        return Ok(());
    }
    let (groups, shards, archive_next) = (&storage.groups, &storage.shards, &storage.archive_next);
    let (journal, next) = (groups.journal().clone(), archive_next.clone());
    let written = storage.off_thread(move || {
        let disk = &**journal.disk();
        let bytes: u64 = runs.keys().map(|name| u64::from(name.len)).sum();
        if disk.free_bytes()? < disk_free_min(journal.segment_bytes()) + bytes {
            return Err(io::Error::other("the disk has no room for contents of another node"));
        }
        let number = archive::free_number(disk, &next)?;
        Ok((number, arrivals::write(disk, number, group, runs)?))
    });
    let (number, places) = written.await.map_err(|error| error.to_string())?;
    let bytes = places.values().map(|place| u64::from(place.len)).sum();
    shards.arrivals_of(group).written(&shards.files, number, places);
    shards.files.set_size(archive::ARCHIVE | number, bytes);
    Ok(())
}

/// Reads the first of the contents that a peer wants.
///
/// # Errors
/// The node is starting, the contents cannot be read at the moment, or what the peer says cannot be decoded.
pub(crate) async fn read_wanted(node: Arc<Node>, group: GroupId, wanted: &Bytes) -> Result<ContentsPart, String> {
    let storage = node.storage.get().ok_or(STARTING)?;
    let names = arrivals::first_wanted(wanted)?;
    let request = names.into_iter().map(|name| (0, name)).collect();
    let (runs, reading) = storage.shards.contents_of(group).locate(request, RECORD_BYTES_MAX);
    let (journal, taken) = (storage.groups.journal().clone(), runs.len());
    let read = storage.off_thread(move || {
        let part = arrivals::read_part(&journal, &runs);
        drop(reading);
        part
    });
    let part = read.await.map_err(|error| error.to_string())?;
    Ok(ContentsPart { part, later: arrivals::later_wanted(wanted, taken) })
}

const STARTING: &str = "the node is starting";
/// The most bytes of records that one part is read from, unless a single record is larger.
const RECORD_BYTES_MAX: u64 = 16 << 20;
