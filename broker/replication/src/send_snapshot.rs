//! Sends a snapshot to another replica: its head, then its state in parts, each of which is acknowledged, then the
//! contents that the receiver wants, then the end. A transfer that breaks off goes on where it was: the receiver says what
//! it has, and what it wants.
//!
//! The contents are not kept for the transfer. What is not here any more was settled by an entry that follows on the
//! snapshot, which the receiver will apply, too.
use crate::ContentsPart;
use crate::link::{Lane, PendingAnswer};
use crate::remote::{PeerNetwork, ReplicaError};
use crate::snapshot_data::{SnapshotData, WholeSnapshot};
use crate::types::Vote;
use crate::wire::{self, SnapshotHead};
use bytes::Bytes;
use std::collections::VecDeque;
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
    #[error("node {0:016x} asks for bytes that the snapshot does not have")]
    Offset(u64),
    #[error("the contents cannot be read: {0}")]
    Contents(String),
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
    tracing::info!(group, "sending a snapshot of {bytes} bytes to node {target:016x}, from byte {offset} on");
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
    send_contents(network).await?;
    Ok(call(network, wire::SNAPSHOT_END, Vec::new(), INSTALL_MAX, wire::decode_vote).await?)
}

/// Sends the contents that the receiver wants until it has all of them.
async fn send_contents(network: &PeerNetwork) -> Result<(), SendSnapshotError> {
    let (group, states) = (network.log.group, &network.log.leadership.states);
    loop {
        let mut wanted = call(network, wire::CONTENTS_WANTED, Vec::new(), PART_MAX, Some).await?;
        if wanted.is_empty() {
            return Ok(());
        }
        let mut sent = VecDeque::<PendingAnswer>::new();
        while !wanted.is_empty() || !sent.is_empty() {
            if (wanted.is_empty() || sent.len() == WINDOW)
                && let Some(mut oldest) = sent.pop_front()
            {
                network.answer(&mut oldest, PART_MAX, |_| Some(())).await?;
                continue;
            }
            let before = wanted.len();
            let ContentsPart { part, later } =
                states.read_contents(group, wanted).await.map_err(SendSnapshotError::Contents)?;
            if later.len() >= before {
                return Err(SendSnapshotError::Offset(network.target));
            }
            wanted = later;
            sent.push_back(network.send(Lane::Snapshot, wire::CONTENTS_PART, vec![part]).await?);
        }
    }
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

/// The most parts of the contents that are on their way at a time.
const WINDOW: usize = 3;
/// Bytes of one part.
const PART_BYTES: u64 = 256 << 10;
/// The longest time that a receiver may take for one part.
const PART_MAX: Duration = Duration::from_secs(30);
/// The longest time that a receiver may take to install a snapshot.
const INSTALL_MAX: Duration = Duration::from_secs(600);
