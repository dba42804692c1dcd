//! When faults had an effect, so that promises which hold only without faults are checked only then.

/// The times, in milliseconds, at which something had an effect, each with the time after which things are as usual again.
#[derive(Default)]
pub(crate) struct Calm {
    faults: Vec<(u64, u64)>,
    changes_of_leaders: Vec<(u64, u64)>,
}

impl Calm {
    /// Notes a fault that has an effect from `begin` to `end`.
    pub(crate) fn disturb(&mut self, begin: u64, end: u64) {
        self.faults.push((begin, end + AFTERMATH));
    }

    /// Notes that another node leads a group now: what was delivered before is ready again.
    pub(crate) fn led_otherwise(&mut self, now: u64) {
        self.changes_of_leaders.push((now.saturating_sub(BEFORE_SEEN), now + LEARNED));
    }

    /// Returns whether neither a fault nor a change of leaders had an effect between `begin` and `end`.
    pub(crate) fn was_calm(&self, begin: u64, end: u64) -> bool {
        self.was_undisturbed(begin, end) && !overlaps(&self.changes_of_leaders, begin, end)
    }

    /// Returns whether no fault had an effect between `begin` and `end`.
    pub(crate) fn was_undisturbed(&self, begin: u64, end: u64) -> bool {
        !overlaps(&self.faults, begin, end)
    }
}

fn overlaps(times: &[(u64, u64)], begin: u64, end: u64) -> bool {
    times.iter().any(|(from, until)| *from <= end && begin <= *until)
}

/// The time for which a node may have led before it was seen to.
const BEFORE_SEEN: u64 = 2;
/// The time in which all nodes learn who leads now.
const LEARNED: u64 = 300;
/// A node that cannot be reached loses what was granted to it after five seconds; leaders settle down before that.
const AFTERMATH: u64 = 7_000;
