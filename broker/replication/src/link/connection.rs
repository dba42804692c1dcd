//! A connection after its handshake: one task reads frames and has them handled, in their order, and one writes frames.
//! Either side ends the connection when the other is silent or does not read any more.
use super::frame::{self, FrameToSend, LinkFrame, SIGN_OF_LIFE};
use super::options::{Lane, LinkTimes};
use super::wires::Wire;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::io;
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::sync::mpsc;

/// Handles the frames that arrive on a connection.
pub(crate) trait FrameHandler: Send {
    /// Handles one frame. Nothing more is read from the connection meanwhile. The error ends the connection.
    fn handle(&mut self, frame: LinkFrame) -> BoxFuture<'_, Result<(), String>>;
}

/// Sends the answers to the requests of a connection; cheap to clone.
#[derive(Clone)]
pub(crate) struct Answers(pub(super) mpsc::Sender<FrameToSend>);

impl Answers {
    /// Sends an answer, once there is room in the queue. An answer for which there is no connection any more is dropped.
    pub(crate) async fn send(&self, kind: u8, request: u64, group: u16, body: Bytes) {
        let _ = self.0.send(FrameToSend::new(kind, request, group, vec![body])).await;
    }
}

/// Handles the requests of other nodes.
pub(crate) trait PeerRequests: Send + Sync {
    /// Returns the handler for the frames of a connection that the node `from` has made.
    fn handler(&self, from: u64, lane: Lane, answers: Answers) -> Box<dyn FrameHandler>;
}

/// Why a connection has ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionEnd {
    /// The other side has closed it, or the process at the other side has ended.
    #[error("it was closed by the other side: {0}")]
    Broken(io::Error),
    /// Nothing arrived for longer than [`LinkTimes::silence_max`], or nothing could be written for too long.
    #[error("the other side is silent")]
    Silent,
    /// This side has no further use for it.
    #[error("it was closed by this side")]
    Unused,
    /// The other side broke the protocol.
    #[error("the other side broke the protocol: {0}")]
    Protocol(String),
}

impl ConnectionEnd {
    fn of(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Self::Silent,
            io::ErrorKind::InvalidData => Self::Protocol(error.to_string()),
            _ => Self::Broken(error),
        }
    }
}

/// Reads and writes frames until the connection ends.
pub(super) async fn run(
    wire: Wire,
    to_send: mpsc::Receiver<FrameToSend>,
    handler: &mut dyn FrameHandler,
    times: LinkTimes,
    body_bytes_max: usize,
) -> ConnectionEnd {
    let Wire { reader, writer, .. } = wire;
    let mut writing = std::pin::pin!(write_all(writer, to_send, times));
    let mut reading = std::pin::pin!(read_all(reader, handler, times, body_bytes_max));
    tokio::select! {
        biased; // so that a simulation runs the same way each time
        end = &mut reading => end,
        end = &mut writing => end,
    }
}

async fn read_all(
    reader: Box<dyn AsyncRead + Send + Unpin>,
    handler: &mut dyn FrameHandler,
    times: LinkTimes,
    body_bytes_max: usize,
) -> ConnectionEnd {
    let mut reader = BufReader::with_capacity(READ_BUFFER, reader);
    loop {
        let frame = match frame::read(&mut reader, body_bytes_max, times.silence_max).await {
            Ok(Some(frame)) => frame,
            Ok(None) => return ConnectionEnd::Broken(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => return ConnectionEnd::of(error),
        };
        if frame.kind == SIGN_OF_LIFE {
            continue;
        }
        if let Err(reason) = handler.handle(frame).await {
            return ConnectionEnd::Protocol(reason);
        }
    }
}

async fn write_all(
    mut writer: Box<dyn AsyncWrite + Send + Unpin>,
    mut to_send: mpsc::Receiver<FrameToSend>,
    times: LinkTimes,
) -> ConnectionEnd {
    let mut frames = Vec::new();
    loop {
        frames.clear();
        match tokio::time::timeout(times.keep_alive, to_send.recv()).await {
            Err(_) => frames.push(FrameToSend::sign_of_life()),
            Ok(None) => return ConnectionEnd::Unused,
            Ok(Some(frame)) => frames.push(frame),
        }
        let mut bytes = frames[0].len();
        while bytes < WRITE_BYTES
            && let Ok(frame) = to_send.try_recv()
        {
            bytes += frame.len();
            frames.push(frame);
        }
        match write_frames(&mut writer, &frames, times).await {
            Ok(()) => {}
            Err(error) => return ConnectionEnd::of(error),
        }
    }
}

/// Writes frames. The error is `TimedOut` if no byte could be written for [`LinkTimes::stall_max`].
async fn write_frames(
    writer: &mut Box<dyn AsyncWrite + Send + Unpin>,
    frames: &[FrameToSend],
    times: LinkTimes,
) -> io::Result<()> {
    let (moved, mut moves) = tokio::sync::watch::channel(());
    let progress = || moved.send_replace(());
    let mut writing = std::pin::pin!(frame::write(writer, frames, progress));
    loop {
        tokio::select! {
            biased;
            written = &mut writing => return written,
            _ = moves.changed() => {}
            () = tokio::time::sleep(times.stall_max) => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

const READ_BUFFER: usize = 64 << 10;
/// Frames are gathered for one write until they have this many bytes.
pub(super) const WRITE_BYTES: usize = 256 << 10;
