//! What keeps a client from being read from: consumers or a log that cannot follow, memory or disk used up, answers that
//! it does not read.
//!
//! Whatever the client sent meanwhile waits in the socket, its heartbeats and its end among it. So the end is looked for
//! beside the socket's bytes, several times a second: what a client held is free soon after it has gone.
use super::failure::Failure;
use super::output::Output;
use super::reader::End;
use super::session::Session;
use crate::codec::encode;
use leveret_node::Connection;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What ends a connection from our side.
pub(crate) struct Ends<'e> {
    /// The connection: the management API may close it.
    pub(crate) connection: &'e Connection,
    /// The broker shuts down.
    pub(crate) stop: &'e CancellationToken,
}

/// Options of a client's socket. Keepalive finds a peer that vanished although no heartbeats were agreed upon.
pub(crate) fn set_up(socket: &TcpStream) {
    let _ = socket.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(socket, true);
    let _ = sockopt::set_tcp_keepidle(socket, KEEPALIVE_IDLE);
    let _ = sockopt::set_tcp_keepintvl(socket, KEEPALIVE_EVERY);
    let _ = sockopt::set_tcp_keepcnt(socket, KEEPALIVE_PROBES);
}

/// Waits until `room` is done.
///
/// # Errors
/// How the connection ended before that.
pub(crate) async fn until(room: impl Future<Output = ()>, socket: &OwnedReadHalf, ends: &Ends<'_>) -> Result<(), End> {
    tokio::pin!(room);
    loop {
        tokio::select! {
            biased;
            () = &mut room => return Ok(()),
            () = ends.connection.close.cancelled() => {
                return Err(End::Failed(forced(&ends.connection.close_reason.lock())));
            }
            () = ends.stop.cancelled() => return Err(End::Failed(forced(STOPPING))),
            () = tokio::time::sleep(LOOK_EVERY) => {
                if has(socket, PollFlags::RDHUP) {
                    return Err(End::Lost);
                }
            }
        }
    }
}

/// How the connection has ended while a lot was done for the client, if it has. That the client only said nothing more is no
/// end: what it sent before is still done.
pub(crate) fn ended(socket: &OwnedReadHalf, ends: &Ends<'_>) -> Option<End> {
    if ends.connection.close.is_cancelled() {
        return Some(End::Failed(forced(&ends.connection.close_reason.lock())));
    }
    if ends.stop.is_cancelled() {
        return Some(End::Failed(forced(STOPPING)));
    }
    has(socket, PollFlags::empty()).then_some(End::Lost)
}

/// Holds a client back that published what there is no room for: until its consumers or the log have caught up a bit, and
/// until memory and disk have room. The client is told of the latter if it wants to know.
///
/// # Errors
/// How the connection ended meanwhile.
pub(crate) async fn back(session: &mut Session, socket: &OwnedReadHalf, ends: &Ends<'_>) -> Result<(), End> {
    if let Some(queue) = session.outrunning.take() {
        until(queue.until_logged(), socket, ends).await?;
        if let Some((limit, messages)) = session.pace.wait() {
            let mut kept_up = false;
            let catch_up = async { kept_up = queue.let_consumers_catch_up(limit, messages).await };
            until(catch_up, socket, ends).await?;
            session.pace.waited(kept_up);
        }
    }
    if !std::mem::take(&mut session.published) || !session.broker.memory().is_alarmed() {
        return Ok(());
    }
    let (output, connection) = (&session.output, &session.connection);
    connection.blocked.store(true, Relaxed);
    if session.client.connection_blocked {
        let reason = if session.broker.memory().is_disk_alarmed() { "low on disk" } else { "low on memory" };
        output.write(|state| encode::connection_blocked(&mut state.buffer, reason));
    }
    // Its heartbeats are not read meanwhile; that it takes ours shows that it is there.
    let limit = match connection.heartbeat {
        0 => VANISHED_MS,
        seconds => u32::from(seconds) * 2000,
    };
    let _ = sockopt::set_tcp_user_timeout(socket.as_ref(), limit);
    let held = tokio::select! {
        biased;
        held = until(session.broker.memory().until_cleared(), socket, ends) => held,
        () = nudge(output), if connection.heartbeat == 0 => Err(End::Lost),
        end = until_it_waits_for_itself(session, Instant::now()) => Err(end),
    };
    let _ = sockopt::set_tcp_user_timeout(socket.as_ref(), 0);
    connection.blocked.store(false, Relaxed);
    if session.client.connection_blocked {
        output.write(|state| encode::bare(&mut state.buffer, 0, (10, 61)));
    }
    held
}

/// Sends a heartbeat now and then to a client that wanted none, for ever. The end of a client may wait behind bytes that we do not
/// read; where nobody has the socket any more, the system that it was on answers whatever comes with a reset.
async fn nudge(output: &Output) {
    loop {
        tokio::time::sleep(NUDGE_EVERY).await;
        output.write(|state| encode::heartbeat(&mut state.buffer));
    }
}

/// Waits until it is no use to wait: the connection was held back, or sent nothing of the messages that it began, from `since`
/// on for long, and messages that have not come in full, some of its own among them, fill the memory. Not all such connections
/// are sent away at a time: those left may have room then.
pub(crate) async fn until_it_waits_for_itself(session: &Session, since: Instant) -> End {
    let turn = (session.connection.id.0 % TURNS_TO_LEAVE) as u32;
    tokio::time::sleep_until(since + LEAVE_AFTER + LEAVE_EVERY * turn).await;
    while !session.broker.waits_for_itself(&session.connection) {
        tokio::time::sleep(LEAVE_EVERY * TURNS_TO_LEAVE as u32).await;
    }
    End::Failed(Failure::new(506, WAITS_FOR_ITSELF))
}

/// Waits until the client has read nothing for as long as it may be silent. Its heartbeats are not seen meanwhile: they are
/// behind what nothing is done for until it reads.
pub(crate) async fn until_it_stalls(sent_bytes: &AtomicU64, heartbeat: Option<Duration>) -> End {
    let limit = heartbeat.map_or(UNREAD_MAX, |heartbeat| heartbeat * 2);
    loop {
        let before = sent_bytes.load(Relaxed);
        tokio::time::sleep(limit).await;
        if sent_bytes.load(Relaxed) == before {
            return End::Failed(Failure::new(320, format!("answers were not read for {} s", limit.as_secs())));
        }
    }
}

/// How long a publisher waits for the consumers of what it published: in proportion to what it was, so that a publisher is
/// never slowed below 24 MiB a second of large messages or 100,000 small ones, and seldom if waiting does not help.
#[derive(Default)]
pub(crate) struct Pace {
    /// Published to queues whose consumers cannot follow, and not waited for. A message counts as [`MESSAGE_BYTES`] more.
    bytes: u64,
    messages: u64,
    /// Bytes to be published before the next wait.
    pass_over: u64,
    /// Waits in a row that did not help.
    in_vain: u32,
}

impl Pace {
    /// Notes what was published to a queue whose consumers cannot follow.
    pub(crate) fn published(&mut self, messages: u64, body_bytes: u64) {
        self.messages += messages;
        self.bytes += messages * MESSAGE_BYTES + body_bytes;
    }

    /// How long to wait now, if at all, and for the consumption of how many messages.
    fn wait(&mut self) -> Option<(Duration, u64)> {
        if self.bytes < self.pass_over.max(WAIT_FOR_BYTES) {
            return None;
        }
        let (bytes, messages) = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.messages));
        let limit = Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / PACE_BYTES).min(WAIT_MAX);
        Some((limit, messages))
    }

    /// The consumers kept the pace, or it was too fast for them.
    fn waited(&mut self, kept_up: bool) {
        self.in_vain = if kept_up { 0 } else { (self.in_vain + 1).min(IN_VAIN_MAX) };
        self.pass_over = if kept_up { 0 } else { WAIT_FOR_BYTES << self.in_vain };
    }
}

/// Whether the connection was reset, or what `flags` ask for is so: with `RDHUP` that the peer has closed it, whatever it sent
/// before that.
fn has(socket: &OwnedReadHalf, flags: PollFlags) -> bool {
    let mut looked_at = [PollFd::new(socket.as_ref(), flags)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut looked_at, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// 320, and why.
pub(crate) fn forced(reason: &str) -> Failure {
    Failure::new(320, reason)
}

/// What clients are told when the broker stops.
pub(crate) const STOPPING: &str = "broker is shutting down";
/// A client without heartbeats may read nothing for so long while answers wait for it.
const UNREAD_MAX: Duration = Duration::from_secs(60);
const NUDGE_EVERY: Duration = Duration::from_secs(5);
const WAITS_FOR_ITSELF: &str =
    "memory is used up by messages that have not come in full, some of this connection among them";
/// A publisher is held back or silent for so long before it may be found to wait for itself.
const LEAVE_AFTER: Duration = Duration::from_secs(10);
/// Connections leave one after the other, in turns of this length.
const LEAVE_EVERY: Duration = Duration::from_millis(250);
const TURNS_TO_LEAVE: u64 = 16;
/// Bytes a second that a publisher is not slowed below.
const PACE_BYTES: u64 = 24 << 20;
/// What a message counts beside its body, in bytes.
const MESSAGE_BYTES: u64 = 224;
/// Published before a wait is worth it.
const WAIT_FOR_BYTES: u64 = 128 << 10;
const WAIT_MAX: Duration = Duration::from_millis(50);
/// After so many waits in vain the next one comes after 64 MiB.
const IN_VAIN_MAX: u32 = 10;
/// How often a connection that is not read from is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A peer without heartbeats that acknowledges nothing for this long has vanished, in milliseconds.
const VANISHED_MS: u32 = 60_000;
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_slowly_is_waited_for_and_one_that_does_not_is_sent_away() {
        let (sent, began) = (AtomicU64::new(0), Instant::now());
        let reads = async {
            for _ in 0..100 {
                tokio::time::sleep(UNREAD_MAX * 9 / 10).await;
                sent.fetch_add(1, Relaxed);
            }
            std::future::pending::<()>().await;
        };
        let end = tokio::select! {
            end = until_it_stalls(&sent, None) => end,
            () = reads => return,
        };
        assert!(matches!(end, End::Failed(failure) if failure.text.ends_with("answers were not read for 60 s")));
        let waited = began.elapsed();
        assert!(waited > UNREAD_MAX * 90 && waited < UNREAD_MAX * 93, "{waited:?}");
        until_it_stalls(&sent, Some(Duration::from_secs(5))).await;
        assert_eq!(began.elapsed() - waited, Duration::from_secs(10));
    }

    #[test]
    fn publishers_wait_in_proportion_and_seldom_if_it_does_not_help() {
        let mut pace = Pace::default();
        pace.published(100, 100);
        assert_eq!(pace.wait(), None, "too little to wait for");
        pace.published(1000, 16_000);
        let (limit, messages) = pace.wait().unwrap();
        assert_eq!(messages, 1100);
        assert!(limit > Duration::from_millis(8) && limit < Duration::from_millis(12), "{limit:?}");
        let mut waits = 0;
        for _ in 0..100_000 {
            pace.published(100, 1600);
            if pace.wait().is_some() {
                pace.waited(false);
                waits += 1;
            }
        }
        assert!((10..60).contains(&waits), "{waits} waits that did not help");
        pace.waited(true);
        pace.published(1000, 16_000);
        assert!(pace.wait().is_some(), "it helps again");
    }
}
