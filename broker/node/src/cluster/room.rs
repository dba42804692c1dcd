//! What nodes of a cluster do about disks without room. A node whose disk has none for a while is *full*: it says so to the
//! others, and lets them lead. While most nodes are full, nothing can be agreed on, and all of them hold publishers back.
//! A full node that lacks entries because its log takes none is not ready, and in the end sends its clients away.
use super::minority::SEND_AWAY_AFTER;
use super::report::MemberStage;
use super::state::Cluster;
use crate::Broker;
use leveret_replication::GroupStatus;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::Instant;

/// What a node has seen of the room on the disks, and since when.
#[derive(Default)]
pub(super) struct RoomLook {
    /// Since when the alarm of the disk says something else than what is reported.
    changing: Option<Instant>,
    /// The last entry that was applied in each group, and since when it has been the last one.
    applied: Vec<AppliedSince>,
    /// Since when this node has lacked entries for which its log has no room.
    lacking: Option<Instant>,
}

struct AppliedSince {
    applied: Option<u64>,
    since: Instant,
}

impl Cluster {
    /// Looks whether this node and the others have room on their disks.
    pub(super) fn look_for_room(&self, statuses: &[GroupStatus], look: &mut RoomLook) {
        let (Some(node), Some(definitions)) = (self.broker(), statuses.first()) else { return };
        let is_low = node.memory.is_own_disk_alarmed();
        if is_low == self.is_full() {
            look.changing = None;
        } else if look.changing.get_or_insert_with(Instant::now).elapsed() >= LASTING {
            look.changing = None;
            self.is_full.store(is_low, Relaxed);
            match is_low {
                true => tracing::warn!("the disk is full: other nodes lead until there is room"),
                false => tracing::info!("the disk is not full any more: this node may lead again"),
            }
        }
        let is_member = self.stage(statuses) == MemberStage::Member && definitions.voters.contains(&self.node);
        node.memory.set_most_disks_alarm(is_member && self.has_quorum(definitions) && !self.have_room(definitions));
        look.lacking = match is_member && self.is_full() {
            true => self.lacking_since(statuses, look),
            false => None,
        };
        if look.lacking.is_some_and(|since| since.elapsed() >= SEND_AWAY_AFTER) {
            Broker(node).send_all_away(FULL);
        }
    }

    /// Returns whether a majority of the voters can be reached and has room.
    fn have_room(&self, status: &GroupStatus) -> bool {
        let has_room = |voter: &&u64| match **voter == self.node {
            true => !self.is_full(),
            false => self.peers.is_connected(**voter) && self.report_of(**voter).is_none_or(|report| !report.is_full),
        };
        status.voters.iter().filter(has_room).count() * 2 > status.voters.len()
    }

    /// Notes which groups this node, which is full, lacks entries of, and has not got further with for a while. Returns
    /// since when it has lacked some; that ends only once it has all, as a log that is full takes some now and then.
    fn lacking_since(&self, statuses: &[GroupStatus], look: &mut RoomLook) -> Option<Instant> {
        look.applied.resize_with(statuses.len(), || AppliedSince { applied: None, since: Instant::now() });
        let (mut is_stuck, mut lacks) = (false, false);
        for ((group, status), known) in (0..).zip(statuses).zip(&mut look.applied) {
            let report = status.leader.and_then(|leader| self.report_of(leader));
            let last = report.as_ref().and_then(|report| report.group(group)?.last);
            lacks |= last > status.applied;
            if known.applied != status.applied || last <= status.applied {
                *known = AppliedSince { applied: status.applied, since: Instant::now() };
            } else if known.since.elapsed() >= LASTING {
                self.caught_up.lock().remove(&group);
                is_stuck = true;
            }
        }
        match is_stuck {
            true => Some(look.lacking.unwrap_or_else(Instant::now)),
            false => look.lacking.filter(|_| lacks),
        }
    }
}

/// What a node says whose disk takes no entries.
pub(super) const FULL: &str = "its disk has no room for further entries";
/// An alarm, or the end of one, counts once it has lasted for this time: a busy log may lack room for a moment.
const LASTING: Duration = Duration::from_secs(1);
