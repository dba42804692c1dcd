//! The handshake with which each connection begins: both sides prove that they know the secret of the cluster, without
//! showing it.
//!
//! 1. The dialling side sends the hello: `magic "LVLK", version u8 = 1, lane u8, cluster u64, own node u64, expected node
//!    u64, boot u64, nonce 32 bytes`. In order to ask a question, a node may expect the node 0: whichever is there.
//! 2. The accepting side answers `0 u8, version u8, own node u64, boot u64, nonce 32 bytes, proof 32 bytes`, or refuses
//!    with the number of a [`RefusedLink`] (u8), padded with zeros to the same length.
//! 3. The dialling side sends `0 u8, proof 32 bytes`, or refuses in the same way.
//! 4. The accepting side sends `0 u8` or refuses, and frames follow.
//!
//! A proof is the HMAC-SHA256, with the secret as its key, of a label for the direction, the hello, and the answer
//! without its proof. It covers both nonces, so a proof of an earlier connection is worth nothing, and the label keeps
//! one side's proof from being sent back as the other's. Integers are little-endian. A node without a secret, which has
//! certificates instead (`tls`), proves that it knows the empty one. What follows the handshake is neither encrypted nor
//! authenticated by it: without TLS the secret keeps strangers out, not somebody who can change packets on the way.
use super::options::{Lane, PeersOptions};
use super::wires::Wire;
use bytes::{Buf, BufMut};
use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The other side of an authenticated connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OtherSide {
    pub(crate) node: u64,
    pub(crate) boot: u64,
    pub(crate) lane: Lane,
}

/// The reasons why one side refuses the other. The numbers are on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RefusedLink {
    #[error("the other side is no Leveret node, or one with another version of the protocol")]
    Version = 1,
    #[error("the other node belongs to another cluster")]
    Cluster = 2,
    #[error("the node at this address is not the one that was expected")]
    Node = 3,
    #[error("the other node does not know the secret of the cluster")]
    Secret = 4,
    #[error("the other node has the identity of this node")]
    Same = 5,
}

/// The reasons why a handshake fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("refused: {0}")]
    Refused(RefusedLink),
    #[error("the other side refuses: {0}")]
    RefusedByOther(RefusedLink),
    #[error("the other side sent something that is no handshake")]
    Malformed,
    #[error("the other side speaks TLS, and this node does not: it has no cluster_tls_cert")]
    SpeaksTls,
    #[error("the other side has closed the connection during the handshake")]
    Closed,
    #[error(transparent)]
    Wire(io::Error),
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Wire(error),
        }
    }
}

/// Shakes hands on a connection that this node has dialled in order to reach the node `expected`, or [`ANY_NODE`].
pub(crate) async fn dialled(
    wire: &mut Wire,
    options: &PeersOptions,
    lane: Lane,
    expected: u64,
) -> Result<OtherSide, HandshakeError> {
    let hello = hello(options, lane, expected);
    wire.writer.write_all(&hello).await?;
    wire.writer.flush().await?;
    let mut answer = [0; ANSWER];
    wire.reader.read_exact(&mut answer[..1]).await?;
    if answer[0] == TLS_ALERT {
        return Err(HandshakeError::SpeaksTls);
    }
    wire.reader.read_exact(&mut answer[1..]).await?;
    refused_by_other(answer[0])?;
    let (fields, proof) = answer.split_at(ANSWER - PROOF);
    let mut rest = &fields[1..];
    let version = rest.try_get_u8().map_err(|_| HandshakeError::Malformed)?;
    let node = rest.try_get_u64_le().map_err(|_| HandshakeError::Malformed)?;
    let boot = rest.try_get_u64_le().map_err(|_| HandshakeError::Malformed)?;
    let refused = if version != VERSION {
        Some(RefusedLink::Version)
    } else if node != expected && expected != ANY_NODE {
        Some(RefusedLink::Node)
    } else {
        let proven = mac(options, ACCEPTED_LABEL, &hello, fields).verify_slice(proof);
        proven.is_err().then_some(RefusedLink::Secret)
    };
    let mut reply = [0; REPLY];
    reply[0] = refused.map_or(0, |refused| refused as u8);
    if refused.is_none() {
        reply[1..].copy_from_slice(&mac(options, DIALLED_LABEL, &hello, fields).finalize().into_bytes());
    }
    wire.writer.write_all(&reply).await?;
    wire.writer.flush().await?;
    if let Some(refused) = refused {
        return Err(HandshakeError::Refused(refused));
    }
    refused_by_other(wire.reader.read_u8().await?)?;
    Ok(OtherSide { node, boot, lane })
}

/// Shakes hands on a connection that this node has accepted.
pub(crate) async fn accepted(wire: &mut Wire, options: &PeersOptions) -> Result<OtherSide, HandshakeError> {
    let mut hello = [0; HELLO];
    wire.reader.read_exact(&mut hello).await?;
    let mut answer = [0; ANSWER];
    let other = match check_hello(&hello, options) {
        Ok(other) => other,
        Err(refused) => {
            answer[0] = refused as u8;
            wire.writer.write_all(&answer).await?;
            wire.writer.flush().await?;
            let speaks_tls = hello.starts_with(&TLS_HANDSHAKE);
            return Err(if speaks_tls { HandshakeError::SpeaksTls } else { HandshakeError::Refused(refused) });
        }
    };
    let (fields, proof) = answer.split_at_mut(ANSWER - PROOF);
    let mut rest = &mut fields[1..];
    rest.put_u8(VERSION);
    rest.put_u64_le(options.node);
    rest.put_u64_le(options.boot);
    rest.put_slice(&rand::random::<[u8; NONCE]>());
    proof.copy_from_slice(&mac(options, ACCEPTED_LABEL, &hello, fields).finalize().into_bytes());
    wire.writer.write_all(&answer).await?;
    wire.writer.flush().await?;
    let mut reply = [0; REPLY];
    wire.reader.read_exact(&mut reply).await?;
    refused_by_other(reply[0])?;
    let proven = mac(options, DIALLED_LABEL, &hello, &answer[..ANSWER - PROOF]).verify_slice(&reply[1..]);
    let refused = proven.is_err().then_some(RefusedLink::Secret);
    wire.writer.write_all(&[refused.map_or(0, |refused| refused as u8)]).await?;
    wire.writer.flush().await?;
    refused.map_or(Ok(other), |refused| Err(HandshakeError::Refused(refused)))
}

fn hello(options: &PeersOptions, lane: Lane, expected: u64) -> [u8; HELLO] {
    let mut hello = [0; HELLO];
    let mut rest = &mut hello[..];
    rest.put_slice(MAGIC);
    rest.put_u8(VERSION);
    rest.put_u8(lane as u8);
    rest.put_u64_le(options.cluster);
    rest.put_u64_le(options.node);
    rest.put_u64_le(expected);
    rest.put_u64_le(options.boot);
    rest.put_slice(&rand::random::<[u8; NONCE]>());
    hello
}

fn check_hello(hello: &[u8; HELLO], options: &PeersOptions) -> Result<OtherSide, RefusedLink> {
    let mut rest = &hello[..];
    let magic = rest.split_off(..MAGIC.len());
    let version = rest.try_get_u8().map_err(|_| RefusedLink::Version)?;
    let lane = rest.try_get_u8().ok().and_then(Lane::of);
    let mut next = || rest.try_get_u64_le().map_err(|_| RefusedLink::Version);
    let (cluster, node, expected, boot) = (next()?, next()?, next()?, next()?);
    if magic != Some(MAGIC) || version != VERSION {
        return Err(RefusedLink::Version);
    }
    if cluster != options.cluster {
        return Err(RefusedLink::Cluster);
    }
    let lane = lane.ok_or(RefusedLink::Version)?;
    let asks = lane == Lane::Questions;
    if expected != options.node && !(asks && expected == ANY_NODE) {
        return Err(RefusedLink::Node);
    }
    // A node that asks itself has to find that out from somebody who knows the secret.
    if node == options.node && !asks {
        return Err(RefusedLink::Same);
    }
    Ok(OtherSide { node, boot, lane })
}

fn refused_by_other(number: u8) -> Result<(), HandshakeError> {
    use RefusedLink::{Cluster, Node, Same, Secret, Version};
    match number {
        0 => Ok(()),
        number => match [Version, Cluster, Node, Secret, Same].into_iter().find(|refused| *refused as u8 == number) {
            Some(refused) => Err(HandshakeError::RefusedByOther(refused)),
            None => Err(HandshakeError::Malformed),
        },
    }
}

fn mac(options: &PeersOptions, label: &[u8], hello: &[u8], answer: &[u8]) -> Hmac<Sha256> {
    let mut key = [0; KEY];
    match key.get_mut(..options.secret.len()) {
        Some(start) => start.copy_from_slice(&options.secret),
        None => key[..PROOF].copy_from_slice(&Sha256::digest(&options.secret)),
    }
    let mut mac = <Hmac<Sha256> as KeyInit>::new(&key.into());
    [label, hello, answer].iter().for_each(|part| mac.update(part));
    mac
}

/// Stands for whichever node is there.
pub(super) const ANY_NODE: u64 = 0;
/// The first byte with which a side that expects TLS complains about a hello of ours.
const TLS_ALERT: u8 = 21;
/// The first bytes of a connection on which TLS is spoken (RFC 8446, 5.1).
const TLS_HANDSHAKE: [u8; 2] = [22, 3];
const MAGIC: &[u8; 4] = b"LVLK";
const VERSION: u8 = 1;
const NONCE: usize = 32;
const PROOF: usize = 32;
/// Length of a block of SHA-256: a longer key is hashed first, as HMAC has it.
const KEY: usize = 64;
const HELLO: usize = 4 + 1 + 1 + 8 + 8 + 8 + 8 + NONCE;
const ANSWER: usize = 1 + 1 + 8 + 8 + NONCE + PROOF;
const REPLY: usize = 1 + PROOF;
const ACCEPTED_LABEL: &[u8] = b"leveret link, accepting side";
const DIALLED_LABEL: &[u8] = b"leveret link, dialling side";
