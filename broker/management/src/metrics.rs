//! What Prometheus scrapes: read from the live queues at each scrape, nothing is registered a queue.
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use leveret_node::{Broker, Counters, DWELL_BOUNDS_SECONDS, Depth, Dwell};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};

pub(crate) async fn scrape(State(broker): State<Broker>) -> Response {
    let mut text = Vec::new();
    let encoder = TextEncoder::new();
    match encoder.encode(&families(&broker), &mut text) {
        Ok(()) => ([(CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response(),
        Err(error) => {
            tracing::error!("metrics cannot be encoded: {error}");
            axum::http::StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn families(broker: &Broker) -> Vec<MetricFamily> {
    let queues = queues(broker);
    let mut families = node(broker);
    families.extend(storage(broker));
    if queues.is_empty() {
        return families;
    }
    type Value = fn(&Seen) -> f64;
    let gauges: [(&str, &str, Value); 4] = [
        ("leveret_queue_messages_ready", "Messages that wait for a consumer.", |seen| seen.depth.ready as f64),
        ("leveret_queue_messages_unacked", "Messages delivered and not settled.", |seen| seen.depth.unacked as f64),
        ("leveret_queue_consumers", "Consumers.", |seen| seen.depth.consumers as f64),
        ("leveret_queue_memory_bytes", "Memory that messages and their index hold.", |seen| seen.memory as f64),
    ];
    for (name, help, value) in gauges {
        let metrics = queues.iter().map(|seen| gauge(&seen.labels, value(seen))).collect();
        families.push(family((name, help), MetricType::GAUGE, metrics));
    }
    let counters: [(&str, &str, Value); 3] = [
        ("leveret_queue_messages_published_total", "Messages that entered.", |seen| seen.counters.published as f64),
        ("leveret_queue_messages_delivered_total", "Deliveries and gets.", |seen| seen.counters.delivered as f64),
        ("leveret_queue_messages_acked_total", "Messages settled by consumers.", |seen| seen.counters.acked as f64),
    ];
    for (name, help, value) in counters {
        let metrics = queues.iter().map(|seen| counter(&seen.labels, value(seen))).collect();
        families.push(family((name, help), MetricType::COUNTER, metrics));
    }
    let help = "Time from a message's arrival in the queue to its delivery.";
    let metrics = queues.iter().map(|seen| histogram(&seen.labels, &seen.dwell)).collect();
    families.push(family(("leveret_queue_dwell_seconds", help), MetricType::HISTOGRAM, metrics));
    families
}

/// One queue at the moment of the scrape.
struct Seen {
    labels: Vec<LabelPair>,
    depth: Depth,
    counters: Counters,
    dwell: Dwell,
    memory: u64,
}

fn queues(broker: &Broker) -> Vec<Seen> {
    let ids: Vec<_> = {
        let catalog = broker.catalog();
        let vhosts = catalog.vhosts().filter_map(|vhost| catalog.queues(vhost).ok());
        vhosts.flatten().map(|(_, queue)| queue.id).collect()
    };
    let queues = ids.into_iter().filter_map(|id| broker.queue(id));
    queues
        .map(|queue| {
            let labels = vec![label("vhost", &queue.vhost), label("queue", &queue.name)];
            queue.look(|state| Seen {
                labels,
                depth: state.depth(),
                counters: state.counters(),
                dwell: state.dwell().clone(),
                memory: state.memory_bytes(),
            })
        })
        .collect()
}

fn node(broker: &Broker) -> Vec<MetricFamily> {
    let connections = broker.connections();
    let channels: usize = connections.iter().map(|connection| connection.channels.lock().len()).sum();
    let (opened, closed) = broker.connection_churn();
    let memory = broker.memory();
    let build = gauge(&[label("version", env!("CARGO_PKG_VERSION"))], 1.0);
    vec![
        family(("leveret_build_info", "The version that runs."), MetricType::GAUGE, vec![build]),
        one("leveret_connections", "Clients connected.", connections.len() as f64),
        one("leveret_channels", "Channels open.", channels as f64),
        total("leveret_connections_opened_total", "Connections opened.", opened as f64),
        total("leveret_connections_closed_total", "Connections closed.", closed as f64),
        one(
            "leveret_memory_bytes",
            "Memory in use: contents, or what the process holds if more.",
            memory.used() as f64,
        ),
        one("leveret_memory_max_bytes", "Memory budget, past which publishers are held back.", memory.max() as f64),
        one(
            "leveret_memory_alarm",
            "Whether publishers are held back for want of memory.",
            f64::from(u8::from(memory.is_over())),
        ),
        one(
            "leveret_disk_alarm",
            "Whether publishers are held back for want of room on the disk or in the log.",
            f64::from(u8::from(memory.is_disk_full())),
        ),
        one("process_resident_memory_bytes", "Memory that the kernel counts.", memory.resident() as f64),
        one("leveret_uptime_seconds", "Seconds since the start.", broker.clock().now() as f64 * 1e-9),
    ]
}

fn storage(broker: &Broker) -> Vec<MetricFamily> {
    let Some(usage) = broker.storage_usage() else { return Vec::new() };
    let (segments, segments_max) = usage.log_segments;
    vec![
        one("leveret_disk_free_bytes", "Bytes that the disk has free.", usage.disk_free as f64),
        one(
            "leveret_disk_free_min_bytes",
            "Free bytes of the disk, below which publishers are held back.",
            usage.disk_free_min as f64,
        ),
        one("leveret_log_segments", "Segments of the log in use.", f64::from(segments)),
        one("leveret_log_segments_max", "The most segments that the log may have.", f64::from(segments_max)),
        total("leveret_log_written_bytes_total", "Bytes written to the log.", usage.log_bytes_written as f64),
        total("leveret_log_syncs_total", "Syncs of the log.", usage.log_syncs as f64),
        one(
            "leveret_unreadable_queues",
            "Queues that stand still since their contents cannot be read: the log names the file.",
            usage.unreadable as f64,
        ),
    ]
}

/// A gauge without labels.
fn one(name: &str, help: &str, value: f64) -> MetricFamily {
    family((name, help), MetricType::GAUGE, vec![gauge(&[], value)])
}

/// A counter without labels.
fn total(name: &str, help: &str, value: f64) -> MetricFamily {
    family((name, help), MetricType::COUNTER, vec![counter(&[], value)])
}

fn family((name, help): (&str, &str), kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value.to_owned());
    label
}

fn gauge(labels: &[LabelPair], value: f64) -> Metric {
    let (mut metric, mut gauge) = (Metric::from_label(labels.to_vec()), Gauge::default());
    gauge.set_value(value);
    metric.set_gauge(gauge);
    metric
}

fn counter(labels: &[LabelPair], value: f64) -> Metric {
    let (mut metric, mut counter) = (Metric::from_label(labels.to_vec()), Counter::default());
    counter.set_value(value);
    metric.set_counter(counter);
    metric
}

fn histogram(labels: &[LabelPair], dwell: &Dwell) -> Metric {
    let (mut metric, mut histogram) = (Metric::from_label(labels.to_vec()), Histogram::default());
    let mut cumulative = 0;
    let mut buckets = Vec::with_capacity(DWELL_BOUNDS_SECONDS.len());
    for (bound, count) in DWELL_BOUNDS_SECONDS.iter().zip(dwell.counts()) {
        cumulative += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(cumulative);
        buckets.push(bucket);
    }
    histogram.set_bucket(buckets);
    histogram.set_sample_count(dwell.counts().iter().sum());
    histogram.set_sample_sum(dwell.sum_seconds());
    metric.set_histogram(histogram);
    metric
}
