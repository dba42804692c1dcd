//! The log messages about refused connections. Anybody can cause them, so there are not many.
use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// Logs refused connections, but not more than [`LOGS_MAX`] in [`LOGS_PERIOD`].
#[derive(Default)]
pub(super) struct RefusalLog(Mutex<LogBudget>);

#[derive(Default)]
struct LogBudget {
    since: Option<Instant>,
    logged: u32,
    left_out: u32,
}

impl RefusalLog {
    pub(super) fn log(&self, text: &str) {
        let mut budget = self.0.lock();
        if budget.since.is_none_or(|since| since.elapsed() >= LOGS_PERIOD) {
            let left_out = std::mem::take(&mut budget.left_out);
            *budget = LogBudget { since: Some(Instant::now()), logged: 0, left_out: 0 };
            if left_out > 0 {
                tracing::warn!("{left_out} more connections were refused");
            }
        }
        if budget.logged < LOGS_MAX {
            budget.logged += 1;
            tracing::warn!("{text}");
        } else {
            budget.left_out += 1;
        }
    }
}

const LOGS_MAX: u32 = 10;
const LOGS_PERIOD: Duration = Duration::from_secs(10);
