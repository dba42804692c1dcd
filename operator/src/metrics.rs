//! The operator's own metrics.
use prometheus::{Encoder, HistogramVec, IntCounterVec, IntGauge, Registry, TextEncoder, histogram_opts, opts};
use std::time::Duration;

/// The metrics. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Metrics {
    registry: Registry,
    reconciles: IntCounterVec,
    durations: HistogramVec,
    leader: IntGauge,
    watch_errors: IntCounterVec,
}

impl Metrics {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let registry = Registry::new();
        let help = "Reconciliations by what was reconciled (broker, topology) and result (ok, failed).";
        let reconciles = IntCounterVec::new(opts!("leveret_operator_reconciles_total", help), &["kind", "result"])?;
        let bounds = vec![0.005, 0.02, 0.1, 0.5, 2.0, 10.0];
        let options = histogram_opts!("leveret_operator_reconcile_seconds", "How long a reconciliation takes.", bounds);
        let durations = HistogramVec::new(options, &["kind"])?;
        let leader = IntGauge::new("leveret_operator_is_leader", "Whether this operator is the one that works.")?;
        let help = "Watches that were refused or broke, by kind. Changes of its objects are not seen meanwhile.";
        let watch_errors = IntCounterVec::new(opts!("leveret_operator_watch_errors_total", help), &["kind"])?;
        registry.register(Box::new(watch_errors.clone()))?;
        registry.register(Box::new(reconciles.clone()))?;
        registry.register(Box::new(durations.clone()))?;
        registry.register(Box::new(leader.clone()))?;
        Ok(Self { registry, reconciles, durations, leader, watch_errors })
    }

    /// Counts a reconciliation of a `kind` (broker, topology) and the time that it took.
    pub(crate) fn reconciled(&self, kind: &str, took: Duration, failed: bool) {
        self.reconciles.with_label_values(&[kind, if failed { "failed" } else { "ok" }]).inc();
        self.durations.with_label_values(&[kind]).observe(took.as_secs_f64());
    }

    pub(crate) fn watch_failed(&self, kind: &str) {
        self.watch_errors.with_label_values(&[kind]).inc();
    }

    pub(crate) fn set_leader(&self, leader: bool) {
        self.leader.set(i64::from(leader));
    }

    /// Returns all metrics in the text format of Prometheus.
    pub(crate) fn text(&self) -> String {
        let mut text = Vec::new();
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }
}
