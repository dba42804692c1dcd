//! Health checks and metrics of the operator itself.
use crate::metrics::Metrics;
use crate::watchdog::Watchdog;
use anyhow::Context;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use std::time::Instant;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Serves `/healthz`, `/readyz` and `/metrics` at `address` until `stop` is cancelled.
///
/// # Errors
/// The address cannot be listened on.
pub(crate) async fn serve(
    address: &str,
    metrics: Metrics,
    watchdog: Watchdog,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let listener = match TcpListener::bind(address).await {
        Err(_) if address.starts_with("[::]") => TcpListener::bind(address.replace("[::]", "0.0.0.0")).await,
        bound => bound,
    };
    let listener = listener.with_context(|| format!("cannot listen at {address} for health checks and metrics"))?;
    let router = Router::new()
        .route("/healthz", get(move || async move { health(&watchdog, Instant::now()) }))
        .route("/readyz", get(|| async { "ok" }))
        .route("/metrics", get(move || async move { metrics.text() }));
    tokio::spawn(async move {
        let _ = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
    });
    Ok(())
}

/// Returns the answer of `/healthz`: 200, or 503 with the name of a job that makes no progress.
fn health(watchdog: &Watchdog, now: Instant) -> (StatusCode, String) {
    match watchdog.hanging(now) {
        Some(job) => (StatusCode::SERVICE_UNAVAILABLE, format!("{job} makes no progress")),
        None => (StatusCode::OK, "ok".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_operator_with_a_job_that_hangs_is_not_healthy() {
        let watchdog = Watchdog::default();
        let later = Instant::now() + Duration::from_secs(3600);
        assert_eq!(health(&watchdog, later).0, StatusCode::OK);
        let _job = watchdog.begin("topology of Broker n/shop".to_owned());
        assert_eq!(health(&watchdog, Instant::now()).0, StatusCode::OK);
        let (status, text) = health(&watchdog, later);
        assert!(status == StatusCode::SERVICE_UNAVAILABLE && text.contains("n/shop"), "{text}");
    }
}
