//! Publisher confirms: what has been accepted is acknowledged once a batch, with `multiple`.
use crate::codec::encode;

/// Publishes of a channel, by the sequence numbers that the client counts too.
#[derive(Debug, Default)]
pub(crate) struct Confirms {
    /// Publishes so far.
    published: u64,
    /// Of these, told to the client.
    told: u64,
}

impl Confirms {
    /// Messages were accepted: each is in all its queues, or was unroutable.
    pub(crate) fn accepted(&mut self, messages: u64) {
        self.published += messages;
    }

    /// Appends the acknowledgement of all that was accepted, if there is something to tell.
    pub(crate) fn tell(&mut self, out: &mut Vec<u8>, channel: u16) {
        let new = self.published - self.told;
        if new > 0 {
            encode::basic_ack(out, channel, self.published, new > 1);
            self.told = self.published;
        }
    }
}
