//! A fake management API for tests: answers from memory as a broker would, and records every request.
//!
//! It implements just enough HTTP for one client: a request line, headers with a `content-length`, a body. Each request
//! is recorded as `METHOD PATH`, followed by the body if there is one, so that a test can compare exactly what was
//! sent.
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A fake broker on its own port. It ends with the runtime of the test.
#[derive(Clone)]
pub struct Fake {
    state: Arc<Mutex<State>>,
    /// The base URL, `http://127.0.0.1:PORT`.
    pub url: String,
}

#[derive(Default)]
struct State {
    /// The objects that exist, by the path of the request that creates them.
    objects: BTreeMap<String, Value>,
    /// Status and reason with which a request is refused, by `METHOD PATH`.
    refusals: BTreeMap<String, (u16, String)>,
    /// Paths at which a declaration is answered with 204, as if the object already existed, without creating it.
    ghosts: BTreeSet<String>,
    /// Requests that begin with this text get no answer.
    cut: Option<String>,
    /// The requests so far, as `METHOD PATH` and body.
    calls: Vec<String>,
}

impl Fake {
    /// Starts a fake broker with the virtual host `/` and no objects.
    ///
    /// # Errors
    /// Fails if no port is free.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let fake = Self { state: Arc::default(), url };
        let serving = fake.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(socket));
            }
        });
        Ok(fake)
    }

    /// Creates an object without a request. `path` is its path below `/api`, such as `/queues/%2F/q`.
    pub fn put(&self, path: &str, object: Value) {
        self.with(|state| state.objects.insert(format!("/api{path}"), named(path, object)));
    }

    /// Removes an object without a request. `path` is its path below `/api`.
    pub fn remove(&self, path: &str) {
        self.with(|state| state.objects.remove(&format!("/api{path}")));
    }

    /// Makes the fake refuse a request, given as `METHOD PATH`, from now on.
    pub fn refuse(&self, call: &str, status: u16, reason: &str) {
        self.with(|state| state.refusals.insert(call.to_owned(), (status, reason.to_owned())));
    }

    /// Makes the fake close the connection instead of answering requests that begin with `call`, from now on. The
    /// requests still take effect.
    pub fn cut(&self, call: &str) {
        self.with(|state| state.cut = Some(call.to_owned()));
    }

    /// Makes the fake accept declarations at a path below `/api` without creating anything.
    pub fn haunt(&self, path: &str) {
        self.with(|state| state.ghosts.insert(format!("/api{path}")));
    }

    /// Removes the recorded requests and returns those that are not GET, sorted because they arrive in parallel.
    #[must_use]
    pub fn writes(&self) -> Vec<String> {
        let mut calls = self.with(|state| std::mem::take(&mut state.calls));
        calls.retain(|call| !call.starts_with("GET "));
        calls.sort();
        calls
    }

    /// Removes the recorded requests and returns the paths of those that are GET, sorted and without parameters.
    #[must_use]
    pub fn lists(&self) -> Vec<String> {
        let calls = self.with(|state| std::mem::take(&mut state.calls));
        let paths = calls.iter().filter_map(|call| call.strip_prefix("GET /api/"));
        let mut lists: Vec<_> = paths.filter_map(|path| path.split('?').next().map(str::to_owned)).collect();
        lists.sort();
        lists
    }

    fn with<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        with(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn serve(self, socket: TcpStream) {
        let mut socket = BufReader::new(socket);
        while let Ok(Some((method, target, body))) = read(&mut socket).await {
            let (status, answer) = self.answer(&method, &target, &body);
            let call = format!("{method} {target}");
            if self.with(|state| state.cut.as_ref().is_some_and(|cut| call.starts_with(cut))) {
                return;
            }
            let answer = if answer.is_null() { String::new() } else { answer.to_string() };
            let head = format!("HTTP/1.1 {status} -\r\ncontent-length: {}\r\n\r\n", answer.len());
            let head = if status == 204 { "HTTP/1.1 204 -\r\n\r\n".to_owned() } else { head };
            if socket.get_mut().write_all(format!("{head}{answer}").as_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn answer(&self, method: &str, target: &str, body: &str) -> (u16, Value) {
        let call = format!("{method} {target}");
        self.with(|state| {
            state.calls.push(if body.is_empty() { call.clone() } else { format!("{call} {body}") });
            if let Some((status, reason)) = state.refusals.get(&call) {
                return (*status, json!({"error": "refused", "reason": reason}));
            }
            let path = target.split('?').next().unwrap_or_default();
            state.answer(method, path, serde_json::from_str(body).unwrap_or_default())
        })
    }
}

impl State {
    fn answer(&mut self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let short = path.trim_start_matches("/api");
        match method {
            "GET" if short == "/vhosts" => (200, json!([{"name": "/"}])),
            "GET" if short.starts_with("/bindings/") && short.matches('/').count() == 6 => {
                let below = format!("{path}/");
                let all = self.objects.iter().filter(|(at, _)| at.starts_with(&below));
                (200, all.map(|(_, object)| object.clone()).collect())
            }
            "GET" => match self.objects.get(path) {
                Some(object) => (200, object.clone()),
                None if short.matches('/').count() == 1 => {
                    let below = format!("{path}/");
                    let all = self.objects.iter().filter(|(at, _)| at.starts_with(&below));
                    (200, all.map(|(_, object)| object.clone()).collect())
                }
                None => (404, json!({"error": "Object Not Found", "reason": "Not Found"})),
            },
            "PUT" if self.ghosts.contains(path) => (204, Value::Null),
            "PUT" => match self.objects.insert(path.to_owned(), named(short, body)) {
                Some(_) => (204, Value::Null),
                None => (201, Value::Null),
            },
            "POST" => {
                let properties = body["routing_key"].as_str().unwrap_or_default().to_owned();
                let binding = named(short, body);
                self.objects.insert(format!("{path}/{properties}"), binding);
                (201, Value::Null)
            }
            _ => match self.objects.remove(path) {
                Some(_) => (204, Value::Null),
                None => (404, json!({"error": "Object Not Found", "reason": "Not Found"})),
            },
        }
    }
}

/// Returns the object with the fields that follow from its path, such as `vhost` and `name`.
fn named(path: &str, mut object: Value) -> Value {
    let parts: Vec<_> =
        path.split('/').map(|part| percent_encoding::percent_decode_str(part).decode_utf8_lossy()).collect();
    let mut say = |field: &str, value: &str| object[field] = json!(value);
    match parts.as_slice() {
        [_, _, vhost, name] => {
            say("vhost", vhost);
            say("name", name);
        }
        [_, _, vhost, _, source, kind, destination, properties @ ..] => {
            say("vhost", vhost);
            say("source", source);
            say("destination", destination);
            say("destination_type", if kind == "e" { "exchange" } else { "queue" });
            let key = object["routing_key"].as_str().unwrap_or_default().to_owned();
            object["properties_key"] = json!(properties.first().map_or(key, ToString::to_string));
        }
        _ => {}
    }
    object
}

/// Reads the next request. Returns its method, target and body, or `None` at the end of the connection.
async fn read(socket: &mut BufReader<TcpStream>) -> io::Result<Option<(String, String, String)>> {
    let mut line = String::new();
    if socket.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut length = 0;
    loop {
        let mut header = String::new();
        socket.read_line(&mut header).await?;
        if header.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await?;
    Ok(Some((method, target, String::from_utf8_lossy(&body).into_owned())))
}
