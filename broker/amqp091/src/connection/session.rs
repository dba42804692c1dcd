//! An open connection: the frames of each read in order, each given to the part of the connection that handles it.
//!
//! The session owns the parts and decides their order; a handler receives only the parts that it may change. Publishes
//! and acknowledgements are gathered while a read is handled, and are handed over at its end or before anything else
//! happens.
use super::context::{Capabilities, Context};
use super::failure::{End, Failure};
use super::output::Output;
use super::turn::{Turn, Turns};
use crate::channel::channels::Channels;
use crate::channel::dispatch::{self, Dispatcher};
use crate::channel::publish::{ArrivedFrame, PublishState, Publisher};
use crate::channel::settle::Settler;
use crate::codec::encode;
use crate::codec::frame::{self, Frame, FrameError, FrameKind};
use crate::codec::ids::MethodId;
use crate::codec::method::{self, Method};
use crate::codec::reply::ReplyCode;
use leveret_node::{Broker, Connection, Throttle};
use std::sync::Arc;

/// The reader's state of a connection that is open.
pub(crate) struct Session {
    /// The parts that all handlers may use.
    pub(crate) context: Context,
    /// The channels that are open, or wait for the client to agree that they are closed.
    channels: Channels,
    /// Publishes that were gathered, and data that makes handling further ones fast.
    publishing: PublishState,
    /// Acknowledgements that were gathered.
    settler: Settler,
    /// The work that was done since other tasks last had their turn.
    pub(super) turn: Turn,
    /// The state of the session after the frames that were handled last.
    pub(crate) progress: Progress,
}

/// The state of a session after the frames of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The session handled all complete frames and takes more.
    Open,
    /// Frames were left in the buffer. They are handled once the client has read its answers.
    Paused,
    /// The client asked to close the connection.
    Finished,
}

/// The reason why a sequence of publishes stopped.
enum Stopped<'b> {
    /// The turn is worth a look before any further frame.
    ForLook,
    /// There is no further complete frame.
    AtEnd,
    /// The next frame is malformed.
    AtMalformed(FrameError),
    /// The next frame is not a publish.
    AtOther(Frame<'b>),
    /// The next frame is a publish that failed.
    AtFailed(Frame<'b>, Failure),
}

impl Session {
    pub(crate) fn new(
        broker: Broker,
        connection: Arc<Connection>,
        output: Arc<Output>,
        capabilities: Capabilities,
    ) -> Self {
        Self {
            turn: Turn::new(broker.clock()),
            context: Context { frame_max: connection.frame_max, broker, connection, output, capabilities },
            channels: Channels::new(),
            publishing: PublishState::default(),
            settler: Settler::default(),
            progress: Progress::Open,
        }
    }

    /// Returns the context, and the publishes for which the client may be held back.
    pub(crate) fn throttle(&mut self) -> (&Context, &mut Throttle) {
        (&self.context, &mut self.publishing.throttle)
    }

    /// Returns whether the log's tasks should go first, because much was handed to the log since they last did. If so,
    /// the count begins again.
    pub(crate) fn has_logged_much(&mut self) -> bool {
        let much = self.publishing.logged_bytes >= LOGGED_BYTES;
        if much {
            self.publishing.logged_bytes = 0;
        }
        much
    }

    /// Returns the handler of publishes.
    #[inline]
    fn publisher(&mut self) -> Publisher<'_> {
        let Self { context, channels, publishing: state, turn, .. } = self;
        Publisher { context, channels, turn, state }
    }

    /// Handles the complete frames in `buffer`: all of them, or as many as the client reads the answers to. Returns how
    /// many bytes these were. A buffer may be much work, so `ended` is asked after each turn whether the connection ended
    /// meanwhile.
    ///
    /// # Errors
    /// The way in which the connection ended.
    pub(crate) async fn handle(
        &mut self,
        buffer: &[u8],
        turns: &Turns,
        ended: impl Fn() -> Option<End>,
    ) -> Result<usize, End> {
        let mut at = 0;
        self.progress = Progress::Open;
        self.turn = Turn::new(self.context.broker.clock());
        while self.progress == Progress::Open {
            if self.turn.is_worth_a_look() {
                if self.ends_turn(turns).await
                    && let Some(end) = ended()
                {
                    self.hand_over_all(buffer).await?;
                    return Err(end);
                }
                if self.context.output.is_unread() {
                    self.progress = Progress::Paused;
                    break;
                }
            }
            let (frame, handled) = match self.publishes(buffer, &mut at) {
                Stopped::ForLook => continue,
                Stopped::AtEnd => break,
                Stopped::AtMalformed(error) => {
                    self.hand_over_all(buffer).await?;
                    return Err(Failure::of(error).into());
                }
                Stopped::AtOther(frame) => (frame, self.other_frame(buffer, at + frame.len, &frame).await),
                Stopped::AtFailed(frame, failure) => (frame, Err(failure)),
            };
            at = match handled {
                Ok(next) => next,
                Err(failure) => {
                    self.turn.add(METHOD_WORK);
                    self.hand_over_all(buffer).await?;
                    // A failure that names its channel was caused by an earlier frame; this frame was not handled yet.
                    let next = if failure.channel.is_some() { at } else { at + frame.len };
                    self.fail(frame.channel, failure).await?;
                    next
                }
            };
        }
        self.hand_over_all(buffer).await?;
        Ok(at)
    }

    /// Hands over everything that was gathered. A channel that acknowledged an unknown delivery is closed.
    async fn hand_over_all(&mut self, buffer: &[u8]) -> Result<(), Failure> {
        match self.flush(buffer).await {
            Ok(()) => Ok(()),
            Err(failure) => self.fail(0, failure).await,
        }
    }

    /// Lets other tasks have their turn if this one is over. Returns whether it was.
    async fn ends_turn(&mut self, turns: &Turns) -> bool {
        let is_over = self.turn.is_over(self.context.broker.clock());
        if is_over {
            turns.pass().await;
            self.turn = Turn::new(self.context.broker.clock());
        }
        is_over
    }

    /// Handles publishes, from the frame at the offset `at` on, and moves `at` to the first frame that was not handled.
    /// Most frames of a publisher are publishes, so this loop is kept small and is not async.
    #[inline(never)]
    fn publishes<'b>(&mut self, buffer: &'b [u8], at: &mut usize) -> Stopped<'b> {
        loop {
            let frame = match frame::parse(&buffer[*at..], self.context.frame_max) {
                Ok(Some(frame)) => frame,
                Ok(None) => return Stopped::AtEnd,
                Err(error) => return Stopped::AtMalformed(error),
            };
            *at = match self.publish_frame(buffer, *at + frame.len, &frame) {
                Some(Ok(next)) => next,
                Some(Err(failure)) => return Stopped::AtFailed(frame, failure),
                None => return Stopped::AtOther(frame),
            };
            if self.turn.is_worth_a_look() {
                return Stopped::ForLook;
            }
        }
    }

    /// Handles a frame that ends at `next` if it is a publish, and returns `None` otherwise. Returns the offset to go
    /// on at, which is larger than `next` if the content was handled too.
    #[inline]
    fn publish_frame(&mut self, buffer: &[u8], next: usize, frame: &Frame<'_>) -> Option<Result<usize, Failure>> {
        if frame.kind != FrameKind::Method {
            return None;
        }
        let arrived = ArrivedFrame { buffer, at: next, channel: frame.channel, payload: frame.payload };
        let published = if self.publishing.is_in_run(frame.channel, frame.payload) {
            self.publisher().publish_again(arrived)
        } else {
            let publish = method::fast_publish(frame.payload)?;
            if !self.channels.awaits_method(frame.channel) {
                return None;
            }
            self.publisher().publish(arrived, &publish)
        };
        Some(published.map_err(|failure| failure.caused_by(MethodId::BASIC_PUBLISH)))
    }

    /// Handles a frame that ends at `next` and is not a publish. Returns the offset to go on at.
    #[inline]
    async fn other_frame(&mut self, buffer: &[u8], next: usize, frame: &Frame<'_>) -> Result<usize, Failure> {
        let number = frame.channel;
        let arrived = ArrivedFrame { buffer, at: next, channel: number, payload: frame.payload };
        match frame.kind {
            FrameKind::Method => {
                if let Some(ack) = method::fast_ack(frame.payload)
                    && self.channels.awaits_method(number)
                {
                    let Self { context, settler, turn, .. } = self;
                    return settler.ack(context, turn, number, ack).await.map(|()| next);
                }
                self.turn.add(METHOD_WORK);
                self.method(buffer, number, frame.payload).await?;
            }
            FrameKind::Header | FrameKind::Body if number == 0 => {
                let text = "expected a method on channel 0, got a frame with content";
                return Err(Failure::new(ReplyCode::UnexpectedFrame, text));
            }
            FrameKind::Header if !self.channels.is_closing(number) => {
                let taken = self.publisher().content_header(arrived).await;
                taken.map_err(|failure| failure.caused_by(MethodId::BASIC_PUBLISH))?;
            }
            FrameKind::Body if !self.channels.is_closing(number) => {
                let taken = self.publisher().content_body(arrived).await;
                taken.map_err(|failure| failure.caused_by(MethodId::BASIC_PUBLISH))?;
            }
            FrameKind::Header | FrameKind::Body | FrameKind::Heartbeat => {}
        }
        Ok(next)
    }

    /// Handles a method that is neither a publish nor an acknowledgement, after everything gathered before was handed
    /// over.
    async fn method(&mut self, buffer: &[u8], number: u16, payload: &[u8]) -> Result<(), Failure> {
        self.publisher().flush_batch(buffer);
        let Self { context, channels, settler, turn, .. } = self;
        settler.flush(context, turn).await?;
        if let Ok(channel) = channels.get(number) {
            channel.forget_cancelled(&context.output);
        }
        let id = MethodId::of(payload);
        let method = method::parse(payload).map_err(|error| Failure::of(error).caused_by(error.id()))?;
        let handled = match number {
            0 => self.on_connection(&method),
            _ => Dispatcher { context, channels, settler, turn }.handle(number, method).await,
        };
        handled.map_err(|failure| failure.caused_by(id))
    }

    /// Handles a method on channel 0.
    fn on_connection(&mut self, method: &Method<'_>) -> Result<(), Failure> {
        if let Method::ConnectionClose(method::CloseMethod { code, text }) = method {
            tracing::debug!(connection = self.context.connection.name, code, text, "client closes the connection");
            self.progress = Progress::Finished;
            return Ok(());
        }
        dispatch::on_connection(&self.context, method)
    }

    /// Hands over everything that was gathered; publishers get their confirms last.
    pub(super) async fn flush(&mut self, buffer: &[u8]) -> Result<(), Failure> {
        self.publisher().flush_batch(buffer);
        let Self { context, channels, publishing, settler, turn, .. } = self;
        let settled = settler.flush(context, turn).await;
        publishing.confirms.tell(&context.output, channels);
        settled
    }

    /// Ends the channel that a failure ends: the one that it names, or else `number`.
    ///
    /// # Errors
    /// The failure, if the connection ends with it.
    async fn fail(&mut self, number: u16, failure: Failure) -> Result<(), Failure> {
        let Self { context, channels, settler, .. } = self;
        let number = failure.channel.unwrap_or(number);
        if failure.code.closes_connection() || !channels.is_open(number) {
            return Err(failure);
        }
        if channels.is_closing(number) {
            return Ok(());
        }
        tracing::debug!(connection = context.connection.name, channel = number, "{}", failure.text);
        channels.release(context, settler, number).await;
        context.output.write(|state| {
            let Failure { code, text, cause, .. } = &failure;
            let close = encode::Close { code: *code, text, cause: *cause };
            encode::channel_close(&mut state.buffer, number, &close);
        });
        channels.get(number)?.closing = true;
        Ok(())
    }

    /// Ends everything that the client had open, after its connection has ended.
    pub(crate) async fn release_all(&mut self) {
        let Self { context, channels, settler, .. } = self;
        for number in channels.numbers() {
            channels.release(context, settler, number).await;
            channels.forget(context, number);
        }
    }
}

/// The work of a method other than a publish or an acknowledgement, or of a failure: enough to look at the clock and at
/// how much the client has left unread.
const METHOD_WORK: u64 = 100;
/// As soon as this many bytes were handed to the log, its tasks go first: the bytes are on their way to the disk while
/// the next are read.
const LOGGED_BYTES: usize = 128 << 10;

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
