//! The scenario `steady`: publishes and consumes for as long as it runs, connects again whenever something fails, and prints
//! what was confirmed and delivered, for a test to compare.
//!
//! Lines are `confirmed PUBLISHER NUMBER MS` and `delivered PUBLISHER NUMBER new|again`, where MS is the time since the
//! start. SIGTERM ends the publishers; then `published` is printed, and the consumers go on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use leveret_e2e::book::MessageStamp;
use leveret_e2e::steady::{Steady, Witness};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::tally::say;

/// Prints what the clients see.
struct Printer {
    begin: Instant,
}

impl Witness for Printer {
    fn confirmed(&self, stamp: MessageStamp, _broker: usize) {
        say(&format!("confirmed {stamp} {}", self.begin.elapsed().as_millis()));
    }

    fn delivered(&self, stamp: MessageStamp, redelivered: bool) {
        say(&format!("delivered {stamp} {}", if redelivered { "again" } else { "new" }));
    }

    fn failed(&self, error: &anyhow::Error) {
        say(&format!("failed {}", format!("{error:#}").replace('\n', " ")));
    }
}

/// Runs the traffic over a list of queues that is separated by commas, until its process is killed.
pub(crate) async fn run(url: &str, queues: &str) -> Result<()> {
    let clients = Arc::new(Steady {
        urls: vec![url.to_owned()],
        queues: queues.split(',').map(str::to_owned).collect(),
        body_bytes: 0,
        pace: PACE,
        witness: Arc::new(Printer { begin: Instant::now() }),
    });
    let (published, never) = (CancellationToken::new(), CancellationToken::new());
    let mut terminated = signal(SignalKind::terminate())?;
    say(&format!("process {}", std::process::id()));
    let mut publishers = Vec::new();
    for publisher in 0..PUBLISHERS {
        let (publishing, consuming) = (clients.clone(), clients.clone());
        let (published, never) = (published.clone(), never.clone());
        publishers.push(tokio::spawn(async move { publishing.publish(publisher, 0, &published).await }));
        tokio::spawn(async move { consuming.consume(0, &never).await });
    }
    terminated.recv().await;
    published.cancel();
    for publisher in publishers {
        publisher.await?;
    }
    say("published");
    std::future::pending().await
}

/// The number of publishers, and of consumers.
const PUBLISHERS: u64 = 2;
/// Time between two messages of a publisher: the test is not about speed.
const PACE: Duration = Duration::from_millis(5);
