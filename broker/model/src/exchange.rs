//! Types of exchanges.
use crate::refusal::{Refusal, RefusalKind};
use std::fmt;
use std::str::FromStr;

/// How an exchange chooses queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExchangeType {
    /// By a routing key that is equal.
    Direct,
    /// All of them.
    Fanout,
    /// By a pattern of words.
    Topic,
    /// By the message's headers.
    Headers,
}

impl ExchangeType {
    /// The name that clients use.
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

    /// 406 for a type that is not known, as RabbitMQ 4 answers.
    fn from_str(name: &str) -> Result<Self, Refusal> {
        [Self::Direct, Self::Fanout, Self::Topic, Self::Headers]
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| Refusal::new(RefusalKind::PreconditionFailed, format!("unknown exchange type '{name}'")))
    }
}
