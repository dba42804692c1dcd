//! The primitive types as they are written: short and long strings, the twins of those in `read`.
use super::text;

/// Appends a short string. A text of more than 255 bytes is cut at a character.
pub fn short_string(out: &mut Vec<u8>, text: &str) {
    short_bytes(out, &text.as_bytes()[..text.floor_char_boundary(255)]);
}

/// Appends the short string, which need not be UTF-8, that `text` stands for (see `text`). More than 255 bytes are cut at a
/// character.
pub fn short_binary(out: &mut Vec<u8>, text: &str) {
    let at = out.len();
    out.push(0);
    text::to_bytes(out, text, 255);
    out[at] = (out.len() - at - 1) as u8;
}

/// Appends a short string of at most 255 bytes.
pub fn short_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(bytes.len() as u8);
    out.extend_from_slice(bytes);
}

/// Appends a long string.
pub fn long_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}
