//! The part of an open connection that all handlers may use and none changes.
use super::output::Output;
use leveret_node::{Broker, Caller, Connection};
use std::sync::Arc;

/// The capabilities that the client announced, as far as they change what it is sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Capabilities {
    /// True if the client wants to be told when a queue that it consumes from is deleted.
    pub(crate) consumer_cancel_notify: bool,
    /// True if the client wants to be told when it is held back.
    pub(crate) connection_blocked: bool,
}

/// The broker, the client, and the output to the client.
pub(crate) struct Context {
    /// Everything that the client asks for goes through this handle.
    pub(crate) broker: Broker,
    /// The login, the virtual host and the agreed limits, which the management API shows too.
    pub(crate) connection: Arc<Connection>,
    /// Answers are written here.
    pub(crate) output: Arc<Output>,
    /// Decides which notifications the client gets.
    pub(crate) capabilities: Capabilities,
    /// The largest frame that was agreed upon, in bytes: a copy of the connection's, which every frame is compared with.
    pub(crate) frame_max: u32,
}

impl Context {
    /// Returns the caller that the node's functions are given for requests of this connection.
    pub(crate) fn caller(&self) -> &Caller {
        &self.connection.caller
    }

    /// Returns the name of the connection's virtual host.
    pub(crate) fn vhost(&self) -> &str {
        &self.connection.vhost
    }
}
