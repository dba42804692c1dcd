//! A broker with its management API and metrics on sockets of their own, and a client that sends exactly the bytes it is
//! given.
use leveret_management::Bounds;
use leveret_node::catalog::QueueDeclare;
use leveret_node::{Body, Broker, Caller, Extent, Options, Queue, RoutedRun};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// A running broker with its HTTP listeners; stopped when dropped.
pub(crate) struct Served {
    pub(crate) broker: Broker,
    pub(crate) http: SocketAddr,
    pub(crate) metrics: SocketAddr,
    pub(crate) stop: CancellationToken,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
        self.broker.stop();
    }
}

pub(crate) async fn serve(options: Options) -> Served {
    serve_within(options, Bounds::http()).await
}

pub(crate) async fn serve_within(options: Options, bounds: Bounds) -> Served {
    let (broker, stop) = (Broker::start(options), CancellationToken::new());
    let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let metrics = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let served = Served {
        broker: broker.clone(),
        http: http.local_addr().unwrap(),
        metrics: metrics.local_addr().unwrap(),
        stop,
    };
    let stop = served.stop.clone();
    tokio::spawn(leveret_management::serve_http_within(http, broker.clone(), bounds.clone(), stop.clone()));
    tokio::spawn(leveret_management::serve_metrics_within(metrics, broker, bounds, stop));
    served
}

/// The credentials `guest:guest`.
pub(crate) const LOGIN: &str = "Basic Z3Vlc3Q6Z3Vlc3Q=";
/// How long an answer may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Sends bytes and reads until the connection ends. Returns status, head in lower case, and body.
pub(crate) async fn exchange_bytes(at: SocketAddr, request: &[u8]) -> (u16, String, String) {
    let mut socket = TcpStream::connect(at).await.unwrap();
    socket.write_all(request).await.unwrap();
    read_answer(&mut socket).await
}

pub(crate) async fn exchange(at: SocketAddr, request: &str) -> (u16, String, String) {
    exchange_bytes(at, request.as_bytes()).await
}

/// Reads until the connection ends. Returns status, head in lower case, and body.
pub(crate) async fn read_answer(socket: &mut TcpStream) -> (u16, String, String) {
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, socket.read_to_string(&mut answer)).await.expect("an answer").unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect(&answer);
    (head[9..12].parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
}

/// Returns a request with a login in HTTP 1.0, so that the answer ends with the connection and is not chunked.
pub(crate) fn request(method: &str, path: &str, body: &str) -> String {
    let length = body.len();
    format!("{method} {path} HTTP/1.0\r\nhost: x\r\nauthorization: {LOGIN}\r\ncontent-length: {length}\r\n\r\n{body}")
}

impl Served {
    /// Sends a request and returns status and JSON body.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let (status, head, body) = exchange(self.http, &request(method, path, body)).await;
        if body.is_empty() {
            return (status, Value::Null);
        }
        assert!(head.contains("content-type: application/json"), "{path}: {head}");
        (status, serde_json::from_str(&body).expect(&body))
    }

    /// Returns the body of a GET that has to succeed.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask("GET", path, "").await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// Returns status and reason of a request that has to be refused.
    pub(crate) async fn reason(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let (status, answer) = self.ask(method, path, body).await;
        assert!(answer["error"].is_string(), "{answer}");
        (status, answer["reason"].as_str().unwrap().to_owned())
    }

    /// Returns the text of a scrape of `path`.
    pub(crate) async fn scrape(&self, path: &str) -> String {
        let (status, head, text) = exchange(self.metrics, &format!("GET {path} HTTP/1.0\r\nhost: x\r\n\r\n")).await;
        assert!(status == 200 && head.contains("content-type: text/plain"), "{head}");
        text
    }

    /// Declares a transient queue directly at the broker.
    pub(crate) async fn declare(&self, name: &str) -> Arc<Queue> {
        let declare = QueueDeclare { server_named: true, ..QueueDeclare::default() };
        self.broker.declare_queue(&Caller::system(), "/", name, declare).await.unwrap().1
    }

    /// Publishes messages of eight bytes to a queue, directly at the broker.
    pub(crate) fn publish(&self, queue: &str, messages: usize) {
        let route = self.broker.route(&Caller::system(), "/", "", queue.as_bytes(), None).unwrap();
        let message = Extent { properties_at: 0, properties_len: 2, body: Body::Inline { at: 2, len: 8 } };
        let messages = vec![message; messages];
        self.broker.publish(b"\0\x0012345678", &[RoutedRun { route: &route, messages: &messages, waiter: None }]);
    }
}
