//! Publisher confirms: a message that is in all its queues, on disk where they are durable, is acknowledged in the order of
//! the publishes, once for each batch, with `multiple`.
//!
//! Publishes that need no log are counted by the reader in their channel and confirmed at the end of the read
//! ([`Unconfirmed`]). All publishes of a channel are in its book ([`Confirms`]). The books lie in the connection's output,
//! under its lock ([`Books`]), because the log says from its own task which publishes are durable. A publish that waits for
//! the log has a token; tokens are never used twice on a connection, so a token of a channel that was closed means nothing
//! to the channel that has its number now.
use super::Channel;
use super::channels::Channels;
use crate::codec::encode;
use crate::connection::by_channel::ByChannel;
use crate::connection::output::Output;
use leveret_node::{Confirm, Waiter};
use std::collections::VecDeque;
use std::sync::Arc;

/// The channels with publishes that are to be confirmed at the end of the read.
#[derive(Default)]
pub(crate) struct Unconfirmed {
    /// Their numbers, each once.
    channels: Vec<u16>,
}

impl Unconfirmed {
    /// Counts publishes that are about to be handed over to their queues and to the `logs` that have to make them durable.
    /// Returns who is told by these logs: nobody if there are none, or if the channel does not want confirms.
    pub(super) fn published(
        &mut self,
        output: &Arc<Output>,
        channel: &mut Channel,
        messages: u64,
        logs: u32,
    ) -> Option<Waiter> {
        let (number, unlogged) = (channel.number, channel.unlogged.as_mut()?);
        if logs > 0 {
            let before = std::mem::take(unlogged);
            let token = output.lock().confirms.published(number, before, messages, logs)?;
            return Some(Waiter { to: output.clone(), channel: number, token });
        }
        *unlogged += messages;
        if !self.channels.contains(&number) {
            self.channels.push(number);
        }
        None
    }

    /// Enters the publishes that needed no log into the books of their channels, and tells the client which are safe.
    pub(crate) fn tell(&mut self, output: &Output, channels: &mut Channels) {
        if self.channels.is_empty() {
            return;
        }
        let numbers = std::mem::take(&mut self.channels);
        output.write(|state| {
            for number in numbers {
                if let Some(channel) = channels.find(number).filter(|channel| !channel.closing)
                    && let Some(unlogged) = &mut channel.unlogged
                {
                    state.confirms.published_unlogged(number, std::mem::take(unlogged), &mut state.buffer);
                }
            }
        });
    }
}

impl Confirm for Output {
    fn confirmed(&self, channel: u16, token: u64) {
        self.write(|state| state.confirms.confirmed(channel, token, &mut state.buffer));
    }
}

/// The books of a connection's channels.
pub(crate) struct Books {
    /// The books by channel number; a channel has one once its client asked for confirms.
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
    fn published(&mut self, channel: u16, unlogged: u64, messages: u64, logs: u32) -> Option<u64> {
        let confirms = self.find(channel)?;
        if unlogged > 0 {
            confirms.published(unlogged, 0);
        }
        Some(confirms.published(messages, logs))
    }

    /// Enters publishes that needed no log, and appends the acknowledgement of all that are safe to `out`.
    fn published_unlogged(&mut self, channel: u16, messages: u64, out: &mut Vec<u8>) {
        if let Some(confirms) = self.find(channel) {
            confirms.published(messages, 0);
            confirms.tell(out, channel);
        }
    }

    /// Notes that one log has the publishes of `token`, and appends the acknowledgement of all that are safe now to `out`.
    fn confirmed(&mut self, channel: u16, token: u64, out: &mut Vec<u8>) {
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
    /// The sequence number up to which the client was told.
    told: u64,
    /// The publishes from the first that is not safe on.
    pending: VecDeque<Pending>,
    /// The token of the first of them.
    first_token: u64,
}

/// Publishes in a row that share a token.
#[derive(Debug)]
struct Pending {
    /// The sequence number of the last one.
    last: u64,
    /// The number of logs that have not said yet that the publishes are durable.
    logs: u32,
}

impl Confirms {
    /// Returns the book of a channel, whose tokens begin at `first_token`.
    fn new(first_token: u64) -> Self {
        Self { first_token, ..Self::default() }
    }

    /// Records `messages` publishes that still wait for `logs` logs (0: they are safe already). Returns their token.
    fn published(&mut self, messages: u64, logs: u32) -> u64 {
        self.published += messages;
        self.pending.push_back(Pending { last: self.published, logs });
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
        while let Some(Pending { last, logs: 0 }) = self.pending.front() {
            self.safe = *last;
            self.pending.pop_front();
            self.first_token += 1;
        }
    }

    /// Appends the acknowledgement of all publishes that are safe, if the client was not told yet.
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
