//! What nodes ask each other, and the replies.
//!
//! Format: a question is `version u8 = 1, kind u8` and what belongs to its kind: 1 report (nothing follows), 2 join
//! `address`, 3 add `address`, 4 remove `node u64`, 5 hand over (nothing follows). A reply is `version u8 = 1, kind u8`: 1
//! report (as `report` describes), 2 done, 3 refused `reason`, 4 elsewhere `address`. Texts have their length (u16) before
//! them, integers are little-endian.
use super::founders::{put_text, take_text};
use super::report::NodeReport;
use bytes::{Buf, BufMut, Bytes};
use std::time::Duration;

/// What one node asks another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ClusterQuestion {
    /// What do you report of yourself?
    Report,
    /// The asking node, which others reach at this address, wants to become a member.
    Join(String),
    /// The node at this address shall become a member.
    Add(String),
    /// This member shall not be one any more.
    Remove(u64),
    /// Let other nodes lead the groups that you lead, and lead none for a while.
    HandOver,
}

/// The reply to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ClusterReply {
    Report(Box<NodeReport>),
    Done,
    /// The text is the reason.
    Refused(String),
    /// The node that leads group 0 can be asked at this address. It is empty if that is not known.
    Elsewhere(String),
}

impl ClusterQuestion {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = vec![VERSION];
        match self {
            Self::Report => out.put_u8(1),
            Self::Join(address) => put(&mut out, 2, address),
            Self::Add(address) => put(&mut out, 3, address),
            Self::Remove(node) => {
                out.put_u8(4);
                out.put_u64_le(*node);
            }
            Self::HandOver => out.put_u8(5),
        }
        out.into()
    }

    /// Decodes a question; returns `None` if it has another version or is malformed.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, mut rest) = kind(bytes)?;
        let question = match kind {
            1 => Self::Report,
            2 => Self::Join(take_text(&mut rest)?),
            3 => Self::Add(take_text(&mut rest)?),
            4 => Self::Remove(rest.try_get_u64_le().ok()?),
            5 => Self::HandOver,
            _ => return None,
        };
        rest.is_empty().then_some(question)
    }
}

impl ClusterReply {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = vec![VERSION];
        match self {
            Self::Report(report) => {
                out.put_u8(1);
                out.extend(report.encode());
            }
            Self::Done => out.put_u8(2),
            Self::Refused(reason) => put(&mut out, 3, reason),
            Self::Elsewhere(address) => put(&mut out, 4, address),
        }
        out.into()
    }

    /// Decodes a reply; returns `None` if it has another version or is malformed.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, mut rest) = kind(bytes)?;
        let reply = match kind {
            1 => return NodeReport::decode(rest).map(|report| Self::Report(Box::new(report))),
            2 => Self::Done,
            3 => Self::Refused(take_text(&mut rest)?),
            4 => Self::Elsewhere(take_text(&mut rest)?),
            _ => return None,
        };
        rest.is_empty().then_some(reply)
    }
}

fn put(out: &mut Vec<u8>, kind: u8, text: &str) {
    out.put_u8(kind);
    put_text(out, text);
}

fn kind(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (&version, rest) = bytes.split_first()?;
    let (&kind, rest) = rest.split_first()?;
    (version == VERSION).then_some((kind, rest))
}

const VERSION: u8 = 1;
/// The longest time that a node may take to report.
pub(super) const REPORT_MAX: Duration = Duration::from_secs(3);
/// The longest time that a change of the members may take.
pub(super) const CHANGE_MAX: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_replies_are_decoded_and_malformed_ones_refused() {
        let text = "a:1".to_owned();
        use ClusterQuestion::{Add, HandOver, Join, Remove, Report};
        for question in [Report, Join(text.clone()), Add(text.clone()), Remove(u64::MAX), HandOver] {
            let bytes = question.encode();
            assert_eq!(ClusterQuestion::decode(&bytes), Some(question));
            (0..bytes.len()).for_each(|len| assert_eq!(ClusterQuestion::decode(&bytes[..len]), None));
            assert_eq!(ClusterQuestion::decode(&[&bytes[..], b"x"].concat()), None);
        }
        use ClusterReply::{Done, Elsewhere, Refused};
        let report = ClusterReply::Report(Box::new(NodeReport { name: text.clone(), ..NodeReport::default() }));
        for reply in [report, Done, Refused(text.clone()), Elsewhere(text)] {
            let bytes = reply.encode();
            assert_eq!(ClusterReply::decode(&bytes), Some(reply));
            (0..bytes.len()).for_each(|len| assert_eq!(ClusterReply::decode(&bytes[..len]), None));
        }
        assert_eq!(ClusterQuestion::decode(&[1, 9]), None);
        assert_eq!(ClusterReply::decode(&[2, 2]), None);
    }
}
