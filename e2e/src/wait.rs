//! Waits on conditions with a deadline, in place of sleeps.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long anything that should be quick may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// Asks until the answer is `Some`, at most for [`PATIENCE`].
pub fn until<T>(what: impl Display, ask: impl FnMut() -> Option<T>) -> Result<T> {
    until_for(PATIENCE, what, ask)
}

/// Asks until the answer is `Some`, at most for `limit`.
pub fn until_for<T>(limit: Duration, what: impl Display, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            bail!("waited {limit:?} for {what}");
        }
        std::thread::sleep(PAUSE);
    }
}

/// Asks until the answer is `Ok`; the last error says why it never was.
pub fn until_ok<T>(limit: Duration, what: impl Display, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let mut last = None;
    let answer = until_for(limit, &what, || ask().map_err(|error| last = Some(error)).ok());
    answer.map_err(|late| match last {
        Some(error) => error.context(late.to_string()),
        None => late,
    })
}
