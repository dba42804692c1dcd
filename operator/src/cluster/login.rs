//! Decides which login the pods of a broker run with, from the two Secrets, also when one of them was edited or deleted.
//! Pure.
use crate::kubernetes::events::Notice;
use k8s_openapi::api::core::v1::Secret;
use std::borrow::Cow;

/// A user and its password.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) username: String,
    pub(crate) password: String,
}

/// The logins of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Logins {
    /// The login that pods start with from now on.
    pub(crate) current: Login,
    /// The login that a pod that was started before may still run with.
    pub(crate) previous: Option<Login>,
    /// A text that changes with the current login; pods that carry it run with that login.
    pub(crate) version: String,
}

/// The logins that follow from both Secrets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) logins: Logins,
    /// The event to record, if the Secret for applications was changed or lost.
    pub(crate) notice: Option<Notice>,
}

impl Login {
    /// Reads the login in a Secret; `None` unless it has both parts, as text.
    pub(crate) fn read(secret: &Secret) -> Option<Self> {
        Self::of(secret, "username", "password")
    }

    fn of(secret: &Secret, username: &str, password: &str) -> Option<Self> {
        let login = Self { username: text(secret, username)?, password: text(secret, password)? };
        Some(login).filter(|login| !login.username.is_empty() && !login.password.is_empty())
    }

    /// Returns whether no application could log in with this login: `guest` may log in from the broker's own machine only,
    /// and a colon ends the name in HTTP's Basic authentication.
    fn is_unusable(&self) -> bool {
        self.username == "guest" || self.username.contains(':')
    }

    /// Makes a login of random bytes.
    fn random(random: &[u8; 40]) -> Self {
        let text = |bytes: &[u8]| letters(bytes);
        Self { username: format!("user-{}", text(&random[..8])), password: text(&random[8..32]) }
    }
}

impl Logins {
    /// Reads the logins in the Secret for the pods.
    pub(crate) fn read(secret: &Secret) -> Option<Self> {
        Some(Self {
            current: Login::read(secret)?,
            previous: Login::of(secret, "previous-username", "previous-password"),
            version: text(secret, "version").filter(|version| !version.is_empty())?,
        })
    }

    /// Decides which logins follow from the Secret for applications (`public`) and the one for the pods (`private`).
    ///
    /// A new login and a new version are made of `random`. `running` is the version that the pods carry if the broker was
    /// just seen to accept the login of `public`. `is_proven` says that all pods carry the version of `private` and that its
    /// login works.
    pub(crate) fn decide(
        public: Option<&Secret>,
        private: Option<&Secret>,
        random: &[u8; 40],
        running: Option<&str>,
        is_proven: bool,
    ) -> Decision {
        let version = letters(&random[32..]);
        let read = public.and_then(Login::read);
        let wanted = read.clone().filter(|login| !login.is_unusable());
        match (wanted, private.and_then(Self::read)) {
            (Some(wanted), Some(kept)) if wanted != kept.current => {
                let logins = Self { current: wanted, previous: Some(kept.current), version };
                Decision { logins, notice: Some(CHANGED) }
            }
            (wanted, Some(kept)) => {
                let notice = match (public, wanted) {
                    (_, Some(_)) => None,
                    (None, _) => Some(RESTORED),
                    (Some(_), None) if read.is_some() => Some(UNUSABLE),
                    (Some(_), None) => Some(REPAIRED),
                };
                let previous = kept.previous.clone().filter(|_| !is_proven);
                Decision { logins: Self { previous, ..kept }, notice }
            }
            (Some(wanted), None) => {
                let version = running.map_or(version, str::to_owned);
                Decision { logins: Self { current: wanted, previous: None, version }, notice: None }
            }
            (None, None) => {
                let logins = Self { current: Login::random(random), previous: None, version };
                Decision { logins, notice: None }
            }
        }
    }
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    let bytes = secret.data.as_ref()?.get(key)?;
    String::from_utf8(bytes.0.clone()).ok()
}

/// Writes random bytes as characters that need no quoting anywhere.
fn letters(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
}

/// 32 characters, so that each is as likely as any other for a random byte.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

const CHANGED: Notice = Notice {
    is_warning: false,
    reason: Cow::Borrowed("PasswordChanged"),
    message: Cow::Borrowed("the login in the Secret was changed: the pods are restarted with it"),
};
const RESTORED: Notice = Notice {
    is_warning: true,
    reason: Cow::Borrowed("SecretRestored"),
    message: Cow::Borrowed("the Secret was deleted: it has been made again with the same login"),
};
const UNUSABLE: Notice = Notice {
    is_warning: true,
    reason: Cow::Borrowed("LoginRefused"),
    message: Cow::Borrowed(
        "no application could log in with the username: guest is let in from the broker's own machine only, and a name has \
         no colon. The login is as it was before",
    ),
};
const REPAIRED: Notice = Notice {
    is_warning: true,
    reason: Cow::Borrowed("SecretRepaired"),
    message: Cow::Borrowed("username or password was missing in the Secret: the login is as it was before"),
};

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    fn secret(fields: &[(&str, &str)]) -> Secret {
        let data = fields.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())));
        Secret { data: Some(data.collect()), ..Secret::default() }
    }

    fn login(username: &str, password: &str) -> Login {
        Login { username: username.to_owned(), password: password.to_owned() }
    }

    #[test]
    fn an_edited_or_lost_secret_locks_nobody_out() {
        let random: [u8; 40] = std::array::from_fn(|at| at as u8);
        let fresh = letters(&random[32..]);
        let kept = secret(&[("username", "u"), ("password", "p"), ("version", "v1")]);
        let public = |username, password| secret(&[("username", username), ("password", password)]);
        let logins = |current: Login, previous: Option<Login>, version: &str| Logins {
            current,
            previous,
            version: version.to_owned(),
        };
        let same = logins(login("u", "p"), None, "v1");
        let table = [
            ("nothing happened", Some(public("u", "p")), Some(kept.clone()), same.clone(), None),
            (
                "the password was edited",
                Some(public("u", "new")),
                Some(kept.clone()),
                logins(login("u", "new"), Some(login("u", "p")), &fresh),
                Some(CHANGED),
            ),
            ("it was deleted", None, Some(kept.clone()), same.clone(), Some(RESTORED)),
            ("a key was removed", Some(secret(&[("password", "p")])), Some(kept.clone()), same.clone(), Some(REPAIRED)),
            ("a key was emptied", Some(public("u", "")), Some(kept.clone()), same.clone(), Some(REPAIRED)),
            ("it lets nobody in", Some(public("guest", "p")), Some(kept.clone()), same.clone(), Some(UNUSABLE)),
            ("its name has a colon", Some(public("a:b", "p")), Some(kept), same, Some(UNUSABLE)),
            ("the pods' one was deleted", Some(public("u", "p")), None, logins(login("u", "p"), None, &fresh), None),
        ];
        for (what, public, private, logins, notice) in table {
            let decision = Logins::decide(public.as_ref(), private.as_ref(), &random, None, true);
            assert_eq!(decision, Decision { logins, notice }, "{what}");
        }
    }

    #[test]
    fn a_new_broker_gets_a_login_and_pods_that_have_theirs_are_not_restarted() {
        let Decision { logins, notice } = Logins::decide(None, None, &[7; 40], None, false);
        assert_eq!((logins.current.password.len(), logins.previous, notice), (24, None, None));
        let public = secret(&[("username", "u"), ("password", "p")]);
        let kept = Logins::decide(Some(&public), None, &[7; 40], Some("v1"), false);
        assert_eq!(kept.logins.version, "v1");
    }

    #[test]
    fn the_previous_login_is_kept_until_the_new_one_works() {
        let private = secret(&[
            ("username", "u"),
            ("password", "new"),
            ("version", "v2"),
            ("previous-username", "u"),
            ("previous-password", "p"),
        ]);
        let public = secret(&[("username", "u"), ("password", "new")]);
        for (is_proven, expected) in [(false, Some(login("u", "p"))), (true, None)] {
            let decision = Logins::decide(Some(&public), Some(&private), &[7; 40], None, is_proven);
            assert_eq!(decision.logins.previous, expected);
        }
    }
}
