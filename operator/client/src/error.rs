//! Why a request did not do what it should.

/// What came instead of an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The broker said no; in its own words.
    #[error("{reason}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The broker's reason.
        reason: String,
    },
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The user may not do this, or its password is not right; in the broker's own words.
    #[error("the broker refuses user '{user}': {reason}")]
    Unauthorized {
        /// Who asked.
        user: String,
        /// The broker's reason.
        reason: String,
    },
    /// No answer.
    #[error("the broker at {url} does not answer: {problem}")]
    Unreachable {
        /// Where it was asked.
        url: String,
        /// What happened.
        problem: String,
    },
    /// An answer, but none of this API.
    #[error("what answers at {url} is no broker: {problem}")]
    Unexpected {
        /// What was asked.
        url: String,
        /// What is wrong with the answer.
        problem: String,
    },
    /// The address is none.
    #[error("'{0}' is no address of a broker: http://[USER:PASSWORD@]HOST:PORT is expected")]
    Address(String),
}
