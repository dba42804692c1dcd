//! The management HTTP API, the health checks and the metrics: RabbitMQ's paths, bodies and status codes.
//!
//! In the order of a request: `server` (connections, which `leveret_listener` accepts, and how many there may be), `socket` (what a connection waits for),
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
use futures::future::BoxFuture;
use leveret_node::Broker;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Serves the management API and the health checks until `stop` is cancelled. Ends when the requests in progress are answered.
pub fn serve_http(listener: TcpListener, broker: Broker, stop: CancellationToken) -> BoxFuture<'static, ()> {
    let connections_max = broker.limits().http_connections_max as usize;
    serve_http_within(listener, broker, Bounds { connections_max, ..Bounds::http() }, stop)
}

/// Serves the management API and the health checks within `bounds` until `stop` is cancelled.
///
/// The future is boxed so that all of it is compiled here, once, and not in each program that awaits it.
pub fn serve_http_within(
    listener: TcpListener,
    broker: Broker,
    bounds: Bounds,
    stop: CancellationToken,
) -> BoxFuture<'static, ()> {
    let api = Api::new(broker.clone(), bounds);
    let router = router::api(api.clone());
    let http = server::Http::new("http", request::Requests::new(api, router));
    Box::pin(leveret_listener::serve(listener, broker, http, stop))
}

/// Serves `/metrics` until `stop` is cancelled. Ends when the requests in progress are answered.
pub fn serve_metrics(listener: TcpListener, broker: Broker, stop: CancellationToken) -> BoxFuture<'static, ()> {
    let connections_max = broker.limits().metrics_connections_max as usize;
    serve_metrics_within(listener, broker, Bounds { connections_max, ..Bounds::metrics() }, stop)
}

/// Serves `/metrics` within `bounds` until `stop` is cancelled.
pub fn serve_metrics_within(
    listener: TcpListener,
    broker: Broker,
    bounds: Bounds,
    stop: CancellationToken,
) -> BoxFuture<'static, ()> {
    let api = Api::new(broker.clone(), bounds);
    let router = router::metrics(api.clone());
    let http = server::Http::new("http/prometheus", request::Requests::new(api, router));
    Box::pin(leveret_listener::serve(listener, broker, http, stop))
}
