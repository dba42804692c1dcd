//! The primitive types: integers, short and long strings, read with a bound check each.

/// The error in a field, with the field's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyntaxError {
    /// The field is cut off, or its type does not allow its value.
    #[error("malformed or cut off: {0}")]
    Malformed(&'static str),
    /// A name that the broker itself reads is not UTF-8.
    #[error("Malformed UTF-8 in shortstr: {0}")]
    NotUtf8(&'static str),
}

/// Reads one field after the other. The field's name, which each method takes, goes into the error.
#[derive(Clone, Copy)]
pub struct Reader<'a>(
    /// The bytes that were not read yet.
    pub &'a [u8],
);

macro_rules! integer {
    ($($name:ident $type:ty),*) => {$(
        /// Reads an integer.
        ///
        /// # Errors
        /// [`SyntaxError::Malformed`] if it is cut off.
        #[inline]
        pub fn $name(&mut self, field: &'static str) -> Result<$type, SyntaxError> {
            let (head, rest) = self.0.split_first_chunk().ok_or(SyntaxError::Malformed(field))?;
            self.0 = rest;
            Ok(<$type>::from_be_bytes(*head))
        }
    )*};
}

impl<'a> Reader<'a> {
    integer!(u8 u8, u16 u16, u32 u32, u64 u64);

    /// Reads `len` bytes.
    ///
    /// # Errors
    /// [`SyntaxError::Malformed`] if there are fewer.
    #[inline]
    pub fn bytes(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], SyntaxError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(SyntaxError::Malformed(field))?;
        self.0 = rest;
        Ok(head)
    }

    /// Reads a short string, which is up to 255 bytes of any kind.
    ///
    /// # Errors
    /// [`SyntaxError::Malformed`] if it is cut off.
    #[inline]
    pub fn short_bytes(&mut self, field: &'static str) -> Result<&'a [u8], SyntaxError> {
        let len = self.u8(field)?;
        self.bytes(usize::from(len), field)
    }

    /// Reads a short string that has to be UTF-8.
    ///
    /// # Errors
    /// [`SyntaxError`] if it is cut off or is not UTF-8.
    #[inline]
    pub fn short_string(&mut self, field: &'static str) -> Result<&'a str, SyntaxError> {
        std::str::from_utf8(self.short_bytes(field)?).map_err(|_| SyntaxError::NotUtf8(field))
    }

    /// Reads a long string.
    ///
    /// # Errors
    /// [`SyntaxError::Malformed`] if it is cut off.
    pub fn long_bytes(&mut self, field: &'static str) -> Result<&'a [u8], SyntaxError> {
        let len = self.u32(field)?;
        self.bytes(len as usize, field)
    }
}
