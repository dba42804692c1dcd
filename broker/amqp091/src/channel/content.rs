//! The content frames of a message that does not lie complete in the read buffer. They are put together, and the message
//! is then published like any other.
use super::assembly::Assembly;
use super::batch::{self, PublishRun};
use super::publish::{ArrivedFrame, MessagesOfRun, PROPERTY_BYTES_PER_WORK, Publisher, SHARED_MIN, STEPS_PER_WORK};
use crate::codec::reply::ReplyCode;
use crate::connection::failure::Failure;
use bytes::Bytes;
use leveret_model::properties::BrokerProperties;
use leveret_node::{Body, Extent, Message, PART_QUEUES, Route};
use std::sync::Arc;

/// The routing information of a message that was put together.
struct MessageTarget<'a> {
    exchange: &'a str,
    routing_key: &'a [u8],
    asked: BrokerProperties,
}

impl Publisher<'_> {
    /// Handles the header frame of a message that arrives frame by frame.
    ///
    /// # Errors
    /// 505 if no header is expected, 502 if it is malformed, 406 if the message is too large or is refused, 506 if the
    /// node has no memory for it.
    pub(crate) async fn content_header(&mut self, arrived: ArrivedFrame<'_>) -> Result<(), Failure> {
        let ArrivedFrame { channel, payload, .. } = arrived;
        self.turn.add(payload.len() as u64 / PROPERTY_BYTES_PER_WORK);
        self.state.throttle.note_publish(); // the client is held back like a publisher if there is no room
        let message_bytes_max = self.context.broker.options().message_bytes_max;
        match &mut self.channels.get(channel)?.assembly {
            Some(assembly) if assembly.awaits_header() => assembly.add_header(payload, message_bytes_max)?,
            _ => {
                let text = "expected a method, got a content header frame";
                return Err(Failure::new(ReplyCode::UnexpectedFrame, text));
            }
        }
        self.finish_if_complete(channel).await
    }

    /// Handles a body frame of a message that arrives frame by frame.
    ///
    /// # Errors
    /// 505 if no body is expected, 501 if it is longer than the header says, and the errors of
    /// [`content_header`](Self::content_header).
    pub(crate) async fn content_body(&mut self, arrived: ArrivedFrame<'_>) -> Result<(), Failure> {
        let ArrivedFrame { channel, payload, .. } = arrived;
        self.state.throttle.note_publish(); // the client is held back like a publisher if there is no room
        match &mut self.channels.get(channel)?.assembly {
            Some(assembly) if !assembly.awaits_header() => assembly.add_body(payload)?,
            _ => {
                let text = "expected a method or a content header, got a content body frame";
                return Err(Failure::new(ReplyCode::UnexpectedFrame, text));
            }
        }
        self.finish_if_complete(channel).await
    }

    /// Publishes the message of a channel, as a run of its own, if it has arrived in full.
    async fn finish_if_complete(&mut self, number: u16) -> Result<(), Failure> {
        let assembly = &mut self.channels.get(number)?.assembly;
        let Some(Assembly { exchange, routing_key, mandatory, header: Some(header), body, held }) =
            assembly.take_if(|assembly| assembly.is_complete())
        else {
            return Ok(());
        };
        let mut bytes = header.properties.into_vec();
        let target = MessageTarget { exchange: &exchange, routing_key: &routing_key, asked: header.asked };
        let route = self.find_route_of(&target, &mut bytes)?;
        let (properties_len, body_len) = (bytes.len(), body.len());
        let body = if body_len >= SHARED_MIN {
            Body::Shared(Bytes::from(body))
        } else {
            bytes.extend_from_slice(&body);
            batch::body(&bytes, properties_len..bytes.len(), route.recipients())
        };
        let messages = [Extent { properties_at: 0, properties_len: properties_len as u32, body }];
        let run = PublishRun { channel: number, route, mandatory, first: 0 };
        if run.route.recipients() > PART_QUEUES {
            // Other connections get their turn meanwhile. The client's next frames are handled after this message.
            if let Some(routed) = self.count_published(MessagesOfRun { bytes: &bytes, run: &run, messages: &messages })
            {
                let lag = self.context.broker.publish_in_parts(&bytes, routed).await;
                self.state.throttle.note_lag(lag);
            }
        } else {
            self.hand_over(&bytes, &[run], &messages);
        }
        drop(held); // from here on the queues count the memory
        Ok(())
    }

    /// Returns the route of a message. Looks at the properties if the broker has to, and replaces `properties` if
    /// consumers must not see all of them.
    fn find_route_of(&mut self, target: &MessageTarget<'_>, properties: &mut Vec<u8>) -> Result<Arc<Route>, Failure> {
        let &MessageTarget { exchange, routing_key, asked } = target;
        let route = self.find_route(exchange, routing_key)?;
        if !route.by_headers && asked.is_nothing() {
            return Ok(route);
        }
        self.turn.add(properties.len() as u64 / PROPERTY_BYTES_PER_WORK);
        let message = Message { vhost: self.context.vhost(), exchange, routing_key, properties };
        let caller = self.context.caller();
        let Some(routed) = self.context.broker.route_by_properties(caller, message, route.by_headers)? else {
            return Ok(route);
        };
        self.turn.add(routed.route.steps / STEPS_PER_WORK);
        if let Some(others) = routed.properties {
            *properties = others;
        }
        Ok(Arc::new(routed.route))
    }
}
