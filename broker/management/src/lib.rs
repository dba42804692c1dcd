//! The management HTTP API, health checks and metrics.
use leveret_node::Broker;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Serves the management API until `stop` is cancelled.
pub async fn serve_http(listener: TcpListener, _broker: Broker, stop: CancellationToken) {
    stop.cancelled().await;
    drop(listener);
}

/// Serves `/metrics` until `stop` is cancelled.
pub async fn serve_metrics(listener: TcpListener, _broker: Broker, stop: CancellationToken) {
    stop.cancelled().await;
    drop(listener);
}
