//! [`Groups`], the handle to the Raft groups of a node, which share one journal: opens them, submits entries, takes
//! snapshots.
use crate::beat;
use crate::link::{PeerChange, Peers};
use crate::open_error::GroupsOpenError;
use crate::proposal::{self, NotLeader, SubmitOutcome};
use crate::receive_snapshot;
use crate::replica::{self, Group};
use crate::serve::GroupRequests;
use crate::start::{self, GroupsOptions, StartContext};
use crate::state_machine::copy;
use crate::takeover;
use crate::types::{Command, log_id};
use crate::{GroupId, GroupStates};
use bytes::Bytes;
use futures::future::BoxFuture;
use leveret_journal::{Disk, Journal, JournalOptions};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::error::{Fatal, RaftError};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// The leader of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupLeader {
    /// The node that leads.
    pub node: u64,
    /// The term in which it leads.
    pub term: u64,
}

/// The handle to the groups; cheap to clone.
#[derive(Clone)]
pub struct Groups(Arc<GroupsInner>);

struct GroupsInner {
    journal: Journal,
    groups: Arc<[Group]>,
}

impl Groups {
    /// Opens the journal and the groups, and restores their snapshots.
    ///
    /// Without `peers` this node is the only member of all groups: it leads them, and all entries of their logs are
    /// applied, those of group 0 first, once they are open. With `peers`, which have to be those of the same node, groups
    /// may have members on other nodes: only groups that this node is the sole member of are led and applied by then. A
    /// group without members waits for [`initialize`](Self::initialize), or for a leader to add it. The groups use the
    /// peers from then on, and have to be stopped before them.
    ///
    /// The future is boxed so that openraft's code is compiled once, in this crate, and not in each crate that awaits it.
    ///
    /// # Errors
    /// [`GroupsOpenError`] if the journal or a snapshot cannot be read or lacks something, or if an entry cannot be
    /// applied.
    pub fn open(
        disk: Arc<dyn Disk>,
        journal: JournalOptions,
        options: GroupsOptions,
        applied: Arc<dyn GroupStates>,
        peers: Option<Peers>,
    ) -> BoxFuture<'static, Result<Self, GroupsOpenError>> {
        let context = StartContext { disk, options, states: applied, peers };
        Box::pin(Self::open_all(context, journal))
    }

    async fn open_all(context: StartContext, journal: JournalOptions) -> Result<Self, GroupsOpenError> {
        let peers = context.peers.clone();
        let (journal, groups) = start::open_all(context, journal).await?;
        if let Some(peers) = peers {
            groups.iter().for_each(|group| peers.spawn(group.clone().watch(peers.clone())));
            peers.spawn(beat::run(groups.clone()));
            let (served, watched, links) = (groups.clone(), groups.clone(), peers.clone());
            let changes = Arc::new(move |node, change| match change {
                PeerChange::Gone => takeover::begin(&watched, &links, node),
                PeerChange::Back => links.spawn(replica::resume(watched.clone(), node)),
            });
            peers.serve(Arc::new(GroupRequests { groups: served }), changes);
        }
        Ok(Self(Arc::new(GroupsInner { journal, groups })))
    }

    /// Returns whether the journal has room for an entry of `bytes` bytes. If so, the room is promised to that entry
    /// until it is appended. To be called before each [`submit`](Self::submit), and again later if there is no room. A
    /// `control` entry, one that leads to room being freed, may use all of the journal's reserve.
    #[must_use]
    pub fn has_room_for(&self, bytes: usize, control: bool) -> bool {
        self.0.journal.promise(bytes, control)
    }

    /// Submits an entry to a group, if this node leads it in `term`. The entries get into the log in the order of the
    /// calls. Returns before the entry is durable; the future should not be dropped before. `answer` is called exactly
    /// once, by a task of the group, which must not be blocked: with the index of the entry after it was applied on this
    /// node, or with the reason why it was not.
    pub async fn submit(&self, group: GroupId, term: u64, entry: Bytes, answer: Box<dyn FnOnce(SubmitOutcome) + Send>) {
        let (journal, bytes) = (self.0.journal.clone(), entry.len());
        let answer = Box::new(move |outcome: SubmitOutcome| {
            if outcome.as_ref().is_err_and(|refused| !refused.is_open) {
                journal.redeem(bytes); // the entry will not be appended
            }
            answer(outcome);
        });
        let write = self.group(group).raft.write(Command::new(entry)).with_leader(log_id(term, 0).leader_id);
        let _ = write.responder(proposal::responder(group, answer)).await; // the responder answers in any case
    }

    /// Waits until the journal has room for the entry, submits it as a control entry, and waits until it is applied on
    /// this node.
    ///
    /// # Errors
    /// [`NotLeader`] if the group has stopped or is led by another node.
    pub async fn write(&self, group: GroupId, entry: Bytes) -> Result<(), NotLeader> {
        while !self.has_room_for(entry.len(), true) {
            tokio::time::sleep(ROOM_RETRY).await;
        }
        let bytes = entry.len();
        self.group(group).raft.client_write(Command::new(entry)).await.map(drop).map_err(|error| {
            let refused = match error {
                RaftError::APIError(error) => NotLeader::refused(group, error),
                RaftError::Fatal(fatal) => NotLeader::stopped(group, fatal),
            };
            if !refused.is_open {
                self.0.journal.redeem(bytes);
            }
            refused
        })
    }

    /// Returns the node that leads a group and the term in which it does, as far as this node knows: it may have ended or
    /// been replaced meanwhile, and after a start it is the one of before until another leader is heard of.
    #[must_use]
    pub fn leader(&self, group: GroupId) -> Option<GroupLeader> {
        let metrics = self.group(group).raft.server_metrics();
        let vote = metrics.borrow_watched().vote;
        vote.committed.then_some(GroupLeader { node: vote.leader_id.voted_for, term: vote.leader_id.term })
    }

    /// Returns the index of the last entry of a group that is applied on this node; 0 if there is none.
    #[must_use]
    pub fn applied(&self, group: GroupId) -> u64 {
        self.group(group).raft.metrics().borrow_watched().last_applied.map_or(0, |last| last.index)
    }

    /// Waits until the leader of a group is another than `known`, as far as this node knows, or the group stops.
    pub async fn until_led_otherwise(&self, group: GroupId, known: Option<GroupLeader>) {
        let mut metrics = self.group(group).raft.server_metrics(); // the others change with each entry
        while self.leader(group) == known {
            if metrics.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Returns whether this node is the only member of a group.
    #[must_use]
    pub fn is_alone(&self, group: GroupId) -> bool {
        self.group(group).log.is_alone()
    }

    /// Writes a snapshot of a group that covers at least the entries applied so far, then has openraft purge the
    /// entries that it covers, except for those that a member which can be reached does not have yet.
    ///
    /// The future is boxed for the same reason as that of [`open`](Self::open).
    ///
    /// # Errors
    /// The error of the disk, or an error if the group has stopped. After an error for which [`is_passing`](leveret_journal::is_passing)
    /// returns true, the group goes on and the snapshot can be tried again.
    pub fn snapshot(&self, group: GroupId) -> BoxFuture<'_, io::Result<()>> {
        self.snapshot_within(group, 0)
    }

    /// Does the same as [`snapshot`](Self::snapshot), but keeps no entries for other members that are in segments of the
    /// journal with numbers below `first_segment`. Members that need such entries will be sent the snapshot.
    ///
    /// # Errors
    /// As [`snapshot`](Self::snapshot).
    pub fn snapshot_within(&self, group: GroupId, first_segment: u64) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(self.write_snapshot(group, first_segment))
    }

    /// Has openraft purge the entries that the snapshot on the disk covers, as [`snapshot_within`](Self::snapshot_within)
    /// does after it has written one. To be called when members have caught up since.
    pub fn purge_within(&self, group: GroupId, first_segment: u64) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            let covered = self.group(group).raft.metrics().borrow_watched().snapshot;
            match covered {
                Some(covered) => self.purge(group, covered.index, first_segment).await,
                None => Ok(()),
            }
        })
    }

    async fn purge(&self, group: GroupId, covered: u64, first_segment: u64) -> io::Result<()> {
        let group = self.group(group);
        let purged = group.log.table.lock().purged;
        match group.purge_upto(covered, first_segment).filter(|upto| purged.is_none_or(|purged| purged.index < *upto)) {
            Some(upto) => group.raft.trigger().purge_log(upto).await.map_err(io::Error::other),
            None => Ok(()),
        }
    }

    async fn write_snapshot(&self, group: GroupId, first_segment: u64) -> io::Result<()> {
        let Group { raft, builds, .. } = self.group(group);
        let applied = raft.metrics().borrow_watched().last_applied;
        let earlier = builds.latest();
        let mut outcomes = builds.outcome.subscribe();
        loop {
            raft.trigger().snapshot().await.map_err(io::Error::other)?;
            match tokio::time::timeout(CHECK_EVERY, outcomes.changed()).await {
                Ok(changed) => changed.map_err(io::Error::other)?,
                Err(_) => {
                    raft.metrics().borrow_watched().running_state.clone().map_err(io::Error::other)?;
                    tracing::info!(group, "writing a snapshot takes long");
                    continue;
                }
            }
            let outcome = outcomes.borrow_and_update().clone();
            if outcome.number > earlier {
                match outcome.error {
                    Some(error) => return Err(copy(&error)),
                    None => break,
                }
            }
        }
        // openraft silently purges nothing until its own metrics know of a snapshot that covers the entries.
        let wait = raft.wait(None);
        let written = wait.metrics(|metrics| metrics.snapshot >= applied, "the snapshot is written");
        let Some(covered) = written.await.map_err(io::Error::other)?.snapshot else { return Ok(()) };
        self.purge(group, covered.index, first_segment).await
    }

    /// Returns the number of bytes of a group's state in its snapshot on the disk; 0 if there is no snapshot.
    #[must_use]
    pub fn snapshot_bytes(&self, group: GroupId) -> u64 {
        self.group(group).builds.bytes()
    }

    /// Returns the first group that has stopped because of an error, with the error, or `None` if there is none.
    #[must_use]
    pub fn stopped(&self) -> Option<NotLeader> {
        self.0.groups.iter().find_map(|group| {
            let number = group.log.group;
            if let Some(reason) = group.diverged.get() {
                return Some(NotLeader::stopped(number, reason));
            }
            let state = group.raft.metrics().borrow_watched().running_state.clone();
            let fatal = state.err().filter(|fatal| !matches!(fatal, Fatal::Stopped))?;
            Some(NotLeader::stopped(number, fatal))
        })
    }

    /// Returns the number of entries in the log of a group that are not purged.
    #[must_use]
    pub fn log_len(&self, group: GroupId) -> u64 {
        self.group(group).log.table.lock().len()
    }

    /// Returns the number of the oldest segment of the journal that holds an entry of a group's log, or `None` if the
    /// log is empty.
    #[must_use]
    pub fn first_segment(&self, group: GroupId) -> Option<u64> {
        self.group(group).log.table.lock().first_segment()
    }

    /// Returns the index of the last entry to which the state of a group has got, if there is any.
    #[cfg(feature = "simulated")]
    #[must_use]
    pub fn state_upto(&self, group: GroupId) -> Option<u64> {
        let Group { log, builds, .. } = self.group(group);
        let applied = log.table.lock().applied_upto();
        applied.max(builds.covered())
    }

    /// Forgets the states of snapshots that began to arrive and did not get further for ten minutes.
    pub fn end_idle_arrivals(&self) {
        self.0.groups.iter().for_each(receive_snapshot::end_if_idle);
    }

    /// Returns the number of groups.
    #[must_use]
    pub fn len(&self) -> u16 {
        self.0.groups.len() as u16
    }

    /// Returns whether there are no groups.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.groups.is_empty()
    }

    /// Returns the journal that the groups share.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.0.journal
    }

    /// Stops the groups, then the journal.
    pub async fn stop(&self) {
        for group in self.0.groups.iter() {
            group.log.leadership.stop();
            let _ = group.raft.shutdown().await;
        }
        self.0.journal.stop();
    }

    pub(crate) fn group(&self, group: GroupId) -> &Group {
        &self.0.groups[usize::from(group)]
    }
}

/// Time between two checks that a group still runs while its snapshot is being written.
const CHECK_EVERY: Duration = if cfg!(test) { Duration::from_millis(1) } else { Duration::from_secs(10) };
/// Pause before [`Groups::write`] asks the journal for room again.
const ROOM_RETRY: Duration = Duration::from_millis(20);
