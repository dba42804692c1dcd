//! Promise: no queue stands still. A message that is ready is delivered if a consumer may take it.
use crate::life::Life;
use crate::scenario::Weather;

impl Life<'_> {
    /// Checks that no contents are reported as unreadable if no read can have failed.
    pub(crate) fn all_readable(&self) {
        let failing = [Weather::ReadsFail, Weather::TooManyFiles, Weather::WritesFail];
        let unreadable = self.broker.unreadable();
        if !unreadable.is_empty() && !failing.into_iter().any(|weather| self.has(weather)) {
            self.broken(format!("no read has failed, but contents are reported as unreadable: {unreadable:?}"));
        }
    }

    /// Empties the outputs of all consumers, and returns a description of a queue that nevertheless has messages ready for
    /// a consumer that may take them.
    pub(crate) fn standing_still(&mut self) -> Option<String> {
        self.drained();
        self.consumers.iter().filter(|consumer| consumer.may_take()).find_map(|consumer| {
            let depth = consumer.queue.look(|queue| queue.depth());
            (depth.ready > 0).then(|| {
                let (queue, why) = (&consumer.queue.name, self.broker.unreadable());
                format!("queue {queue} stands still with {depth:?} although a consumer could take messages: {why:?}")
            })
        })
    }
}
