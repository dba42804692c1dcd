//! Health checks and metrics of the operator itself.
use crate::metrics::Metrics;
use anyhow::Context;
use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Answers at `address` until `stop` is cancelled.
pub(crate) async fn serve(address: &str, metrics: Metrics, stop: CancellationToken) -> anyhow::Result<()> {
    let listener = match TcpListener::bind(address).await {
        Err(_) if address.starts_with("[::]") => TcpListener::bind(address.replace("[::]", "0.0.0.0")).await,
        bound => bound,
    };
    let listener = listener.with_context(|| format!("cannot listen at {address} for health checks and metrics"))?;
    let router = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(|| async { "ok" }))
        .route("/metrics", get(move || async move { metrics.text() }));
    tokio::spawn(async move {
        let _ = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
    });
    Ok(())
}
