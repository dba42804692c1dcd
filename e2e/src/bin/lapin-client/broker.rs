//! Shared by all checks: the broker under test, unique names, and short forms of the operations.

use std::fmt::Debug;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::{Stream, StreamExt};
use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::protocol::AMQPError;
use lapin::types::{FieldTable, ShortString};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, Error, ErrorKind, Event, Queue,
    message::Delivery,
};

/// How long an operation may take.
pub(crate) const WAIT: Duration = Duration::from_secs(15);

/// The broker under test. `rabbitmq` says that it is RabbitMQ 3.10: checks then expect its behaviour where that differs.
pub(crate) struct Broker {
    pub(crate) url: String,
    pub(crate) rabbitmq: bool,
    run: u64,
    count: AtomicUsize,
}

impl Broker {
    pub(crate) fn new(url: &str, rabbitmq: bool) -> Self {
        let run = RandomState::new().build_hasher().finish(); // random, so that no other run has the same names
        Self { url: url.to_owned(), rabbitmq, run, count: AtomicUsize::new(0) }
    }

    /// Returns a name that no other check and no other run uses.
    pub(crate) fn name(&self, what: &str) -> String {
        format!("check.{:x}.{}.{what}", self.run, self.count.fetch_add(1, Ordering::Relaxed))
    }

    /// Opens a connection. `query` is appended to the URL, for example `?heartbeat=5`.
    pub(crate) async fn connect(&self, query: &str) -> Result<Connection> {
        Ok(within(
            Connection::connect(&format!("{}{query}", self.url), ConnectionProperties::default()),
            "a connection",
        )
        .await??)
    }

    /// Opens a channel with confirms on a connection of its own.
    pub(crate) async fn channel(&self) -> Result<Session> {
        let connection = self.connect("").await?;
        let channel = open(&connection).await?;
        Ok(Session { connection, channel })
    }

    /// Runs `operation` on a channel, and checks that the broker closes it with this code and a reply text that contains
    /// the words.
    pub(crate) async fn refused(
        &self,
        code: u16,
        words: &[&str],
        operation: impl AsyncFnOnce(&Channel) -> Result<()>,
    ) -> Result<()> {
        let session = self.channel().await?;
        let mut events = Box::pin(session.connection.events_listener());
        let _ = within(operation(&session.channel), "the operation").await?; // it may succeed, as some refusals arrive later
        expect_close(&mut events, code, words).await?;
        session.close().await
    }
}

/// A channel with its connection.
pub(crate) struct Session {
    pub(crate) connection: Connection,
    pub(crate) channel: Channel,
}

impl Session {
    pub(crate) async fn close(self) -> Result<()> {
        if self.connection.status().connected() {
            within(self.connection.close(200, "done".into()), "the close").await??;
        }
        Ok(())
    }
}

impl std::ops::Deref for Session {
    type Target = Channel;
    fn deref(&self) -> &Channel {
        &self.channel
    }
}

/// Waits for the close of a connection or channel, and checks its code and that its text contains the words.
pub(crate) async fn expect_close(
    events: &mut (impl Stream<Item = Event> + Unpin),
    code: u16,
    words: &[&str],
) -> Result<()> {
    let error = within(next_error(events), &format!("a close with {code}")).await??;
    let Some(reason) = protocol_error(&error) else { bail!("ended with {error}, expected {code}") };
    let text = reason.get_message().as_str();
    ensure!(reason.get_id() == code, "closed with {} {text}, expected {code}", reason.get_id());
    for word in words {
        ensure!(text.contains(word), "text {text:?} does not name {word:?}");
    }
    Ok(())
}

async fn next_error(events: &mut (impl Stream<Item = Event> + Unpin)) -> Result<Error> {
    loop {
        if let Event::Error(error) = events.next().await.context("the connection's events ended")? {
            return Ok(error);
        }
    }
}

pub(crate) fn protocol_error(error: &Error) -> Option<&AMQPError> {
    if let ErrorKind::ProtocolError(reason) = error.kind() { Some(reason) } else { None }
}

/// Waits for `operation`, for [`WAIT`] at most.
pub(crate) async fn within<T>(operation: impl Future<Output = T>, what: &str) -> Result<T> {
    tokio::time::timeout(WAIT, operation).await.with_context(|| format!("waited {WAIT:?} for {what}"))
}

pub(crate) fn equal<T: PartialEq<U> + Debug, U: Debug>(got: T, expected: U) -> Result<()> {
    ensure!(got == expected, "got {got:?}, expected {expected:?}");
    Ok(())
}

/// Opens a channel with confirms.
pub(crate) async fn open(connection: &Connection) -> Result<Channel> {
    let channel = within(connection.create_channel(), "a channel").await??;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

pub(crate) async fn declare(channel: &Channel, queue: &str, options: QueueDeclareOptions) -> Result<Queue> {
    Ok(within(channel.queue_declare(queue.into(), options, FieldTable::default()), "queue.declare-ok").await??)
}

/// Declares an exclusive queue that the broker names, and returns the name.
pub(crate) async fn exclusive(channel: &Channel) -> Result<String> {
    Ok(declare(channel, "", QueueDeclareOptions::exclusive()).await?.name().to_string())
}

/// Looks a queue up with a passive declaration.
pub(crate) async fn passive(channel: &Channel, queue: &str) -> Result<Queue> {
    declare(channel, queue, QueueDeclareOptions::default().passive()).await
}

/// Returns the number of ready messages in a queue.
pub(crate) async fn ready(channel: &Channel, queue: &str) -> Result<u32> {
    Ok(passive(channel, queue).await?.message_count())
}

/// Publishes a message to an exchange with a routing key, and waits for the confirm. A message with a message id is
/// mandatory.
pub(crate) async fn publish(
    channel: &Channel,
    to: (&str, &str),
    body: &[u8],
    properties: BasicProperties,
) -> Result<Confirmation> {
    let options = BasicPublishOptions { mandatory: properties.message_id().is_some(), ..Default::default() };
    let confirm = channel.basic_publish(to.0.into(), to.1.into(), options, body, properties).await?;
    Ok(within(confirm, "a confirm").await??)
}

/// Publishes a plain text, and waits for the confirm.
pub(crate) async fn send(channel: &Channel, exchange: &str, key: &str, body: &str) -> Result<()> {
    equal(
        publish(channel, (exchange, key), body.as_bytes(), BasicProperties::default()).await?,
        Confirmation::Ack(None),
    )
}

/// Publishes the texts "0", "1" and so on to a queue.
pub(crate) async fn fill(channel: &Channel, queue: &str, count: usize) -> Result<()> {
    for body in numbers(0, count) {
        send(channel, "", queue, &body).await?;
    }
    Ok(())
}

pub(crate) fn numbers(first: usize, last: usize) -> Vec<String> {
    (first..last).map(|number| number.to_string()).collect()
}

/// Returns the bodies of all messages that are in the queue now, taken with basic.get.
pub(crate) async fn drain(channel: &Channel, queue: &str) -> Result<Vec<String>> {
    let mut bodies = Vec::new();
    while let Some(message) =
        within(channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }), "basic.get").await??
    {
        bodies.push(text(&message.delivery));
    }
    Ok(bodies)
}

pub(crate) fn text(message: &Delivery) -> String {
    String::from_utf8_lossy(&message.data).into_owned()
}

pub(crate) async fn consume(
    channel: &Channel,
    queue: &str,
    tag: &str,
    options: BasicConsumeOptions,
) -> Result<Consumer> {
    let (queue, tag) = (ShortString::from(queue), ShortString::from(tag));
    Ok(within(channel.basic_consume(queue, tag, options, FieldTable::default()), "basic.consume-ok").await??)
}

/// Waits for the next `count` deliveries, and returns them in the order of arrival.
pub(crate) async fn take(consumer: &mut Consumer, count: usize) -> Result<Vec<Delivery>> {
    let mut taken = Vec::with_capacity(count);
    while taken.len() < count {
        let what = format!("{count} deliveries, got {}", taken.len());
        taken.push(within(consumer.next(), &what).await?.context("the consumer ended")??);
    }
    Ok(taken)
}

pub(crate) fn texts(messages: &[Delivery]) -> Vec<String> {
    messages.iter().map(text).collect()
}

/// Returns the body and the redelivered flag of each message.
pub(crate) fn seen(messages: &[Delivery]) -> Vec<String> {
    messages.iter().map(|message| format!("{} {}", text(message), message.redelivered)).collect()
}
