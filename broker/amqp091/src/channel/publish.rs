//! `basic.publish`: from frames to runs, from runs to queues.
//!
//! A message whose frames lie complete in the read buffer is only noted there (see [`noted`](super::noted)); any other is put
//! together in its channel first.
use super::noted::{self, Run, same};
use crate::codec::content::{self, Asked, ContentHeader, Properties};
use crate::codec::frame::{self, Kind};
use crate::codec::{encode, method};
use crate::connection::failure::Failure;
use crate::connection::session::Session;
use bytes::Bytes;
use leveret_model::table::FieldTable;
use leveret_node::{Body, Extent, Held, Lag, PART_QUEUES, Route, RoutedRun, Waiter};
use smallvec::SmallVec;
use std::sync::Arc;

/// A message whose frames come one by one.
pub(crate) struct Assembly {
    exchange: Box<str>,
    routing_key: Box<[u8]>,
    mandatory: bool,
    /// Once it has come.
    header: Option<Header>,
    body: Vec<u8>,
    /// Counts what has come of the body.
    held: Held,
}

/// The content header of such a message.
struct Header {
    properties: Box<[u8]>,
    /// What the properties ask of the broker.
    asked: Asked,
    body_size: u64,
}

impl Session {
    /// Whether a method frame is the same publish as those noted before.
    #[inline]
    pub(crate) fn is_in_run(&self, channel: u16, payload: &[u8]) -> bool {
        self.noted.is_in_run(channel, payload)
    }

    /// A publish like the one before; its frame ends at `at` in the read buffer. Returns where its content ends.
    #[inline]
    pub(crate) fn publish_again(&mut self, buffer: &[u8], at: usize, channel: u16) -> Result<usize, Failure> {
        if let Some((header, body_at, end)) = complete_content(buffer, at, channel, self.frame_max)
            && self.takes_plain(header.properties_raw)
        {
            self.note(buffer, &header, body_at);
            return Ok(end);
        }
        let payload = self.noted.payload().to_vec();
        match method::fast_publish(&payload) {
            Some(publish) => self.assemble(buffer, channel, &publish).map(|()| at),
            None => Ok(at),
        }
    }

    /// A publish whose frame, of this payload, ends at `at` in the read buffer. Returns where its content ends, if that
    /// is there in full; otherwise the channel waits for it.
    pub(crate) fn publish(
        &mut self,
        buffer: &[u8],
        at: usize,
        channel: u16,
        (publish, payload): (&method::Publish<'_>, &[u8]),
    ) -> Result<usize, Failure> {
        if publish.immediate {
            return Err(Failure::new(540, "immediate=true"));
        }
        let route = self.find_route(publish.exchange, publish.routing_key)?;
        if !route.by_headers
            && route.recipients() <= PART_QUEUES
            && let Some((header, body_at, end)) = complete_content(buffer, at, channel, self.frame_max)
            && self.takes_plain(header.properties_raw)
        {
            self.noted.begin(channel, route, publish.mandatory, payload);
            self.note(buffer, &header, body_at);
            return Ok(end);
        }
        self.assemble(buffer, channel, publish).map(|()| at)
    }

    /// Notes a message of the run that was begun, which lies complete in the buffer.
    #[inline]
    fn note(&mut self, buffer: &[u8], header: &ContentHeader<'_>, body_at: usize) {
        if self.noted.add(buffer, header, body_at) {
            self.flush_noted(buffer);
        }
    }

    /// The channel waits for the content of this publish.
    fn assemble(&mut self, buffer: &[u8], channel: u16, publish: &method::Publish<'_>) -> Result<(), Failure> {
        self.flush_noted(buffer);
        let (exchange, routing_key) = (publish.exchange.into(), publish.routing_key.into());
        let (mandatory, held) = (publish.mandatory, self.broker.hold(&self.connection));
        self.channel(channel)?.assembly =
            Some(Assembly { exchange, routing_key, mandatory, header: None, body: Vec::new(), held });
        Ok(())
    }

    /// Whether properties are well formed and have nothing that must be looked at: those of the message before, or
    /// checked now.
    #[inline]
    fn takes_plain(&mut self, properties: &[u8]) -> bool {
        if same(properties, &self.plain_properties) {
            return true;
        }
        self.turn.add(properties.len() as u64 / PROPERTY_BYTES_PER_WORK);
        let plain = properties.len() <= PLAIN_PROPERTIES_MAX && content::check(properties).is_ok_and(Asked::is_nothing);
        if plain {
            self.plain_properties.clear();
            self.plain_properties.extend_from_slice(properties);
        }
        plain
    }

    fn find_route(&mut self, exchange: &str, routing_key: &[u8]) -> Result<Arc<Route>, Failure> {
        if let Some(route) = self.routes.find(exchange, routing_key)
            && self.broker.is_current(route)
        {
            return Ok(route.clone());
        }
        let route = self.route(exchange, routing_key, None)?;
        self.routes.insert(&self.broker, route.clone());
        Ok(route)
    }

    /// A route that was not found before.
    fn route(&mut self, exchange: &str, key: &[u8], headers: Option<&FieldTable>) -> Result<Arc<Route>, Failure> {
        let route = self.broker.route(&self.connection.caller, &self.vhost, exchange, key, headers)?;
        self.turn.add(route.steps / STEPS_PER_WORK);
        Ok(Arc::new(route))
    }

    /// Hands over what was noted, before anything else happens on the connection and at the end of each read.
    pub(crate) fn flush_noted(&mut self, buffer: &[u8]) {
        if !self.noted.is_empty() {
            let (runs, messages) = self.noted.take();
            self.hand_over(buffer, &runs, &messages);
            self.noted.give_back(runs, messages);
        }
    }

    /// Hands runs over, whose messages lie one run after the other in `messages`.
    fn hand_over(&mut self, buffer: &[u8], runs: &[Run], mut messages: &[Extent]) {
        let mut routed: SmallVec<[RoutedRun<'_>; 1]> = SmallVec::with_capacity(runs.len());
        for run in runs {
            let (messages_of_run, rest) = messages.split_at(run.messages);
            messages = rest;
            if let Some(run) = self.count_published(buffer, run, messages_of_run) {
                routed.push(run);
            }
        }
        let lag = self.broker.publish(buffer, &routed);
        self.note_lag(lag);
    }

    fn note_lag(&mut self, lag: Option<Lag>) {
        if let Some(lag) = lag {
            self.pace.published(lag.messages, lag.body_bytes);
            self.outrunning = Some(lag.queue);
        }
    }

    /// Counts messages that are about to be handed over. Returns them with who waits for them to be durable, if anybody does.
    /// None if they go nowhere: they are sent back, if that was asked for.
    fn count_published<'m>(&mut self, buffer: &[u8], run: &'m Run, messages: &'m [Extent]) -> Option<RoutedRun<'m>> {
        let route = &*run.route;
        self.published = true;
        self.turn.add(RUN_WORK + (messages.len() * route.recipients()) as u64);
        let waits_for = route.confirms();
        if waits_for > 0 {
            self.logged_bytes += messages.iter().map(|message| message.body.len()).sum::<usize>();
        }
        let mut waiter = None;
        let output = (waits_for > 0).then(|| self.output.clone());
        if let Ok(channel) = self.channel(run.channel)
            && channel.confirm
        {
            let (number, count) = (channel.number, messages.len() as u64);
            if let Some(output) = output {
                let accepted = std::mem::take(&mut channel.accepted);
                let token = output.lock().published(number, accepted, count, waits_for);
                waiter = token.map(|token| Waiter { to: output, channel: number, token });
            } else {
                channel.accepted += count;
                if !self.to_confirm.contains(&number) {
                    self.to_confirm.push(number);
                }
            }
        }
        if route.is_unroutable() {
            if run.mandatory {
                self.send_back(run.channel, route, buffer, messages);
            }
            return None;
        }
        Some(RoutedRun { route, messages, waiter })
    }

    fn send_back(&self, channel: u16, route: &Route, buffer: &[u8], messages: &[Extent]) {
        self.output.write(|state| {
            for message in messages {
                let names = (&*route.exchange, &*route.routing_key);
                encode::basic_return(&mut state.buffer, channel, (312, "NO_ROUTE"), names);
                let at = message.properties_at as usize;
                let properties = &buffer[at..at + message.properties_len as usize];
                let body = match &message.body {
                    Body::Inline { at, len } => &buffer[*at as usize..(*at + *len) as usize],
                    Body::Shared(bytes) => bytes,
                };
                encode::content(&mut state.buffer, channel, state.frame_max, properties, body);
            }
        });
    }

    /// The header frame of a message that comes frame by frame.
    pub(crate) async fn content_header(&mut self, channel: u16, payload: &[u8]) -> Result<(), Failure> {
        self.turn.add(payload.len() as u64 / PROPERTY_BYTES_PER_WORK);
        self.published = true; // it is held back like a publish if there is no room
        let message_max = self.broker.options().message_bytes_max;
        let assembly = match &mut self.channel(channel)?.assembly {
            Some(assembly) if assembly.header.is_none() => assembly,
            _ => return Err(Failure::new(505, "expected a method, got a content header frame")),
        };
        let header = ContentHeader::parse(payload).map_err(|error| Failure::new(502, error.to_string()))?;
        if header.class != 60 {
            return Err(Failure::new(
                505,
                format!("expected content header for class 60, got one for class {}", header.class),
            ));
        }
        let asked = content::check(header.properties_raw).map_err(|error| Failure::new(502, error.to_string()))?;
        let size = header.body_size;
        if size > message_max {
            let text = format!("message size {size} is larger than configured max size {message_max}");
            return Err(Failure::new(406, text));
        }
        assembly.held.set(header.properties_raw.len() as u64)?;
        assembly.header = Some(Header { properties: header.properties_raw.into(), asked, body_size: size });
        if size == 0 { self.finish_assembly(channel).await } else { Ok(()) }
    }

    /// A body frame of a message that comes frame by frame.
    pub(crate) async fn content_body(&mut self, channel: u16, payload: &[u8]) -> Result<(), Failure> {
        let Some(assembly @ Assembly { header: Some(_), .. }) = &mut self.channel(channel)?.assembly else {
            return Err(Failure::new(505, "expected a method or a content header, got a content body frame"));
        };
        let (header_bytes, size) =
            assembly.header.as_ref().map_or((0, 0), |header| (header.properties.len() as u64, header.body_size));
        let now = (assembly.body.len() + payload.len()) as u64;
        if now > size {
            return Err(Failure::new(
                501,
                format!("body of {now} bytes is larger than the {size} bytes that were announced"),
            ));
        }
        if assembly.body.is_empty() {
            // Room for all of it at once, as far as the client has shown that it means it.
            assembly.body.reserve_exact(size.min(payload.len() as u64 * 16) as usize);
        }
        assembly.body.extend_from_slice(payload);
        assembly.held.set(header_bytes + now)?;
        self.published = true; // it is held back like a publish if there is no room
        if now == size { self.finish_assembly(channel).await } else { Ok(()) }
    }

    /// A message is complete: a run of its own.
    async fn finish_assembly(&mut self, number: u16) -> Result<(), Failure> {
        let Some(Assembly { exchange, routing_key, mandatory, header: Some(header), body, held }) =
            self.channel(number)?.assembly.take()
        else {
            return Ok(());
        };
        let mut bytes = header.properties.into_vec();
        let mut route = self.find_route(&exchange, &routing_key)?;
        if (route.by_headers || !header.asked.is_nothing())
            && let Some(parsed) = self.look_at(&bytes)?
            && (route.by_headers || header.asked.recipients)
        {
            route = self.route(&exchange, &routing_key, parsed.headers.as_ref())?;
            if parsed.headers.is_some_and(|headers| headers.get("BCC").is_some()) {
                // Blind copies: no recipient sees the others (RabbitMQ's sender-selected distribution).
                bytes =
                    content::without_header(&bytes, b"BCC").map_err(|error| Failure::new(502, error.to_string()))?;
            }
        }
        let (properties_len, body_len) = (bytes.len(), body.len());
        let body = if body_len >= SHARED_MIN {
            Body::Shared(Bytes::from(body))
        } else {
            bytes.extend_from_slice(&body);
            noted::body(&bytes, (properties_len, body_len), route.recipients())
        };
        let message = [Extent { properties_at: 0, properties_len: properties_len as u32, body }];
        let run = Run::single(number, route, mandatory);
        match run.route.recipients() > PART_QUEUES {
            // Others have their turn meanwhile. What the client sent after it is handled after it.
            true => {
                if let Some(routed) = self.count_published(&bytes, &run, &message) {
                    let lag = self.broker.publish_in_parts(&bytes, routed).await;
                    self.note_lag(lag);
                }
            }
            false => self.hand_over(&bytes, &[run], &message),
        }
        drop(held); // the queues count it from here on
        Ok(())
    }

    /// Checks properties that mean something to the broker. Returns them if there are any.
    fn look_at(&mut self, properties: &[u8]) -> Result<Option<Properties>, Failure> {
        if flags(properties) & (HEADERS | EXPIRATION | USER_ID) == 0 {
            return Ok(None);
        }
        self.turn.add(properties.len() as u64 / PROPERTY_BYTES_PER_WORK);
        let parsed = Properties::parse(properties).map_err(|error| Failure::new(502, error.to_string()))?;
        if let Some(user) = &parsed.user_id
            && **user != *self.connection.user()
        {
            let text =
                format!("user_id property set to '{user}' but authenticated user was '{}'", self.connection.user());
            return Err(Failure::new(406, text));
        }
        if let Some(expiration) = &parsed.expiration {
            let text = format!("property expiration '{expiration}': a message's time to live is not supported");
            return Err(Failure::new(406, text));
        }
        Ok(Some(parsed))
    }
}

/// Header and body of a message, if both lie in full in `buffer` from `at` on, in one frame each. With the offset of
/// the body and of what follows. What is not so, or not right, is left to the slow way.
#[inline]
fn complete_content(
    buffer: &[u8],
    at: usize,
    channel: u16,
    frame_max: u32,
) -> Option<(ContentHeader<'_>, usize, usize)> {
    let header_frame = frame::parse(&buffer[at..], frame_max).ok()??;
    if header_frame.kind != Kind::Header || header_frame.channel != channel {
        return None;
    }
    let header = ContentHeader::parse(header_frame.payload).ok()?;
    let body_frame_at = at + header_frame.len;
    if header.class != 60 || header.body_size == 0 {
        return (header.class == 60).then_some((header, body_frame_at, body_frame_at));
    }
    let body_frame = frame::parse(&buffer[body_frame_at..], frame_max).ok()??;
    let complete = body_frame.kind == Kind::Body
        && body_frame.channel == channel
        && body_frame.payload.len() as u64 == header.body_size
        && body_frame.payload.len() < SHARED_MIN;
    complete.then_some((header, body_frame_at + FRAME_HEAD, body_frame_at + body_frame.len))
}

fn flags(properties: &[u8]) -> u16 {
    let [high, low, ..] = properties else { return 0 };
    u16::from_be_bytes([*high, *low])
}

const HEADERS: u16 = 1 << 13;
const EXPIRATION: u16 = 1 << 8;
const USER_ID: u16 = 1 << 4;
/// Bytes of a frame before its payload.
const FRAME_HEAD: usize = 7;
/// Steps of routing that cost as much as a unit of work (see `turn`).
const STEPS_PER_WORK: u64 = 10;
/// Bytes of properties that cost as much as a unit of work to be looked through (see `turn`).
const PROPERTY_BYTES_PER_WORK: u64 = 10;
/// What handing a run over costs beside its messages (see `turn`).
const RUN_WORK: u64 = 2;
/// A body from this size on is shared by the queues that it goes to, not copied.
pub(super) const SHARED_MIN: usize = 64 << 10;
/// Properties up to this size are compared with those of the message before.
const PLAIN_PROPERTIES_MAX: usize = 256;
