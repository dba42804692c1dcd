//! The primitive types: integers, short and long strings, read with a bound check each.
use std::fmt;

/// A field that is cut off or not what its type allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub struct SyntaxError(
    /// Name of the field.
    pub &'static str,
);

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed or cut off: {}", self.0)
    }
}

/// What is left to read.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

macro_rules! integer {
    ($($name:ident $type:ty),*) => {$(
        #[inline]
        pub(super) fn $name(&mut self, field: &'static str) -> Result<$type, SyntaxError> {
            let (head, rest) = self.0.split_first_chunk().ok_or(SyntaxError(field))?;
            self.0 = rest;
            Ok(<$type>::from_be_bytes(*head))
        }
    )*};
}

impl<'a> Reader<'a> {
    integer!(u8 u8, u16 u16, u32 u32, u64 u64);

    #[inline]
    pub(super) fn bytes(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], SyntaxError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(SyntaxError(field))?;
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
        std::str::from_utf8(self.short_bytes(field)?).map_err(|_| SyntaxError(field))
    }

    pub(super) fn long_bytes(&mut self, field: &'static str) -> Result<&'a [u8], SyntaxError> {
        let len = self.u32(field)?;
        self.bytes(len as usize, field)
    }
}
