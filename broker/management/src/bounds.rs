//! The limits of one HTTP listener: connections, requests, sizes in bytes and times.
use std::time::Duration;

/// The bounds of one listener.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// The most connections that are open at the same time. A further one takes the place of the one whose client has kept
    /// the broker waiting the longest; if all of them have a request in progress, it is answered 503.
    pub connections_max: usize,
    /// The most requests that are worked on at the same time. A further one waits, and is answered 503 after `queue_max`.
    pub requests_max: usize,
    /// The most requests whose bodies are being read, or lie in memory until the request gets its turn. A further one waits,
    /// and is answered 503 after `queue_max`.
    pub bodies_max: usize,
    /// How long a request waits for its turn.
    pub queue_max: Duration,
    /// How long a client may take to send a first byte after connecting, and how long from the first byte of a request to
    /// the end of its head; the connection is closed beyond.
    pub head_max: Duration,
    /// How long a connection stays open between an answer and the first byte of the next request.
    pub idle_max: Duration,
    /// The largest head of a request in bytes; larger ones are answered 431.
    pub head_bytes_max: usize,
    /// The largest body of a request in bytes; larger ones are answered 413.
    pub body_bytes_max: usize,
    /// How long a client may take to send the body of a request; beyond it the answer is 408.
    pub body_max: Duration,
    /// How long the broker may take to carry out a request; beyond it the answer is 503. A change that has begun goes on.
    pub request_max: Duration,
    /// How long a client may let a write of at most 64 KiB to its socket wait before it is disconnected.
    pub write_max: Duration,
    /// How long a client may take to read a long answer before it is disconnected, on top of `request_max`.
    pub answer_max: Duration,
    /// How long the answer to a failed login is held back, on top of the delay that the node asks for.
    pub login_delay: Duration,
}

impl Bounds {
    /// Returns the bounds of the management API without regard to the node's limits: 512 connections, but no more than
    /// an eighth of the file descriptors that the process may open.
    #[must_use]
    pub fn http() -> Self {
        Self {
            connections_max: share(512, 8),
            requests_max: 64,
            bodies_max: 64,
            queue_max: Duration::from_secs(10),
            head_max: Duration::from_secs(10),
            idle_max: Duration::from_secs(75),
            head_bytes_max: 64 << 10,
            body_bytes_max: 1 << 20,
            body_max: Duration::from_secs(10),
            request_max: Duration::from_secs(30),
            write_max: Duration::from_secs(20),
            answer_max: Duration::from_secs(120),
            login_delay: Duration::ZERO,
        }
    }

    /// Returns the bounds of the metrics without regard to the node's limits: 64 connections, but no more than a
    /// sixteenth of the file descriptors, and 8 requests at a time; otherwise those of [`Bounds::http`].
    #[must_use]
    pub fn metrics() -> Self {
        Self { connections_max: share(64, 16), requests_max: 8, ..Self::http() }
    }
}

/// Returns `most`, but no more than one `part`-th of the process's file descriptors and no fewer than 4.
fn share(most: usize, part: u64) -> usize {
    let descriptors = leveret_node::descriptors().max / part;
    usize::try_from(descriptors).unwrap_or(most).clamp(4, most)
}
