//! The requests that RabbitMQ's tools and client libraries send, and the fields that they read from the answers.
use crate::served::{exchange, request, serve};
use leveret_model::table::{FieldTable, FieldValue};
use leveret_node::{Caller, ConsumerOwner, Fill, Hello, Identity, Options, Sink, Source, Subscription, Tuned};
use serde_json::{Value, json};
use std::sync::Arc;

#[tokio::test]
async fn bodies_are_accepted_as_various_tools_write_them() {
    let served = serve(Options::default()).await;
    for (number, body) in [
        r#"{"durable":"true","auto_delete":"false","arguments":{}}"#,
        r#"{"durable":true,"arguments":[]}"#,
        r#"{"arguments":"","node":"rabbit@host"}"#,
        r#"{"durable":null,"arguments":null}"#,
        "null",
        " ",
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/api/queues/%2F/q{number}");
        assert_eq!(served.ask("PUT", &path, body).await.0, 201, "{body}");
        let queue = served.get(&path).await;
        assert_eq!((&queue["durable"], &queue["arguments"]), (&json!(true), &json!({})), "{body}");
    }
    let body = r#"{"type":"topic","durable":"false","auto_delete":"false","internal":"false","arguments":[]}"#;
    assert_eq!(served.ask("PUT", "/api/exchanges/%2F/e", body).await.0, 201);
    assert_eq!(served.get("/api/exchanges/%2F/e").await["durable"], false);
    for (path, body) in [
        ("/api/queues/%2F/%0A", ""),
        ("/api/queues/%2F/%0D%0A%0A", "{}"),
        ("/api/queues/%2F/x", "[]"),
        ("/api/exchanges/%2F/x", "[]"),
        ("/api/queues/%2F/x", "{\"durable\": 1}"),
        ("/api/queues/%2F/x", "{\"durable\": "),
    ] {
        let (status, reason) = served.reason("PUT", path, body).await;
        assert_eq!(status, 400, "{path} {body}: {reason}");
        assert_eq!(served.ask("GET", path, "").await.0, 404, "{path} {body}");
    }
    let (_, reason) = served.reason("PUT", "/api/queues/%2F/x", "{\"durable\": true,,}").await;
    assert!(reason.contains("at line 1 column 18"), "{reason}");
}

#[tokio::test]
async fn slashes_at_the_end_of_a_path_make_no_difference() {
    let served = serve(Options::default()).await;
    assert_eq!(served.ask("PUT", "/api/queues/%2F/q/", "").await.0, 201);
    assert_eq!(served.ask("POST", "/api/bindings/%2F/e/amq.topic/q/q/", r#"{"routing_key":"k"}"#).await.0, 201);
    for path in
        ["/api/overview", "/api/queues", "/api/queues/%2F", "/api/queues/%2F/q", "/api/nodes", "/api/bindings/%2F"]
    {
        assert_eq!(served.ask("GET", &format!("{path}/"), "").await.0, 200, "{path}");
    }
    assert_eq!(served.get("/api/queues/?columns=name").await, json!([{"name": "q"}]));
    assert_eq!(served.ask("DELETE", "/api/queues/%2F/q/contents/", "").await.0, 204);
    assert_eq!(served.ask("DELETE", "/api/queues/%2F/q//", "").await.0, 204);
    assert_eq!(exchange(served.http, "GET /health/live/ HTTP/1.0\r\n\r\n").await.0, 200);
    assert!(served.scrape("/metrics/").await.contains("leveret_queues 0"));
}

#[tokio::test]
async fn missing_resources_are_answered_with_rabbitmqs_404() {
    let served = serve(Options::default()).await;
    let absent = json!({"error": "Object Not Found", "reason": "Not Found"});
    for (method, path) in [
        ("GET", "/api/nothing"),
        ("GET", "/api"),
        ("GET", "/"),
        ("GET", "/api/queues/nowhere"),
        ("GET", "/api/queues/nowhere/q"),
        ("GET", "/api/queues/%2F/q"),
        ("DELETE", "/api/queues/%2F/q"),
        ("DELETE", "/api/queues/%2F/q/contents"),
        ("GET", "/api/queues/%2F/q/bindings"),
        ("GET", "/api/exchanges/%2F/e"),
        ("DELETE", "/api/exchanges/%2F/e"),
        ("GET", "/api/exchanges/%2F/e/bindings/source"),
        ("GET", "/api/bindings/%2F/e/amq.topic/q/q/k"),
        ("DELETE", "/api/bindings/%2F/e/amq.topic/q/q/k"),
        ("GET", "/api/vhosts/nowhere"),
        ("GET", "/api/vhosts/nowhere/connections"),
        ("GET", "/api/connections/nobody"),
        ("DELETE", "/api/connections/nobody"),
        ("GET", "/api/channels/nobody%20(1)"),
        ("GET", "/api/channels/nobody"),
        ("GET", "/api/nodes/other"),
        ("GET", "/api/users/nobody"),
        ("GET", "/api/permissions/%2F/nobody"),
        ("GET", "/api/aliveness-test/nowhere"),
        ("GET", "/api/consumers/nowhere"),
    ] {
        assert_eq!(served.ask(method, path, "").await, (404, absent.clone()), "{method} {path}");
    }
    let vhost = json!({"error": "not_found", "reason": "vhost_not_found"});
    for (method, path) in [
        ("PUT", "/api/queues/nowhere/q"),
        ("PUT", "/api/exchanges/nowhere/e"),
        ("POST", "/api/bindings/nowhere/e/e/q/q"),
    ] {
        assert_eq!(served.ask(method, path, "").await, (404, vhost.clone()), "{method} {path}");
    }
    let (status, answer) = served.ask("PATCH", "/api/overview", "").await;
    assert_eq!((status, &answer["error"]), (405, &json!("method_not_allowed")));
}

#[tokio::test]
async fn a_binding_is_shown_and_deleted_at_the_location_that_its_creation_returned() {
    let served = serve(Options::default()).await;
    assert_eq!(served.ask("PUT", "/api/queues/%2F/q%20%2F1", "").await.0, 201);
    for body in [
        r#"{"routing_key":"a.b"}"#,
        r#"{"routing_key":"~"}"#,
        r#"{"routing_key":"a/b?c#d%e f"}"#,
        r#"{"routing_key":"","arguments":{"b":1,"a":"x"}}"#,
        r#"{"routing_key":"k~","arguments":{"a":"x"}}"#,
        "",
    ] {
        let path = "/api/bindings/%2F/e/amq.headers/q/q%20%2F1";
        let (status, head, _) = exchange(served.http, &request("POST", path, body)).await;
        assert_eq!(status, 201, "{body}");
        let location = head.lines().find_map(|line| line.strip_prefix("location: ")).expect(&head);
        // `exchange` turns the head into lower case, but the properties key has its escapes in upper case. An escape of the
        // key is escaped again in the location: "%7E" is there as "%257e".
        let mut parts = location.split("%25");
        let first = parts.next().unwrap_or_default().to_owned();
        let whole = parts.fold(first, |whole, part| whole + "%25" + &part[..2].to_uppercase() + &part[2..]);
        let made = format!("/api/bindings/%2F/e/amq.headers/q/{whole}");
        assert_eq!(served.get(&made).await["destination"], "q /1", "{made}");
        assert_eq!(served.ask("DELETE", &made, "").await.0, 204, "{made}");
        assert_eq!(served.ask("GET", &made, "").await.0, 404, "{made}");
    }
    let default = served.get("/api/bindings/%2F/e/amq.default/q/q%20%2F1/q%20%2F1").await;
    assert_eq!((&default["source"], &default["routing_key"]), (&json!(""), &json!("q /1")));
}

#[tokio::test]
async fn the_node_has_the_fields_that_tools_read() {
    let served = serve(Options::default()).await;
    let overview = served.get("/api/overview").await;
    let (listeners, contexts) = (&overview["listeners"], &overview["contexts"]);
    assert_eq!(
        (&listeners[0]["protocol"], &listeners[0]["port"]),
        (&json!("http"), &json!(served.http.port())),
        "{listeners}"
    );
    assert_eq!((&listeners[1]["protocol"], listeners[1]["ip_address"].is_string()), (&json!("http/prometheus"), true));
    assert_eq!(contexts[0]["port"], served.http.port().to_string());
    for field in ["queue_totals", "object_totals", "message_stats", "churn_rates"] {
        assert!(overview[field].is_object(), "{field}");
    }
    for field in ["erlang_version", "erlang_full_version"] {
        assert!(overview[field].is_string(), "{field}");
    }
    assert_eq!(served.ask("PUT", "/api/queues/%2F/churned", "").await.0, 201);
    assert_eq!(served.ask("PUT", "/api/queues/%2F/churned", "").await.0, 204);
    assert_eq!(served.ask("DELETE", "/api/queues/%2F/churned", "").await.0, 204);
    let churn = &served.get("/api/overview").await["churn_rates"];
    for (what, count) in [
        ("queue_declared", 2),
        ("queue_created", 1),
        ("queue_deleted", 1),
        ("channel_created", 0),
        ("channel_closed", 0),
        ("connection_created", 0),
        ("connection_closed", 0),
    ] {
        assert_eq!(
            (&churn[what], churn[format!("{what}_details")]["rate"].is_number()),
            (&json!(count), true),
            "{what}"
        );
    }
    let name = served.broker.name().to_owned();
    let node = served.get(&format!("/api/nodes/{name}")).await;
    assert_eq!(served.get("/api/nodes").await[0]["name"], name.as_str());
    assert_eq!((&node["partitions"], &node["running"]), (&json!([]), &json!(true)));
    assert!(node["applications"].as_array().unwrap().iter().all(|application| application["description"].is_string()));
    for field in ["mem_used", "mem_limit", "fd_used", "fd_total", "sockets_used", "disk_free", "uptime", "run_queue"] {
        assert!(node[field].is_u64(), "{field}: {}", node[field]);
    }
    assert!(node["fd_used"].as_u64() > Some(0) && node["fd_used"].as_u64() < node["fd_total"].as_u64());
    assert_eq!(served.get("/api/nodes?columns=name").await, json!([{"name": name}]));
    for (path, expected) in [
        ("/api/cluster-name", json!({"name": name})),
        ("/api/extensions", json!([])),
        ("/api/feature-flags", json!([])),
        ("/api/deprecated-features", json!([])),
        ("/api/auth", json!({"oauth_enabled": false})),
    ] {
        assert_eq!(served.get(path).await, expected, "{path}");
    }
    let user = &served.get("/api/users").await[0];
    assert_eq!(
        (&user["name"], &user["tags"], &user["limits"]),
        (&json!("guest"), &json!(["administrator"]), &json!({}))
    );
    assert_eq!(user["hashing_algorithm"], "rabbit_password_hashing_sha256");
    assert_eq!(user["password_hash"].as_str().map(str::len), Some(48), "36 bytes in base64");
    assert_eq!(served.get("/api/users/guest").await, *user);
    let permission = json!({"user": "guest", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"});
    assert_eq!(served.get("/api/permissions/%2F/guest").await, permission);
    for path in ["/api/permissions", "/api/users/guest/permissions", "/api/vhosts/%2F/permissions"] {
        assert_eq!(served.get(path).await, json!([permission]), "{path}");
    }
}

#[tokio::test]
async fn health_checks_succeed_or_fail_as_the_node_is() {
    let served = serve(Options::default()).await;
    let checks = "/api/health/checks";
    let port = served.http.port();
    for check in [
        "alarms".to_owned(),
        "local-alarms".to_owned(),
        "virtual-hosts".to_owned(),
        "node-is-quorum-critical".to_owned(),
        "is-in-service".to_owned(),
        "ready-to-serve-clients".to_owned(),
        "below-node-connection-limit".to_owned(),
        "certificate-expiration/3/Months".to_owned(),
        "protocol-listener/http".to_owned(),
        format!("port-listener/{port}"),
    ] {
        assert_eq!(served.get(&format!("{checks}/{check}")).await["status"], "ok", "{check}");
    }
    assert_eq!(served.get("/api/aliveness-test/%2F").await, json!({"status": "ok"}));
    let (status, answer) = served.ask("GET", &format!("{checks}/port-listener/1"), "").await;
    assert_eq!((status, &answer["missing"], &answer["reason"]), (503, &json!(1), &json!("No active listener")));
    let (status, answer) = served.ask("GET", &format!("{checks}/protocol-listener/mqtt"), "").await;
    assert_eq!((status, &answer["missing"]), (503, &json!("mqtt")));
    served.broker.add_listener("amqp", "127.0.0.1:5672".parse().unwrap());
    assert_eq!(served.get(&format!("{checks}/protocol-listener/amqp0-9-1")).await["protocol"], "amqp");
    for path in ["port-listener/x", "certificate-expiration/x/days", "certificate-expiration/1/moons"] {
        assert_eq!(served.reason("GET", &format!("{checks}/{path}"), "").await.0, 400, "{path}");
    }
}

/// A consumer that takes no message.
struct Idle(ConsumerOwner);

impl Sink for Idle {
    fn fill(&self, _: &mut dyn Source) -> Fill {
        Fill::Blocked
    }

    fn owner(&self) -> Option<ConsumerOwner> {
        Some(self.0.clone())
    }
}

#[tokio::test]
async fn connections_with_their_channels_and_consumers_are_shown_and_closed() {
    let served = serve(Options::default()).await;
    let name = FieldValue::from("billing");
    let connection = served.broker.connected(Hello {
        mechanism: "PLAIN",
        peer: "[::ffff:10.0.0.1]:4000".parse().unwrap(),
        local: "127.0.0.1:5672".parse().unwrap(),
        identity: Identity { user: "guest".into() },
        vhost: "/".into(),
        protocol: "AMQP 0-9-1",
        client_properties: FieldTable::from_iter([("connection_name", name)]),
        tuned: Tuned { frame_max: 131_072, channel_max: 2047, heartbeat: 60 },
    });
    assert_eq!(connection.name, "10.0.0.1:4000 -> 127.0.0.1:5672");
    connection.channels.lock().insert(3, Arc::default());
    for queue in ["a", "b"] {
        let queue = served.declare(queue).await;
        for number in 0..100 {
            let owner = ConsumerOwner { connection: connection.id, channel: 3, tag: format!("tag-{number:03}") };
            let sink = Arc::new(Idle(owner));
            let subscription = Subscription { sink, exclusive: false, no_ack: number == 0, prefetch: 7 };
            served.broker.subscribe(&Caller::system(), &queue, subscription).unwrap();
        }
    }
    let encoded = connection.name.replace(' ', "%20").replace('>', "%3E");
    let shown = served.get(&format!("/api/connections/{encoded}")).await;
    assert_eq!((&shown["user_provided_name"], &shown["channels"]), (&json!("billing"), &json!(1)));
    let channel = served.get(&format!("/api/channels/{encoded}%20(3)")).await;
    assert_eq!((&channel["number"], &channel["connection_details"]["name"]), (&json!(3), &shown["name"]));
    for path in ["/api/channels", "/api/vhosts/%2F/channels", &format!("/api/connections/{encoded}/channels")] {
        assert_eq!(served.get(path).await, json!([channel]), "{path}");
    }
    for path in ["/api/connections", "/api/vhosts/%2F/connections", "/api/connections/username/guest"] {
        assert_eq!(served.get(path).await[0]["name"], shown["name"], "{path}");
    }
    let consumers = served.get("/api/consumers/%2F").await;
    let tags: Vec<_> = consumers.as_array().unwrap().iter().map(|one| one["consumer_tag"].as_str().unwrap()).collect();
    let expected: Vec<_> = (0..200).map(|number| format!("tag-{:03}", number % 100)).collect();
    assert_eq!(tags, expected);
    let one: &Value = &consumers[100];
    assert_eq!((&one["queue"], &one["ack_required"]), (&json!({"name": "b", "vhost": "/"}), &json!(false)));
    assert_eq!((&one["prefetch_count"], &one["channel_details"]["name"]), (&json!(7), &channel["name"]));
    assert_eq!((&one["consumer_timeout"], &one["channel_details"]["node"]), (&json!(0), &channel["node"]));
    assert_eq!(served.get("/api/consumers?page=3&page_size=90").await["item_count"], 20);

    let asked = request("DELETE", &format!("/api/connections/{encoded}"), "");
    assert_eq!(exchange(served.http, &asked).await.0, 204);
    assert!(connection.close.is_cancelled());
    assert_eq!(*connection.close_reason.lock(), "Closed via management plugin");
    let asked = asked.replace("content-length", "x-reason: moved away\r\ncontent-length");
    assert_eq!(exchange(served.http, &asked).await.0, 204);
    assert_eq!(*connection.close_reason.lock(), "moved away");
}

#[tokio::test]
async fn long_lists_are_complete_however_they_are_filtered_sorted_and_paged() {
    let served = serve(Options::default()).await;
    let mut names: Vec<_> = (0..1500).map(|number| format!("Queue-{number:04}")).collect();
    for name in &names {
        served.declare(name).await;
    }
    served.publish("Queue-0700", 3);
    let listed = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };
    for path in ["/api/queues", "/api/queues/%2F", "/api/queues/detailed", "/api/queues?columns=name"] {
        assert_eq!(listed(&served.get(path).await), names, "{path}");
    }
    let bindings = served.get("/api/bindings").await;
    assert!(bindings.as_array().unwrap().iter().map(|binding| &binding["routing_key"]).eq(&names));
    let busiest = served.get("/api/queues?sort=messages&sort_reverse=true&page=1&page_size=2&columns=name").await;
    assert_eq!(busiest["items"][0]["name"], "Queue-0700");
    assert_eq!((&busiest["total_count"], &busiest["page_count"]), (&json!(1500), &json!(750)));
    let found = served.get("/api/queues?page=1&name=qUEUE-07&page_size=500").await;
    assert_eq!((&found["filtered_count"], &found["item_count"]), (&json!(100), &json!(100)));
    let found = served.get("/api/queues?page=1&name=%5EQUEUE-%5Cd%2B7$&use_regex=true").await;
    assert_eq!(found["filtered_count"], 150);
    names.reverse();
    assert_eq!(listed(&served.get("/api/queues?sort=name&sort_reverse=true").await), names);
    assert_eq!(listed(&served.get("/api/queues?sort_reverse=true&columns=name").await), names);
    // The page that begins exactly at the end is empty; later ones are out of range.
    assert_eq!(served.get("/api/queues?page=4&page_size=500").await["items"], json!([]));
    assert_eq!(served.reason("GET", "/api/queues?page=5&page_size=500", "").await.0, 400);
}

#[tokio::test]
async fn metrics_have_only_totals_for_many_queues_and_series_of_all_on_request() {
    let served = serve(Options::default()).await;
    for number in 0..1000 {
        served.declare(&format!("q{number}")).await;
    }
    served.declare("amq.gen-1").await;
    served.publish("q7", 5);
    let series = |text: &str| text.lines().filter(|line| line.starts_with("leveret_queue_messages_ready{")).count();
    let few = served.scrape("/metrics").await;
    assert_eq!(series(&few), 1000);
    assert!(few.contains("leveret_queues_without_series 1\n") && !few.contains("amq.gen-1"));
    served.declare("one more").await;
    let many = served.scrape("/metrics").await;
    assert_eq!(series(&many), 0);
    for line in [
        "leveret_queues 1002",
        "leveret_queues_without_series 1002",
        "leveret_messages_ready 5",
        "leveret_messages_published_total 5",
        "rabbitmq_queues 1002",
        "rabbitmq_queue_messages_ready 5",
        "process_max_fds",
    ] {
        assert!(many.contains(line), "{line} is not in\n{many}");
    }
    let all = served.scrape("/metrics/per-object").await;
    assert_eq!(series(&all), 1002);
    assert!(all.contains(r#"rabbitmq_queue_messages{vhost="/",queue="q7"} 5"#));
    assert_eq!(all.matches("# TYPE rabbitmq_queue_messages_ready ").count(), 1);
    let detailed = served.scrape("/metrics/detailed?family=queue_coarse_metrics&vhost=%2F").await;
    assert!(detailed.contains(r#"rabbitmq_detailed_queue_messages_ready{vhost="/",queue="q7"} 5"#));
    assert!(!detailed.contains("consumers") && served.scrape("/metrics/detailed?vhost=x").await.is_empty());
    // The totals keep the counts of a deleted queue.
    assert_eq!(served.ask("DELETE", "/api/queues/%2F/q7", "").await.0, 204);
    assert!(served.scrape("/metrics").await.contains("leveret_messages_published_total 5\n"));
}

#[tokio::test]
async fn a_node_that_is_alone_says_so_and_can_always_be_stopped() {
    let served = serve(Options::default()).await;
    let (status, reason) = served.reason("GET", "/api/leveret/cluster", "").await;
    assert_eq!((status, &*reason), (404, "this node was not started as part of a cluster"));
    let added = r#"{"address": "a:1"}"#;
    assert_eq!(served.ask("POST", "/api/leveret/cluster/members", added).await.0, 404);
    assert_eq!(served.ask("POST", "/api/leveret/cluster/members", "").await.0, 400);
    assert_eq!(served.ask("DELETE", "/api/leveret/cluster/members/a%3A1", "").await.0, 404);
    assert_eq!(served.ask("POST", "/api/leveret/cluster/transfer", "").await.0, 204);
    assert_eq!(
        served.get("/api/nodes?columns=name,running").await,
        json!([{"name": served.broker.name(), "running": true}])
    );
}
