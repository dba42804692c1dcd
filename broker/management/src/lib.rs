//! The management HTTP API, the health checks and the metrics: RabbitMQ's paths, bodies and status codes.
//!
//! The modules in the order in which a request passes through them: `server` serves a bounded number of connections,
//! which `leveret_listener` accepts, `socket` tracks how long each client has kept the broker waiting, `request` takes
//! a request through login, body and turn within its deadlines, `login` authenticates, `router` maps paths to handlers,
//! `routes` holds the handlers (one file per resource), `json` converts field tables and reads request bodies, `list`
//! pages, filters and sorts, `walk` reads and writes long answers in pieces, `rates` computes figures per second,
//! `error` formats refusals. `metrics` is the listener that Prometheus scrapes.
mod api;
mod bounds;
mod error;
mod figures;
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

/// Serves the management API and the health checks until `stop` is cancelled, within [`Bounds::http`] but with as many
/// connections as the node's limits allow.
///
/// Registers the address of `listener` with the broker. The future ends when the requests in progress have been answered.
pub fn serve_http(listener: TcpListener, broker: Broker, stop: CancellationToken) -> BoxFuture<'static, ()> {
    let connections_max = broker.limits().http_connections_max as usize;
    serve_http_within(listener, broker, Bounds { connections_max, ..Bounds::http() }, stop)
}

/// Serves the management API and the health checks within `bounds` until `stop` is cancelled.
///
/// Otherwise like [`serve_http`]. The future is boxed so that all of it is compiled here, once, and not in each program
/// that awaits it.
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

/// Serves `/metrics` until `stop` is cancelled, within [`Bounds::metrics`] but with as many connections as the node's
/// limits allow.
///
/// Registers the address of `listener` with the broker. The future ends when the requests in progress have been answered.
pub fn serve_metrics(listener: TcpListener, broker: Broker, stop: CancellationToken) -> BoxFuture<'static, ()> {
    let connections_max = broker.limits().metrics_connections_max as usize;
    serve_metrics_within(listener, broker, Bounds { connections_max, ..Bounds::metrics() }, stop)
}

/// Serves `/metrics` within `bounds` until `stop` is cancelled; like [`serve_metrics`].
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
