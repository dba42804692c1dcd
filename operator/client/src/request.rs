//! The client: one method for each request of the management API.
use crate::Error;
use crate::model::{
    BindingBody, BindingInfo, ClusterStatus, ExchangeBody, ExchangeInfo, MemberBody, Node, Overview, QueueBody,
    QueueInfo, Vhost,
};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// A client of one broker's management API, logged in as one user. Clones share their connections and are cheap.
#[derive(Clone)]
pub struct Client {
    http: Http<HttpConnector, Full<Bytes>>,
    base: String,
    user: String,
    authorization: String,
    request_max: Duration,
}

/// Result of a declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// The object did not exist before.
    Created,
    /// The object already existed, with the same properties.
    Unchanged,
}

/// Conditions under which a queue is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeleteOnly {
    /// Delete the queue only if it holds no messages. RabbitMQ counts only ready messages, Leveret also unacknowledged
    /// ones.
    pub if_empty: bool,
    /// Delete the queue only if it has no consumers.
    pub if_unused: bool,
}

impl DeleteOnly {
    fn query(self) -> &'static str {
        match (self.if_empty, self.if_unused) {
            (false, false) => "",
            (true, false) => "?if-empty=true",
            (false, true) => "?if-unused=true",
            (true, true) => "?if-empty=true&if-unused=true",
        }
    }
}

impl Client {
    /// Creates a client for the broker at `base`, which has the form `http://HOST:PORT`. Does not connect yet.
    ///
    /// # Errors
    /// [`Error::Address`] if `base` is no such URL.
    pub fn new(base: &str, user: &str, password: &str) -> Result<Self, Error> {
        let address = || Error::Address(without_login(base));
        let uri: Uri = base.parse().map_err(|_| address())?;
        if uri.scheme_str() != Some("http") || uri.host().is_none() {
            return Err(address());
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_MAX));
        let http = Http::builder(TokioExecutor::new()).pool_max_idle_per_host(IDLE_MAX).build(connector);
        let authorization = format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")));
        Ok(Self {
            http,
            base: base.trim_end_matches('/').to_owned(),
            user: user.to_owned(),
            authorization,
            request_max: REQUEST_MAX,
        })
    }

    /// Creates a client for the broker at `http://[USER:PASSWORD@]HOST:PORT`. User and password are percent-decoded;
    /// both are `guest` by default. Does not connect yet.
    ///
    /// # Errors
    /// [`Error::Address`] if `url` is no such URL.
    pub fn from_url(url: &str) -> Result<Self, Error> {
        let Some((scheme, rest)) = url.split_once("://") else { return Err(Error::Address(without_login(url))) };
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        match rest.rsplit_once('@') {
            Some((login, host)) => {
                let (user, password) = login.split_once(':').unwrap_or((login, ""));
                Self::new(&format!("{scheme}://{host}"), &decode(user), &decode(password))
            }
            None => Self::new(url, "guest", "guest"),
        }
    }

    /// Returns the client with another limit on the time that a request may take.
    #[must_use]
    pub fn within(self, request_max: Duration) -> Self {
        Self { request_max, ..self }
    }

    /// Checks whether the node that is asked can serve clients. Only Leveret has this; it needs no login.
    ///
    /// # Errors
    /// [`Error::Refused`] with status 503 and what is missing, if it cannot.
    pub async fn readiness(&self) -> Result<(), Error> {
        self.send(Method::GET, "/health/ready", Bytes::new()).await.map(drop)
    }

    /// Returns the cluster as the node sees it that is asked. Only Leveret has this.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the node is no part of a cluster.
    pub async fn cluster(&self) -> Result<ClusterStatus, Error> {
        self.read("/api/leveret/cluster").await
    }

    /// Adds the node at `address` to the cluster. Only Leveret has this.
    ///
    /// # Errors
    /// [`Error::Refused`] if the node cannot be added.
    pub async fn add_member(&self, address: &str) -> Result<(), Error> {
        let body = MemberBody { address };
        self.write(Method::POST, "/api/leveret/cluster/members", &body).await.map(drop)
    }

    /// Removes the member with this identity, name or address from the cluster. Only Leveret has this.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such member, [`Error::Refused`] if the others could not go on without it.
    pub async fn remove_member(&self, member: &str) -> Result<(), Error> {
        self.delete(&path(&["leveret", "cluster", "members", member])).await
    }

    /// Lets other nodes lead what the node leads that is asked, and waits a while until all others have all entries. Only
    /// Leveret has this.
    ///
    /// # Errors
    /// [`Error::Refused`] with status 503 and what is missing, if that takes longer.
    pub async fn transfer_leaders(&self) -> Result<(), Error> {
        self.send(Method::POST, "/api/leveret/cluster/transfer", Bytes::new()).await.map(drop)
    }

    /// Returns version and totals of the broker.
    ///
    /// # Errors
    /// [`Error`] if the request fails.
    pub async fn overview(&self) -> Result<Overview, Error> {
        self.read("/api/overview").await
    }

    /// Returns the resources that at least one node of the broker has run short of: `memory`, `disk`.
    ///
    /// # Errors
    /// [`Error`] if the request fails.
    pub async fn alarms(&self) -> Result<Vec<String>, Error> {
        let nodes: Vec<Node> = self.read("/api/nodes?columns=mem_alarm,disk_free_alarm").await?;
        let resources = [
            ("memory", nodes.iter().any(|node| node.mem_alarm)),
            ("disk", nodes.iter().any(|node| node.disk_free_alarm)),
        ];
        Ok(resources.into_iter().filter(|(_, is_short)| *is_short).map(|(resource, _)| resource.to_owned()).collect())
    }

    /// Returns the virtual hosts that the user may use.
    ///
    /// # Errors
    /// [`Error`] if the request fails.
    pub async fn vhosts(&self) -> Result<Vec<Vhost>, Error> {
        self.read("/api/vhosts?columns=name,default_queue_type").await
    }

    /// Returns all queues.
    ///
    /// # Errors
    /// [`Error`] if the request fails.
    pub async fn queues(&self) -> Result<Vec<QueueInfo>, Error> {
        let columns =
            "name,vhost,durable,auto_delete,exclusive,arguments,messages_ready,messages_unacknowledged,consumers";
        self.read(&format!("/api/queues?columns={columns}")).await
    }

    /// Returns one queue.
    ///
    /// # Errors
    /// [`Error`] if the request fails.
    pub async fn queue(&self, vhost: &str, name: &str) -> Result<QueueInfo, Error> {
        self.read(&path(&["queues", vhost, name])).await
    }

    /// Returns one exchange.
    ///
    /// # Errors
    /// [`Error`] if the request fails.
    pub async fn exchange(&self, vhost: &str, name: &str) -> Result<ExchangeInfo, Error> {
        self.read(&path(&["exchanges", vhost, name])).await
    }

    /// Returns all bindings that have the same source and destination as `binding`.
    ///
    /// # Errors
    /// [`Error`] if the request fails.
    pub async fn bindings_like(&self, binding: &BindingInfo) -> Result<Vec<BindingInfo>, Error> {
        self.read(&between(binding, &[])).await
    }

    /// Returns all exchanges.
    ///
    /// # Errors
    /// [`Error`] if the request fails.
    pub async fn exchanges(&self) -> Result<Vec<ExchangeInfo>, Error> {
        self.read("/api/exchanges?columns=name,vhost,type,durable,auto_delete,internal,arguments").await
    }

    /// Returns all bindings, including those of the default exchange.
    ///
    /// # Errors
    /// [`Error`] if the request fails.
    pub async fn bindings(&self) -> Result<Vec<BindingInfo>, Error> {
        self.read("/api/bindings").await
    }

    /// Declares a queue.
    ///
    /// # Errors
    /// [`Error::Refused`] if the broker refuses it, for example because it exists with other properties.
    pub async fn declare_queue(&self, queue: &QueueInfo) -> Result<Made, Error> {
        let QueueInfo { name, vhost, durable, auto_delete, arguments, .. } = queue;
        let body = QueueBody { durable: *durable, auto_delete: *auto_delete, arguments };
        made(self.write(Method::PUT, &path(&["queues", vhost, name]), &body).await?)
    }

    /// Deletes a queue if the conditions in `only` hold.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the queue does not exist, [`Error::Refused`] if a condition does not hold.
    pub async fn delete_queue(&self, vhost: &str, name: &str, only: DeleteOnly) -> Result<(), Error> {
        self.delete(&format!("{}{}", path(&["queues", vhost, name]), only.query())).await
    }

    /// Declares an exchange.
    ///
    /// # Errors
    /// [`Error::Refused`] if the broker refuses it, for example because it exists with other properties.
    pub async fn declare_exchange(&self, exchange: &ExchangeInfo) -> Result<Made, Error> {
        let ExchangeInfo { name, vhost, kind, durable, auto_delete, internal, arguments } = exchange;
        let (durable, auto_delete, internal) = (*durable, *auto_delete, *internal);
        let body = ExchangeBody { kind, durable, auto_delete, internal, arguments };
        made(self.write(Method::PUT, &path(&["exchanges", vhost, name]), &body).await?)
    }

    /// Deletes an exchange; with `if_unused` only if there are no bindings from it.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the exchange does not exist, [`Error::Refused`] if it is in use.
    pub async fn delete_exchange(&self, vhost: &str, name: &str, if_unused: bool) -> Result<(), Error> {
        let only = DeleteOnly { if_unused, if_empty: false };
        self.delete(&format!("{}{}", path(&["exchanges", vhost, name]), only.query())).await
    }

    /// Creates a binding. Does nothing if it already exists.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the source or the destination does not exist.
    pub async fn bind(&self, binding: &BindingInfo) -> Result<(), Error> {
        let body = BindingBody { routing_key: &binding.routing_key, arguments: &binding.arguments };
        self.write(Method::POST, &between(binding, &[]), &body).await.map(drop)
    }

    /// Deletes the binding that has the ends and the `properties_key` of `binding`.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the binding does not exist.
    pub async fn unbind(&self, binding: &BindingInfo) -> Result<(), Error> {
        self.delete(&between(binding, &[&binding.properties_key])).await
    }

    async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        let (_, body) = self.send(Method::GET, path, Bytes::new()).await?;
        serde_json::from_slice(&body)
            .map_err(|error| Error::Unexpected { url: format!("{}{path}", self.base), problem: error.to_string() })
    }

    async fn write(&self, method: Method, path: &str, body: &impl Serialize) -> Result<StatusCode, Error> {
        let body = serde_json::to_vec(body).map_err(|error| self.unreachable(&error.to_string()))?;
        Ok(self.send(method, path, body.into()).await?.0)
    }

    async fn delete(&self, path: &str) -> Result<(), Error> {
        self.send(Method::DELETE, path, Bytes::new()).await.map(drop)
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), Error> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(AUTHORIZATION, &self.authorization)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| self.unreachable(&error.to_string()))?;
        let answer = async {
            let response = self.http.request(request).await.map_err(|error| source(&error))?;
            let status = response.status();
            let body =
                Limited::new(response.into_body(), BODY_MAX).collect().await.map_err(|error| error.to_string())?;
            Ok::<_, String>((status, body.to_bytes()))
        };
        match tokio::time::timeout(self.request_max, answer).await {
            Ok(Ok((status, body))) if status.is_success() => Ok((status, body)),
            Ok(Ok((status, body))) => Err(self.refusal(status, &body)),
            Ok(Err(problem)) => Err(self.unreachable(&problem)),
            Err(_) => Err(self.unreachable(&format!("no answer within {:?}", self.request_max))),
        }
    }

    fn refusal(&self, status: StatusCode, body: &[u8]) -> Error {
        let said: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let reason = match said["reason"].as_str() {
            Some(reason) => reason.to_owned(),
            None => format!("{status} {}", String::from_utf8_lossy(body).trim()).trim().to_owned(),
        };
        match status {
            StatusCode::UNAUTHORIZED => Error::Unauthorized { user: self.user.clone(), reason },
            StatusCode::NOT_FOUND => Error::NotFound(reason),
            _ => Error::Refused { status: status.as_u16(), reason },
        }
    }

    fn unreachable(&self, problem: &str) -> Error {
        Error::Unreachable { url: self.base.clone(), problem: problem.to_owned() }
    }
}

/// Returns a URL without scheme, user and password if it contains a login, so that it can be shown.
fn without_login(url: &str) -> String {
    url.rsplit_once('@').map_or(url, |(_, host)| host).to_owned()
}

fn made(status: StatusCode) -> Result<Made, Error> {
    Ok(if status == StatusCode::CREATED { Made::Created } else { Made::Unchanged })
}

/// Returns the text of the innermost error: the outer ones only say that something went wrong.
fn source(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(inner) = innermost.source() {
        innermost = inner;
    }
    innermost.to_string()
}

fn path(parts: &[&str]) -> String {
    let encoded = parts.iter().map(|part| format!("/{}", utf8_percent_encode(part, NON_ALPHANUMERIC)));
    encoded.fold("/api".to_owned(), |path, part| path + &part)
}

fn between(binding: &BindingInfo, further: &[&str]) -> String {
    let kind = if binding.destination_type == "exchange" { "e" } else { "q" };
    let parts = ["bindings", &binding.vhost, "e", &binding.source, kind, &binding.destination];
    path(&[&parts, further].concat())
}

/// How long opening a connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// How long a request may take, from sending it to the end of the answer.
const REQUEST_MAX: Duration = Duration::from_secs(10);
/// Number of idle connections that are kept for later requests.
const IDLE_MAX: usize = 16;
/// Maximum size of an answer in bytes: enough for a list of tens of thousands of queues.
const BODY_MAX: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_in_paths() {
        assert_eq!(path(&["queues", "/", "a b/c%"]), "/api/queues/%2F/a%20b%2Fc%25");
        let binding =
            BindingInfo { source: "s".into(), vhost: "/".into(), destination: "d".into(), ..BindingInfo::default() };
        assert_eq!(between(&binding, &["~"]), "/api/bindings/%2F/e/s/q/d/%7E");
    }

    #[test]
    fn urls_are_checked_and_their_logins_decoded() {
        for bad in ["nothing", "ftp://h:1", "http://"] {
            assert_eq!(Client::from_url(bad).err(), Some(Error::Address(bad.to_owned())), "{bad}");
        }
        let client = Client::from_url("http://us%40er:p%3Aw@host:1/").unwrap();
        assert_eq!((&*client.base, &*client.user), ("http://host:1", "us@er"));
        assert_eq!(client.authorization, format!("Basic {}", BASE64_STANDARD.encode("us@er:p:w")));
    }
}
