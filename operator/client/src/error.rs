//! Errors of requests to the management API.

/// The reason why a request has failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The broker has refused the request.
    #[error("{reason}")]
    Refused {
        /// The HTTP status of the answer.
        status: u16,
        /// The reason in the broker's own words.
        reason: String,
    },
    /// The object does not exist (404); the reason in the broker's own words.
    #[error("{0}")]
    NotFound(String),
    /// The broker does not let the user in (401): the password is wrong, or the user lacks the permission.
    #[error("the broker refuses user '{user}': {reason}")]
    Unauthorized {
        /// Name of the user.
        user: String,
        /// The reason in the broker's own words.
        reason: String,
    },
    /// The broker could not be reached, or did not answer in time.
    #[error("the broker at {url} does not answer: {problem}")]
    Unreachable {
        /// The base URL of the broker, without user and password.
        url: String,
        /// The error of the connection, or the time without an answer.
        problem: String,
    },
    /// The answer is not one of the management API.
    #[error("the answer from {url} is not that of a broker: {problem}")]
    Unexpected {
        /// The URL of the request, without user and password.
        url: String,
        /// The part of the answer that is wrong.
        problem: String,
    },
    /// The URL is not the address of a broker. It is shown without user and password.
    #[error("'{0}' is not the address of a broker: expected http://[USER:PASSWORD@]HOST:PORT")]
    Address(String),
}
