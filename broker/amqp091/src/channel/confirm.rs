//! Publisher confirms: a message that is in all its queues, and on the disk for those that are durable, is acknowledged.
//! Acknowledgements keep the order of the publishes; one with `multiple` is sent for each batch.
//!
//! Publishes that need no log are counted by the reader in their channel and confirmed at the end of the read. All
//! publishes of a channel are entered in its book (see [`book`](super::book)). The books are part of the connection's
//! output, under its lock, because the log reports from a task of its own which publishes are durable.
use super::Channel;
use super::channels::Channels;
use crate::connection::output::Output;
use leveret_node::{Confirm, Waiter};
use std::sync::Arc;

/// The channels with publishes that are to be confirmed at the end of the read.
#[derive(Default)]
pub(crate) struct UnconfirmedChannels {
    /// The numbers of the channels, each once.
    channels: Vec<u16>,
}

impl UnconfirmedChannels {
    /// Counts publishes that are about to be handed over to their queues and to the `logs` logs that have to make them
    /// durable. Returns the confirmation that these logs report to, or `None` if there are no logs or if the channel has
    /// no confirms.
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

    /// Enters the publishes that needed no log into the books of their channels, and confirms those that are safe to the
    /// client.
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
