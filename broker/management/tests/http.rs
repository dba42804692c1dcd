//! The management API over a real socket, in front of a real broker.
#![allow(clippy::unwrap_used, reason = "a test")]
use leveret_node::catalog::QueueDeclare;
use leveret_node::{Body, Broker, Delivery, Extent, Fill, Options, Sink, Source};
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

struct Served {
    broker: Broker,
    http: SocketAddr,
    metrics: SocketAddr,
    stop: CancellationToken,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
        self.broker.stop();
    }
}

async fn serve(options: Options) -> Served {
    let (broker, stop) = (Broker::start(options), CancellationToken::new());
    let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let metrics = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let served = Served {
        broker: broker.clone(),
        http: http.local_addr().unwrap(),
        metrics: metrics.local_addr().unwrap(),
        stop,
    };
    tokio::spawn(leveret_management::serve_http(http, broker.clone(), served.stop.clone()));
    tokio::spawn(leveret_management::serve_metrics(metrics, broker, served.stop.clone()));
    served
}

/// guest and guest.
const LOGIN: &str = "Basic Z3Vlc3Q6Z3Vlc3Q=";

async fn exchange(at: SocketAddr, request: &str) -> (u16, String, String) {
    let mut socket = TcpStream::connect(at).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
}

impl Served {
    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: {LOGIN}\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        let (status, _, body) = exchange(self.http, &request).await;
        let value = if body.is_empty() { Value::Null } else { serde_json::from_str(&body).expect(&body) };
        (status, value)
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask("GET", path, "").await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    async fn reason(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let (status, answer) = self.ask(method, path, body).await;
        assert!(answer["error"].is_string(), "{answer}");
        (status, answer["reason"].as_str().unwrap().to_owned())
    }
}

#[tokio::test]
async fn nobody_comes_in_without_a_login_but_health_is_for_all() {
    let served = serve(Options::default()).await;
    for header in ["", "authorization: Basic Z3Vlc3Q6d3Jvbmc=\r\n", "authorization: Bearer x\r\n"] {
        let request = format!("GET /api/queues HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{header}\r\n");
        let (status, head, body) = exchange(served.http, &request).await;
        assert_eq!((status, &*body), (401, r#"{"error":"not_authorized","reason":"Login failed"}"#));
        assert!(head.contains("www-authenticate: basic"), "{head}");
    }
    for path in ["/health/live", "/health/ready"] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        assert_eq!(exchange(served.http, &request).await.0, 200);
    }
    assert_eq!(served.get("/api/whoami").await["name"], "guest");
    assert_eq!(served.reason("GET", "/api/nothing", "").await, (404, "there is no /api/nothing".to_owned()));
    assert_eq!(served.reason("POST", "/api/queues", "").await.0, 405);
}

#[tokio::test]
async fn queues_are_declared_found_and_deleted() {
    let served = serve(Options::default()).await;
    let path = "/api/queues/%2F/a%20b%2Fc";
    assert_eq!(served.ask("PUT", path, "").await.0, 201);
    assert_eq!(served.ask("PUT", path, r#"{"durable": true}"#).await.0, 204);
    let (status, reason) = served.reason("PUT", path, r#"{"durable": false}"#).await;
    let text = "inequivalent arg 'durable' for queue 'a b/c' in vhost '/': received 'false' but current is 'true'";
    assert_eq!((status, &*reason), (400, text));
    let queue = served.get(path).await;
    let expected = json!({"name": "a b/c", "vhost": "/", "durable": true, "auto_delete": false, "exclusive": false, "messages": 0, "type": "classic"});
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&queue[field], value, "{field}");
    }
    for (body, named) in [
        (r#"{"durable": "yes"}"#, "expected a boolean"),
        ("[", "invalid JSON body"),
        (r#"{"arguments": {"x-message-ttl": 5}}"#, "x-message-ttl"),
        (r#"{"exclusive": true}"#, "exclusive"),
    ] {
        let (status, reason) = served.reason("PUT", "/api/queues/%2F/other", body).await;
        assert!(status == 400 && reason.contains(named), "{status} {reason}");
    }
    assert_eq!(served.reason("PUT", "/api/queues/nowhere/q", "").await, (404, "no vhost 'nowhere'".to_owned()));
    assert_eq!(served.ask("DELETE", path, "").await.0, 204);
    assert_eq!(served.reason("DELETE", path, "").await, (404, "no queue 'a b/c' in vhost '/'".to_owned()));
}

#[tokio::test]
async fn bindings_come_and_go_by_their_properties_key() {
    let served = serve(Options::default()).await;
    assert_eq!(served.ask("PUT", "/api/exchanges/%2F/e", r#"{"type": "topic"}"#).await.0, 201);
    assert_eq!(served.ask("PUT", "/api/exchanges/%2F/h", r#"{"type": "headers", "durable": false}"#).await.0, 201);
    assert_eq!(served.ask("PUT", "/api/queues/%2F/q", "").await.0, 201);
    let between = "/api/bindings/%2F/e/e/q/q";
    assert_eq!(served.ask("POST", between, r##"{"routing_key": "a.*.#"}"##).await.0, 201);
    let with_arguments = r#"{"arguments": {"x-match": "any", "n": 7, "s": "t"}}"#;
    assert_eq!(served.ask("POST", "/api/bindings/%2F/e/h/q/q", with_arguments).await.0, 201);
    assert_eq!(served.ask("POST", "/api/bindings/%2F/e/e/e/h", "").await.0, 201);
    let bindings = served.get("/api/bindings/%2F").await;
    let sources: Vec<_> =
        bindings.as_array().unwrap().iter().map(|binding| binding["source"].as_str().unwrap()).collect();
    assert_eq!(sources, ["", "e", "e", "h"]);
    for binding in bindings.as_array().unwrap().iter().skip(1) {
        let kind = if binding["destination_type"] == "queue" { "q" } else { "e" };
        let key = binding["properties_key"].as_str().unwrap().replace('#', "%23").replace('*', "%2A");
        let [source, destination] = ["source", "destination"].map(|field| binding[field].as_str().unwrap());
        let path = format!("/api/bindings/%2F/e/{source}/{kind}/{destination}/{key}");
        assert_eq!(&served.get(&path).await, binding);
        assert_eq!(served.ask("DELETE", &path, "").await.0, 204, "{path}");
        assert_eq!(served.reason("DELETE", &path, "").await.0, 404);
    }
    assert_eq!(served.get("/api/bindings").await.as_array().unwrap().len(), 1);
    assert_eq!(served.get("/api/queues/%2F/q/bindings").await[0]["source"], "");
    let (status, reason) = served.reason("POST", "/api/bindings/%2F/e/e/q/missing", "").await;
    assert_eq!((status, &*reason), (404, "no queue 'missing' in vhost '/'"));
    assert_eq!(served.reason("POST", "/api/bindings/%2F/e/amq.default/q/q", "").await.0, 400);
}

#[tokio::test]
async fn lists_are_paged_sorted_and_filtered() {
    let served = serve(Options::default()).await;
    for number in 0..25 {
        assert_eq!(served.ask("PUT", &format!("/api/queues/%2F/q{number:02}"), "").await.0, 201);
    }
    let page = served.get("/api/queues?page=3&page_size=10&columns=name&sort=name").await;
    assert_eq!(
        page["items"],
        json!([{"name": "q20"}, {"name": "q21"}, {"name": "q22"}, {"name": "q23"}, {"name": "q24"}])
    );
    assert_eq!((&page["page_count"], &page["total_count"]), (&json!(3), &json!(25)));
    let found =
        served.get("/api/queues/%2F?page=1&name=%5Eq1%5B0-4%5D&use_regex=true&sort=name&sort_reverse=true").await;
    assert_eq!((&found["filtered_count"], &found["items"][0]["name"]), (&json!(5), &json!("q14")));
    for (query, named) in
        [("page=9", "page out of range"), ("page=x", "page"), ("page=1&name=(&use_regex=true", "name")]
    {
        let (status, reason) = served.reason("GET", &format!("/api/queues?{query}"), "").await;
        assert!(status == 400 && reason.contains(named), "{status} {reason}");
    }
}

/// Takes all.
struct Taker;

impl Sink for Taker {
    fn fill(&self, source: &mut dyn Source) -> Fill {
        while let Some(Delivery { body, .. }) = source.next() {
            assert_eq!(body, b"12345678");
        }
        Fill::Exhausted
    }
}

#[tokio::test]
async fn numbers_follow_the_messages() {
    let served = serve(Options::default()).await;
    let broker = &served.broker;
    let declare = QueueDeclare {
        durable: true,
        exclusive: None,
        auto_delete: false,
        arguments: Default::default(),
        server_named: false,
        connection: None,
    };
    let (_, queue) = broker.declare_queue("/", "q\"1", declare).await.unwrap();
    let route = broker.route("/", "", b"q\"1", None).unwrap();
    let message = Extent { properties_at: 0, properties_len: 2, body: Body::Inline { at: 2, len: 8 } };
    broker.publish(&route, b"\0\x0012345678", &vec![message; 5], None);
    assert!(broker.get(&queue, &Taker, false).await && broker.get(&queue, &Taker, true).await);
    let shown = served.get("/api/queues/%2F/q%221").await;
    assert_eq!((&shown["messages_ready"], &shown["messages_unacknowledged"]), (&json!(3), &json!(1)));
    assert_eq!(shown["message_stats"], json!({"publish": 5, "deliver_get": 2, "ack": 1, "redeliver": 0}));
    assert_eq!(served.get("/api/overview").await["queue_totals"]["messages"], 4);
    let request = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let (status, head, text) = exchange(served.metrics, request).await;
    assert!(status == 200 && head.contains("content-type: text/plain"), "{head}");
    for line in [
        r#"leveret_queue_messages_ready{vhost="/",queue="q\"1"} 3"#,
        r#"leveret_queue_messages_unacked{vhost="/",queue="q\"1"} 1"#,
        r#"leveret_queue_messages_published_total{vhost="/",queue="q\"1"} 5"#,
        r#"leveret_queue_dwell_seconds_count{vhost="/",queue="q\"1"} 2"#,
        "leveret_memory_alarm 0",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert_eq!(served.ask("DELETE", "/api/queues/%2F/q%221?if-empty=true", "").await.0, 400);
    assert_eq!(served.ask("DELETE", "/api/queues/%2F/q%221/contents", "").await.0, 204);
    assert_eq!(served.ask("DELETE", "/api/queues/%2F/q%221?if-empty=true", "").await.0, 204);
}

#[tokio::test]
async fn an_alarm_is_a_failed_check() {
    let served = serve(Options { memory_max: 1, ..Options::default() }).await;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    loop {
        let (status, body) = served.ask("GET", "/api/health/checks/alarms", "").await;
        if status == 503 {
            assert_eq!((&body["status"], &body["alarms"][0]["resource"]), (&json!("failed"), &json!("memory")));
            return;
        }
        assert!(std::time::Instant::now() < deadline, "no alarm: {body}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_node_that_reads_its_log_lives_and_is_not_ready() {
    let served = serve(Options::default()).await;
    served.broker.announce_storage(&leveret_node::StorageOptions::in_folder(std::path::Path::new("/nowhere")));
    assert_eq!(served.ask("GET", "/health/live", "").await.0, 200);
    let reason = json!({"status": "failed", "reason": "the log is being read: nothing is served yet"});
    for (method, path) in [("GET", "/health/ready"), ("GET", "/api/overview"), ("PUT", "/api/queues/%2F/q")] {
        assert_eq!(served.ask(method, path, "{}").await, (503, reason.clone()), "{path}");
    }
}
