//! The callers at the doors of the node.
//!
//! Every door that a client or a tool reaches takes a [`Caller`], which says who makes the request and where it comes from.
//! A door that returns something to work with (a route, a queue, a consumer) takes the caller; later operations on that
//! thing do not. For now the caller only decides about exclusive queues: permissions are not checked.
use crate::auth::Identity;
use leveret_engine::catalog::Origin;

/// The user and the origin of a request; made once for each connection, and once for each request of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The user who logged in.
    pub identity: Identity,
    /// The origin of the request.
    pub origin: Origin,
}

impl Caller {
    /// Returns the caller for a request of the management API.
    #[must_use]
    pub fn api(identity: Identity) -> Self {
        Self { identity, origin: Origin::Api }
    }

    /// Returns the caller for requests of the node itself, or of the program that it is a part of.
    #[must_use]
    pub fn system() -> Self {
        Self { identity: Identity { user: SYSTEM_USER.into() }, origin: Origin::System }
    }
}

/// The user name of the node itself. Nobody can log in with it.
const SYSTEM_USER: &str = "leveret.system";
