//! Logins: there is one user, the default user, for now.
//!
//! A wrong login is answered late, a correct one at once. Wrong logins from one address are answered one after the other,
//! so that guessing over many connections at a time is no faster; clients at other addresses do not wait for them. While
//! many answers to one address are due, further logins from there are not even checked before their turn, so that a client
//! that hangs up instead of waiting for an answer learns no more.
use crate::Broker;
use leveret_model::refusal::{Refusal, RefusalKind};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

/// A user who has logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name of the user.
    pub user: std::sync::Arc<str>,
}

/// A login that is refused. The refusal is returned at once, so that it is counted and logged even if the client does not
/// wait for the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongLogin {
    /// [`RefusalKind::AccessRefused`] with a text for the log, not for the client.
    pub refusal: Refusal,
    /// The time for which the answer has to be held back: one to ten seconds.
    pub wait: Duration,
}

impl Broker {
    /// Returns how long a login from `address` has to wait before it is checked, at most five seconds; `None` if so many
    /// wait already that it must not be checked at all. An address that a correct login came from does not wait.
    pub fn login_turn(&self, address: IpAddr) -> Option<Duration> {
        self.node().logins.wrong.turn(address.to_canonical(), self.clock().now())
    }

    /// Returns the hash of the default user's password in RabbitMQ's format: four bytes of salt, then SHA-256 of the salt
    /// and the password. Must only be shown to a client that has logged in: there is one user, who knows the password.
    pub fn password_hash(&self) -> Vec<u8> {
        let (salt, password) = (self.node().logins.users.salt, &self.options().default_pass);
        let digest = Sha256::new().chain_update(salt).chain_update(password.as_bytes()).finalize();
        [&salt[..], &digest[..]].concat()
    }

    /// Checks the name and the password of a user who logs in from `address`. Returns the user's identity. The user `guest`
    /// may only log in from the loopback address.
    ///
    /// # Errors
    /// [`WrongLogin`], with the time for which the answer has to be held back.
    pub fn log_in(&self, user: &str, password: &str, address: IpAddr) -> Result<Identity, WrongLogin> {
        let (node, address) = (self.node(), address.to_canonical());
        let verified = node.logins.users.verify(user, password, address.is_loopback());
        if verified.is_ok() {
            node.logins.wrong.was_right(address);
        }
        verified.map_err(|refusal| {
            let wait = node.logins.wrong.wait_for(address, self.clock().now());
            WrongLogin { refusal, wait }
        })
    }
}

/// The users who may log in, and the addresses that wrong logins came from.
pub(crate) struct Logins {
    users: Users,
    wrong: WrongLogins,
}

impl Logins {
    /// Creates the logins for one user with this password.
    pub(crate) fn new(user: &str, password: &str) -> Self {
        Self { users: Users::new(user, password), wrong: WrongLogins::default() }
    }
}

/// The default user. The password is kept as a keyed hash.
struct Users {
    key: [u8; 32],
    name: std::sync::Arc<str>,
    hash: [u8; 32],
    /// The salt of [`Broker::password_hash`].
    salt: [u8; 4],
}

impl Users {
    fn new(name: &str, password: &str) -> Self {
        let key = rand::random();
        Self { key, name: name.into(), hash: hash(&key, password), salt: rand::random() }
    }

    /// Checks a login by comparing hashes under a key that no client knows, so that the time it takes tells nothing about
    /// the password.
    fn verify(&self, user: &str, password: &str, from_loopback: bool) -> Result<Identity, Refusal> {
        let refused = |text: String| Err(Refusal { kind: RefusalKind::AccessRefused, text });
        let right = hash(&self.key, password) == self.hash && *self.name == *user && !password.is_empty();
        if !right {
            let name: String = user.chars().take(NAME_SHOWN_MAX).collect();
            return refused(format!("user {name:?} or the password is not right"));
        }
        if user == "guest" && !from_loopback {
            return refused("user \"guest\" can only connect via localhost".to_owned());
        }
        Ok(Identity { user: self.name.clone() })
    }
}

fn hash(key: &[u8; 32], password: &str) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(key);
    hasher.update(password.as_bytes());
    hasher.finalize().into()
}

/// The addresses that wrong logins came from, with the times at which answers to them are due.
#[derive(Default)]
struct WrongLogins(Mutex<LoginAddresses>);

#[derive(Default)]
struct LoginAddresses {
    wrong: HashMap<IpAddr, Due>,
    /// The addresses that correct logins came from.
    right: HashSet<IpAddr>,
}

/// The times up to which an address is busy, in nanoseconds on the node's clock.
#[derive(Clone, Copy, Default)]
struct Due {
    /// The time at which the last wrong login is answered.
    answer: u64,
    /// The time at which the last login that has to wait for its turn is checked.
    tried: u64,
}

impl LoginAddresses {
    /// Returns the key under which `address` is remembered: addresses beyond the limit share one entry.
    fn key(&self, address: IpAddr) -> IpAddr {
        let address = owned_part(address);
        let known = self.wrong.len() < ADDRESSES_MAX || self.wrong.contains_key(&address);
        if known { address } else { std::net::Ipv4Addr::UNSPECIFIED.into() }
    }
}

impl WrongLogins {
    /// Returns how long a login from `address` waits before it is checked; `None` if it must not be checked.
    fn turn(&self, address: IpAddr, now_ns: u64) -> Option<Duration> {
        let mut addresses = self.0.lock();
        if addresses.right.contains(&owned_part(address)) {
            return Some(Duration::ZERO);
        }
        let key = addresses.key(address);
        let Some(due) = addresses.wrong.get_mut(&key).filter(|due| due.answer > now_ns + WAIT_MIN_NS + AHEAD_NS) else {
            return Some(Duration::ZERO);
        };
        let turn = (due.tried + SPACING_NS).max(now_ns);
        if turn > now_ns + TURN_MAX_NS {
            return None;
        }
        due.tried = turn;
        Some(Duration::from_nanos(turn - now_ns))
    }

    fn was_right(&self, address: IpAddr) {
        let mut addresses = self.0.lock();
        if addresses.right.len() >= ADDRESSES_MAX {
            addresses.right.clear();
        }
        addresses.right.insert(owned_part(address));
    }

    /// Counts a wrong login from `address` and returns how long its answer has to wait.
    fn wait_for(&self, address: IpAddr, now_ns: u64) -> Duration {
        let mut addresses = self.0.lock();
        if addresses.wrong.len() >= ADDRESSES_MAX {
            addresses.wrong.retain(|_, due| due.answer > now_ns);
        }
        let key = addresses.key(address);
        let last = &mut addresses.wrong.entry(key).or_default().answer;
        *last = (*last + SPACING_NS).clamp(now_ns + WAIT_MIN_NS, now_ns + WAIT_MAX_NS);
        Duration::from_nanos(*last - now_ns)
    }
}

/// Returns the part of an address that its owner cannot choose: all of an IPv4 address, the first 64 bits of an IPv6
/// address.
pub fn owned_part(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => std::net::Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    }
}

/// The shortest and the longest time after which a wrong login is answered.
const WAIT_MIN_NS: u64 = 1_000_000_000;
const WAIT_MAX_NS: u64 = 10_000_000_000;
/// The time between two answers to one address.
const SPACING_NS: u64 = 100_000_000;
/// When the answers to an address are due this much later than a single one would be, further logins from there wait for
/// their turn to be checked.
const AHEAD_NS: u64 = 2_000_000_000;
/// The longest time until the turn of such a login; a login whose turn would be later is not checked at all.
const TURN_MAX_NS: u64 = 5_000_000_000;
/// The largest number of addresses that are remembered, of each kind.
const ADDRESSES_MAX: usize = 4096;
/// The number of characters of a wrong user name that the log shows.
const NAME_SHOWN_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_correct_password_of_the_user_logs_in() {
        let users = Users::new("guest", "secret");
        assert_eq!(&*users.verify("guest", "secret", true).unwrap().user, "guest");
        for (user, password, loopback) in
            [("guest", "secreT", true), ("Guest", "secret", true), ("guest", "", true), ("guest", "secret", false)]
        {
            assert!(users.verify(user, password, loopback).is_err(), "{user} {password} {loopback}");
        }
        assert!(Users::new("app", "").verify("app", "", true).is_err());
    }

    #[test]
    fn a_wrong_user_name_cannot_forge_a_line_of_the_log() {
        let name = format!("x'\r\n2026-01-01 INFO all is well\u{1b}[2J{}", "y".repeat(5000));
        let text = Users::new("guest", "secret").verify(&name, "a", true).unwrap_err().text;
        assert!(text.starts_with("user \"x'\\r\\n2026-01-01 INFO all is well\\u{1b}[2Jyyy"), "{text}");
        assert!(text.len() < 200 && !text.contains(char::is_control), "{text}");
    }

    #[test]
    fn wrong_logins_from_one_address_are_answered_one_after_the_other() {
        let logins = WrongLogins::default();
        let [bad, good] = ["10.0.0.1", "10.0.0.2"].map(|address| address.parse().unwrap());
        let waits: Vec<_> = (0..200).map(|_| logins.wait_for(bad, 7).as_millis()).collect();
        assert_eq!((waits[0], waits[1], waits[9], waits[199]), (1000, 1100, 1900, 10_000));
        assert_eq!(logins.wait_for(good, 7).as_millis(), 1000, "another address does not wait for it");
        assert_eq!(logins.wait_for(bad, 60_000_000_000).as_millis(), 1000, "nor does the same one for ever");
    }

    #[test]
    fn logins_from_an_address_with_many_answers_due_are_checked_one_after_the_other() {
        let logins = WrongLogins::default();
        let [bad, good, app] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|address| address.parse().unwrap());
        let turn = |address, at| logins.turn(address, at).map(|wait| wait.as_millis());
        for _ in 0..20 {
            assert_eq!(turn(bad, 7), Some(0), "a few may be wrong");
            logins.wait_for(bad, 7);
        }
        logins.was_right(app);
        for address in [bad, app].repeat(100) {
            logins.wait_for(address, 7);
        }
        // A client that hangs up after a moment does not get more logins checked.
        let turns: Vec<_> = (0..60).map(|_| turn(bad, 200_000_000)).collect();
        assert_eq!((turns[0], turns[1], turns[50], turns[51]), (Some(0), Some(100), Some(5000), None));
        assert_eq!((turn(good, 7), turn(app, 7)), (Some(0), Some(0)));
        assert_eq!(turn(bad, 60_000_000_000), Some(0), "not for ever");
    }

    #[test]
    fn the_number_of_remembered_addresses_is_bounded() {
        let logins = WrongLogins::default();
        for host in 0..20_000u32 {
            logins.wait_for(std::net::Ipv4Addr::from_bits(host).into(), 7);
        }
        assert!(logins.0.lock().wrong.len() <= ADDRESSES_MAX + 1);
        let (one, other): (IpAddr, IpAddr) = ("2001:db8::1".parse().unwrap(), "2001:db8::ffff:2".parse().unwrap());
        assert_eq!(owned_part(one), owned_part(other));
    }

    #[tokio::test]
    async fn the_answer_to_a_wrong_login_is_held_back() {
        let broker = Broker::start(crate::Options::default());
        let home = std::net::Ipv4Addr::LOCALHOST.into();
        assert!(broker.log_in("guest", "guest", home).is_ok());
        let wait = broker.log_in("guest", "wrong", home).unwrap_err().wait;
        assert!(wait >= Duration::from_secs(1), "{wait:?}");
        assert!(broker.log_in("guest", "guest", home).is_ok(), "a right one is right all the same");
        broker.stop();
    }
}
