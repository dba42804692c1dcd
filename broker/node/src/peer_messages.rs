//! Hands the messages of other nodes to whoever registered for their channel.
//!
//! Channels: 1 what the nodes report of themselves (`cluster`).
use bytes::Bytes;
use leveret_replication::{LinkDirection, PeerMessages};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The receivers of messages, by channel.
#[derive(Default)]
pub(crate) struct MessageChannels(RwLock<BTreeMap<u8, Arc<dyn PeerMessages>>>);

impl MessageChannels {
    /// Has `receiver` get the messages of a channel, and all notices of connections. To be called before the links are
    /// opened, so that the receiver misses no notice.
    ///
    /// # Panics
    /// If the channel has a receiver already.
    pub(crate) fn register(&self, channel: u8, receiver: Arc<dyn PeerMessages>) {
        let earlier = self.0.write().insert(channel, receiver);
        assert!(earlier.is_none(), "channel {channel} has two receivers");
    }

    fn all(&self) -> Vec<Arc<dyn PeerMessages>> {
        self.0.read().values().cloned().collect()
    }
}

impl PeerMessages for MessageChannels {
    fn received(&self, from: u64, channel: u8, message: Bytes) {
        let receiver = self.0.read().get(&channel).cloned();
        match receiver {
            Some(receiver) => receiver.received(from, channel, message),
            None => tracing::debug!(from, channel, "a message for a channel that this version does not know"),
        }
    }

    fn connected(&self, node: u64, boot: u64, direction: LinkDirection) {
        self.all().iter().for_each(|receiver| receiver.connected(node, boot, direction));
    }

    fn disconnected(&self, node: u64, boot: u64, direction: LinkDirection) {
        self.all().iter().for_each(|receiver| receiver.disconnected(node, boot, direction));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl PeerMessages for Heard {
        fn received(&self, from: u64, channel: u8, message: Bytes) {
            self.0.lock().push(format!("{from} {channel} {}", message.len()));
        }
        fn connected(&self, node: u64, _: u64, _: LinkDirection) {
            self.0.lock().push(format!("+{node}"));
        }
        fn disconnected(&self, node: u64, _: u64, _: LinkDirection) {
            self.0.lock().push(format!("-{node}"));
        }
    }

    #[test]
    fn each_channel_has_its_receiver_and_all_get_the_notices() {
        let channels = MessageChannels::default();
        let (one, two) = (Arc::new(Heard::default()), Arc::new(Heard::default()));
        channels.register(1, one.clone());
        channels.register(2, two.clone());
        channels.connected(7, 1, LinkDirection::Incoming);
        channels.received(7, 2, Bytes::from_static(b"ab"));
        channels.received(7, 9, Bytes::from_static(b"lost"));
        channels.disconnected(7, 1, LinkDirection::Incoming);
        assert_eq!(*one.0.lock(), ["+7", "-7"]);
        assert_eq!(*two.0.lock(), ["+7", "7 2 2", "-7"]);
    }
}
