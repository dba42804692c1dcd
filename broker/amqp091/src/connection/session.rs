//! An open connection: its channels, and each read's frames in order.
use super::by_channel::ByChannel;
use super::failure::Failure;
use super::hold::Pace;
use super::output::Output;
use super::reader::End;
use super::turn::{Turn, Turns};
use crate::channel::Channel;
use crate::channel::noted::Noted;
use crate::channel::routes::Routes;
use crate::channel::settle::PendingAcks;
use crate::codec::frame::{self, Frame, Kind};
use crate::codec::{encode, method};
use leveret_node::{Broker, ChannelView, Connection, Outcome, Queue, Settlement};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// What a client told of itself that changes how it is spoken to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Client {
    /// Wants to hear when a queue that it consumes from is gone.
    pub(crate) consumer_cancel_notify: bool,
    /// Wants to hear when it is held back.
    pub(crate) connection_blocked: bool,
}

/// The reader's state of a connection that is open.
pub(crate) struct Session {
    pub(crate) broker: Broker,
    pub(crate) connection: Arc<Connection>,
    pub(crate) vhost: Arc<str>,
    pub(crate) output: Arc<Output>,
    pub(crate) client: Client,
    pub(crate) frame_max: u32,
    channels: ByChannel<Box<Channel>>,
    /// How many there are, those included that wait for the client to agree that they are closed.
    channels_open: u16,
    /// Publishes noted in the read buffer.
    pub(crate) noted: Noted,
    pub(crate) routes: Routes,
    /// Properties of the message before, known to be plain.
    pub(crate) plain_properties: Vec<u8>,
    /// Channels with publishes to confirm.
    pub(crate) to_confirm: Vec<u16>,
    pub(crate) pending_acks: Option<PendingAcks>,
    pub(crate) settlement: Settlement,
    /// A queue published to whose consumers cannot follow.
    pub(crate) outrunning: Option<Arc<Queue>>,
    /// How long it waits for such consumers.
    pub(crate) pace: Pace,
    /// Something was published in this read.
    pub(crate) published: bool,
    /// Bytes that were published and are logged first, since others had their turn.
    pub(crate) logged_bytes: usize,
    /// The client asked to close the connection, and was answered.
    pub(crate) finished: bool,
    /// Frames were left in the buffer, to be handled once the client has read its answers.
    pub(crate) paused: bool,
    /// What was done since the others last had a turn.
    pub(crate) turn: Turn,
}

impl Session {
    pub(crate) fn new(broker: Broker, connection: Arc<Connection>, output: Arc<Output>, client: Client) -> Self {
        Self {
            paused: false,
            turn: Turn::new(broker.clock()),
            vhost: connection.vhost.clone(),
            frame_max: connection.frame_max,
            broker,
            connection,
            output,
            client,
            channels: ByChannel::new(),
            channels_open: 0,
            noted: Noted::default(),
            routes: Routes::default(),
            plain_properties: Vec::new(),
            to_confirm: Vec::new(),
            pending_acks: None,
            settlement: Settlement::default(),
            outrunning: None,
            pace: Pace::default(),
            published: false,
            logged_bytes: 0,
            finished: false,
        }
    }

    /// Handles the complete frames in `buffer`: all, or as many as the client reads the answers to. Returns how many bytes
    /// they were. A buffer may be much work: whether the connection `ended` meanwhile is asked after each turn.
    ///
    /// # Errors
    /// How it ended.
    pub(crate) async fn handle(
        &mut self,
        buffer: &[u8],
        turns: &Turns,
        ended: impl Fn() -> Option<End>,
    ) -> Result<usize, End> {
        let mut at = 0;
        self.turn = Turn::new(self.broker.clock());
        while !self.finished {
            if self.turn.is_worth_a_look() {
                if self.ends_turn(turns).await
                    && let Some(end) = ended()
                {
                    self.hand_over_all(buffer).await?;
                    return Err(end);
                }
                if self.output.is_unread() {
                    self.paused = true;
                    break;
                }
            }
            let frame = match frame::parse(&buffer[at..], self.frame_max) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => {
                    self.hand_over_all(buffer).await?;
                    return Err(Failure::new(error.reply_code(), error.to_string()).into());
                }
            };
            let next = at + frame.len;
            at = match self.frame(buffer, next, &frame).await {
                Ok(next) => next,
                Err(failure) => {
                    self.turn.add(METHOD_WORK);
                    self.hand_over_all(buffer).await?;
                    // One that names its channel is that of a frame before: this one was not looked at yet.
                    let next = if failure.channel.is_some() { at } else { next };
                    self.fail(frame.channel, failure).await?;
                    next
                }
            };
        }
        self.hand_over_all(buffer).await?;
        Ok(at)
    }

    /// Hands over everything that was gathered. The channel whose acknowledgements name no delivery ends.
    async fn hand_over_all(&mut self, buffer: &[u8]) -> Result<(), Failure> {
        match self.flush(buffer).await {
            Ok(()) => Ok(()),
            Err(failure) => self.fail(0, failure).await,
        }
    }

    /// Lets others have their turn when this one is over. Whether it was.
    async fn ends_turn(&mut self, turns: &Turns) -> bool {
        let is_over = self.turn.is_over(self.broker.clock());
        if is_over {
            turns.pass().await;
            self.turn = Turn::new(self.broker.clock());
        }
        is_over
    }

    /// One frame, which ends at `next`. Returns where to go on: further than that if its content was taken too.
    #[inline]
    async fn frame(&mut self, buffer: &[u8], next: usize, frame: &Frame<'_>) -> Result<usize, Failure> {
        let channel = frame.channel;
        match frame.kind {
            Kind::Method => {
                if self.is_in_run(channel, frame.payload) {
                    return self.publish_again(buffer, next, channel).map_err(|failure| failure.caused_by(60, 40));
                }
                if let Some(publish) = method::fast_publish(frame.payload)
                    && self.takes_content(channel)
                {
                    let published = self.publish(buffer, next, channel, (&publish, frame.payload));
                    return published.map_err(|failure| failure.caused_by(60, 40));
                }
                if let Some(ack) = method::fast_ack(frame.payload)
                    && self.takes_content(channel)
                {
                    return self.ack(channel, ack.delivery_tag, ack.multiple).await.map(|()| next);
                }
                self.turn.add(METHOD_WORK);
                self.method(buffer, channel, frame.payload).await?;
            }
            Kind::Header | Kind::Body if channel == 0 => {
                return Err(Failure::new(505, "expected a method on channel 0, got a frame with content"));
            }
            Kind::Header if !self.is_closing(channel) => {
                let taken = self.content_header(channel, frame.payload).await;
                taken.map_err(|failure| failure.caused_by(60, 40))?;
            }
            Kind::Body if !self.is_closing(channel) => {
                let taken = self.content_body(channel, frame.payload).await;
                taken.map_err(|failure| failure.caused_by(60, 40))?;
            }
            Kind::Header | Kind::Body | Kind::Heartbeat => {}
        }
        Ok(next)
    }

    /// Everything that was gathered is handed over; confirms are told last.
    async fn flush(&mut self, buffer: &[u8]) -> Result<(), Failure> {
        self.flush_noted(buffer);
        let settled = self.flush_acks().await;
        if !self.to_confirm.is_empty() {
            let numbers = std::mem::take(&mut self.to_confirm);
            let (channels, output) = (&mut self.channels, &self.output);
            output.write(|state| {
                for &number in &numbers {
                    if let Some(Some(channel)) = channels.get_mut(usize::from(number))
                        && !channel.closing
                    {
                        state.accepted(number, std::mem::take(&mut channel.accepted));
                    }
                }
            });
        }
        settled
    }

    /// A channel that is open and not closing, and expects a method.
    #[inline]
    fn takes_content(&self, channel: u16) -> bool {
        matches!(self.channels.get(usize::from(channel)), Some(Some(open)) if !open.closing && open.assembly.is_none())
    }

    pub(crate) fn is_open(&self, channel: u16) -> bool {
        matches!(self.channels.get(usize::from(channel)), Some(Some(_)))
    }

    pub(crate) fn is_closing(&self, channel: u16) -> bool {
        matches!(self.channels.get(usize::from(channel)), Some(Some(open)) if open.closing)
    }

    /// How many consumers the channels have together.
    pub(crate) fn consumers(&self) -> usize {
        self.channels.values().map(|channel| channel.consumers.len()).sum()
    }

    /// The channel `number`.
    ///
    /// # Errors
    /// 504 when it is not open.
    #[inline]
    pub(crate) fn channel(&mut self, number: u16) -> Result<&mut Channel, Failure> {
        match self.channels.get_mut(usize::from(number)) {
            Some(Some(channel)) => Ok(channel),
            _ => Err(Failure::new(504, format!("expected 'channel.open' on channel {number}, which is not open"))),
        }
    }

    pub(crate) fn open_channel(&mut self, number: u16) -> Result<(), Failure> {
        if self.is_open(number) {
            return Err(Failure::new(504, format!("second 'channel.open' seen on channel {number}")));
        }
        let (open, channel_max) = (self.channels_open, self.connection.channel_max);
        if channel_max != 0 && open >= channel_max {
            let text =
                format!("number of channels opened ({open}) has reached the negotiated channel_max ({channel_max})");
            return Err(Failure::new(530, text));
        }
        let opened = self.broker.count_opened(CHANNEL_BYTES)?;
        self.channels_open += 1;
        self.broker.churn().channels_opened.fetch_add(1, Relaxed);
        let view = Arc::new(ChannelView::default());
        self.connection.channels.lock().insert(number, view.clone());
        *self.channels.place(usize::from(number)) = Some(Box::new(Channel::new(number, view.clone(), opened)));
        self.output.write(|state| {
            state.open_ledger(number, view);
            encode::channel_open_ok(&mut state.buffer, number);
        });
        Ok(())
    }

    /// Ends a channel: its consumers leave, what they had is ready again for others.
    pub(crate) async fn release_channel(&mut self, number: u16) {
        let Ok(channel) = self.channel(number) else { return };
        channel.assembly = None;
        let consumers: Vec<_> = channel.consumers.drain().map(|(_, consumer)| consumer).collect();
        let ledger = self.output.lock().close_ledger(number);
        for consumer in &consumers {
            self.broker.unsubscribe(&consumer.queue, consumer.id);
        }
        if let Some(mut ledger) = ledger {
            let settlement = &mut self.settlement;
            while ledger.take_up_to(u64::MAX, |from, id| settlement.add(from, id, Outcome::Returned)) {
                self.broker.settle(settlement, Outcome::Returned);
                tokio::task::yield_now().await;
            }
        }
        self.broker.settle(&mut self.settlement, Outcome::Returned);
        for consumer in &consumers {
            self.broker.consumer_left(&consumer.queue).await;
        }
        self.connection.channels.lock().remove(&number);
    }

    /// The channel is no more.
    pub(crate) fn forget_channel(&mut self, number: u16) {
        if self.channels.take(usize::from(number)).is_some() {
            self.channels_open -= 1;
            self.broker.churn().channels_closed.fetch_add(1, Relaxed);
        }
    }

    /// Ends what a failure ends: a channel here, the one that it names or else `number`; the connection by passing it on.
    async fn fail(&mut self, number: u16, failure: Failure) -> Result<(), Failure> {
        let number = failure.channel.unwrap_or(number);
        if failure.ends_connection() || self.channel(number).is_err() {
            return Err(failure);
        }
        if self.is_closing(number) {
            return Ok(());
        }
        tracing::debug!(connection = self.connection.name, channel = number, "{}", failure.text);
        self.release_channel(number).await;
        self.output.write(|state| {
            encode::channel_close(&mut state.buffer, number, failure.code, &failure.text, failure.cause);
        });
        self.channel(number)?.closing = true;
        Ok(())
    }

    /// The client is gone: everything that it had open ends.
    pub(crate) async fn release_all(&mut self) {
        let open: Vec<u16> = self.channels.values().map(|channel| channel.number).collect();
        for number in open {
            self.release_channel(number).await;
            self.forget_channel(number);
        }
    }

    /// Consumers whose queue is gone leave their channels.
    pub(crate) fn forget_cancelled(&mut self, number: u16) {
        let Ok(channel) = self.channel(number) else { return };
        let accounts = channel.forget_cancelled();
        if accounts.is_empty() {
            return;
        }
        if let Some(ledger) = self.output.lock().ledger(number) {
            for account in accounts {
                ledger.end(account);
            }
        }
    }
}

/// A method that is no publish and no acknowledgement, or a failure, is worth a look at the clock and at what it has answered.
const METHOD_WORK: u64 = 100;
/// Memory of a channel in bytes, about.
const CHANNEL_BYTES: u64 = 1 << 10;

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
