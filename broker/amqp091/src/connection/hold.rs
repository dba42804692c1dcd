//! The reasons not to read from a client for a while: consumers or a log that are too slow, memory or disk that are used
//! up, answers that the client does not read.
//!
//! Meanwhile the client's further bytes wait in the socket, among them its heartbeats and its close. Therefore the end of
//! the connection is looked for beside the socket's bytes, several times a second, so that the memory of a client that
//! has gone is soon free.
use super::context::Context;
use super::failure::{End, Failure};
use super::output::Output;
use crate::codec::encode;
use crate::codec::ids::MethodId;
use crate::codec::reply::ReplyCode;
use leveret_node::{Connection, Throttle};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The two ways in which the broker ends a connection.
#[derive(Clone, Copy)]
pub(crate) struct ConnectionEnds<'e> {
    /// The connection, which the management API may close.
    pub(crate) connection: &'e Connection,
    /// Cancelled when the broker shuts down.
    pub(crate) stop: &'e CancellationToken,
}

/// Waits until the future `room` ends, unless the connection ends before.
///
/// # Errors
/// The way in which the connection ended before that.
pub(crate) async fn until(
    room: impl Future<Output = ()>,
    socket: &OwnedReadHalf,
    ends: &ConnectionEnds<'_>,
) -> Result<(), End> {
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

/// Returns how the connection ended while much work was done for the client, or `None` if it is still open. A client that
/// only closed its sending side still has its earlier requests handled.
pub(crate) fn ended(socket: &OwnedReadHalf, ends: &ConnectionEnds<'_>) -> Option<End> {
    if ends.connection.close.is_cancelled() {
        return Some(End::Failed(forced(&ends.connection.close_reason.lock())));
    }
    if ends.stop.is_cancelled() {
        return Some(End::Failed(forced(STOPPING)));
    }
    has(socket, PollFlags::empty()).then_some(End::Lost)
}

/// Holds back a client that published more than there is room for, until the consumers or the log have caught up a bit,
/// and until memory and disk have room. The client is told about memory and disk if it asked for that.
///
/// # Errors
/// The way in which the connection ended meanwhile.
pub(crate) async fn back(
    context: &Context,
    throttle: &mut Throttle,
    socket: &OwnedReadHalf,
    ends: &ConnectionEnds<'_>,
) -> Result<(), End> {
    if throttle.lags() {
        // The log takes nothing any more while most nodes cannot be reached, and the client is told so.
        let caught_up = async {
            tokio::select! {
                biased;
                () = throttle.until_caught_up() => {}
                () = context.broker.memory().until_cluster_alarmed() => {}
            }
        };
        until(caught_up, socket, ends).await?;
    }
    if !throttle.is_alarmed(context.broker.memory()) {
        return Ok(());
    }
    let Context { output, connection, broker, capabilities, .. } = context;
    connection.blocked.store(true, Relaxed);
    if capabilities.connection_blocked {
        let reason = broker.memory().alarm_in_words();
        output.write(|state| encode::connection_blocked(&mut state.buffer, reason));
    }
    // The client's heartbeats are not read meanwhile. It counts as present as long as it accepts ours.
    let limit = match connection.heartbeat {
        0 => VANISHED_MS,
        seconds => u32::from(seconds) * 2000,
    };
    let _ = sockopt::set_tcp_user_timeout(socket.as_ref(), limit);
    let held = tokio::select! {
        biased;
        held = until(broker.memory().until_cleared(), socket, ends) => held,
        () = nudge(output), if connection.heartbeat == 0 => Err(End::Lost),
        end = until_it_waits_for_itself(context, Instant::now()) => Err(end),
    };
    let _ = sockopt::set_tcp_user_timeout(socket.as_ref(), 0);
    connection.blocked.store(false, Relaxed);
    if capabilities.connection_blocked {
        output.write(|state| encode::bare(&mut state.buffer, 0, MethodId::CONNECTION_UNBLOCKED));
    }
    held
}

/// Sends heartbeats at intervals, without end, to a client that asked for none. The client's close may wait behind
/// bytes that are not read; but if no process has the client's socket any more, its system answers a heartbeat with a
/// reset.
async fn nudge(output: &Output) {
    loop {
        tokio::time::sleep(NUDGE_EVERY).await;
        output.write(|state| encode::heartbeat(&mut state.buffer));
    }
}

/// Waits until the connection has to be closed because further waiting is useless: it has been held back, or has sent
/// nothing of the messages that it began, ever since `since`, and incomplete messages, some of them of this connection,
/// fill the memory. Such connections are not all closed at the same time: those that stay may have room once others are
/// gone.
pub(crate) async fn until_it_waits_for_itself(context: &Context, since: Instant) -> End {
    let turn = (context.connection.id.number % TURNS_TO_LEAVE) as u32;
    tokio::time::sleep_until(since + LEAVE_AFTER + LEAVE_EVERY * turn).await;
    while !context.broker.waits_for_itself(&context.connection) {
        tokio::time::sleep(LEAVE_EVERY * TURNS_TO_LEAVE as u32).await;
    }
    End::Failed(Failure::new(ReplyCode::ResourceError, WAITS_FOR_ITSELF))
}

/// Waits until the client has read nothing for as long as it may be silent. Its heartbeats are not seen meanwhile: they
/// come after requests that are handled only when it reads.
pub(crate) async fn until_it_stalls(sent_bytes: &AtomicU64, heartbeat: Option<Duration>) -> End {
    let limit = heartbeat.map_or(UNREAD_MAX, |heartbeat| heartbeat * 2);
    loop {
        let before = sent_bytes.load(Relaxed);
        tokio::time::sleep(limit).await;
        if sent_bytes.load(Relaxed) == before {
            return End::Failed(forced(&format!("answers were not read for {} s", limit.as_secs())));
        }
    }
}

/// Returns whether the connection was reset or the socket is in a state of `flags`: `RDHUP` means that the peer has
/// closed its sending side, whatever it sent before that.
fn has(socket: &OwnedReadHalf, flags: PollFlags) -> bool {
    let mut looked_at = [PollFd::new(socket.as_ref(), flags)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut looked_at, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Returns the failure of a connection that the broker closes (320), with the reason.
pub(crate) fn forced(reason: &str) -> Failure {
    Failure::new(ReplyCode::ConnectionForced, reason)
}

/// The reason that clients are given when the broker stops.
pub(crate) const STOPPING: &str = "broker is shutting down";
/// The time for which a client without heartbeats may leave its answers unread.
const UNREAD_MAX: Duration = Duration::from_secs(60);
const NUDGE_EVERY: Duration = Duration::from_secs(5);
const WAITS_FOR_ITSELF: &str = "memory is used up by incomplete messages, some of them of this connection";
/// The time for which a publisher may be held back or silent before it is closed because it waits for itself.
const LEAVE_AFTER: Duration = Duration::from_secs(10);
/// The interval at which such connections are closed, one after the other.
const LEAVE_EVERY: Duration = Duration::from_millis(250);
const TURNS_TO_LEAVE: u64 = 16;
/// The interval at which a connection that is not read from is checked for its end.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A peer without heartbeats that acknowledges no bytes for this long has vanished, in milliseconds.
const VANISHED_MS: u32 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn slow_readers_are_waited_for_and_clients_that_do_not_read_are_closed() {
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
}
