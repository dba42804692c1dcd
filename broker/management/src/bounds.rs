//! How much of everything one HTTP listener takes.
use std::time::Duration;

/// The bounds of one listener.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Connections open at once. One more takes the place of the one that has waited for its client the longest; if all
    /// of them have a request in progress, it is answered 503.
    pub connections_max: usize,
    /// Requests that are worked on at once. One more waits, and is answered 503 after `queue_max`.
    pub requests_max: usize,
    /// Requests whose bodies are read or held at once, before they have their turn. One more waits likewise.
    pub bodies_max: usize,
    /// How long a request waits for its turn.
    pub queue_max: Duration,
    /// How long a client may take for the head of a request, from its connection or the first byte on.
    pub head_max: Duration,
    /// How long a connection stays open between two requests.
    pub idle_max: Duration,
    /// Largest head of a request in bytes: 431 beyond.
    pub head_bytes_max: usize,
    /// Largest body of a request in bytes: 413 beyond.
    pub body_bytes_max: usize,
    /// How long a client may take for the body of a request: 408 beyond.
    pub body_max: Duration,
    /// How long the broker may take to do what a request asks for: 503 beyond. What was begun goes on.
    pub request_max: Duration,
    /// How long a client may take to read what is on its way to it, 64 KiB at most: it is disconnected beyond.
    pub write_max: Duration,
    /// How long a client may take to read a long answer: it is disconnected beyond.
    pub answer_max: Duration,
    /// How long the answer to a login that failed is held back, beyond what the node waits by itself.
    pub login_delay: Duration,
}

impl Bounds {
    /// Those of the management API: no more than an eighth of the descriptors that the process may have.
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

    /// Those of the metrics: no more than a sixteenth of the descriptors.
    #[must_use]
    pub fn metrics() -> Self {
        Self { connections_max: share(64, 16), requests_max: 8, ..Self::http() }
    }
}

/// `most`, but no more than a `part` of the process's descriptors.
fn share(most: usize, part: u64) -> usize {
    let descriptors = leveret_node::descriptors().max / part;
    usize::try_from(descriptors).unwrap_or(most).clamp(4, most)
}
