//! The primitive types: integers, short and long strings, read with a bound check each.

/// What is wrong with a field, by the field's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyntaxError {
    /// It is cut off, or not what its type allows.
    #[error("malformed or cut off: {0}")]
    Malformed(&'static str),
    /// A name that the broker itself reads is not UTF-8.
    #[error("Malformed UTF-8 in shortstr: {0}")]
    NotUtf8(&'static str),
}

/// What is left to read.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

macro_rules! integer {
    ($($name:ident $type:ty),*) => {$(
        #[inline]
        pub(super) fn $name(&mut self, field: &'static str) -> Result<$type, SyntaxError> {
            let (head, rest) = self.0.split_first_chunk().ok_or(SyntaxError::Malformed(field))?;
            self.0 = rest;
            Ok(<$type>::from_be_bytes(*head))
        }
    )*};
}

impl<'a> Reader<'a> {
    integer!(u8 u8, u16 u16, u32 u32, u64 u64);

    #[inline]
    pub(super) fn bytes(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], SyntaxError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(SyntaxError::Malformed(field))?;
        self.0 = rest;
        Ok(head)
    }

    /// Up to 255 bytes of any kind.
    #[inline]
    pub(super) fn short_bytes(&mut self, field: &'static str) -> Result<&'a [u8], SyntaxError> {
        let len = self.u8(field)?;
        self.bytes(usize::from(len), field)
    }

    /// Up to 255 bytes of UTF-8.
    #[inline]
    pub(super) fn short_string(&mut self, field: &'static str) -> Result<&'a str, SyntaxError> {
        std::str::from_utf8(self.short_bytes(field)?).map_err(|_| SyntaxError::NotUtf8(field))
    }

    pub(super) fn long_bytes(&mut self, field: &'static str) -> Result<&'a [u8], SyntaxError> {
        let len = self.u32(field)?;
        self.bytes(len as usize, field)
    }
}
