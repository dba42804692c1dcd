//! Traffic of unmodified clients in a pod that runs while nodes are lost, and what has to be true of it afterwards.

use std::cell::{RefCell, RefMut};
use std::time::Duration;

use anyhow::{Context, Result};
use leveret_e2e::book::Book;
use leveret_e2e::process::Process;
use leveret_e2e::wait::{until_for, until_ok};

use crate::clients::Clients;
use crate::figures::figure;
use crate::world::PATIENCE;

/// A client that publishes and consumes in a pod until it is stopped.
pub(crate) struct Traffic<'a> {
    clients: &'a Clients<'a>,
    process: Process,
    printed: RefCell<Printed>,
}

/// What a client has printed.
#[derive(Default)]
struct Printed {
    book: Book,
    /// The last failures of the clients.
    failures: Vec<String>,
    process: String,
    has_published: bool,
    /// The number of bytes that were read of what the client has printed.
    read: usize,
}

impl Printed {
    /// Adds what the client has printed since.
    fn read(&mut self, output: &str) {
        self.read += output.len();
        for line in output.lines() {
            let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
            let last = rest.rsplit(' ').next().unwrap_or_default();
            match (kind, rest.parse()) {
                ("confirmed", Ok(stamp)) => {
                    let Ok(at) = last.parse() else { continue };
                    self.book.confirmed(stamp, Duration::from_millis(at));
                }
                ("delivered", Ok(stamp)) => self.book.delivered(stamp, last != "new"),
                ("process", _) => rest.clone_into(&mut self.process),
                ("published", _) => self.has_published = true,
                _ => {
                    self.failures.push(line.to_owned());
                    let over = self.failures.len().saturating_sub(5);
                    self.failures.drain(..over);
                }
            }
        }
    }
}

impl<'a> Traffic<'a> {
    /// Starts the traffic over the queues q0000 and so on.
    pub(crate) fn start(clients: &'a Clients<'a>, queues: usize) -> Result<Self> {
        let queues: Vec<_> = (0..queues).map(|number| format!("q{number:04}")).collect();
        let process = clients.begin("lapin", &["--queue", &queues.join(","), "steady"])?;
        let traffic = Self { clients, process, printed: RefCell::default() };
        traffic.goes_on()?;
        Ok(traffic)
    }

    /// Returns what the client has printed so far.
    fn printed(&self) -> RefMut<'_, Printed> {
        let mut printed = self.printed.borrow_mut();
        let new = self.process.output_after(printed.read);
        printed.read(&new);
        printed
    }

    /// Waits until each publisher has got further confirms.
    pub(crate) fn goes_on(&self) -> Result<()> {
        let before = self.printed().book.confirms();
        until_ok(PATIENCE, format!("confirms after {before:?}"), || {
            let printed = self.printed();
            printed.book.goes_on(PUBLISHERS, &before, MORE).with_context(|| format!("{:?}", printed.failures))
        })
    }

    /// Prints the longest time without a confirm so far, after an event.
    pub(crate) fn report(&self, event: &str) -> Result<()> {
        self.goes_on()?;
        let book = &mut self.printed().book;
        figure(&format!("{event}: longest time without a confirm"), book.longest_gap());
        book.forget_gaps(); // each event has a gap of its own
        Ok(())
    }

    /// Stops the publishers, waits until everything that was confirmed is delivered, and checks that nothing was delivered
    /// twice without a mark.
    pub(crate) fn check(self) -> Result<()> {
        self.clients.shell(&format!("kill {}", self.printed().process))?;
        until_for(PATIENCE, "the end of the publishers", || self.printed().has_published.then_some(()))?;
        until_ok(PATIENCE, "everything confirmed to be delivered".to_owned(), || {
            let printed = self.printed();
            printed.book.is_complete().with_context(|| format!("{:?}", printed.failures))
        })?;
        eprintln!("figure: {}", self.printed().book.check()?);
        Ok(())
    }
}

/// The number of publishers of the client.
const PUBLISHERS: u64 = 2;
/// A publisher that gets so many further confirms goes on.
const MORE: usize = 50;
