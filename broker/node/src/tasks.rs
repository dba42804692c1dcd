//! Panics: none is reachable on purpose, and none leaves a process behind that looks alive and is not.
//!
//! A panic in the rules, in the log, or in a task that the node cannot do without ends the process at once: a queue may be
//! half changed, what waits would wait for ever, and the log has all that was confirmed. Any other panic is that of the
//! task that it happens in (a connection, a request), which ends. Each is counted and logged with its place.
use crate::Broker;
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::future::Future;
use std::panic::PanicHookInfo;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

/// The process ends with this code after a panic that it cannot go on after: EX_SOFTWARE of sysexits.h.
pub const EXIT_AFTER_PANIC: i32 = 70;

static PANICS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The task that this thread runs at the moment is one that the node cannot do without: its name.
    static CRITICAL: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Has every panic counted and logged, and the process ended by one that it cannot go on after. For the program, once, at its
/// start.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        PANICS.fetch_add(1, Relaxed);
        let backtrace = Backtrace::force_capture().to_string();
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let task = CRITICAL.get();
        let ends = task.is_some() || is_core(&place) || runs_core(&backtrace);
        let text = text_of(panic);
        let thread = std::thread::current();
        let (task, thread) = (task.unwrap_or("-"), thread.name().unwrap_or("-"));
        tracing::error!(place, task, thread, "panic: {text}\n{backtrace}");
        if ends {
            tracing::error!("stopping at once: what was confirmed is in the log");
            std::process::exit(EXIT_AFTER_PANIC);
        }
    }));
}

/// Panics since the process began, if the hook is installed.
pub(crate) fn panics() -> u64 {
    PANICS.load(Relaxed)
}

impl Broker {
    /// Runs a task that the node cannot do without: if it panics the process ends.
    pub fn spawn_critical(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(critical(name, task));
    }
}

/// A task that the node cannot do without, to be spawned: if it panics the process ends.
pub(crate) fn critical(
    name: &'static str,
    task: impl Future<Output = ()> + Send + 'static,
) -> impl Future<Output = ()> + Send {
    Critical { name, task: Box::pin(task) }
}

/// A task that the node cannot do without.
struct Critical {
    name: &'static str,
    task: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Future for Critical {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let before = CRITICAL.replace(Some(self.name));
        let polled = self.task.as_mut().poll(context);
        CRITICAL.set(before);
        polled
    }
}

/// Whether a place in the source belongs to the rules, the log or the node.
fn is_core(place: &str) -> bool {
    let folders = ["engine", "journal", "replication", "node"].map(|name| format!("broker/{name}/src/"));
    place.contains("/openraft-") || folders.iter().any(|folder| place.contains(folder))
}

/// Whether some of the rules, the log or the node was running: it called what panicked.
fn runs_core(backtrace: &str) -> bool {
    let crates = ["leveret_engine::", "leveret_journal::", "leveret_replication::", "leveret_node::", "openraft::"];
    let own = backtrace.lines().filter(|line| !line.contains("leveret_node::tasks::"));
    let called = own.map(str::trim_start).filter_map(|line| line.split_once(": ")).map(|(_, function)| function);
    let mut functions = called.map(|function| function.trim_start_matches('<'));
    functions.any(|function| crates.iter().any(|name| function.starts_with(name)))
}

fn text_of<'p>(panic: &'p PanicHookInfo<'_>) -> &'p str {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_callers_are_told_apart() {
        assert!(is_core("broker/node/src/shard.rs:203:21") && is_core("/x/openraft-0.10.0/src/a.rs:1:1"));
        assert!(
            !is_core("broker/amqp091/src/channel/publish.rs:10:1") && !is_core("/rustc/library/core/src/slice.rs:1:1")
        );
        assert!(runs_core("   3: core::panicking::panic\n   4: <leveret_engine::queue::Queue>::dispatch\n"));
        assert!(!runs_core("   3: core::panicking::panic\n   4: leveret_amqp091::connection::reader::read\n"));
    }
}
