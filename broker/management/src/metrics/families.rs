//! The metrics: those with names of our own, and the most used ones of RabbitMQ under its names.
use super::text::{Text, labels};
use crate::api::Api;
use crate::routes::overview::Totals;
use leveret_node::{Broker, Counters, DWELL_BOUNDS_SECONDS, Depth, Queue, QueueFigures};
use std::sync::atomic::Ordering::Relaxed;

/// A metric with one series per queue.
pub(super) struct Family {
    name: &'static str,
    help: &'static str,
    figure: Figure,
}

/// The kind of a metric, and how its value is read from a queue.
enum Figure {
    /// What the queue has, which the node knows that serves it.
    Gauge(fn(&Depth) -> u64),
    /// What each node has counted.
    Counter(fn(&Counters) -> u64),
    /// The bytes of memory on this node.
    Memory,
    /// The histogram of the times from arrival to delivery.
    Dwell,
}

impl Family {
    const fn new(name: &'static str, help: &'static str, figure: Figure) -> Self {
        Self { name, help, figure }
    }

    /// Writes the head of the family.
    pub(super) fn head(&self, text: &mut Text) {
        let kind = match self.figure {
            Figure::Gauge(_) | Figure::Memory => "gauge",
            Figure::Counter(_) => "counter",
            Figure::Dwell => "histogram",
        };
        text.head(self.name, self.help, kind);
    }

    /// Writes the samples of one queue. What another node knows better, and what is zero there too, is left out.
    pub(super) fn samples(&self, broker: &Broker, queue: &Queue, text: &mut Text) {
        let labels = labels(&[("vhost", &queue.vhost), ("queue", &queue.name)]);
        let QueueFigures { serves, depth, counters } = broker.figures_here(queue);
        let value = match self.figure {
            Figure::Gauge(_) if !serves => return,
            Figure::Gauge(figure) => figure(&depth),
            Figure::Counter(figure) => figure(&counters),
            Figure::Memory => queue.look(|queue| queue.memory_bytes()),
            Figure::Dwell if !serves && counters.delivered == 0 => return,
            Figure::Dwell => return self.buckets(queue, &labels, text),
        };
        if serves || value > 0 {
            text.sample(self.name, &labels, value as f64);
        }
    }

    fn buckets(&self, queue: &Queue, labels: &str, text: &mut Text) {
        let dwell = queue.look(|queue| queue.dwell().clone());
        let (bucket, mut cumulative) = (format!("{}_bucket", self.name), 0);
        for (bound, count) in DWELL_BOUNDS_SECONDS.iter().zip(dwell.counts()) {
            cumulative += count;
            text.sample(&bucket, &format!("{labels},le=\"{bound}\""), cumulative as f64);
        }
        let all = dwell.counts().iter().sum::<u64>() as f64;
        text.sample(&bucket, &format!("{labels},le=\"+Inf\""), all);
        text.sample(&format!("{}_sum", self.name), labels, dwell.sum_seconds());
        text.sample(&format!("{}_count", self.name), labels, all);
    }
}

const READY: Figure = Figure::Gauge(|now| now.ready);
const UNACKED: Figure = Figure::Gauge(|now| now.unacked);
const MESSAGES: Figure = Figure::Gauge(|now| now.ready + now.unacked);
const CONSUMERS: Figure = Figure::Gauge(|now| now.consumers as u64);

const READY_HELP: &str = "Messages ready for delivery.";
const UNACKED_HELP: &str = "Messages delivered and not acknowledged yet.";
const MESSAGES_HELP: &str = "Messages ready for delivery, or delivered and not acknowledged yet.";
const CONSUMERS_HELP: &str = "Consumers of the queue.";
const MEMORY_HELP: &str = "Bytes of memory that the messages of the queue and their index use.";

/// The metrics per queue under names of our own.
pub(super) static LEVERET: &[Family] = &[
    Family::new("leveret_queue_messages_ready", READY_HELP, READY),
    Family::new("leveret_queue_messages_unacked", UNACKED_HELP, UNACKED),
    Family::new("leveret_queue_consumers", CONSUMERS_HELP, CONSUMERS),
    Family::new("leveret_queue_memory_bytes", MEMORY_HELP, Figure::Memory),
    Family::new(
        "leveret_queue_messages_published_total",
        "Messages that entered the queue.",
        Figure::Counter(|now| now.published),
    ),
    Family::new(
        "leveret_queue_messages_delivered_total",
        "Messages delivered to consumers or by basic.get, redeliveries included.",
        Figure::Counter(|now| now.delivered),
    ),
    Family::new(
        "leveret_queue_messages_acked_total",
        "Messages acknowledged, or delivered without need for an acknowledgement.",
        Figure::Counter(|now| now.acked),
    ),
    Family::new(
        "leveret_queue_dwell_seconds",
        "Seconds from the arrival of a message in the queue to its delivery.",
        Figure::Dwell,
    ),
];

/// The metrics per queue under the names of RabbitMQ's `/metrics/per-object`.
pub(super) static RABBITMQ: &[Family] = &[
    Family::new("rabbitmq_queue_messages_ready", READY_HELP, READY),
    Family::new("rabbitmq_queue_messages_unacked", UNACKED_HELP, UNACKED),
    Family::new("rabbitmq_queue_messages", MESSAGES_HELP, MESSAGES),
    Family::new("rabbitmq_queue_consumers", CONSUMERS_HELP, CONSUMERS),
];

/// The metrics per queue under the names of RabbitMQ's `/metrics/detailed`, with the value of `family` that asks for them.
pub(super) static DETAILED: &[(&str, Family)] = &[
    ("queue_coarse_metrics", Family::new("rabbitmq_detailed_queue_messages_ready", READY_HELP, READY)),
    ("queue_coarse_metrics", Family::new("rabbitmq_detailed_queue_messages_unacked", UNACKED_HELP, UNACKED)),
    ("queue_coarse_metrics", Family::new("rabbitmq_detailed_queue_messages", MESSAGES_HELP, MESSAGES)),
    ("queue_consumer_count", Family::new("rabbitmq_detailed_queue_consumers", CONSUMERS_HELP, CONSUMERS)),
];

/// The totals of RabbitMQ that an answer contains.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Scope {
    /// All of them.
    All,
    /// All but those of `rabbitmq_queue_...`: the series per queue have these names.
    PerObject,
}

/// Writes the totals of all queues.
pub(super) fn totals(totals: &Totals, scope: Scope, text: &mut Text) {
    let (depth, counters) = (&totals.depth, &totals.counters);
    text.gauge("leveret_queues", "Queues.", totals.queues as f64);
    text.gauge("leveret_consumers", "Consumers of all queues.", depth.consumers as f64);
    text.gauge("leveret_messages_ready", READY_HELP, depth.ready as f64);
    text.gauge("leveret_messages_unacked", UNACKED_HELP, depth.unacked as f64);
    let help = "Messages that entered queues, counted once per queue.";
    text.counter("leveret_messages_published_total", help, counters.published as f64);
    let help = "Messages delivered to consumers or by basic.get, redeliveries included.";
    text.counter("leveret_messages_delivered_total", help, counters.delivered as f64);
    let help = "Messages acknowledged, or delivered without need for an acknowledgement.";
    text.counter("leveret_messages_acked_total", help, counters.acked as f64);
    text.gauge("rabbitmq_queues", "Queues.", totals.queues as f64);
    text.gauge("rabbitmq_consumers", "Consumers of all queues.", depth.consumers as f64);
    if scope == Scope::All {
        text.gauge("rabbitmq_queue_messages_ready", READY_HELP, depth.ready as f64);
        text.gauge("rabbitmq_queue_messages_unacked", UNACKED_HELP, depth.unacked as f64);
        text.gauge("rabbitmq_queue_messages", MESSAGES_HELP, (depth.ready + depth.unacked) as f64);
        text.gauge("rabbitmq_queue_consumers", "Consumers of all queues.", depth.consumers as f64);
    }
}

/// Writes how many queues have no series of their own in this answer.
pub(super) fn omitted(queues: usize, text: &mut Text) {
    let help = "Queues without series of their own in this answer; /metrics/per-object has the series of all queues.";
    text.gauge("leveret_queues_without_series", help, queues as f64);
}

/// Writes the metrics of the node.
pub(super) fn node(api: &Api, text: &mut Text) {
    let broker = &api.broker;
    let (connections, memory) = (broker.connections(), broker.memory());
    let channels: usize = connections.iter().map(|connection| connection.channels.lock().len()).sum();
    let (churn, descriptors) = (broker.churn(), leveret_node::descriptors());
    let [opened, closed] = [&churn.connections_opened, &churn.connections_closed].map(|count| count.load(Relaxed));
    let flag = |is: bool| f64::from(u8::from(is));
    text.head("leveret_build_info", "The version of the broker, as a label.", "gauge");
    text.sample("leveret_build_info", &labels(&[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
    text.gauge("leveret_uptime_seconds", "Seconds since the start of the broker.", broker.clock().now() as f64 * 1e-9);
    for prefix in ["leveret", "rabbitmq"] {
        text.gauge(&format!("{prefix}_connections"), "Open AMQP connections.", connections.len() as f64);
        text.gauge(&format!("{prefix}_channels"), "Open AMQP channels.", channels as f64);
        text.counter(&format!("{prefix}_connections_opened_total"), "AMQP connections opened.", opened as f64);
        text.counter(&format!("{prefix}_connections_closed_total"), "AMQP connections closed.", closed as f64);
    }
    let help = "Bytes of memory in use: those accounted for messages and clients, or those of the process if more.";
    text.gauge("leveret_memory_bytes", help, memory.used() as f64);
    let help = "The memory budget in bytes; beyond it publishers are held back.";
    text.gauge("leveret_memory_max_bytes", help, memory.max() as f64);
    text.gauge("rabbitmq_resident_memory_limit_bytes", help, memory.max() as f64);
    let help = "1 if publishers are held back because the memory budget is used up, else 0.";
    text.gauge("leveret_memory_alarm", help, flag(memory.is_memory_alarmed()));
    text.gauge("rabbitmq_alarms_memory_used_watermark", help, flag(memory.is_memory_alarmed()));
    let help =
        "1 if publishers are held back because the disk or the log is nearly full, here or on most nodes, else 0.";
    text.gauge("leveret_disk_alarm", help, flag(memory.is_disk_alarmed()));
    text.gauge("rabbitmq_alarms_free_disk_space_watermark", help, flag(memory.is_disk_alarmed()));
    let help = "Bytes of resident memory, as the kernel counts them.";
    text.gauge("process_resident_memory_bytes", help, memory.resident() as f64);
    text.gauge("rabbitmq_process_resident_memory_bytes", help, memory.resident() as f64);
    for prefix in ["", "rabbitmq_"] {
        text.gauge(&format!("{prefix}process_open_fds"), "Open file descriptors.", descriptors.open as f64);
        text.gauge(
            &format!("{prefix}process_max_fds"),
            "The most file descriptors that may be open.",
            descriptors.max as f64,
        );
    }
    storage(api, text);
}

fn storage(api: &Api, text: &mut Text) {
    let help = "Panics of tasks since the start. A panic after which the broker cannot go on ends it.";
    text.counter("leveret_panics_total", help, api.broker.panics() as f64);
    let Some(usage) = api.broker.storage_usage() else { return };
    let (segments, segments_max) = usage.log_segments;
    let free = "Free bytes of the disk.";
    text.gauge("leveret_disk_free_bytes", free, usage.disk_free as f64);
    text.gauge("rabbitmq_disk_space_available_bytes", free, usage.disk_free as f64);
    let least = "Publishers are held back while the disk has fewer free bytes than this.";
    text.gauge("leveret_disk_free_min_bytes", least, usage.disk_free_min as f64);
    text.gauge("rabbitmq_disk_space_available_limit_bytes", least, usage.disk_free_min as f64);
    text.gauge("leveret_log_segments", "Segments of the write-ahead log in use.", f64::from(segments));
    text.gauge("leveret_log_segments_max", "The most segments that the log may use.", f64::from(segments_max));
    text.counter(
        "leveret_log_written_bytes_total",
        "Bytes written to the write-ahead log.",
        usage.log_bytes_written as f64,
    );
    text.counter("leveret_log_syncs_total", "Syncs of the write-ahead log.", usage.log_syncs as f64);
    let help = "Queues that stopped delivering because contents cannot be read; the broker's log names the file.";
    text.gauge("leveret_unreadable_queues", help, usage.unreadable as f64);
}
