//! A bound on clients: a new one takes the place of the client that has kept the broker waiting for the longest.
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A client that may keep the broker waiting.
pub trait WaitingClient {
    /// Returns since when the broker has been waiting for the client, or `None` while the client waits for the broker.
    fn waited_for_since(&self) -> Option<Instant>;

    /// Causes the client to be disconnected.
    fn send_away(&self);
}

/// The clients that are connected.
pub struct Crowd<C> {
    present: Mutex<PresentClients<C>>,
}

struct PresentClients<C> {
    /// The clients in the order in which they came.
    clients: BTreeMap<u64, Arc<C>>,
    /// The number of the next client.
    next: u64,
}

/// A client in a crowd, which it leaves when this is dropped.
pub struct Member<C: WaitingClient> {
    crowd: Arc<Crowd<C>>,
    number: u64,
    client: Arc<C>,
}

/// The result of [`Crowd::dismiss`].
#[derive(Debug, PartialEq, Eq)]
pub enum Dismissal {
    /// One client was sent away.
    One,
    /// No client has kept the broker waiting for long enough yet; at this time, one of them will have.
    NoneBefore(Instant),
    /// All clients are being served.
    None,
}

impl<C> Default for Crowd<C> {
    fn default() -> Self {
        Self { present: Mutex::new(PresentClients { clients: BTreeMap::new(), next: 0 }) }
    }
}

impl<C: WaitingClient> Crowd<C> {
    /// Lets a client in. If there are `most` already, one of them is sent away first. Returns `None` if all of them are
    /// being served.
    pub async fn enter(self: &Arc<Self>, most: usize, client: impl FnOnce() -> C) -> Option<Member<C>> {
        loop {
            if self.present.lock().clients.len() < most {
                return Some(self.add(client()));
            }
            match self.dismiss(Instant::now()) {
                Dismissal::One => return Some(self.add(client())),
                Dismissal::NoneBefore(then) => tokio::time::sleep_until(then).await,
                Dismissal::None => return None,
            }
        }
    }

    fn add(self: &Arc<Self>, client: C) -> Member<C> {
        let (mut present, client) = (self.present.lock(), Arc::new(client));
        let number = present.next;
        present.next += 1;
        present.clients.insert(number, client.clone());
        Member { crowd: self.clone(), number, client }
    }

    /// Sends away the client that has been waited for the longest, if that is at least 50 ms at `now`.
    pub fn dismiss(&self, now: Instant) -> Dismissal {
        let mut present = self.present.lock();
        let waited_for =
            present.clients.iter().filter_map(|(number, client)| Some((client.waited_for_since()?, *number)));
        let Some((since, number)) = waited_for.min() else { return Dismissal::None };
        if since + CHANCE > now {
            return Dismissal::NoneBefore(since + CHANCE);
        }
        if let Some(client) = present.clients.remove(&number) {
            client.send_away();
        }
        Dismissal::One
    }
}

impl<C: WaitingClient> Member<C> {
    /// Returns the client, for tasks that may outlive its connection.
    #[must_use]
    pub fn client(&self) -> &Arc<C> {
        &self.client
    }
}

impl<C: WaitingClient> Deref for Member<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.client
    }
}

impl<C: WaitingClient> Drop for Member<C> {
    fn drop(&mut self) {
        self.crowd.present.lock().clients.remove(&self.number);
    }
}

/// The least time that a client is waited for before it may be sent away: its bytes may be on their way.
const CHANCE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    /// A client that has been waited for since some time, or is being served.
    struct Guest {
        since: Mutex<Option<Instant>>,
        is_away: AtomicBool,
    }

    impl WaitingClient for Guest {
        fn waited_for_since(&self) -> Option<Instant> {
            *self.since.lock()
        }

        fn send_away(&self) {
            self.is_away.store(true, SeqCst);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_client_that_was_waited_for_the_longest_gives_way() {
        let crowd = Arc::new(Crowd::default());
        let guest = || Guest { since: Mutex::new(Some(Instant::now())), is_away: AtomicBool::new(false) };
        let served = crowd.enter(3, guest).await.unwrap();
        *served.since.lock() = None;
        let mut others = Vec::new();
        for _ in 0..2 {
            others.push(crowd.enter(3, guest).await.unwrap());
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        let began = Instant::now();
        assert!(matches!(crowd.dismiss(began), Dismissal::NoneBefore(_)));
        let newcomer = crowd.enter(3, guest).await.unwrap();
        assert!(began.elapsed() >= CHANCE - Duration::from_millis(2), "each client has its chance");
        assert!(others[0].is_away.load(SeqCst) && !others[1].is_away.load(SeqCst));
        let later = Instant::now() + CHANCE;
        *newcomer.since.lock() = None;
        assert_eq!(crowd.dismiss(later), Dismissal::One);
        assert!(others[1].is_away.load(SeqCst));
        assert_eq!(crowd.dismiss(later), Dismissal::None);
        assert!(crowd.enter(2, guest).await.is_none(), "all are being served");
        drop(newcomer);
        assert!(crowd.enter(2, guest).await.is_some() && !served.is_away.load(SeqCst));
    }
}
