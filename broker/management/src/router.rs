//! The routes: which handler answers which path and method.
use crate::api::Api;
use crate::error::ApiError;
use crate::metrics as scraped;
use crate::routes::{
    access, bindings, channels, cluster, connections, consumers, exchanges, health, nodes, overview, queues, vhosts,
};
use axum::Router;
use axum::http::{Method, Uri};
use axum::routing::{delete, get, post};

/// Returns the routes of the management API under `/api`, and of the health checks under `/health`, which need no login.
pub(crate) fn api(api: Api) -> Router {
    let routes = definitions().merge(clients()).merge(node()).merge(members());
    let router = Router::new()
        .nest("/api", routes)
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready));
    finish(router, api)
}

/// The definitions: virtual hosts, exchanges, queues and bindings.
fn definitions() -> Router<Api> {
    Router::new()
        .route("/vhosts", get(vhosts::list))
        .route("/vhosts/{vhost}", get(vhosts::get))
        .route("/vhosts/{vhost}/permissions", get(access::vhost_permissions))
        .route("/vhosts/{vhost}/connections", get(connections::list_of_vhost))
        .route("/vhosts/{vhost}/channels", get(channels::list_of_vhost))
        .route("/exchanges", get(exchanges::list_all))
        .route("/exchanges/{vhost}", get(exchanges::list))
        .route("/exchanges/{vhost}/{name}", get(exchanges::get).put(exchanges::put).delete(exchanges::delete))
        .route("/exchanges/{vhost}/{name}/bindings/source", get(bindings::from_exchange))
        .route("/exchanges/{vhost}/{name}/bindings/destination", get(bindings::to_exchange))
        .route("/queues", get(queues::list_all))
        .route("/queues/detailed", get(queues::list_all))
        .route("/queues/{vhost}", get(queues::list))
        .route("/queues/{vhost}/{name}", get(queues::get).put(queues::put).delete(queues::delete))
        .route("/queues/{vhost}/{name}/contents", delete(queues::purge))
        .route("/queues/{vhost}/{name}/bindings", get(bindings::to_queue))
        .route("/bindings", get(bindings::list_all))
        .route("/bindings/{vhost}", get(bindings::list))
        .route("/bindings/{vhost}/e/{source}/{kind}/{destination}", get(bindings::between).merge(post(bindings::bind)))
        .route(
            "/bindings/{vhost}/e/{source}/{kind}/{destination}/{properties}",
            get(bindings::get).delete(bindings::unbind),
        )
}

/// Connected clients, their channels and consumers, and users with their permissions.
fn clients() -> Router<Api> {
    Router::new()
        .route("/connections", get(connections::list))
        .route("/connections/{name}", get(connections::get).delete(connections::close))
        .route("/connections/{name}/channels", get(channels::list_of_connection))
        .route("/connections/username/{user}", get(connections::list_of_user).delete(connections::close_of_user))
        .route("/channels", get(channels::list))
        .route("/channels/{name}", get(channels::get))
        .route("/consumers", get(consumers::list_all))
        .route("/consumers/{vhost}", get(consumers::list))
        .route("/whoami", get(access::whoami))
        .route("/users", get(access::users))
        .route("/users/{user}", get(access::user))
        .route("/users/{user}/permissions", get(access::user_permissions))
        .route("/permissions", get(access::permissions))
        .route("/permissions/{vhost}/{user}", get(access::permission))
        .route("/auth", get(access::auth))
        .route("/auth/attempts/{node}", get(access::attempts))
        .route("/auth/attempts/{node}/source", get(access::attempts_by_source))
}

/// The node: overview, version and health checks.
fn node() -> Router<Api> {
    Router::new()
        .route("/overview", get(overview::overview))
        .route("/version", get(overview::version))
        .route("/cluster-name", get(overview::cluster_name))
        .route("/extensions", get(overview::extensions))
        .route("/feature-flags", get(overview::nothing))
        .route("/deprecated-features", get(overview::nothing))
        .route("/deprecated-features/used", get(overview::nothing))
        .route("/nodes", get(nodes::list))
        .route("/nodes/{name}", get(nodes::get))
        .route("/aliveness-test/{vhost}", get(health::aliveness))
        .route("/health/checks/alarms", get(health::alarms))
        .route("/health/checks/local-alarms", get(health::alarms))
        .route("/health/checks/virtual-hosts", get(health::serving))
        .route("/health/checks/node-is-quorum-critical", get(health::quorum_critical))
        .route("/health/checks/node-is-mirror-sync-critical", get(health::fine))
        .route("/health/checks/is-in-service", get(health::serving))
        .route("/health/checks/ready-to-serve-clients", get(health::serving))
        .route("/health/checks/below-node-connection-limit", get(health::fine))
        .route("/health/checks/reached-target-cluster-size", get(health::fine))
        .route("/health/checks/port-listener/{port}", get(health::port_listener))
        .route("/health/checks/protocol-listener/{protocol}", get(health::protocol_listener))
        .route("/health/checks/certificate-expiration/{within}/{unit}", get(health::certificates))
}

/// The cluster: its members and leaders.
fn members() -> Router<Api> {
    Router::new()
        .route("/leveret/cluster", get(cluster::get))
        .route("/leveret/cluster/members", post(cluster::add))
        .route("/leveret/cluster/members/{member}", delete(cluster::remove))
        .route("/leveret/cluster/transfer", post(cluster::transfer))
}

/// Returns the routes that Prometheus scrapes.
pub(crate) fn metrics(api: Api) -> Router {
    let router = Router::new()
        .route("/metrics", get(scraped::scrape))
        .route("/metrics/per-object", get(scraped::per_object))
        .route("/metrics/detailed", get(scraped::detailed));
    finish(router, api)
}

fn finish(router: Router<Api>, api: Api) -> Router {
    router.fallback(not_found).method_not_allowed_fallback(not_allowed).with_state(api)
}

async fn not_found() -> ApiError {
    ApiError::no_object()
}

async fn not_allowed(method: Method, uri: Uri) -> ApiError {
    ApiError::method_not_allowed(format!("{method} is not allowed for {}", uri.path()))
}
