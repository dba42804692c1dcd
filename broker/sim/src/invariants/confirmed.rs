//! Nothing is lost that was confirmed: each such message is delivered, still there, or a client did away with it. Messages are
//! compared by what they are, not by how many.
use crate::checker::{Checker, Held, Number};
use crate::names::is_durable;

impl Held {
    /// What has to be in the queue and has not been seen in this life.
    pub(crate) fn missing(&self) -> impl Iterator<Item = Number> {
        self.messages.iter().filter(|(_, message)| message.is_owed() && !message.seen).map(|(number, _)| *number)
    }
}

impl Checker {
    /// Names of the queues that lack something.
    pub(crate) fn lacking(&self) -> Vec<usize> {
        let lacking = self.living().filter(|(_, held)| !held.doomed && held.missing().next().is_some());
        lacking.map(|(_, held)| held.slot).collect()
    }

    /// The queues are empty: nothing is owed any more.
    pub(crate) fn drained(&mut self) {
        self.drained_if(|_| true);
    }

    /// The queues that do not outlive a restart are.
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
            self.fail(|| format!("queue {slot} lost {count} confirmed messages, {first} first"));
        }
    }
}
