//! What the connections of a listener share: read buffers, lent while they hold something, and turns.
use crate::connection::turn::Turns;
use parking_lot::Mutex;

/// A few buffers that go from hand to hand, and who waits for a turn.
#[derive(Default)]
pub(crate) struct Pool {
    buffers: Mutex<Vec<Vec<u8>>>,
    pub(crate) turns: Turns,
}

impl Pool {
    /// An empty buffer.
    pub(crate) fn take(&self) -> Vec<u8> {
        self.buffers.lock().pop().unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES))
    }

    /// Takes a buffer back; those that are too many, too small or have grown are freed.
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

/// What one read can take.
const BUFFER_BYTES: usize = 512 << 10;
const BUFFERS_MAX: usize = 8;
