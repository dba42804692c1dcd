//! Promise: no confirmed message is lost. Each one is delivered, is still in its queue, or was settled by a client.
//! Messages are compared one by one, not only counted.
use crate::checker::{Checker, Held, Number};
use crate::names::is_durable;

impl Held {
    /// Returns the messages that have to be in the queue and have not been delivered in this life.
    pub(crate) fn missing(&self) -> impl Iterator<Item = Number> {
        let missing = self.messages.iter().filter(|(_, message)| message.is_owed() && !message.delivered_in_life);
        missing.map(|(number, _)| *number)
    }
}

impl Checker {
    /// Returns the slots of the queues that lack messages.
    pub(crate) fn lacking(&self) -> Vec<usize> {
        let lacking = self.living().filter(|(_, held)| !held.doomed && held.missing().next().is_some());
        lacking.map(|(_, held)| held.slot).collect()
    }

    /// Checks that no message is owed any more: all queues are empty.
    pub(crate) fn drained(&mut self) {
        self.drained_if(|_| true);
    }

    /// Checks that no message of a transient queue is owed any more.
    pub(crate) fn drained_transient(&mut self) {
        self.drained_if(|slot| !is_durable(slot));
    }

    fn drained_if(&mut self, is: impl Fn(usize) -> bool) {
        let of = |held: &Held| {
            let mut lost = held.messages.iter().filter(|(_, message)| message.is_owed()).map(|(number, _)| *number);
            let first = lost.next()?;
            Some((held.slot, lost.count() + 1, first))
        };
        let drained = self.living().filter(|(_, held)| !held.doomed && is(held.slot));
        let lost: Vec<(usize, usize, Number)> = drained.filter_map(|(_, held)| of(held)).collect();
        for (slot, count, first) in lost {
            self.fail(|| format!("queue {slot} lost {count} confirmed messages; the first is {first}"));
        }
    }
}
