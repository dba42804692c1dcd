//! Figures for monitoring: the addresses on which the node listens, the number of its queues, their consumers, and the
//! number of open file descriptors.
use crate::{Broker, Queue};
use leveret_engine::queue::{Consumer, ConsumerId, ConsumerOwner};
use parking_lot::Mutex;
use std::net::SocketAddr;

/// A socket on which the node accepts clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The protocol, by the name that RabbitMQ gives it: `amqp`, `http`, `http/prometheus`.
    pub protocol: &'static str,
    /// The address of the socket.
    pub address: SocketAddr,
}

/// The sockets on which the node accepts clients.
#[derive(Default)]
pub(crate) struct Listeners(Mutex<Vec<Listener>>);

impl Broker {
    /// Notes that clients of `protocol` are accepted at `address`.
    pub fn add_listener(&self, protocol: &'static str, address: SocketAddr) {
        self.node().network.listeners.0.lock().push(Listener { protocol, address });
    }

    /// Returns the sockets on which clients are accepted, in the order in which the listeners were added.
    pub fn listeners(&self) -> Vec<Listener> {
        self.node().network.listeners.0.lock().clone()
    }

    /// Returns the number of queues.
    pub fn queue_count(&self) -> usize {
        self.queues().len()
    }
}

/// The properties of a queue's consumer that the management API shows.
#[derive(Clone, Debug)]
pub struct ConsumerView {
    /// The identity of the consumer within the queue.
    pub id: ConsumerId,
    /// The client behind the consumer; `None` if there is none.
    pub owner: Option<ConsumerOwner>,
    /// Set if the queue may have no other consumer.
    pub exclusive: bool,
    /// Set if deliveries need no acknowledgement.
    pub no_ack: bool,
    /// The number of unacknowledged deliveries that the consumer may have; 0 means no limit.
    pub prefetch: u32,
}

impl Queue {
    /// Returns at most `most` consumers that came after the consumer `after`, or the first ones if it is `None`, in the
    /// order in which they came.
    pub fn consumers_after(&self, after: Option<ConsumerId>, most: usize) -> Vec<ConsumerView> {
        self.look(|queue| {
            let view = |consumer: &Consumer| ConsumerView {
                id: consumer.id,
                owner: consumer.subscription.sink.owner(),
                exclusive: consumer.subscription.exclusive,
                no_ack: consumer.subscription.no_ack,
                prefetch: consumer.subscription.prefetch,
            };
            queue.consumers_after(after).take(most).map(view).collect()
        })
    }
}

/// The file descriptors of the process, for files and sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// The number of descriptors that are open.
    pub open: u64,
    /// The largest number of descriptors that may be open; `u64::MAX` if there is no limit.
    pub max: u64,
}

/// Returns the number of open file descriptors of this process, and their limit.
pub fn descriptors() -> Descriptors {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    // The size of this folder is the number of its entries since Linux 6.2; before that it is 0.
    let open = match std::fs::metadata(FOLDER) {
        Ok(folder) if folder.len() > 0 => folder.len(),
        _ => std::fs::read_dir(FOLDER).map_or(0, |entries| entries.count() as u64),
    };
    Descriptors { open, max: limit }
}

const FOLDER: &str = "/proc/self/fd";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;
    use crate::shards::Shards;
    use std::sync::Arc;

    #[test]
    fn open_descriptors_are_counted() {
        let before = descriptors();
        let files: Vec<_> = (0..50).map(|_| std::fs::File::open("/proc/self/stat").unwrap()).collect();
        let after = descriptors();
        drop(files);
        assert!(after.open >= before.open + 40 && after.max >= after.open, "{before:?} {after:?}");
    }

    #[tokio::test]
    async fn a_node_is_recovering_from_the_creation_of_its_shards_until_its_storage_is_open() {
        let broker = Broker::start(Options::default());
        assert!(!broker.is_recovering());
        let _ = broker.node().shards.set(Arc::new(Shards::new(1, 1, &broker.node().memory)));
        assert!(broker.is_recovering());
        broker.stop();
    }

    #[tokio::test]
    async fn listeners_are_returned_in_order() {
        let broker = Broker::start(Options::default());
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        broker.add_listener("amqp", at(5672));
        broker.add_listener("http", at(15672));
        let expected = [("amqp", at(5672)), ("http", at(15672))];
        assert_eq!(broker.listeners(), expected.map(|(protocol, address)| Listener { protocol, address }));
        broker.stop();
    }
}
