//! Promise: the messages that one publisher sent to a queue are delivered in that order. It holds for the first delivery of
//! each message in a life.
use crate::checker::{Checker, Number};
use leveret_node::QueueId;

impl Checker {
    /// Checks the first delivery of a message in this life.
    pub(crate) fn delivered_in_order(&mut self, id: QueueId, publisher: usize, number: Number) {
        let Some(held) = self.queues.get_mut(&id) else { return };
        let slot = held.slot;
        if let Some(newer) = held.newest.insert(publisher, number).filter(|newest| *newest > number) {
            self.fail(|| format!("queue {slot} delivered message {number} of publisher {publisher} after {newer}"));
        }
    }
}
