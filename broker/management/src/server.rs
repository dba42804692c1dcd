//! Serves a bounded number of HTTP connections, each in a task of its own, and closes those whose clients keep the broker
//! waiting for too long.
//!
//! A few more connections are accepted beyond the bound, and answered nothing but health checks, so that a health check
//! succeeds whatever the other clients do.
use crate::request::Requests;
use crate::socket::{HttpClient, Socket, take_leave};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use leveret_listener::{Crowd, Member, Protocol};
use parking_lot::Mutex;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The protocol HTTP, as [`leveret_listener`] serves it.
pub(crate) struct Http {
    /// The name of the listener in the management API.
    name: &'static str,
    /// Answers requests; it also has the bounds.
    requests: Arc<Requests>,
    /// The clients within the bound.
    clients: Arc<Crowd<HttpClient>>,
    /// The clients beyond the bound.
    beyond: Arc<Crowd<HttpClient>>,
}

impl Http {
    pub(crate) fn new(name: &'static str, requests: Arc<Requests>) -> Self {
        Self { name, requests, clients: Arc::default(), beyond: Arc::default() }
    }
}

impl Protocol for Http {
    type Place = Member<HttpClient>;

    fn name(&self) -> &'static str {
        self.name
    }

    async fn admit(&self) -> Option<Member<HttpClient>> {
        match self.clients.enter(self.requests.bounds().connections_max, || HttpClient::new(false)).await {
            None => self.beyond.enter(BEYOND_MAX, || HttpClient::new(true)).await,
            client => client,
        }
    }

    /// Disconnects the client that has kept the broker waiting for the longest: its descriptor serves another client
    /// better.
    fn make_way(&self) {
        self.clients.dismiss(Instant::now());
    }

    async fn serve(
        self: Arc<Self>,
        accepted: leveret_listener::AcceptedClient,
        place: Member<HttpClient>,
        stop: CancellationToken,
    ) {
        let client = place.client().clone();
        converse(accepted.stream, accepted.peer, self.requests.clone(), client, stop).await;
    }
}

/// Serves one connection until it ends, its client is overdue or dismissed, or `stop` is cancelled and its request answered.
async fn converse(
    stream: TcpStream,
    peer: SocketAddr,
    requests: Arc<Requests>,
    client: Arc<HttpClient>,
    stop: CancellationToken,
) {
    let stream = Arc::new(Mutex::new(stream));
    let served = (requests.clone(), client.clone());
    let service = service_fn(move |request| {
        let (requests, client) = served.clone();
        async move { Ok::<_, Infallible>(requests.answer(request, peer, client).await) }
    });
    let mut builder = http1::Builder::new();
    // `HttpClient` keeps the deadline for heads, as it can tell an idle connection from a head that is being sent.
    builder.timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(requests.bounds().head_bytes_max);
    let mut connection = Box::pin(builder.serve_connection(Socket::new(stream.clone(), client.clone()), service));
    let mut stopping = false;
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            () = client.leave.cancelled() => return,
            () = client.overdue(requests.bounds()) => return,
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    };
    drop(connection);
    client.answered();
    let Some(stream) = Arc::into_inner(stream) else { return };
    if ended.is_ok() || ended.is_err_and(|error| error.is_parse() || error.is_user()) {
        tokio::select! {
            () = take_leave(stream.into_inner()) => {}
            () = client.leave.cancelled() => {}
        }
    }
}

/// The most clients beyond the bound: they are told the health of the node, and otherwise that there is no room.
const BEYOND_MAX: usize = 32;
