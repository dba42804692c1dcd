//! The frames that a server sends: each function appends whole frames.
use super::frame::{END, FRAME_OVERHEAD};
use super::ids::MethodId;
use super::reply::ReplyCode;
use bytes::Bytes;
use leveret_model::table::FieldTable;
use leveret_model::wire::table;
use leveret_model::wire::write::{long_bytes, short_bytes, short_string};

/// Appends a method frame. `arguments` appends the method's arguments.
pub(crate) fn method(out: &mut Vec<u8>, channel: u16, id: MethodId, arguments: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    let [c0, c1] = channel.to_be_bytes();
    let [i0, i1, i2, i3] = id.to_bytes();
    out.extend_from_slice(&[1, c0, c1, 0, 0, 0, 0, i0, i1, i2, i3]);
    arguments(out);
    let size = (out.len() - at - 7) as u32;
    out[at + 3..at + 7].copy_from_slice(&size.to_be_bytes());
    out.push(END);
}

/// Appends a method frame without arguments.
pub(crate) fn bare(out: &mut Vec<u8>, channel: u16, id: MethodId) {
    method(out, channel, id, |_| {});
}

/// Appends `connection.start`.
pub(crate) fn connection_start(out: &mut Vec<u8>, properties: &FieldTable, mechanisms: &str, locales: &str) {
    method(out, 0, MethodId::CONNECTION_START, |out| {
        out.extend_from_slice(&[0, 9]);
        table::encode(out, properties);
        long_bytes(out, mechanisms.as_bytes());
        long_bytes(out, locales.as_bytes());
    });
}

/// Appends `connection.tune`.
pub(crate) fn connection_tune(out: &mut Vec<u8>, channel_max: u16, frame_max: u32, heartbeat: u16) {
    method(out, 0, MethodId::CONNECTION_TUNE, |out| {
        out.extend(channel_max.to_be_bytes());
        out.extend(frame_max.to_be_bytes());
        out.extend(heartbeat.to_be_bytes());
    });
}

/// Appends `connection.open-ok`.
pub(crate) fn connection_open_ok(out: &mut Vec<u8>) {
    method(out, 0, MethodId::CONNECTION_OPEN_OK, |out| out.push(0));
}

/// The arguments of `connection.close` and `channel.close`.
pub(crate) struct Close<'a> {
    pub(crate) code: ReplyCode,
    pub(crate) text: &'a str,
    /// The method that caused the error; [`MethodId::NONE`] if no method did.
    pub(crate) cause: MethodId,
}

/// Appends `connection.close`.
pub(crate) fn connection_close(out: &mut Vec<u8>, arguments: &Close<'_>) {
    method(out, 0, MethodId::CONNECTION_CLOSE, |out| close(out, arguments));
}

/// Appends `channel.close`.
pub(crate) fn channel_close(out: &mut Vec<u8>, channel: u16, arguments: &Close<'_>) {
    method(out, channel, MethodId::CHANNEL_CLOSE, |out| close(out, arguments));
}

fn close(out: &mut Vec<u8>, close: &Close<'_>) {
    out.extend(close.code.number().to_be_bytes());
    short_string(out, close.text);
    out.extend(close.cause.to_bytes());
}

/// Appends `connection.blocked`.
pub(crate) fn connection_blocked(out: &mut Vec<u8>, reason: &str) {
    method(out, 0, MethodId::CONNECTION_BLOCKED, |out| short_string(out, reason));
}

/// Appends `channel.open-ok`.
pub(crate) fn channel_open_ok(out: &mut Vec<u8>, channel: u16) {
    method(out, channel, MethodId::CHANNEL_OPEN_OK, |out| long_bytes(out, &[]));
}

/// Appends `channel.flow-ok`.
pub(crate) fn channel_flow_ok(out: &mut Vec<u8>, channel: u16, active: bool) {
    method(out, channel, MethodId::CHANNEL_FLOW_OK, |out| out.push(u8::from(active)));
}

/// Appends `access.request-ok` with a ticket, which the broker never looks at.
pub(crate) fn access_request_ok(out: &mut Vec<u8>, channel: u16) {
    method(out, channel, MethodId::ACCESS_REQUEST_OK, |out| out.extend(1u16.to_be_bytes()));
}

/// Appends `queue.declare-ok`.
pub(crate) fn queue_declare_ok(out: &mut Vec<u8>, channel: u16, queue: &str, messages: u32, consumers: u32) {
    method(out, channel, MethodId::QUEUE_DECLARE_OK, |out| {
        short_string(out, queue);
        out.extend(messages.to_be_bytes());
        out.extend(consumers.to_be_bytes());
    });
}

/// Appends `queue.purge-ok`.
pub(crate) fn queue_purge_ok(out: &mut Vec<u8>, channel: u16, messages: u32) {
    method(out, channel, MethodId::QUEUE_PURGE_OK, |out| out.extend(messages.to_be_bytes()));
}

/// Appends `queue.delete-ok`.
pub(crate) fn queue_delete_ok(out: &mut Vec<u8>, channel: u16, messages: u32) {
    method(out, channel, MethodId::QUEUE_DELETE_OK, |out| out.extend(messages.to_be_bytes()));
}

/// Appends `basic.consume-ok`.
pub(crate) fn basic_consume_ok(out: &mut Vec<u8>, channel: u16, tag: &str) {
    method(out, channel, MethodId::BASIC_CONSUME_OK, |out| short_string(out, tag));
}

/// Appends `basic.cancel-ok`.
pub(crate) fn basic_cancel_ok(out: &mut Vec<u8>, channel: u16, tag: &str) {
    method(out, channel, MethodId::BASIC_CANCEL_OK, |out| short_string(out, tag));
}

/// Appends `basic.cancel` as the server sends it to say that the consumer's queue was deleted.
pub(crate) fn basic_cancel(out: &mut Vec<u8>, channel: u16, tag: &str) {
    method(out, channel, MethodId::BASIC_CANCEL, |out| {
        short_string(out, tag);
        out.push(1); // no-wait
    });
}

/// Appends `basic.ack` as the server sends it to confirm publishes.
pub(crate) fn basic_ack(out: &mut Vec<u8>, channel: u16, tag: u64, multiple: bool) {
    method(out, channel, MethodId::BASIC_ACK, |out| {
        out.extend(tag.to_be_bytes());
        out.push(u8::from(multiple));
    });
}

/// Appends `basic.get-empty`.
pub(crate) fn basic_get_empty(out: &mut Vec<u8>, channel: u16) {
    method(out, channel, MethodId::BASIC_GET_EMPTY, |out| out.push(0));
}

/// The arguments of `basic.deliver`.
pub(crate) struct Deliver<'a> {
    pub(crate) consumer_tag: &'a [u8],
    pub(crate) delivery_tag: u64,
    pub(crate) redelivered: bool,
    pub(crate) exchange: &'a [u8],
    pub(crate) routing_key: &'a [u8],
}

/// Appends `basic.deliver`.
pub(crate) fn basic_deliver(out: &mut Vec<u8>, channel: u16, deliver: &Deliver<'_>) {
    method(out, channel, MethodId::BASIC_DELIVER, |out| {
        short_bytes(out, deliver.consumer_tag);
        out.extend(deliver.delivery_tag.to_be_bytes());
        out.push(u8::from(deliver.redelivered));
        short_bytes(out, deliver.exchange);
        short_bytes(out, deliver.routing_key);
    });
}

/// The arguments of `basic.get-ok`.
pub(crate) struct GetOk<'a> {
    pub(crate) delivery_tag: u64,
    pub(crate) redelivered: bool,
    pub(crate) exchange: &'a [u8],
    pub(crate) routing_key: &'a [u8],
    pub(crate) message_count: u32,
}

/// Appends `basic.get-ok`.
pub(crate) fn basic_get_ok(out: &mut Vec<u8>, channel: u16, got: &GetOk<'_>) {
    method(out, channel, MethodId::BASIC_GET_OK, |out| {
        out.extend(got.delivery_tag.to_be_bytes());
        out.push(u8::from(got.redelivered));
        short_bytes(out, got.exchange);
        short_bytes(out, got.routing_key);
        out.extend(got.message_count.to_be_bytes());
    });
}

/// Appends `basic.return` for a message that was published as mandatory and that no queue takes.
pub(crate) fn basic_return(out: &mut Vec<u8>, channel: u16, exchange: &[u8], routing_key: &[u8]) {
    method(out, channel, MethodId::BASIC_RETURN, |out| {
        out.extend(ReplyCode::NoRoute.number().to_be_bytes());
        short_string(out, ReplyCode::NoRoute.name());
        short_bytes(out, exchange);
        short_bytes(out, routing_key);
    });
}

/// Appends a heartbeat frame.
pub(crate) fn heartbeat(out: &mut Vec<u8>) {
    out.extend_from_slice(&[8, 0, 0, 0, 0, 0, 0, END]);
}

/// The channel that a message goes to, and the largest frame that its client takes, in bytes (0: no limit).
#[derive(Clone, Copy)]
pub(crate) struct Framing {
    pub(crate) channel: u16,
    pub(crate) frame_max: u32,
}

impl Framing {
    /// Returns the largest part of a body that fits into one frame, in bytes.
    #[inline]
    fn part_max(self) -> usize {
        if self.frame_max == 0 { usize::MAX } else { self.frame_max as usize - FRAME_OVERHEAD }
    }
}

/// Appends the header frame and the body frames of a message. An empty body has no frame.
#[inline]
pub(crate) fn content(out: &mut Vec<u8>, framing: Framing, properties: &[u8], body: &[u8]) {
    let [c0, c1] = framing.channel.to_be_bytes();
    content_header(out, framing.channel, properties, body.len());
    for part in body.chunks(framing.part_max()) {
        let [s0, s1, s2, s3] = (part.len() as u32).to_be_bytes();
        out.extend_from_slice(&[3, c0, c1, s0, s1, s2, s3]);
        out.extend_from_slice(part);
        out.push(END);
    }
}

/// Does the same as [`content`] for a large body that is not copied: hands its parts to `part`, each with its place in
/// `out`.
#[cold]
pub(crate) fn large_content(
    out: &mut Vec<u8>,
    framing: Framing,
    properties: &[u8],
    mut body: Bytes,
    mut part: impl FnMut(usize, Bytes),
) {
    let [c0, c1] = framing.channel.to_be_bytes();
    content_header(out, framing.channel, properties, body.len());
    while !body.is_empty() {
        let now = body.split_to(body.len().min(framing.part_max()));
        let [s0, s1, s2, s3] = (now.len() as u32).to_be_bytes();
        out.extend_from_slice(&[3, c0, c1, s0, s1, s2, s3]);
        part(out.len(), now);
        out.push(END);
    }
}

#[inline]
fn content_header(out: &mut Vec<u8>, channel: u16, properties: &[u8], body_len: usize) {
    let [c0, c1] = channel.to_be_bytes();
    let [s0, s1, s2, s3] = (properties.len() as u32 + 12).to_be_bytes();
    let [b0, b1, b2, b3, b4, b5, b6, b7] = (body_len as u64).to_be_bytes();
    out.extend_from_slice(&[2, c0, c1, s0, s1, s2, s3, 0, 60, 0, 0, b0, b1, b2, b3, b4, b5, b6, b7]);
    out.extend_from_slice(properties);
    out.push(END);
}
