//! Promise: a queue delivers only messages that were published to it, with the same bytes, not after they were settled, not
//! to two consumers at the same time, and with the redelivered flag if, and only if, they may have been delivered before.
use crate::checker::{Checker, Number, is_body};
use leveret_node::QueueId;

impl Checker {
    /// Records and checks a delivery, and returns the number of its message, which is settled by the delivery if `no_ack`.
    pub(crate) fn delivery(&mut self, id: QueueId, body: &[u8], redelivered: bool, no_ack: bool) -> Number {
        self.delivered += 1;
        let number = body.first_chunk().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes));
        let Some(held) = self.queues.get_mut(&id).filter(|held| !held.deleted) else {
            self.fail(|| format!("a deleted queue delivered message {number}"));
            return number;
        };
        let slot = held.slot;
        let Some(message) = held.messages.get_mut(&number) else {
            self.fail(|| format!("queue {slot} delivered message {number}, which was never published to it"));
            return number;
        };
        let problem = match &*message {
            message if !is_body(body, number, message.size) => Some("with other bytes than were published"),
            message if message.settled_durably => Some("which was settled durably"),
            message if message.settled_in_life => Some("which was settled before"),
            message if message.unacked => Some("which is with a consumer"),
            message if message.delivered && !redelivered => Some("again without the redelivered flag"),
            message if !message.delivered && message.fresh && redelivered => {
                Some("for the first time, with the redelivered flag")
            }
            _ => None,
        };
        let first = !message.delivered_in_life;
        message.uncertain |= std::mem::take(&mut message.purging);
        (message.delivered_in_life, message.delivered, message.unacked) = (true, true, true);
        let publisher = message.publisher;
        if no_ack {
            held.settle(number);
        }
        if let Some(problem) = problem {
            self.fail(|| format!("queue {slot} delivered message {number}, {problem}"));
        } else if first {
            self.delivered_in_order(id, publisher, number);
        }
        number
    }
}
