//! Hands the operations of this node to the log of a group: on the node that leads the group, directly; on another one,
//! through the connection to the leader, in batches that are sent again in order when the leader changes or a connection
//! breaks.
//!
//! A message to the leader is `kind u8 = 1, group u16` little-endian, and an entry (see `entry`). The leader answers one
//! that it cannot take, because it does not lead or because an earlier one is missing, with `kind u8 = 2, group u16`.
use crate::Node;
#[cfg(any(test, feature = "mutants"))]
use crate::entry;
use crate::fronts::Fronts;
use crate::inbox::Inbox;
use crate::outbox::{Next, Outbox};
use crate::outgoing::Outgoing;
use crate::replica::Replicas;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use leveret_engine::catalog::NodeRun;
use leveret_replication::{GroupId, GroupLeader, Groups, LinkDirection, PeerMessages, Peers, SubmitOutcome};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The task that hands the entries of one group in: those of this node, and, if this node leads the group, those that other
/// nodes have sent.
pub(crate) struct Proposer {
    pub(crate) group: GroupId,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) groups: Groups,
    /// The links to the other nodes, and what serves consumers through them; `None` if there are none.
    pub(crate) links: Option<(Peers, Arc<Fronts>)>,
    /// This start of the node.
    pub(crate) of: NodeRun,
    pub(crate) stopping: CancellationToken,
    /// Called if the group refuses an entry.
    pub(crate) on_failure: Arc<dyn Fn(String) + Send + Sync>,
}

/// Where entries go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// This node leads the group in this term.
    Here(u64),
    /// Another node leads it.
    To(GroupLeader),
    Nowhere,
}

/// A message between nodes about the batches of a group.
#[derive(Debug, PartialEq)]
pub(crate) enum ForwardMessage {
    /// An entry of the sender for the log of a group.
    Entry(GroupId, Bytes),
    /// The receiver sent entries to a group that the sender could not take: they have to be sent again.
    Refused(GroupId),
}

impl ForwardMessage {
    pub(crate) fn encode(self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Self::Entry(group, entry) => {
                out.reserve(3 + entry.len());
                out.put_u8(1);
                out.put_u16_le(group);
                out.put(entry);
            }
            Self::Refused(group) => {
                out.put_u8(2);
                out.put_u16_le(group);
            }
        }
        out.freeze()
    }

    /// Decodes a message; `None` if it is not known or too short.
    pub(crate) fn decode(mut bytes: Bytes) -> Option<Self> {
        let (kind, group) = (bytes.try_get_u8().ok()?, bytes.try_get_u16_le().ok()?);
        match kind {
            1 => Some(Self::Entry(group, bytes)),
            2 => bytes.is_empty().then_some(Self::Refused(group)),
            _ => None,
        }
    }
}

/// The result of one attempt to hand something in.
enum Step {
    Done,
    /// Nothing can be handed in before something happens, or before this time.
    Wait(Option<Instant>),
}

/// What was not applied when a task looked last, and since when.
struct Waiting {
    first: [Option<u64>; 2],
    since: Instant,
}

impl Proposer {
    /// Hands entries in until the node stops.
    pub(crate) async fn run(self) {
        let (mut way, mut waiting) = (Way::Nowhere, Waiting { first: [None; 2], since: Instant::now() });
        while !self.stopping.is_cancelled() {
            let (woken, leader) = (self.outbox.wake.notified(), self.groups.leader(self.group));
            let now = self.way(leader);
            if now != way {
                way = now;
                self.outbox.rewind(); // what is on its way may be in the log of the leader before, or lost
                if let (Way::To(leader), Some((_, fronts))) = (way, &self.links) {
                    fronts.led_by(self.group, leader);
                }
                continue;
            }
            let step = match way {
                Way::Here(term) => self.propose(term).await,
                Way::To(leader) => self.send(leader, &mut waiting).await,
                Way::Nowhere => Step::Wait(None),
            };
            let Step::Wait(until) = step else { continue };
            tokio::select! {
                biased;
                () = woken => {}
                () = tokio::time::sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {}
                () = self.groups.until_led_otherwise(self.group, leader), if self.links.is_some() => {}
                () = self.stopping.cancelled() => {}
            }
        }
    }

    fn way(&self, leader: Option<GroupLeader>) -> Way {
        if let Some(term) = self.outbox.term() {
            return Way::Here(term);
        }
        match leader {
            Some(leader) if self.links.is_some() && leader.node != self.of.node => Way::To(leader),
            _ => Way::Nowhere,
        }
    }

    /// Hands an entry of this node and one of another node to the log.
    async fn propose(&self, term: u64) -> Step {
        if self.outbox.take_refused() {
            tokio::time::sleep(NO_LEASE_WAIT).await;
            self.outbox.rewind();
            return Step::Done;
        }
        let has_room = |bytes: usize, control: bool| self.groups.has_room_for(bytes, control);
        let (mut done, mut until) = (false, None);
        match self.outbox.next(self.of, has_room) {
            Next::Entry(entry) => {
                self.submit(term, entry).await;
                done = true;
            }
            Next::Later(at) => until = Some(at),
            Next::Nothing => {}
        }
        match self.inbox.next(term, has_room) {
            Next::Entry(entry) => {
                self.submit(term, entry).await;
                done = true;
            }
            Next::Later(at) => until = Some(until.map_or(at, |until| at.min(until))),
            Next::Nothing => {}
        }
        if done { Step::Done } else { Step::Wait(until) }
    }

    async fn submit(&self, term: u64, entry: Bytes) {
        let (on_failure, outbox, inbox) = (self.on_failure.clone(), self.outbox.clone(), self.inbox.clone());
        let has_others = self.links.is_some();
        #[cfg(any(test, feature = "mutants"))]
        let (of, handed_in) = (self.of, entry.clone());
        let answer = Box::new(move |outcome: SubmitOutcome| {
            let Err(refused) = outcome else { return };
            #[cfg(any(test, feature = "mutants"))]
            confirm_stale(&outbox, of, &handed_in);
            outbox.wake.notify_one();
            // That a group has stopped is noticed elsewhere.
            if refused.is_open {
                return;
            }
            if !has_others {
                return on_failure(refused.to_string());
            }
            // A leader that has not heard from the others for long takes no entries, and may lead on in the same term.
            inbox.forget();
            outbox.refused();
        });
        self.groups.submit(self.group, term, entry, answer).await;
    }

    /// Sends an entry to the leader.
    async fn send(&self, leader: GroupLeader, waiting: &mut Waiting) -> Step {
        let Some((peers, _)) = &self.links else { return Step::Wait(None) };
        if self.outbox.take_refused() {
            tokio::time::sleep(REFUSED_WAIT).await;
            self.outbox.rewind();
            return Step::Done;
        }
        let entry = match self.outbox.next(self.of, |_, _| true) {
            Next::Entry(entry) => entry,
            Next::Later(until) => return Step::Wait(Some(until)),
            Next::Nothing => return self.watch(waiting),
        };
        let message = ForwardMessage::Entry(self.group, entry).encode();
        tokio::select! {
            biased;
            () = self.stopping.cancelled() => Step::Wait(None),
            () = self.groups.until_led_otherwise(self.group, Some(leader)) => {
                self.outbox.resend(); // the one that led takes nothing, perhaps
                Step::Done
            }
            sent = peers.send(leader.node, CHANNEL, message) => match sent {
                Ok(()) => Step::Done,
                Err(_) => {
                    self.outbox.resend();
                    Step::Wait(Some(Instant::now() + UNCONNECTED_WAIT))
                }
            },
        }
    }

    /// Has everything sent again if nothing of it was applied for long.
    fn watch(&self, waiting: &mut Waiting) -> Step {
        let first = self.outbox.unapplied();
        if first != waiting.first {
            *waiting = Waiting { first, since: Instant::now() };
        }
        if first == [None; 2] {
            return Step::Wait(None);
        }
        if waiting.since.elapsed() >= SILENCE_MAX {
            waiting.since = Instant::now();
            self.outbox.rewind();
            return Step::Done;
        }
        Step::Wait(Some(waiting.since + SILENCE_MAX))
    }
}

/// Confirms the batches of this start of the node that did not get into the log.
#[cfg(any(test, feature = "mutants"))]
fn confirm_stale(outbox: &Outbox, of: NodeRun, handed_in: &[u8]) {
    if crate::mutants::STALE_LEADER_CONFIRMS.load(std::sync::atomic::Ordering::Relaxed) {
        let batches = entry::batches(handed_in).unwrap_or_default();
        let own = batches.iter().filter_map(|batch| batch.id).filter(|id| id.incarnation == of.incarnation);
        own.for_each(|id| outbox.applied(entry::Row::of(id), id.number));
    }
}

/// Takes the messages of other nodes about batches, once storage is open. Before that they are lost, and sent again.
pub(crate) struct ForwardMessages(pub(crate) Weak<Node>);

impl ForwardMessages {
    fn with(&self, each: impl FnOnce(&Forwarding)) {
        let node = self.0.upgrade();
        if let Some(links) = node.as_ref().and_then(|node| node.links()) {
            each(&links.forwarding);
        }
    }
}

impl PeerMessages for ForwardMessages {
    fn received(&self, from: u64, _channel: u8, message: Bytes) {
        self.with(|forwarding| forwarding.received(from, message));
    }

    fn connected(&self, _node: u64, _boot: u64, direction: LinkDirection) {
        if direction == LinkDirection::Outgoing {
            self.with(Forwarding::connected);
        }
    }
}

/// The batches of other nodes, and what has to be sent to them again.
pub(crate) struct Forwarding {
    pub(crate) outboxes: Vec<(Arc<Outbox>, Arc<Inbox>)>,
    pub(crate) replicas: Arc<Replicas>,
    pub(crate) outgoing: Outgoing,
}

impl Forwarding {
    /// Takes a message from another node.
    pub(crate) fn received(&self, from: u64, message: Bytes) {
        match ForwardMessage::decode(message) {
            Some(ForwardMessage::Entry(group, entry)) => {
                let Some((outbox, inbox)) = self.outboxes.get(usize::from(group)) else { return };
                let taken = inbox.receive(outbox.term(), from, entry, |batch| self.replicas.next_batch(group, batch));
                match taken {
                    true => outbox.wake.notify_one(),
                    // A refusal that is lost is made up for: batches of which nothing is applied are sent again anyway.
                    false => self.outgoing.send(from, CHANNEL, ForwardMessage::Refused(group).encode()),
                }
            }
            Some(ForwardMessage::Refused(group)) => {
                if let Some((outbox, _)) = self.outboxes.get(usize::from(group)) {
                    outbox.refused();
                }
            }
            None => tracing::warn!(from, "a message of another node about batches is not known"),
        }
    }

    /// Notes that there is a new connection to a node: what was on its way through the one before may be lost.
    pub(crate) fn connected(&self) {
        for (outbox, _) in self.outboxes.iter().filter(|(outbox, _)| outbox.term().is_none()) {
            outbox.rewind();
        }
    }
}

/// The channel between nodes for the messages of this file.
pub(crate) const CHANNEL: u8 = 2;
/// The interval at which a leader that is not connected is tried again.
const UNCONNECTED_WAIT: Duration = Duration::from_millis(50);
/// Batches that were refused are sent again after this time: the leader may be about to begin.
const REFUSED_WAIT: Duration = Duration::from_millis(2);
/// Entries that the log did not take although this node leads are handed in again after this time: it may hear from the
/// others again.
const NO_LEASE_WAIT: Duration = Duration::from_millis(20);
/// Batches of which nothing was applied for this time are sent again.
const SILENCE_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_decoded_as_they_were_encoded() {
        for (message, golden) in [
            (ForwardMessage::Entry(258, Bytes::from_static(b"entry")), &b"\x01\x02\x01entry"[..]),
            (ForwardMessage::Refused(1), b"\x02\x01\0"),
        ] {
            let bytes = match &message {
                ForwardMessage::Entry(group, entry) => ForwardMessage::Entry(*group, entry.clone()).encode(),
                ForwardMessage::Refused(group) => ForwardMessage::Refused(*group).encode(),
            };
            assert_eq!(bytes, golden);
            assert_eq!(ForwardMessage::decode(bytes), Some(message));
        }
        for wrong in [&b""[..], b"\x01", b"\x01\0", b"\x02\0", b"\x02\0\0x", b"\x03\0\0"] {
            assert_eq!(ForwardMessage::decode(Bytes::from_static(wrong)), None, "{wrong:?}");
        }
    }
}
