//! No queue stands still: where a message is ready and a consumer may take it, it is delivered.
use crate::life::Life;
use crate::scenario::Weather;

impl Life<'_> {
    /// Where no read has failed nothing is called unreadable.
    pub(crate) fn all_readable(&self) {
        let failing = [Weather::ReadsFail, Weather::TooManyFiles, Weather::WritesFail];
        let unreadable = self.broker.unreadable();
        if !unreadable.is_empty() && !failing.into_iter().any(|weather| self.has(weather)) {
            self.broken(format!("no read has failed, and there are contents that cannot be read: {unreadable:?}"));
        }
    }

    /// A queue that has something ready for a consumer, whose outputs are empty.
    pub(crate) fn standing_still(&mut self) -> Option<String> {
        self.drained();
        self.consumers.iter().filter(|consumer| consumer.may_take()).find_map(|consumer| {
            let depth = consumer.queue.look(|queue| queue.depth());
            (depth.ready > 0).then(|| {
                let (queue, why) = (&consumer.queue.name, self.broker.unreadable());
                format!("queue {queue} stands still with {depth:?}, and a consumer could take messages: {why:?}")
            })
        })
    }
}
