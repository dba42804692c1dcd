//! An AMQP client that sends exactly the bytes it is given, valid or not, and reads only when it is asked to. For what no
//! client library does, and for load that costs the client little.

use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::wait::PATIENCE;

/// A received frame.
#[derive(Debug)]
pub struct Frame {
    /// 1 for a method, 2 for a content header, 3 for a body, 8 for a heartbeat.
    pub kind: u8,
    pub channel: u16,
    pub payload: Vec<u8>,
}

impl Frame {
    /// Returns class and method id of a method frame; `None` for other frames.
    pub fn ids(&self) -> Option<(u16, u16)> {
        let ids = self.payload.get(..4).filter(|_| self.kind == 1)?;
        Some((u16::from_be_bytes([ids[0], ids[1]]), u16::from_be_bytes([ids[2], ids[3]])))
    }

    /// Returns the reply code of a connection.close or channel.close; `None` for other frames.
    pub fn reply_code(&self) -> Option<u16> {
        let code = self.payload.get(4..6).filter(|_| matches!(self.ids(), Some((10, 50) | (20, 40))))?;
        Some(u16::from_be_bytes([code[0], code[1]]))
    }
}

/// Bytes to be sent, composed frame by frame.
#[derive(Clone, Debug, Default)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    /// Creates an empty sequence.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a frame.
    #[must_use]
    pub fn frame(mut self, kind: u8, channel: u16, payload: &[u8]) -> Self {
        self.0.push(kind);
        self.0.extend(channel.to_be_bytes());
        self.0.extend((payload.len() as u32).to_be_bytes());
        self.0.extend(payload);
        self.0.push(0xce);
        self
    }

    /// Appends a method frame.
    #[must_use]
    pub fn method(self, channel: u16, (class, id): (u16, u16), arguments: &[u8]) -> Self {
        let mut payload = Vec::from(class.to_be_bytes());
        payload.extend(id.to_be_bytes());
        payload.extend(arguments);
        self.frame(1, channel, &payload)
    }

    /// Appends a content header without properties that announces a body of that many bytes.
    #[must_use]
    pub fn header(self, channel: u16, body_bytes: u64) -> Self {
        let mut payload = vec![0, 60, 0, 0];
        payload.extend(body_bytes.to_be_bytes());
        payload.extend([0, 0]);
        self.frame(2, channel, &payload)
    }

    /// Appends a `basic.publish` through the default exchange with its content, in body frames of at most 100 KiB.
    #[must_use]
    pub fn publish(self, channel: u16, queue: &str, body: &[u8]) -> Self {
        let mut bytes = self.method(channel, (60, 40), &[&[0, 0, 0], &*short(queue), &[0]].concat());
        bytes = bytes.header(channel, body.len() as u64);
        for part in body.chunks(100 << 10) {
            bytes = bytes.frame(3, channel, part);
        }
        bytes
    }

    /// Appends a `basic.get` whose message has to be acknowledged.
    #[must_use]
    pub fn get(self, channel: u16, queue: &str) -> Self {
        self.method(channel, (60, 70), &[&[0, 0], &*short(queue), &[0]].concat())
    }

    /// Appends a `basic.consume` whose deliveries have to be acknowledged.
    #[must_use]
    pub fn consume(self, channel: u16, queue: &str) -> Self {
        self.method(channel, (60, 20), &[&[0, 0], &*short(queue), &[0, 0, 0, 0, 0, 0]].concat())
    }

    /// Appends a `basic.qos` with a prefetch per consumer.
    #[must_use]
    pub fn qos(self, channel: u16, prefetch: u16) -> Self {
        self.method(channel, (60, 10), &[&[0; 4], &prefetch.to_be_bytes()[..], &[0]].concat())
    }

    /// Appends a `basic.ack` of all deliveries up to `tag`.
    #[must_use]
    pub fn ack_up_to(self, channel: u16, tag: u64) -> Self {
        self.method(channel, (60, 80), &[&tag.to_be_bytes()[..], &[1]].concat())
    }

    /// Appends a `queue.declare` of a queue that is neither durable nor exclusive nor auto-delete.
    #[must_use]
    pub fn declare(self, channel: u16, queue: &str) -> Self {
        self.method(channel, (50, 10), &[&[0, 0], &*short(queue), &[0, 0, 0, 0, 0]].concat())
    }
}

/// Returns a text as a short string: a length byte and the text, of at most 255 bytes.
pub fn short(text: &str) -> Vec<u8> {
    let mut bytes = vec![text.len() as u8];
    bytes.extend(text.as_bytes());
    bytes
}

/// A connection that sends and receives nothing by itself.
pub struct Raw {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
}

impl Raw {
    /// Connects to `HOST:PORT` without sending anything.
    ///
    /// # Errors
    /// If the connection fails.
    pub fn dial(amqp: &str) -> Result<Self> {
        let writer = TcpStream::connect(amqp).with_context(|| format!("connecting to {amqp}"))?;
        writer.set_nodelay(true)?;
        writer.set_read_timeout(Some(PATIENCE))?;
        writer.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { reader: BufReader::new(writer.try_clone()?), writer })
    }

    /// Opens a connection as guest without heartbeats, and channel 1 on it.
    ///
    /// # Errors
    /// If the broker refuses it.
    pub fn open(amqp: &str) -> Result<Self> {
        Self::open_with(amqp, 0)
    }

    /// Like [`Self::open`], with a heartbeat interval in seconds; but no heartbeats are sent.
    ///
    /// # Errors
    /// If the broker refuses it.
    pub fn open_with(amqp: &str, heartbeat: u16) -> Result<Self> {
        let mut raw = Self::dial(amqp)?;
        raw.writer.write_all(b"AMQP\0\0\x09\x01")?;
        raw.expect((10, 10))?;
        let response = b"\0guest\0guest";
        let start_ok =
            [&[0; 4], &*short("PLAIN"), &(response.len() as u32).to_be_bytes(), response, &*short("en_US")].concat();
        raw.send(Bytes::new().method(0, (10, 11), &start_ok))?;
        raw.expect((10, 30))?;
        let tune_ok = [&2047u16.to_be_bytes()[..], &131_072u32.to_be_bytes(), &heartbeat.to_be_bytes()].concat();
        let open = [&*short("/"), &[0, 0]].concat();
        raw.send(Bytes::new().method(0, (10, 31), &tune_ok).method(0, (10, 40), &open))?;
        raw.expect((10, 41))?;
        raw.open_channel(1)?;
        Ok(raw)
    }

    /// Opens a channel.
    ///
    /// # Errors
    /// If the next frame is not the answer.
    pub fn open_channel(&mut self, channel: u16) -> Result<()> {
        self.send(Bytes::new().method(channel, (20, 10), &[0]))?;
        self.expect((20, 11)).map(drop)
    }

    /// Sends all of the bytes.
    ///
    /// # Errors
    /// If the connection is closed, or a write waits for longer than [`PATIENCE`].
    pub fn send(&mut self, bytes: Bytes) -> Result<()> {
        Ok(self.writer.write_all(&bytes.0)?)
    }

    /// Sends the bytes until all are sent or a write waits for longer than `limit`. Returns how many were sent.
    ///
    /// # Errors
    /// If the connection is closed.
    pub fn send_some(&mut self, bytes: &[u8], limit: Duration) -> Result<usize> {
        self.writer.set_write_timeout(Some(limit))?;
        let mut sent = 0;
        while sent < bytes.len() {
            match self.writer.write(&bytes[sent..]) {
                Ok(some) => sent += some,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.writer.set_write_timeout(Some(PATIENCE))?;
        Ok(sent)
    }

    /// Returns the next frame; `None` at the end of the connection.
    ///
    /// # Errors
    /// If none arrives in time, or the frame is malformed.
    pub fn receive(&mut self) -> Result<Option<Frame>> {
        let mut head = [0; 7];
        match self.reader.read_exact(&mut head) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            read => read.context("reading a frame")?,
        }
        let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        let mut payload = vec![0; length + 1];
        self.reader.read_exact(&mut payload).context("reading a frame")?;
        ensure!(payload.pop() == Some(0xce), "a frame without its end octet");
        Ok(Some(Frame { kind: head[0], channel: u16::from_be_bytes([head[1], head[2]]), payload }))
    }

    /// Reads and drops bytes until none arrive for `silence`.
    ///
    /// # Errors
    /// If a timeout of the socket cannot be set.
    pub fn drain(&mut self, silence: Duration) -> Result<()> {
        self.writer.set_read_timeout(Some(silence))?;
        let mut bytes = [0; 4096];
        while self.reader.read(&mut bytes).is_ok_and(|read| read > 0) {}
        Ok(self.writer.set_read_timeout(Some(PATIENCE))?)
    }

    /// Returns the next frame, which has to be the method with these ids.
    ///
    /// # Errors
    /// If it is another frame, or none arrives.
    pub fn expect(&mut self, ids: (u16, u16)) -> Result<Frame> {
        match self.receive()? {
            Some(frame) if frame.ids() == Some(ids) => Ok(frame),
            other => bail!("expected the method {ids:?}, got {other:?}"),
        }
    }

    /// Resets the connection, as the kernel does when a client is killed that has not read everything.
    ///
    /// # Errors
    /// If the socket option cannot be set.
    pub fn reset(self) -> Result<()> {
        rustix::net::sockopt::set_socket_linger(&self.writer, Some(Duration::ZERO))?;
        Ok(())
    }

    /// Returns the socket, and the bytes that were received but not read.
    pub fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.writer, self.reader.buffer().to_vec())
    }

    /// Returns a handle for sending on the same connection from another thread.
    ///
    /// # Errors
    /// If the socket cannot be duplicated.
    pub fn writer(&self) -> Result<TcpStream> {
        Ok(self.writer.try_clone()?)
    }
}
