//! A message whose frames come one by one: put together in its channel, then published like any other.
use super::noted::{self, Run};
use super::publish::{Arrived, MessagesOfRun, PROPERTY_BYTES_PER_WORK, Publisher, SHARED_MIN, STEPS_PER_WORK};
use crate::codec::content::ContentHeader;
use crate::codec::ids::class;
use crate::codec::method;
use crate::codec::reply::ReplyCode;
use crate::connection::failure::Failure;
use bytes::Bytes;
use leveret_model::properties::{self, Asked};
use leveret_node::{Body, Extent, Held, Message, PART_QUEUES, Route};
use std::sync::Arc;

/// A message that has not come in full.
pub(crate) struct Assembly {
    exchange: Box<str>,
    routing_key: Box<[u8]>,
    /// The message is sent back if no queue takes it.
    mandatory: bool,
    /// The content header, once it has come.
    header: Option<Header>,
    /// The part of the body that has come.
    body: Vec<u8>,
    /// Counts the memory of the header and the body against the node's budget.
    held: Held,
}

/// The content header of such a message.
struct Header {
    properties: Box<[u8]>,
    /// What the properties ask of the broker.
    asked: Asked,
    body_size: u64,
}

/// The part of a message that says where it goes.
struct Assembled<'a> {
    exchange: &'a str,
    routing_key: &'a [u8],
    asked: Asked,
}

impl Assembly {
    /// Returns the message of a publish of which only the method frame has come.
    pub(super) fn new(publish: &method::Publish<'_>, held: Held) -> Self {
        Self {
            exchange: publish.exchange.into(),
            routing_key: publish.routing_key.into(),
            mandatory: publish.mandatory,
            header: None,
            body: Vec::new(),
            held,
        }
    }
}

impl Publisher<'_> {
    /// Handles the header frame of a message that comes frame by frame.
    ///
    /// # Errors
    /// 505 if no header is expected, 502 if it is malformed, 406 if the message is too large or is refused, 506 if the node has
    /// no memory for it.
    pub(crate) async fn content_header(&mut self, arrived: Arrived<'_>) -> Result<(), Failure> {
        let Arrived { channel, payload, .. } = arrived;
        self.turn.add(payload.len() as u64 / PROPERTY_BYTES_PER_WORK);
        self.state.load.published = true; // the client is held back like a publisher if there is no room
        let message_max = self.context.broker.options().message_bytes_max;
        let assembly = match &mut self.channels.get(channel)?.assembly {
            Some(assembly) if assembly.header.is_none() => assembly,
            _ => {
                let text = "expected a method, got a content header frame";
                return Err(Failure::new(ReplyCode::UnexpectedFrame, text));
            }
        };
        let header = ContentHeader::parse(payload).map_err(Failure::of)?;
        if header.class != class::BASIC {
            let text = format!("expected content header for class 60, got one for class {}", header.class);
            return Err(Failure::new(ReplyCode::UnexpectedFrame, text));
        }
        let asked = properties::check(header.properties_raw).map_err(Failure::of)?;
        let size = header.body_size;
        if size > message_max {
            let text = format!("message size {size} is larger than configured max size {message_max}");
            return Err(Failure::new(ReplyCode::PreconditionFailed, text));
        }
        assembly.held.set(header.properties_raw.len() as u64)?;
        assembly.header = Some(Header { properties: header.properties_raw.into(), asked, body_size: size });
        if size == 0 { self.finish_assembly(channel).await } else { Ok(()) }
    }

    /// Handles a body frame of a message that comes frame by frame.
    ///
    /// # Errors
    /// 505 if no body is expected, 501 if it is longer than the header says, and the errors of
    /// [`content_header`](Self::content_header).
    pub(crate) async fn content_body(&mut self, arrived: Arrived<'_>) -> Result<(), Failure> {
        let Arrived { channel, payload, .. } = arrived;
        let Some(Assembly { header: Some(header), body, held, .. }) = &mut self.channels.get(channel)?.assembly else {
            let text = "expected a method or a content header, got a content body frame";
            return Err(Failure::new(ReplyCode::UnexpectedFrame, text));
        };
        let size = header.body_size;
        let now = (body.len() + payload.len()) as u64;
        if now > size {
            let text = format!("body of {now} bytes is larger than the {size} bytes that were announced");
            return Err(Failure::new(ReplyCode::FrameError, text));
        }
        if body.is_empty() {
            // Room for all of it at once, but no more than 16 times of what the client has sent already.
            body.reserve_exact(size.min(payload.len() as u64 * 16) as usize);
        }
        body.extend_from_slice(payload);
        held.set(header.properties.len() as u64 + now)?;
        self.state.load.published = true; // the client is held back like a publisher if there is no room
        if now == size { self.finish_assembly(channel).await } else { Ok(()) }
    }

    /// Publishes a message that has come in full, as a run of its own.
    async fn finish_assembly(&mut self, number: u16) -> Result<(), Failure> {
        let Some(Assembly { exchange, routing_key, mandatory, header: Some(header), body, held }) =
            self.channels.get(number)?.assembly.take()
        else {
            return Ok(());
        };
        let mut bytes = header.properties.into_vec();
        let assembled = Assembled { exchange: &exchange, routing_key: &routing_key, asked: header.asked };
        let route = self.find_route_of(&assembled, &mut bytes)?;
        let (properties_len, body_len) = (bytes.len(), body.len());
        let body = if body_len >= SHARED_MIN {
            Body::Shared(Bytes::from(body))
        } else {
            bytes.extend_from_slice(&body);
            noted::body(&bytes, properties_len..bytes.len(), route.recipients())
        };
        let messages = [Extent { properties_at: 0, properties_len: properties_len as u32, body }];
        let run = Run::single(number, route, mandatory);
        if run.route.recipients() > PART_QUEUES {
            // Others have their turn meanwhile. The client's next frames are handled after this message.
            if let Some(routed) = self.count_published(MessagesOfRun { bytes: &bytes, run: &run, messages: &messages })
            {
                let lag = self.context.broker.publish_in_parts(&bytes, routed).await;
                self.state.load.add_lag(lag);
            }
        } else {
            self.hand_over(&bytes, &[run], &messages);
        }
        drop(held); // the queues count it from here on
        Ok(())
    }

    /// Returns where a message goes. Looks at its properties if the broker has to; these are replaced if consumers must not see
    /// all of them.
    fn find_route_of(&mut self, assembled: &Assembled<'_>, properties: &mut Vec<u8>) -> Result<Arc<Route>, Failure> {
        let &Assembled { exchange, routing_key, asked } = assembled;
        let route = self.find_route(exchange, routing_key)?;
        if !route.by_headers && asked.is_nothing() {
            return Ok(route);
        }
        self.turn.add(properties.len() as u64 / PROPERTY_BYTES_PER_WORK);
        let (user, vhost) = (&*self.context.connection.user, self.context.vhost());
        let message = Message { user, vhost, exchange, routing_key, properties };
        let Some(routed) = self.context.broker.route_by_properties(message, route.by_headers)? else {
            return Ok(route);
        };
        self.turn.add(routed.route.steps / STEPS_PER_WORK);
        if let Some(others) = routed.properties {
            *properties = others;
        }
        Ok(Arc::new(routed.route))
    }
}
