//! Publisher confirms: what is in all its queues, on disk where they are durable, is acknowledged in the order of the
//! publishes, once a batch, with `multiple`.
//!
//! The book of a channel lies in the connection's output, under its lock: the log says from its own task what is durable.
//! A publish that waits for the log has a token; tokens are never used twice on a connection, so one of a channel that was
//! closed means nothing to the channel that has its number now.
use crate::codec::encode;
use std::collections::VecDeque;

/// Publishes of a channel, by the sequence numbers that the client counts too.
#[derive(Debug, Default)]
pub(crate) struct Confirms {
    /// Publishes so far.
    published: u64,
    /// Of these, up to which all are safe.
    safe: u64,
    /// Of these, told to the client.
    told: u64,
    /// Publishes from the first that is not safe on.
    open: VecDeque<Open>,
    /// Token of the first of them.
    first_token: u64,
}

/// Publishes in a row.
#[derive(Debug)]
struct Open {
    /// Sequence number of the last.
    last: u64,
    /// How many logs have not said that they are durable.
    waits_for: u32,
}

impl Confirms {
    /// A channel's book, whose tokens begin at `first_token`.
    pub(crate) fn new(first_token: u64) -> Self {
        Self { first_token, ..Self::default() }
    }

    /// Messages were published: each is in all its queues or was unroutable, but for `waits_for` logs. Returns their token.
    pub(crate) fn published(&mut self, messages: u64, waits_for: u32) -> u64 {
        self.published += messages;
        self.open.push_back(Open { last: self.published, waits_for });
        let token = self.first_token + self.open.len() as u64 - 1;
        self.advance();
        token
    }

    /// One log has what `token` stands for.
    pub(crate) fn confirmed(&mut self, token: u64) {
        let Some(at) = token.checked_sub(self.first_token) else { return };
        if let Some(open) = self.open.get_mut(at as usize) {
            open.waits_for -= 1;
        }
        self.advance();
    }

    /// The token that the next publish has.
    pub(crate) fn next_token(&self) -> u64 {
        self.first_token + self.open.len() as u64
    }

    fn advance(&mut self) {
        while let Some(Open { last, waits_for: 0 }) = self.open.front() {
            self.safe = *last;
            self.open.pop_front();
            self.first_token += 1;
        }
    }

    /// Appends the acknowledgement of all that is safe, if there is something to tell.
    pub(crate) fn tell(&mut self, out: &mut Vec<u8>, channel: u16) {
        let new = self.safe - self.told;
        if new > 0 {
            encode::basic_ack(out, channel, self.safe, new > 1);
            self.told = self.safe;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_is_safe_when_all_logs_and_all_before_it_are() {
        let mut confirms = Confirms::new(5);
        let told = |confirms: &mut Confirms| {
            let mut out = Vec::new();
            confirms.tell(&mut out, 1);
            (!out.is_empty()).then_some(confirms.told)
        };
        let slow = confirms.published(3, 2);
        let quick = confirms.published(1, 1);
        confirms.published(2, 0);
        assert_eq!((slow, quick, told(&mut confirms)), (5, 6, None));
        confirms.confirmed(quick);
        confirms.confirmed(slow);
        confirms.confirmed(3);
        assert_eq!(told(&mut confirms), None);
        confirms.confirmed(slow);
        assert_eq!(told(&mut confirms), Some(6));
        confirms.published(1, 0);
        assert_eq!((told(&mut confirms), confirms.next_token()), (Some(7), 9));
    }
}
