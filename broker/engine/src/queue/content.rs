//! Messages on their way into a queue: where their bytes lie in the buffer that they arrived in.
use bytes::Bytes;

/// Messages with one exchange and routing key, in the order of their arrival.
#[derive(Clone, Copy)]
pub struct Publish<'a> {
    /// Name of the exchange they were published to, at most 255 bytes.
    pub exchange: &'a [u8],
    /// Their routing key, at most 255 bytes.
    pub routing_key: &'a [u8],
    /// The buffer that properties and inline bodies lie in.
    pub bytes: &'a [u8],
    /// The messages.
    pub messages: &'a [Extent],
}

/// One message: properties and body.
#[derive(Clone, Debug)]
pub struct Extent {
    /// Where the properties (encoded flags and list) begin in the buffer.
    pub properties_at: u32,
    /// Their length in bytes.
    pub properties_len: u32,
    /// The body.
    pub body: Body,
}

/// A message's body.
#[derive(Clone, Debug)]
pub enum Body {
    /// A range of the buffer: copied into the queue.
    Inline {
        /// Where it begins.
        at: u32,
        /// Its length in bytes.
        len: u32,
    },
    /// A large body in memory of its own: shared, not copied.
    Shared(Bytes),
}

impl Body {
    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Body::Inline { len, .. } => *len as usize,
            Body::Shared(bytes) => bytes.len(),
        }
    }

    /// Whether the body has no bytes.
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
