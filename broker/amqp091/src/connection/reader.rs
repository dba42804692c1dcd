//! The task that reads: bytes into a buffer, complete frames out of it, until one side has enough.
//!
//! The buffer comes from a pool while there is something in it: an idle connection holds none.
use super::failure::Failure;
use super::handshake::{HANDSHAKE_MAX, Handshake, in_time};
use super::output::Output;
use super::session::Session;
use super::writer;
use crate::codec::encode;
use crate::codec::frame::{self, PROTOCOL_HEADER, Protocol};
use crate::codec::method::{self, Method};
use crate::pool::Pool;
use leveret_node::{Broker, Connection, Permit};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Serves one client until it is gone. `stop` is cancelled when the broker shuts down.
pub(crate) async fn serve(socket: TcpStream, broker: Broker, pool: Arc<Pool>, stop: CancellationToken, permit: Permit) {
    let deadline = Instant::now() + HANDSHAKE_MAX;
    let (Ok(peer), Ok(local)) = (socket.peer_addr(), socket.local_addr()) else { return };
    let _ = socket.set_nodelay(true);
    let (read, mut write) = socket.into_split();
    let mut reader = Reader { socket: read, pool, buffer: Vec::new(), opened: false, heartbeat: None, received: 0 };
    match in_time(deadline, &permit, &stop, reader.protocol(&stop)).await {
        Some(Protocol::Amqp091) => {}
        Some(Protocol::Other) => {
            tracing::debug!(%peer, "not AMQP 0-9-1");
            let _ = in_time(deadline, &permit, &stop, write.write_all(&PROTOCOL_HEADER)).await;
            let _ = write.shutdown().await;
            return;
        }
        Some(Protocol::Incomplete) | None => return,
    }
    let output = Arc::new(Output::new());
    let (beat, heartbeat) = watch::channel(None);
    let sent_bytes = Arc::new(AtomicU64::new(0));
    let writing = tokio::spawn(writer::write(write, output.clone(), broker.clone(), heartbeat, sent_bytes.clone()));
    let handshake = Handshake::new(broker.clone(), output.clone(), &permit, (peer, local));
    let opened = in_time(deadline, &permit, &stop, reader.open(handshake, &output, &stop)).await;
    if let Some(Some((connection, client))) = opened {
        reader.opened = true;
        if connection.heartbeat > 0 {
            reader.heartbeat = Some(Duration::from_secs(connection.heartbeat.into()));
            beat.send_replace(Some(Duration::from_secs(connection.heartbeat.into()) / 2));
        }
        let mut session = Session::new(broker.clone(), connection.clone(), output.clone(), client);
        let end = reader.run(&mut session, (&stop, &sent_bytes)).await;
        session.release_all().await;
        broker.disconnected(&connection).await;
        reader.say_goodbye(end, &output, &connection).await;
    }
    output.close();
    let _ = timeout(GOODBYE_MAX, writing).await;
}

/// How a connection ends.
enum End {
    /// The client said so, and is answered.
    Asked,
    /// The socket is gone, or silent for too long.
    Lost,
    /// We end it, and say why.
    Failed(Failure),
}

struct Reader {
    socket: OwnedReadHalf,
    pool: Arc<Pool>,
    buffer: Vec<u8>,
    /// A client that has not opened its connection is given a small buffer.
    opened: bool,
    /// Twice as long a silence ends the connection.
    heartbeat: Option<Duration>,
    received: u64,
}

impl Reader {
    async fn protocol(&mut self, stop: &CancellationToken) -> Protocol {
        loop {
            if self.fill(stop).await.is_err() {
                return Protocol::Incomplete;
            }
            match frame::protocol(&self.buffer) {
                Protocol::Incomplete => {}
                Protocol::Amqp091 => {
                    self.consumed(PROTOCOL_HEADER.len());
                    return Protocol::Amqp091;
                }
                Protocol::Other => return Protocol::Other,
            }
        }
    }

    /// The handshake, up to the open connection.
    async fn open(
        &mut self,
        mut handshake: Handshake<'_>,
        output: &Arc<Output>,
        stop: &CancellationToken,
    ) -> Option<(Arc<Connection>, super::session::Client)> {
        loop {
            match handshake.advance(&self.buffer).await {
                Ok((used, opened)) => {
                    self.consumed(used);
                    if let Some(connection) = opened {
                        return Some((connection, handshake.client));
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
                output.write(|state| encode::bare(&mut state.buffer, 0, (10, 51)));
                return None;
            }
            self.fill(stop).await.ok()?;
        }
    }

    /// Reads and handles until the end.
    async fn run(&mut self, session: &mut Session, (stop, sent_bytes): (&CancellationToken, &AtomicU64)) -> End {
        let connection = session.connection.clone();
        loop {
            match session.handle(&self.buffer).await {
                Ok(used) => self.consumed(used),
                Err(failure) => return End::Failed(failure),
            }
            if session.finished {
                return End::Asked;
            }
            if let Some(queue) = session.outrunning.take() {
                queue.let_consumers_catch_up().await;
            }
            if std::mem::take(&mut session.published) && session.broker.memory().is_alarmed() {
                self.hold_back(session, stop).await;
            }
            let filled = tokio::select! {
                biased;
                filled = self.fill(stop) => filled,
                () = connection.close.cancelled() => return End::Failed(forced(&connection.close_reason.lock())),
            };
            connection.received_bytes.store(self.received, Relaxed);
            connection.sent_bytes.store(sent_bytes.load(Relaxed), Relaxed);
            match filled {
                Ok(()) => {}
                Err(Silence::Stopping) => return End::Failed(forced("broker is shutting down")),
                Err(Silence::Gone) => return End::Lost,
            }
        }
    }

    /// Memory or disk are used up: the publisher is not read from until there is room, and is told if it wants to know.
    async fn hold_back(&self, session: &Session, stop: &CancellationToken) {
        let (output, connection) = (&session.output, &session.connection);
        connection.blocked.store(true, Relaxed);
        if session.client.connection_blocked {
            let reason = if session.broker.memory().is_disk_full() { "low on disk" } else { "low on memory" };
            output.write(|state| encode::connection_blocked(&mut state.buffer, reason));
        }
        tokio::select! {
            () = session.broker.memory().until_cleared() => {}
            () = stop.cancelled() => {}
            () = connection.close.cancelled() => {}
        }
        connection.blocked.store(false, Relaxed);
        if session.client.connection_blocked {
            output.write(|state| encode::bare(&mut state.buffer, 0, (10, 61)));
        }
    }

    /// Waits for more bytes.
    async fn fill(&mut self, stop: &CancellationToken) -> Result<(), Silence> {
        let deadline = self.heartbeat.map(|heartbeat| Instant::now() + heartbeat * 2);
        loop {
            let silence = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                ready = self.socket.readable() => ready.map_err(|_| Silence::Gone)?,
                () = stop.cancelled() => return Err(Silence::Stopping),
                () = silence => return Err(Silence::Gone),
            }
            if !self.opened {
                self.buffer.reserve(HANDSHAKE_ROOM);
            } else if self.buffer.capacity() == 0 {
                self.buffer = self.pool.take();
            } else if self.buffer.capacity() - self.buffer.len() < ROOM_MIN {
                self.buffer.reserve(ROOM_MIN);
            }
            match self.socket.try_read_buf(&mut self.buffer) {
                Ok(0) => return Err(Silence::Gone),
                Ok(bytes) => {
                    self.received += bytes as u64;
                    return Ok(());
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => self.consumed(0),
                Err(_) => return Err(Silence::Gone),
            }
        }
    }

    /// Takes handled bytes off the front; an empty buffer goes back.
    fn consumed(&mut self, bytes: usize) {
        if bytes == self.buffer.len() {
            self.pool.give_back(std::mem::take(&mut self.buffer));
        } else if bytes > 0 {
            self.buffer.drain(..bytes);
        }
    }

    async fn say_goodbye(&mut self, end: End, output: &Output, connection: &Connection) {
        match end {
            End::Asked => output.write(|state| encode::bare(&mut state.buffer, 0, (10, 51))),
            End::Lost => tracing::debug!(connection = connection.name, "client is gone without a word"),
            End::Failed(failure) => {
                tracing::warn!(connection = connection.name, "closing the connection: {}", failure.text);
                self.close(&failure, output).await;
            }
        }
    }

    /// Tells the client why, and waits a moment for its answer.
    async fn close(&mut self, failure: &Failure, output: &Output) {
        output.write(|state| encode::connection_close(&mut state.buffer, failure.code, &failure.text, failure.cause));
        let never = CancellationToken::new();
        let answered = async {
            self.buffer.clear();
            while self.fill(&never).await.is_ok() {
                let mut at = 0;
                while let Ok(Some(frame)) = frame::parse(&self.buffer[at..], 0) {
                    at += frame.len;
                    if let Ok(Method::ConnectionCloseOk | Method::ConnectionClose { .. }) = method::parse(frame.payload)
                    {
                        return;
                    }
                }
                if at == 0 && self.buffer.len() > DISCARD_MAX {
                    return;
                }
                self.consumed(at);
            }
        };
        let _ = timeout(GOODBYE_MAX, answered).await;
    }
}

/// Why no more bytes come.
enum Silence {
    Gone,
    Stopping,
}

fn forced(reason: &str) -> Failure {
    Failure::new(320, reason)
}

/// How long a client has to agree that the connection is closed.
const GOODBYE_MAX: Duration = Duration::from_secs(2);
/// Room for the next read of a client that has not opened its connection, in bytes.
const HANDSHAKE_ROOM: usize = 4 << 10;
/// Room for the next read, in bytes.
const ROOM_MIN: usize = 64 << 10;
/// A client that keeps sending what is no frame is not listened to beyond this.
const DISCARD_MAX: usize = 1 << 20;
