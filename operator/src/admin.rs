//! Health checks and metrics of the operator itself.
use crate::metrics::Metrics;
use crate::pulse::Pulse;
use anyhow::Context;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use std::time::Instant;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Answers at `address` until `stop` is cancelled.
pub(crate) async fn serve(
    address: &str,
    metrics: Metrics,
    pulse: Pulse,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let listener = match TcpListener::bind(address).await {
        Err(_) if address.starts_with("[::]") => TcpListener::bind(address.replace("[::]", "0.0.0.0")).await,
        bound => bound,
    };
    let listener = listener.with_context(|| format!("cannot listen at {address} for health checks and metrics"))?;
    let router = Router::new()
        .route("/healthz", get(move || async move { health(&pulse, Instant::now()) }))
        .route("/readyz", get(|| async { "ok" }))
        .route("/metrics", get(move || async move { metrics.text() }));
    tokio::spawn(async move {
        let _ = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
    });
    Ok(())
}

/// Whether the work goes on.
fn health(pulse: &Pulse, now: Instant) -> (StatusCode, String) {
    match pulse.hangs(now) {
        Some(what) => (StatusCode::SERVICE_UNAVAILABLE, format!("{what} comes no step further")),
        None => (StatusCode::OK, "ok".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn work_that_hangs_is_not_healthy() {
        let pulse = Pulse::default();
        let later = Instant::now() + Duration::from_secs(3600);
        assert_eq!(health(&pulse, later).0, StatusCode::OK);
        let _beat = pulse.begin("topology of Broker n/shop".to_owned());
        assert_eq!(health(&pulse, Instant::now()).0, StatusCode::OK);
        let (status, text) = health(&pulse, later);
        assert!(status == StatusCode::SERVICE_UNAVAILABLE && text.contains("n/shop"), "{text}");
    }
}
