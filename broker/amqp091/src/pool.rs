//! The resources that the connections of a listener share: read buffers, which are lent while they hold bytes, and turns.
use crate::connection::turn::Turns;
use parking_lot::Mutex;

/// Read buffers for the connections of a listener, and the count of readers that wait for their turn.
#[derive(Default)]
pub(crate) struct Pool {
    /// Empty buffers that no connection uses.
    buffers: Mutex<Vec<Vec<u8>>>,
    /// The length of a turn, which depends on how many readers wait.
    pub(crate) turns: Turns,
}

impl Pool {
    /// Returns an empty buffer.
    pub(crate) fn take(&self) -> Vec<u8> {
        self.buffers.lock().pop().unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES))
    }

    /// Takes a buffer back. It is freed if there are too many, or if it is too small or has grown.
    pub(crate) fn give_back(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() < BUFFER_BYTES || buffer.capacity() > BUFFER_BYTES * 2 {
            return;
        }
        buffer.clear();
        let mut pool = self.buffers.lock();
        if pool.len() < BUFFERS_MAX {
            pool.push(buffer);
        }
    }
}

/// The size of a buffer, in bytes: one read can take as much.
const BUFFER_BYTES: usize = 512 << 10;
/// The most buffers that are kept.
const BUFFERS_MAX: usize = 8;
