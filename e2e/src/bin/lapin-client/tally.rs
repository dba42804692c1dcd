//! Runs checks, prints `ok NAME` or `FAIL NAME: why`, and the sum in the end.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

#[derive(Default)]
pub(crate) struct Tally {
    passed: usize,
    failed: usize,
}

impl Tally {
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

    pub(crate) fn close(&self) -> ExitCode {
        say(&format!("{} passed, {} failed", self.passed, self.failed));
        if self.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// One line on standard output, at once; a reader that has gone is no error.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
