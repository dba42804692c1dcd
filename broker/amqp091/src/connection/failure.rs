//! What ends a channel or a connection: the spec's reply codes (0-9-1 spec 1.3) and which of both they end.
use leveret_model::refusal::Refusal;
use leveret_node::{TooMuchHeld, TooMuchOpened};

/// An error on its way to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Reply code.
    pub(crate) code: u16,
    /// Reply text: the code's name and what was wrong.
    pub(crate) text: String,
    /// Class and method that caused it, if any.
    pub(crate) cause: (u16, u16),
    /// The channel that it ends, where a frame before the one being handled caused it, which may be one of another channel.
    pub(crate) channel: Option<u16>,
}

impl Failure {
    /// A failure with the code's name before the text.
    pub(crate) fn new(code: u16, text: impl AsRef<str>) -> Self {
        Self { code, text: format!("{} - {}", name(code), text.as_ref()), cause: (0, 0), channel: None }
    }

    /// Names the method that caused it.
    pub(crate) fn caused_by(mut self, class: u16, method: u16) -> Self {
        if self.cause == (0, 0) {
            self.cause = (class, method);
        }
        self
    }

    /// Names the channel that it ends.
    pub(crate) fn on_channel(self, channel: u16) -> Self {
        Self { channel: Some(channel), ..self }
    }

    /// Whether the connection ends with it, and not just the channel.
    pub(crate) fn ends_connection(&self) -> bool {
        !matches!(self.code, 311 | 313 | 403 | 404 | 405 | 406)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.kind.reply_code(), refusal.text)
    }
}

impl From<TooMuchHeld> for Failure {
    fn from(error: TooMuchHeld) -> Self {
        Self::new(506, error.to_string())
    }
}

impl From<TooMuchOpened> for Failure {
    fn from(error: TooMuchOpened) -> Self {
        Self::new(506, error.to_string())
    }
}

fn name(code: u16) -> &'static str {
    match code {
        311 => "CONTENT_TOO_LARGE",
        313 => "NO_CONSUMERS",
        320 => "CONNECTION_FORCED",
        402 => "INVALID_PATH",
        403 => "ACCESS_REFUSED",
        404 => "NOT_FOUND",
        405 => "RESOURCE_LOCKED",
        406 => "PRECONDITION_FAILED",
        501 => "FRAME_ERROR",
        502 => "SYNTAX_ERROR",
        503 => "COMMAND_INVALID",
        504 => "CHANNEL_ERROR",
        505 => "UNEXPECTED_FRAME",
        506 => "RESOURCE_ERROR",
        530 => "NOT_ALLOWED",
        540 => "NOT_IMPLEMENTED",
        _ => "INTERNAL_ERROR",
    }
}
