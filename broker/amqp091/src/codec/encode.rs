//! What a server sends: each function appends whole frames.
use super::frame::{END, FRAME_OVERHEAD};
use super::{table, text};
use bytes::Bytes;
use leveret_model::table::FieldTable;

/// Appends a short string; beyond 255 bytes it is cut at a character.
fn short_string(out: &mut Vec<u8>, text: &str) {
    short_bytes(out, &text.as_bytes()[..text.floor_char_boundary(255)]);
}

/// Appends the short string, not always UTF-8, that `text` stands for; beyond 255 bytes it is cut at a character.
pub(super) fn short_binary(out: &mut Vec<u8>, text: &str) {
    let at = out.len();
    out.push(0);
    text::to_bytes(out, text, 255);
    out[at] = (out.len() - at - 1) as u8;
}

fn short_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(bytes.len() as u8);
    out.extend_from_slice(bytes);
}

pub(super) fn long_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Appends a method frame whose arguments `arguments` appends.
pub(crate) fn method(out: &mut Vec<u8>, channel: u16, ids: (u16, u16), arguments: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    let [c0, c1] = channel.to_be_bytes();
    out.extend_from_slice(&[1, c0, c1, 0, 0, 0, 0]);
    out.extend(ids.0.to_be_bytes());
    out.extend(ids.1.to_be_bytes());
    arguments(out);
    let size = (out.len() - at - 7) as u32;
    out[at + 3..at + 7].copy_from_slice(&size.to_be_bytes());
    out.push(END);
}

/// Appends a method frame without arguments.
pub(crate) fn bare(out: &mut Vec<u8>, channel: u16, ids: (u16, u16)) {
    method(out, channel, ids, |_| {});
}

/// `connection.start`
pub(crate) fn connection_start(out: &mut Vec<u8>, properties: &FieldTable, mechanisms: &str, locales: &str) {
    method(out, 0, (10, 10), |out| {
        out.extend_from_slice(&[0, 9]);
        table::encode(out, properties);
        long_bytes(out, mechanisms.as_bytes());
        long_bytes(out, locales.as_bytes());
    });
}

/// `connection.tune`
pub(crate) fn connection_tune(out: &mut Vec<u8>, channel_max: u16, frame_max: u32, heartbeat: u16) {
    method(out, 0, (10, 30), |out| {
        out.extend(channel_max.to_be_bytes());
        out.extend(frame_max.to_be_bytes());
        out.extend(heartbeat.to_be_bytes());
    });
}

/// `connection.open-ok`
pub(crate) fn connection_open_ok(out: &mut Vec<u8>) {
    method(out, 0, (10, 41), |out| out.push(0));
}

/// `connection.close`, `cause` being class and method
pub(crate) fn connection_close(out: &mut Vec<u8>, code: u16, text: &str, cause: (u16, u16)) {
    close(out, 0, (10, 50), (code, text, cause));
}

/// `channel.close`
pub(crate) fn channel_close(out: &mut Vec<u8>, channel: u16, code: u16, text: &str, cause: (u16, u16)) {
    close(out, channel, (20, 40), (code, text, cause));
}

fn close(out: &mut Vec<u8>, channel: u16, ids: (u16, u16), (code, text, cause): (u16, &str, (u16, u16))) {
    method(out, channel, ids, |out| {
        out.extend(code.to_be_bytes());
        short_string(out, text);
        out.extend(cause.0.to_be_bytes());
        out.extend(cause.1.to_be_bytes());
    });
}

/// `connection.blocked`
pub(crate) fn connection_blocked(out: &mut Vec<u8>, reason: &str) {
    method(out, 0, (10, 60), |out| short_string(out, reason));
}

/// `channel.open-ok`
pub(crate) fn channel_open_ok(out: &mut Vec<u8>, channel: u16) {
    method(out, channel, (20, 11), |out| long_bytes(out, &[]));
}

/// `channel.flow-ok`
pub(crate) fn channel_flow_ok(out: &mut Vec<u8>, channel: u16, active: bool) {
    method(out, channel, (20, 21), |out| out.push(u8::from(active)));
}

/// `access.request-ok`, with a ticket that nobody asks for again
pub(crate) fn access_request_ok(out: &mut Vec<u8>, channel: u16) {
    method(out, channel, (30, 11), |out| out.extend(1u16.to_be_bytes()));
}

/// `queue.declare-ok`
pub(crate) fn queue_declare_ok(out: &mut Vec<u8>, channel: u16, queue: &str, messages: u32, consumers: u32) {
    method(out, channel, (50, 11), |out| {
        short_string(out, queue);
        out.extend(messages.to_be_bytes());
        out.extend(consumers.to_be_bytes());
    });
}

/// `queue.purge-ok` (50.31) and `queue.delete-ok` (50.41)
pub(crate) fn message_count(out: &mut Vec<u8>, channel: u16, ids: (u16, u16), messages: u32) {
    method(out, channel, ids, |out| out.extend(messages.to_be_bytes()));
}

/// `basic.consume-ok`
pub(crate) fn basic_consume_ok(out: &mut Vec<u8>, channel: u16, tag: &str) {
    method(out, channel, (60, 21), |out| short_string(out, tag));
}

/// `basic.cancel-ok`
pub(crate) fn basic_cancel_ok(out: &mut Vec<u8>, channel: u16, tag: &str) {
    method(out, channel, (60, 31), |out| short_string(out, tag));
}

/// `basic.cancel`, from the server: a queue is gone
pub(crate) fn basic_cancel(out: &mut Vec<u8>, channel: u16, tag: &str) {
    method(out, channel, (60, 30), |out| {
        short_string(out, tag);
        out.push(1); // no-wait
    });
}

/// `basic.ack`, from the server: publishes are confirmed
pub(crate) fn basic_ack(out: &mut Vec<u8>, channel: u16, tag: u64, multiple: bool) {
    method(out, channel, (60, 80), |out| {
        out.extend(tag.to_be_bytes());
        out.push(u8::from(multiple));
    });
}

/// `basic.get-empty`
pub(crate) fn basic_get_empty(out: &mut Vec<u8>, channel: u16) {
    method(out, channel, (60, 72), |out| out.push(0));
}

/// The arguments of `basic.deliver`.
pub(crate) struct Deliver<'a> {
    pub(crate) consumer_tag: &'a [u8],
    pub(crate) delivery_tag: u64,
    pub(crate) redelivered: bool,
    pub(crate) exchange: &'a [u8],
    pub(crate) routing_key: &'a [u8],
}

/// `basic.deliver`
pub(crate) fn basic_deliver(out: &mut Vec<u8>, channel: u16, deliver: &Deliver<'_>) {
    method(out, channel, (60, 60), |out| {
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

/// `basic.get-ok`
pub(crate) fn basic_get_ok(out: &mut Vec<u8>, channel: u16, got: &GetOk<'_>) {
    method(out, channel, (60, 71), |out| {
        out.extend(got.delivery_tag.to_be_bytes());
        out.push(u8::from(got.redelivered));
        short_bytes(out, got.exchange);
        short_bytes(out, got.routing_key);
        out.extend(got.message_count.to_be_bytes());
    });
}

/// `basic.return`: no queue for a mandatory message
pub(crate) fn basic_return(out: &mut Vec<u8>, channel: u16, (code, text): (u16, &str), route: (&[u8], &[u8])) {
    method(out, channel, (60, 50), |out| {
        out.extend(code.to_be_bytes());
        short_string(out, text);
        short_bytes(out, route.0);
        short_bytes(out, route.1);
    });
}

/// A heartbeat frame.
pub(crate) fn heartbeat(out: &mut Vec<u8>) {
    out.extend_from_slice(&[8, 0, 0, 0, 0, 0, 0, END]);
}

/// Header frame and body frames, the body cut to the receiver's `frame_max` (0: no limit). An empty body has no frame.
#[inline]
pub(crate) fn content(out: &mut Vec<u8>, channel: u16, frame_max: u32, properties: &[u8], body: &[u8]) {
    let [c0, c1] = channel.to_be_bytes();
    content_header(out, channel, properties, body.len());
    let part_max = if frame_max == 0 { usize::MAX } else { frame_max as usize - FRAME_OVERHEAD };
    for part in body.chunks(part_max) {
        let [s0, s1, s2, s3] = (part.len() as u32).to_be_bytes();
        out.extend_from_slice(&[3, c0, c1, s0, s1, s2, s3]);
        out.extend_from_slice(part);
        out.push(END);
    }
}

/// As [`content`], for a large body that is not copied: its parts are handed to `part`, each with its place in `out`.
#[cold]
pub(crate) fn large_content(
    out: &mut Vec<u8>,
    (channel, frame_max): (u16, u32),
    properties: &[u8],
    mut body: Bytes,
    mut part: impl FnMut(usize, Bytes),
) {
    let [c0, c1] = channel.to_be_bytes();
    content_header(out, channel, properties, body.len());
    let part_max = if frame_max == 0 { usize::MAX } else { frame_max as usize - FRAME_OVERHEAD };
    while !body.is_empty() {
        let now = body.split_to(body.len().min(part_max));
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
