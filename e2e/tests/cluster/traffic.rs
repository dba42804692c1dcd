//! Traffic of unmodified clients that runs while nodes are lost, and what has to be true of it afterwards.

use std::cell::{RefCell, RefMut};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use leveret_e2e::process::Process;
use leveret_e2e::wait::{until_for, until_ok};

use crate::clients::Clients;
use crate::figures::figure;
use crate::world::PATIENCE;

/// A message: its publisher and its number.
type Id = (u64, u64);

/// A client that publishes and consumes in a pod until it is stopped.
pub(crate) struct Traffic<'a> {
    clients: &'a Clients<'a>,
    process: Process,
    book: RefCell<Book>,
}

/// What a client has recorded.
#[derive(Default)]
pub(crate) struct Book {
    confirmed: HashSet<Id>,
    /// The number of deliveries of each message that were marked as redelivered, and of those that were not.
    delivered: HashMap<Id, [u64; 2]>,
    /// The times of the confirms, by publisher.
    confirmed_at: HashMap<u64, Vec<u64>>,
    /// The last failures of the clients.
    failures: Vec<String>,
    process: String,
    has_published: bool,
    /// The number of bytes that were read of what the client has printed.
    read: usize,
}

impl Book {
    /// Adds what the client has printed since.
    fn read(&mut self, output: &str) {
        self.read += output.len();
        for line in output.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let id = |publisher: &str, number: &str| Some((publisher.parse().ok()?, number.parse().ok()?));
            match words[..] {
                ["confirmed", publisher, number, at] => {
                    let (Some(id), Ok(at)) = (id(publisher, number), at.parse()) else { continue };
                    self.confirmed.insert(id);
                    self.confirmed_at.entry(id.0).or_default().push(at);
                }
                ["delivered", publisher, number, mark] => {
                    let Some(id) = id(publisher, number) else { continue };
                    self.delivered.entry(id).or_default()[usize::from(mark == "new")] += 1;
                }
                ["process", id] => id.clone_into(&mut self.process),
                ["published"] => self.has_published = true,
                _ => {
                    self.failures.push(line.to_owned());
                    let over = self.failures.len().saturating_sub(5);
                    self.failures.drain(..over);
                }
            }
        }
    }

    fn missing(&self) -> Vec<Id> {
        self.confirmed.iter().filter(|id| !self.delivered.contains_key(id)).copied().collect()
    }

    /// Returns the longest time in which a publisher got no confirm.
    fn longest_gap(&self) -> Duration {
        let gaps = self.confirmed_at.values().flat_map(|times| times.windows(2).map(|pair| pair[1] - pair[0]));
        Duration::from_millis(gaps.max().unwrap_or_default())
    }
}

impl<'a> Traffic<'a> {
    /// Starts the traffic over the queues q0000 and so on.
    pub(crate) fn start(clients: &'a Clients<'a>, queues: usize) -> Result<Self> {
        let queues: Vec<_> = (0..queues).map(|number| format!("q{number:04}")).collect();
        let process = clients.begin("lapin", &["--queue", &queues.join(","), "steady"])?;
        let traffic = Self { clients, process, book: RefCell::default() };
        traffic.goes_on()?;
        Ok(traffic)
    }

    /// Returns what the client has recorded so far.
    fn book(&self) -> RefMut<'_, Book> {
        let mut book = self.book.borrow_mut();
        let new = self.process.output_after(book.read);
        book.read(&new);
        book
    }

    /// Waits until each publisher has got further confirms.
    pub(crate) fn goes_on(&self) -> Result<()> {
        let counts = |book: &Book| [0, 1].map(|publisher| book.confirmed_at.get(&publisher).map_or(0, Vec::len));
        let before = counts(&self.book());
        until_ok(PATIENCE, format!("confirms after {before:?}"), || {
            let book = self.book();
            let now = counts(&book);
            ensure!(now.iter().zip(before).all(|(now, before)| *now >= before + 50), "{now:?}; {:?}", book.failures);
            Ok(())
        })
    }

    /// Prints the longest time without a confirm so far, after an event.
    pub(crate) fn report(&self, event: &str) -> Result<()> {
        self.goes_on()?;
        let mut book = self.book();
        figure(&format!("{event}: longest time without a confirm"), book.longest_gap());
        // Each event has a gap of its own.
        let last = |times: &mut Vec<u64>| drop(times.drain(..times.len() - 1));
        book.confirmed_at.values_mut().for_each(last);
        Ok(())
    }

    /// Stops the publishers, waits until everything that was confirmed is delivered, and checks that nothing was delivered
    /// twice without a mark.
    pub(crate) fn check(self) -> Result<()> {
        self.clients.shell(&format!("kill {}", self.book().process))?;
        until_for(PATIENCE, "the end of the publishers", || self.book().has_published.then_some(()))?;
        let delivered = until_ok(PATIENCE, "everything confirmed to be delivered".to_owned(), || {
            let book = self.book();
            let missing = book.missing();
            ensure!(missing.is_empty(), "{} messages are lost: {missing:?}; {:?}", missing.len(), book.failures);
            Ok(())
        });
        let book = self.book();
        delivered.with_context(|| format!("{} were confirmed", book.confirmed.len()))?;
        let doubled: Vec<_> = book.delivered.iter().filter(|(_, [_, new])| *new > 1).collect();
        ensure!(doubled.is_empty(), "delivered again without a mark: {doubled:?}");
        ensure!(book.confirmed.len() > 1_000, "only {} messages were confirmed", book.confirmed.len());
        let again: u64 = book.delivered.values().map(|[again, _]| again).sum();
        eprintln!("figure: {} confirmed, 0 lost, 0 doubled without a mark, {again} redelivered", book.confirmed.len());
        Ok(())
    }
}
