//! Logins, definitions, lists, figures and alarms through the management API.
use crate::served::{exchange, serve};
use leveret_node::{Caller, Delivery, Fill, Options, Sink, Source};
use serde_json::json;

#[tokio::test]
async fn the_api_needs_a_login_and_health_checks_do_not() {
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
    assert_eq!(
        served.ask("GET", "/api/nothing", "").await,
        (404, json!({"error": "Object Not Found", "reason": "Not Found"}))
    );
    assert_eq!(served.reason("POST", "/api/queues", "").await.0, 405);
}

#[tokio::test]
async fn queues_are_declared_shown_and_deleted() {
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
        (r#"{"durable": "yes"}"#, "durable: expected a boolean, found the string \"yes\""),
        (r#"{"arguments": [1]}"#, "arguments: expected an object, found an array"),
        ("[]", "the body has to be a JSON object, it is an array"),
        ("\"{}\"", "the body has to be a JSON object"),
        ("[", "invalid JSON body"),
        (r#"{"arguments": {"x-message-ttl": 5}}"#, "x-message-ttl"),
        (r#"{"exclusive": true}"#, "exclusive"),
    ] {
        let (status, reason) = served.reason("PUT", "/api/queues/%2F/other", body).await;
        assert!(status == 400 && reason.contains(named), "{status} {reason}");
    }
    assert_eq!(served.reason("PUT", "/api/queues/nowhere/q", "").await, (404, "vhost_not_found".to_owned()));
    assert_eq!(served.ask("DELETE", path, "").await.0, 204);
    for method in ["GET", "DELETE"] {
        let expected = json!({"error": "Object Not Found", "reason": "Not Found"});
        assert_eq!(served.ask(method, path, "").await, (404, expected), "{method}");
    }
}

#[tokio::test]
async fn bindings_are_shown_and_deleted_by_their_properties_key() {
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
async fn every_binding_has_a_properties_key_of_its_own() {
    let served = serve(Options::default()).await;
    assert_eq!(served.ask("PUT", "/api/queues/%2F/q", "").await.0, 201);
    let between = "/api/bindings/%2F/e/amq.headers/q/q";
    let bodies = [
        r#"{"routing_key": ""}"#,
        r#"{"routing_key": "~"}"#,
        r#"{"routing_key": "%7E"}"#,
        r#"{"routing_key": "a/b c+d"}"#,
        r#"{"arguments": {"x-match": "any", "a": "1"}}"#,
    ];
    for body in bodies {
        assert_eq!(served.ask("POST", between, body).await.0, 201);
    }
    // The same arguments in another order are the same binding.
    assert_eq!(served.ask("POST", between, r#"{"arguments": {"a": "1", "x-match": "any"}}"#).await.0, 201);
    let bindings = served.get(between).await;
    let keys: Vec<_> =
        bindings.as_array().unwrap().iter().map(|binding| binding["properties_key"].as_str().unwrap()).collect();
    assert_eq!(keys.len(), bodies.len(), "{keys:?}");
    for key in keys {
        let path = format!("{between}/{}", key.replace('%', "%25"));
        assert_eq!(served.get(&path).await["properties_key"], key);
        assert_eq!(served.ask("DELETE", &path, "").await.0, 204, "{key}");
    }
    assert_eq!(served.get(between).await.as_array().unwrap().len(), 0);
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
    for (query, named) in [
        ("page=9", "Page out of range, page: 9 page size: 100, len: 25"),
        ("page=x", "Pagination parameters are invalid"),
        ("page=0", "Invalid pagination parameters: page number 0, page size 100"),
        ("page=1&page_size=501", "Invalid pagination parameters: page number 1, page size 501"),
        ("page=1&name=(&use_regex=true", "name"),
    ] {
        let (status, reason) = served.reason("GET", &format!("/api/queues?{query}"), "").await;
        assert!(status == 400 && reason.contains(named), "{status} {reason}");
    }
}

/// A consumer that takes every message.
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
async fn queue_overview_and_metrics_count_the_messages() {
    let served = serve(Options::default()).await;
    let (broker, queue) = (&served.broker, served.declare("q\"1").await);
    served.publish("q\"1", 5);
    assert!(
        broker.get(&Caller::system(), &queue, &Taker, false).await.unwrap()
            && broker.get(&Caller::system(), &queue, &Taker, true).await.unwrap()
    );
    let shown = served.get("/api/queues/%2F/q%221").await;
    assert_eq!((&shown["messages_ready"], &shown["messages_unacknowledged"]), (&json!(3), &json!(1)));
    for (name, count) in [("publish", 5), ("deliver_get", 2), ("ack", 1), ("redeliver", 0)] {
        assert_eq!(shown["message_stats"][name], count, "{name}");
        assert!(shown["message_stats"][format!("{name}_details")]["rate"].is_number(), "{name}");
    }
    for name in ["messages_details", "messages_ready_details", "messages_unacknowledged_details"] {
        assert!(shown[name]["rate"].is_number(), "{name}");
    }
    let overview = served.get("/api/overview").await;
    assert_eq!((&overview["queue_totals"]["messages"], &overview["message_stats"]["publish"]), (&json!(4), &json!(5)));
    assert!(overview["message_stats"]["publish_details"]["rate"].is_number());
    let text = served.scrape("/metrics").await;
    for line in [
        r#"leveret_queue_messages_ready{vhost="/",queue="q\"1"} 3"#,
        r#"leveret_queue_messages_unacked{vhost="/",queue="q\"1"} 1"#,
        r#"leveret_queue_messages_published_total{vhost="/",queue="q\"1"} 5"#,
        r#"leveret_queue_dwell_seconds_count{vhost="/",queue="q\"1"} 2"#,
        "leveret_memory_alarm 0",
        "leveret_messages_ready 3",
        "leveret_messages_published_total 5",
        "rabbitmq_queue_messages_ready 3",
        "leveret_queues_without_series 0",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert_eq!(served.ask("DELETE", "/api/queues/%2F/q%221?if-empty=true", "").await.0, 400);
    assert_eq!(served.ask("DELETE", "/api/queues/%2F/q%221/contents", "").await.0, 204);
    // Deleting the queue would lose the message that is not acknowledged yet.
    assert_eq!(served.ask("DELETE", "/api/queues/%2F/q%221?if-empty=true", "").await.0, 400);
    assert_eq!(served.ask("DELETE", "/api/queues/%2F/q%221", "").await.0, 204);
}

#[tokio::test]
async fn an_alarm_fails_the_health_check_for_alarms() {
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
async fn a_node_whose_storage_is_not_open_yet_is_alive_and_not_ready() {
    let served = serve(Options::default()).await;
    served.broker.announce_storage(&leveret_node::StorageOptions::in_folder(std::path::Path::new("/nowhere")));
    assert_eq!(served.ask("GET", "/health/live", "").await.0, 200);
    for (method, path) in [("GET", "/health/ready"), ("GET", "/api/overview"), ("PUT", "/api/queues/%2F/q")] {
        let (status, body) = served.ask(method, path, "{}").await;
        assert_eq!((status, &body["reason"]), (503, &json!("the log is being read: nothing is served yet")), "{path}");
    }
}
