//! Limits on the number of clients, and the choice of the client that is closed when all places are taken.
//!
//! Every client takes a file descriptor, and storage must never lack one: a file that cannot be opened ends the process.
//! The descriptors are therefore shared out at the start, with a reserve that no client gets, and every listener asks
//! [`Broker::admit`] for a [`Permit`] before it serves a socket.
//!
//! A connection that messages go over is half-open until it has logged in and opened its virtual host. Half-open
//! connections have places of their own. When all of these are taken, a new client gets the place of the oldest
//! half-open connection if that one is more than a second old; otherwise the new client is closed. A client that logs
//! in at once therefore gets in, however many silent clients there are.
use crate::Broker;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::sync::Notify;

/// The largest number of clients of each kind at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest number of open connections that messages go over.
    pub connections_max: u64,
    /// The largest number of such connections that have not finished their login.
    pub half_open_connections_max: u64,
    /// The largest number of connections to the management API.
    pub http_connections_max: u64,
    /// The largest number of connections to the metrics port.
    pub metrics_connections_max: u64,
}

/// The limits that were configured; a limit that is `None` is calculated by [`Limits::share_out`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// See the field of [`Limits`] with the same name.
    pub connections_max: Option<u64>,
    /// See the field of [`Limits`] with the same name.
    pub half_open_connections_max: Option<u64>,
    /// See the field of [`Limits`] with the same name.
    pub http_connections_max: Option<u64>,
}

/// The reason why the limits do not fit the file descriptors of the process.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    /// The process may have fewer than the 256 descriptors that storage and a few clients need.
    #[error(
        "the process may have {0} file descriptors and needs at least {DESCRIPTORS_MIN}: raise the limit (ulimit -n)"
    )]
    FewDescriptors(u64),
    /// The configured limits and the reserve need more descriptors than the process may have.
    #[error(
        "{wanted} connections of all kinds and a reserve of {reserve} for storage are more than the {descriptors} file \
         descriptors that the process may have: raise the limit (ulimit -n) or lower connections_max"
    )]
    TooMany {
        /// The sum of all limits: open, half-open, management API and metrics.
        wanted: u64,
        /// The number of descriptors that no client gets.
        reserve: u64,
        /// The number of descriptors that the process may have.
        descriptors: u64,
    },
}

impl Limits {
    /// Shares `descriptors` out among the kinds of clients. Limits that were not configured are chosen so that idle
    /// connections alone do not use up a memory budget of `memory_max` bytes.
    ///
    /// # Errors
    /// [`LimitsError`] if there are fewer than 256 descriptors, or too few for the configured limits.
    pub fn share_out(descriptors: u64, memory_max: u64, wishes: Wishes) -> Result<Self, LimitsError> {
        if descriptors < DESCRIPTORS_MIN {
            return Err(LimitsError::FewDescriptors(descriptors));
        }
        let reserve = (descriptors / 8).clamp(RESERVE_MIN, RESERVE_MAX);
        let sockets = descriptors - reserve;
        let http = wishes.http_connections_max.unwrap_or((sockets / 4).min(HTTP_MAX));
        let metrics = (sockets / 16).min(METRICS_MAX);
        let messaging = sockets.saturating_sub(http.saturating_add(metrics)).min(memory_max / CONNECTION_BYTES).max(2);
        let half_open = wishes.half_open_connections_max.unwrap_or((messaging / 4).clamp(1, HALF_OPEN_MAX));
        let limits = Self {
            connections_max: wishes.connections_max.unwrap_or(messaging.saturating_sub(half_open).max(1)),
            half_open_connections_max: half_open,
            http_connections_max: http,
            metrics_connections_max: metrics,
        };
        let wanted = limits.connections_max.saturating_add(half_open).saturating_add(http).saturating_add(metrics);
        if wanted > sockets {
            return Err(LimitsError::TooMany { wanted, reserve, descriptors });
        }
        Ok(limits)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 16_384,
            half_open_connections_max: HALF_OPEN_MAX,
            http_connections_max: HTTP_MAX,
            metrics_connections_max: METRICS_MAX,
        }
    }
}

/// The place of one connection that messages go over. Dropping the permit frees the place, so it must not be dropped before the socket is closed.
pub struct Permit {
    places: Arc<Places>,
    kind: Mutex<PlaceKind>,
    withdrawn: Arc<Notify>,
}

/// The kind of place that a permit stands for.
#[derive(Clone, Copy, PartialEq)]
enum PlaceKind {
    HalfOpen(u64),
    Open,
}

impl Permit {
    /// Turns the place of a half-open connection into that of an open one. Does nothing if it is open already.
    ///
    /// # Errors
    /// The limit, if that many connections are open already.
    pub fn open(&self) -> Result<(), u64> {
        let mut kind = self.kind.lock();
        if let PlaceKind::HalfOpen(number) = *kind {
            let mut taken = self.places.taken.lock();
            if taken.open >= self.places.limits.connections_max {
                return Err(self.places.limits.connections_max);
            }
            taken.open += 1;
            taken.leave(number);
            *kind = PlaceKind::Open;
        }
        Ok(())
    }

    /// Waits until the place of this half-open connection was given to another client; the connection has to be closed
    /// then.
    pub async fn withdrawn(&self) {
        self.withdrawn.notified().await;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        match *self.kind.lock() {
            PlaceKind::HalfOpen(number) => taken.leave(number),
            PlaceKind::Open => taken.open -= 1,
        }
    }
}

/// The places for clients of all kinds.
pub(crate) struct Places {
    limits: Limits,
    taken: Mutex<TakenPlaces>,
    refusals: Seldom,
}

#[derive(Default)]
struct TakenPlaces {
    /// The half-open connections by their number, so the oldest comes first.
    half_open: BTreeMap<u64, HalfOpen>,
    next: u64,
    /// The number of half-open connections whose places were given to other clients and whose sockets are not closed yet.
    giving_way: u64,
    open: u64,
}

impl TakenPlaces {
    /// Removes the half-open connection with this number: it was opened or closed.
    fn leave(&mut self, number: u64) {
        if self.half_open.remove(&number).is_none() {
            self.giving_way -= 1;
        }
    }
}

struct HalfOpen {
    since_ns: u64,
    withdrawn: Arc<Notify>,
}

impl Places {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, taken: Mutex::default(), refusals: Seldom::default() })
    }

    /// Takes a place for a new client, whose connection is half-open; the admission has no permit if all places are taken.
    fn take(self: &Arc<Self>, now_ns: u64) -> Admission {
        let max = self.limits.half_open_connections_max;
        let mut met = None;
        let mut taken = self.taken.lock();
        if taken.half_open.len() as u64 >= max {
            met = Some(Met { limit: "half_open_connections_max", max });
            let giving_way = taken.giving_way;
            match taken.half_open.first_entry() {
                Some(oldest)
                    if now_ns.saturating_sub(oldest.get().since_ns) >= GRACE_NS && giving_way < GIVING_WAY_MAX =>
                {
                    oldest.remove().withdrawn.notify_one();
                    taken.giving_way += 1;
                }
                _ => return Admission { permit: None, met },
            }
        }
        let (number, withdrawn) = (taken.next, Arc::new(Notify::new()));
        taken.next += 1;
        taken.half_open.insert(number, HalfOpen { since_ns: now_ns, withdrawn: withdrawn.clone() });
        let permit = Permit { places: self.clone(), kind: Mutex::new(PlaceKind::HalfOpen(number)), withdrawn };
        Admission { permit: Some(permit), met }
    }
}

/// The answer to a client that asks for a place.
struct Admission {
    permit: Option<Permit>,
    /// The limit because of which this client got no place, or another client lost its place.
    met: Option<Met>,
}

/// A limit that is reached.
#[derive(Debug, PartialEq, Eq)]
struct Met {
    limit: &'static str,
    max: u64,
}

impl Broker {
    /// Returns a place for a new client of a protocol that messages go over. If all places are taken, logs it and returns
    /// `None`: the socket has to be closed at once. Clients of the management API and of the metrics port have places of
    /// their own, which their listeners count.
    pub fn admit(&self) -> Option<Permit> {
        let places = &self.node().places;
        let Admission { permit, met } = places.take(self.clock().now());
        if let Some(Met { limit, max }) = met
            && let Some(silent) = places.refusals.speaks(self.clock().now())
        {
            let who = if permit.is_some() { "the oldest connection" } else { "the new connection" };
            tracing::warn!(limit, max, silent, "all places for clients are taken: {who} is closed");
        }
        permit
    }

    /// Returns the limits in force.
    pub fn limits(&self) -> Limits {
        self.node().places.limits
    }

    /// Returns the number of open connections and the number of half-open ones.
    pub fn places_taken(&self) -> (u64, u64) {
        let taken = self.node().places.taken.lock();
        (taken.open, taken.half_open.len() as u64)
    }

    /// Logs why a client is disconnected before it has logged in. At most ten such lines are written per second; the next
    /// line that is written says how many were left out.
    pub fn log_refused(&self, peer: SocketAddr, text: &str) {
        if let Some(silent) = self.node().places.refusals.speaks(self.clock().now()) {
            tracing::warn!(%peer, silent, "client refused: {text}");
        }
    }

    /// Logs a problem of a listener, within the same limit of lines per second as [`log_refused`](Self::log_refused).
    pub fn log_trouble(&self, text: &str) {
        if let Some(silent) = self.node().places.refusals.speaks(self.clock().now()) {
            tracing::warn!(silent, "{text}");
        }
    }
}

/// Bounds the lines in the log that clients can cause before they have logged in: ten per second; further ones are counted.
#[derive(Default)]
struct Seldom {
    second: AtomicU64,
    said: AtomicU64,
    silent: AtomicU64,
}

impl Seldom {
    /// Returns the number of lines left out since the last one if a line may be written now, and `None` if it may not.
    fn speaks(&self, now_ns: u64) -> Option<u64> {
        let second = now_ns / 1_000_000_000;
        if self.second.swap(second, Relaxed) != second {
            self.said.store(0, Relaxed);
        }
        if self.said.fetch_add(1, Relaxed) < LINES_MAX {
            return Some(self.silent.swap(0, Relaxed));
        }
        self.silent.fetch_add(1, Relaxed);
        None
    }
}

/// The smallest number of descriptors that is enough for storage and a few clients.
const DESCRIPTORS_MIN: u64 = 256;
/// Bounds of the number of descriptors that no client gets, which is an eighth of all. The log keeps up to 64 files open.
const RESERVE_MIN: u64 = 192;
const RESERVE_MAX: u64 = 8192;
/// The memory that an idle connection is assumed to take, in bytes.
const CONNECTION_BYTES: u64 = 16 << 10;
/// The largest number of half-open connections, unless configured.
const HALF_OPEN_MAX: u64 = 4096;
/// The largest number of connections to the management API, unless configured.
const HTTP_MAX: u64 = 1024;
/// The largest number of connections to the metrics port.
const METRICS_MAX: u64 = 64;
/// The time in which a half-open connection does not lose its place to a new client.
const GRACE_NS: u64 = 1_000_000_000;
/// The largest number of half-open connections that are being closed for new clients at a time: their descriptors are not
/// free before they are closed.
const GIVING_WAY_MAX: u64 = 16;
/// The largest number of lines per second.
const LINES_MAX: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: u64 = 8 << 30;

    fn places(half_open: u64, open: u64) -> Arc<Places> {
        let limits = Limits {
            connections_max: open,
            half_open_connections_max: half_open,
            http_connections_max: 2,
            ..Limits::default()
        };
        Places::new(limits)
    }

    #[test]
    fn storage_always_has_a_reserve_of_descriptors() {
        for descriptors in [256, 512, 1024, 4096, 65_536, 1 << 20, 1 << 30] {
            let limits = Limits::share_out(descriptors, MEMORY, Wishes::default()).unwrap();
            let sum = limits.connections_max
                + limits.half_open_connections_max
                + limits.http_connections_max
                + limits.metrics_connections_max;
            assert!(sum + RESERVE_MIN <= descriptors, "{descriptors}: {limits:?}");
            assert!(limits.connections_max >= descriptors.min(65_536) / 32, "{descriptors}: {limits:?}");
        }
        let small = Limits::share_out(1 << 20, 256 << 20, Wishes::default()).unwrap();
        assert_eq!(small.connections_max + small.half_open_connections_max, 16_384);
    }

    #[test]
    fn limits_that_cannot_be_kept_are_refused() {
        let few = Limits::share_out(128, MEMORY, Wishes::default());
        assert_eq!(few, Err(LimitsError::FewDescriptors(128)));
        let wishes = Wishes { connections_max: Some(1000), ..Wishes::default() };
        assert!(matches!(Limits::share_out(1024, MEMORY, wishes), Err(LimitsError::TooMany { descriptors: 1024, .. })));
        let wishes = Wishes { connections_max: Some(u64::MAX), ..Wishes::default() };
        assert!(Limits::share_out(1 << 20, MEMORY, wishes).is_err());
        let wishes =
            Wishes { connections_max: Some(3), half_open_connections_max: Some(2), http_connections_max: Some(1) };
        let limits = Limits::share_out(1024, MEMORY, wishes).unwrap();
        assert_eq!((limits.connections_max, limits.half_open_connections_max, limits.http_connections_max), (3, 2, 1));
    }

    #[test]
    fn open_and_half_open_connections_have_separate_places() {
        let places = places(2, 1);
        let (first, second) = (places.take(0).permit.unwrap(), places.take(0).permit.unwrap());
        assert!(places.take(0).permit.is_none(), "no place, and nobody has had its time");
        assert_eq!((first.open(), first.open(), second.open()), (Ok(()), Ok(()), Err(1)));
        let third = places.take(0).permit.unwrap();
        assert!(places.take(0).permit.is_none());
        drop(first);
        assert_eq!(second.open(), Ok(()));
        drop((second, third));
        let taken = places.taken.lock();
        assert_eq!((taken.open, taken.half_open.len()), (0, 0));
    }

    #[tokio::test]
    async fn a_new_client_gets_the_place_of_a_silent_one() {
        let places = places(2, 1);
        let (old, young) = (places.take(0).permit.unwrap(), places.take(GRACE_NS).permit.unwrap());
        let Admission { permit: new, met } = places.take(GRACE_NS);
        assert_eq!(met, Some(Met { limit: "half_open_connections_max", max: 2 }));
        old.withdrawn().await;
        assert!(places.take(GRACE_NS).permit.is_none(), "the others have not had their time");
        drop(old);
        assert_eq!(places.taken.lock().half_open.len(), 2, "its place had been given away");
        drop((young, new));
        let taken = places.taken.lock();
        assert_eq!((taken.half_open.len(), taken.giving_way), (0, 0));
    }

    #[test]
    fn few_half_open_connections_are_closed_for_new_clients_at_a_time() {
        let places = places(100, 1);
        let old: Vec<_> = (0..100).map(|_| places.take(0).permit.unwrap()).collect();
        let new: Vec<_> = (0..100).filter_map(|_| places.take(GRACE_NS).permit).collect();
        assert_eq!(new.len() as u64, GIVING_WAY_MAX);
        assert_eq!(old[0].open(), Ok(()), "it was faster");
        drop(old);
        assert_eq!(places.taken.lock().giving_way, 0);
        let newer: Vec<_> = (0..200).filter_map(|_| places.take(GRACE_NS).permit).collect();
        assert_eq!((newer.len(), places.taken.lock().half_open.len()), (84, 100));
    }

    #[test]
    fn log_lines_about_refused_clients_are_limited() {
        let seldom = Seldom::default();
        let said = (0..1000).filter(|_| seldom.speaks(5).is_some()).count();
        assert_eq!((said, seldom.speaks(2_000_000_000)), (10, Some(990)));
    }
}
