//! Runs checks, prints `ok NAME` or `FAIL NAME: why` for each, and the totals at the end.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

/// The numbers of checks that passed and failed.
#[derive(Default)]
pub(crate) struct Tally {
    passed: usize,
    failed: usize,
}

impl Tally {
    /// Runs a check and prints its result.
    pub(crate) async fn run(&mut self, name: &str, check: impl Future<Output = Result<()>>) {
        match check.await {
            Ok(()) => {
                self.passed += 1;
                say(&format!("ok {name}"));
            }
            Err(error) => {
                self.failed += 1;
                say(&format!("FAIL {name}: {}", format!("{error:#}").replace('\n', " ")));
            }
        }
    }

    /// Prints the totals, and returns success if no check failed.
    pub(crate) fn close(&self) -> ExitCode {
        say(&format!("{} passed, {} failed", self.passed, self.failed));
        if self.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Prints a line on standard output and flushes it. Ignores the error if nobody reads the output any more.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
