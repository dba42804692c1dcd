//! The memory budget: when it is exceeded publishers are held back, long before the kernel would end the process.
//!
//! Queues report the memory of their contents and indexes exactly and at once; the memory that the process takes in fact
//! (buffers, fragmentation) is sampled. The larger of the two counts. Consumers and everything else go on.
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::Notify;

/// The memory budget, the memory in use, and the alarms because of which publishers wait.
pub struct Memory {
    max: u64,
    contents: AtomicU64,
    resident: AtomicU64,
    /// The bytes among `contents` that could be read back from the disk.
    warm: AtomicU64,
    /// The bytes of incomplete messages.
    incomplete: AtomicU64,
    /// The bytes of open channels and consumers.
    opened: AtomicU64,
    alarmed: AtomicBool,
    /// Set while the disk has no room for further messages.
    disk_alarm: AtomicBool,
    /// Set while most nodes of the cluster have no room for further messages.
    most_disks_alarm: AtomicBool,
    /// Set while most nodes of the cluster cannot be reached.
    cluster_alarm: AtomicBool,
    changed: Notify,
}

impl Memory {
    /// Creates a budget of `max` bytes.
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
            most_disks_alarm: AtomicBool::new(false),
            cluster_alarm: AtomicBool::new(false),
            changed: Notify::new(),
        }
    }

    /// Notes that the memory of a queue went from `before` to `after` bytes. Raises the alarm if the budget is exceeded.
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

    /// Notes that the memory of an incomplete message went from `before` to `after` bytes.
    pub(crate) fn account_incomplete(&self, before: u64, after: u64) {
        self.account(before, after);
        self.incomplete.fetch_add(after.wrapping_sub(before), Relaxed);
    }

    /// Grants `bytes` bytes to a channel or a consumer if all of them together then take at most `most` bytes. Returns
    /// whether they were granted.
    pub(crate) fn account_opened(&self, bytes: u64, most: u64) -> bool {
        let more = |opened: u64| opened.checked_add(bytes).filter(|&sum| sum <= most);
        let granted = self.opened.fetch_update(Relaxed, Relaxed, more).is_ok();
        if granted {
            self.account(0, bytes);
        }
        granted
    }

    /// Takes back the bytes that were granted to a channel or a consumer.
    pub(crate) fn release_opened(&self, bytes: u64) {
        self.opened.fetch_sub(bytes, Relaxed);
        self.account(bytes, 0);
    }

    /// Returns whether the memory budget is used up, and more than a quarter of it is taken by incomplete messages.
    pub fn is_filled_by_incomplete(&self) -> bool {
        self.is_memory_alarmed() && self.incomplete.load(Relaxed) > self.max / 4
    }

    /// Notes that the warm contents of a durable queue went from `before` to `after` bytes.
    #[inline]
    pub(crate) fn account_warm(&self, before: u64, after: u64) {
        if after > before {
            self.warm.fetch_add(after - before, Relaxed);
        } else {
            self.warm.fetch_sub(before - after, Relaxed);
        }
    }

    /// Returns the bytes of the contents that durable queues keep in memory.
    #[cfg(test)]
    pub(crate) fn warm(&self) -> u64 {
        self.warm.load(Relaxed)
    }

    /// Returns whether durable queues may keep more of their contents in memory.
    pub(crate) fn takes_warm(&self) -> bool {
        self.warm.load(Relaxed) < WARM_MAX.min(self.max / 4)
    }

    /// Notes whether the disk has no room for further messages (`full`), or has room again.
    pub(crate) fn set_disk_alarm(&self, full: bool) {
        self.set(&self.disk_alarm, full);
    }

    /// Notes whether most nodes of the cluster have no room for further messages (`full`), or have room again.
    pub(crate) fn set_most_disks_alarm(&self, full: bool) {
        self.set(&self.most_disks_alarm, full);
    }

    /// Notes whether most nodes of the cluster cannot be reached (`lost`), or can be reached again.
    pub(crate) fn set_cluster_alarm(&self, lost: bool) {
        self.set(&self.cluster_alarm, lost);
    }

    fn set(&self, alarm: &AtomicBool, raised: bool) {
        if alarm.swap(raised, Relaxed) != raised {
            self.changed.notify_waiters();
        }
    }

    /// Measures the memory of the process, and sets or clears the alarm. The alarm is cleared below 95 % of the budget, so
    /// that it does not flap.
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

    /// Returns the bytes that queues, ledgers, incomplete messages, channels and consumers report.
    #[cfg(test)]
    pub(crate) fn contents(&self) -> u64 {
        self.contents.load(Relaxed)
    }

    /// Returns the memory in use in bytes: the larger of the reported and the measured value.
    pub fn used(&self) -> u64 {
        self.contents.load(Relaxed).max(self.resident.load(Relaxed))
    }

    /// Returns the resident memory of the process in bytes, as of the last sample.
    pub fn resident(&self) -> u64 {
        self.resident.load(Relaxed)
    }

    /// Returns the budget in bytes.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// Returns whether publishers have to wait: memory is used up, the disk or those of most nodes of the cluster have no
    /// room, or most nodes of the cluster cannot be reached.
    #[inline]
    pub fn is_alarmed(&self) -> bool {
        self.alarmed.load(Relaxed) || self.is_disk_alarmed() || self.cluster_alarm.load(Relaxed)
    }

    /// Returns why publishers have to wait, for them to read.
    pub fn alarm_in_words(&self) -> &'static str {
        match (self.is_cluster_alarmed(), self.is_own_disk_alarmed(), self.is_disk_alarmed()) {
            (true, ..) => NO_MAJORITY,
            (_, true, _) => "low on disk",
            (.., true) => MOST_DISKS_FULL,
            _ => "low on memory",
        }
    }

    /// Returns whether publishers have to wait because memory is used up.
    pub fn is_memory_alarmed(&self) -> bool {
        self.alarmed.load(Relaxed)
    }

    /// Returns whether publishers have to wait because the disk has no room, or those of most nodes of the cluster have none.
    #[inline]
    pub fn is_disk_alarmed(&self) -> bool {
        self.is_own_disk_alarmed() || self.most_disks_alarm.load(Relaxed)
    }

    /// Returns whether the disk of this node has no room.
    #[inline]
    pub(crate) fn is_own_disk_alarmed(&self) -> bool {
        self.disk_alarm.load(Relaxed)
    }

    /// Returns whether publishers have to wait because most nodes of the cluster cannot be reached.
    pub fn is_cluster_alarmed(&self) -> bool {
        self.cluster_alarm.load(Relaxed)
    }

    /// Waits until publishers may go on.
    pub async fn until_cleared(&self) {
        self.until(|memory| !memory.is_alarmed()).await;
    }

    /// Waits for `pause`, and then until most nodes of the cluster can be reached.
    pub(crate) async fn until_majority(&self, pause: Duration) {
        tokio::time::sleep(pause).await;
        self.until(|memory| !memory.is_cluster_alarmed()).await;
    }

    /// Waits until most nodes of the cluster cannot be reached.
    pub async fn until_cluster_alarmed(&self) {
        self.until(Self::is_cluster_alarmed).await;
    }

    async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        loop {
            let changed = self.changed.notified();
            if is_so(self) {
                return;
            }
            changed.await;
        }
    }
}

/// What a node says that is cut off from most others.
pub(crate) const NO_MAJORITY: &str = "most nodes of the cluster cannot be reached";
/// What a node says that has room, while most others have none.
pub(crate) const MOST_DISKS_FULL: &str = "low on disk: most nodes of the cluster have no room";
/// The largest number of bytes of durable queues' contents that stay in memory to be delivered soon.
const WARM_MAX: u64 = 64 << 20;

/// Returns the default memory budget in bytes: 60 % of the limit of the control group or, without a limit, of the machine's
/// memory.
pub fn default_max() -> u64 {
    available_bytes() / 100 * 60
}

/// Returns the memory that this process may use at all, in bytes: the limit of its control group or the machine's memory,
/// whichever is smaller.
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
