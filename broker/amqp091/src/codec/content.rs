//! The content header frame (0-9-1 spec 4.2.6). Its properties are read and written by `leveret_model::properties`.
use leveret_model::wire::SyntaxError;
use leveret_model::wire::read::Reader;

/// A content header, borrowed from its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentHeader<'a> {
    /// The class of the method before it: 60 for a message.
    pub class: u16,
    /// The size of the body that follows, in bytes.
    pub body_size: u64,
    /// The flags and the list of the properties, as they came.
    pub properties_raw: &'a [u8],
}

impl<'a> ContentHeader<'a> {
    /// Parses the payload of a header frame. The properties are not looked at.
    ///
    /// # Errors
    /// [`SyntaxError`] if it is cut off.
    #[inline]
    pub fn parse(payload: &'a [u8]) -> Result<Self, SyntaxError> {
        let mut reader = Reader(payload);
        let class = reader.u16("class of a content header")?;
        reader.u16("weight of a content header")?;
        let body_size = reader.u64("body size of a content header")?;
        if reader.0.len() < 2 {
            return Err(SyntaxError::Malformed("property flags"));
        }
        Ok(Self { class, body_size, properties_raw: reader.0 })
    }
}
