//! Receives a snapshot from the leader of a group. What has arrived is kept while the connection is down, so that a
//! transfer goes on where it broke off; a replica receives one snapshot at a time. It is installed once all of the
//! contents that its state refers to are on the disk.
use crate::replica::{ArrivingSnapshot, Group};
use crate::snapshot_data::{SnapshotData, WholeSnapshot};
use crate::types::{TypeConfig, Vote};
use crate::wire::SnapshotHead;
use bytes::Bytes;
use openraft::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::async_runtime::watch::WatchReceiver;
use std::time::Duration;
use tokio::time::Instant;

/// Begins a transfer, or continues one that broke off. Returns how many bytes of the state are here already.
pub(crate) fn begin(group: &Group, from: u64, head: SnapshotHead) -> Result<u64, String> {
    if head.bytes > SNAPSHOT_BYTES_MAX {
        return Err(format!("a snapshot of {} bytes is too large", head.bytes));
    }
    check_room(group, head.bytes)?;
    let mut arriving = group.arriving.lock();
    let continued = arriving.take().filter(|arriving| {
        let known = &arriving.head;
        let same_state =
            (known.last, known.chain, known.bytes, known.crc) == (head.last, head.chain, head.bytes, head.crc);
        same_state && known.membership == head.membership
    });
    // The vote may have changed: another leader has the same snapshot only by chance, but then it may go on with it. The
    // contents are asked for anew, without those that are here: what had arrived may have been given up meanwhile.
    let state = continued.map(|arriving| arriving.state).unwrap_or_default();
    let len = state.len() as u64;
    *arriving = Some(ArrivingSnapshot { from, head, state, is_whole: false, since: Instant::now() });
    Ok(len)
}

/// Takes a part of the state. Returns how many bytes are here now; a part that does not follow on them is left out.
pub(crate) fn part(group: &Group, from: u64, offset: u64, bytes: &[u8]) -> Result<u64, String> {
    let mut arriving = group.arriving.lock();
    let arriving = arriving.as_mut().filter(|arriving| arriving.from == from).ok_or(NOT_BEGUN)?;
    let here = arriving.state.len() as u64;
    if offset == here {
        if bytes.len() as u64 > arriving.head.bytes - here {
            return Err("the snapshot is longer than was said".to_owned());
        }
        arriving.state.extend_from_slice(bytes);
        arriving.since = Instant::now();
    }
    Ok(arriving.state.len() as u64)
}

/// Returns which contents are to be sent next; nothing if all are here.
pub(crate) async fn wanted(group: &Group, from: u64) -> Result<Bytes, String> {
    let states = &group.log.leadership.states;
    {
        let mut arriving = group.arriving.lock();
        let arriving = arriving.as_mut().filter(|arriving| arriving.from == from).ok_or(NOT_BEGUN)?;
        if !arriving.is_whole {
            let ArrivingSnapshot { head, state, .. } = &*arriving;
            if state.len() as u64 != head.bytes || crc32fast::hash(state) != head.crc {
                arriving.state = Vec::new();
                return Err("the snapshot did not arrive intact".to_owned());
            }
            states.begin_contents(group.log.group, state)?;
            arriving.is_whole = true;
        }
    }
    states.wanted_contents(group.log.group).await
}

/// Takes a part of the contents.
pub(crate) async fn contents(group: &Group, from: u64, part: Bytes) -> Result<(), String> {
    let is_begun = group.arriving.lock().as_ref().is_some_and(|arriving| arriving.from == from && arriving.is_whole);
    if !is_begun {
        return Err(NOT_BEGUN.to_owned());
    }
    group.log.leadership.states.take_contents(group.log.group, part).await
}

/// Ends the transfer and installs the snapshot. Returns the vote of this replica.
pub(crate) async fn end(group: &Group, from: u64) -> Result<Vote, String> {
    let arrived = group.arriving.lock().take_if(|arriving| arriving.from == from && arriving.is_whole);
    let ArrivingSnapshot { head, state, .. } = arrived.ok_or(NOT_BEGUN)?;
    if !group.log.leadership.states.has_contents(group.log.group) {
        return Err("not all contents of the snapshot are here".to_owned());
    }
    check_room(group, state.len() as u64)?;
    let committed = group.raft.metrics().borrow_watched().local_committed;
    if committed.is_some_and(|committed| committed < head.last && head.last.index <= committed.index) {
        return Err(group.stop_diverged(head.last.index));
    }
    let (last, chain) = (head.last, Some(head.chain));
    let meta = SnapshotMetaOf::<TypeConfig> { last_log_id: Some(last), last_membership: head.membership.clone() };
    let whole = WholeSnapshot { last, membership: head.membership, state, chain };
    let snapshot = SnapshotOf::<TypeConfig, SnapshotData> { meta, snapshot: SnapshotData::Received(whole) };
    let installed = group.raft.install_full_snapshot(head.vote, snapshot).await;
    installed.map(|response| response.vote).map_err(|error| error.to_string())
}

/// Forgets a state that arrived and did not get further for long.
pub(crate) fn end_if_idle(group: &Group) {
    drop(group.arriving.lock().take_if(|arriving| !arriving.is_whole && arriving.since.elapsed() >= IDLE_MAX));
}

/// Checks that the disk has room for a snapshot with a state of `bytes` bytes. Once openraft installs it, it has to be
/// written. Beside the state it says where the contents lie, and the snapshot before it is still there.
fn check_room(group: &Group, bytes: u64) -> Result<(), String> {
    let needed = bytes * 2 + SPARE_BYTES;
    match group.log.journal.disk().free_bytes() {
        Ok(free) if free < needed => {
            Err(format!("the disk has no room for a snapshot: {free} of {needed} bytes are free"))
        }
        _ => Ok(()),
    }
}

/// What has arrived of a state is kept for this time without progress.
const IDLE_MAX: Duration = Duration::from_mins(10);
const NOT_BEGUN: &str = "no snapshot is arriving from this node";
/// The free space that is left beside a snapshot, in bytes, for what others write meanwhile.
const SPARE_BYTES: u64 = 4 << 20;
/// The largest state that is received.
const SNAPSHOT_BYTES_MAX: u64 = 2 << 30;
