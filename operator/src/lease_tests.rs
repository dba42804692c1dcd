//! Elections with an API server that has one lease and refuses outdated versions of it.
use super::*;
use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct Server {
    lease: Option<Value>,
    /// The names of the pods that exist.
    pods: Vec<String>,
    version: u64,
}

impl Server {
    fn store(&mut self, mut lease: Value) -> (StatusCode, Value) {
        self.version += 1;
        lease["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.lease = Some(lease.clone());
        (StatusCode::OK, lease)
    }

    fn answer(&mut self, method: &Method, path: &str, sent: Value) -> (StatusCode, Value) {
        let refused = |code: StatusCode| {
            let reason = if code == StatusCode::NOT_FOUND { "NotFound" } else { "Conflict" };
            let status = json!({"kind": "Status", "status": "Failure", "code": code.as_u16(), "reason": reason, "message": reason});
            (code, status)
        };
        if let Some((_, pod)) = path.split_once("/pods/") {
            let is_there = self.pods.iter().any(|name| name == pod);
            return if is_there {
                (StatusCode::OK, json!({"metadata": {"name": pod}}))
            } else {
                refused(StatusCode::NOT_FOUND)
            };
        }
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
            let (status, answer) = server.lock().unwrap().answer(&head.method, head.uri.path(), sent);
            let response = Response::builder().status(status).body(Body::from(answer.to_string().into_bytes()));
            Ok::<_, Infallible>(response.unwrap())
        }
    });
    Client::new(service, "default")
}

fn two() -> (Election, Election) {
    two_at(&Arc::new(Mutex::new(Server { pods: vec!["a".to_owned(), "b".to_owned()], ..Server::default() })))
}

fn two_at(server: &Arc<Mutex<Server>>) -> (Election, Election) {
    let election = |identity| Election::new(client(server), "default", "lease", identity);
    (election("a"), election("b"))
}

fn others(holder: &str) -> Holder {
    Holder::Other(holder.to_owned())
}

/// Makes the last observed change of the lease so much older.
fn observed_ago(election: &mut Election, ago: Duration) {
    if let Some(observed) = &mut election.observed {
        observed.since = Instant::now().checked_sub(ago).unwrap();
    }
}

#[tokio::test]
async fn a_holder_whose_pod_is_gone_is_succeeded_before_its_lease_runs_out() {
    let server = Arc::new(Mutex::new(Server { pods: vec!["a".to_owned()], ..Server::default() }));
    let (mut a, mut b) = two_at(&server);
    assert_eq!(a.attempt().await.unwrap(), Holder::Own);
    assert_eq!(b.attempt().await.unwrap(), others("a"));
    observed_ago(&mut b, MISSED * 2);
    assert_eq!(b.attempt().await.unwrap(), others("a"), "its pod is there");
    server.lock().unwrap().pods.clear();
    observed_ago(&mut b, MISSED / 2);
    assert_eq!(b.attempt().await.unwrap(), others("a"), "it has missed no renewal");
    observed_ago(&mut b, MISSED * 2);
    assert_eq!(b.attempt().await.unwrap(), Holder::Own);
    assert_eq!(a.attempt().await.unwrap(), others("b"));
}

#[test]
fn work_has_ended_before_another_may_begin() {
    assert!(GIVE_UP + crate::start::DRAIN_MAX < DURATION);
}

#[tokio::test]
async fn a_lease_given_up_is_taken_over_at_once() {
    let (mut a, mut b) = two();
    assert_eq!(a.attempt().await.unwrap(), Holder::Own);
    assert_eq!(b.attempt().await.unwrap(), others("a"));
    assert_eq!(a.attempt().await.unwrap(), Holder::Own);
    b.release().await;
    assert_eq!(b.attempt().await.unwrap(), others("a"));
    a.release().await;
    assert_eq!(b.attempt().await.unwrap(), Holder::Own);
    assert_eq!(a.attempt().await.unwrap(), others("b"));
}

#[tokio::test]
async fn a_lease_runs_out_only_when_nobody_renews_it() {
    let (mut a, mut b) = two();
    assert_eq!(a.attempt().await.unwrap(), Holder::Own);
    assert_eq!(b.attempt().await.unwrap(), others("a"));
    observed_ago(&mut b, DURATION * 2);
    assert_eq!(a.attempt().await.unwrap(), Holder::Own);
    assert_eq!(b.attempt().await.unwrap(), others("a"), "it was renewed meanwhile");
    observed_ago(&mut b, DURATION * 2);
    assert_eq!(b.attempt().await.unwrap(), Holder::Own);
    assert_eq!(a.attempt().await.unwrap(), others("b"));
}

#[tokio::test]
async fn of_two_at_once_one_gets_it() {
    for _ in 0..50 {
        let (mut a, mut b) = two();
        let both = tokio::join!(a.attempt(), b.attempt());
        let held = [both.0.unwrap(), both.1.unwrap()].iter().filter(|holder| **holder == Holder::Own).count();
        assert_eq!(held, 1);
    }
}
