//! Routes cached per connection, by exchange and routing key: a publisher that uses many keys is routed once per key.
//!
//! The slots form sets of four. The hash of a route's names decides in which set the route is, so finding it reads one
//! line of memory and allocates nothing. If a set is full, the table grows up to its limit; after that one of the set's
//! routes is replaced. Memory is bounded in bytes: each connection has a little of its own, and the node lends more,
//! within a bound for all connections.
use foldhash::fast::RandomState;
use leveret_node::{Broker, Route, RouteMemory};
use std::hash::BuildHasher;
use std::sync::Arc;

/// The routes of a connection.
#[derive(Default)]
pub(crate) struct Routes {
    /// The table; its length is a power of two.
    slots: Vec<Option<RouteSlot>>,
    /// The memory of routes and slots, in bytes.
    bytes: usize,
    /// The memory that the node lends for more than [`OWN_BYTES`].
    lent: Option<RouteMemory>,
    /// The hasher has a random key, so that no client can choose routing keys that fall into one set.
    hasher: RandomState,
}

struct RouteSlot {
    hash: u64,
    route: Arc<Route>,
}

impl Routes {
    /// Returns the route of an exchange and a key, if it is cached. It may be outdated.
    #[inline]
    pub(crate) fn find(&self, exchange: &str, routing_key: &[u8]) -> Option<&Arc<Route>> {
        let hash = self.hash(exchange.as_bytes(), routing_key);
        let set = self.slots.get(self.set(hash)..)?.first_chunk::<WAYS>()?;
        let found = set.iter().flatten().find(|slot| slot.is_of(hash, exchange.as_bytes(), routing_key));
        found.map(|slot| &slot.route)
    }

    /// Caches a route, which replaces an older route of the same exchange and key.
    pub(crate) fn insert(&mut self, broker: &Broker, route: Arc<Route>) {
        let hash = self.hash(&route.exchange, &route.routing_key);
        if self.slots.is_empty() {
            self.resize(FEWEST_SLOTS);
        }
        let needed = route.memory_bytes();
        let mut at = self.place(hash, &route);
        while self.slots[at].as_ref().is_some_and(|slot| !slot.is_of(hash, &route.exchange, &route.routing_key))
            && self.slots.len() < SLOTS_MAX
            && self.may_take(broker, self.slots.len() * size_of::<Option<RouteSlot>>())
        {
            self.resize(self.slots.len() * 2);
            at = self.place(hash, &route);
        }
        self.remove(at);
        if !self.may_take(broker, needed) && !self.make_room(broker, hash, needed) {
            return;
        }
        self.bytes += needed;
        self.slots[at] = Some(RouteSlot { hash, route });
    }

    /// Returns the slot for a route: that of a route with the same names, an empty one, or one whose route is replaced.
    fn place(&self, hash: u64, route: &Route) -> usize {
        let first = self.set(hash);
        let set = &self.slots[first..first + WAYS];
        let same = |slot: &Option<RouteSlot>| {
            slot.as_ref().is_some_and(|slot| slot.is_of(hash, &route.exchange, &route.routing_key))
        };
        let way = set.iter().position(same).or_else(|| set.iter().position(Option::is_none));
        first + way.unwrap_or((hash >> 48) as usize % WAYS)
    }

    fn remove(&mut self, at: usize) {
        if let Some(slot) = self.slots[at].take() {
            self.bytes -= slot.route.memory_bytes();
        }
    }

    /// Removes routes until there is room, beginning at a place that depends on `hash`. Returns false if there is no room
    /// even without them.
    fn make_room(&mut self, broker: &Broker, hash: u64, needed: usize) -> bool {
        let from = self.set(hash);
        for at in (from..self.slots.len()).chain(0..from) {
            self.remove(at);
            if self.may_take(broker, needed) {
                return true;
            }
        }
        false
    }

    /// Returns whether `more` further bytes may be used.
    fn may_take(&mut self, broker: &Broker, more: usize) -> bool {
        let wanted = self.bytes + more;
        if wanted <= OWN_BYTES {
            return true;
        }
        wanted <= BYTES_MAX && self.lent.get_or_insert_with(|| broker.route_memory()).hold((wanted - OWN_BYTES) as u64)
    }

    fn resize(&mut self, slots: usize) {
        let before = std::mem::replace(&mut self.slots, std::iter::repeat_with(|| None).take(slots).collect());
        self.bytes = slots * size_of::<Option<RouteSlot>>();
        for slot in before.into_iter().flatten() {
            let at = self.place(slot.hash, &slot.route);
            self.remove(at);
            self.bytes += slot.route.memory_bytes();
            self.slots[at] = Some(slot);
        }
    }

    fn hash(&self, exchange: &[u8], routing_key: &[u8]) -> u64 {
        self.hasher.hash_one((exchange, routing_key))
    }

    /// Returns the index of the first slot of the set for a hash.
    fn set(&self, hash: u64) -> usize {
        (hash as usize).wrapping_mul(WAYS) & (self.slots.len().wrapping_sub(1))
    }
}

impl RouteSlot {
    #[inline]
    fn is_of(&self, hash: u64, exchange: &[u8], routing_key: &[u8]) -> bool {
        self.hash == hash && *self.route.exchange == *exchange && *self.route.routing_key == *routing_key
    }
}

const WAYS: usize = 4;
const FEWEST_SLOTS: usize = 4 * WAYS;
/// The most routes that are cached for one connection.
const SLOTS_MAX: usize = 64 << 10;
/// The memory that each connection may use for routes, in bytes.
const OWN_BYTES: usize = 32 << 10;
/// The memory that a connection may use if the node lends it, in bytes.
const BYTES_MAX: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use leveret_node::{Caller, Options};

    fn route(broker: &Broker, key: &str) -> Arc<Route> {
        Arc::new(broker.route(&Caller::system(), "/", "amq.topic", key.as_bytes(), None).unwrap())
    }

    fn broker(memory_max: u64) -> Broker {
        Broker::start(Options { memory_max, ..Options::default() })
    }

    #[tokio::test]
    async fn ten_thousand_keys_are_cached() {
        let (broker, mut routes) = (broker(1 << 30), Routes::default());
        let keys: Vec<String> = (0..10_000).map(|key| format!("key.{key}")).collect();
        for key in &keys {
            assert!(routes.find("amq.topic", key.as_bytes()).is_none());
            routes.insert(&broker, route(&broker, key));
        }
        let known = |key: &&String| {
            routes.find("amq.topic", key.as_bytes()).is_some_and(|found| *found.routing_key == *key.as_bytes())
        };
        let found = keys.iter().filter(known).count();
        assert!(found > 9_900, "only {found} of them");
        assert!(routes.find("amq.direct", keys[0].as_bytes()).is_none());
    }

    #[tokio::test]
    async fn a_newer_route_takes_the_place_of_an_older_one() {
        let (broker, mut routes) = (broker(1 << 30), Routes::default());
        routes.insert(&broker, route(&broker, "k"));
        let (bytes, newer) = (routes.bytes, route(&broker, "k"));
        routes.insert(&broker, newer.clone());
        assert!(Arc::ptr_eq(routes.find("amq.topic", b"k").unwrap(), &newer));
        assert_eq!(routes.bytes, bytes);
    }

    #[tokio::test]
    async fn route_memory_is_bounded_per_connection_and_in_total() {
        let broker = broker(64 << 20);
        let mut several: Vec<Routes> = (0..3).map(|_| Routes::default()).collect();
        for routes in &mut several {
            for key in 0..60_000 {
                routes.insert(&broker, route(&broker, &format!("key.{key}")));
                assert!(routes.bytes <= BYTES_MAX);
            }
            // The route that was inserted last is there, whichever others were replaced.
            assert!(routes.find("amq.topic", b"key.59999").is_some());
        }
        let used: usize = several.iter().map(|routes| routes.bytes).sum();
        assert!(used <= (64 << 20) / 16 + several.len() * OWN_BYTES, "{used} bytes");
        // The memory of these connections is available to others again.
        drop(several);
        assert!(broker.route_memory().hold((64 << 20) / 16));
    }
}
