//! Frames: what a connection carries after the handshake.
//!
//! A frame is `length u32, kind u8, request u64, group u16`, and a body of `length - 11` bytes. Integers are
//! little-endian. The version is agreed on in the handshake. `kind` is [`SIGN_OF_LIFE`] or one that the user of the
//! lane defines; an answer has the number of its request. Messages have their channel in `kind` and zeros in `request`
//! and `group`.
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::io::{self, IoSlice};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

/// A frame that has arrived.
#[derive(Debug)]
pub(crate) struct LinkFrame {
    pub(crate) kind: u8,
    pub(crate) request: u64,
    pub(crate) group: u16,
    pub(crate) body: Bytes,
}

/// A frame to be sent. Its body is in parts, so that the bytes of entries need not be copied.
pub(crate) struct FrameToSend {
    pub(crate) kind: u8,
    pub(crate) request: u64,
    pub(crate) group: u16,
    pub(crate) parts: Vec<Bytes>,
    /// Room for a message; given back once the frame is written.
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

impl FrameToSend {
    pub(crate) fn new(kind: u8, request: u64, group: u16, parts: Vec<Bytes>) -> Self {
        Self { kind, request, group, parts, room: None }
    }

    pub(crate) fn sign_of_life() -> Self {
        Self::new(SIGN_OF_LIFE, 0, 0, Vec::new())
    }

    /// Returns the length of the body in bytes.
    pub(crate) fn len(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }

    fn head(&self) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        let mut rest = &mut head[..];
        rest.put_u32_le((self.len() + HEAD - 4) as u32);
        rest.put_u8(self.kind);
        rest.put_u64_le(self.request);
        rest.put_u16_le(self.group);
        head
    }
}

/// Writes frames one after the other. `progress` is called after each write of bytes, of which there may be several.
pub(crate) async fn write(
    writer: &mut (impl AsyncWrite + Unpin + ?Sized),
    frames: &[FrameToSend],
    mut progress: impl FnMut(),
) -> io::Result<()> {
    let heads: Vec<[u8; HEAD]> = frames.iter().map(FrameToSend::head).collect();
    let parts = frames.iter().zip(&heads).flat_map(|(frame, head)| {
        let body = frame.parts.iter().filter(|part| !part.is_empty()).map(|part| &part[..]);
        std::iter::once(&head[..]).chain(body)
    });
    let mut slices: Vec<IoSlice<'_>> = parts.map(IoSlice::new).collect();
    let mut rest = &mut slices[..];
    while !rest.is_empty() {
        let some = rest.len().min(SLICES_MAX);
        let written = writer.write_vectored(&rest[..some]).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut rest, written);
        progress();
    }
    writer.flush().await
}

/// Reads the next frame. Returns `None` at the end of the stream between two frames. Allocates no more than twice what
/// has arrived and 64 KiB, whatever length the frame claims to have. The error is `InvalidData` if the length is out of
/// bounds, and `TimedOut` if nothing arrives for longer than `silence_max`.
pub(crate) async fn read(
    reader: &mut (impl AsyncRead + Unpin + ?Sized),
    body_bytes_max: usize,
    silence_max: Duration,
) -> io::Result<Option<LinkFrame>> {
    let mut head = [0; HEAD];
    if timeout(silence_max, reader.read(&mut head[..1])).await?? == 0 {
        return Ok(None);
    }
    timeout(silence_max, reader.read_exact(&mut head[1..])).await??;
    let mut rest = &head[..];
    let (length, kind) = (rest.try_get_u32_le().map_err(cut)? as usize, rest.try_get_u8().map_err(cut)?);
    let (request, group) = (rest.try_get_u64_le().map_err(cut)?, rest.try_get_u16_le().map_err(cut)?);
    let body_len = length.checked_sub(HEAD - 4).filter(|len| *len <= body_bytes_max);
    let body_len = body_len
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("a frame claims to have {length} bytes")))?;
    let body = read_body(reader, body_len, silence_max).await?;
    Ok(Some(LinkFrame { kind, request, group, body }))
}

async fn read_body(
    reader: &mut (impl AsyncRead + Unpin + ?Sized),
    len: usize,
    silence_max: Duration,
) -> io::Result<Bytes> {
    let mut body = BytesMut::with_capacity(len.min(FIRST_READ_MAX));
    let mut limited = reader.take(len as u64);
    while body.len() < len {
        if body.len() == body.capacity() {
            body.reserve(body.len().max(FIRST_READ_MAX).min(len - body.len()));
        }
        if timeout(silence_max, limited.read_buf(&mut body)).await?? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(body.freeze())
}

fn cut(error: bytes::TryGetError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The kind of a frame that only says that its sender lives.
pub(crate) const SIGN_OF_LIFE: u8 = 0;
const HEAD: usize = 15;
/// The most slices that are written with one call; the kernel takes 1024.
const SLICES_MAX: usize = 512;
/// The buffer for a body has at most this many bytes before any of it has arrived.
const FIRST_READ_MAX: usize = 64 << 10;
