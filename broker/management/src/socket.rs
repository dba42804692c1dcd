//! A client's socket as hyper uses it, and what is known of the client from it: since when it has been waited for.
//!
//! A client is waited for while it has sent no request or a part of one, while it has not proved who it is, and while it does
//! not read its answer. Each of these has a bound; and when there are too many clients, the one that was waited for the
//! longest goes first.
use crate::Bounds;
use hyper::rt::{Read, ReadBufCursor, Write};
use leveret_listener::Waiting;
use parking_lot::Mutex;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A client that is connected.
pub(crate) struct Client {
    state: Mutex<State>,
    /// Cancelled to have it disconnected.
    pub(crate) leave: CancellationToken,
    /// It came when there was no room for more clients: nothing but the health of the node is told, once.
    pub(crate) only_health: bool,
}

struct State {
    phase: Phase,
    /// Since when an answer has not been read.
    unread_since: Option<Instant>,
}

#[derive(Clone, Copy)]
enum Phase {
    /// Nothing of the first request has come.
    New(Instant),
    /// Nothing of the next request has come.
    Idle(Instant),
    /// A part of a request's head has come.
    Head(Instant),
    /// A request's body has not come in full; `request` bounds how long that may take, and answers then.
    Body(Instant),
    /// A login is tried, which `login` bounds. A client that is not logged in has no claim to its place.
    Login(Instant),
    /// It waits for us.
    Served,
}

impl Client {
    pub(crate) fn new(only_health: bool) -> Self {
        let state = State { phase: Phase::New(Instant::now()), unread_since: None };
        Self { state: Mutex::new(state), leave: CancellationToken::new(), only_health }
    }

    /// A request has come, as far as it is needed.
    pub(crate) fn asked(&self) {
        self.state.lock().phase = Phase::Served;
    }

    /// The body of the request is waited for.
    pub(crate) fn awaits_body(&self) {
        self.state.lock().phase = Phase::Body(Instant::now());
    }

    /// The login of the request is being tried.
    pub(crate) fn logs_in(&self) {
        self.state.lock().phase = Phase::Login(Instant::now());
    }

    /// A request was answered.
    pub(crate) fn answered(&self) {
        self.state.lock().phase = Phase::Idle(Instant::now());
    }

    /// Until when it is waited for, if it is.
    fn deadline(&self, bounds: &Bounds) -> Option<Instant> {
        let state = self.state.lock();
        let unread = state.unread_since.map(|since| since + bounds.write_max);
        unread.or(match state.phase {
            Phase::New(since) | Phase::Head(since) => Some(since + bounds.head_max),
            Phase::Idle(since) => Some(since + bounds.idle_max),
            Phase::Body(_) | Phase::Login(_) | Phase::Served => None,
        })
    }

    /// Returns when it has been waited for too long.
    pub(crate) async fn overdue(&self, bounds: &Bounds) {
        loop {
            let now = Instant::now();
            let deadline = self.deadline(bounds);
            if deadline.is_some_and(|deadline| deadline <= now) {
                return;
            }
            // It may come to be waited for in another way meanwhile.
            let later = now + bounds.head_max.min(bounds.write_max);
            tokio::time::sleep_until(deadline.map_or(later, |deadline| deadline.min(later))).await;
        }
    }
}

impl Waiting for Client {
    fn waited_for_since(&self) -> Option<Instant> {
        let state = self.state.lock();
        state.unread_since.or(match state.phase {
            Phase::New(since) | Phase::Idle(since) | Phase::Head(since) | Phase::Body(since) | Phase::Login(since) => {
                Some(since)
            }
            Phase::Served => None,
        })
    }

    fn send_away(&self) {
        self.leave.cancel();
    }
}

/// A socket that tells its client's state.
pub(crate) struct Socket {
    /// Taken when hyper is done with it.
    stream: Arc<Mutex<TcpStream>>,
    client: Arc<Client>,
}

impl Socket {
    pub(crate) fn new(stream: Arc<Mutex<TcpStream>>, client: Arc<Client>) -> Self {
        Self { stream, client }
    }
}

impl Read for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut bytes = [0; READ_BYTES];
        let room = cursor.remaining().min(READ_BYTES);
        let mut buffer = ReadBuf::new(&mut bytes[..room]);
        let read = Pin::new(&mut *self.stream.lock()).poll_read(context, &mut buffer);
        if matches!(read, Poll::Ready(Ok(()))) && !buffer.filled().is_empty() {
            let mut state = self.client.state.lock();
            if matches!(state.phase, Phase::New(_) | Phase::Idle(_)) {
                state.phase = Phase::Head(Instant::now());
            }
            cursor.put_slice(buffer.filled());
        }
        read
    }
}

impl Write for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut stream = self.stream.lock();
        if self.client.waited_for_since().is_some()
            && let Some(answer) = explained(bytes)
        {
            // Nothing else has been written to a client whose request cannot be read: this has room.
            return Pin::new(&mut *stream).poll_write(context, &answer).map_ok(|_| bytes.len());
        }
        let written = Pin::new(&mut *stream).poll_write(context, bytes);
        if written.is_pending() {
            self.client.state.lock().unread_since.get_or_insert_with(Instant::now);
        }
        written
    }

    /// All that was written is on its way.
    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.client.state.lock().unread_since = None;
        Poll::Ready(Ok(()))
    }

    /// Left to [`take_leave`].
    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What hyper answers by itself to what is no request (only a status: 400, 414, 431) with a body that says why.
fn explained(head: &[u8]) -> Option<Vec<u8>> {
    let head = std::str::from_utf8(head).ok()?;
    let status = head.strip_prefix("HTTP/1.1 ").or_else(|| head.strip_prefix("HTTP/1.0 "))?.get(..3)?;
    if !head.to_ascii_lowercase().contains("content-length: 0\r\n") || head.contains("content-type") {
        return None;
    }
    let (phrase, error, reason) = match status {
        "400" => ("Bad Request", "bad_request", "the request is not HTTP: its first line or a header is malformed"),
        "414" => ("URI Too Long", "uri_too_long", "the path is too long"),
        "431" => ("Request Header Fields Too Large", "headers_too_large", "the headers are too many or too large"),
        _ => return None,
    };
    let body = format!("{{\"error\":\"{error}\",\"reason\":\"{reason}\"}}");
    let length = body.len();
    let head = format!("HTTP/1.1 {status} {phrase}\r\ncontent-type: application/json\r\nconnection: close\r\n");
    Some(format!("{head}content-length: {length}\r\n\r\n{body}").into_bytes())
}

/// Ends a connection so that the client gets the last answer, also when it is still sending: what comes is read for a while.
pub(crate) async fn take_leave(mut stream: TcpStream) {
    let _ = stream.shutdown().await;
    let read = async {
        let (mut bytes, mut left) = ([0; READ_BYTES], LEAVE_BYTES);
        while let Ok(read @ 1..) = stream.read(&mut bytes).await {
            left = match left.checked_sub(read) {
                Some(left) => left,
                None => return,
            };
        }
    };
    let _ = tokio::time::timeout(LEAVE_MAX, read).await;
}

/// Bytes read at a time.
const READ_BYTES: usize = 8 << 10;
/// Bytes that a client may send after its last answer.
const LEAVE_BYTES: usize = 4 << 20;
/// How long a client may take to close a connection that is over.
const LEAVE_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;
    use tokio::net::TcpListener;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_client_that_does_not_read_is_overdue_and_one_that_is_served_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _silent = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let client = Arc::new(Client::new(false));
        let mut socket = Socket::new(Arc::new(Mutex::new(stream)), client.clone());
        let mut bounds = Bounds { write_max: Duration::from_millis(20), ..Bounds::http() };
        client.asked();
        assert!(client.waited_for_since().is_none() && client.deadline(&bounds).is_none());
        let mut context = Context::from_waker(Waker::noop());
        // The kernel takes what it has room for.
        while let Poll::Ready(written) = Pin::new(&mut socket).poll_write(&mut context, &[b'x'; 65536]) {
            assert!(written.unwrap() > 0);
            tokio::task::yield_now().await;
        }
        tokio::time::timeout(PATIENCE, client.overdue(&bounds)).await.expect("overdue");
        assert!(Pin::new(&mut socket).poll_flush(&mut context).is_ready());
        assert!(client.waited_for_since().is_none());
        client.answered();
        bounds.idle_max = Duration::from_millis(1);
        tokio::time::timeout(PATIENCE, client.overdue(&bounds)).await.expect("overdue");
    }
}
