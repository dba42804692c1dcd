//! Reply codes: the numbers and names that the specification (0-9-1 spec 1.3) has for errors, and the mapping of the
//! broker's own kinds of refusal and of the codec's errors to them.
use super::frame;
use super::method;
use leveret_model::refusal::RefusalKind;
use leveret_model::wire::SyntaxError;

/// The code of a `close` or a `basic.return`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
#[allow(missing_docs, reason = "the spec's names")]
pub enum ReplyCode {
    NoRoute = 312,
    ConnectionForced = 320,
    AccessRefused = 403,
    NotFound = 404,
    ResourceLocked = 405,
    PreconditionFailed = 406,
    FrameError = 501,
    SyntaxError = 502,
    CommandInvalid = 503,
    ChannelError = 504,
    UnexpectedFrame = 505,
    ResourceError = 506,
    NotAllowed = 530,
    NotImplemented = 540,
    InternalError = 541,
}

impl ReplyCode {
    /// Returns the number that stands for the code on the wire.
    #[must_use]
    pub fn number(self) -> u16 {
        self as u16
    }

    /// Returns the name that reply texts begin with, as RabbitMQ writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NoRoute => "NO_ROUTE",
            Self::ConnectionForced => "CONNECTION_FORCED",
            Self::AccessRefused => "ACCESS_REFUSED",
            Self::NotFound => "NOT_FOUND",
            Self::ResourceLocked => "RESOURCE_LOCKED",
            Self::PreconditionFailed => "PRECONDITION_FAILED",
            Self::FrameError => "FRAME_ERROR",
            Self::SyntaxError => "SYNTAX_ERROR",
            Self::CommandInvalid => "COMMAND_INVALID",
            Self::ChannelError => "CHANNEL_ERROR",
            Self::UnexpectedFrame => "UNEXPECTED_FRAME",
            Self::ResourceError => "RESOURCE_ERROR",
            Self::NotAllowed => "NOT_ALLOWED",
            Self::NotImplemented => "NOT_IMPLEMENTED",
            Self::InternalError => "INTERNAL_ERROR",
        }
    }

    /// Returns whether an error with this code closes the connection, and not just the channel: the spec's hard errors.
    #[must_use]
    pub fn closes_connection(self) -> bool {
        match self {
            Self::NoRoute | Self::AccessRefused | Self::NotFound | Self::ResourceLocked | Self::PreconditionFailed => {
                false
            }
            Self::ConnectionForced
            | Self::FrameError
            | Self::SyntaxError
            | Self::CommandInvalid
            | Self::ChannelError
            | Self::UnexpectedFrame
            | Self::ResourceError
            | Self::NotAllowed
            | Self::NotImplemented
            | Self::InternalError => true,
        }
    }
}

impl From<RefusalKind> for ReplyCode {
    fn from(kind: RefusalKind) -> Self {
        match kind {
            RefusalKind::AccessRefused => Self::AccessRefused,
            RefusalKind::NotFound => Self::NotFound,
            RefusalKind::ResourceLocked => Self::ResourceLocked,
            RefusalKind::PreconditionFailed => Self::PreconditionFailed,
            RefusalKind::CommandInvalid => Self::CommandInvalid,
            RefusalKind::NotAllowed => Self::NotAllowed,
            RefusalKind::Stopping => Self::ConnectionForced,
        }
    }
}

impl From<SyntaxError> for ReplyCode {
    fn from(error: SyntaxError) -> Self {
        match error {
            SyntaxError::Malformed(_) => Self::SyntaxError,
            SyntaxError::NotUtf8(_) => Self::FrameError,
        }
    }
}

impl From<frame::FrameError> for ReplyCode {
    fn from(error: frame::FrameError) -> Self {
        match error {
            frame::FrameError::HeartbeatOnChannel(_) => Self::UnexpectedFrame,
            frame::FrameError::TooLarge { .. }
            | frame::FrameError::UnknownKind(_)
            | frame::FrameError::BadEnd(_)
            | frame::FrameError::BadHeartbeat => Self::FrameError,
        }
    }
}

impl From<method::MethodError> for ReplyCode {
    fn from(error: method::MethodError) -> Self {
        match error {
            method::MethodError::Syntax(error, _) => error.into(),
            method::MethodError::Unknown(_) => Self::NotImplemented,
        }
    }
}
