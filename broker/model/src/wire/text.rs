//! Short strings that need not be UTF-8: converted to text and back without loss.
//!
//! Clients send Latin-1 or plain bytes as message ids, correlation ids and names of headers, and consumers get the same
//! bytes. If such a string is text inside the broker, each byte that is not part of UTF-8 is one character of a private
//! range: U+10FF00 plus the byte. If a client sends a character of that range itself, each of its bytes becomes such a
//! character, so that no two strings have the same text.

/// Returns the text that stands for `bytes`.
#[must_use]
pub fn from_bytes(bytes: &[u8]) -> String {
    // The UTF-8 form of characters in the private range begins with 0xF4.
    if let Ok(text) = std::str::from_utf8(bytes)
        && !bytes.contains(&0xF4)
    {
        return text.to_owned();
    }
    let mut text = String::with_capacity(bytes.len() * 4);
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match byte_of(character) {
                None => text.push(character),
                Some(_) => character.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| text.push(character_of(byte))),
            }
        }
        chunk.invalid().iter().for_each(|byte| text.push(character_of(*byte)));
    }
    text
}

/// Appends the bytes that `text` stands for: as many whole characters as fit into `bytes_max`.
pub fn to_bytes(out: &mut Vec<u8>, text: &str, bytes_max: usize) {
    let end = out.len() + bytes_max;
    for character in text.chars() {
        let (byte, mut utf8) = (byte_of(character), [0; 4]);
        let bytes = match &byte {
            Some(byte) => std::slice::from_ref(byte),
            None => character.encode_utf8(&mut utf8).as_bytes(),
        };
        if out.len() + bytes.len() > end {
            return;
        }
        out.extend_from_slice(bytes);
    }
}

fn character_of(byte: u8) -> char {
    char::from_u32(PRIVATE + u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn byte_of(character: char) -> Option<u8> {
    u32::from(character).checked_sub(PRIVATE).and_then(|byte| byte.try_into().ok())
}

/// The first character of the private range.
const PRIVATE: u32 = 0x10_FF00;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        to_bytes(&mut out, text, usize::MAX - 1);
        out
    }

    proptest! {
        #[test]
        fn bytes_survive_conversion_to_text(before in prop::collection::vec(any::<u8>(), 0..60)) {
            prop_assert_eq!(bytes(&from_bytes(&before)), before);
        }

        #[test]
        fn utf8_text_is_not_changed(text in "\\PC{0,20}") {
            prop_assert!(text.chars().any(|character| byte_of(character).is_some()) || from_bytes(text.as_bytes()) == text);
        }
    }

    #[test]
    fn no_two_strings_have_the_same_text() {
        let private = character_of(0xE9).to_string();
        assert_ne!(from_bytes(b"\xE9"), from_bytes(private.as_bytes()));
        assert_eq!(bytes(&from_bytes(private.as_bytes())), private.as_bytes());
        assert_eq!(from_bytes("\u{10fffd}".as_bytes()).chars().count(), 4);
    }

    #[test]
    fn text_without_room_is_cut_at_a_character() {
        let mut out = b"x".to_vec();
        to_bytes(&mut out, "a\u{e4}\u{e4}", 4);
        assert_eq!(out, "xa\u{e4}".as_bytes());
    }
}
