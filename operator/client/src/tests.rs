//! Tests of the client with a fake broker: which requests it sends, and what it makes of the answers.
use crate::fake::Fake;
use crate::{Arguments, BindingInfo, Client, DeleteOnly, Error, ExchangeInfo, Made, QueueInfo};
use serde_json::json;

#[tokio::test]
async fn declaring_and_deleting_sends_the_requests_of_the_api() {
    let fake = Fake::start().await.unwrap();
    let client = Client::from_url(&fake.url).unwrap();
    let queue = QueueInfo { name: "a b".into(), vhost: "/".into(), durable: true, ..QueueInfo::default() };
    assert_eq!(client.declare_queue(&queue).await, Ok(Made::Created));
    assert_eq!(client.declare_queue(&queue).await, Ok(Made::Unchanged));
    let exchange =
        ExchangeInfo { name: "x".into(), vhost: "/".into(), kind: "topic".into(), ..ExchangeInfo::default() };
    assert_eq!(client.declare_exchange(&exchange).await, Ok(Made::Created));
    let arguments: Arguments = json!({"a": 1}).as_object().unwrap().clone();
    let binding = BindingInfo {
        source: "x".into(),
        vhost: "/".into(),
        destination: "a b".into(),
        destination_type: "queue".into(),
        routing_key: "k".into(),
        arguments,
        properties_key: String::new(),
    };
    assert_eq!(client.bind(&binding).await, Ok(()));
    assert_eq!(
        fake.writes(),
        [
            r#"POST /api/bindings/%2F/e/x/q/a%20b {"routing_key":"k","arguments":{"a":1}}"#,
            r#"PUT /api/exchanges/%2F/x {"type":"topic","durable":false,"auto_delete":false,"internal":false,"arguments":{}}"#,
            r#"PUT /api/queues/%2F/a%20b {"durable":true,"auto_delete":false,"arguments":{}}"#,
            r#"PUT /api/queues/%2F/a%20b {"durable":true,"auto_delete":false,"arguments":{}}"#,
        ]
    );
    let listed = client.bindings().await.unwrap();
    assert_eq!((listed.len(), &*listed[0].properties_key), (1, "k"));
    assert_eq!(client.unbind(&listed[0]).await, Ok(()));
    let only = DeleteOnly { if_empty: true, if_unused: true };
    assert_eq!(client.queues().await.unwrap().len(), 1);
    fake.refuse("DELETE /api/queues/%2F/a%20b?if-empty=true&if-unused=true", 400, "not empty");
    let refused = client.delete_queue("/", "a b", only).await;
    assert_eq!(refused, Err(Error::Refused { status: 400, reason: "not empty".into() }));
    assert_eq!(client.delete_queue("/", "a b", DeleteOnly::default()).await, Ok(()));
    assert_eq!(client.delete_exchange("/", "none", true).await, Err(Error::NotFound("Not Found".into())));
}

#[tokio::test]
async fn errors_carry_the_words_of_the_broker_and_never_a_password() {
    let fake = Fake::start().await.unwrap();
    let client = Client::new(&fake.url, "ann", "secret").unwrap();
    fake.refuse("GET /api/overview", 401, "Login failed");
    let error = client.overview().await.unwrap_err();
    assert_eq!(error.to_string(), "the broker refuses user 'ann': Login failed");
    fake.refuse("GET /api/overview", 503, "later");
    assert_eq!(client.overview().await, Err(Error::Refused { status: 503, reason: "later".into() }));
    fake.put("/queues/%2F/q", json!({"durable": "perhaps"}));
    assert!(matches!(client.queue("/", "q").await, Err(Error::Unexpected { .. })));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = Client::new(&format!("http://{closed}"), "ann", "secret").unwrap().overview().await.unwrap_err();
    assert!(matches!(&error, Error::Unreachable { .. }) && error.to_string().contains("refused"), "{error}");
    for url in ["https://ann:secret@host", "ann:secret@host"] {
        let shown = Client::from_url(url).err().unwrap().to_string();
        assert!(!shown.contains("secret"), "{shown}");
    }
}
