//! The figures of queues. The node that serves a queue knows its messages and consumers; each node counts what it does itself:
//! what is published at the node that leads, what is delivered and acknowledged where the client is. Nodes ask one another when
//! somebody wants to see figures, so they cost nothing in between.
//!
//! Format, integers little-endian: a request is `3 u8, number u64`, and for one queue its `uid u64`. The answer comes in one or
//! several messages, each `4 u8, number u64, last u8`, and for each queue its `uid u64`, `serves u8`, the `ready`, `unacked` and
//! `bytes` of its messages, its `consumers`, and its counters `published`, `delivered`, `redelivered`, `acked` (all u64).
use crate::Broker;
use crate::ask_messages::CHANNEL;
use crate::outgoing::Outgoing;
use crate::queue::Queue;
use bytes::{Buf, BufMut, Bytes};
use leveret_engine::catalog::QueueId;
use leveret_engine::queue::{Counters, Depth, QueueCore};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::mpsc;

/// The figures of a queue at one moment, as one node knows them, or several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueFigures {
    /// True if one of these nodes serves the queue, so that `depth` is exact.
    pub serves: bool,
    /// The messages and consumers that the queue has.
    pub depth: Depth,
    /// What these nodes have counted.
    pub counters: Counters,
}

impl QueueFigures {
    /// Returns the figures as this node and others know them.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let (mine, others) = (self.counters, other.counters);
        let counters = Counters {
            published: mine.published + others.published,
            delivered: mine.delivered + others.delivered,
            redelivered: mine.redelivered + others.redelivered,
            acked: mine.acked + others.acked,
        };
        let depth = if other.serves && !self.serves { other.depth } else { self.depth };
        Self { serves: self.serves || other.serves, depth, counters }
    }
}

/// The figures of queues, as the other nodes know them.
pub type FiguresElsewhere = HashMap<QueueId, QueueFigures>;

/// The requests of this node for figures that wait for an answer.
#[derive(Default)]
pub(crate) struct FiguresAsks {
    next: AtomicU64,
    waiting: Mutex<BTreeMap<u64, mpsc::Sender<FiguresPart>>>,
}

/// A part of the answer of one node.
struct FiguresPart {
    figures: Vec<(QueueId, QueueFigures)>,
    is_last: bool,
}

/// A request to some nodes. It is forgotten when this is dropped.
struct PendingFigures<'a> {
    asks: &'a FiguresAsks,
    numbers: Vec<u64>,
    parts: mpsc::Receiver<FiguresPart>,
}

impl Drop for PendingFigures<'_> {
    fn drop(&mut self) {
        let mut waiting = self.asks.waiting.lock();
        self.numbers.iter().for_each(|number| drop(waiting.remove(number)));
    }
}

impl FiguresAsks {
    /// Sends a request to `nodes`.
    fn ask(&self, outgoing: &Outgoing, nodes: &[u64], only: Option<QueueId>) -> PendingFigures<'_> {
        let (sender, parts) = mpsc::channel(PARTS_MAX);
        let numbers: Vec<_> = nodes.iter().map(|_| self.next.fetch_add(1, Relaxed)).collect();
        self.waiting.lock().extend(numbers.iter().map(|number| (*number, sender.clone())));
        for (node, number) in nodes.iter().zip(&numbers) {
            outgoing.send(*node, CHANNEL, encode_request(*number, only));
        }
        PendingFigures { asks: self, numbers, parts }
    }

    /// Takes a part of an answer, without the byte before it. Returns false if it is malformed.
    pub(crate) fn answered(&self, message: Bytes) -> bool {
        let Some((number, part)) = decode_part(message) else { return false };
        if let Some(waiting) = self.waiting.lock().get(&number) {
            let _ = waiting.try_send(part); // nobody may wait any more
        }
        true
    }
}

impl Queue {
    /// Returns the messages and consumers of the queue, as this node knows them.
    pub(crate) fn depth(&self) -> Depth {
        self.look(|queue| self.depth_of(queue))
    }

    fn depth_of(&self, queue: &QueueCore) -> Depth {
        let mut depth = queue.depth();
        // What stands for the consumers of another node is one consumer.
        for sink in self.others.sinks.lock().values() {
            if sink.id.lock().is_some() {
                depth.consumers += (sink.consumers.load(Relaxed) as usize).saturating_sub(1);
            }
        }
        depth
    }
}

impl Broker {
    /// Returns whether this node serves a queue, and so knows its figures: it leads it, or has its messages alone.
    pub fn serves(&self, queue: &Queue) -> bool {
        queue.away.is_none() && self.is_served_here(queue)
    }

    /// Returns the node that serves a queue, if that is known.
    fn server(&self, queue: &Queue) -> Option<u64> {
        match &queue.shards {
            _ if self.serves(queue) => Some(self.run().node),
            Some(shards) => Some(self.node().storage.get()?.groups.leader(shards.shard(queue.id).group)?.node),
            None => queue.away,
        }
    }

    /// Returns the name of the node that serves a queue, if that is known.
    pub fn server_name(&self, queue: &Queue) -> Option<String> {
        if self.serves(queue) {
            return Some(self.name().to_owned());
        }
        self.node().network.cluster.get()?.name_of(self.server(queue)?)
    }

    /// Returns the figures of a queue, as this node knows them.
    pub fn figures_here(&self, queue: &Queue) -> QueueFigures {
        let serves = self.serves(queue);
        queue.look(|state| QueueFigures { serves, depth: queue.depth_of(state), counters: state.counters() })
    }

    /// Returns the figures of all queues, as the other nodes know them. Those of a node that does not answer within a second
    /// are missing.
    pub async fn figures_elsewhere(&self) -> FiguresElsewhere {
        self.ask_figures(None).await
    }

    /// Returns the figures of a queue, as all nodes know them. Those of a node that does not answer within a second are
    /// missing.
    pub async fn figures(&self, queue: &Queue) -> QueueFigures {
        let elsewhere = self.ask_figures(Some(queue.id)).await;
        self.figures_here(queue).and(elsewhere.get(&queue.id).copied().unwrap_or_default())
    }

    async fn ask_figures(&self, only: Option<QueueId>) -> FiguresElsewhere {
        let mut found = FiguresElsewhere::new();
        let (Some(links), Some(cluster)) = (self.node().links(), self.node().network.cluster.get()) else {
            return found;
        };
        let nodes = cluster.reached();
        let mut pending = links.figures.ask(&links.fronts.outgoing, &nodes, only);
        let all = async {
            let mut left = nodes.len();
            while left > 0
                && let Some(part) = pending.parts.recv().await
            {
                for (id, figures) in part.figures {
                    let known = found.entry(id).or_default();
                    *known = known.and(figures);
                }
                left -= usize::from(part.is_last);
            }
        };
        let _ = tokio::time::timeout(ANSWERED_WITHIN, all).await;
        found
    }

    /// Answers the request of another node for figures. Returns false if it is malformed.
    pub(crate) fn answer_figures(&self, from: u64, mut request: Bytes) -> bool {
        let Ok(number) = request.try_get_u64_le() else { return false };
        let only = match request.len() {
            0 => None,
            8 => Some(QueueId(request.get_u64_le())),
            _ => return false,
        };
        let (broker, Some(links)) = (self.clone(), self.node().links()) else { return true };
        links.fronts.outgoing.peers.spawn(async move { broker.send_figures(from, number, only).await });
        true
    }

    async fn send_figures(self, to: u64, number: u64, only: Option<QueueId>) {
        let Some(links) = self.node().links() else { return };
        let queues: Vec<Arc<Queue>> = match only {
            Some(id) => self.queue(id).into_iter().collect(),
            None => self.queues().values().cloned().collect(),
        };
        let mut parts = queues.chunks(QUEUES_AT_ONCE).peekable();
        loop {
            let part = parts.next().unwrap_or_default();
            let figures = part.iter().map(|queue| (queue.id, self.figures_here(queue)));
            let figures: Vec<_> =
                figures.filter(|(_, known)| known.serves || known.counters != Counters::default()).collect();
            let is_last = parts.peek().is_none();
            links.fronts.outgoing.send(to, CHANNEL, encode_part(number, is_last, &figures));
            if is_last {
                return;
            }
            tokio::task::yield_now().await;
        }
    }
}

fn encode_request(number: u64, only: Option<QueueId>) -> Bytes {
    let mut out = vec![REQUEST];
    out.put_u64_le(number);
    only.iter().for_each(|id| out.put_u64_le(id.0));
    out.into()
}

fn encode_part(number: u64, is_last: bool, figures: &[(QueueId, QueueFigures)]) -> Bytes {
    let mut out = Vec::with_capacity(10 + figures.len() * ENTRY_BYTES);
    out.push(ANSWER);
    out.put_u64_le(number);
    out.push(is_last.into());
    for (id, QueueFigures { serves, depth, counters }) in figures {
        out.put_u64_le(id.0);
        out.push((*serves).into());
        let Depth { ready, unacked, body_bytes, consumers } = *depth;
        let Counters { published, delivered, redelivered, acked } = *counters;
        let numbers = [ready, unacked, body_bytes, consumers as u64, published, delivered, redelivered, acked];
        numbers.into_iter().for_each(|number| out.put_u64_le(number));
    }
    out.into()
}

fn decode_part(mut bytes: Bytes) -> Option<(u64, FiguresPart)> {
    let (number, is_last) = (bytes.try_get_u64_le().ok()?, bytes.try_get_u8().ok()? == 1);
    let mut figures = Vec::with_capacity(bytes.len() / ENTRY_BYTES);
    while bytes.has_remaining() {
        let (id, serves) = (QueueId(bytes.try_get_u64_le().ok()?), bytes.try_get_u8().ok()? == 1);
        let mut next = || bytes.try_get_u64_le().ok();
        let depth = Depth { ready: next()?, unacked: next()?, body_bytes: next()?, consumers: next()? as usize };
        let counters = Counters { published: next()?, delivered: next()?, redelivered: next()?, acked: next()? };
        figures.push((id, QueueFigures { serves, depth, counters }));
    }
    Some((number, FiguresPart { figures, is_last }))
}

/// The first bytes of the messages, among those of `ask_messages`.
pub(crate) const REQUEST: u8 = 3;
pub(crate) const ANSWER: u8 = 4;
/// The longest time that a request waits for its answers.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);
/// The bytes of one queue in an answer.
const ENTRY_BYTES: usize = 73;
/// The most messages that wait to be taken by a request; further ones are lost.
const PARTS_MAX: usize = 4096;
/// The number of queues in one message.
const QUEUES_AT_ONCE: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_decoded_and_malformed_ones_refused() {
        let depth = Depth { ready: 1, unacked: 2, body_bytes: 3, consumers: 4 };
        let counters = Counters { published: 5, delivered: 6, redelivered: 7, acked: 8 };
        let figures =
            [(QueueId(9), QueueFigures { serves: true, depth, counters }), (QueueId(10), QueueFigures::default())];
        for is_last in [false, true] {
            let encoded = encode_part(77, is_last, &figures).slice(1..);
            let (number, part) = decode_part(encoded.clone()).unwrap();
            assert_eq!((number, part.is_last, &part.figures[..]), (77, is_last, &figures[..]));
            let whole = |len: usize| len >= 9 && (len - 9).is_multiple_of(ENTRY_BYTES);
            for len in (0..encoded.len()).filter(|len| !whole(*len)) {
                assert!(decode_part(encoded.slice(..len)).is_none(), "{len}");
            }
        }
        assert_eq!(encode_request(1, None).len() + 8, encode_request(1, Some(QueueId(2))).len());
    }
}
