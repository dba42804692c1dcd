//! Sends a snapshot to another replica: its head, then its state in parts, each of which is acknowledged, then the end.
//! A transfer that breaks off goes on where it was: the receiver says what it has.
use crate::link::Lane;
use crate::remote::{PeerNetwork, ReplicaError};
use crate::snapshot_data::{SnapshotData, WholeSnapshot};
use crate::types::Vote;
use crate::wire::{self, SnapshotHead};
use bytes::Bytes;
use std::io;
use std::time::Duration;

/// The reasons why a snapshot is not sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendSnapshotError {
    #[error("the snapshot cannot be read: {0}")]
    Disk(#[from] io::Error),
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    #[error("the log does not continue the snapshot on the disk")]
    Chain,
    #[error("node {0} asks for bytes that the snapshot does not have")]
    Offset(u64),
}

/// Sends a snapshot and waits until it is installed. Returns the vote of the receiver.
pub(crate) async fn send(network: &PeerNetwork, vote: Vote, snapshot: SnapshotData) -> Result<Vote, SendSnapshotError> {
    let WholeSnapshot { last, membership, state, chain } = snapshot.load().await?;
    let chain = chain.ok_or(SendSnapshotError::Chain)?;
    let state = Bytes::from(state);
    let (bytes, crc) = (state.len() as u64, crc32fast::hash(&state));
    let head = SnapshotHead { vote, last, chain, membership, bytes, crc };
    let began = wire::encode_snapshot_head(&head);
    let mut offset = call(network, wire::SNAPSHOT_BEGIN, vec![began], PART_MAX, offset).await?;
    let (group, target) = (network.log.group, network.target);
    tracing::info!(group, "sending a snapshot of {bytes} bytes to node {target}, from byte {offset} on");
    while offset < bytes {
        let end = bytes.min(offset + PART_BYTES);
        let part = state.slice(offset as usize..end as usize);
        let next = call(network, wire::SNAPSHOT_PART, vec![wire::encode_offset(offset), part], PART_MAX, self::offset);
        let next = next.await?;
        if next <= offset {
            return Err(SendSnapshotError::Offset(target));
        }
        offset = next;
    }
    if offset > bytes {
        return Err(SendSnapshotError::Offset(target));
    }
    Ok(call(network, wire::SNAPSHOT_END, Vec::new(), INSTALL_MAX, wire::decode_vote).await?)
}

fn offset(mut body: Bytes) -> Option<u64> {
    wire::decode_offset(&mut body)
}

async fn call<T>(
    network: &PeerNetwork,
    kind: u8,
    parts: Vec<Bytes>,
    answer_max: Duration,
    decode: impl FnOnce(Bytes) -> Option<T>,
) -> Result<T, ReplicaError> {
    let mut answer = network.send(Lane::Snapshot, kind, parts).await?;
    network.answer(&mut answer, answer_max, decode).await
}

/// Bytes of one part.
const PART_BYTES: u64 = 256 << 10;
/// The longest time that a receiver may take for one part.
const PART_MAX: Duration = Duration::from_secs(10);
/// The longest time that a receiver may take to install a snapshot.
const INSTALL_MAX: Duration = Duration::from_secs(600);
