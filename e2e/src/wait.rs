//! Waits for conditions, with deadlines, in place of sleeps.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long something that is usually quick may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// Calls `ask` until it returns `Some`, and returns the value.
///
/// # Errors
/// If it has not after [`PATIENCE`]; `what` says in the error what was waited for.
pub fn until<T>(what: impl Display, ask: impl FnMut() -> Option<T>) -> Result<T> {
    until_for(PATIENCE, what, ask)
}

/// Calls `ask` until it returns `Some`, and returns the value.
///
/// # Errors
/// If it has not after `limit`; `what` says in the error what was waited for.
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

/// Calls `ask` until it returns `Ok`, and returns the value.
///
/// # Errors
/// The last error if it has not after `limit`; `what` says what was waited for.
pub fn until_ok<T>(limit: Duration, what: impl Display, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let mut last = None;
    let answer = until_for(limit, &what, || ask().map_err(|error| last = Some(error)).ok());
    answer.map_err(|late| match last {
        Some(error) => error.context(late.to_string()),
        None => late,
    })
}
