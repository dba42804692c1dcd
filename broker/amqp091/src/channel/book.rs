//! The books of publisher confirms. The book of a channel has its publishes, from the first that is not safe yet.
//!
//! A publish that waits for the log has a token. Tokens are never used twice on a connection, so a token of a channel
//! that was closed means nothing to the channel that has its number now. A publish is safe when all the logs that it
//! waits for have it and all publishes before it are safe.
use crate::codec::encode;
use crate::connection::by_channel::ByChannel;
use std::collections::VecDeque;

/// The books of a connection's channels.
pub(crate) struct Books {
    /// The books by channel number. A channel has one once its client has asked for confirms.
    by_channel: ByChannel<Confirms>,
    /// Tokens below this one were given to channels that are closed.
    next_token: u64,
}

impl Books {
    pub(crate) fn new() -> Self {
        Self { by_channel: ByChannel::new(), next_token: 0 }
    }

    /// Opens the book of a channel, unless it has one.
    pub(crate) fn open(&mut self, channel: u16) {
        self.by_channel.place(usize::from(channel)).get_or_insert_with(|| Confirms::new(self.next_token));
    }

    /// Closes the book of a channel, if it has one.
    pub(crate) fn close(&mut self, channel: u16) {
        if let Some(confirms) = self.by_channel.take(usize::from(channel)) {
            self.next_token = self.next_token.max(confirms.next_token());
        }
    }

    /// Enters `unlogged` publishes that needed no log, and then `messages` that wait for `logs`. Returns the token of the
    /// latter, or `None` if the channel has no book.
    pub(crate) fn published(&mut self, channel: u16, unlogged: u64, messages: u64, logs: u32) -> Option<u64> {
        let confirms = self.find(channel)?;
        if unlogged > 0 {
            confirms.published(unlogged, 0);
        }
        Some(confirms.published(messages, logs))
    }

    /// Enters publishes that needed no log, and appends the acknowledgement of all that are safe to `out`.
    pub(crate) fn published_unlogged(&mut self, channel: u16, messages: u64, out: &mut Vec<u8>) {
        if let Some(confirms) = self.find(channel) {
            confirms.published(messages, 0);
            confirms.tell(out, channel);
        }
    }

    /// Notes that one log has the publishes of `token`, and appends the acknowledgement of all that are now safe to
    /// `out`.
    pub(crate) fn confirmed(&mut self, channel: u16, token: u64, out: &mut Vec<u8>) {
        if let Some(confirms) = self.find(channel) {
            confirms.confirmed(token);
            confirms.tell(out, channel);
        }
    }

    fn find(&mut self, channel: u16) -> Option<&mut Confirms> {
        self.by_channel.get_mut(usize::from(channel))?.as_mut()
    }
}

/// The publishes of a channel, by the sequence numbers that the client counts too.
#[derive(Debug, Default)]
struct Confirms {
    /// The number of publishes so far.
    published: u64,
    /// The sequence number up to which all publishes are safe.
    safe: u64,
    /// The sequence number up to which publishes were confirmed to the client.
    told: u64,
    /// The publishes after the safe ones, in order.
    pending: VecDeque<PendingPublishes>,
    /// The token of the first of the pending publishes.
    first_token: u64,
}

/// Consecutive publishes that share a token.
#[derive(Debug)]
struct PendingPublishes {
    /// The sequence number of the last one.
    last: u64,
    /// The number of logs that have not reported yet that the publishes are durable.
    logs: u32,
}

impl Confirms {
    /// Returns the book of a channel, whose tokens begin at `first_token`.
    fn new(first_token: u64) -> Self {
        Self { first_token, ..Self::default() }
    }

    /// Records `messages` publishes that wait for `logs` logs (0: they are safe already). Returns their token.
    fn published(&mut self, messages: u64, logs: u32) -> u64 {
        self.published += messages;
        self.pending.push_back(PendingPublishes { last: self.published, logs });
        let token = self.first_token + self.pending.len() as u64 - 1;
        self.advance();
        token
    }

    /// Notes that one more log has the publishes of `token`.
    fn confirmed(&mut self, token: u64) {
        let Some(at) = token.checked_sub(self.first_token) else { return };
        if let Some(pending) = self.pending.get_mut(at as usize) {
            pending.logs -= 1;
        }
        self.advance();
    }

    /// Returns the token that the next publish has.
    fn next_token(&self) -> u64 {
        self.first_token + self.pending.len() as u64
    }

    fn advance(&mut self) {
        while let Some(PendingPublishes { last, logs: 0 }) = self.pending.front() {
            self.safe = *last;
            self.pending.pop_front();
            self.first_token += 1;
        }
    }

    /// Appends the acknowledgement of all publishes that are safe and not confirmed to the client yet.
    fn tell(&mut self, out: &mut Vec<u8>, channel: u16) {
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
