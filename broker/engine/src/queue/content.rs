//! Messages on their way into a queue, described by the positions of their bytes in the buffer in which they arrived.
use bytes::Bytes;

/// Messages with one exchange and routing key, in the order of their arrival.
#[derive(Clone, Copy)]
pub struct Publish<'a> {
    /// The name of the exchange that the messages were published to, at most 255 bytes.
    pub exchange: &'a [u8],
    /// The routing key of the messages, at most 255 bytes.
    pub routing_key: &'a [u8],
    /// The buffer that contains properties and inline bodies.
    pub bytes: &'a [u8],
    /// The messages.
    pub messages: &'a [Extent],
}

/// One message: properties and body.
#[derive(Clone, Debug)]
pub struct Extent {
    /// The offset of the properties (encoded flags and list) in the buffer.
    pub properties_at: u32,
    /// The length of the properties in bytes.
    pub properties_len: u32,
    /// The body.
    pub body: Body,
}

/// A message's body.
#[derive(Clone, Debug)]
pub enum Body {
    /// A range of the buffer, which is copied into the queue.
    Inline {
        /// The offset of the body in the buffer.
        at: u32,
        /// The length of the body in bytes.
        len: u32,
    },
    /// A large body in memory of its own, which is shared and not copied.
    Shared(Bytes),
}

impl Body {
    /// Returns the length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Body::Inline { len, .. } => *len as usize,
            Body::Shared(bytes) => bytes.len(),
        }
    }

    /// Returns whether the body is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a> Publish<'a> {
    pub(super) fn properties(&self, message: &Extent) -> &'a [u8] {
        let at = message.properties_at as usize;
        &self.bytes[at..at + message.properties_len as usize]
    }
}
