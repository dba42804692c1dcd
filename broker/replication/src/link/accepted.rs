//! The connections that a node has accepted. Of those that another node has made for one lane, the newest counts: that
//! node has lost the earlier one, or was restarted.
use super::handshake::OtherSide;
use super::options::Lane;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio_util::sync::CancellationToken;

/// The accepted connections, by node and lane.
#[derive(Default)]
pub(super) struct AcceptedConnections {
    open: Mutex<BTreeMap<(u64, Lane), AcceptedConnection>>,
    newest: AtomicU64,
}

#[derive(Clone)]
pub(super) struct AcceptedConnection {
    pub(super) number: u64,
    boot: u64,
    /// Cancelled when the connection is to end.
    pub(super) end: CancellationToken,
    /// Cancelled when the connection has ended.
    pub(super) ended: CancellationToken,
}

impl AcceptedConnections {
    /// Adds a connection. Also returns the earlier connections of the node that it replaces: the one for the same lane,
    /// and those of another start of the node.
    pub(super) fn add(&self, other: OtherSide) -> (AcceptedConnection, Vec<AcceptedConnection>) {
        let number = self.newest.fetch_add(1, Relaxed);
        let (end, ended) = (CancellationToken::new(), CancellationToken::new());
        let connection = AcceptedConnection { number, boot: other.boot, end, ended };
        let mut open = self.open.lock();
        let replaced = |(node, lane): &(u64, Lane), earlier: &mut AcceptedConnection| {
            *node == other.node && (*lane == other.lane || earlier.boot != other.boot)
        };
        let replaced = open.extract_if(.., replaced).map(|(_, earlier)| earlier).collect();
        open.insert((other.node, other.lane), connection.clone());
        (connection, replaced)
    }

    pub(super) fn remove(&self, other: OtherSide, number: u64) {
        let mut open = self.open.lock();
        if open.get(&(other.node, other.lane)).is_some_and(|newest| newest.number == number) {
            open.remove(&(other.node, other.lane));
        }
    }
}
