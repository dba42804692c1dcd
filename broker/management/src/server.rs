//! Connections: accepted within a bound, each in a task of its own, sent away when they are waited for too long.
//!
//! A few more are accepted beyond the bound. All that these are told is how the node is: a health check is answered
//! whatever the other clients do.
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

/// Accepts clients until `stop` is cancelled; ends when the requests in progress have been answered.
pub(crate) async fn serve(listener: TcpListener, requests: Arc<Requests>, stop: CancellationToken) {
    let (tasks, mut warned) = (TaskTracker::new(), None::<Instant>);
    let [clients, beyond] = [false, true].map(|only_health| Arc::new(Clients::new(only_health)));
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // No descriptors left, mostly: one that a silent client has is worth more to another.
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
        } else if beyond.make_room(BEYOND_MAX).await {
            beyond.clone()
        } else {
            continue;
        };
        let (number, client) = clients.add();
        let (requests, stop) = (requests.clone(), stop.clone());
        tasks.spawn(async move {
            let _listed = Listed { clients, number };
            converse(stream, peer, requests, client, stop).await;
        });
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

/// Serves one connection to its end.
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
    // The heads' deadline is kept by `Client`, which also knows idle connections.
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

/// The clients that are connected, within the bound or beyond it.
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

    /// Whether one more may come; if they are too many, the one that is waited for the longest goes.
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

    /// Sends away the client that is waited for the longest, if it has had its chance by `now`.
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

/// Whether a client was sent away.
#[derive(Debug, PartialEq)]
enum Dismissed {
    One,
    /// One may be at that time.
    NoneBefore(Instant),
    /// All are being served.
    None,
}

/// A client that is taken off the list with the end of its task.
struct Listed {
    clients: Arc<Clients>,
    number: u64,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.clients.open.lock().clients.remove(&self.number);
    }
}

/// For how long a client is waited for at least: what it sent may be on its way.
const CHANCE: Duration = Duration::from_millis(50);
/// Clients beyond the bound: health is told to them, and else that there is no room.
const BEYOND_MAX: usize = 32;
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
const WARN_EVERY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_waited_for_the_longest_goes_first_and_who_is_served_never() {
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
