//! The clients that are connected: the figures that the management API shows of them, and the way to disconnect them.
use crate::Broker;
use crate::auth::Identity;
use crate::caller::Caller;
use leveret_engine::catalog::Origin;
use leveret_model::table::FieldTable;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use tokio_util::sync::CancellationToken;

/// The identity of a connection; never used again.
pub use leveret_engine::catalog::ConnectionId;

/// An open connection.
pub struct Connection {
    /// The identity of the connection.
    pub id: ConnectionId,
    /// The caller as which the client makes requests at the doors of the node.
    pub caller: Caller,
    /// The name of the connection: `CLIENT:PORT -> SERVER:PORT`.
    pub name: String,
    /// The properties of the client that the management API shows.
    pub client: Client,
    /// The virtual host that the client opened.
    pub vhost: Arc<str>,
    /// The largest frame that was agreed upon, in bytes.
    pub frame_max: u32,
    /// The number of channels that was agreed upon.
    pub channel_max: u16,
    /// The heartbeat interval that was agreed upon, in seconds; 0 means none.
    pub heartbeat: u16,
    /// The number of bytes received from the client.
    pub received_bytes: AtomicU64,
    /// The number of bytes sent to the client.
    pub sent_bytes: AtomicU64,
    /// The bytes held of messages that are still incomplete.
    pub(crate) incomplete_bytes: AtomicU64,
    /// Set while the client is held back because memory or disk space is used up.
    pub blocked: AtomicBool,
    /// The channels by number.
    pub channels: Mutex<BTreeMap<u16, Arc<ChannelView>>>,
    /// Cancelled to end the connection; `close_reason` is set before.
    pub close: CancellationToken,
    /// The text that the client is told when the broker ends the connection.
    pub close_reason: Mutex<String>,
}

/// The properties of a connection's client that the management API shows.
pub struct Client {
    /// The address that the client came from.
    pub peer: SocketAddr,
    /// The address of the listener that the client connected to.
    pub local: SocketAddr,
    /// The name of the SASL mechanism of the client's login.
    pub mechanism: &'static str,
    /// The name of the protocol as people write it, such as `AMQP 0-9-1`.
    pub protocol: &'static str,
    /// The client properties, as the client sent them.
    pub properties: FieldTable,
    /// The time at which the connection was opened, in milliseconds since 1970.
    pub connected_at_ms: u64,
}

/// The figures of a channel that the management API shows.
#[derive(Default)]
pub struct ChannelView {
    /// The prefetch of each consumer that is started from now on; 0 means no limit.
    pub prefetch: AtomicU32,
    /// The prefetch of the whole channel; 0 means no limit.
    pub global_prefetch: AtomicU32,
    /// Set if publishes are confirmed.
    pub confirm: AtomicBool,
    /// The number of consumers.
    pub consumers: AtomicU32,
    /// The number of unacknowledged deliveries.
    pub unacked: AtomicU64,
}

/// The limits that a client agreed to.
#[derive(Clone, Copy, Debug)]
pub struct Tuned {
    /// The largest frame, in bytes.
    pub frame_max: u32,
    /// The most channels.
    pub channel_max: u16,
    /// The heartbeat interval in seconds; 0: none.
    pub heartbeat: u16,
}

/// The properties with which a new connection is registered.
pub struct Hello {
    /// The address that the client came from.
    pub peer: SocketAddr,
    /// The address of the listener that the client connected to.
    pub local: SocketAddr,
    /// The user who logged in.
    pub identity: Identity,
    /// The name of the SASL mechanism of the login.
    pub mechanism: &'static str,
    /// The virtual host that the client opened.
    pub vhost: Arc<str>,
    /// The name of the protocol as people write it.
    pub protocol: &'static str,
    /// The client properties, as the client sent them.
    pub client_properties: FieldTable,
    /// The limits that were agreed upon.
    pub tuned: Tuned,
}

impl Connection {
    /// Returns the name of the user who logged in.
    pub fn user(&self) -> &str {
        &self.caller.identity.user
    }

    /// Returns whether the connection holds bytes of incomplete messages.
    #[inline]
    pub fn holds_incomplete(&self) -> bool {
        self.incomplete_bytes.load(Relaxed) > 0
    }
}

#[derive(Default)]
pub(crate) struct Connections {
    open: Mutex<BTreeMap<ConnectionId, Arc<Connection>>>,
    next: AtomicU64,
    pub(crate) churn: Churn,
}

/// Counts of the connections, channels and queues that came and went since the start of the node.
#[derive(Default)]
pub struct Churn {
    /// The number of connections that were opened.
    pub connections_opened: AtomicU64,
    /// The number of connections that were closed.
    pub connections_closed: AtomicU64,
    /// The number of channels that were opened.
    pub channels_opened: AtomicU64,
    /// The number of channels that were closed.
    pub channels_closed: AtomicU64,
    /// The number of declarations of queues, including declarations of existing queues.
    pub queues_declared: AtomicU64,
    /// The number of queues that were created.
    pub queues_created: AtomicU64,
    /// The number of queues that were deleted, by clients or by the broker.
    pub queues_deleted: AtomicU64,
}

impl Broker {
    /// Registers a client that has logged in. Returns the new connection.
    pub fn connected(&self, hello: Hello) -> Arc<Connection> {
        let connections = &self.node().connections;
        let id = ConnectionId { run: self.run(), number: connections.next.fetch_add(1, Relaxed) + 1 };
        let Hello { peer, local, identity, mechanism, vhost, protocol, client_properties, tuned } = hello;
        let connected_at_ms = self.clock().unix_ms();
        let connection = Arc::new(Connection {
            id,
            name: format!("{} -> {}", plain(peer), plain(local)),
            client: Client { peer, local, mechanism, protocol, properties: client_properties, connected_at_ms },
            caller: Caller { identity, origin: Origin::Connection(id) },
            vhost,
            frame_max: tuned.frame_max,
            channel_max: tuned.channel_max,
            heartbeat: tuned.heartbeat,
            received_bytes: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            incomplete_bytes: AtomicU64::new(0),
            blocked: AtomicBool::new(false),
            channels: Mutex::default(),
            close: CancellationToken::new(),
            close_reason: Mutex::default(),
        });
        connections.open.lock().insert(id, connection.clone());
        connections.churn.connections_opened.fetch_add(1, Relaxed);
        connection
    }

    /// Removes the connection of a client that has left, whose channels and consumers are gone already, and deletes the
    /// exclusive queues of the connection.
    pub async fn disconnected(&self, connection: &Connection) {
        let connections = &self.node().connections;
        if connections.open.lock().remove(&connection.id).is_some() {
            connections.churn.connections_closed.fetch_add(1, Relaxed);
        }
        self.delete_exclusive_queues(connection.id).await;
    }

    /// Returns whether the connection could wait for itself if it is held back: it holds bytes of an incomplete message,
    /// and such messages of all connections fill the memory budget.
    pub fn waits_for_itself(&self, connection: &Connection) -> bool {
        connection.holds_incomplete() && self.memory().is_filled_by_incomplete()
    }

    /// Returns the open connections, oldest first.
    pub fn connections(&self) -> Vec<Arc<Connection>> {
        self.node().connections.open.lock().values().cloned().collect()
    }

    /// Ends a connection; the client is told `reason`.
    pub fn close_connection(&self, _caller: &Caller, connection: &Connection, reason: &str) {
        *connection.close_reason.lock() = reason.to_owned();
        connection.close.cancel();
    }

    /// Returns the counts of what came and went since the start of the node. The protocols count the channels.
    pub fn churn(&self) -> &Churn {
        &self.node().connections.churn
    }
}

/// Returns an address as people write it: an IPv4 address in its usual form, even if the socket is an IPv6 socket that
/// accepts both.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_connection_shows_plain_addresses() {
        for (address, expected) in [
            ("[::ffff:10.0.0.1]:5000", "10.0.0.1:5000"),
            ("10.0.0.1:5000", "10.0.0.1:5000"),
            ("[2001:db8::1]:5000", "[2001:db8::1]:5000"),
        ] {
            assert_eq!(plain(address.parse().unwrap()).to_string(), expected);
        }
    }
}
