//! Who asks: HTTP basic authentication, the same users as AMQP's.
//!
//! The answer to a login that fails is held back, and only so many fail at a time: whoever tries passwords gets
//! `FAILING_MAX` answers in that time, however many connections it opens and closes. Credentials that were right before do
//! not wait for those.
use crate::error::Error;
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, HeaderValue};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use leveret_node::{Broker, Identity};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::Semaphore;

/// The logins of one listener.
pub(crate) struct Logins {
    delay: Duration,
    /// Taken by whoever may turn out to be wrong, and kept for the delay by whoever is.
    trying: Arc<Semaphore>,
    /// Hashes of what was right, under a key of their own: they decide who waits, never who comes in.
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
            trying: Arc::new(Semaphore::new(FAILING_MAX)),
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
    /// 401, after the delay if there were credentials.
    pub(crate) async fn identify(
        &self,
        broker: &Broker,
        peer: SocketAddr,
        headers: &HeaderMap,
    ) -> Result<Identity, Error> {
        let value = headers.get(AUTHORIZATION);
        let Some((user, password)) = value.and_then(credentials) else { return Err(Error::not_authorized()) };
        let hash = self.key.hash_one(value);
        let turn = match self.right.lock().contains(&hash) {
            true => None,
            false => Some(self.trying.clone()),
        };
        let turn = match turn {
            Some(trying) => trying.acquire_owned().await.ok(),
            None => None,
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
/// Credentials remembered.
const RIGHT_MAX: usize = 1024;
/// Characters of a user's name in the log.
const USER_SHOWN_MAX: usize = 64;
