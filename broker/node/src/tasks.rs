//! The handling of panics. No panic is meant to be reachable, and none leaves a process behind that looks alive and is not.
//!
//! A panic in the rules, in the log, or in a task that the node depends on ends the process at once: a queue may be half
//! changed, callers would wait for ever, and the log has everything that was confirmed. Any other panic ends only the task
//! in which it happens (a connection, a request). Each panic is counted and logged with its place.
use crate::Broker;
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::future::Future;
use std::panic::PanicHookInfo;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

/// The exit code of the process after a panic that it cannot survive: EX_SOFTWARE of sysexits.h.
pub const EXIT_AFTER_PANIC: i32 = 70;

static PANICS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The name of the task that this thread runs at the moment, if the node depends on that task.
    static CRITICAL: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Installs a panic hook that counts and logs every panic, and ends the process after one that it cannot survive. To be
/// called once, by the program, at its start.
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

/// Returns the number of panics since the process began, if the hook is installed.
pub(crate) fn panics() -> u64 {
    PANICS.load(Relaxed)
}

impl Broker {
    /// Starts a task that the node depends on: if it panics the process ends.
    pub fn spawn_critical(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(critical(name, task));
    }
}

/// Returns a task that the node depends on, to be spawned: if it panics the process ends.
pub(crate) fn critical(
    name: &'static str,
    task: impl Future<Output = ()> + Send + 'static,
) -> impl Future<Output = ()> + Send {
    Critical { name, task: Box::pin(task) }
}

/// A task that the node depends on.
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

/// Returns whether a place in the source belongs to the rules, the log or the node.
fn is_core(place: &str) -> bool {
    let folders = ["engine", "journal", "replication", "node"].map(|name| format!("broker/{name}/src/"));
    place.contains("/openraft-") || folders.iter().any(|folder| place.contains(folder))
}

/// Returns whether a function of the rules, the log or the node was running, so that it called the function that panicked.
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
    fn panics_in_the_core_are_recognized_by_their_place_and_their_callers() {
        assert!(is_core("broker/node/src/shard.rs:203:21") && is_core("/x/openraft-0.10.0/src/a.rs:1:1"));
        assert!(
            !is_core("broker/amqp091/src/channel/publish.rs:10:1") && !is_core("/rustc/library/core/src/slice.rs:1:1")
        );
        assert!(runs_core("   3: core::panicking::panic\n   4: <leveret_engine::queue::Queue>::dispatch\n"));
        assert!(!runs_core("   3: core::panicking::panic\n   4: leveret_amqp091::connection::reader::read\n"));
    }
}
