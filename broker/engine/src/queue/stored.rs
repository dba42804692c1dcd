//! The stored form of a run, which is the same in a queue's memory, in the log and in the archive.
//!
//! `[exchange length u8][routing key length u8][exchange][routing key]`, then each message as `[properties length
//! u32][body length u32][properties][body]`, integers little-endian. The form has no version of its own, because the
//! log's entries and the snapshots that refer to runs have one. In a queue's memory a large body is not part of the
//! run, but shared with the buffer that it arrived in.
use super::content::{Body, Extent, Publish};
use bytes::Bytes;

/// A run that comes from another node, with its messages as extents of its bytes.
pub struct StoredRun<'a> {
    /// The exchange that the messages were published to.
    pub exchange: &'a [u8],
    /// The routing key that they were published with.
    pub routing_key: &'a [u8],
    /// The messages, as extents of the run's bytes.
    pub messages: Vec<Extent>,
}

impl<'a> StoredRun<'a> {
    /// Reads a whole run; `None` if the bytes are no run.
    #[must_use]
    pub fn read(run: &'a [u8]) -> Option<Self> {
        let (&[exchange, key], names) = run.split_first_chunk()?;
        let names = names.get(..usize::from(exchange) + usize::from(key))?;
        let (exchange, routing_key) = names.split_at(usize::from(exchange));
        let (mut at, mut messages) = (2 + names.len(), Vec::new());
        while at < run.len() {
            let head = run.get(at..at + HEAD)?;
            let (properties, body) = (length(head, 0), length(head, 4));
            let properties_at = at + HEAD;
            let body_at = properties_at.checked_add(properties)?;
            at = body_at.checked_add(body).filter(|end| *end <= run.len())?;
            let body = Body::Inline { at: u32::try_from(body_at).ok()?, len: body as u32 };
            let (properties_at, properties_len) = (properties_at as u32, properties as u32);
            messages.push(Extent { properties_at, properties_len, body });
        }
        Some(Self { exchange, routing_key, messages })
    }
}

/// One message, borrowed from a run.
pub(super) struct StoredMessage<'a> {
    pub(super) properties: &'a [u8],
    pub(super) body: &'a [u8],
    /// Offset of the message that follows.
    pub(super) next: u32,
}

/// Exchange and routing key of a run, borrowed from it.
pub(super) struct StoredRoute<'a> {
    pub(super) exchange: &'a [u8],
    pub(super) routing_key: &'a [u8],
    /// Offset of the first message.
    pub(super) messages_at: u32,
}

impl Extent {
    /// Returns the length of the message in stored form, in bytes.
    #[must_use]
    #[inline]
    pub fn stored_bytes(&self) -> usize {
        HEAD + self.properties_len as usize + self.body.len()
    }

    /// Returns the length in bytes of the part of the stored form that precedes the body.
    pub(super) fn stored_bytes_before_body(&self) -> usize {
        HEAD + self.properties_len as usize
    }
}

impl Publish<'_> {
    /// Appends the messages as a run in stored form. Returns the number of bytes of their bodies.
    pub fn store(&self, out: &mut Vec<u8>) -> u64 {
        self.store_with(self.messages, out, |out, body| out.extend_from_slice(body))
    }

    /// Appends `messages`, which are some of this publish's, as a run for a queue's memory, without shared bodies.
    /// Returns the number of bytes of the bodies, shared ones included.
    #[inline]
    pub(super) fn store_in_memory(&self, messages: &[Extent], out: &mut Vec<u8>) -> u64 {
        self.store_with(messages, out, |_, _| ())
    }

    /// Returns the length in bytes of the part of a run that precedes its first message.
    pub(super) fn route_bytes(&self) -> usize {
        2 + self.exchange.len() + self.routing_key.len()
    }

    #[inline]
    fn store_with(&self, messages: &[Extent], out: &mut Vec<u8>, put_shared: impl Fn(&mut Vec<u8>, &Bytes)) -> u64 {
        out.extend_from_slice(&[self.exchange.len() as u8, self.routing_key.len() as u8]);
        out.extend_from_slice(self.exchange);
        out.extend_from_slice(self.routing_key);
        let mut body_bytes = 0;
        for message in messages {
            let body_len = message.body.len();
            let mut head = [0; HEAD];
            head[..4].copy_from_slice(&message.properties_len.to_le_bytes());
            head[4..].copy_from_slice(&(body_len as u32).to_le_bytes());
            out.extend_from_slice(&head);
            out.extend_from_slice(self.properties(message));
            match &message.body {
                Body::Inline { at, len } => out.extend_from_slice(&self.bytes[*at as usize..(*at + *len) as usize]),
                Body::Shared(body) => put_shared(out, body),
            }
            body_bytes += body_len as u64;
        }
        body_bytes
    }
}

/// Reads the exchange and routing key of the run at `offset`.
#[inline]
pub(super) fn route(bytes: &[u8], offset: u32) -> StoredRoute<'_> {
    let at = offset as usize;
    let (exchange, key) = (bytes[at] as usize, bytes[at + 1] as usize);
    let names = &bytes[at + 2..at + 2 + exchange + key];
    StoredRoute {
        exchange: &names[..exchange],
        routing_key: &names[exchange..],
        messages_at: (at + 2 + exchange + key) as u32,
    }
}

/// Reads the message at `offset`.
#[inline]
pub(super) fn message(bytes: &[u8], offset: u32) -> StoredMessage<'_> {
    let (properties, body, rest) = lengths(bytes, offset);
    StoredMessage {
        properties: &rest[..properties],
        body: &rest[properties..properties + body],
        next: offset + (HEAD + properties + body) as u32,
    }
}

/// Reads the message at `offset`, whose body is shared. No message follows it.
#[inline]
pub(super) fn message_with<'a>(bytes: &'a [u8], offset: u32, shared: &'a Bytes) -> StoredMessage<'a> {
    let (properties, _, rest) = lengths(bytes, offset);
    StoredMessage { properties: &rest[..properties], body: shared, next: 0 }
}

#[inline]
fn lengths(bytes: &[u8], offset: u32) -> (usize, usize, &[u8]) {
    let rest = &bytes[offset as usize..];
    (length(rest, 0), length(rest, 4), &rest[HEAD..])
}

#[inline]
fn length(bytes: &[u8], at: usize) -> usize {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four) as usize
}

/// Bytes before a message's properties.
const HEAD: usize = 8;
