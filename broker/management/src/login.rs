//! Who asks: HTTP basic authentication, the same users as AMQP's.
//!
//! The answer to a login that fails is held back, and only so many fail at a time: whoever tries passwords gets that many
//! answers in that time, however many connections it opens and closes. One address gets a part of them, and only a few of its
//! logins wait in line: others are told at once that they are too many. Credentials that were right before do not wait.
use crate::error::Error;
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, HeaderValue};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use leveret_node::{Broker, Identity, owned_part};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The logins of one listener.
pub(crate) struct Logins {
    delay: Duration,
    /// Taken by whoever may turn out to be wrong, and kept for the delay by whoever is.
    trying: Arc<Trying>,
    /// Hashes of what was right and from where, under a key of their own: they decide who waits, never who comes in.
    right: Mutex<HashSet<u64>>,
    key: RandomState,
    succeeded: AtomicU64,
    failed: AtomicU64,
}

impl Logins {
    /// Answers to logins that fail are held back for `delay`.
    pub(crate) fn new(delay: Duration) -> Self {
        Self {
            delay,
            trying: Arc::new(Trying { turns: Arc::new(Semaphore::new(FAILING_MAX)), line: Mutex::default() }),
            right: Mutex::default(),
            key: RandomState::new(),
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    /// Logins that succeeded and that failed.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.succeeded.load(Relaxed), self.failed.load(Relaxed))
    }

    /// Finds out who sends these headers.
    ///
    /// # Errors
    /// 401, after the delay if there were credentials; 503 if too many others are trying theirs.
    pub(crate) async fn identify(
        &self,
        broker: &Broker,
        peer: SocketAddr,
        headers: &HeaderMap,
    ) -> Result<Identity, Error> {
        let value = headers.get(AUTHORIZATION);
        let Some((user, password)) = value.and_then(credentials) else { return Err(Error::not_authorized()) };
        // What an address may find out at once is no more than what it was right about itself.
        let hash = self.key.hash_one((owned_part(peer.ip()), value));
        let known = self.right.lock().contains(&hash);
        let turn = match known {
            true => None,
            false => Some(Try::begin(&self.trying, peer.ip()).await?),
        };
        match broker.log_in(&user, &password, peer.ip()) {
            Ok(identity) => {
                self.succeeded.fetch_add(1, Relaxed);
                self.remember(hash);
                Ok(identity)
            }
            Err(wrong) => {
                self.failed.fetch_add(1, Relaxed);
                self.right.lock().remove(&hash);
                let user: String = user.chars().take(USER_SHOWN_MAX).collect();
                tracing::warn!(%peer, ?user, "a login to the management API failed");
                let wait = wrong.wait.saturating_add(self.delay);
                // In a task of its own: a client that goes does not free its turn.
                let held_back = tokio::spawn(async move {
                    tokio::time::sleep(wait).await;
                    drop(turn);
                });
                let _ = held_back.await;
                Err(Error::not_authorized())
            }
        }
    }

    fn remember(&self, hash: u64) {
        let mut right = self.right.lock();
        if right.len() >= RIGHT_MAX {
            right.clear();
        }
        right.insert(hash);
    }
}

/// Logins that are being tried.
struct Trying {
    turns: Arc<Semaphore>,
    line: Mutex<Line>,
}

/// How many there are, those that are held back included.
#[derive(Default)]
struct Line {
    tries: usize,
    of: HashMap<IpAddr, OfAddress>,
}

/// Those of one address.
struct OfAddress {
    tries: usize,
    turns: Arc<Semaphore>,
}

/// One login that is being tried, or whose answer is held back.
struct Try {
    trying: Arc<Trying>,
    address: IpAddr,
    turns: Vec<OwnedSemaphorePermit>,
}

impl Try {
    /// Waits in line for a turn.
    async fn begin(trying: &Arc<Trying>, address: IpAddr) -> Result<Self, Error> {
        let address = owned_part(address);
        let turns = {
            let mut line = trying.line.lock();
            let full = line.tries >= LINE_MAX;
            let of = line.of.get_mut(&address);
            if full || of.is_some_and(|of| of.tries >= LINE_OF_ADDRESS_MAX) {
                return Err(Error::unavailable("too many logins are being tried"));
            }
            line.tries += 1;
            let turns = || Arc::new(Semaphore::new(FAILING_OF_ADDRESS_MAX));
            let of = line.of.entry(address).or_insert_with(|| OfAddress { tries: 0, turns: turns() });
            of.tries += 1;
            [of.turns.clone(), trying.turns.clone()]
        };
        let mut this = Self { trying: trying.clone(), address, turns: Vec::with_capacity(2) };
        for turns in turns {
            this.turns.extend(turns.acquire_owned().await.ok());
        }
        Ok(this)
    }
}

impl Drop for Try {
    fn drop(&mut self) {
        let mut line = self.trying.line.lock();
        line.tries -= 1;
        if let Some(of) = line.of.get_mut(&self.address) {
            of.tries -= 1;
            if of.tries == 0 {
                line.of.remove(&self.address);
            }
        }
    }
}

fn credentials(value: &HeaderValue) -> Option<(String, String)> {
    let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(BASE64_STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// Logins that fail at a time.
const FAILING_MAX: usize = 32;
const FAILING_OF_ADDRESS_MAX: usize = 8;
/// Logins that fail or wait in line at a time.
const LINE_MAX: usize = 256;
const LINE_OF_ADDRESS_MAX: usize = 24;
/// Credentials remembered.
const RIGHT_MAX: usize = 1024;
/// Characters of a user's name in the log.
const USER_SHOWN_MAX: usize = 64;
