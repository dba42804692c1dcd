//! Puts together a message of a channel whose frames have not all arrived.
use crate::codec::content::ContentHeader;
use crate::codec::ids::class;
use crate::codec::method;
use crate::codec::reply::ReplyCode;
use crate::connection::failure::Failure;
use leveret_model::properties::{self, BrokerProperties};
use leveret_node::HeldBytes;

/// A message that has not arrived in full.
pub(crate) struct Assembly {
    pub(super) exchange: Box<str>,
    pub(super) routing_key: Box<[u8]>,
    /// True if the message is sent back when no queue takes it.
    pub(super) mandatory: bool,
    /// The content header, once it has arrived.
    pub(super) header: Option<Header>,
    /// The part of the body that has arrived.
    pub(super) body: Vec<u8>,
    /// Counts the memory of the header and the body against the node's budget.
    pub(super) held: HeldBytes,
}

/// The content header of a message that has not arrived in full.
pub(super) struct Header {
    /// The properties, encoded.
    pub(super) properties: Box<[u8]>,
    /// The properties that the broker has to look at.
    pub(super) asked: BrokerProperties,
    /// The size of the whole body, in bytes.
    body_size: u64,
}

impl Assembly {
    /// Begins the message of a publish of which only the method frame has arrived.
    pub(super) fn new(publish: &method::PublishMethod<'_>, held: HeldBytes) -> Self {
        Self {
            exchange: publish.exchange.into(),
            routing_key: publish.routing_key.into(),
            mandatory: publish.mandatory,
            header: None,
            body: Vec::new(),
            held,
        }
    }

    /// Returns whether the content header has not arrived yet.
    pub(super) fn awaits_header(&self) -> bool {
        self.header.is_none()
    }

    /// Returns whether the message has arrived in full.
    pub(super) fn is_complete(&self) -> bool {
        self.header.as_ref().is_some_and(|header| header.body_size == self.body.len() as u64)
    }

    /// Adds the payload of the content header frame.
    ///
    /// # Errors
    /// 502 if it is malformed, 505 for the header of another class, 406 if the body is larger than `message_bytes_max`,
    /// 506 if the node has no memory for it.
    pub(super) fn add_header(&mut self, payload: &[u8], message_bytes_max: u64) -> Result<(), Failure> {
        let header = ContentHeader::parse(payload).map_err(Failure::of)?;
        if header.class != class::BASIC {
            let text = format!("expected content header for class 60, got one for class {}", header.class);
            return Err(Failure::new(ReplyCode::UnexpectedFrame, text));
        }
        let asked = properties::check(header.properties_raw).map_err(Failure::of)?;
        let size = header.body_size;
        if size > message_bytes_max {
            let text = format!("message size {size} is larger than configured max size {message_bytes_max}");
            return Err(Failure::new(ReplyCode::PreconditionFailed, text));
        }
        self.held.set(header.properties_raw.len() as u64)?;
        self.header = Some(Header { properties: header.properties_raw.into(), asked, body_size: size });
        Ok(())
    }

    /// Adds the payload of a body frame.
    ///
    /// # Errors
    /// 501 if the body is longer than the header says, 506 if the node has no memory for it.
    pub(super) fn add_body(&mut self, payload: &[u8]) -> Result<(), Failure> {
        let header = self.header.as_ref();
        let (header_bytes, size) = header.map_or((0, 0), |header| (header.properties.len() as u64, header.body_size));
        let now = (self.body.len() + payload.len()) as u64;
        if now > size {
            let text = format!("body of {now} bytes is larger than the {size} bytes that were announced");
            return Err(Failure::new(ReplyCode::FrameError, text));
        }
        if self.body.is_empty() {
            // Reserves room for the whole body at once, but not more than 16 times the bytes that the client has already
            // sent.
            self.body.reserve_exact(size.min(payload.len() as u64 * 16) as usize);
        }
        self.body.extend_from_slice(payload);
        self.held.set(header_bytes + now)?;
        Ok(())
    }
}
