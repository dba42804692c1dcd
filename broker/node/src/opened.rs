//! Channels and consumers: each takes memory for as long as it is open, whatever goes through it.
//!
//! It counts against the memory budget, and all of a node together may take a part of it. Without that, connections that
//! are within their own limits could open so many that nothing is left for messages.
use crate::Broker;
use crate::memory::Memory;
use std::sync::Arc;

/// Memory of something that is open; it counts until this is dropped.
pub struct Opened {
    memory: Arc<Memory>,
    bytes: u64,
}

/// What is open on this node takes as much memory as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("channels and consumers of this node take the {max} bytes that they may, a quarter of memory_max")]
pub struct TooMuchOpened {
    /// The limit in bytes.
    pub max: u64,
}

impl Broker {
    /// Counts something that is opened now and takes `bytes`.
    ///
    /// # Errors
    /// [`TooMuchOpened`]: it is not to be opened.
    pub fn count_opened(&self, bytes: u64) -> Result<Opened, TooMuchOpened> {
        let memory = self.node().memory.clone();
        let max = memory.max() / OPENED_PART;
        if !memory.account_opened(bytes, max) {
            return Err(TooMuchOpened { max });
        }
        Ok(Opened { memory, bytes })
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.memory.release_opened(self.bytes);
    }
}

/// All channels and consumers may take this part of the memory budget.
const OPENED_PART: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;

    #[tokio::test]
    async fn what_is_open_takes_a_part_of_the_budget_and_gives_it_back() {
        let broker = Broker::start(Options { memory_max: 4000, ..Options::default() });
        let first = broker.count_opened(600).unwrap();
        let second = broker.count_opened(400).unwrap();
        assert_eq!(broker.memory().contents(), 1000);
        assert_eq!(broker.count_opened(1).err(), Some(TooMuchOpened { max: 1000 }));
        drop(second);
        let third = broker.count_opened(300).unwrap();
        drop((first, third));
        assert_eq!(broker.memory().contents(), 0);
        broker.stop();
    }
}
