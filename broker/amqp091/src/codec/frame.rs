//! Frames: `[kind u8][channel u16][size u32][payload][0xCE]` (0-9-1 spec 4.2.3), and the protocol header before them.

/// One frame, borrowed from the read buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The type of the frame.
    pub kind: FrameKind,
    /// The channel of the frame; 0 stands for the connection.
    pub channel: u16,
    /// The bytes between the header and the end octet.
    pub payload: &'a [u8],
    /// The length of the whole frame in bytes.
    pub len: usize,
}

/// The type of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// 1
    Method,
    /// 2
    Header,
    /// 3
    Body,
    /// 8
    Heartbeat,
}

/// The errors in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The frame is larger than `frame_max`.
    #[error(
        "type {kind}, channel {channel}: frame of {size} bytes is larger than the negotiated frame_max {frame_max}"
    )]
    TooLarge {
        /// The frame's type octet.
        kind: u8,
        /// The channel of the frame.
        channel: u16,
        /// The length of the whole frame in bytes.
        size: u64,
        /// The `frame_max` that was agreed upon, in bytes.
        frame_max: u32,
    },
    /// The frame type does not exist in AMQP 0-9-1.
    #[error("unknown frame type {0}")]
    UnknownKind(u8),
    /// The last octet is not 0xCE.
    #[error("frame end octet is {0:#04x}, not 0xce")]
    BadEnd(u8),
    /// A heartbeat has a payload.
    #[error("heartbeat with a payload")]
    BadHeartbeat,
    /// A heartbeat is on a channel other than 0.
    #[error("heartbeat on channel {0}")]
    HeartbeatOnChannel(u16),
}

/// Returns the frame at the start of `buffer`, or `None` if it has not arrived in full. A frame that is too large or of
/// an unknown type is refused before the rest of it has arrived. A `frame_max` of 0 means no limit. A payload may be as
/// long as `frame_max`: that is eight bytes too many, which RabbitMQ accepts because clients count their frames wrongly.
///
/// # Errors
/// [`FrameError`], which ends the connection in all cases.
#[inline]
pub fn parse(buffer: &[u8], frame_max: u32) -> Result<Option<Frame<'_>>, FrameError> {
    let Some((&[kind, c0, c1, s0, s1, s2, s3], rest)) = buffer.split_first_chunk::<7>() else {
        return match buffer.first() {
            Some(&kind) if to_kind(kind).is_none() => Err(FrameError::UnknownKind(kind)),
            _ => Ok(None),
        };
    };
    let channel = u16::from_be_bytes([c0, c1]);
    let size = u32::from_be_bytes([s0, s1, s2, s3]);
    let Some(to_kind) = to_kind(kind) else { return Err(FrameError::UnknownKind(kind)) };
    if frame_max != 0 && size > frame_max {
        let whole = u64::from(size) + FRAME_OVERHEAD as u64;
        return Err(FrameError::TooLarge { kind, channel, size: whole, frame_max });
    }
    let size = size as usize;
    let Some(&end) = rest.get(size) else { return Ok(None) };
    if end != END {
        return Err(FrameError::BadEnd(end));
    }
    if to_kind == FrameKind::Heartbeat && (channel != 0 || size != 0) {
        return Err(if size == 0 { FrameError::HeartbeatOnChannel(channel) } else { FrameError::BadHeartbeat });
    }
    Ok(Some(Frame { kind: to_kind, channel, payload: &rest[..size], len: size + FRAME_OVERHEAD }))
}

#[inline]
fn to_kind(octet: u8) -> Option<FrameKind> {
    Some(match octet {
        1 => FrameKind::Method,
        2 => FrameKind::Header,
        3 => FrameKind::Body,
        8 => FrameKind::Heartbeat,
        _ => return None,
    })
}

/// The protocol of a client, according to its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolHeader {
    /// `AMQP` 0 0 9 1.
    Amqp091,
    /// Any other protocol, which is answered with [`PROTOCOL_HEADER`].
    Other,
    /// Too few bytes have arrived to decide.
    Incomplete,
}

/// Returns the protocol that the first bytes of a connection announce.
#[must_use]
pub fn protocol(buffer: &[u8]) -> ProtocolHeader {
    let len = buffer.len().min(PROTOCOL_HEADER.len());
    if buffer[..len] != PROTOCOL_HEADER[..len] {
        ProtocolHeader::Other
    } else if len < PROTOCOL_HEADER.len() {
        ProtocolHeader::Incomplete
    } else {
        ProtocolHeader::Amqp091
    }
}

/// The header of AMQP 0-9-1.
pub const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\x00\x00\x09\x01";
/// The last octet of a frame.
pub const END: u8 = 0xCE;
/// The bytes of a frame in addition to its payload.
pub const FRAME_OVERHEAD: usize = 8;
