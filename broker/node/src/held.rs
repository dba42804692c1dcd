//! Bytes that a client makes the broker hold outside the queues, counted against the memory budget: messages that have not
//! come in full.
use crate::Broker;
use crate::memory::Memory;
use std::sync::Arc;

/// An account of the memory budget; what it holds is given back when it is dropped.
pub struct Held {
    memory: Arc<Memory>,
    bytes: u64,
}

impl Broker {
    /// An account that holds nothing yet.
    pub fn hold(&self) -> Held {
        Held { memory: self.node().memory.clone(), bytes: 0 }
    }
}

impl Held {
    /// The account holds `bytes` from now on.
    pub fn set(&mut self, bytes: u64) {
        self.memory.account(self.bytes, bytes);
        self.bytes = bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_counts_until_it_is_dropped() {
        let memory = Arc::new(Memory::new(1000));
        let mut held = Held { memory: memory.clone(), bytes: 0 };
        held.set(1500);
        held.set(1200);
        assert!(memory.is_alarmed() && memory.used() == 1200);
        drop(held);
        assert_eq!(memory.used(), 0);
    }
}
