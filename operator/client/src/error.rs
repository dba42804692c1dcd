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
    /// User or password are not right.
    #[error("the broker refused the login of user '{0}'")]
    Unauthorized(String),
    /// No answer.
    #[error("the broker at {url} does not answer: {problem}")]
    Unreachable {
        /// Where it was asked.
        url: String,
        /// What happened.
        problem: String,
    },
    /// The address is none.
    #[error("'{0}' is no address of a broker: http://[USER:PASSWORD@]HOST:PORT is expected")]
    Address(String),
}
