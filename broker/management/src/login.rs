//! Logins with HTTP basic authentication, against the same users as AMQP.
//!
//! The answer to a failed login is held back, and only a bounded number of logins can be failing at the same time. So
//! somebody who guesses passwords gets only that many answers per delay, however many connections they open and close. One
//! address gets a share of that number, and only a few of its logins may wait in line; further ones are refused at once with
//! 503. Credentials that succeeded before from the same address do not wait.
use crate::error::ApiError;
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
pub(crate) struct LoginDelays {
    delay: Duration,
    /// The attempts with credentials that are not known to be right. A failed one keeps its permits for the delay.
    attempts: Arc<Attempts>,
    /// Keyed hashes of credentials that succeeded, with the address. They decide only who need not wait; the password is
    /// checked all the same.
    known: Mutex<HashSet<u64>>,
    key: RandomState,
    succeeded: AtomicU64,
    failed: AtomicU64,
}

impl LoginDelays {
    /// Creates the logins of a listener. Answers to failed logins are held back for `delay`, on top of the node's own delay.
    pub(crate) fn new(delay: Duration) -> Self {
        Self {
            delay,
            attempts: Arc::new(Attempts { permits: Arc::new(Semaphore::new(FAILING_MAX)), line: Mutex::default() }),
            known: Mutex::default(),
            key: RandomState::new(),
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    /// Returns the numbers of logins that succeeded and that failed since the start.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.succeeded.load(Relaxed), self.failed.load(Relaxed))
    }

    /// Returns the user whose credentials are in `headers`.
    ///
    /// # Errors
    /// 401 if there are no credentials, or, after the delay, if they are wrong; 503 if too many logins are being tried.
    pub(crate) async fn identify(
        &self,
        broker: &Broker,
        peer: SocketAddr,
        headers: &HeaderMap,
    ) -> Result<Identity, ApiError> {
        let value = headers.get(AUTHORIZATION);
        let Some((user, password)) = value.and_then(credentials) else { return Err(ApiError::not_authorized()) };
        // The address is part of the hash, so an undelayed answer tells a client only about credentials it has used itself.
        let hash = self.key.hash_one((owned_part(peer.ip()), value));
        let known = self.known.lock().contains(&hash);
        let attempt = match known {
            true => None,
            false => Some(Attempt::begin(&self.attempts, peer.ip()).await?),
        };
        match broker.log_in(&user, &password, peer.ip()) {
            Ok(identity) => {
                self.succeeded.fetch_add(1, Relaxed);
                self.remember(hash);
                Ok(identity)
            }
            Err(wrong) => {
                self.failed.fetch_add(1, Relaxed);
                self.known.lock().remove(&hash);
                let user: String = user.chars().take(USER_SHOWN_MAX).collect();
                tracing::warn!(%peer, ?user, "a login to the management API failed");
                let wait = wrong.wait.saturating_add(self.delay);
                // In a task of its own, so that a client that disconnects does not release its permits early.
                let held_back = tokio::spawn(async move {
                    tokio::time::sleep(wait).await;
                    drop(attempt);
                });
                let _ = held_back.await;
                Err(ApiError::not_authorized())
            }
        }
    }

    fn remember(&self, hash: u64) {
        let mut known = self.known.lock();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(hash);
    }
}

/// The login attempts under way.
struct Attempts {
    permits: Arc<Semaphore>,
    line: Mutex<AttemptCounts>,
}

/// The number of attempts that wait, are tried, or whose answer is held back.
#[derive(Default)]
struct AttemptCounts {
    attempts: usize,
    addresses: HashMap<IpAddr, Address>,
}

/// The attempts of one address.
struct Address {
    attempts: usize,
    permits: Arc<Semaphore>,
}

/// One login that waits, is tried, or whose answer is held back.
struct Attempt {
    attempts: Arc<Attempts>,
    address: IpAddr,
    permits: Vec<OwnedSemaphorePermit>,
}

impl Attempt {
    /// Waits in line for a permit of the address and one of the listener.
    ///
    /// # Errors
    /// 503 if the line is full.
    async fn begin(attempts: &Arc<Attempts>, address: IpAddr) -> Result<Self, ApiError> {
        let address = owned_part(address);
        let semaphores = {
            let mut line = attempts.line.lock();
            let full = line.attempts >= LINE_MAX;
            let of_address = line.addresses.get(&address);
            if full || of_address.is_some_and(|of_address| of_address.attempts >= LINE_OF_ADDRESS_MAX) {
                return Err(ApiError::unavailable("too many logins are being tried"));
            }
            line.attempts += 1;
            let permits = || Arc::new(Semaphore::new(FAILING_OF_ADDRESS_MAX));
            let new = || Address { attempts: 0, permits: permits() };
            let of_address = line.addresses.entry(address).or_insert_with(new);
            of_address.attempts += 1;
            [of_address.permits.clone(), attempts.permits.clone()]
        };
        let mut this = Self { attempts: attempts.clone(), address, permits: Vec::with_capacity(2) };
        for semaphore in semaphores {
            this.permits.extend(semaphore.acquire_owned().await.ok());
        }
        Ok(this)
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let mut line = self.attempts.line.lock();
        line.attempts -= 1;
        if let Some(of_address) = line.addresses.get_mut(&self.address) {
            of_address.attempts -= 1;
            if of_address.attempts == 0 {
                line.addresses.remove(&self.address);
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

/// The most logins that are tried, or whose failure is held back, at the same time.
const FAILING_MAX: usize = 32;
const FAILING_OF_ADDRESS_MAX: usize = 8;
/// The most logins that are counted in the line at the same time: those that wait and those above.
const LINE_MAX: usize = 256;
const LINE_OF_ADDRESS_MAX: usize = 24;
/// The most hashes of successful credentials that are kept.
const KNOWN_MAX: usize = 1024;
/// How many characters of a user name the log shows.
const USER_SHOWN_MAX: usize = 64;
