//! The door for messages: routed once a run, copied into each queue under its lock, handed on at once.
use crate::Broker;
use crate::queue::Queue;
use leveret_engine::queue::{Extent, Publish};
use leveret_model::refusal::Refusal;
use leveret_model::table::FieldTable;
use smallvec::SmallVec;
use std::sync::Arc;
use std::time::Duration;

/// Where messages with one exchange and routing key go, as the catalog stood.
pub struct Route {
    generation: u64,
    /// Exchange.
    pub exchange: Box<[u8]>,
    /// Routing key.
    pub routing_key: Box<[u8]>,
    /// The answer depends on a message's headers: it is good for that message alone.
    pub by_headers: bool,
    queues: SmallVec<[Arc<Queue>; 2]>,
}

impl Route {
    /// Whether no queue gets the messages.
    pub fn is_unroutable(&self) -> bool {
        self.queues.is_empty()
    }
}

impl Broker {
    /// Where messages go. `headers` are those of the message, if it has any.
    ///
    /// # Errors
    /// A missing exchange, an internal one, CC or BCC headers that are no arrays.
    pub fn route(
        &self,
        vhost: &str,
        exchange: &str,
        routing_key: &[u8],
        headers: Option<&FieldTable>,
    ) -> Result<Route, Refusal> {
        let generation = self.generation();
        let mut ids = SmallVec::new();
        let by_headers = self.catalog().route(vhost, exchange, routing_key, headers, &mut ids)?.by_headers;
        let queues = {
            let queues = self.queues();
            ids.iter().filter_map(|id| queues.get(id).cloned()).collect()
        };
        let (exchange, routing_key) = (exchange.as_bytes().into(), routing_key.into());
        Ok(Route { generation, exchange, routing_key, by_headers, queues })
    }

    /// Whether nothing was declared, bound or deleted since the route was made.
    #[inline]
    pub fn is_current(&self, route: &Route) -> bool {
        route.generation == self.generation()
    }

    /// Puts messages into the queues of a route. Returns the slowest of them if its consumers cannot follow.
    pub fn publish(&self, route: &Route, bytes: &[u8], messages: &[Extent]) -> Option<Arc<Queue>> {
        let publish = Publish { exchange: &route.exchange, routing_key: &route.routing_key, bytes, messages };
        let now = self.clock().now();
        let mut outrunning = None;
        for queue in &route.queues {
            let mut entered = queue.enter();
            if queue.is_deleted() {
                continue;
            }
            entered.enqueue(&publish, now);
            entered.dispatch(now);
            drop(entered);
            if queue.is_outrunning() {
                outrunning = Some(queue.clone());
            }
        }
        outrunning
    }
}

impl Queue {
    /// Waits until the consumers of a queue that is outrunning them have caught up, at most 5 ms: publishers are
    /// slowed down to the speed of the consumers, and stopped by the memory budget alone.
    pub async fn let_consumers_catch_up(&self) {
        let waiting = self.room().notified();
        if self.is_outrunning() {
            let _ = tokio::time::timeout(CATCH_UP_MAX, waiting).await;
        }
    }
}

const CATCH_UP_MAX: Duration = Duration::from_millis(5);
