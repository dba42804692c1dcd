//! Connects to the broker of a Broker: logs in as the default user through the Service for management, and checks that
//! the Service for clients answers.
use super::build;
use super::login::{Login, Logins};
use anyhow::Context;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client as Kubernetes, ResourceExt};
use leveret_api::Broker;
use leveret_client::{Client, Error, Overview};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A client that has logged in at a broker.
pub(crate) struct Session {
    pub(crate) client: Client,
    /// The broker's answer to the login.
    pub(crate) overview: Overview,
}

/// Logs in at the management API of a broker. While a changed password is on its way to the pods, the previous one is
/// tried too.
///
/// # Errors
/// The Secret with the login cannot be read or holds none, or the broker does not answer or refuses the login.
pub(crate) async fn client(kubernetes: &Kubernetes, broker: &Broker) -> anyhow::Result<Session> {
    let namespace = broker.namespace().unwrap_or_default();
    let name = build::secret::login_name(broker);
    let secrets: Api<Secret> = Api::namespaced(kubernetes.clone(), &namespace);
    let secret = secrets.get(&name).await.with_context(|| format!("cannot read Secret {namespace}/{name}"))?;
    let logins = Logins::read(&secret).with_context(|| format!("Secret {namespace}/{name} holds no login"))?;
    let all: Vec<&Login> = [Some(&logins.current), logins.previous.as_ref()].into_iter().flatten().collect();
    let attempts = if all.len() > 1 { ATTEMPTS_MAX } else { 1 };
    let mut attempt = 0;
    loop {
        // Each connection leads to any pod, and not all of them may have the new login yet.
        let refused = match login(broker, all[attempt % all.len()]).await {
            Err(error @ Error::Unauthorized { .. }) => error,
            answer => return Ok(answer?),
        };
        attempt += 1;
        if attempt >= attempts {
            return Err(refused.into());
        }
    }
}

/// Logs in with one login.
pub(super) async fn login(broker: &Broker, login: &Login) -> Result<Session, Error> {
    let namespace = broker.namespace().unwrap_or_default();
    let base = format!("http://{}.{namespace}.svc:{}", build::management_name(broker), build::HTTP);
    let client = Client::new(&base, &login.username, &login.password)?;
    let overview = client.overview().await?;
    Ok(Session { client, overview })
}

/// Sends the protocol header of AMQP to the Service for clients and waits for an answer, whatever it is.
///
/// # Errors
/// The address that does not answer, and why.
pub(super) async fn amqp(broker: &Broker) -> anyhow::Result<()> {
    let namespace = broker.namespace().unwrap_or_default();
    greet(&format!("{}.{namespace}.svc:{}", broker.name_any(), build::AMQP), AMQP_MAX).await
}

async fn greet(address: &str, limit: Duration) -> anyhow::Result<()> {
    let greeting = async {
        let mut socket = TcpStream::connect(address).await?;
        socket.write_all(PROTOCOL_HEADER).await?;
        socket.read_u8().await
    };
    let answer = tokio::time::timeout(limit, greeting).await;
    let answer = answer.with_context(|| format!("{address} does not answer AMQP within {limit:?}"))?;
    answer.with_context(|| format!("{address} does not answer AMQP")).map(drop)
}

/// The first bytes of a connection (0-9-1 spec 4.2.2).
const PROTOCOL_HEADER: &[u8; 8] = b"AMQP\0\0\x09\x01";
/// How often the operator tries to log in while there are two logins.
const ATTEMPTS_MAX: usize = 6;
/// How long the answer to the protocol header may take.
const AMQP_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn an_address_that_answers_the_protocol_header_is_a_broker() {
        for (answer, expected) in
            [(Some("\x01"), None), (None, Some("within")), (Some(""), Some("does not answer AMQP"))]
        {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let serving = tokio::spawn(async move {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut greeting = [0; 8];
                socket.read_exact(&mut greeting).await.unwrap();
                match answer {
                    Some(answer) => socket.write_all(answer.as_bytes()).await.unwrap(),
                    None => std::future::pending().await,
                }
                greeting
            });
            let limit = if answer.is_some() { Duration::from_secs(10) } else { Duration::from_millis(50) };
            let error = greet(&address, limit).await.err().map(|error| format!("{error:#}"));
            match expected {
                Some(words) => assert!(error.as_ref().is_some_and(|error| error.contains(words)), "{error:?}"),
                None => assert_eq!(error, None),
            }
            if answer.is_some() {
                assert_eq!(&serving.await.unwrap(), PROTOCOL_HEADER);
            }
        }
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(greet(&closed.to_string(), AMQP_MAX).await.is_err());
    }
}
