//! An API server inside a test. It keeps objects by their path, refuses outdated versions, and records every write.
use http::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// The objects by path.
    objects: BTreeMap<String, Value>,
    /// The calls that are refused, by `METHOD PATH`.
    refusals: BTreeMap<String, Refusal>,
    writes: Vec<String>,
    version: u64,
}

/// The answer to a call that is refused.
struct Refusal {
    code: u16,
    reason: String,
    message: String,
}

impl Fake {
    pub(crate) fn client(&self) -> Client {
        let fake = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let fake = fake.clone();
            async move {
                let (head, body) = request.into_parts();
                if head.uri.query().is_some_and(|query| query.contains("watch=true")) {
                    std::future::pending::<()>().await;
                }
                let sent = body.collect_bytes().await.unwrap_or_default();
                let sent = serde_json::from_slice(&sent).unwrap_or_default();
                let (status, answer) = fake.0.lock().unwrap().answer(&head.method, head.uri.path(), sent);
                let response = Response::builder().status(status).body(Body::from(answer.to_string().into_bytes()));
                Ok::<_, Infallible>(response.unwrap())
            }
        });
        Client::new(service, "default")
    }

    /// Stores an object without a call.
    pub(crate) fn put(&self, path: &str, object: Value) {
        self.0.lock().unwrap().store(path, object);
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.0.lock().unwrap().objects.get(path).cloned()
    }

    /// Refuses a call, `METHOD PATH`, from now on.
    pub(crate) fn refuse(&self, call: &str, code: u16, reason: &str, message: &str) {
        let refusal = Refusal { code, reason: reason.to_owned(), message: message.to_owned() };
        self.0.lock().unwrap().refusals.insert(call.to_owned(), refusal);
    }

    /// Stops refusing a call, `METHOD PATH`.
    pub(crate) fn allow(&self, call: &str) {
        self.0.lock().unwrap().refusals.remove(call);
    }

    /// Returns the writes since the last call of this function, sorted, as `METHOD PATH`.
    pub(crate) fn writes(&self) -> Vec<String> {
        let mut writes = std::mem::take(&mut self.0.lock().unwrap().writes);
        writes.sort();
        writes
    }
}

impl State {
    fn store(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path.to_owned(), object.clone());
        object
    }

    fn answer(&mut self, method: &Method, path: &str, sent: Value) -> (StatusCode, Value) {
        let name = sent["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let evicted = path.strip_suffix("/eviction");
        let at = match evicted {
            Some(pod) => pod.to_owned(),
            None if method == Method::POST => format!("{path}/{name}"),
            None => path.to_owned(),
        };
        let call = format!("{method} {}", if evicted.is_some() { path } else { &at });
        if method != Method::GET {
            self.writes.push(call.clone());
        }
        if let Some(Refusal { code, reason, message }) = self.refusals.get(&call) {
            return refused(*code, reason, message);
        }
        let there = self.objects.get(&at).cloned();
        match (method.as_str(), there) {
            ("GET", Some(object)) => (StatusCode::OK, object),
            ("GET", None) if is_list(path) => (StatusCode::OK, self.list(path)),
            ("POST", Some(_)) if evicted.is_some() => {
                self.objects.remove(&at);
                (StatusCode::CREATED, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
            }
            ("POST", None) => (StatusCode::CREATED, self.store(&at, sent)),
            ("POST", Some(_)) => refused(409, "AlreadyExists", &format!("{name} already exists")),
            ("PUT", Some(object)) if object["metadata"]["resourceVersion"] != sent["metadata"]["resourceVersion"] => {
                refused(409, "Conflict", "the object has been modified")
            }
            ("PUT", Some(_)) => (StatusCode::OK, self.store(&at, sent)),
            ("DELETE", Some(object)) => {
                self.objects.remove(&at);
                (StatusCode::OK, object)
            }
            ("PATCH", _) if path.ends_with("/status") => {
                let owner = path.trim_end_matches("/status");
                let Some(mut object) = self.objects.get(owner).cloned() else {
                    return refused(404, "NotFound", "not found");
                };
                object["status"] = sent["status"].clone();
                (StatusCode::OK, self.store(owner, object))
            }
            ("PATCH", Some(mut object)) => {
                object["metadata"]["finalizers"] = sent["metadata"]["finalizers"].clone();
                (StatusCode::OK, self.store(&at, object))
            }
            _ => refused(404, "NotFound", &format!("{at} not found")),
        }
    }

    fn list(&self, path: &str) -> Value {
        let below = format!("{path}/");
        let items: Vec<_> = self.objects.iter().filter(|(at, _)| at.starts_with(&below)).map(|(_, one)| one).collect();
        json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": items})
    }
}

/// Returns whether a path is that of a list: the path of an object ends with the object's name.
fn is_list(path: &str) -> bool {
    let last = path.rsplit('/').next().unwrap_or_default();
    last == "events" || crate::crds::plural_names().iter().any(|name| name == last)
}

fn refused(code: u16, reason: &str, message: &str) -> (StatusCode, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message,
    });
    (StatusCode::from_u16(code).unwrap(), status)
}
