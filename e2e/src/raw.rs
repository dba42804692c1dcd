//! A client that sends what it is told to, right or wrong, and reads only when it is asked to: for what no client library
//! does, and for load that costs the client little.

use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::wait::PATIENCE;

/// A frame as it was received.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub channel: u16,
    pub payload: Vec<u8>,
}

impl Frame {
    /// Class and method, if it is a method frame.
    pub fn ids(&self) -> Option<(u16, u16)> {
        let ids = self.payload.get(..4).filter(|_| self.kind == 1)?;
        Some((u16::from_be_bytes([ids[0], ids[1]]), u16::from_be_bytes([ids[2], ids[3]])))
    }

    /// Reply code of a connection.close or channel.close.
    pub fn reply_code(&self) -> Option<u16> {
        let code = self.payload.get(4..6).filter(|_| matches!(self.ids(), Some((10, 50) | (20, 40))))?;
        Some(u16::from_be_bytes([code[0], code[1]]))
    }
}

/// What is sent, put together frame by frame.
#[derive(Clone, Debug, Default)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    pub fn new() -> Self {
        Self::default()
    }

    /// One frame.
    #[must_use]
    pub fn frame(mut self, kind: u8, channel: u16, payload: &[u8]) -> Self {
        self.0.push(kind);
        self.0.extend(channel.to_be_bytes());
        self.0.extend((payload.len() as u32).to_be_bytes());
        self.0.extend(payload);
        self.0.push(0xce);
        self
    }

    /// A method frame.
    #[must_use]
    pub fn method(self, channel: u16, (class, id): (u16, u16), arguments: &[u8]) -> Self {
        let mut payload = Vec::from(class.to_be_bytes());
        payload.extend(id.to_be_bytes());
        payload.extend(arguments);
        self.frame(1, channel, &payload)
    }

    /// A content header that announces a body.
    #[must_use]
    pub fn header(self, channel: u16, body_bytes: u64) -> Self {
        let mut payload = vec![0, 60, 0, 0];
        payload.extend(body_bytes.to_be_bytes());
        payload.extend([0, 0]);
        self.frame(2, channel, &payload)
    }

    /// `basic.publish` through the default exchange, in frames of at most 100 KiB.
    #[must_use]
    pub fn publish(self, channel: u16, queue: &str, body: &[u8]) -> Self {
        let mut bytes = self.method(channel, (60, 40), &[&[0, 0, 0], &*short(queue), &[0]].concat());
        bytes = bytes.header(channel, body.len() as u64);
        for part in body.chunks(100 << 10) {
            bytes = bytes.frame(3, channel, part);
        }
        bytes
    }

    /// `basic.get` that has to be acknowledged.
    #[must_use]
    pub fn get(self, channel: u16, queue: &str) -> Self {
        self.method(channel, (60, 70), &[&[0, 0], &*short(queue), &[0]].concat())
    }

    /// `basic.consume`, to be acknowledged.
    #[must_use]
    pub fn consume(self, channel: u16, queue: &str) -> Self {
        self.method(channel, (60, 20), &[&[0, 0], &*short(queue), &[0, 0, 0, 0, 0, 0]].concat())
    }

    /// `basic.qos` for each consumer.
    #[must_use]
    pub fn qos(self, channel: u16, prefetch: u16) -> Self {
        self.method(channel, (60, 10), &[&[0; 4], &prefetch.to_be_bytes()[..], &[0]].concat())
    }

    /// `basic.ack` of all up to `tag`.
    #[must_use]
    pub fn ack_up_to(self, channel: u16, tag: u64) -> Self {
        self.method(channel, (60, 80), &[&tag.to_be_bytes()[..], &[1]].concat())
    }

    /// `queue.declare` of a queue that is neither durable nor exclusive nor goes by itself.
    #[must_use]
    pub fn declare(self, channel: u16, queue: &str) -> Self {
        self.method(channel, (50, 10), &[&[0, 0], &*short(queue), &[0, 0, 0, 0, 0]].concat())
    }
}

/// A short string.
pub fn short(text: &str) -> Vec<u8> {
    let mut bytes = vec![text.len() as u8];
    bytes.extend(text.as_bytes());
    bytes
}

/// A connection, which sends and receives nothing by itself.
pub struct Raw {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
}

impl Raw {
    /// A socket to the broker, without a word said.
    pub fn dial(amqp: &str) -> Result<Self> {
        let writer = TcpStream::connect(amqp).with_context(|| format!("connecting to {amqp}"))?;
        writer.set_nodelay(true)?;
        writer.set_read_timeout(Some(PATIENCE))?;
        writer.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { reader: BufReader::new(writer.try_clone()?), writer })
    }

    /// An open connection with channel 1 open, without a heartbeat.
    pub fn open(amqp: &str) -> Result<Self> {
        Self::open_with(amqp, 0)
    }

    /// The same with a heartbeat in seconds, of which it sends none.
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

    pub fn open_channel(&mut self, channel: u16) -> Result<()> {
        self.send(Bytes::new().method(channel, (20, 10), &[0]))?;
        self.expect((20, 11)).map(drop)
    }

    pub fn send(&mut self, bytes: Bytes) -> Result<()> {
        Ok(self.writer.write_all(&bytes.0)?)
    }

    /// Sends as much as the other side takes within `limit`. Returns how many bytes that was.
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

    /// The next frame; `None` at the end of the connection.
    pub fn receive(&mut self) -> Result<Option<Frame>> {
        let mut head = [0; 7];
        match self.reader.read_exact(&mut head) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            read => read.context("reading a frame")?,
        }
        let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        let mut payload = vec![0; length + 1];
        self.reader.read_exact(&mut payload).context("reading a frame")?;
        ensure!(payload.pop() == Some(0xce), "a frame without its end");
        Ok(Some(Frame { kind: head[0], channel: u16::from_be_bytes([head[1], head[2]]), payload }))
    }

    /// Reads what is there, until nothing more has come for `silence`.
    pub fn drain(&mut self, silence: Duration) -> Result<()> {
        self.writer.set_read_timeout(Some(silence))?;
        let mut bytes = [0; 4096];
        while self.reader.read(&mut bytes).is_ok_and(|read| read > 0) {}
        Ok(self.writer.set_read_timeout(Some(PATIENCE))?)
    }

    /// The next frame, which has to be this method.
    pub fn expect(&mut self, ids: (u16, u16)) -> Result<Frame> {
        match self.receive()? {
            Some(frame) if frame.ids() == Some(ids) => Ok(frame),
            other => bail!("expected the method {ids:?}, got {other:?}"),
        }
    }

    /// Resets the connection, as the kernel does for a client that was killed with something unread.
    pub fn reset(self) -> Result<()> {
        rustix::net::sockopt::set_socket_linger(&self.writer, Some(Duration::ZERO))?;
        Ok(())
    }

    /// The socket alone, and what was received from it and not asked for.
    pub fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.writer, self.reader.buffer().to_vec())
    }

    /// A handle that sends on the same connection from another thread.
    pub fn writer(&self) -> Result<TcpStream> {
        Ok(self.writer.try_clone()?)
    }
}
