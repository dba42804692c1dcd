//! Elections in front of an API server that knows one lease, and refuses what was read too long ago.
use super::*;
use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct Server {
    lease: Option<Value>,
    version: u64,
}

impl Server {
    fn store(&mut self, mut lease: Value) -> (StatusCode, Value) {
        self.version += 1;
        lease["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.lease = Some(lease.clone());
        (StatusCode::OK, lease)
    }

    fn answer(&mut self, method: &Method, sent: Value) -> (StatusCode, Value) {
        let refused = |code: StatusCode| {
            let reason = if code == StatusCode::NOT_FOUND { "NotFound" } else { "Conflict" };
            let status = json!({"kind": "Status", "status": "Failure", "code": code.as_u16(), "reason": reason, "message": reason});
            (code, status)
        };
        match (method, &self.lease) {
            (&Method::GET, None) => refused(StatusCode::NOT_FOUND),
            (&Method::GET, Some(lease)) => (StatusCode::OK, lease.clone()),
            (&Method::POST, None) => self.store(sent),
            (&Method::PUT, Some(lease))
                if lease["metadata"]["resourceVersion"] == sent["metadata"]["resourceVersion"] =>
            {
                self.store(sent)
            }
            _ => refused(StatusCode::CONFLICT),
        }
    }
}

fn client(server: &Arc<Mutex<Server>>) -> Client {
    let server = server.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let server = server.clone();
        async move {
            let (head, body) = request.into_parts();
            let sent = body.collect_bytes().await.unwrap_or_default();
            let sent = serde_json::from_slice(&sent).unwrap_or_default();
            let (status, answer) = server.lock().unwrap().answer(&head.method, sent);
            let response = Response::builder().status(status).body(Body::from(answer.to_string().into_bytes()));
            Ok::<_, Infallible>(response.unwrap())
        }
    });
    Client::new(service, "default")
}

fn two() -> (Election, Election) {
    let server = Arc::default();
    (Election::new(client(&server), "default", "a"), Election::new(client(&server), "default", "b"))
}

#[tokio::test]
async fn a_lease_given_up_is_taken_over_at_once() {
    let (mut a, mut b) = two();
    assert_eq!(a.attempt().await.unwrap(), Attempt::Held);
    assert_eq!(b.attempt().await.unwrap(), Attempt::Others);
    assert_eq!(a.attempt().await.unwrap(), Attempt::Held);
    b.release().await;
    assert_eq!(b.attempt().await.unwrap(), Attempt::Others);
    a.release().await;
    assert_eq!(b.attempt().await.unwrap(), Attempt::Held);
    assert_eq!(a.attempt().await.unwrap(), Attempt::Others);
}

#[tokio::test]
async fn a_lease_runs_out_only_when_nobody_renews_it() {
    let (mut a, mut b) = two();
    assert_eq!(a.attempt().await.unwrap(), Attempt::Held);
    assert_eq!(b.attempt().await.unwrap(), Attempt::Others);
    let long_ago = |observed: &mut Option<(Option<String>, Instant)>| {
        if let Some((_, since)) = observed {
            *since = Instant::now().checked_sub(DURATION * 2).unwrap();
        }
    };
    long_ago(&mut b.observed);
    assert_eq!(a.attempt().await.unwrap(), Attempt::Held);
    assert_eq!(b.attempt().await.unwrap(), Attempt::Others, "it was renewed meanwhile");
    long_ago(&mut b.observed);
    assert_eq!(b.attempt().await.unwrap(), Attempt::Held);
    assert_eq!(a.attempt().await.unwrap(), Attempt::Others);
}

#[tokio::test]
async fn of_two_at_once_one_gets_it() {
    for _ in 0..50 {
        let (mut a, mut b) = two();
        let both = tokio::join!(a.attempt(), b.attempt());
        let held = [both.0.unwrap(), both.1.unwrap()].iter().filter(|attempt| **attempt == Attempt::Held).count();
        assert_eq!(held, 1);
    }
}
