//! The secret by which the nodes of a Broker's cluster know each other. It is made once and kept as long as the Broker lives,
//! because nodes with different secrets cannot form one cluster. Pure.
use k8s_openapi::api::core::v1::Secret;

/// The secret that the nodes of a cluster share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SharedSecret {
    pub(crate) secret: String,
    /// A text that changes with the secret; pods that carry it run with that secret.
    pub(crate) version: String,
}

impl SharedSecret {
    /// Returns the secret that is in the Secret of the cluster or, if that was lost, in the Secret with the login, which has
    /// a copy. A new one is made of `random` only if both are lost.
    pub(crate) fn decide(shared: Option<&Secret>, login: Option<&Secret>, random: &[u8; 40]) -> Self {
        let kept = shared.and_then(|shared| Self::read(shared, SECRET, VERSION));
        let kept = kept.or_else(|| login.and_then(|login| Self::read(login, COPY, COPY_VERSION)));
        kept.unwrap_or_else(|| {
            let text = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            Self { secret: text(&random[..32]), version: text(&random[32..]) }
        })
    }

    fn read(secret: &Secret, key: &str, version: &str) -> Option<Self> {
        let text = |key: &str| {
            let bytes = secret.data.as_ref()?.get(key)?;
            String::from_utf8(bytes.0.clone()).ok().filter(|text| !text.is_empty())
        };
        Some(Self { secret: text(key)?, version: text(version)? })
    }
}

/// The keys in the Secret of the cluster.
pub(crate) const SECRET: &str = "secret";
pub(crate) const VERSION: &str = "version";
/// The keys of the copy in the Secret with the login.
pub(crate) const COPY: &str = "cluster-secret";
pub(crate) const COPY_VERSION: &str = "cluster-version";

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    fn secret(fields: &[(&str, &str)]) -> Secret {
        let data = fields.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())));
        Secret { data: Some(data.collect()), ..Secret::default() }
    }

    #[test]
    fn a_secret_is_kept_as_long_as_one_of_its_two_places_is_there() {
        let kept = SharedSecret { secret: "s".to_owned(), version: "v".to_owned() };
        let (shared, login) = (secret(&[(SECRET, "s"), (VERSION, "v")]), secret(&[(COPY, "s"), (COPY_VERSION, "v")]));
        for (shared, login) in [(Some(&shared), Some(&login)), (Some(&shared), None), (None, Some(&login))] {
            assert_eq!(SharedSecret::decide(shared, login, &[7; 40]), kept);
        }
        let emptied = secret(&[(SECRET, ""), (VERSION, "v")]);
        assert_eq!(SharedSecret::decide(Some(&emptied), Some(&login), &[7; 40]), kept);
        let fresh = SharedSecret::decide(None, None, &[7; 40]);
        assert_eq!((fresh.secret.len(), fresh.version.len()), (64, 16));
        assert_ne!(SharedSecret::decide(None, None, &[8; 40]), fresh);
    }
}
