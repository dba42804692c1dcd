//! Rates per second: when a client asks for a queue, its counters are compared with those of an earlier request at least
//! `SPAN` ago. Nothing runs between requests, and a queue that nobody asks about costs nothing.
//!
//! The same comparison sums the counters of all queues, including queues that have been deleted since they were observed.
use leveret_node::{Broker, Counters, Depth, QueueFigures, QueueId};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::HashMap;

/// The last observation of each queue and of all queues together.
#[derive(Default)]
pub(crate) struct Rates(Mutex<Table>);

#[derive(Default)]
struct Table {
    queues: HashMap<QueueId, Observation>,
    /// The sums of the counters of all queues that were ever observed.
    totals: Counters,
    /// The last observation of the sums.
    broker: Observation,
}

#[derive(Clone, Copy, Default)]
struct Observation {
    /// The counters that are contained in the totals.
    counted: Counters,
    /// When the rates were last computed, in nanoseconds, and from which figures; `None` before the first observation.
    at: Option<u64>,
    counters: Counters,
    depth: Depth,
    rates: QueueRates,
}

/// The rates of a queue or of all queues, per second. Those of `ready` and `unacked` may be negative.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct QueueRates {
    publish: f64,
    deliver: f64,
    redeliver: f64,
    ack: f64,
    ready: f64,
    unacked: f64,
}

impl Rates {
    /// Records the figures of a queue at `now` (in nanoseconds), and returns its rates: those of the last `SPAN` or longer.
    ///
    /// Rates are zero until there are two observations at least `SPAN` apart.
    pub(crate) fn observe(&self, broker: &Broker, id: QueueId, figures: QueueFigures, now: u64) -> QueueRates {
        let QueueFigures { counters, depth, .. } = figures;
        let mut table = self.0.lock();
        let table = &mut *table;
        if table.queues.len() > 2 * broker.queue_count() + SPARE {
            table.queues.retain(|id, _| broker.queue(*id).is_some());
        }
        let last = table.queues.entry(id).or_default();
        let add = |total: &mut u64, now: u64, before: u64| *total += now.saturating_sub(before);
        add(&mut table.totals.published, counters.published, last.counted.published);
        add(&mut table.totals.delivered, counters.delivered, last.counted.delivered);
        add(&mut table.totals.redelivered, counters.redelivered, last.counted.redelivered);
        add(&mut table.totals.acked, counters.acked, last.counted.acked);
        last.counted = counters;
        last.compare(counters, depth, now)
    }

    /// Returns the summed counters and the rates of all queues. The caller has just observed each queue; `depth` is the sum
    /// of their depths.
    pub(crate) fn totals(&self, depth: Depth, now: u64) -> (Counters, QueueRates) {
        let mut table = self.0.lock();
        let totals = table.totals;
        (totals, table.broker.compare(totals, depth, now))
    }
}

impl Observation {
    fn compare(&mut self, counters: Counters, depth: Depth, now: u64) -> QueueRates {
        match self.at {
            Some(at) if now.saturating_sub(at) < SPAN => return self.rates,
            Some(at) => {
                let seconds = (now - at) as f64 * 1e-9;
                let rate = |now: u64, before: u64| (now as f64 - before as f64) / seconds;
                let (was, is) = (&self.counters, &counters);
                self.rates = QueueRates {
                    publish: rate(is.published, was.published),
                    deliver: rate(is.delivered, was.delivered),
                    redeliver: rate(is.redelivered, was.redelivered),
                    ack: rate(is.acked, was.acked),
                    ready: rate(depth.ready, self.depth.ready),
                    unacked: rate(depth.unacked, self.depth.unacked),
                };
            }
            None => {}
        }
        (self.at, self.counters, self.depth) = (Some(now), counters, depth);
        self.rates
    }
}

/// Returns the counters and rates of a queue or of the whole broker as the object `message_stats`.
pub(crate) fn message_stats(counters: Counters, rates: QueueRates) -> Value {
    json!({
        "publish": counters.published, "publish_details": {"rate": rates.publish},
        "deliver_get": counters.delivered, "deliver_get_details": {"rate": rates.deliver},
        "redeliver": counters.redelivered, "redeliver_details": {"rate": rates.redeliver},
        "ack": counters.acked, "ack_details": {"rate": rates.ack},
    })
}

/// Returns the numbers of messages with their rates, as fields of a queue or of `queue_totals`.
pub(crate) fn message_counts(depth: Depth, rates: QueueRates) -> [(&'static str, Value); 6] {
    [
        ("messages", json!(depth.ready + depth.unacked)),
        ("messages_details", json!({"rate": rates.ready + rates.unacked})),
        ("messages_ready", json!(depth.ready)),
        ("messages_ready_details", json!({"rate": rates.ready})),
        ("messages_unacknowledged", json!(depth.unacked)),
        ("messages_unacknowledged_details", json!({"rate": rates.unacked})),
    ]
}

/// The shortest time over which a rate is computed, in nanoseconds.
const SPAN: u64 = 5_000_000_000;
/// Observations of deleted queues are dropped once there are more than twice as many as queues, plus this number.
const SPARE: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use leveret_node::Options;

    const SECOND: u64 = 1_000_000_000;

    fn figures(published: u64, acked: u64) -> QueueFigures {
        let counters = Counters { published, delivered: published, redelivered: 0, acked };
        let depth = Depth { ready: published - acked, unacked: 0, body_bytes: 0, consumers: 0 };
        QueueFigures { serves: true, counters, depth }
    }

    #[tokio::test]
    async fn rates_cover_the_last_five_seconds_or_longer() {
        let (broker, rates) = (Broker::start(Options::default()), Rates::default());
        let observe = |at: u64, published, acked| rates.observe(&broker, QueueId(1), figures(published, acked), at);
        assert_eq!(observe(0, 100, 0), QueueRates::default());
        assert_eq!(observe(4 * SECOND, 500, 0), QueueRates::default());
        let found = observe(10 * SECOND, 1100, 500);
        assert_eq!((found.publish, found.ack, found.ready), (100.0, 50.0, 50.0));
        assert_eq!(observe(14 * SECOND, 9000, 500), found);
        assert_eq!(observe(20 * SECOND, 1100, 1100).ready, -60.0);
        assert_eq!(observe(30 * SECOND, 1100, 1100), QueueRates::default());
        broker.stop();
    }

    #[tokio::test]
    async fn totals_keep_the_counts_of_deleted_queues() {
        let (broker, rates) = (Broker::start(Options::default()), Rates::default());
        rates.observe(&broker, QueueId(1), figures(100, 40), 0);
        assert_eq!(rates.totals(Depth::default(), 0).0.published, 100);
        for number in 0..10_000 {
            rates.observe(&broker, QueueId(number), figures(100, 40), 0);
        }
        assert_eq!(rates.totals(Depth::default(), 6 * SECOND).0.acked, 10_000 * 40);
        assert!(rates.0.lock().queues.len() <= SPARE + 1);
        broker.stop();
    }
}
