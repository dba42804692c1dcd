//! Clients of all three nodes of a cluster that publish with confirms and consume, whatever happens to the nodes, and note
//! what they see.

use std::sync::Arc;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lapin::types::FieldTable;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::book::{Book, MessageStamp};
use crate::nodes::USER;
use crate::steady::{Steady, Witness};
use crate::trouble::{connect, durable, url};
use crate::wait::PATIENCE;

/// The queues that the messages go to.
pub const QUEUES: [&str; 6] = ["q0", "q1", "q2", "q3", "q4", "q5"];

/// What the clients saw, and where.
struct Seen {
    begin: Instant,
    book: Mutex<Book>,
    /// The number of confirms that came from each node.
    by_node: Mutex<[u64; 3]>,
    /// The last failure of a client.
    failure: Mutex<String>,
}

impl Seen {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("no one panicked")
    }

    fn failure(&self) -> String {
        self.failure.lock().expect("no one panicked").clone()
    }
}

impl Witness for Seen {
    fn confirmed(&self, stamp: MessageStamp, broker: usize) {
        self.book().confirmed(stamp, self.begin.elapsed());
        self.by_node.lock().expect("no one panicked")[broker] += 1;
    }

    fn delivered(&self, stamp: MessageStamp, redelivered: bool) {
        self.book().delivered(stamp, redelivered);
    }

    fn failed(&self, error: &anyhow::Error) {
        *self.failure.lock().expect("no one panicked") = format!("{error:#}");
    }
}

/// Three publishers and three consumers, one of each on each node at first.
pub struct Traffic {
    seen: Arc<Seen>,
    /// Ends the publishers.
    published: CancellationToken,
    /// Ends the consumers.
    over: CancellationToken,
    publishers: Vec<JoinHandle<()>>,
    consumers: Vec<JoinHandle<()>>,
}

impl Traffic {
    /// Declares the queues, and starts the clients, which publish messages of this size. A client whose connection ends, or
    /// whose node does not answer for long, goes on at another node.
    ///
    /// # Errors
    /// If the queues cannot be declared.
    pub async fn start(hosts: &[String], body_bytes: usize) -> Result<Self> {
        let connection = connect(&hosts[1], USER).await?;
        let channel = connection.create_channel().await?;
        for queue in QUEUES {
            channel.queue_declare(queue.into(), durable(), FieldTable::default()).await?;
        }
        let seen = Arc::new(Seen {
            begin: Instant::now(),
            book: Mutex::default(),
            by_node: Mutex::default(),
            failure: Mutex::default(),
        });
        let clients = Arc::new(Steady {
            urls: hosts.iter().map(|host| url(host, USER)).collect(),
            queues: QUEUES.map(str::to_owned).into(),
            body_bytes,
            pace: Duration::ZERO,
            witness: seen.clone(),
        });
        let (published, over) = (CancellationToken::new(), CancellationToken::new());
        let (mut publishers, mut consumers) = (Vec::new(), Vec::new());
        for at in 0..hosts.len() {
            let (publishing, consuming) = (clients.clone(), clients.clone());
            let (published, over) = (published.clone(), over.clone());
            publishers.push(tokio::spawn(async move { publishing.publish(at as u64, at, &published).await }));
            consumers.push(tokio::spawn(async move { consuming.consume(at, &over).await }));
        }
        Ok(Self { seen, published, over, publishers, consumers })
    }

    /// Returns the number of confirms that came from each node so far.
    pub fn by_node(&self) -> [u64; 3] {
        *self.seen.by_node.lock().expect("no one panicked")
    }

    /// Returns the longest time that a publisher waited for a confirm since the last call.
    pub fn longest_gap(&self) -> Duration {
        let mut book = self.seen.book();
        let longest = book.longest_gap();
        book.forget_gaps();
        longest
    }

    /// Waits until each publisher has got further confirms.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn goes_on(&self) -> Result<()> {
        let before = self.seen.book().confirms();
        self.until(|book| book.goes_on(3, &before, MORE)).await
    }

    /// Ends the publishers, and the consumers once all that was confirmed is delivered. Returns what happened, in words.
    ///
    /// # Errors
    /// If a confirmed message is not delivered, or one is delivered twice and only marked as redelivered once.
    pub async fn finish(mut self) -> Result<String> {
        self.published.cancel();
        for publisher in std::mem::take(&mut self.publishers) {
            publisher.await?;
        }
        let complete = self.until(Book::is_complete).await;
        self.over.cancel();
        for consumer in std::mem::take(&mut self.consumers) {
            consumer.await?;
        }
        complete?;
        self.seen.book().check()
    }

    async fn until(&self, is_so: impl Fn(&Book) -> Result<()>) -> Result<()> {
        let began = Instant::now();
        loop {
            let looked = is_so(&self.seen.book());
            let Err(error) = looked else { return Ok(()) };
            ensure!(began.elapsed() < PATIENCE, "{error}; the last client failed because of: {}", self.seen.failure());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A publisher that gets so many further confirms goes on.
const MORE: usize = 100;
