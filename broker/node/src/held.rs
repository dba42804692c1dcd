//! Incomplete messages: the memory that clients make the broker hold outside the queues.
//!
//! The bytes of incomplete messages count against the memory budget and also against a limit per connection. If the
//! incomplete messages of many connections fill the budget, none of them can ever be completed, because their publishers
//! are held back. Publishers that have waited for a while are then disconnected ([`Memory::is_filled_by_incomplete`]).
use crate::Broker;
use crate::connections::Connection;
use crate::memory::Memory;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// The account of one incomplete message; its bytes count until it is dropped.
pub struct HeldBytes {
    memory: Arc<Memory>,
    connection: Arc<Connection>,
    bytes: u64,
    connection_max: u64,
    /// The limit of the connection in bytes while the memory budget is used up.
    connection_max_then: u64,
}

/// The error for a connection that holds more bytes of incomplete messages than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "incomplete messages of this connection take {bytes} bytes, more than the {max} allowed: publish on fewer channels \
     at a time"
)]
pub struct TooMuchHeld {
    /// The bytes that the connection holds.
    pub bytes: u64,
    /// The limit in bytes.
    pub max: u64,
}

impl Broker {
    /// Opens an account for an incomplete message of this connection, which holds no bytes yet.
    pub fn hold(&self, connection: &Arc<Connection>) -> HeldBytes {
        let memory = self.node().memory.clone();
        let messages = self.options().message_bytes_max.saturating_mul(CONNECTION_MESSAGES);
        let connection_max = (memory.max() / CONNECTION_OF_BUDGET).max(messages);
        HeldBytes { memory, connection: connection.clone(), bytes: 0, connection_max, connection_max_then: messages }
    }
}

impl HeldBytes {
    /// Sets the number of bytes that the incomplete message takes now.
    ///
    /// # Errors
    /// [`TooMuchHeld`] if the connection exceeds its limit and has to be ended.
    pub fn set(&mut self, bytes: u64) -> Result<(), TooMuchHeld> {
        let before = std::mem::replace(&mut self.bytes, bytes);
        self.memory.account_incomplete(before, bytes);
        let change = bytes.wrapping_sub(before);
        let bytes = self.connection.incomplete_bytes.fetch_add(change, Relaxed).wrapping_add(change);
        let max = if self.memory.is_memory_alarmed() { self.connection_max_then } else { self.connection_max };
        if bytes > max { Err(TooMuchHeld { bytes, max }) } else { Ok(()) }
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        let _ = self.set(0);
    }
}

/// A connection may hold an eighth of the memory budget, but at least `CONNECTION_MESSAGES` messages of the largest size;
/// only these while the budget is used up.
const CONNECTION_OF_BUDGET: u64 = 8;
const CONNECTION_MESSAGES: u64 = 4;

#[cfg(test)]
mod tests {
    use crate::Options;
    use crate::test_node::connection;

    use super::*;

    #[tokio::test]
    async fn a_connection_may_hold_less_when_memory_is_used_up() {
        let broker = Broker::start(Options { memory_max: 10_000, message_bytes_max: 100, ..Options::default() });
        let (one, other) = (connection(&broker), connection(&broker));
        let (mut held, mut others) = (broker.hold(&one), broker.hold(&other));
        assert_eq!(held.set(1250), Ok(()));
        let many: Vec<_> = (0..7).map(|_| connection(&broker)).collect();
        let mut all: Vec<_> = many.iter().map(|connection| broker.hold(connection)).collect();
        all.iter_mut().for_each(|held| held.set(1250).unwrap());
        assert_eq!(others.set(400), Ok(()), "that much it may hold in any case");
        assert_eq!(others.set(401), Err(TooMuchHeld { bytes: 401, max: 400 }));
        broker.stop();
    }

    #[tokio::test]
    async fn held_bytes_count_until_they_are_dropped_and_have_a_bound() {
        let broker = Broker::start(Options { memory_max: 1000, message_bytes_max: 300, ..Options::default() });
        let (one, other) = (connection(&broker), connection(&broker));
        let (mut first, mut second) = (broker.hold(&one), broker.hold(&one));
        assert_eq!((first.set(1000), first.set(700), second.set(500)), (Ok(()), Ok(()), Ok(())));
        assert_eq!(second.set(501), Err(TooMuchHeld { bytes: 1201, max: 1200 }));
        assert_eq!(broker.hold(&other).set(100), Ok(()), "the other one has its own");
        let memory = broker.memory();
        assert!(memory.is_alarmed() && memory.is_filled_by_incomplete());
        drop(first);
        assert_eq!(memory.contents(), 501);
        assert!(memory.is_filled_by_incomplete());
        assert_eq!(second.set(200), Ok(()));
        assert!(!memory.is_filled_by_incomplete());
        drop(second);
        assert_eq!((memory.contents(), one.incomplete_bytes.load(Relaxed)), (0, 0));
    }
}
