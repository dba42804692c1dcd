//! The properties of a message (0-9-1 spec 1.8): checked, parsed and encoded.
//!
//! Every message is stored with its properties in AMQP 0-9-1's encoding: flags, then the values that these announce. Other
//! protocols and the management API translate to and from it here.
use crate::table::FieldTable;
use crate::wire::read::{Reader, SyntaxError};
use crate::wire::write::short_binary;
use crate::wire::{table, text};

/// The properties of a message (0-9-1 spec 1.8), in the order of their flags. Texts and names of headers may stand for
/// bytes that are not UTF-8: see [`text`](crate::wire::text).
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "the spec's names, all alike")]
pub struct Properties {
    pub content_type: Option<String>,
    pub content_encoding: Option<String>,
    pub headers: Option<FieldTable>,
    pub delivery_mode: Option<u8>,
    pub priority: Option<u8>,
    pub correlation_id: Option<String>,
    pub reply_to: Option<String>,
    pub expiration: Option<String>,
    pub message_id: Option<String>,
    pub timestamp: Option<u64>,
    pub kind: Option<String>,
    pub user_id: Option<String>,
    pub app_id: Option<String>,
    pub cluster_id: Option<String>,
}

/// The type of a property.
#[derive(Clone, Copy, PartialEq)]
enum Type {
    Text,
    Table,
    Octet,
    Time,
}

/// The properties in the order of their flags, from the highest bit on.
const LAYOUT: [(&str, Type); 14] = [
    ("content-type", Type::Text),
    ("content-encoding", Type::Text),
    ("headers", Type::Table),
    ("delivery-mode", Type::Octet),
    ("priority", Type::Octet),
    ("correlation-id", Type::Text),
    ("reply-to", Type::Text),
    ("expiration", Type::Text),
    ("message-id", Type::Text),
    ("timestamp", Type::Time),
    ("type", Type::Text),
    ("user-id", Type::Text),
    ("app-id", Type::Text),
    ("cluster-id", Type::Text),
];

/// Says which properties of a message the broker itself has to look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BrokerProperties {
    /// True if the message has an expiration, or names the user who published it.
    pub by_property: bool,
    /// True if the headers name further recipients (`CC`, `BCC`).
    pub recipients: bool,
}

impl BrokerProperties {
    /// Returns whether the broker need not look at any property of the message.
    #[must_use]
    pub fn is_nothing(self) -> bool {
        !self.by_property && !self.recipients
    }
}

/// Checks that properties are well formed, without building them: consumers will have to read them. Returns which of
/// them the broker has to look at.
///
/// # Errors
/// [`SyntaxError`] naming the property.
pub fn check(raw: &[u8]) -> Result<BrokerProperties, SyntaxError> {
    let mut reader = Reader(raw);
    let flags = flags(&mut reader)?;
    let mut asked = BrokerProperties { by_property: flags & (EXPIRATION | USER_ID) != 0, recipients: false };
    let mut left = flags;
    while left != 0 {
        let at = left.leading_zeros() as usize;
        left &= !(1 << (15 - at));
        let (name, kind) = LAYOUT[at];
        match kind {
            Type::Text => {
                reader.short_bytes(name)?;
            }
            Type::Table => {
                asked.recipients = table::skip(&mut reader, name, |name| matches!(name, b"CC" | b"BCC"))?;
            }
            Type::Octet => {
                reader.u8(name)?;
            }
            Type::Time => {
                reader.u64(name)?;
            }
        }
    }
    if reader.0.is_empty() { Ok(asked) } else { Err(SyntaxError::Malformed("bytes behind the properties")) }
}

/// Returns whether properties have a flag that may mean something to the broker: `headers`, `expiration` or `user-id`.
#[must_use]
pub fn may_concern_broker(raw: &[u8]) -> bool {
    Reader(raw).u16("property flags").is_ok_and(|flags| flags & (HEADERS | EXPIRATION | USER_ID) != 0)
}

fn flags(reader: &mut Reader<'_>) -> Result<u16, SyntaxError> {
    let flags = reader.u16("property flags")?;
    // The lowest bit announces more flags, but no class has that many. The bit above it is not used.
    if flags & 0b11 == 0 { Ok(flags) } else { Err(SyntaxError::Malformed("property flags")) }
}

/// Returns properties without the headers called `name`, and otherwise unchanged byte for byte.
///
/// # Errors
/// [`SyntaxError`] naming the property.
pub fn without_header(raw: &[u8], name: &[u8]) -> Result<Vec<u8>, SyntaxError> {
    let mut reader = Reader(raw);
    let flags = flags(&mut reader)?;
    if flags & HEADERS == 0 {
        return Ok(raw.to_vec());
    }
    for (at, (name, _)) in LAYOUT[..2].iter().enumerate() {
        if flags & 1 << (15 - at) != 0 {
            reader.short_bytes(name)?;
        }
    }
    let mut out = raw[..raw.len() - reader.0.len()].to_vec();
    table::copy_without(&mut out, &mut reader, name)?;
    out.extend_from_slice(reader.0);
    Ok(out)
}

/// The flag of `headers`.
const HEADERS: u16 = 1 << 13;
/// The flag of `expiration`.
const EXPIRATION: u16 = 1 << 8;
/// The flag of `user-id`.
const USER_ID: u16 = 1 << 4;

impl Properties {
    /// Parses flags and list.
    ///
    /// # Errors
    /// [`SyntaxError`] naming the property.
    pub fn parse(raw: &[u8]) -> Result<Self, SyntaxError> {
        check(raw)?;
        let mut reader = Reader(raw);
        let flags = flags(&mut reader)?;
        let mut properties = Self::default();
        for (at, (name, kind)) in LAYOUT.iter().enumerate() {
            if flags & 1 << (15 - at) == 0 {
                continue;
            }
            match kind {
                Type::Table => properties.headers = Some(table::read(&mut reader, name)?),
                Type::Octet => *properties.octet(at) = Some(reader.u8(name)?),
                Type::Time => properties.timestamp = Some(reader.u64(name)?),
                Type::Text => *properties.text(at) = Some(text::from_bytes(reader.short_bytes(name)?)),
            }
        }
        Ok(properties)
    }

    /// Appends flags and list.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut copy = self.clone();
        let at_flags = out.len();
        out.extend([0; 2]);
        let mut flags = 0u16;
        for (at, (_, kind)) in LAYOUT.iter().enumerate() {
            let before = out.len();
            let is_set = match kind {
                Type::Table => self.headers.as_ref().map(|headers| table::encode(out, headers)).is_some(),
                Type::Octet => copy.octet(at).map(|octet| out.push(octet)).is_some(),
                Type::Time => self.timestamp.map(|time| out.extend(time.to_be_bytes())).is_some(),
                Type::Text => copy.text(at).as_ref().map(|text| short_binary(out, text)).is_some(),
            };
            debug_assert!(is_set || out.len() == before);
            flags |= u16::from(is_set) << (15 - at);
        }
        out[at_flags..at_flags + 2].copy_from_slice(&flags.to_be_bytes());
    }

    fn octet(&mut self, at: usize) -> &mut Option<u8> {
        if at == 3 { &mut self.delivery_mode } else { &mut self.priority }
    }

    fn text(&mut self, at: usize) -> &mut Option<String> {
        match at {
            0 => &mut self.content_type,
            1 => &mut self.content_encoding,
            5 => &mut self.correlation_id,
            6 => &mut self.reply_to,
            7 => &mut self.expiration,
            8 => &mut self.message_id,
            10 => &mut self.kind,
            11 => &mut self.user_id,
            12 => &mut self.app_id,
            _ => &mut self.cluster_id,
        }
    }
}
