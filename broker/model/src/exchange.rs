//! Types of exchanges.
use crate::refusal::{Refusal, RefusalKind};
use std::fmt;
use std::str::FromStr;

/// The type of an exchange, which decides how the exchange chooses the queues of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExchangeType {
    /// Queues whose binding has the same routing key.
    Direct,
    /// All bound queues.
    Fanout,
    /// Queues whose binding has a pattern of words that matches the routing key.
    Topic,
    /// Queues whose binding has arguments that match the message's headers.
    Headers,
}

impl ExchangeType {
    /// Returns the name that clients use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
        }
    }
}

impl fmt::Display for ExchangeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ExchangeType {
    type Err = Refusal;

    /// Returns the type with this name.
    ///
    /// # Errors
    /// 406 for an unknown type, as RabbitMQ 4 answers.
    fn from_str(name: &str) -> Result<Self, Refusal> {
        [Self::Direct, Self::Fanout, Self::Topic, Self::Headers]
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| Refusal::new(RefusalKind::PreconditionFailed, format!("unknown exchange type '{name}'")))
    }
}
