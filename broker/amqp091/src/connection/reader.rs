//! The reading task: it reads bytes into a buffer and handles the complete frames in it, until one side closes the
//! connection.
//!
//! The buffer comes from a pool while there are bytes in it: an idle connection holds none, and half a frame that nothing
//! follows is moved to memory of its own size. A reader does a turn of work and lets other tasks go first (see `turn`).
//! While it does not read (see `hold`) it still checks for the end of the connection.
use super::context::Capabilities;
use super::failure::{End, Failure};
use super::handshake::{Addresses, HANDSHAKE_MAX, Handshake, in_time};
use super::hold::{self, ConnectionEnds};
use super::output::Output;
use super::session::{Progress, Session};
use super::writer::Writer;
use crate::codec::encode;
use crate::codec::frame::{self, PROTOCOL_HEADER, ProtocolHeader};
use crate::codec::ids::MethodId;
use crate::codec::method::{self, Method};
use crate::codec::reply::ReplyCode;
use crate::pool::Pool;
use bytes::BufMut;
use futures::FutureExt;
use leveret_listener::AcceptedClient;
use leveret_node::{Broker, Connection, Permit};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Serves one client until its connection ends. `stop` is cancelled when the broker shuts down.
pub(crate) async fn serve(
    client: AcceptedClient,
    broker: Broker,
    pool: Arc<Pool>,
    stop: CancellationToken,
    permit: Permit,
) {
    let deadline = Instant::now() + HANDSHAKE_MAX;
    let AcceptedClient { stream, peer, local } = client;
    let (read, mut write) = stream.into_split();
    let mut reader = ConnectionReader::new(read, pool);
    match in_time(deadline, &permit, &stop, reader.protocol(&stop)).await {
        Some(ProtocolHeader::Amqp091) => {}
        Some(ProtocolHeader::Other) => {
            tracing::debug!(%peer, "not AMQP 0-9-1");
            let _ = in_time(deadline, &permit, &stop, write.write_all(&PROTOCOL_HEADER)).await;
            let _ = write.shutdown().await;
            return;
        }
        Some(ProtocolHeader::Incomplete) | None => return,
    }
    let output = Arc::new(Output::new());
    let (beat, heartbeat) = watch::channel(None);
    let sent_bytes = Arc::new(AtomicU64::new(0));
    let (pool, sent) = (reader.pool.clone(), sent_bytes.clone());
    let writer = Writer { output: output.clone(), broker: broker.clone(), pool, heartbeat, sent_bytes: sent };
    let mut writing = tokio::spawn(writer.write(write));
    let handshake = Handshake::new(broker.clone(), output.clone(), &permit, Addresses { peer, local });
    let opened = in_time(deadline, &permit, &stop, reader.open(handshake, &output, &stop)).await;
    if let Some(Some((connection, capabilities))) = opened {
        reader.opened = true;
        if connection.heartbeat > 0 {
            reader.heartbeat = Some(Duration::from_secs(connection.heartbeat.into()));
            beat.send_replace(Some(Duration::from_secs(connection.heartbeat.into()) / 2));
        }
        let mut session = Session::new(broker.clone(), connection.clone(), output.clone(), capabilities);
        let end = AssertUnwindSafe(reader.run(&mut session, &stop, &sent_bytes)).catch_unwind().await;
        let end = end.unwrap_or_else(|_| {
            let text = "the broker failed at a frame of this connection";
            End::Failed(Failure::new(ReplyCode::InternalError, text))
        });
        let released = AssertUnwindSafe(session.release_all()).catch_unwind().await;
        if released.is_err() {
            tracing::error!(connection = connection.name, "not all that the connection held was released");
        }
        broker.disconnected(&connection).await;
        reader.say_goodbye(end, &output, &connection).await;
    }
    output.close();
    if timeout(GOODBYE_MAX, &mut writing).await.is_err() {
        writing.abort(); // a client that does not read has no claim on the last answers
        return;
    }
    reader.discard().await;
}

struct ConnectionReader {
    socket: OwnedReadHalf,
    /// Lends the buffer, and determines the length of a turn.
    pool: Arc<Pool>,
    /// Bytes that were read and not handled yet.
    buffer: Vec<u8>,
    /// True once the client has opened its connection; until then it has a small buffer.
    opened: bool,
    /// The heartbeat interval that was agreed upon; a silence of twice as long ends the connection.
    heartbeat: Option<Duration>,
    /// The number of bytes that were read so far, which the management API shows.
    received: u64,
    /// The number of bytes that were handled since other tasks last had their turn.
    turn_bytes: usize,
    /// The time of the last part of a message, while there are messages that have not arrived in full.
    incomplete_since: Option<Instant>,
}

impl ConnectionReader {
    fn new(socket: OwnedReadHalf, pool: Arc<Pool>) -> Self {
        Self {
            socket,
            pool,
            buffer: Vec::new(),
            opened: false,
            heartbeat: None,
            received: 0,
            turn_bytes: 0,
            incomplete_since: None,
        }
    }

    async fn protocol(&mut self, stop: &CancellationToken) -> ProtocolHeader {
        loop {
            if self.fill(stop).await.is_err() {
                return ProtocolHeader::Incomplete;
            }
            match frame::protocol(&self.buffer) {
                ProtocolHeader::Incomplete => {}
                ProtocolHeader::Amqp091 => {
                    self.consumed(PROTOCOL_HEADER.len());
                    return ProtocolHeader::Amqp091;
                }
                ProtocolHeader::Other => return ProtocolHeader::Other,
            }
        }
    }

    /// Makes the handshake, up to the open connection.
    async fn open(
        &mut self,
        mut handshake: Handshake<'_>,
        output: &Arc<Output>,
        stop: &CancellationToken,
    ) -> Option<(Arc<Connection>, Capabilities)> {
        loop {
            match handshake.advance(&self.buffer).await {
                Ok((used, opened)) => {
                    self.consumed(used);
                    if let Some(connection) = opened {
                        return Some((connection, handshake.capabilities));
                    }
                }
                Err(failure) => {
                    handshake.log(&failure);
                    if handshake.tells(&failure) {
                        self.close(&failure, output).await;
                    }
                    return None;
                }
            }
            if handshake.is_over() {
                output.write(|state| encode::bare(&mut state.buffer, 0, MethodId::CONNECTION_CLOSE_OK));
                return None;
            }
            self.fill(stop).await.ok()?;
        }
    }

    /// Reads and handles until the end.
    async fn run(&mut self, session: &mut Session, stop: &CancellationToken, sent_bytes: &AtomicU64) -> End {
        let connection = session.context.connection.clone();
        let ends = ConnectionEnds { connection: &connection, stop };
        loop {
            match session.handle(&self.buffer, &self.pool.turns, || hold::ended(&self.socket, &ends)).await {
                Ok(used) => {
                    self.turn_bytes += used + READ_COST;
                    self.consumed(used);
                }
                Err(end) => return end,
            }
            if session.progress == Progress::Finished {
                return End::Asked;
            }
            let (context, throttle) = session.throttle();
            let published = throttle.has_published();
            if let Err(end) = hold::back(context, throttle, &self.socket, &ends).await {
                return end;
            }
            if !connection.holds_incomplete() {
                self.incomplete_since = None;
            } else if published || self.incomplete_since.is_none() {
                self.incomplete_since = Some(Instant::now());
            }
            if session.progress == Progress::Paused || session.context.output.is_unread() {
                let read = session.context.output.until_read();
                let stalled = hold::until_it_stalls(sent_bytes, self.heartbeat);
                let held = tokio::select! {
                    biased;
                    held = hold::until(read, &self.socket, &ends) => held,
                    end = stalled => Err(end),
                };
                if let Err(end) = held {
                    return end;
                }
                continue; // with the frames that were left in the buffer
            }
            if session.has_logged_much() {
                tokio::task::yield_now().await; // so that the log takes these bytes before more are read
            }
            if self.turn_bytes >= self.pool.turns.bytes_max() {
                self.turn_bytes = 0;
                self.pool.turns.pass().await;
            }
            let incomplete_since = self.incomplete_since;
            let no_use = async {
                match incomplete_since {
                    Some(since) => hold::until_it_waits_for_itself(&session.context, since).await,
                    None => std::future::pending().await,
                }
            };
            let filled = tokio::select! {
                biased;
                () = connection.close.cancelled() => return End::Failed(hold::forced(&connection.close_reason.lock())),
                filled = self.fill(stop) => filled,
                end = no_use => return end,
            };
            session.context.broker.mark_activity();
            connection.received_bytes.store(self.received, Relaxed);
            connection.sent_bytes.store(sent_bytes.load(Relaxed), Relaxed);
            match filled {
                Ok(()) => {}
                Err(Silence::Stopping) => return End::Failed(hold::forced(hold::STOPPING)),
                Err(Silence::Gone) => return End::Lost,
            }
        }
    }

    /// Reads more bytes.
    ///
    /// # Errors
    /// [`Silence`], if no more come.
    async fn fill(&mut self, stop: &CancellationToken) -> Result<(), Silence> {
        let deadline = self.heartbeat.map(|heartbeat| Instant::now() + heartbeat * 2);
        loop {
            let silence = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let holds_room = self.room() >= ROOM_MIN;
            let pause = async {
                match holds_room {
                    true => tokio::time::sleep(PAUSE).await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(Silence::Stopping),
                ready = self.socket.readable() => ready.map_err(|_| Silence::Gone)?,
                () = silence => return Err(Silence::Gone),
                () = pause => {
                    let rest = self.buffer.as_slice().into();
                    self.pool.give_back(std::mem::replace(&mut self.buffer, rest));
                    continue;
                }
            }
            if !self.opened {
                self.buffer.reserve(HANDSHAKE_ROOM);
            } else if self.room() < ROOM_MIN {
                let rest = std::mem::replace(&mut self.buffer, self.pool.take());
                self.buffer.extend_from_slice(&rest);
                self.buffer.reserve(ROOM_MIN);
            }
            let turn = self.pool.turns.bytes_max();
            match self.socket.try_read_buf(&mut (&mut self.buffer).limit(turn)) {
                Ok(0) => return Err(Silence::Gone),
                Ok(bytes) => {
                    self.received += bytes as u64;
                    return Ok(());
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    self.turn_bytes = 0;
                    self.consumed(0);
                }
                Err(_) => return Err(Silence::Gone),
            }
        }
    }

    /// Returns the number of bytes that the buffer has room for without growing.
    fn room(&self) -> usize {
        self.buffer.capacity() - self.buffer.len()
    }

    /// Takes handled bytes off the front. An empty buffer goes back to the pool.
    fn consumed(&mut self, bytes: usize) {
        if bytes == self.buffer.len() {
            self.pool.give_back(std::mem::take(&mut self.buffer));
        } else if bytes > 0 {
            self.buffer.drain(..bytes);
        }
    }

    async fn say_goodbye(&mut self, end: End, output: &Output, connection: &Connection) {
        match end {
            End::Asked => output.write(|state| encode::bare(&mut state.buffer, 0, MethodId::CONNECTION_CLOSE_OK)),
            End::Lost => tracing::debug!(connection = connection.name, "client is gone without a word"),
            End::Failed(failure) => {
                tracing::warn!(connection = connection.name, "closing the connection: {}", failure.text);
                self.close(&failure, output).await;
            }
        }
    }

    /// Reads and drops the client's last bytes until it closes its end too. Closing a socket with unread bytes would
    /// reset it, and the client might never see the broker's last answer.
    async fn discard(&mut self) {
        let never = CancellationToken::new();
        let closed = async {
            self.heartbeat = None;
            self.buffer.clear();
            while self.fill(&never).await.is_ok() {
                self.consumed(self.buffer.len());
            }
        };
        let _ = timeout(GOODBYE_MAX, closed).await;
        self.consumed(self.buffer.len());
    }

    /// Tells the client why the connection is closed, and waits a moment for its answer.
    async fn close(&mut self, failure: &Failure, output: &Output) {
        let arguments = encode::Close { code: failure.code, text: &failure.text, cause: failure.cause };
        output.write(|state| encode::connection_close(&mut state.buffer, &arguments));
        let (never, frame_max) = (CancellationToken::new(), output.lock().frame_max);
        let answered = async {
            loop {
                let (used, answer) = find_answer(&self.buffer, frame_max);
                self.consumed(used);
                if let Some(CloseAnswer::ClosesToo) = answer {
                    output.write(|state| encode::bare(&mut state.buffer, 0, MethodId::CONNECTION_CLOSE_OK));
                }
                if answer.is_some() || self.fill(&never).await.is_err() {
                    return;
                }
            }
        };
        let _ = timeout(GOODBYE_MAX, answered).await;
    }
}

/// The client's answer to a close by the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CloseAnswer {
    /// The client agrees.
    Agrees,
    /// The client closed the connection at the same time, and is to be answered as well.
    ClosesToo,
}

/// Returns how many of a client's last bytes can be dropped, and whether the client ended the connection with them. If
/// frames are no longer in step, all bytes are dropped: nothing gathers.
fn find_answer(buffer: &[u8], frame_max: u32) -> (usize, Option<CloseAnswer>) {
    let mut at = 0;
    loop {
        match frame::parse(&buffer[at..], frame_max) {
            Ok(Some(frame)) => {
                at += frame.len;
                match method::parse(frame.payload) {
                    Ok(Method::ConnectionCloseOk) => return (at, Some(CloseAnswer::Agrees)),
                    Ok(Method::ConnectionClose { .. }) => return (at, Some(CloseAnswer::ClosesToo)),
                    _ => {}
                }
            }
            Ok(None) => return (at, None),
            Err(_) => return (buffer.len(), None),
        }
    }
}

/// The reason why no more bytes arrive.
enum Silence {
    Gone,
    Stopping,
}

/// The time that a client has to agree that the connection is closed.
const GOODBYE_MAX: Duration = Duration::from_secs(2);
/// The cost of a read in addition to that of its bytes, as a number of bytes.
const READ_COST: usize = 2 << 10;
/// Room for the next read of a client that has not opened its connection, in bytes.
const HANDSHAKE_ROOM: usize = 4 << 10;
/// Room for the next read, in bytes.
const ROOM_MIN: usize = 64 << 10;
/// A client that sends nothing for this long is assumed not to send the rest of a frame soon.
const PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpStream;

    #[tokio::test]
    async fn half_a_frame_that_nothing_follows_takes_only_its_own_memory() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (read, _write) = listener.accept().await.unwrap().0.into_split();
        let (mut reader, never) = (ConnectionReader::new(read, Arc::default()), CancellationToken::new());
        reader.opened = true;
        client.write_all(b"\x01\0\x01\0\0").await.unwrap();
        assert!(reader.fill(&never).await.is_ok());
        assert!(reader.room() >= ROOM_MIN);
        assert!(timeout(PAUSE * 3, reader.fill(&never)).await.is_err(), "there is no more");
        assert_eq!((&*reader.buffer, reader.room()), (&b"\x01\0\x01\0\0"[..], 0));
        client.write_all(b"\0\x04").await.unwrap();
        assert!(reader.fill(&never).await.is_ok());
        assert_eq!(reader.buffer, b"\x01\0\x01\0\0\0\x04");
        assert!(reader.room() >= ROOM_MIN, "reads are as large as before");
    }

    #[test]
    fn no_bytes_gather_while_a_client_is_sent_away() {
        let close = b"\x01\0\0\0\0\0\x0b\0\x0a\0\x32\0\xc8\0\0\0\0\0\xce";
        let (publish, close_ok) = (&b"\x01\0\x01\0\0\0\x04\0\x3c\0\x28\xce"[..], b"\x01\0\0\0\0\0\x04\0\x0a\0\x33\xce");
        for (buffer, expected) in [
            (publish.to_vec(), (publish.len(), None)),
            ([publish, close].concat(), (publish.len() + close.len(), Some(CloseAnswer::ClosesToo))),
            ([publish, close_ok].concat(), (publish.len() + close_ok.len(), Some(CloseAnswer::Agrees))),
            ([publish, &close_ok[..5]].concat(), (publish.len(), None)),
            (b"\x03\0\x01\0\x10\0\0 the beginning of a large frame".to_vec(), (38, None)),
            (b"no frame at all".to_vec(), (15, None)),
        ] {
            assert_eq!(find_answer(&buffer, 8192), expected, "{}", buffer.escape_ascii());
        }
    }
}
