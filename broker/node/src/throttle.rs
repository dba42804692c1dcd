//! The reasons to hold a publisher back, whatever its protocol: consumers or a log that are too slow, and memory or a disk
//! that is used up. The protocol notes what its client publishes, and stops reading from it while the throttle says so.
use crate::memory::Memory;
use crate::outgoing::OutgoingQueue;
use crate::publish::Lag;
use crate::queue::Queue;
use std::sync::Arc;
use std::time::Duration;

/// The publishes of a connection for which it may be held back.
#[derive(Default)]
pub struct Throttle {
    /// A queue that was published to lately and whose consumers or log are too slow.
    lagging: Option<Arc<Queue>>,
    /// Messages to the node that this queue lives on, which have to be sent first.
    sending: Option<OutgoingQueue>,
    /// Decides how long the client waits for such consumers.
    pace: PublisherPace,
    /// True if something was published since [`is_alarmed`](Self::is_alarmed) was last asked.
    published: bool,
}

impl Throttle {
    /// Notes that the client publishes.
    #[inline]
    pub fn note_publish(&mut self) {
        self.published = true;
    }

    /// Returns whether the client has published since [`is_alarmed`](Self::is_alarmed) was last asked.
    pub fn has_published(&self) -> bool {
        self.published
    }

    /// Notes the messages that went to queues whose consumers or log are too slow.
    pub fn note_lag(&mut self, lag: Option<Lag>) {
        if let Some(lag) = lag {
            self.pace.published(lag.messages, lag.body_bytes);
            self.lagging = Some(lag.queue);
            self.sending = lag.sending;
        }
    }

    /// Returns whether there is a reason to wait for [`until_caught_up`](Self::until_caught_up).
    pub fn lags(&self) -> bool {
        self.lagging.is_some()
    }

    /// Waits until the log takes further publishes to the queues that lag, and until their consumers have caught up a bit.
    pub async fn until_caught_up(&mut self) {
        let Some(queue) = self.lagging.take() else { return };
        queue.until_logged().await;
        if let Some(sending) = self.sending.take() {
            sending.until_room().await;
        }
        if let Some((limit, messages)) = self.pace.wait() {
            let kept_up = queue.let_consumers_catch_up(limit, messages).await;
            self.pace.waited(kept_up);
        }
    }

    /// Returns whether the client has published since the last call while memory or the disk is used up. It then has to wait
    /// for [`Memory::until_cleared`].
    pub fn is_alarmed(&mut self, memory: &Memory) -> bool {
        std::mem::take(&mut self.published) && memory.is_alarmed()
    }
}

/// The time that a publisher waits for the consumers of its messages. It is proportional to their number and size, so
/// that a publisher is never slowed below 24 MiB of large messages or 100,000 small ones per second; a publisher seldom
/// waits if waiting does not help.
#[derive(Default)]
struct PublisherPace {
    /// The bytes that were published to queues with slow consumers and were not waited for yet. A message counts as
    /// [`MESSAGE_BYTES`] more.
    bytes: u64,
    /// The number of these messages.
    messages: u64,
    /// Bytes to be published before the next wait.
    pass_over: u64,
    /// The number of waits in a row that did not help.
    in_vain: u32,
}

impl PublisherPace {
    /// Notes messages that were published to a queue whose consumers are too slow.
    fn published(&mut self, messages: u64, body_bytes: u64) {
        self.messages += messages;
        self.bytes += messages * MESSAGE_BYTES + body_bytes;
    }

    /// Returns how long to wait now, and for the consumption of how many messages; `None` if there is nothing to wait
    /// for.
    fn wait(&mut self) -> Option<(Duration, u64)> {
        if self.bytes < self.pass_over.max(WAIT_FOR_BYTES) {
            return None;
        }
        let (bytes, messages) = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.messages));
        let limit = Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / PACE_BYTES).min(WAIT_MAX);
        Some((limit, messages))
    }

    /// Notes whether the consumers caught up during a wait.
    fn waited(&mut self, kept_up: bool) {
        self.in_vain = if kept_up { 0 } else { (self.in_vain + 1).min(IN_VAIN_MAX) };
        self.pass_over = if kept_up { 0 } else { WAIT_FOR_BYTES << self.in_vain };
    }
}

/// The rate below which a publisher is not slowed, in bytes per second.
const PACE_BYTES: u64 = 24 << 20;
/// The bytes that a message counts as in addition to its body.
const MESSAGE_BYTES: u64 = 224;
/// The bytes that are published before a wait is worth its cost.
const WAIT_FOR_BYTES: u64 = 128 << 10;
const WAIT_MAX: Duration = Duration::from_millis(50);
/// After this many waits in a row that did not help, the next one comes after 64 MiB.
const IN_VAIN_MAX: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishers_wait_in_proportion_and_seldom_if_waiting_does_not_help() {
        let mut pace = PublisherPace::default();
        pace.published(100, 100);
        assert_eq!(pace.wait(), None, "too little to wait for");
        pace.published(1000, 16_000);
        let (limit, messages) = pace.wait().unwrap();
        assert_eq!(messages, 1100);
        assert!(limit > Duration::from_millis(8) && limit < Duration::from_millis(12), "{limit:?}");
        let mut waits = 0;
        for _ in 0..100_000 {
            pace.published(100, 1600);
            if pace.wait().is_some() {
                pace.waited(false);
                waits += 1;
            }
        }
        assert!((10..60).contains(&waits), "{waits} waits that did not help");
        pace.waited(true);
        pace.published(1000, 16_000);
        assert!(pace.wait().is_some(), "it helps again");
    }
}
