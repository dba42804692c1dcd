//! The socket of a client, wrapped for hyper so that it records since when the broker has been waiting for the client.
//!
//! The broker waits for a client that has sent no request or only part of one, whose login is being tried, or that does not
//! read its answer. Each of these waits has a deadline; and when there are too many clients, the one that has been waited
//! for the longest is disconnected first.
use crate::Bounds;
use hyper::rt::{Read, ReadBufCursor, Write};
use leveret_listener::WaitingClient;
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

/// A connected client.
pub(crate) struct HttpClient {
    state: Mutex<SocketState>,
    /// Cancelled when the client is to be disconnected.
    pub(crate) leave: CancellationToken,
    /// True if the client came when there was no room for more. It gets one answer: 503, unless it asks for a health
    /// check.
    pub(crate) only_health: bool,
}

struct SocketState {
    phase: Phase,
    /// Since when a write has waited for the client to read.
    unread_since: Option<Instant>,
}

#[derive(Clone, Copy)]
enum Phase {
    /// No byte of the first request has arrived.
    New(Instant),
    /// No byte of the next request has arrived.
    Idle(Instant),
    /// Part of a request's head has arrived.
    Head(Instant),
    /// The request's body has not arrived in full. `request` keeps the deadline, and answers when it passes.
    Body(Instant),
    /// The login is being tried, within the bounds of `login`. A client that is not logged in has no claim to its place.
    Login(Instant),
    /// The client waits for the broker.
    Served,
}

impl HttpClient {
    pub(crate) fn new(only_health: bool) -> Self {
        let state = SocketState { phase: Phase::New(Instant::now()), unread_since: None };
        Self { state: Mutex::new(state), leave: CancellationToken::new(), only_health }
    }

    /// Records that the broker has all that it needs of a request for now: from here on the client waits.
    pub(crate) fn asked(&self) {
        self.state.lock().phase = Phase::Served;
    }

    /// Records that the broker waits for the body of the request.
    pub(crate) fn awaits_body(&self) {
        self.state.lock().phase = Phase::Body(Instant::now());
    }

    /// Records that the login of the request is being tried.
    pub(crate) fn logs_in(&self) {
        self.state.lock().phase = Phase::Login(Instant::now());
    }

    /// Records that a request was answered.
    pub(crate) fn answered(&self) {
        self.state.lock().phase = Phase::Idle(Instant::now());
    }

    /// Returns since when the client has been waited for; `None` if it is being served.
    pub(crate) fn waited_for_since(&self) -> Option<Instant> {
        let state = self.state.lock();
        state.unread_since.or(match state.phase {
            Phase::New(since) | Phase::Idle(since) | Phase::Head(since) | Phase::Body(since) | Phase::Login(since) => {
                Some(since)
            }
            Phase::Served => None,
        })
    }

    /// Returns the deadline until which the client is waited for; `None` if it is being served, or if `request` or `login`
    /// keeps the deadline.
    fn deadline(&self, bounds: &Bounds) -> Option<Instant> {
        let state = self.state.lock();
        let unread = state.unread_since.map(|since| since + bounds.write_max);
        unread.or(match state.phase {
            Phase::New(since) | Phase::Head(since) => Some(since + bounds.head_max),
            Phase::Idle(since) => Some(since + bounds.idle_max),
            Phase::Body(_) | Phase::Login(_) | Phase::Served => None,
        })
    }

    /// Waits until the client has been waited for beyond its deadline.
    pub(crate) async fn overdue(&self, bounds: &Bounds) {
        loop {
            let now = Instant::now();
            let deadline = self.deadline(bounds);
            if deadline.is_some_and(|deadline| deadline <= now) {
                return;
            }
            // The client's phase may change meanwhile, and with it the deadline.
            let later = now + bounds.head_max.min(bounds.write_max);
            tokio::time::sleep_until(deadline.map_or(later, |deadline| deadline.min(later))).await;
        }
    }
}

impl WaitingClient for HttpClient {
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

/// A socket that records the phase of its client.
pub(crate) struct Socket {
    /// Shared with the task of the connection, which takes the stream back when hyper is done with it.
    stream: Arc<Mutex<TcpStream>>,
    client: Arc<HttpClient>,
}

impl Socket {
    pub(crate) fn new(stream: Arc<Mutex<TcpStream>>, client: Arc<HttpClient>) -> Self {
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
            // Hyper writes to a client that is waited for only to refuse a malformed request. No answer is being written, so
            // the socket has room for all of this one.
            return Pin::new(&mut *stream).poll_write(context, &answer).map_ok(|_| bytes.len());
        }
        let written = Pin::new(&mut *stream).poll_write(context, bytes);
        if written.is_pending() {
            self.client.state.lock().unread_since.get_or_insert_with(Instant::now);
        }
        written
    }

    /// Hyper flushes when the kernel has taken all that was written, so no write is waiting any more.
    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.client.state.lock().unread_since = None;
        Poll::Ready(Ok(()))
    }

    /// Does nothing: [`take_leave`] shuts the stream down.
    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Returns an answer with a JSON body in place of `head`, if `head` is an empty answer (400, 414 or 431) with which hyper
/// refuses a malformed request by itself.
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

/// Ends a connection so that the client gets the last answer even if it is still sending: closing a socket with unread bytes
/// would reset the connection, so the rest is read for a while.
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

/// The most bytes that are read at a time.
const READ_BYTES: usize = 8 << 10;
/// The most bytes that are read from a client after its last answer.
const LEAVE_BYTES: usize = 4 << 20;
/// How long a client may take to close its side after the last answer.
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
        let client = Arc::new(HttpClient::new(false));
        let mut socket = Socket::new(Arc::new(Mutex::new(stream)), client.clone());
        let mut bounds = Bounds { write_max: Duration::from_millis(20), ..Bounds::http() };
        client.asked();
        assert!(client.waited_for_since().is_none() && client.deadline(&bounds).is_none());
        let mut context = Context::from_waker(Waker::noop());
        // Fills the buffers of the kernel.
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
