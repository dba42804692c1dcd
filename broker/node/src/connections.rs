//! Clients that are connected: what the management API shows of them, and how they are told to go.
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

/// Names a connection on this node; never used again.
pub use leveret_engine::catalog::ConnectionId;

/// A connection that is open.
pub struct Connection {
    /// The identity of the connection.
    pub id: ConnectionId,
    /// As whom the client asks for something at the doors of the node.
    pub caller: Caller,
    /// `CLIENT:PORT -> SERVER:PORT`.
    pub name: String,
    /// What is shown of the client.
    pub client: Client,
    /// The virtual host that the client opened.
    pub vhost: Arc<str>,
    /// Largest frame agreed upon, in bytes.
    pub frame_max: u32,
    /// Channels agreed upon.
    pub channel_max: u16,
    /// Heartbeat agreed upon in seconds; 0: none.
    pub heartbeat: u16,
    /// Bytes received.
    pub received_bytes: AtomicU64,
    /// Bytes sent.
    pub sent_bytes: AtomicU64,
    /// Bytes of messages that have not come in full.
    pub(crate) incomplete_bytes: AtomicU64,
    /// Whether the client is held back at this moment because memory or disk space is used up.
    pub blocked: AtomicBool,
    /// The channels by number.
    pub channels: Mutex<BTreeMap<u16, Arc<ChannelView>>>,
    /// Cancelled to end the connection; `close_reason` says why.
    pub close: CancellationToken,
    /// What the client is told when its connection is ended.
    pub close_reason: Mutex<String>,
}

/// What is shown of the client of a connection.
pub struct Client {
    /// The address that the client came from.
    pub peer: SocketAddr,
    /// The address that it came in at.
    pub local: SocketAddr,
    /// The name of the SASL mechanism of its login.
    pub mechanism: &'static str,
    /// Protocol name for people, such as `AMQP 0-9-1`.
    pub protocol: &'static str,
    /// What the client says of itself.
    pub properties: FieldTable,
    /// When the connection was opened: milliseconds since 1970.
    pub connected_at_ms: u64,
}

/// What is shown of a channel.
#[derive(Default)]
pub struct ChannelView {
    /// Prefetch for consumers to come.
    pub prefetch: AtomicU32,
    /// Prefetch of the whole channel.
    pub global_prefetch: AtomicU32,
    /// Publishes are confirmed.
    pub confirm: AtomicBool,
    /// Consumers.
    pub consumers: AtomicU32,
    /// Deliveries not settled.
    pub unacked: AtomicU64,
}

/// What a new connection says of itself.
pub struct Hello {
    /// The address that the client came from.
    pub peer: SocketAddr,
    /// The address that it came in at.
    pub local: SocketAddr,
    /// The user who logged in.
    pub identity: Identity,
    /// The name of the SASL mechanism of the login.
    pub mechanism: &'static str,
    /// The virtual host that the client opened.
    pub vhost: Arc<str>,
    /// Protocol name for people.
    pub protocol: &'static str,
    /// What the client says of itself.
    pub client_properties: FieldTable,
    /// Agreed: bytes a frame, channels, heartbeat in seconds.
    pub tuned: (u32, u16, u16),
}

impl Connection {
    /// Returns the name of the user who logged in.
    pub fn user(&self) -> &str {
        &self.caller.identity.user
    }

    /// Whether it holds bytes of messages that have not come in full.
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

/// What came and went since the start.
#[derive(Default)]
pub struct Churn {
    /// Connections that were opened.
    pub connections_opened: AtomicU64,
    /// Connections that were closed.
    pub connections_closed: AtomicU64,
    /// Channels that were opened.
    pub channels_opened: AtomicU64,
    /// Channels that were closed.
    pub channels_closed: AtomicU64,
    /// Declarations of queues, also of those that were there.
    pub queues_declared: AtomicU64,
    /// Queues that were not there before.
    pub queues_created: AtomicU64,
    /// Queues that were deleted, whoever did it.
    pub queues_deleted: AtomicU64,
}

impl Broker {
    /// A client has logged in.
    pub fn connected(&self, hello: Hello) -> Arc<Connection> {
        let connections = &self.node().connections;
        let id = ConnectionId(connections.next.fetch_add(1, Relaxed) + 1);
        let Hello { peer, local, identity, mechanism, vhost, protocol, client_properties, tuned } = hello;
        let connected_at_ms = self.clock().unix_ms();
        let connection = Arc::new(Connection {
            id,
            name: format!("{} -> {}", plain(peer), plain(local)),
            client: Client { peer, local, mechanism, protocol, properties: client_properties, connected_at_ms },
            caller: Caller { identity, origin: Origin::Connection(id) },
            vhost,
            frame_max: tuned.0,
            channel_max: tuned.1,
            heartbeat: tuned.2,
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

    /// A client is gone, its channels and consumers with it: its exclusive queues go too.
    pub async fn disconnected(&self, connection: &Connection) {
        let connections = &self.node().connections;
        if connections.open.lock().remove(&connection.id).is_some() {
            connections.churn.connections_closed.fetch_add(1, Relaxed);
        }
        self.delete_exclusive_queues(connection.id).await;
    }

    /// Whether the connection holds bytes of a message that has not come in full, and such messages of all connections fill the
    /// memory budget: it is held back, and might wait for itself.
    pub fn waits_for_itself(&self, connection: &Connection) -> bool {
        connection.holds_incomplete() && self.memory().is_filled_by_incomplete()
    }

    /// The clients that are connected, oldest first.
    pub fn connections(&self) -> Vec<Arc<Connection>> {
        self.node().connections.open.lock().values().cloned().collect()
    }

    /// Makes a client go, telling it `reason`.
    pub fn close_connection(&self, _caller: &Caller, connection: &Connection, reason: &str) {
        *connection.close_reason.lock() = reason.to_owned();
        connection.close.cancel();
    }

    /// What came and went since the start. Channels are counted by whoever opens them.
    pub fn churn(&self) -> &Churn {
        &self.node().connections.churn
    }
}

/// An address as people write it: IPv4 plainly, also where the socket is one of IPv6 that takes both.
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
