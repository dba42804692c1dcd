//! `basic.publish`: from frames to runs, from runs to queues.
//!
//! A message whose frames lie complete in the read buffer is only noted there (see [`batch`](super::batch)). The frames
//! of any other message are put together in its channel first (see [`content`](super::content)).
use super::assembly::Assembly;
use super::batch::{PublishBatch, PublishRun, same};
use super::channels::Channels;
use super::confirm::UnconfirmedChannels;
use super::routes::Routes;
use crate::codec::content::ContentHeader;
use crate::codec::encode::{self, Framing};
use crate::codec::frame::{self, FrameKind};
use crate::codec::ids::class;
use crate::codec::method;
use crate::codec::reply::ReplyCode;
use crate::connection::context::Context;
use crate::connection::failure::Failure;
use crate::connection::turn::Turn;
use leveret_model::properties::{self, BrokerProperties};
use leveret_node::{Body, Extent, PART_QUEUES, Route, RoutedRun, Throttle};
use smallvec::SmallVec;
use std::sync::Arc;

/// The data that a connection keeps for its publishes from frame to frame.
#[derive(Default)]
pub(crate) struct PublishState {
    /// Messages that lie complete in the read buffer and were not handed over yet.
    batch: PublishBatch,
    /// Routes cached per connection: most messages have the route of an earlier one.
    pub(crate) routes: Routes,
    /// The properties of the previous message, known to be plain: equal properties are not checked again.
    plain_properties: Vec<u8>,
    /// Channels whose publishes are confirmed at the end of the read.
    pub(crate) confirms: UnconfirmedChannels,
    /// The publishes for which the client may be held back.
    pub(crate) throttle: Throttle,
    /// The number of bytes that were handed to the log since the log's tasks last went first.
    pub(crate) logged_bytes: usize,
}

/// Handles publishes, with all parts of the connection that this may change.
pub(crate) struct Publisher<'s> {
    /// The way to the queues and back to the client.
    pub(crate) context: &'s Context,
    /// The channels, which hold incomplete messages and say whether their publishes are confirmed.
    pub(crate) channels: &'s mut Channels,
    /// The work of publishing is counted here.
    pub(crate) turn: &'s mut Turn,
    /// The data that is kept from frame to frame.
    pub(crate) state: &'s mut PublishState,
}

/// A frame in the read buffer.
#[derive(Clone, Copy)]
pub(crate) struct ArrivedFrame<'b> {
    /// The read buffer.
    pub(crate) buffer: &'b [u8],
    /// The offset in the buffer at which the frame ends.
    pub(crate) at: usize,
    /// The channel of the frame.
    pub(crate) channel: u16,
    /// The payload of the frame.
    pub(crate) payload: &'b [u8],
}

/// A content header whose body lies complete in the read buffer.
struct CompleteContent<'b> {
    header: ContentHeader<'b>,
    /// The offset of the body in the buffer.
    body_at: usize,
    /// The offset in the buffer at which the last frame of the message ends.
    end: usize,
}

/// The messages of one run.
pub(super) struct MessagesOfRun<'m> {
    /// The buffer that contains the messages.
    pub(super) bytes: &'m [u8],
    /// The run, with the route of the messages.
    pub(super) run: &'m PublishRun,
    /// The positions of the messages in the buffer.
    pub(super) messages: &'m [Extent],
}

impl PublishState {
    /// Returns whether a method frame is the same publish as the messages that were noted last.
    #[inline]
    pub(crate) fn is_in_run(&self, channel: u16, payload: &[u8]) -> bool {
        self.batch.is_in_run(channel, payload)
    }
}

impl Publisher<'_> {
    /// Handles a publish with the same method frame as the last one. Returns the offset at which its content ends or, if
    /// the content has not arrived in full, the offset at which its method frame ends.
    ///
    /// # Errors
    /// 504 if the channel is not open.
    #[inline]
    pub(crate) fn publish_again(&mut self, arrived: ArrivedFrame<'_>) -> Result<usize, Failure> {
        if let Some(content) = complete_content(&arrived, self.context.frame_max)
            && self.takes_plain(content.header.properties_raw)
        {
            self.note(arrived.buffer, &content);
            return Ok(content.end);
        }
        match method::fast_publish(arrived.payload) {
            Some(publish) => self.assemble(arrived, &publish).map(|()| arrived.at),
            None => Ok(arrived.at),
        }
    }

    /// Handles a publish. Returns the offset at which its content ends, if that has arrived in full. Otherwise the
    /// channel waits for the content, and the offset of the end of the method frame is returned.
    ///
    /// # Errors
    /// 540 for `immediate`; 404 for a missing exchange, 403 for an internal one.
    pub(crate) fn publish(
        &mut self,
        arrived: ArrivedFrame<'_>,
        publish: &method::PublishMethod<'_>,
    ) -> Result<usize, Failure> {
        if publish.immediate {
            return Err(Failure::new(ReplyCode::NotImplemented, "immediate=true"));
        }
        let route = self.find_route(publish.exchange, publish.routing_key)?;
        if !route.by_headers
            && route.recipients() <= PART_QUEUES
            && let Some(content) = complete_content(&arrived, self.context.frame_max)
            && self.takes_plain(content.header.properties_raw)
        {
            self.state.batch.begin(arrived.channel, route, publish.mandatory, arrived.payload);
            self.note(arrived.buffer, &content);
            return Ok(content.end);
        }
        self.assemble(arrived, publish).map(|()| arrived.at)
    }

    /// Notes a message of the run that was begun. The message lies complete in the buffer.
    #[inline]
    fn note(&mut self, buffer: &[u8], content: &CompleteContent<'_>) {
        if self.state.batch.add(buffer, &content.header, content.body_at) {
            self.flush_batch(buffer);
        }
    }

    /// Makes the channel wait for the content of this publish.
    fn assemble(&mut self, arrived: ArrivedFrame<'_>, publish: &method::PublishMethod<'_>) -> Result<(), Failure> {
        self.flush_batch(arrived.buffer);
        let held = self.context.broker.hold(&self.context.connection);
        self.channels.get(arrived.channel)?.assembly = Some(Assembly::new(publish, held));
        Ok(())
    }

    /// Returns whether properties are well formed and need no action of the broker. That is known if they equal the
    /// properties of the previous message; otherwise they are checked.
    #[inline]
    fn takes_plain(&mut self, properties: &[u8]) -> bool {
        if same(properties, &self.state.plain_properties) {
            return true;
        }
        self.turn.add(properties.len() as u64 / PROPERTY_BYTES_PER_WORK);
        let plain = properties.len() <= PLAIN_PROPERTIES_MAX
            && properties::check(properties).is_ok_and(BrokerProperties::is_nothing);
        if plain {
            self.state.plain_properties.clear();
            self.state.plain_properties.extend_from_slice(properties);
        }
        plain
    }

    /// Returns the route of an exchange and a routing key: the cached one, if it is still current.
    pub(super) fn find_route(&mut self, exchange: &str, routing_key: &[u8]) -> Result<Arc<Route>, Failure> {
        if let Some(route) = self.state.routes.find(exchange, routing_key)
            && self.context.broker.is_current(route)
        {
            return Ok(route.clone());
        }
        let route =
            self.context.broker.route(self.context.caller(), self.context.vhost(), exchange, routing_key, None)?;
        self.turn.add(route.steps / STEPS_PER_WORK);
        let route = Arc::new(route);
        self.state.routes.insert(&self.context.broker, route.clone());
        Ok(route)
    }

    /// Hands over the noted messages. Called before anything else happens on the connection, and at the end of each read.
    pub(crate) fn flush_batch(&mut self, buffer: &[u8]) {
        if !self.state.batch.is_empty() {
            let taken = self.state.batch.take();
            self.hand_over(buffer, &taken.runs, &taken.messages);
            self.state.batch.give_back(taken);
        }
    }

    /// Hands over runs. `messages` has the messages of one run after the other; their bytes are in `bytes`.
    pub(super) fn hand_over(&mut self, bytes: &[u8], runs: &[PublishRun], messages: &[Extent]) {
        let mut routed: SmallVec<[RoutedRun<'_>; 1]> = SmallVec::with_capacity(runs.len());
        for (at, run) in runs.iter().enumerate() {
            let end = runs.get(at + 1).map_or(messages.len(), |next| next.first);
            let of_run = MessagesOfRun { bytes, run, messages: &messages[run.first..end] };
            routed.extend(self.count_published(of_run));
        }
        let lag = self.context.broker.publish(bytes, &routed);
        self.state.throttle.note_lag(lag);
    }

    /// Counts messages that are about to be handed over. Returns them with their route and, if it waits for the log,
    /// their publisher. Returns `None` if no queue takes them; they are then sent back if they are mandatory.
    pub(super) fn count_published<'m>(&mut self, of_run: MessagesOfRun<'m>) -> Option<RoutedRun<'m>> {
        let MessagesOfRun { run, messages, .. } = of_run;
        let route = &*run.route;
        self.state.throttle.note_publish();
        self.turn.add(RUN_WORK + (messages.len() * route.recipients()) as u64);
        let logs = route.confirms();
        if logs > 0 {
            self.state.logged_bytes += messages.iter().map(|message| message.body.len()).sum::<usize>();
        }
        let waiter = match self.channels.find(run.channel) {
            Some(channel) => self.state.confirms.published(&self.context.output, channel, messages.len() as u64, logs),
            None => None,
        };
        if route.is_unroutable() {
            if run.mandatory {
                self.send_back(&of_run);
            }
            return None;
        }
        Some(RoutedRun { route, messages, waiter })
    }

    /// Returns messages that no queue takes to the client.
    fn send_back(&self, of_run: &MessagesOfRun<'_>) {
        let MessagesOfRun { bytes, run, messages } = of_run;
        self.context.output.write(|state| {
            let framing = Framing { channel: run.channel, frame_max: state.frame_max };
            for message in *messages {
                encode::basic_return(&mut state.buffer, run.channel, &run.route.exchange, &run.route.routing_key);
                let at = message.properties_at as usize;
                let properties = &bytes[at..at + message.properties_len as usize];
                let body = match &message.body {
                    Body::Inline { at, len } => &bytes[*at as usize..(*at + *len) as usize],
                    Body::Shared(bytes) => bytes,
                };
                encode::content(&mut state.buffer, framing, properties, body);
            }
        });
    }
}

/// Returns header and body of the message whose method frame has `arrived`, if each of the two lies in full in the
/// buffer, in one frame. All other contents, and all errors, are left to the general path.
#[inline]
fn complete_content<'b>(arrived: &ArrivedFrame<'b>, frame_max: u32) -> Option<CompleteContent<'b>> {
    let &ArrivedFrame { buffer, at, channel, .. } = arrived;
    let header_frame = frame::parse(&buffer[at..], frame_max).ok()??;
    if header_frame.kind != FrameKind::Header || header_frame.channel != channel {
        return None;
    }
    let header = ContentHeader::parse(header_frame.payload).ok()?;
    let body_frame_at = at + header_frame.len;
    if header.class != class::BASIC || header.body_size == 0 {
        let empty = CompleteContent { header, body_at: body_frame_at, end: body_frame_at };
        return (header.class == class::BASIC).then_some(empty);
    }
    let body_frame = frame::parse(&buffer[body_frame_at..], frame_max).ok()??;
    let complete = body_frame.kind == FrameKind::Body
        && body_frame.channel == channel
        && body_frame.payload.len() as u64 == header.body_size
        && body_frame.payload.len() < SHARED_MIN;
    let (body_at, end) = (body_frame_at + FRAME_HEAD, body_frame_at + body_frame.len);
    complete.then_some(CompleteContent { header, body_at, end })
}

/// The bytes of a frame before its payload.
const FRAME_HEAD: usize = 7;
/// The number of routing steps that cost as much as one unit of work (see `turn`).
pub(super) const STEPS_PER_WORK: u64 = 10;
/// The number of bytes of properties whose check costs as much as one unit of work (see `turn`).
pub(super) const PROPERTY_BYTES_PER_WORK: u64 = 10;
/// The work of handing a run over, in addition to that of its messages (see `turn`).
const RUN_WORK: u64 = 2;
/// A body of at least this size, in bytes, is shared by the queues that it goes to instead of being copied.
pub(super) const SHARED_MIN: usize = 64 << 10;
/// Properties of at most this size, in bytes, are kept to compare those of the next message with them.
const PLAIN_PROPERTIES_MAX: usize = 256;
