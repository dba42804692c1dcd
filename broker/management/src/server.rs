//! Accepts a bounded number of connections, serves each in a task of its own, and closes those whose clients keep the
//! broker waiting for too long.
//!
//! A few more connections are accepted beyond the bound, and answered nothing but health checks, so that a health check
//! succeeds whatever the other clients do.
use crate::request::Requests;
use crate::socket::{Client, Socket, take_leave};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Accepts clients until `stop` is cancelled, and returns when the requests in progress have been answered.
pub(crate) async fn serve(listener: TcpListener, requests: Arc<Requests>, stop: CancellationToken) {
    let (tasks, mut warned) = (TaskTracker::new(), None::<Instant>);
    let [clients, excess] = [false, true].map(|only_health| Arc::new(Clients::new(only_health)));
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Usually the process is out of file descriptors: free that of the client that was waited for the longest.
                clients.dismiss(Instant::now());
                if warned.is_none_or(|at| at.elapsed() > WARN_EVERY) {
                    tracing::warn!("cannot accept an HTTP connection: {error}");
                    warned = Some(Instant::now());
                }
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let clients = if clients.make_room(requests.bounds().connections_max).await {
            clients.clone()
        } else if excess.make_room(EXCESS_MAX).await {
            excess.clone()
        } else {
            continue;
        };
        let (number, client) = clients.add();
        let (requests, stop) = (requests.clone(), stop.clone());
        tasks.spawn(async move {
            let _entry = Entry { clients, number };
            converse(stream, peer, requests, client, stop).await;
        });
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

/// Serves one connection until it ends, its client is overdue or dismissed, or `stop` is cancelled and its request answered.
async fn converse(
    stream: TcpStream,
    peer: SocketAddr,
    requests: Arc<Requests>,
    client: Arc<Client>,
    stop: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let stream = Arc::new(Mutex::new(stream));
    let served = (requests.clone(), client.clone());
    let service = service_fn(move |request| {
        let (requests, client) = served.clone();
        async move { Ok::<_, Infallible>(requests.answer(request, peer, client).await) }
    });
    let mut builder = http1::Builder::new();
    // `Client` keeps the deadline for heads, as it can tell an idle connection from a head that is being sent.
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

/// The connected clients of one kind: those within the bound, or those beyond it.
struct Clients {
    open: Mutex<Open>,
    only_health: bool,
}

#[derive(Default)]
struct Open {
    clients: BTreeMap<u64, Arc<Client>>,
    next: u64,
}

impl Clients {
    fn new(only_health: bool) -> Self {
        Self { open: Mutex::default(), only_health }
    }

    fn add(&self) -> (u64, Arc<Client>) {
        let (mut open, client) = (self.open.lock(), Arc::new(Client::new(self.only_health)));
        let number = open.next;
        open.next += 1;
        open.clients.insert(number, client.clone());
        (number, client)
    }

    /// Makes room for one more client among at most `most`: if there are that many, dismisses the one that has been waited
    /// for the longest. Returns false if all of them are being served.
    async fn make_room(&self, most: usize) -> bool {
        loop {
            if self.open.lock().clients.len() < most {
                return true;
            }
            match self.dismiss(Instant::now()) {
                Dismissed::One => return true,
                Dismissed::NoneBefore(then) => tokio::time::sleep_until(then).await,
                Dismissed::None => return false,
            }
        }
    }

    /// Disconnects the client that has been waited for the longest, if that has been at least [`CHANCE`] by `now`.
    fn dismiss(&self, now: Instant) -> Dismissed {
        let mut open = self.open.lock();
        let waited_for = open.clients.iter().filter_map(|(number, client)| Some((client.waited_for_since()?, *number)));
        let Some((since, number)) = waited_for.min() else { return Dismissed::None };
        if since + CHANCE > now {
            return Dismissed::NoneBefore(since + CHANCE);
        }
        if let Some(client) = open.clients.remove(&number) {
            client.leave.cancel();
        }
        Dismissed::One
    }
}

/// The outcome of [`Clients::dismiss`].
#[derive(Debug, PartialEq)]
enum Dismissed {
    /// One client was disconnected.
    One,
    /// None was, but one may be at that time.
    NoneBefore(Instant),
    /// None was: all are being served.
    None,
}

/// A client's entry in its list, removed when the task of its connection ends.
struct Entry {
    clients: Arc<Clients>,
    number: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.clients.open.lock().clients.remove(&self.number);
    }
}

/// How long every client is waited for at least, as its request may be on its way.
const CHANCE: Duration = Duration::from_millis(50);
/// The most clients beyond the bound. Their health checks are answered, their other requests are refused with 503.
const EXCESS_MAX: usize = 32;
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
const WARN_EVERY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_waited_for_the_longest_is_dismissed_first_and_one_being_served_never() {
        let clients = Clients::new(false);
        let all: Vec<_> = (0..3).map(|_| clients.add().1).collect();
        all[0].asked();
        let soon = Instant::now();
        assert!(matches!(clients.dismiss(soon), Dismissed::NoneBefore(_)));
        assert!(all.iter().all(|client| !client.leave.is_cancelled()));
        let later = soon + CHANCE;
        assert!(clients.dismiss(later) == Dismissed::One && all[1].leave.is_cancelled());
        assert!(clients.dismiss(later) == Dismissed::One && all[2].leave.is_cancelled());
        assert!(clients.dismiss(later) == Dismissed::None && !all[0].leave.is_cancelled());
        all[0].answered();
        assert!(clients.dismiss(later + CHANCE) == Dismissed::One && all[0].leave.is_cancelled());
    }
}
