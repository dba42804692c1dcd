//! Tells the other members what this node reports of itself, and notes what follows from their reports.
use super::formation::{self, Estranged, FoundPeer};
use super::report::MemberStage;
use super::state::{self, Cluster};
use bytes::Bytes;
use futures::future::join_all;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

impl Cluster {
    /// Sends this node's report to all members, again and again.
    pub(super) async fn announce(self: Arc<Self>) {
        loop {
            let statuses = self.statuses();
            self.note_caught_up(&statuses);
            self.look_for_removal();
            let report = Bytes::from(self.report().encode());
            let members = statuses.iter().flat_map(|status| status.members.keys().copied());
            let members: BTreeSet<u64> = members.filter(|member| *member != self.node).collect();
            let sends = members.into_iter().map(|member| {
                let sending = self.peers.send(member, CHANNEL, report.clone());
                async { tokio::time::timeout(SEND_MAX, sending).await.is_ok() } // a later report makes up for it
            });
            join_all(sends).await;
            tokio::time::sleep(self.options.times.look).await;
        }
    }

    /// Looks whether the members that this node hears from say that it was removed.
    fn look_for_removal(&self) {
        let statuses = self.statuses();
        let Some(status) = statuses.first().filter(|_| self.stage(&statuses) == MemberStage::Member) else { return };
        let members = state::addresses(status);
        let others = members.keys().filter_map(|member| {
            let report = self.report_of(*member)?;
            Some((report.address.clone(), FoundPeer::Node(*member, Box::new((*report).clone()))))
        });
        let others: Vec<_> = others.collect();
        if !others.is_empty() {
            let estranged = formation::estranged(self.node, &members, status.configured_at, &others);
            self.suspect_removal(estranged == Some(Estranged::Removed));
        }
    }
}

/// The channel of the reports.
pub(super) const CHANNEL: u8 = 1;
/// The longest time that a report waits to be sent.
const SEND_MAX: Duration = Duration::from_millis(100);
