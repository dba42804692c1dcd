//! Requests about a queue that the node which leads it has to answer: a node that is asked by a client passes them on.
//!
//! A request that is sent again, because its answer may be lost, has the same number: it is done once. It names the last
//! entry that the asking node has applied, so that the leader answers with what a client of that node has seen.
//!
//! Format, integers little-endian: an ask is `1 u8, number u64, uid u64, applied u64`, and 1 look; 2 purge; 3 delete `if unused
//! u8, if empty u8`; 4 get `no ack u8`; 5 claim `exclusive u8, received u64`. An answer is `2 u8, number u64`, and 1 depth `ready
//! u64, unacked u64, bytes u64, consumers u64`; 2 done `messages u64`; 3 message `sequence u64, offset u32, redelivered u8,
//! ready after u64, length u32, run` (a run of one message in stored form); 4 nothing; 5 refused `kind u8, text`; 6 elsewhere.
use crate::Broker;
use crate::caller::Caller;
use crate::declare::DeleteOnly;
use crate::definition_log::stopping;
use crate::queue::Queue;
use crate::storage::{Links, Storage};
use bytes::{Buf, BufMut, Bytes};
use leveret_engine::catalog::QueueId;
use leveret_engine::queue::{Body, Delivery, Depth, Extent, Fill, MessageId, Publish, Sink, Source, StoredRun};
use leveret_model::refusal::{Refusal, RefusalKind};
use leveret_replication::{GroupId, LinkDirection, PeerMessages};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// A request about a queue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum QueueAsk {
    /// How many messages and consumers has it?
    Look,
    /// Remove its ready messages.
    Purge,
    /// Delete it.
    Delete(DeleteOnly),
    /// Hand over its next message.
    Get { no_ack: bool },
    /// Consumers of the asking node are about to be subscribed; it has received this many grants.
    Claim { exclusive: bool, received: u64 },
}

/// The answer to a request.
#[derive(Debug, PartialEq)]
pub(crate) enum QueueAnswer {
    Depth(Depth),
    /// It is done; the number of messages that were removed.
    Done(u64),
    Message(GotMessage),
    /// There is no message.
    Nothing,
    Refused(Refusal),
    /// The node does not lead the queue.
    Elsewhere,
}

/// A message that the leader handed over.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GotMessage {
    id: MessageId,
    redelivered: bool,
    ready_after: u64,
    /// The message, as a run of its own in stored form.
    run: Bytes,
}

/// The requests of this node that wait for an answer, and those of others.
pub(crate) struct Asks {
    next: AtomicU64,
    /// What gets the answer to each request, and the queue that it is about.
    waiting: Mutex<BTreeMap<u64, (QueueId, oneshot::Sender<QueueAnswer>)>>,
    answered: Mutex<AnsweredAsks>,
}

/// The requests of other nodes, by node and number.
#[derive(Default)]
struct AnsweredAsks {
    begun: BTreeSet<(u64, u64)>,
    done: VecDeque<((u64, u64), Bytes)>,
    bytes: usize,
}

impl Asks {
    pub(crate) fn new() -> Self {
        let next = AtomicU64::new(rand::random::<u64>() >> 1);
        Self { next, waiting: Mutex::default(), answered: Mutex::default() }
    }
}

impl AnsweredAsks {
    /// Notes that a request is begun. Returns false if it was begun before, with the answer if there is one.
    fn begin(&mut self, of: (u64, u64)) -> Result<(), Option<Bytes>> {
        if self.begun.insert(of) {
            return Ok(());
        }
        Err(self.done.iter().find(|(done, _)| *done == of).map(|(_, answer)| answer.clone()))
    }

    fn done(&mut self, of: (u64, u64), answer: Bytes) {
        self.bytes += answer.len();
        self.done.push_back((of, answer));
        while self.done.len() > ANSWERS_KEPT || self.bytes > ANSWER_BYTES_KEPT && self.done.len() > 1 {
            let Some((of, answer)) = self.done.pop_front() else { break };
            self.bytes -= answer.len();
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
                return Ok(queue.look(|queue| queue.depth()));
            }
            match self.ask_leader(queue, QueueAsk::Look).await? {
                QueueAnswer::Depth(depth) => return Ok(depth),
                QueueAnswer::Refused(refusal) => return Err(refusal),
                _ => {}
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
            let received = queue.look(|queue| queue.received());
            match self.ask_leader(queue, QueueAsk::Claim { exclusive, received }).await? {
                QueueAnswer::Done(_) => return Ok(()),
                QueueAnswer::Refused(refusal) => return Err(refusal),
                _ => {}
            }
        }
        Ok(())
    }

    /// Returns whether requests about a queue are answered by this node.
    pub(crate) fn is_served_here(&self, queue: &Queue) -> bool {
        let Some(shards) = &queue.shards else { return true };
        let has_links = self.node().storage.get().is_some_and(|storage| storage.links.is_some());
        !has_links || shards.shard(queue.id).term().is_some()
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
            QueueAnswer::Refused(refusal) => Err(refusal),
            _ => Ok(None),
        }
    }

    /// Asks the node that leads a queue. The answer is [`QueueAnswer::Elsewhere`] if this node leads it by now.
    ///
    /// # Errors
    /// The queue was deleted meanwhile, the node is stopping, or the leader cannot be reached.
    pub(crate) async fn ask_leader(&self, queue: &Queue, ask: QueueAsk) -> Result<QueueAnswer, Refusal> {
        let node = self.node();
        let Some((Storage { groups, shards, .. }, links)) =
            node.storage.get().and_then(|storage| Some((storage, storage.links.as_ref()?)))
        else {
            return Ok(QueueAnswer::Elsewhere);
        };
        let shard = shards.shard(queue.id);
        let number = links.asks.next.fetch_add(1, Relaxed);
        let began = Instant::now();
        while began.elapsed() < ASK_MAX {
            if shard.term().is_some() {
                return Ok(QueueAnswer::Elsewhere);
            }
            if queue.is_deleted() {
                return Err(queue.not_found());
            }
            let leader = groups.leader(shard.group).filter(|leader| leader.node != self.run().node);
            let Some(leader) = leader else {
                tokio::time::sleep(LOOK_AGAIN).await;
                continue;
            };
            let (sender, answer) = oneshot::channel();
            links.asks.waiting.lock().insert(number, (queue.id, sender));
            let message = encode_ask(number, queue.id, groups.applied(shard.group), ask);
            links.fronts.outgoing.send(leader.node, CHANNEL, message);
            tokio::select! {
                biased;
                answer = answer => match answer {
                    Ok(QueueAnswer::Elsewhere) | Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
                    Ok(answer) => return Ok(answer),
                },
                () = groups.until_led_otherwise(shard.group, Some(leader)) => {}
                () = tokio::time::sleep(SEND_AGAIN) => {}
                () = node.stopping.cancelled() => return Err(stopping()),
            }
        }
        let text = format!(
            "queue '{}' in vhost '{}' has no leader that can be reached: most nodes of the cluster may be down",
            queue.name, queue.vhost
        );
        Err(Refusal::new(RefusalKind::Stopping, text))
    }

    /// Answers a request of another node.
    async fn answer(self, from: u64, asked: Asked) {
        let Some((storage, links)) =
            self.node().storage.get().and_then(|storage| Some((storage, storage.links.as_ref()?)))
        else {
            return;
        };
        let Asked { number, queue, applied, ask } = asked;
        let of = (from, number);
        let begun = links.asks.answered.lock().begin(of);
        let answer = match begun {
            Err(None) => return, // it is being done
            Err(Some(answer)) => answer,
            Ok(()) => {
                let group = storage.shards.shard(queue).group;
                let answer = match self.caught_up_with(storage, group, applied).await {
                    true => self.answer_to(from, queue, ask).await,
                    false => QueueAnswer::Elsewhere,
                };
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

    /// Waits until this node has applied an entry of a group. Returns whether it leads the group then.
    async fn caught_up_with(&self, storage: &Storage, group: GroupId, applied: u64) -> bool {
        let began = Instant::now();
        while storage.groups.applied(group) < applied && began.elapsed() < ASK_MAX {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        storage.shards.shard_of(group).term().is_some()
    }

    async fn answer_to(&self, from: u64, id: QueueId, ask: QueueAsk) -> QueueAnswer {
        let Some(queue) = self.queue(id).filter(|queue| queue.shards.is_some()) else { return QueueAnswer::Elsewhere };
        let caller = Caller::system();
        let refused = |answer: Result<QueueAnswer, Refusal>| answer.unwrap_or_else(QueueAnswer::Refused);
        match ask {
            QueueAsk::Look => QueueAnswer::Depth(queue.look(|queue| queue.depth())),
            QueueAsk::Purge => refused(self.purge(&queue).await.map(QueueAnswer::Done)),
            QueueAsk::Delete(only) => {
                refused(self.end_queue(&queue, only).await.map(|deleted| QueueAnswer::Done(deleted.ready)))
            }
            QueueAsk::Get { no_ack } => {
                let sink = HandOver { node: (!no_ack).then_some(from), got: Mutex::new(None) };
                let got = self.get(&caller, &queue, &sink, no_ack).await;
                let message = sink.got.lock().take();
                match (got, message) {
                    (Ok(_), Some(message)) => QueueAnswer::Message(message),
                    (Ok(_), None) => QueueAnswer::Nothing,
                    (Err(refusal), _) => QueueAnswer::Refused(refusal),
                }
            }
            QueueAsk::Claim { exclusive, received } => {
                let links = self.node().storage.get().and_then(|storage| storage.links.as_ref());
                let Some(links) = links else { return QueueAnswer::Elsewhere };
                refused(links.fronts.claim(from, &queue, exclusive, received).map(|()| QueueAnswer::Done(0)))
            }
        }
    }
}

/// A request of another node.
#[derive(Debug, PartialEq)]
struct Asked {
    number: u64,
    queue: QueueId,
    /// The last entry of the queue's group that the asking node has applied.
    applied: u64,
    ask: QueueAsk,
}

fn encode_ask(number: u64, queue: QueueId, applied: u64, ask: QueueAsk) -> Bytes {
    let mut out = vec![1];
    [number, queue.0, applied].into_iter().for_each(|number| out.put_u64_le(number));
    match ask {
        QueueAsk::Look => out.push(1),
        QueueAsk::Purge => out.push(2),
        QueueAsk::Delete(DeleteOnly { if_unused, if_empty }) => out.extend([3, if_unused.into(), if_empty.into()]),
        QueueAsk::Get { no_ack } => out.extend([4, no_ack.into()]),
        QueueAsk::Claim { exclusive, received } => {
            out.extend([5, exclusive.into()]);
            out.put_u64_le(received);
        }
    }
    out.into()
}

fn decode_ask(rest: &mut &[u8]) -> Option<Asked> {
    let (number, queue) = (rest.try_get_u64_le().ok()?, QueueId(rest.try_get_u64_le().ok()?));
    let applied = rest.try_get_u64_le().ok()?;
    let kind = rest.try_get_u8().ok()?;
    let mut flag = || Some(rest.try_get_u8().ok()? == 1);
    let ask = match kind {
        1 => QueueAsk::Look,
        2 => QueueAsk::Purge,
        3 => QueueAsk::Delete(DeleteOnly { if_unused: flag()?, if_empty: flag()? }),
        4 => QueueAsk::Get { no_ack: flag()? },
        5 => QueueAsk::Claim { exclusive: flag()?, received: rest.try_get_u64_le().ok()? },
        _ => return None,
    };
    Some(Asked { number, queue, applied, ask })
}

fn encode_answer(number: u64, answer: &QueueAnswer) -> Bytes {
    let mut out = vec![2];
    out.put_u64_le(number);
    match answer {
        QueueAnswer::Depth(Depth { ready, unacked, body_bytes, consumers }) => {
            out.push(1);
            [*ready, *unacked, *body_bytes, *consumers as u64].into_iter().for_each(|number| out.put_u64_le(number));
        }
        QueueAnswer::Done(messages) => {
            out.push(2);
            out.put_u64_le(*messages);
        }
        QueueAnswer::Message(GotMessage { id, redelivered, ready_after, run }) => {
            out.push(3);
            out.put_u64_le(id.sequence);
            out.put_u32_le(id.offset);
            out.push((*redelivered).into());
            out.put_u64_le(*ready_after);
            out.put_u32_le(run.len() as u32);
            out.extend_from_slice(run);
        }
        QueueAnswer::Nothing => out.push(4),
        QueueAnswer::Refused(Refusal { kind, text }) => {
            let kind = KINDS.iter().position(|known| known == kind).unwrap_or(0) as u8;
            out.extend([5, kind]);
            out.extend_from_slice(text.as_bytes());
        }
        QueueAnswer::Elsewhere => out.push(6),
    }
    out.into()
}

/// Decodes an answer and its number, without the byte before them.
fn decode_answer(mut bytes: Bytes) -> Option<(u64, QueueAnswer)> {
    let number = bytes.try_get_u64_le().ok()?;
    let answer = match bytes.try_get_u8().ok()? {
        1 => QueueAnswer::Depth(Depth {
            ready: bytes.try_get_u64_le().ok()?,
            unacked: bytes.try_get_u64_le().ok()?,
            body_bytes: bytes.try_get_u64_le().ok()?,
            consumers: bytes.try_get_u64_le().ok()? as usize,
        }),
        2 => QueueAnswer::Done(bytes.try_get_u64_le().ok()?),
        3 => {
            let id = MessageId { sequence: bytes.try_get_u64_le().ok()?, offset: bytes.try_get_u32_le().ok()? };
            let (redelivered, ready_after) = (bytes.try_get_u8().ok()? == 1, bytes.try_get_u64_le().ok()?);
            let length = bytes.try_get_u32_le().ok()? as usize;
            let run = (bytes.len() == length).then_some(bytes)?;
            StoredRun::read(&run).filter(|run| run.messages.len() == 1)?;
            QueueAnswer::Message(GotMessage { id, redelivered, ready_after, run })
        }
        4 => QueueAnswer::Nothing,
        5 => {
            let kind = *KINDS.get(usize::from(bytes.try_get_u8().ok()?))?;
            QueueAnswer::Refused(Refusal::new(kind, String::from_utf8(bytes.into()).ok()?))
        }
        6 => QueueAnswer::Elsewhere,
        _ => return None,
    };
    Some((number, answer))
}

/// The kinds of refusals by the numbers that they have between nodes.
const KINDS: [RefusalKind; 7] = [
    RefusalKind::PreconditionFailed,
    RefusalKind::AccessRefused,
    RefusalKind::NotFound,
    RefusalKind::ResourceLocked,
    RefusalKind::CommandInvalid,
    RefusalKind::NotAllowed,
    RefusalKind::Stopping,
];

/// Takes the requests and answers of other nodes.
pub(crate) struct AskMessages(pub(crate) Weak<crate::Node>);

impl PeerMessages for AskMessages {
    fn received(&self, from: u64, _channel: u8, mut message: Bytes) {
        let Some(node) = self.0.upgrade() else { return };
        let Some(links) = node.storage.get().and_then(|storage| storage.links.as_ref()) else { return };
        match message.try_get_u8() {
            Ok(1) => match decode_ask(&mut &message[..]) {
                Some(asked) => links.spawn(Broker(node.clone()).answer(from, asked)),
                None => tracing::warn!(from, "a request of another node is not known"),
            },
            Ok(2) => match decode_answer(message) {
                Some((number, answer)) => answered(&Broker(node.clone()), links, number, answer),
                None => tracing::warn!(from, "an answer of another node is not known"),
            },
            _ => tracing::warn!(from, "a message of another node about a queue is not known"),
        }
    }

    fn connected(&self, _node: u64, _boot: u64, _direction: LinkDirection) {}

    fn disconnected(&self, _node: u64, _boot: u64, _direction: LinkDirection) {}
}

/// Hands an answer to the request that waits for it. If nobody waits any more, what was handed over is given back.
fn answered(broker: &Broker, links: &Links, number: u64, answer: QueueAnswer) {
    let Some((id, asker)) = links.asks.waiting.lock().remove(&number) else { return };
    let Err(answer) = asker.send(answer) else { return };
    let Some(queue) = broker.queue(id) else { return };
    let mut entered = queue.enter();
    match answer {
        QueueAnswer::Message(message) => entered.release(message.id),
        QueueAnswer::Done(_) => entered.is_expected(), // the leader may expect consumers
        _ => {}
    }
}

/// The channel between nodes for the messages of this file.
pub(crate) const CHANNEL: u8 = 4;
/// The longest time that a request waits for its answer.
const ASK_MAX: Duration = Duration::from_secs(10);
/// The interval at which a node that has no leader to ask looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// A request without an answer is sent again after this time.
const SEND_AGAIN: Duration = Duration::from_secs(1);
/// The number of answers that are kept for requests that come again.
const ANSWERS_KEPT: usize = 4096;
/// The most bytes of these answers, unless there is only one.
const ANSWER_BYTES_KEPT: usize = 16 << 20;
