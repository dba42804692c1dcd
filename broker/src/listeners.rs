//! The listeners of the program: one row for each. Options, their reference texts, the start and the log use this table.
use futures::future::BoxFuture;
use leveret_node::Broker;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// A listener.
pub(crate) struct ListenerRow {
    /// The key of the listener's address in the configuration file. The flag and the environment variable are named after
    /// it.
    pub(crate) key: &'static str,
    /// The default address, as the configuration file has it.
    pub(crate) default: &'static str,
    /// The purpose, for the errors of the start.
    pub(crate) purpose: &'static str,
    /// The reference text of the address.
    pub(crate) about: &'static str,
    /// The phase and the threads in which the listener is served.
    pub(crate) stage: Stage,
    /// Serves clients until the token is cancelled. The future ends when the last client is gone.
    pub(crate) serve: fn(TcpListener, Broker, CancellationToken) -> BoxFuture<'static, ()>,
}

/// The phase and the threads in which a listener is served.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// From the start to the end, on a thread of its own, so that health checks are answered in time whatever the clients
    /// do.
    Administration,
    /// After the data folder was opened, on all workers. The clients are sent away first when the broker stops.
    Clients,
}

/// All listeners, in the order of the configuration file.
pub(crate) static LISTENERS: [ListenerRow; 3] = [
    ListenerRow {
        key: "amqp",
        default: "\"[::]:5672\"",
        purpose: "AMQP clients",
        about: "Where AMQP 0-9-1 clients connect: HOST:PORT. [::] listens on IPv6 and IPv4.",
        stage: Stage::Clients,
        serve: leveret_amqp091::serve,
    },
    ListenerRow {
        key: "http",
        default: "\"[::]:15672\"",
        purpose: "the management API",
        about: "Where the management API and the health checks answer.",
        stage: Stage::Administration,
        serve: leveret_management::serve_http,
    },
    ListenerRow {
        key: "metrics",
        default: "\"[::]:15692\"",
        purpose: "metrics",
        about: "Where Prometheus scrapes /metrics.",
        stage: Stage::Administration,
        serve: leveret_management::serve_metrics,
    },
];
