//! The management HTTP API, the health checks and the metrics: RabbitMQ's paths, bodies and status codes.
//!
//! In the order of a request: `router` (which route), `login` (who asks), `routes` (one file a resource), `json`
//! (tables to objects and back), `list` (pages, filters, columns), `error` (what a refusal looks like). `metrics` is
//! what Prometheus scrapes.
mod error;
mod json;
mod list;
mod login;
mod metrics;
mod router;
mod routes;

use leveret_node::Broker;
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Serves the management API and the health checks until `stop` is cancelled.
pub async fn serve_http(listener: TcpListener, broker: Broker, stop: CancellationToken) {
    serve(listener, router::api(broker), stop).await;
}

/// Serves `/metrics` until `stop` is cancelled.
pub async fn serve_metrics(listener: TcpListener, broker: Broker, stop: CancellationToken) {
    serve(listener, router::metrics(broker), stop).await;
}

async fn serve(listener: TcpListener, router: axum::Router, stop: CancellationToken) {
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let served = axum::serve(listener, service).with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!("the HTTP server ended: {error}");
    }
}
