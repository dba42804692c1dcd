//! The end of a channel or a connection, and the error that causes it, on its way to the client.
use crate::codec::ids::MethodId;
use crate::codec::reply::ReplyCode;
use leveret_model::refusal::Refusal;
use leveret_node::{MessageError, TooMuchHeld, TooMuchOpened};

/// An error on its way to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The reply code, which decides whether the channel or the connection ends.
    pub(crate) code: ReplyCode,
    /// The reply text: the code's name and what was wrong.
    pub(crate) text: String,
    /// The method that caused it; [`MethodId::NONE`] if no method did.
    pub(crate) cause: MethodId,
    /// The channel that it ends. Set only if an earlier frame than the one being handled caused it: that frame may
    /// belong to another channel.
    pub(crate) channel: Option<u16>,
}

impl Failure {
    /// Returns a failure whose text begins with the code's name.
    pub(crate) fn new(code: ReplyCode, text: impl AsRef<str>) -> Self {
        let text = format!("{} - {}", code.name(), text.as_ref());
        Self { code, text, cause: MethodId::NONE, channel: None }
    }

    /// Returns the failure for an error of the codec.
    pub(crate) fn of<E: Copy + ToString + Into<ReplyCode>>(error: E) -> Self {
        Self::new(error.into(), error.to_string())
    }

    /// Names the method that caused the failure, unless one is named already.
    pub(crate) fn caused_by(mut self, id: MethodId) -> Self {
        if self.cause == MethodId::NONE {
            self.cause = id;
        }
        self
    }

    /// Names the channel that the failure ends.
    pub(crate) fn on_channel(self, channel: u16) -> Self {
        Self { channel: Some(channel), ..self }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.kind.into(), refusal.text)
    }
}

impl From<MessageError> for Failure {
    fn from(error: MessageError) -> Self {
        match error {
            MessageError::Malformed(error) => Self::of(error),
            MessageError::Refused(refusal) => refusal.into(),
        }
    }
}

impl From<TooMuchHeld> for Failure {
    fn from(error: TooMuchHeld) -> Self {
        Self::new(ReplyCode::ResourceError, error.to_string())
    }
}

impl From<TooMuchOpened> for Failure {
    fn from(error: TooMuchOpened) -> Self {
        Self::new(ReplyCode::ResourceError, error.to_string())
    }
}

/// The ways in which a connection ends.
pub(crate) enum End {
    /// The client asked to close the connection, and is answered.
    Asked,
    /// The socket failed or was closed, or the client was silent for too long.
    Lost,
    /// The broker closes it and tells the client why.
    Failed(Failure),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}
