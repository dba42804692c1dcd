//! Requests about a queue that the node which leads it has to answer: a node that is asked by a client passes them on.
//!
//! A request that is sent again, because its answer may be lost, has the same number: it is done once. It names the last
//! entry that the asking node has applied, so that the leader answers with what a client of that node has seen.
use crate::Broker;
use crate::ask_messages::{
    Asked, CHANNEL, GotMessage, QueueAnswer, QueueAsk, decode_answer, decode_ask, encode_answer, encode_ask,
};
use crate::deleted::DeletedQueue;
use crate::fronts::KnownStart;
use crate::outcome::{no_majority, stopping};
use crate::queue::Queue;
use crate::queue_figures::{ANSWER, REQUEST};
use bytes::{Buf, Bytes};
use leveret_engine::catalog::QueueId;
use leveret_engine::queue::{Body, Delivery, Depth, Extent, Fill, Publish, Sink, Source, StoredRun};
use leveret_model::refusal::{Refusal, RefusalKind};
use leveret_replication::{GroupId, GroupLeader, Groups, PeerMessages};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// The requests of this node that wait for an answer, and those of others.
pub(crate) struct Asks {
    next: AtomicU64,
    /// What gets the answer to each request, and the queue that it is about.
    waiting: Mutex<BTreeMap<u64, WaitingAsk>>,
    answered: Mutex<AnsweredAsks>,
}

/// A request that waits, or whose client has gone: then its answer is given back when it comes.
struct WaitingAsk {
    queue: QueueId,
    asker: oneshot::Sender<QueueAnswer>,
    since: Instant,
}

/// The answer to a request. What it hands over is given back unless it is taken.
struct PendingAnswer<'b> {
    broker: &'b Broker,
    queue: QueueId,
    answer: oneshot::Receiver<QueueAnswer>,
}

impl Drop for PendingAnswer<'_> {
    fn drop(&mut self) {
        self.answer.close();
        if let Ok(answer) = self.answer.try_recv() {
            give_back(self.broker, self.queue, answer);
        }
    }
}

/// A claim whose answer is not known. If it stays so, the leader may expect consumers, and has to be told that there are none.
struct OpenClaim<'q> {
    queue: &'q Queue,
    is_open: bool,
}

impl OpenClaim<'_> {
    fn close(mut self) {
        self.is_open = false;
    }
}

impl Drop for OpenClaim<'_> {
    fn drop(&mut self) {
        if self.is_open {
            self.queue.enter().is_expected();
        }
    }
}

/// The requests of other nodes, by node and number.
#[derive(Default)]
struct AnsweredAsks {
    begun: BTreeSet<AskId>,
    done: VecDeque<(AskId, Bytes)>,
    bytes: usize,
    /// The begun requests whose answer is not kept any more: if they come again, they are not done again.
    past: VecDeque<AskId>,
}

/// The identity of a request of another node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct AskId {
    node: u64,
    number: u64,
}

impl Asks {
    /// Adds a request. Forgets those that have waited for so long that no answer comes any more.
    fn wait(&self, number: u64, ask: WaitingAsk) {
        let mut waiting = self.waiting.lock();
        while waiting.first_entry().is_some_and(|first| first.get().since.elapsed() > FORGOTTEN_AFTER) {
            waiting.pop_first();
        }
        waiting.insert(number, ask);
    }

    pub(crate) fn new() -> Self {
        let next = AtomicU64::new(rand::random::<u64>() >> 1);
        Self { next, waiting: Mutex::default(), answered: Mutex::default() }
    }
}

impl AnsweredAsks {
    /// Notes that a request is begun. Returns false if it was begun before, with the answer if there is one.
    fn begin(&mut self, of: AskId) -> Result<(), Option<Bytes>> {
        if self.begun.insert(of) {
            return Ok(());
        }
        Err(self.done.iter().find(|(done, _)| *done == of).map(|(_, answer)| answer.clone()))
    }

    fn done(&mut self, of: AskId, answer: Bytes) {
        self.bytes += answer.len();
        self.done.push_back((of, answer));
        while self.done.len() > ANSWERS_KEPT || self.bytes > ANSWER_BYTES_KEPT && self.done.len() > 1 {
            let Some((of, answer)) = self.done.pop_front() else { break };
            self.bytes -= answer.len();
            self.past.push_back(of);
        }
        while self.past.len() > PAST_KEPT {
            let Some(of) = self.past.pop_front() else { break };
            self.begun.remove(&of);
        }
    }
}

/// Takes the message that another node asked for.
struct HandOver {
    /// The node, if it will acknowledge the message.
    node: Option<u64>,
    got: Mutex<Option<GotMessage>>,
}

impl Sink for HandOver {
    fn fill(&self, source: &mut dyn Source) -> Fill {
        let Some(delivery) = source.next() else { return Fill::Exhausted };
        let Delivery { exchange, routing_key, redelivered, properties, body, id, ready_after, .. } = delivery;
        let bytes = [properties, body].concat();
        let body = Body::Inline { at: properties.len() as u32, len: body.len() as u32 };
        let messages = [Extent { properties_at: 0, properties_len: properties.len() as u32, body }];
        let mut run = Vec::new();
        Publish { exchange, routing_key, bytes: &bytes, messages: &messages }.store(&mut run);
        *self.got.lock() = Some(GotMessage { id, redelivered, ready_after, run: run.into() });
        Fill::Exhausted
    }

    fn node(&self) -> Option<u64> {
        self.node
    }
}

/// Hands a message to the sink of the client that asked for it.
struct OneMessage<'m>(Option<&'m GotMessage>);

impl Source for OneMessage<'_> {
    fn next(&mut self) -> Option<Delivery<'_>> {
        let GotMessage { id, redelivered, ready_after, run } = self.0.take()?;
        let StoredRun { exchange, routing_key, messages } = StoredRun::read(run)?;
        let Extent { properties_at, properties_len, body: Body::Inline { at, len } } = *messages.first()? else {
            return None;
        };
        let part = |at: u32, len: u32| run.get(at as usize..)?.get(..len as usize);
        let (properties, body) = (part(properties_at, properties_len)?, part(at, len)?);
        Some(Delivery {
            exchange,
            routing_key,
            route_changed: true,
            redelivered: *redelivered,
            properties,
            body,
            shared: None,
            id: *id,
            ready_after: *ready_after,
        })
    }
}

impl Broker {
    /// Returns the numbers of messages and consumers of a queue, as its leader knows them.
    ///
    /// # Errors
    /// The queue was deleted meanwhile, or its leader cannot be reached.
    pub async fn depth(&self, queue: &Queue) -> Result<Depth, Refusal> {
        loop {
            if self.is_served_here(queue) {
                return Ok(queue.depth());
            }
            if let QueueAnswer::Depth(depth) = self.ask_leader(queue, QueueAsk::Look).await? {
                return Ok(depth);
            }
        }
    }

    /// Asks whether a consumer may be subscribed to a queue. To be called before [`subscribe`](Self::subscribe).
    ///
    /// # Errors
    /// The queue has an exclusive consumer, or has consumers while this one wants to be exclusive, was deleted meanwhile, or
    /// its leader cannot be reached.
    pub async fn claim(&self, queue: &Queue, exclusive: bool) -> Result<(), Refusal> {
        while !self.is_served_here(queue) {
            if let Some(links) = self.node().links() {
                links.fronts.say(queue, false); // a consumer that has just left must not be in the way
            }
            let received = queue.look(|queue| queue.received());
            let open = OpenClaim { queue, is_open: true };
            if let QueueAnswer::Done(_) = self.ask_leader(queue, QueueAsk::Claim { exclusive, received }).await? {
                open.close();
                return Ok(());
            }
        }
        Ok(())
    }

    /// Notes that no consumer was subscribed to a queue although it was [claimed](Self::claim).
    pub fn unclaim(&self, queue: &Queue) {
        queue.enter().is_expected();
    }

    /// Checks that this node can reach a majority, if requests about the queue need one.
    ///
    /// # Errors
    /// That it cannot.
    pub(crate) fn check_majority(&self, queue: &Queue) -> Result<(), Refusal> {
        if queue.shards.is_some() && self.memory().is_cluster_alarmed() { Err(no_majority()) } else { Ok(()) }
    }

    /// Returns whether requests about a queue are answered by this node.
    pub(crate) fn is_served_here(&self, queue: &Queue) -> bool {
        let Some(shards) = &queue.shards else { return true };
        self.node().links().is_none() || shards.shard(queue.id).term().is_some()
    }

    /// Hands the next message of a queue that another node leads to `sink`. Returns whether there was one; `None` if this
    /// node leads the queue by now.
    pub(crate) async fn get_from_leader(
        &self,
        queue: &Queue,
        sink: &dyn Sink,
        no_ack: bool,
    ) -> Result<Option<bool>, Refusal> {
        match self.ask_leader(queue, QueueAsk::Get { no_ack }).await? {
            QueueAnswer::Message(message) => {
                sink.fill(&mut OneMessage(Some(&message)));
                Ok(Some(true))
            }
            QueueAnswer::Nothing => Ok(Some(false)),
            _ => Ok(None),
        }
    }

    /// Asks the node that leads a queue. The answer is [`QueueAnswer::Elsewhere`] if this node leads it by now.
    ///
    /// # Errors
    /// What the leader refuses; the queue was deleted meanwhile, the node is stopping, or the leader cannot be reached.
    pub(crate) async fn ask_leader(&self, queue: &Queue, ask: QueueAsk) -> Result<QueueAnswer, Refusal> {
        let node = self.node();
        let (Some(storage), Some(links)) = (node.storage.get(), node.links()) else {
            return Ok(QueueAnswer::Elsewhere);
        };
        let (groups, shard) = (&storage.groups, storage.shards.shard(queue.id));
        let mut asked = None;
        let began = Instant::now();
        while began.elapsed() < ASK_MAX {
            if shard.term().is_some() {
                return Ok(QueueAnswer::Elsewhere);
            }
            if queue.is_deleted() {
                return Err(queue.not_found());
            }
            self.check_majority(queue)?;
            let leader = groups.leader(shard.group).filter(|leader| leader.node != self.run().node);
            let Some(leader) = leader else {
                tokio::time::sleep(LOOK_AGAIN).await;
                continue;
            };
            // Another leader is asked anew: the answer of the one before may still come, and hands over another message.
            let number = match asked {
                Some((number, before)) if before == leader => number,
                _ => links.asks.next.fetch_add(1, Relaxed),
            };
            asked = Some((number, leader));
            let (asker, answer) = oneshot::channel();
            let mut pending = PendingAnswer { broker: self, queue: queue.id, answer };
            links.asks.wait(number, WaitingAsk { queue: queue.id, asker, since: Instant::now() });
            let message = encode_ask(number, queue.id, groups.applied(shard.group), ask);
            links.fronts.outgoing.send(leader.node, CHANNEL, message);
            tokio::select! {
                biased;
                answer = &mut pending.answer => match answer {
                    Ok(QueueAnswer::Elsewhere) | Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
                    Ok(QueueAnswer::Refused(refusal)) => return Err(refusal),
                    Ok(answer) => return Ok(answer),
                },
                () = groups.until_led_otherwise(shard.group, Some(leader)) => {}
                () = tokio::time::sleep(SEND_AGAIN) => {}
                () = node.stopping.cancelled() => return Err(stopping()),
            }
        }
        Err(self.unanswered(queue, groups.leader(shard.group)))
    }

    /// Returns the refusal of a request that the leader of a queue has not answered in time.
    pub(crate) fn unanswered(&self, queue: &Queue, leader: Option<GroupLeader>) -> Refusal {
        let reason = match (leader, self.node().network.cluster.get()) {
            (Some(leader), Some(cluster)) => cluster.why_silent(leader.node),
            _ => "has no leader: most nodes of the cluster may be down".to_owned(),
        };
        Refusal::new(RefusalKind::Stopping, format!("queue '{}' in vhost '{}' {reason}", queue.name, queue.vhost))
    }

    /// Answers a request of another node, which came from its start `start`.
    pub(crate) async fn answer(self, from: u64, start: Option<KnownStart>, asked: Asked) {
        let (Some(storage), Some(links)) = (self.node().storage.get(), self.node().links()) else { return };
        let Asked { number, queue, applied, ask } = asked;
        let of = AskId { node: from, number };
        let begun = links.asks.answered.lock().begin(of);
        let answer = match begun {
            Err(None) => return, // it is being done
            Err(Some(answer)) => answer,
            Ok(()) => {
                let group = storage.shards.shard(queue).group;
                caught_up_with(&storage.groups, group, applied).await;
                let mut answer = match storage.shards.shard_of(group).term().is_some() {
                    true => self.answer_to(from, start, queue, ask).await,
                    false => QueueAnswer::Elsewhere,
                };
                // What was granted to that start was returned when the next one connected, or when it was given up, perhaps
                // before this. If it lives after all it asks again.
                if let QueueAnswer::Message(message) = &answer
                    && self.node().network.starts.of(from) != start
                    && let Some(queue) = self.queue(queue)
                {
                    queue.enter().return_granted_one(from, message.id.message);
                    answer = QueueAnswer::Elsewhere;
                }
                let encoded = encode_answer(number, &answer);
                let mut answered = links.asks.answered.lock();
                match answer {
                    QueueAnswer::Elsewhere => drop(answered.begun.remove(&of)),
                    _ => answered.done(of, encoded.clone()),
                }
                encoded
            }
        };
        links.fronts.outgoing.send(from, CHANNEL, answer);
    }

    async fn answer_to(&self, from: u64, start: Option<KnownStart>, id: QueueId, ask: QueueAsk) -> QueueAnswer {
        let Some(queue) = self.queue(id).filter(|queue| queue.shards.is_some()) else { return QueueAnswer::Elsewhere };
        let refused = |answer: Result<QueueAnswer, Refusal>| answer.unwrap_or_else(QueueAnswer::Refused);
        match ask {
            QueueAsk::Look => QueueAnswer::Depth(queue.depth()),
            QueueAsk::Purge => refused(self.purge(&queue).await.map(QueueAnswer::Done)),
            QueueAsk::Delete(only) => {
                let answer = |deleted: Option<DeletedQueue>| match deleted {
                    Some(deleted) => QueueAnswer::Done(deleted.ready),
                    None => QueueAnswer::Elsewhere,
                };
                refused(self.end_queue(&queue, only).await.map(answer))
            }
            QueueAsk::Get { no_ack } => {
                let sink = HandOver { node: (!no_ack).then_some(from), got: Mutex::new(None) };
                // Another leader is asked by that node itself: what is granted to it has to be known there.
                let got = self.get_here(&queue, &sink, no_ack).await;
                let message = sink.got.lock().take();
                match (got, message) {
                    (_, Some(message)) => QueueAnswer::Message(message),
                    (Ok(Some(_)), None) => QueueAnswer::Nothing,
                    (Ok(None), None) => QueueAnswer::Elsewhere,
                    (Err(refusal), None) => QueueAnswer::Refused(refusal),
                }
            }
            QueueAsk::Claim { exclusive, received } => {
                let Some(links) = self.node().links() else { return QueueAnswer::Elsewhere };
                let answer = |claimed| if claimed { QueueAnswer::Done(0) } else { QueueAnswer::Elsewhere };
                refused(links.fronts.claim(from, start, &queue, exclusive, received).map(answer))
            }
        }
    }
}

/// Waits until this node has applied an entry of a group, but not for ever.
async fn caught_up_with(groups: &Groups, group: GroupId, applied: u64) {
    let began = Instant::now();
    while groups.applied(group) < applied && began.elapsed() < ASK_MAX {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Takes the requests and answers of other nodes.
pub(crate) struct AskMessages(pub(crate) Weak<crate::Node>);

impl PeerMessages for AskMessages {
    fn received(&self, from: u64, _channel: u8, mut message: Bytes) {
        let Some(node) = self.0.upgrade() else { return };
        let Some(links) = node.links() else { return };
        match message.try_get_u8() {
            Ok(1) => match decode_ask(&mut &message[..]) {
                Some(asked) => {
                    let start = node.network.starts.of(from);
                    links.fronts.outgoing.peers.spawn(Broker(node.clone()).answer(from, start, asked));
                }
                None => tracing::warn!(from, "a request of another node is not known"),
            },
            Ok(2) => match decode_answer(message) {
                Some((number, answer)) => answered(&Broker(node.clone()), &links.asks, number, answer),
                None => tracing::warn!(from, "an answer of another node is not known"),
            },
            Ok(REQUEST) if Broker(node.clone()).answer_figures(from, message.clone()) => {}
            Ok(ANSWER) if links.figures.answered(message) => {}
            _ => tracing::warn!(from, "a message of another node about a queue is not known"),
        }
    }
}

/// Hands an answer to the request that waits for it. If nobody waits any more, what was handed over is given back.
fn answered(broker: &Broker, asks: &Asks, number: u64, answer: QueueAnswer) {
    let Some(WaitingAsk { queue, asker, .. }) = asks.waiting.lock().remove(&number) else { return };
    if let Err(answer) = asker.send(answer) {
        give_back(broker, queue, answer);
    }
}

/// Gives back what an answer handed over for a client that has gone.
fn give_back(broker: &Broker, id: QueueId, answer: QueueAnswer) {
    let Some(queue) = broker.queue(id) else { return };
    let mut entered = queue.enter();
    match answer {
        QueueAnswer::Message(message) => entered.release(message.id),
        QueueAnswer::Done(_) => entered.is_expected(), // the leader may expect consumers
        _ => {}
    }
}

/// The longest time that a request waits for its answer.
const ASK_MAX: Duration = Duration::from_secs(10);
/// After this time nobody answers a request any more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// The interval at which a node that has no leader to ask looks again.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// A request without an answer is sent again after this time.
const SEND_AGAIN: Duration = Duration::from_secs(1);
/// The number of answers that are kept for requests that come again.
const ANSWERS_KEPT: usize = 4096;
/// The number of requests that are known to be done although their answer is not kept. None comes again after so many others.
const PAST_KEPT: usize = 64 << 10;
/// The most bytes of these answers, unless there is only one.
const ANSWER_BYTES_KEPT: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_comes_again_is_not_done_again_although_its_answer_is_not_kept() {
        let mut asks = AnsweredAsks::default();
        let of = |number| AskId { node: 2, number };
        let large = Bytes::from(vec![0; ANSWER_BYTES_KEPT / 2]);
        for number in 0..4 {
            assert_eq!(asks.begin(of(number)), Ok(()));
            asks.done(of(number), large.clone());
        }
        assert_eq!(asks.begin(of(3)), Err(Some(large)));
        assert_eq!(asks.begin(of(0)), Err(None));
        for number in 4..PAST_KEPT as u64 + 2 * ANSWERS_KEPT as u64 {
            assert_eq!(asks.begin(of(number)), Ok(()));
            asks.done(of(number), Bytes::new());
        }
        assert!(asks.begun.len() <= PAST_KEPT + ANSWERS_KEPT, "what is known of them is bounded");
    }
}
