//! The memory of open channels and consumers, each of which takes some for as long as it is open, however little it is
//! used.
//!
//! This memory counts against the memory budget, and all channels and consumers of a node may take only a part of the
//! budget. Without that limit, connections that are within their own limits could open so many that no memory is left for
//! messages.
use crate::Broker;
use crate::memory::Memory;
use std::sync::Arc;

/// The memory of an open channel or consumer, which counts until this is dropped.
pub struct OpenedMemory {
    memory: Arc<Memory>,
    bytes: u64,
}

/// The error for a channel or consumer that would exceed the limit for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("channels and consumers of this node may take no more than {max} bytes, a quarter of memory_max")]
pub struct TooMuchOpened {
    /// The limit in bytes.
    pub max: u64,
}

impl Broker {
    /// Counts a channel or consumer that is being opened and takes `bytes` bytes.
    ///
    /// # Errors
    /// [`TooMuchOpened`] if all of them would take more than a quarter of the memory budget: it must not be opened.
    pub fn count_opened(&self, bytes: u64) -> Result<OpenedMemory, TooMuchOpened> {
        let memory = self.node().memory.clone();
        let max = memory.max() / OPENED_PART;
        if !memory.account_opened(bytes, max) {
            return Err(TooMuchOpened { max });
        }
        Ok(OpenedMemory { memory, bytes })
    }
}

impl Drop for OpenedMemory {
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
    async fn open_channels_and_consumers_take_a_bounded_part_of_the_budget_until_they_are_closed() {
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
