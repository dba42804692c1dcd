//! Deliveries, encoded straight into the connection's output.
use super::publish::SHARED_MIN;
use super::{EndedConsumer, EndedConsumers};
use crate::codec::encode::{self, Framing};
use crate::connection::output::{Between, OUTPUT_MAX, Output};
use leveret_node::{ConnectionId, ConsumerId, ConsumerOwner, Delivery, Fill, Queue, Sink, Source};
use std::sync::{Arc, OnceLock};

/// The receiving end of a consumer: `basic.deliver` on its channel.
pub(crate) struct ConsumerSink {
    /// Deliveries are encoded into it.
    pub(crate) output: Arc<Output>,
    /// The queue that the consumer is subscribed to.
    pub(crate) queue: Arc<Queue>,
    /// The connection, which the management API shows as the consumer's owner.
    pub(crate) connection: ConnectionId,
    /// The channel that deliveries go to.
    pub(crate) channel: u16,
    /// The consumer's account in the channel's ledger.
    pub(crate) subscriber: u32,
    /// The consumer tag, which each delivery carries.
    pub(crate) tag: Box<str>,
    /// True if deliveries are settled at once, because the client acknowledges none.
    pub(crate) no_ack: bool,
    /// True if the client did not ask for an answer to its subscription.
    pub(crate) no_wait: bool,
    /// True if the client wants to be told when the queue is deleted.
    pub(crate) notify_cancel: bool,
    /// The consumer's identity in the queue, once it is subscribed.
    pub(crate) id: OnceLock<ConsumerId>,
    /// The channel's list of consumers whose queue was deleted.
    pub(crate) cancelled: Arc<EndedConsumers>,
}

impl ConsumerSink {
    /// Appends the method frame of one delivery. `template` is the offset of the previous delivery's method frame, which
    /// is copied if the route is the same.
    #[inline]
    fn encode(&self, out: &mut Vec<u8>, delivery: &Delivery<'_>, delivery_tag: u64, template: &mut Option<usize>) {
        let at = out.len();
        let len = METHOD_FIXED + self.tag.len() + delivery.exchange.len() + delivery.routing_key.len();
        match *template {
            Some(before) if !delivery.route_changed => {
                out.extend_from_within(before..before + len);
                let tag_at = at + TAG_OFFSET + self.tag.len();
                out[tag_at..tag_at + 8].copy_from_slice(&delivery_tag.to_be_bytes());
                out[tag_at + 8] = u8::from(delivery.redelivered);
            }
            _ => encode::basic_deliver(
                out,
                self.channel,
                &encode::Deliver {
                    consumer_tag: self.tag.as_bytes(),
                    delivery_tag,
                    redelivered: delivery.redelivered,
                    exchange: delivery.exchange,
                    routing_key: delivery.routing_key,
                },
            ),
        }
        debug_assert_eq!(out.len(), at + len);
        *template = Some(at);
    }
}

/// Appends header and body of a delivery. A large body in memory of its own is not copied.
#[inline]
fn content(out: &mut Vec<u8>, between: &mut Between, framing: Framing, delivery: &Delivery<'_>) {
    match delivery.shared {
        Some(memory) if delivery.body.len() >= SHARED_MIN => {
            let body = memory.slice_ref(delivery.body);
            let add = |at, part| between.push(at, part);
            encode::large_content(out, framing, delivery.properties, body, add);
        }
        _ => encode::content(out, framing, delivery.properties, delivery.body),
    }
}

impl Sink for ConsumerSink {
    fn fill(&self, source: &mut dyn Source) -> Fill {
        let mut template = None;
        self.output.deliver(|state| {
            let framing = Framing { channel: self.channel, frame_max: state.frame_max };
            let Some((out, between, ledger)) = state.for_delivery(self.channel) else { return Fill::Blocked };
            if !ledger.is_open(self.subscriber, &self.queue) {
                return Fill::Blocked;
            }
            loop {
                if out.len() + between.len() >= OUTPUT_MAX {
                    if let Some(&id) = self.id.get() {
                        state.stall(self.queue.clone(), id);
                    }
                    return Fill::Full;
                }
                if ledger.must_wait(self.subscriber) {
                    return Fill::Blocked;
                }
                let Some(delivery) = source.next() else { return Fill::Exhausted };
                let tag =
                    if self.no_ack { ledger.deliver_settled() } else { ledger.deliver(self.subscriber, delivery.id) };
                self.encode(out, &delivery, tag, &mut template);
                content(out, between, framing, &delivery);
            }
        })
    }

    fn started(&self, id: ConsumerId) {
        let _ = self.id.set(id);
        self.output.write(|state| {
            if let Some(ledger) = state.ledger(self.channel) {
                ledger.set_consumer(self.subscriber, id);
            }
            if !self.no_wait {
                encode::basic_consume_ok(&mut state.buffer, self.channel, &self.tag);
            }
        });
    }

    fn cancelled(&self) {
        let Some(&id) = self.id.get() else { return };
        self.cancelled.push(EndedConsumer { tag: self.tag.clone(), queue: self.queue.id, id });
        if self.notify_cancel {
            self.output.write(|state| {
                // The client may have cancelled the consumer meanwhile, and may have another consumer with its tag.
                if state.ledger(self.channel).is_some_and(|ledger| ledger.is_open(self.subscriber, &self.queue)) {
                    encode::basic_cancel(&mut state.buffer, self.channel, &self.tag);
                }
            });
        }
    }

    fn owner(&self) -> Option<ConsumerOwner> {
        Some(ConsumerOwner { connection: self.connection, channel: self.channel, tag: self.tag.to_string() })
    }
}

/// The receiving end of a `basic.get`: one message as `basic.get-ok`.
pub(crate) struct GetSink<'c> {
    /// The message is encoded into it.
    pub(crate) output: &'c Output,
    /// The channel that the message goes to.
    pub(crate) channel: u16,
    /// The account of this `basic.get` in the channel's ledger.
    pub(crate) subscriber: u32,
    /// True if the delivery is settled at once.
    pub(crate) no_ack: bool,
}

impl Sink for GetSink<'_> {
    fn fill(&self, source: &mut dyn Source) -> Fill {
        self.output.write(|state| {
            let framing = Framing { channel: self.channel, frame_max: state.frame_max };
            let Some((out, between, ledger)) = state.for_delivery(self.channel) else { return Fill::Blocked };
            let Some(delivery) = source.next() else { return Fill::Exhausted };
            let delivery_tag =
                if self.no_ack { ledger.deliver_settled() } else { ledger.deliver(self.subscriber, delivery.id) };
            let ready_after = delivery.ready_after.min(u64::from(u32::MAX)) as u32;
            let got = encode::GetOk {
                delivery_tag,
                redelivered: delivery.redelivered,
                exchange: delivery.exchange,
                routing_key: delivery.routing_key,
                message_count: ready_after,
            };
            encode::basic_get_ok(out, self.channel, &got);
            content(out, between, framing, &delivery);
            Fill::Exhausted
        })
    }
}

/// Offset of the delivery tag in the frame, without the consumer tag before it: frame header 7, class and method 4,
/// length of the consumer tag 1.
const TAG_OFFSET: usize = 7 + 4 + 1;
/// Bytes of the method frame without the three names: up to the tag, then tag 8, redelivered 1, two lengths, end 1.
const METHOD_FIXED: usize = TAG_OFFSET + 8 + 1 + 1 + 1 + 1;
