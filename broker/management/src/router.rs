//! Which path goes where.
use crate::error::Error;
use crate::routes::{bindings, connections, exchanges, health, overview, queues, vhosts};
use crate::{login, metrics as scraped};
use axum::Router;
use axum::http::{Method, Uri};
use axum::routing::{get, post};
use leveret_node::Broker;
use std::time::Duration;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;

/// The management API, and health checks that ask for no login.
pub(crate) fn api(broker: Broker) -> Router {
    let api = Router::new()
        .route("/overview", get(overview::overview))
        .route("/whoami", get(overview::whoami))
        .route("/version", get(overview::version))
        .route("/nodes", get(overview::nodes))
        .route("/cluster-name", get(overview::cluster_name))
        .route("/vhosts", get(vhosts::list))
        .route("/vhosts/{vhost}", get(vhosts::get))
        .route("/exchanges", get(exchanges::list_all))
        .route("/exchanges/{vhost}", get(exchanges::list))
        .route("/exchanges/{vhost}/{name}", get(exchanges::get).put(exchanges::put).delete(exchanges::delete))
        .route("/exchanges/{vhost}/{name}/bindings/source", get(bindings::from_exchange))
        .route("/exchanges/{vhost}/{name}/bindings/destination", get(bindings::to_exchange))
        .route("/queues", get(queues::list_all))
        .route("/queues/{vhost}", get(queues::list))
        .route("/queues/{vhost}/{name}", get(queues::get).put(queues::put).delete(queues::delete))
        .route("/queues/{vhost}/{name}/contents", axum::routing::delete(queues::purge))
        .route("/queues/{vhost}/{name}/bindings", get(bindings::to_queue))
        .route("/bindings", get(bindings::list_all))
        .route("/bindings/{vhost}", get(bindings::list))
        .route("/bindings/{vhost}/e/{source}/{kind}/{destination}", get(bindings::between).merge(post(bindings::bind)))
        .route(
            "/bindings/{vhost}/e/{source}/{kind}/{destination}/{properties}",
            get(bindings::get).delete(bindings::unbind),
        )
        .route("/connections", get(connections::list))
        .route("/connections/{name}", get(connections::get).delete(connections::close))
        .route("/channels", get(connections::channels))
        .route("/health/checks/alarms", get(health::alarms))
        .route("/health/checks/local-alarms", get(health::alarms))
        .route("/health/checks/virtual-hosts", get(health::fine))
        .route("/health/checks/node-is-quorum-critical", get(health::fine))
        .route("/health/checks/is-in-service", get(health::fine))
        .route("/health/checks/ready-to-serve-clients", get(health::fine))
        .route("/health/checks/below-node-connection-limit", get(health::fine))
        .route("/health/checks/reached-target-cluster-size", get(health::fine))
        .layer(axum::middleware::from_fn_with_state(broker.clone(), login::require))
        .layer(axum::middleware::from_fn_with_state(broker.clone(), health::require_recovered));
    finish(
        Router::new()
            .nest("/api", api)
            .route("/health/live", get(health::fine))
            .route("/health/ready", get(health::ready)),
        broker,
    )
}

/// What Prometheus scrapes.
pub(crate) fn metrics(broker: Broker) -> Router {
    finish(Router::new().route("/metrics", get(scraped::scrape)), broker)
}

fn finish(router: Router<Broker>, broker: Broker) -> Router {
    router
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .with_state(broker)
        .layer(RequestBodyLimitLayer::new(BODY_MAX))
        .layer(TimeoutLayer::with_status_code(axum::http::StatusCode::REQUEST_TIMEOUT, REQUEST_MAX))
}

async fn not_found(uri: Uri) -> Error {
    Error::not_found(format!("there is no {}", uri.path()))
}

async fn not_allowed(method: Method, uri: Uri) -> Error {
    Error::method_not_allowed(format!("{method} is not for {}", uri.path()))
}

/// Largest body of a request, in bytes.
const BODY_MAX: usize = 1 << 20;
/// Longest that a request may take.
const REQUEST_MAX: Duration = Duration::from_secs(30);
