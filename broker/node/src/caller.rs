//! Who asks for something at a door of the node.
//!
//! Every door that a client or a tool reaches takes a [`Caller`], which says who it is and where the request comes from. A
//! door that hands out something to go on with (a route, a queue, a consumer) asks for the caller; what is done with it
//! afterwards does not. For now only exclusive queues are kept from callers: rights are not looked at.
use crate::auth::Identity;
use leveret_engine::catalog::Origin;

/// Who asks: made once for each connection, and once for each request of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The user who logged in.
    pub identity: Identity,
    /// Where the request comes from.
    pub origin: Origin,
}

impl Caller {
    /// A request of the management API.
    #[must_use]
    pub fn api(identity: Identity) -> Self {
        Self { identity, origin: Origin::Api }
    }

    /// The node itself, or a program that it is a part of.
    #[must_use]
    pub fn system() -> Self {
        Self { identity: Identity { user: SYSTEM_USER.into() }, origin: Origin::System }
    }
}

/// The name that the node acts under. Nobody can log in with it.
const SYSTEM_USER: &str = "leveret.system";
