//! Single questions to whichever node listens at an address, each on a connection of its own. The handshake tells who
//! that node is, so a node can ask others of which it knows only the address.
use super::frame::{self, FrameToSend};
use super::handshake::{self, OtherSide};
use super::options::Lane;
use super::state::PeersInner;
use super::wires::Wire;
use bytes::Bytes;
use std::time::Duration;
use tokio::time::timeout;

/// An answer to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAnswer {
    /// The node that answers.
    pub node: u64,
    /// The answer.
    pub body: Bytes,
}

/// The reasons why a question is not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// This node itself listens at the address.
    #[error("{0} is this node itself")]
    Own(String),
    /// Nobody answers at the address, or the node there is no member of the same cluster.
    #[error("{address}: {reason}")]
    Failed {
        /// The address.
        address: String,
        /// What is wrong.
        reason: String,
    },
}

/// Asks the node that listens at `address`, and waits for the answer for at most `limit`.
pub(super) async fn ask(
    peers: &PeersInner,
    address: &str,
    question: Bytes,
    limit: Duration,
) -> Result<PeerAnswer, AskError> {
    let failed = |reason: String| AskError::Failed { address: address.to_owned(), reason };
    if question.len() > BODY_MAX {
        return Err(failed(format!("a question of {} bytes is too long", question.len())));
    }
    let asking = timeout(limit, dial_and_ask(peers, address, question));
    let asked = peers.stopping.run_until_cancelled(asking).await;
    let asked = asked.ok_or_else(|| failed("this node stops".to_owned()))?;
    asked.map_err(|_| failed("no answer in time".to_owned()))?
}

async fn dial_and_ask(peers: &PeersInner, address: &str, question: Bytes) -> Result<PeerAnswer, AskError> {
    let failed = |reason: String| AskError::Failed { address: address.to_owned(), reason };
    let options = &peers.options;
    let dialled = timeout(options.times.dial_max, peers.wires.dial(address.to_owned())).await;
    let dialled = dialled.map_err(|_| failed("no connection in time".to_owned()))?;
    let mut wire = dialled.map_err(|error| failed(error.to_string()))?;
    let other = handshake::dialled(&mut wire, options, Lane::Questions, handshake::ANY_NODE).await;
    let other = other.map_err(|error| failed(error.to_string()))?;
    if other.node == options.node {
        return Err(match other.boot == options.boot {
            true => AskError::Own(address.to_owned()),
            false => failed("another node has the identity of this one: was its data folder copied?".to_owned()),
        });
    }
    let frames = [FrameToSend::new(QUESTION, 0, 0, vec![question])];
    frame::write(&mut wire.writer, &frames, || ()).await.map_err(|error| failed(error.to_string()))?;
    // The limit of the whole question bounds the time until the answer.
    match frame::read(&mut wire.reader, BODY_MAX, ANSWER_MAX).await {
        Ok(Some(answer)) => Ok(PeerAnswer { node: other.node, body: answer.body }),
        Ok(None) => Err(failed("the node there does not answer questions yet".to_owned())),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// Answers the question of a connection.
pub(super) async fn answer(peers: &PeersInner, mut wire: Wire, other: OtherSide) {
    let Some(questions) = peers.questions.lock().clone().filter(|_| other.node != peers.options.node) else { return };
    let Ok(_place) = peers.answering.acquire().await else { return };
    let Ok(Some(question)) = frame::read(&mut wire.reader, BODY_MAX, peers.options.times.silence_max).await else {
        return;
    };
    let Ok(answer) = timeout(ANSWER_MAX, questions.answer(other.node, question.body)).await else { return };
    if answer.len() <= BODY_MAX {
        let frames = [FrameToSend::new(ANSWER, 0, 0, vec![answer])];
        let _ = timeout(peers.options.times.stall_max, frame::write(&mut wire.writer, &frames, || ())).await;
    }
}

/// The longest time that the answer to a question may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);
const QUESTION: u8 = 1;
const ANSWER: u8 = 2;
/// The most bytes of a question and of an answer.
const BODY_MAX: usize = 64 << 10;
