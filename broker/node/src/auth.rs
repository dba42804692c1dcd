//! Who may come in: one default user for now.
use leveret_model::refusal::{Refusal, RefusalKind};
use sha2::{Digest, Sha256};

/// Names a user who proved to be that one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user's name.
    pub user: std::sync::Arc<str>,
}

/// The users, their passwords kept as keyed hashes.
pub(crate) struct Users {
    key: [u8; 32],
    name: std::sync::Arc<str>,
    hash: [u8; 32],
}

impl Users {
    pub(crate) fn new(name: &str, password: &str) -> Self {
        let key = rand::random();
        Self { key, name: name.into(), hash: hash(&key, password) }
    }

    /// Compares hashes under a key that no client knows: how long it takes tells nothing about the password.
    pub(crate) fn verify(&self, user: &str, password: &str, from_loopback: bool) -> Result<Identity, Refusal> {
        let refused = |text: String| Err(Refusal { kind: RefusalKind::AccessRefused, text });
        let right = hash(&self.key, password) == self.hash && *self.name == *user && !password.is_empty();
        if !right {
            return refused(format!("user '{user}' or the password is not right"));
        }
        if user == "guest" && !from_loopback {
            return refused("user 'guest' can only connect via localhost".to_owned());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_password_of_the_right_user_comes_in() {
        let users = Users::new("guest", "secret");
        assert_eq!(&*users.verify("guest", "secret", true).unwrap().user, "guest");
        for (user, password, loopback) in
            [("guest", "secreT", true), ("Guest", "secret", true), ("guest", "", true), ("guest", "secret", false)]
        {
            assert!(users.verify(user, password, loopback).is_err(), "{user} {password} {loopback}");
        }
        assert!(Users::new("app", "").verify("app", "", true).is_err());
    }
}
