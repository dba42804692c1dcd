//! The memory budget: past it publishers are held back, long before the kernel would end the process.
//!
//! Queues report what their contents and index hold, exactly and at once; what the process holds in fact (buffers,
//! fragmentation) is sampled. The larger of the two counts. Consumers and everything else go on.
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use tokio::sync::Notify;

/// What is used, what may be used, and whether publishers wait.
pub struct Memory {
    max: u64,
    contents: AtomicU64,
    resident: AtomicU64,
    /// Of the contents, those that could be read again.
    warm: AtomicU64,
    /// Bytes of messages that have not come in full.
    incomplete: AtomicU64,
    /// Bytes of channels and consumers.
    opened: AtomicU64,
    alarmed: AtomicBool,
    /// There is no room for further messages on the disk.
    disk_alarm: AtomicBool,
    changed: Notify,
}

impl Memory {
    /// A budget of `max` bytes.
    pub(crate) fn new(max: u64) -> Self {
        Self {
            max,
            contents: AtomicU64::new(0),
            resident: AtomicU64::new(0),
            warm: AtomicU64::new(0),
            incomplete: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            alarmed: AtomicBool::new(false),
            disk_alarm: AtomicBool::new(false),
            changed: Notify::new(),
        }
    }

    /// A queue's memory went from `before` to `after` bytes.
    #[inline]
    pub(crate) fn account(&self, before: u64, after: u64) {
        if after > before {
            let now = self.contents.fetch_add(after - before, Relaxed) + (after - before);
            if now > self.max {
                self.alarmed.store(true, Relaxed);
            }
        } else if before > after {
            self.contents.fetch_sub(before - after, Relaxed);
        }
    }

    /// A message that has not come in full went from `before` to `after` bytes.
    pub(crate) fn account_incomplete(&self, before: u64, after: u64) {
        self.account(before, after);
        self.incomplete.fetch_add(after.wrapping_sub(before), Relaxed);
    }

    /// A channel or a consumer takes `bytes`, if all of them take `most` at most then. False if they would take more.
    pub(crate) fn account_opened(&self, bytes: u64, most: u64) -> bool {
        let more = |opened: u64| opened.checked_add(bytes).filter(|&sum| sum <= most);
        let granted = self.opened.fetch_update(Relaxed, Relaxed, more).is_ok();
        if granted {
            self.account(0, bytes);
        }
        granted
    }

    /// What was granted to a channel or a consumer is free again.
    pub(crate) fn release_opened(&self, bytes: u64) {
        self.opened.fetch_sub(bytes, Relaxed);
        self.account(bytes, 0);
    }

    /// Whether memory is used up, and by more than a quarter for messages that have not come in full.
    pub fn is_filled_by_incomplete(&self) -> bool {
        self.is_memory_alarmed() && self.incomplete.load(Relaxed) > self.max / 4
    }

    /// A durable queue's contents in memory went from `before` to `after` bytes.
    #[inline]
    pub(crate) fn account_warm(&self, before: u64, after: u64) {
        if after > before {
            self.warm.fetch_add(after - before, Relaxed);
        } else {
            self.warm.fetch_sub(before - after, Relaxed);
        }
    }

    /// Bytes of contents that durable queues keep in memory.
    #[cfg(test)]
    pub(crate) fn warm(&self) -> u64 {
        self.warm.load(Relaxed)
    }

    /// Whether durable queues may keep more of their contents in memory.
    pub(crate) fn takes_warm(&self) -> bool {
        self.warm.load(Relaxed) < WARM_MAX.min(self.max / 4)
    }

    /// The disk has no room for further messages, or has again.
    pub(crate) fn set_disk_alarm(&self, full: bool) {
        if self.disk_alarm.swap(full, Relaxed) == full {
            return;
        }
        if full {
            tracing::debug!("publishers are held back until the log has room");
        } else {
            tracing::debug!("the log has room: publishers go on");
            self.changed.notify_waiters();
        }
    }

    /// Looks at what the process holds, and sets or clears the alarm. It clears at 95 % of the budget, not to flap.
    pub(crate) fn sample(&self) {
        self.resident.store(resident_bytes(), Relaxed);
        let used = self.used();
        if used > self.max {
            self.alarmed.store(true, Relaxed);
        } else if used < self.max / 20 * 19 && self.alarmed.swap(false, Relaxed) {
            tracing::info!(used, max = self.max, "memory alarm over: publishers go on");
            self.changed.notify_waiters();
        }
    }

    /// Bytes that queues and ledgers report.
    #[cfg(test)]
    pub(crate) fn contents(&self) -> u64 {
        self.contents.load(Relaxed)
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.contents.load(Relaxed).max(self.resident.load(Relaxed))
    }

    /// Bytes of the process that the kernel counts, when last looked at.
    pub fn resident(&self) -> u64 {
        self.resident.load(Relaxed)
    }

    /// The budget in bytes.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// Whether publishers have to wait.
    #[inline]
    pub fn is_alarmed(&self) -> bool {
        self.alarmed.load(Relaxed) || self.disk_alarm.load(Relaxed)
    }

    /// Returns whether publishers have to wait because memory is used up.
    pub fn is_memory_alarmed(&self) -> bool {
        self.alarmed.load(Relaxed)
    }

    /// Returns whether publishers have to wait because the disk has no room.
    pub fn is_disk_alarmed(&self) -> bool {
        self.disk_alarm.load(Relaxed)
    }

    /// Waits until publishers may go on.
    pub async fn until_cleared(&self) {
        loop {
            let changed = self.changed.notified();
            if !self.is_alarmed() {
                return;
            }
            changed.await;
        }
    }
}

/// Contents of durable queues that stay in memory for a delivery soon.
const WARM_MAX: u64 = 64 << 20;

/// The default budget: 60 % of what the control group allows or, without a limit, of the machine's memory.
pub fn default_max() -> u64 {
    available_bytes() / 100 * 60
}

/// Memory that this process may use at all, in bytes: the smallest limit of its control group, or the machine's memory.
pub fn available_bytes() -> u64 {
    let machine = {
        let info = rustix::system::sysinfo();
        info.totalram as u64 * u64::from(info.mem_unit)
    };
    ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok())
        .fold(machine, u64::min)
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|field| field.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}
