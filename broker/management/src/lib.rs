//! The management HTTP API, the health checks and the metrics: RabbitMQ's paths, bodies and status codes.
//!
//! In the order of a request: `server` (connections and how many there may be), `socket` (what a connection waits for),
//! `request` (login, room, body, deadline), `login` (who asks), `router` (which route), `routes` (one file a resource),
//! `json` (tables to objects and back, bodies), `list` and `walk` (pages, filters, columns; read and written in pieces),
//! `rates` (what happened per second), `error` (what a refusal looks like). `metrics` is what Prometheus scrapes.
mod api;
mod bounds;
mod error;
mod json;
mod list;
mod login;
mod metrics;
mod rates;
mod request;
mod router;
mod routes;
mod server;
mod socket;
mod walk;

pub use bounds::Bounds;

use api::Api;
use leveret_node::Broker;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Serves the management API and the health checks until `stop` is cancelled.
pub async fn serve_http(listener: TcpListener, broker: Broker, stop: CancellationToken) {
    serve_http_within(listener, broker, Bounds::http(), stop).await;
}

/// Serves the management API and the health checks within `bounds` until `stop` is cancelled.
pub async fn serve_http_within(listener: TcpListener, broker: Broker, bounds: Bounds, stop: CancellationToken) {
    note(&listener, &broker, "http");
    let api = Api::new(broker, bounds);
    let router = router::api(api.clone());
    server::serve(listener, request::Requests::new(api, router), stop).await;
}

/// Serves `/metrics` until `stop` is cancelled.
pub async fn serve_metrics(listener: TcpListener, broker: Broker, stop: CancellationToken) {
    serve_metrics_within(listener, broker, Bounds::metrics(), stop).await;
}

/// Serves `/metrics` within `bounds` until `stop` is cancelled.
pub async fn serve_metrics_within(listener: TcpListener, broker: Broker, bounds: Bounds, stop: CancellationToken) {
    note(&listener, &broker, "http/prometheus");
    let api = Api::new(broker, bounds);
    let router = router::metrics(api.clone());
    server::serve(listener, request::Requests::new(api, router), stop).await;
}

fn note(listener: &TcpListener, broker: &Broker, protocol: &'static str) {
    if let Ok(address) = listener.local_addr() {
        broker.add_listener(protocol, address);
    }
}
