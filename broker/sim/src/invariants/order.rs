//! What one publisher sent to a queue is delivered in that order: the first deliveries of a life are.
use crate::checker::{Checker, Number};
use leveret_node::QueueId;

impl Checker {
    /// A message is delivered for the first time in this life.
    pub(crate) fn delivered_in_order(&mut self, id: QueueId, publisher: usize, number: Number) {
        let Some(held) = self.queues.get_mut(&id) else { return };
        let slot = held.slot;
        if let Some(newer) = held.newest.insert(publisher, number).filter(|newest| *newest > number) {
            self.fail(|| format!("queue {slot} delivered message {number} of publisher {publisher} after {newer}"));
        }
    }
}
