//! Methods that clients send, parsed from the payload of a method frame (0-9-1 spec 1.4 and RabbitMQ's extensions).
use super::read::{Reader, SyntaxError};
use super::table;
use leveret_model::table::FieldTable;

/// A method, its names borrowed from the read buffer. Reserved fields are skipped.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the spec's names")]
pub enum Method<'a> {
    ConnectionStartOk {
        client_properties: FieldTable,
        mechanism: &'a str,
        response: &'a [u8],
        locale: &'a str,
    },
    ConnectionSecureOk {
        response: &'a [u8],
    },
    ConnectionTuneOk {
        channel_max: u16,
        frame_max: u32,
        heartbeat: u16,
    },
    ConnectionOpen {
        vhost: &'a str,
    },
    ConnectionClose {
        code: u16,
        text: &'a str,
    },
    ConnectionCloseOk,
    ConnectionBlocked {
        reason: &'a str,
    },
    ConnectionUnblocked,
    ConnectionUpdateSecret {
        secret: &'a [u8],
        reason: &'a str,
    },
    ChannelOpen,
    ChannelFlow {
        active: bool,
    },
    ChannelFlowOk {
        active: bool,
    },
    ChannelClose {
        code: u16,
        text: &'a str,
    },
    ChannelCloseOk,
    /// Clients of AMQP 0-8 ask for a ticket first.
    AccessRequest,
    ExchangeDeclare(ExchangeDeclare<'a>),
    ExchangeDelete {
        exchange: &'a str,
        if_unused: bool,
        no_wait: bool,
    },
    ExchangeBind(ExchangeBinding<'a>),
    ExchangeUnbind(ExchangeBinding<'a>),
    QueueDeclare(QueueDeclare<'a>),
    QueueBind(QueueBinding<'a>),
    QueueUnbind(QueueBinding<'a>),
    QueuePurge {
        queue: &'a str,
        no_wait: bool,
    },
    QueueDelete {
        queue: &'a str,
        if_unused: bool,
        if_empty: bool,
        no_wait: bool,
    },
    BasicQos {
        prefetch_size: u32,
        prefetch_count: u16,
        global: bool,
    },
    BasicConsume(BasicConsume<'a>),
    BasicCancel {
        consumer_tag: &'a str,
        no_wait: bool,
    },
    BasicCancelOk {
        consumer_tag: &'a str,
    },
    BasicPublish(Publish<'a>),
    BasicGet {
        queue: &'a str,
        no_ack: bool,
    },
    BasicAck(Ack),
    BasicNack {
        delivery_tag: u64,
        multiple: bool,
        requeue: bool,
    },
    BasicReject {
        delivery_tag: u64,
        requeue: bool,
    },
    BasicRecover {
        requeue: bool,
    },
    BasicRecoverAsync {
        requeue: bool,
    },
    TxSelect,
    TxCommit,
    TxRollback,
    ConfirmSelect {
        no_wait: bool,
    },
}

/// `exchange.declare`
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the spec's names")]
pub struct ExchangeDeclare<'a> {
    pub exchange: &'a str,
    pub kind: &'a str,
    pub passive: bool,
    pub durable: bool,
    pub auto_delete: bool,
    pub internal: bool,
    pub no_wait: bool,
    pub arguments: FieldTable,
}

/// `exchange.bind`, `exchange.unbind`
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the spec's names")]
pub struct ExchangeBinding<'a> {
    pub destination: &'a str,
    pub source: &'a str,
    pub routing_key: &'a [u8],
    pub no_wait: bool,
    pub arguments: FieldTable,
}

/// `queue.declare`
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the spec's names")]
pub struct QueueDeclare<'a> {
    pub queue: &'a str,
    pub passive: bool,
    pub durable: bool,
    pub exclusive: bool,
    pub auto_delete: bool,
    pub no_wait: bool,
    pub arguments: FieldTable,
}

/// `queue.bind`, `queue.unbind` (which has no `no_wait`)
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the spec's names")]
pub struct QueueBinding<'a> {
    pub queue: &'a str,
    pub exchange: &'a str,
    pub routing_key: &'a [u8],
    pub no_wait: bool,
    pub arguments: FieldTable,
}

/// `basic.consume`
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the spec's names")]
pub struct BasicConsume<'a> {
    pub queue: &'a str,
    pub consumer_tag: &'a str,
    pub no_local: bool,
    pub no_ack: bool,
    pub exclusive: bool,
    pub no_wait: bool,
    pub arguments: FieldTable,
}

/// `basic.publish`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the spec's names")]
pub struct Publish<'a> {
    pub exchange: &'a str,
    pub routing_key: &'a [u8],
    pub mandatory: bool,
    pub immediate: bool,
}

/// `basic.ack`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the spec's names")]
pub struct Ack {
    pub delivery_tag: u64,
    pub multiple: bool,
}

/// Why a payload is no method that a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A field is malformed: 502, or 501 where UTF-8 is meant.
    #[error("{0} of method {1}.{2}")]
    Syntax(SyntaxError, u16, u16),
    /// No such class or method, or not one for clients to send: 540.
    #[error("unknown class or method {0}.{1}")]
    Unknown(u16, u16),
}

impl Error {
    /// The spec's reply code.
    #[must_use]
    pub fn reply_code(&self) -> u16 {
        match self {
            Self::Syntax(error, ..) => error.reply_code(),
            Self::Unknown(..) => 540,
        }
    }

    /// Class and method, as far as they could be read.
    #[must_use]
    pub fn ids(&self) -> (u16, u16) {
        match *self {
            Self::Syntax(_, class, method) | Self::Unknown(class, method) => (class, method),
        }
    }
}

/// Class and method of a method frame's payload.
#[must_use]
pub fn ids(payload: &[u8]) -> (u16, u16) {
    match payload {
        [c0, c1, m0, m1, ..] => (u16::from_be_bytes([*c0, *c1]), u16::from_be_bytes([*m0, *m1])),
        _ => (0, 0),
    }
}

/// Parses the payload of a method frame.
///
/// # Errors
/// [`Error`], all of which end the connection.
pub fn parse(payload: &[u8]) -> Result<Method<'_>, Error> {
    let (class, method) = ids(payload);
    let Some(arguments) = payload.get(4..) else {
        return Err(Error::Syntax(SyntaxError::Malformed("class and method"), class, method));
    };
    let mut reader = Reader(arguments);
    let parsed = match class {
        10 => connection(method, &mut reader),
        20 => channel(method, &mut reader),
        30 if method == 10 => Ok(Some(Method::AccessRequest)),
        40 => exchange(method, &mut reader),
        50 => queue(method, &mut reader),
        60 => basic(method, &mut reader),
        85 if method == 10 => flags(&mut reader).map(|bits| Some(Method::ConfirmSelect { no_wait: bits & 1 != 0 })),
        90 => Ok(match method {
            10 => Some(Method::TxSelect),
            20 => Some(Method::TxCommit),
            30 => Some(Method::TxRollback),
            _ => None,
        }),
        _ => Ok(None),
    };
    match parsed {
        Ok(Some(method)) => Ok(method),
        Ok(None) => Err(Error::Unknown(class, method)),
        Err(error) => Err(Error::Syntax(error, class, method)),
    }
}

/// The payload as `basic.publish`, if it is a well-formed one.
#[inline]
#[must_use]
pub fn fast_publish(payload: &[u8]) -> Option<Publish<'_>> {
    let arguments = payload.strip_prefix(&[0, 60, 0, 40])?;
    publish(&mut Reader(arguments)).ok()
}

/// The payload as `basic.ack`, if it is a well-formed one.
#[inline]
#[must_use]
pub fn fast_ack(payload: &[u8]) -> Option<Ack> {
    let arguments = payload.strip_prefix(&[0, 60, 0, 80])?;
    ack(&mut Reader(arguments)).ok()
}

type Parsed<'a> = Result<Option<Method<'a>>, SyntaxError>;

fn flags(reader: &mut Reader<'_>) -> Result<u8, SyntaxError> {
    reader.u8("flags")
}

fn connection<'a>(method: u16, reader: &mut Reader<'a>) -> Parsed<'a> {
    Ok(Some(match method {
        11 => Method::ConnectionStartOk {
            client_properties: table::read(reader, "client-properties")?,
            mechanism: reader.short_string("mechanism")?,
            response: reader.long_bytes("response")?,
            locale: reader.short_string("locale")?,
        },
        21 => Method::ConnectionSecureOk { response: reader.long_bytes("response")? },
        31 => Method::ConnectionTuneOk {
            channel_max: reader.u16("channel-max")?,
            frame_max: reader.u32("frame-max")?,
            heartbeat: reader.u16("heartbeat")?,
        },
        40 => Method::ConnectionOpen { vhost: reader.short_string("virtual-host")? },
        50 => {
            let (code, text) = close(reader)?;
            Method::ConnectionClose { code, text }
        }
        51 => Method::ConnectionCloseOk,
        60 => Method::ConnectionBlocked { reason: reader.short_string("reason")? },
        61 => Method::ConnectionUnblocked,
        70 => Method::ConnectionUpdateSecret {
            secret: reader.long_bytes("new-secret")?,
            reason: reader.short_string("reason")?,
        },
        _ => return Ok(None),
    }))
}

fn close<'a>(reader: &mut Reader<'a>) -> Result<(u16, &'a str), SyntaxError> {
    let close = (reader.u16("reply-code")?, reader.short_string("reply-text")?);
    reader.u32("class-id and method-id")?;
    Ok(close)
}

fn channel<'a>(method: u16, reader: &mut Reader<'a>) -> Parsed<'a> {
    Ok(Some(match method {
        10 => Method::ChannelOpen,
        20 => Method::ChannelFlow { active: flags(reader)? & 1 != 0 },
        21 => Method::ChannelFlowOk { active: flags(reader)? & 1 != 0 },
        40 => {
            let (code, text) = close(reader)?;
            Method::ChannelClose { code, text }
        }
        41 => Method::ChannelCloseOk,
        _ => return Ok(None),
    }))
}

fn exchange<'a>(method: u16, reader: &mut Reader<'a>) -> Parsed<'a> {
    reader.u16("reserved-1")?;
    Ok(Some(match method {
        10 => {
            let (exchange, kind) = (reader.short_string("exchange")?, reader.short_string("type")?);
            let bits = flags(reader)?;
            let [passive, durable, auto_delete, internal, no_wait] = [1, 2, 4, 8, 16].map(|bit| bits & bit != 0);
            let arguments = table::read(reader, "arguments")?;
            Method::ExchangeDeclare(ExchangeDeclare {
                exchange,
                kind,
                passive,
                durable,
                auto_delete,
                internal,
                no_wait,
                arguments,
            })
        }
        20 => {
            let exchange = reader.short_string("exchange")?;
            let bits = flags(reader)?;
            Method::ExchangeDelete { exchange, if_unused: bits & 1 != 0, no_wait: bits & 2 != 0 }
        }
        30 => Method::ExchangeBind(exchange_binding(reader)?),
        40 => Method::ExchangeUnbind(exchange_binding(reader)?),
        _ => return Ok(None),
    }))
}

fn exchange_binding<'a>(reader: &mut Reader<'a>) -> Result<ExchangeBinding<'a>, SyntaxError> {
    Ok(ExchangeBinding {
        destination: reader.short_string("destination")?,
        source: reader.short_string("source")?,
        routing_key: reader.short_bytes("routing-key")?,
        no_wait: flags(reader)? & 1 != 0,
        arguments: table::read(reader, "arguments")?,
    })
}

fn queue<'a>(method: u16, reader: &mut Reader<'a>) -> Parsed<'a> {
    reader.u16("reserved-1")?;
    let queue = reader.short_string("queue")?;
    Ok(Some(match method {
        10 => {
            let bits = flags(reader)?;
            let [passive, durable, exclusive, auto_delete, no_wait] = [1, 2, 4, 8, 16].map(|bit| bits & bit != 0);
            let arguments = table::read(reader, "arguments")?;
            Method::QueueDeclare(QueueDeclare { queue, passive, durable, exclusive, auto_delete, no_wait, arguments })
        }
        20 => Method::QueueBind(queue_binding(reader, queue, true)?),
        50 => Method::QueueUnbind(queue_binding(reader, queue, false)?),
        30 => Method::QueuePurge { queue, no_wait: flags(reader)? & 1 != 0 },
        40 => {
            let bits = flags(reader)?;
            let [if_unused, if_empty, no_wait] = [1, 2, 4].map(|bit| bits & bit != 0);
            Method::QueueDelete { queue, if_unused, if_empty, no_wait }
        }
        _ => return Ok(None),
    }))
}

fn queue_binding<'a>(
    reader: &mut Reader<'a>,
    queue: &'a str,
    has_no_wait: bool,
) -> Result<QueueBinding<'a>, SyntaxError> {
    Ok(QueueBinding {
        queue,
        exchange: reader.short_string("exchange")?,
        routing_key: reader.short_bytes("routing-key")?,
        no_wait: has_no_wait && flags(reader)? & 1 != 0,
        arguments: table::read(reader, "arguments")?,
    })
}

fn basic<'a>(method: u16, reader: &mut Reader<'a>) -> Parsed<'a> {
    Ok(Some(match method {
        10 => Method::BasicQos {
            prefetch_size: reader.u32("prefetch-size")?,
            prefetch_count: reader.u16("prefetch-count")?,
            global: flags(reader)? & 1 != 0,
        },
        20 => {
            reader.u16("reserved-1")?;
            let (queue, consumer_tag) = (reader.short_string("queue")?, reader.short_string("consumer-tag")?);
            let bits = flags(reader)?;
            let [no_local, no_ack, exclusive, no_wait] = [1, 2, 4, 8].map(|bit| bits & bit != 0);
            let arguments = table::read(reader, "arguments")?;
            Method::BasicConsume(BasicConsume { queue, consumer_tag, no_local, no_ack, exclusive, no_wait, arguments })
        }
        30 => {
            Method::BasicCancel { consumer_tag: reader.short_string("consumer-tag")?, no_wait: flags(reader)? & 1 != 0 }
        }
        31 => Method::BasicCancelOk { consumer_tag: reader.short_string("consumer-tag")? },
        40 => Method::BasicPublish(publish(reader)?),
        70 => {
            reader.u16("reserved-1")?;
            Method::BasicGet { queue: reader.short_string("queue")?, no_ack: flags(reader)? & 1 != 0 }
        }
        80 => Method::BasicAck(ack(reader)?),
        90 => Method::BasicReject { delivery_tag: reader.u64("delivery-tag")?, requeue: flags(reader)? & 1 != 0 },
        100 => Method::BasicRecoverAsync { requeue: flags(reader)? & 1 != 0 },
        110 => Method::BasicRecover { requeue: flags(reader)? & 1 != 0 },
        120 => {
            let delivery_tag = reader.u64("delivery-tag")?;
            let bits = flags(reader)?;
            Method::BasicNack { delivery_tag, multiple: bits & 1 != 0, requeue: bits & 2 != 0 }
        }
        _ => return Ok(None),
    }))
}

#[inline]
fn publish<'a>(reader: &mut Reader<'a>) -> Result<Publish<'a>, SyntaxError> {
    reader.u16("reserved-1")?;
    let exchange = reader.short_string("exchange")?;
    let routing_key = reader.short_bytes("routing-key")?;
    let bits = flags(reader)?;
    Ok(Publish { exchange, routing_key, mandatory: bits & 1 != 0, immediate: bits & 2 != 0 })
}

#[inline]
fn ack(reader: &mut Reader<'_>) -> Result<Ack, SyntaxError> {
    Ok(Ack { delivery_tag: reader.u64("delivery-tag")?, multiple: flags(reader)? & 1 != 0 })
}
