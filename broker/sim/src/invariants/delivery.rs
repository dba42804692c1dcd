//! A delivery is one of what was published to its queue: with those bytes, not settled before, to nobody else at the time, and
//! with the redelivered flag if, and only if, it may have been delivered before.
use crate::checker::{Checker, Number, is_body};
use leveret_node::QueueId;

impl Checker {
    /// A delivery of a queue; `no_ack`: it is settled with that. Its number.
    pub(crate) fn delivery(&mut self, id: QueueId, body: &[u8], redelivered: bool, no_ack: bool) -> Number {
        self.delivered += 1;
        let number = body.first_chunk().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes));
        let Some(held) = self.queues.get_mut(&id).filter(|held| !held.deleted) else {
            self.fail(|| format!("a queue that is deleted delivered message {number}"));
            return number;
        };
        let slot = held.slot;
        let Some(message) = held.messages.get_mut(&number) else {
            self.fail(|| format!("queue {slot} delivered message {number}, which was never published to it"));
            return number;
        };
        let problem = match &*message {
            message if !is_body(body, number, message.size) => Some("with other bytes than were published"),
            message if message.gone => Some("which was settled durably"),
            message if message.ended_now => Some("which was settled before"),
            message if message.out => Some("twice at a time"),
            message if message.ever && !redelivered => Some("again without the redelivered flag"),
            message if !message.ever && message.fresh && redelivered => {
                Some("for the first time, with the redelivered flag")
            }
            _ => None,
        };
        let first = !message.seen;
        message.excused |= std::mem::take(&mut message.purging);
        (message.seen, message.ever, message.out) = (true, true, true);
        let publisher = message.publisher;
        if no_ack {
            held.end(number);
        }
        if let Some(problem) = problem {
            self.fail(|| format!("queue {slot} delivered message {number}, {problem}"));
        } else if first {
            self.delivered_in_order(id, publisher, number);
        }
        number
    }
}
