//! Methods that clients send, parsed from the payload of a method frame (0-9-1 spec 1.4 and RabbitMQ's extensions).
use super::ids::{MethodId, class};
use leveret_model::table::FieldTable;
use leveret_model::wire::read::Reader;
use leveret_model::wire::{SyntaxError, table};

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
    ConnectionClose(CloseMethod<'a>),
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
    ChannelClose(CloseMethod<'a>),
    ChannelCloseOk,
    /// `access.request`: clients of AMQP 0-8 ask for a ticket first.
    AccessRequest,
    ExchangeDeclare(ExchangeDeclareMethod<'a>),
    ExchangeDelete {
        exchange: &'a str,
        if_unused: bool,
        no_wait: bool,
    },
    ExchangeBind(ExchangeBinding<'a>),
    ExchangeUnbind(ExchangeBinding<'a>),
    QueueDeclare(QueueDeclareMethod<'a>),
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
    BasicPublish(PublishMethod<'a>),
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

/// `connection.close`, `channel.close`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the spec's names")]
pub struct CloseMethod<'a> {
    pub code: u16,
    pub text: &'a str,
}

/// `exchange.declare`
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the spec's names")]
pub struct ExchangeDeclareMethod<'a> {
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
pub struct QueueDeclareMethod<'a> {
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
pub struct PublishMethod<'a> {
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

/// The reason why a payload is not a method that a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MethodError {
    /// A field is malformed.
    #[error("{0} of method {1}")]
    Syntax(SyntaxError, MethodId),
    /// There is no such class or method, or it is not one that clients send.
    #[error("unknown class or method {0}")]
    Unknown(MethodId),
}

impl MethodError {
    /// Returns class and method, as far as they could be read.
    #[must_use]
    pub fn id(&self) -> MethodId {
        match *self {
            Self::Syntax(_, id) | Self::Unknown(id) => id,
        }
    }
}

/// Parses the payload of a method frame.
///
/// # Errors
/// [`MethodError`], all of which end the connection.
pub fn parse(payload: &[u8]) -> Result<Method<'_>, MethodError> {
    let id = MethodId::of(payload);
    let Some(arguments) = payload.get(4..) else {
        return Err(MethodError::Syntax(SyntaxError::Malformed("class and method"), id));
    };
    let mut reader = Reader(arguments);
    let parsed = match id.class {
        class::CONNECTION => connection(id, &mut reader),
        class::CHANNEL => channel(id, &mut reader),
        class::EXCHANGE => exchange(id, &mut reader),
        class::QUEUE => queue(id, &mut reader),
        class::BASIC => basic(id, &mut reader),
        _ => others(id, &mut reader),
    };
    match parsed {
        Ok(Some(method)) => Ok(method),
        Ok(None) => Err(MethodError::Unknown(id)),
        Err(error) => Err(MethodError::Syntax(error, id)),
    }
}

/// Returns the payload as `basic.publish`, if it is a well-formed one.
#[inline]
#[must_use]
pub fn fast_publish(payload: &[u8]) -> Option<PublishMethod<'_>> {
    let arguments = payload.strip_prefix(&PUBLISH)?;
    publish(&mut Reader(arguments)).ok()
}

/// Returns the payload as `basic.ack`, if it is a well-formed one.
#[inline]
#[must_use]
pub fn fast_ack(payload: &[u8]) -> Option<Ack> {
    let arguments = payload.strip_prefix(&ACK)?;
    ack(&mut Reader(arguments)).ok()
}

const PUBLISH: [u8; 4] = MethodId::BASIC_PUBLISH.to_bytes();
const ACK: [u8; 4] = MethodId::BASIC_ACK.to_bytes();

/// A method; `None` if clients do not send it.
type Parsed<'a> = Result<Option<Method<'a>>, SyntaxError>;

fn flags(reader: &mut Reader<'_>) -> Result<u8, SyntaxError> {
    reader.u8("flags")
}

fn connection<'a>(id: MethodId, reader: &mut Reader<'a>) -> Parsed<'a> {
    Ok(Some(match id {
        MethodId::CONNECTION_START_OK => Method::ConnectionStartOk {
            client_properties: table::read(reader, "client-properties")?,
            mechanism: reader.short_string("mechanism")?,
            response: reader.long_bytes("response")?,
            locale: reader.short_string("locale")?,
        },
        MethodId::CONNECTION_SECURE_OK => Method::ConnectionSecureOk { response: reader.long_bytes("response")? },
        MethodId::CONNECTION_TUNE_OK => Method::ConnectionTuneOk {
            channel_max: reader.u16("channel-max")?,
            frame_max: reader.u32("frame-max")?,
            heartbeat: reader.u16("heartbeat")?,
        },
        MethodId::CONNECTION_OPEN => Method::ConnectionOpen { vhost: reader.short_string("virtual-host")? },
        MethodId::CONNECTION_CLOSE => Method::ConnectionClose(close(reader)?),
        MethodId::CONNECTION_CLOSE_OK => Method::ConnectionCloseOk,
        MethodId::CONNECTION_BLOCKED => Method::ConnectionBlocked { reason: reader.short_string("reason")? },
        MethodId::CONNECTION_UNBLOCKED => Method::ConnectionUnblocked,
        MethodId::CONNECTION_UPDATE_SECRET => Method::ConnectionUpdateSecret {
            secret: reader.long_bytes("new-secret")?,
            reason: reader.short_string("reason")?,
        },
        _ => return Ok(None),
    }))
}

fn close<'a>(reader: &mut Reader<'a>) -> Result<CloseMethod<'a>, SyntaxError> {
    let close = CloseMethod { code: reader.u16("reply-code")?, text: reader.short_string("reply-text")? };
    reader.u32("class-id and method-id")?;
    Ok(close)
}

fn others<'a>(id: MethodId, reader: &mut Reader<'a>) -> Parsed<'a> {
    Ok(Some(match id {
        MethodId::ACCESS_REQUEST => Method::AccessRequest,
        MethodId::CONFIRM_SELECT => Method::ConfirmSelect { no_wait: flags(reader)? & 1 != 0 },
        MethodId::TX_SELECT => Method::TxSelect,
        MethodId::TX_COMMIT => Method::TxCommit,
        MethodId::TX_ROLLBACK => Method::TxRollback,
        _ => return Ok(None),
    }))
}

fn channel<'a>(id: MethodId, reader: &mut Reader<'a>) -> Parsed<'a> {
    Ok(Some(match id {
        MethodId::CHANNEL_OPEN => Method::ChannelOpen,
        MethodId::CHANNEL_FLOW => Method::ChannelFlow { active: flags(reader)? & 1 != 0 },
        MethodId::CHANNEL_FLOW_OK => Method::ChannelFlowOk { active: flags(reader)? & 1 != 0 },
        MethodId::CHANNEL_CLOSE => Method::ChannelClose(close(reader)?),
        MethodId::CHANNEL_CLOSE_OK => Method::ChannelCloseOk,
        _ => return Ok(None),
    }))
}

fn exchange<'a>(id: MethodId, reader: &mut Reader<'a>) -> Parsed<'a> {
    reader.u16("reserved-1")?;
    Ok(Some(match id {
        MethodId::EXCHANGE_DECLARE => {
            let (exchange, kind) = (reader.short_string("exchange")?, reader.short_string("type")?);
            let bits = flags(reader)?;
            let [passive, durable, auto_delete, internal, no_wait] = [1, 2, 4, 8, 16].map(|bit| bits & bit != 0);
            let arguments = table::read(reader, "arguments")?;
            Method::ExchangeDeclare(ExchangeDeclareMethod {
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
        MethodId::EXCHANGE_DELETE => {
            let exchange = reader.short_string("exchange")?;
            let bits = flags(reader)?;
            Method::ExchangeDelete { exchange, if_unused: bits & 1 != 0, no_wait: bits & 2 != 0 }
        }
        MethodId::EXCHANGE_BIND => Method::ExchangeBind(exchange_binding(reader)?),
        MethodId::EXCHANGE_UNBIND => Method::ExchangeUnbind(exchange_binding(reader)?),
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

fn queue<'a>(id: MethodId, reader: &mut Reader<'a>) -> Parsed<'a> {
    reader.u16("reserved-1")?;
    let queue = reader.short_string("queue")?;
    Ok(Some(match id {
        MethodId::QUEUE_DECLARE => {
            let bits = flags(reader)?;
            let [passive, durable, exclusive, auto_delete, no_wait] = [1, 2, 4, 8, 16].map(|bit| bits & bit != 0);
            let arguments = table::read(reader, "arguments")?;
            Method::QueueDeclare(QueueDeclareMethod {
                queue,
                passive,
                durable,
                exclusive,
                auto_delete,
                no_wait,
                arguments,
            })
        }
        MethodId::QUEUE_BIND => Method::QueueBind(queue_binding(reader, queue, true)?),
        MethodId::QUEUE_UNBIND => Method::QueueUnbind(queue_binding(reader, queue, false)?),
        MethodId::QUEUE_PURGE => Method::QueuePurge { queue, no_wait: flags(reader)? & 1 != 0 },
        MethodId::QUEUE_DELETE => {
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

fn basic<'a>(id: MethodId, reader: &mut Reader<'a>) -> Parsed<'a> {
    Ok(Some(match id {
        MethodId::BASIC_QOS => Method::BasicQos {
            prefetch_size: reader.u32("prefetch-size")?,
            prefetch_count: reader.u16("prefetch-count")?,
            global: flags(reader)? & 1 != 0,
        },
        MethodId::BASIC_CONSUME => {
            reader.u16("reserved-1")?;
            let (queue, consumer_tag) = (reader.short_string("queue")?, reader.short_string("consumer-tag")?);
            let bits = flags(reader)?;
            let [no_local, no_ack, exclusive, no_wait] = [1, 2, 4, 8].map(|bit| bits & bit != 0);
            let arguments = table::read(reader, "arguments")?;
            Method::BasicConsume(BasicConsume { queue, consumer_tag, no_local, no_ack, exclusive, no_wait, arguments })
        }
        MethodId::BASIC_CANCEL => {
            Method::BasicCancel { consumer_tag: reader.short_string("consumer-tag")?, no_wait: flags(reader)? & 1 != 0 }
        }
        MethodId::BASIC_CANCEL_OK => Method::BasicCancelOk { consumer_tag: reader.short_string("consumer-tag")? },
        MethodId::BASIC_PUBLISH => Method::BasicPublish(publish(reader)?),
        MethodId::BASIC_GET => {
            reader.u16("reserved-1")?;
            Method::BasicGet { queue: reader.short_string("queue")?, no_ack: flags(reader)? & 1 != 0 }
        }
        MethodId::BASIC_ACK => Method::BasicAck(ack(reader)?),
        MethodId::BASIC_REJECT => {
            Method::BasicReject { delivery_tag: reader.u64("delivery-tag")?, requeue: flags(reader)? & 1 != 0 }
        }
        MethodId::BASIC_RECOVER_ASYNC => Method::BasicRecoverAsync { requeue: flags(reader)? & 1 != 0 },
        MethodId::BASIC_RECOVER => Method::BasicRecover { requeue: flags(reader)? & 1 != 0 },
        MethodId::BASIC_NACK => {
            let delivery_tag = reader.u64("delivery-tag")?;
            let bits = flags(reader)?;
            Method::BasicNack { delivery_tag, multiple: bits & 1 != 0, requeue: bits & 2 != 0 }
        }
        _ => return Ok(None),
    }))
}

#[inline]
fn publish<'a>(reader: &mut Reader<'a>) -> Result<PublishMethod<'a>, SyntaxError> {
    reader.u16("reserved-1")?;
    let exchange = reader.short_string("exchange")?;
    let routing_key = reader.short_bytes("routing-key")?;
    let bits = flags(reader)?;
    Ok(PublishMethod { exchange, routing_key, mandatory: bits & 1 != 0, immediate: bits & 2 != 0 })
}

#[inline]
fn ack(reader: &mut Reader<'_>) -> Result<Ack, SyntaxError> {
    Ok(Ack { delivery_tag: reader.u64("delivery-tag")?, multiple: flags(reader)? & 1 != 0 })
}
