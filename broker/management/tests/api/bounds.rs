//! The bounds on clients of the management API (connections, heads, bodies, requests, logins), and the answers beyond them.
use crate::served::{PATIENCE, exchange, exchange_bytes, read_answer, request, serve, serve_within};
use leveret_management::Bounds;
use leveret_node::{Options, StorageOptions};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// A time longer than any test takes.
const FOR_EVER: Duration = Duration::from_secs(600);

/// Returns bounds whose deadlines for clients never pass.
fn patient() -> Bounds {
    Bounds { head_max: FOR_EVER, idle_max: FOR_EVER, write_max: FOR_EVER, body_max: FOR_EVER, ..Bounds::http() }
}

const HEALTH: &str = "GET /health/live HTTP/1.0\r\nhost: x\r\n\r\n";
const WRONG: &str = "GET /api/whoami HTTP/1.0\r\nhost: x\r\nauthorization: Basic Z3Vlc3Q6d3Jvbmc=\r\n\r\n";

#[tokio::test]
async fn silent_half_sent_and_idle_connections_are_closed() {
    let short = Duration::from_millis(100);
    let served = serve_within(Options::default(), Bounds { head_max: short, idle_max: short, ..patient() }).await;
    for (at, sent) in [
        (served.http, ""),
        (served.metrics, ""),
        (served.http, "GET /api/overview HTTP/1.1\r\nhost: x\r\n"),
        (served.http, "GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"),
    ] {
        let mut socket = TcpStream::connect(at).await.unwrap();
        socket.write_all(sent.as_bytes()).await.unwrap();
        let mut read = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut read)).await;
        closed.expect(sent).unwrap();
        assert_eq!(read.starts_with(b"HTTP/1.1 200"), sent.contains("health"), "{sent}");
    }
}

#[tokio::test]
async fn a_new_client_takes_the_place_of_a_silent_one() {
    let served = serve_within(Options::default(), Bounds { connections_max: 8, ..patient() }).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(served.http).await.unwrap());
        silent.push(TcpStream::connect(served.metrics).await.unwrap());
    }
    assert_eq!(exchange(served.http, HEALTH).await.0, 200);
    assert_eq!(served.get("/api/whoami").await["name"], "guest");
    assert!(served.scrape("/metrics").await.contains("leveret_connections 0"));
    for socket in silent.iter_mut().take(2 * 90) {
        let closed = tokio::time::timeout(PATIENCE, socket.read(&mut [0])).await;
        assert!(matches!(closed.expect("it is closed"), Ok(0) | Err(_)));
    }
}

#[tokio::test]
async fn when_all_connections_are_being_served_a_new_one_gets_503_but_health_checks_succeed() {
    let bounds = Bounds { connections_max: 4, requests_max: 0, queue_max: FOR_EVER, ..patient() };
    let served = serve_within(Options::default(), bounds).await;
    let mut busy = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut socket = TcpStream::connect(served.http).await.unwrap();
        socket.write_all(request("GET", "/api/whoami", "").as_bytes()).await.unwrap();
        busy.push(socket);
        let (status, head, body) = exchange(served.http, "GET /api/x HTTP/1.0\r\nhost: x\r\n\r\n").await;
        if status == 503 {
            assert!(head.contains("retry-after: 1") && body.contains("too many connections are open"), "{head} {body}");
            break;
        }
        assert!(status == 401 && Instant::now() < deadline && busy.len() < 10_000, "never full");
    }
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(served.http).await.unwrap());
        // The client offers to keep the connection open, and the broker declines.
        let (status, head, _) = exchange(served.http, &HEALTH.replace("1.0", "1.1")).await;
        assert!(status == 200 && head.contains("connection: close"), "{status} {head}");
    }
}

#[tokio::test]
async fn clients_without_a_successful_login_are_disconnected_for_new_ones() {
    let bounds = Bounds { connections_max: 4, login_delay: FOR_EVER, ..patient() };
    let served = serve_within(Options::default(), bounds).await;
    assert_eq!(served.get("/api/whoami").await["name"], "guest");
    let mut wrong = Vec::new();
    for _ in 0..40 {
        let mut socket = TcpStream::connect(served.http).await.unwrap();
        socket.write_all(WRONG.as_bytes()).await.unwrap();
        wrong.push(socket);
        assert_eq!(exchange(served.http, HEALTH).await.0, 200);
        assert_eq!(served.get("/api/whoami").await["name"], "guest");
    }
}

#[tokio::test]
async fn failed_logins_of_one_address_do_not_block_another_address() {
    let served = serve_within(Options::default(), Bounds { login_delay: FOR_EVER, ..patient() }).await;
    let mut wrong: JoinSet<_> = (0..40).map(|_| exchange(served.http, WRONG)).collect();
    for _ in 24..40 {
        let (status, head, body) = wrong.join_next().await.unwrap().unwrap();
        assert!(status == 503 && head.contains("retry-after: 1"), "{status} {head}");
        assert!(body.contains("too many logins are being tried"), "{body}");
    }
    let other = TcpSocket::new_v4().unwrap();
    other.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = other.connect(served.http).await.unwrap();
    other.write_all(request("GET", "/api/whoami", "").as_bytes()).await.unwrap();
    assert_eq!(read_answer(&mut other).await.0, 200);
}

#[tokio::test]
async fn a_client_that_does_not_read_a_list_is_disconnected_for_a_new_one_and_the_list_is_not_buffered() {
    let served = serve_within(Options::default(), Bounds { connections_max: 1, ..patient() }).await;
    for number in 0..10_000 {
        served.declare(&format!("{number:05}-{}", "x".repeat(200))).await;
    }
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut slow = socket.connect(served.http).await.unwrap();
    slow.write_all(request("GET", "/api/queues", "").as_bytes()).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    while exchange(served.http, HEALTH).await.0 != 200 {
        assert!(Instant::now() < deadline, "the slow client stays");
    }
    let mut read = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, slow.read_to_end(&mut read)).await.expect("its connection ends");
    assert!(!read.ends_with(b"]"), "{} bytes", read.len());
}

#[tokio::test]
async fn clients_that_read_sorted_lists_slowly_do_not_keep_others_from_sorting() {
    let served = serve_within(Options::default(), patient()).await;
    for number in 0..10_000 {
        served.declare(&format!("{number:05}-{}", "x".repeat(200))).await;
    }
    let mut slow = Vec::new();
    for _ in 0..8 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut socket = socket.connect(served.http).await.unwrap();
        socket.write_all(request("GET", "/api/queues?sort=name", "").as_bytes()).await.unwrap();
        tokio::time::timeout(PATIENCE, socket.read_exact(&mut [0; 12])).await.expect("it is sorted").unwrap();
        slow.push(socket);
    }
    let page = served.get("/api/queues?sort=name&page=1&page_size=1").await;
    assert_eq!(page["total_count"], 10_000);
    let reason = "too many sorted lists are waiting to be read".to_owned();
    assert_eq!(served.reason("GET", "/api/queues?sort=name", "").await, (503, reason));
    drop(slow);
    let deadline = Instant::now() + PATIENCE;
    while served.ask("GET", "/api/queues?sort=name&columns=name", "").await.0 != 200 {
        assert!(Instant::now() < deadline, "the lists of disconnected clients still count");
    }
}

#[tokio::test]
async fn oversized_and_malformed_requests_are_refused_in_json() {
    let served = serve(Options::default()).await;
    let (status, reason) = served.reason("PUT", "/api/queues/%2F/q", &" ".repeat((1 << 20) + 1)).await;
    assert_eq!((status, &*reason), (413, "the body is larger than 1048576 bytes"));
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(65536));
    let chunks = format!("{}0\r\n\r\n", chunk.repeat(17));
    let head = request("PUT", "/api/queues/%2F/q", "").replace("HTTP/1.0", "HTTP/1.1");
    let head = head.replace("content-length: 0", "connection: close\r\ntransfer-encoding: chunked");
    let (status, _, body) = exchange(served.http, &format!("{head}{chunks}")).await;
    assert!(status == 413 && body.contains("larger than 1048576"), "{status} {body}");
    let long = "x".repeat(100_000);
    for (sent, expected, error) in [
        (format!("GET /health/live HTTP/1.1\r\nhost: x\r\nlong: {long}\r\n\r\n"), 431, "headers_too_large"),
        (format!("GET /health/live HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(200)), 431, "headers_too_large"),
        ("NONSENSE\r\n\r\n".to_owned(), 400, "bad_request"),
    ] {
        let (status, head, body) = exchange(served.http, &sent).await;
        assert_eq!(status, expected, "{body}");
        assert!(head.contains("content-type: application/json") && body.contains(error), "{head} {body}");
    }
    let raw = b"GET /api/queues/%2F/\xff HTTP/1.1\r\nhost: x\r\n\r\n";
    let (status, _, body) = exchange_bytes(served.http, raw).await;
    assert!(status == 400 && body.contains("bad_request"), "{body}");
    for path in ["/api/queues/%2F/%ff", "/health/%fe", "/%c3%28"] {
        assert_eq!(served.reason("GET", path, "").await, (400, "the path is not UTF-8".to_owned()));
    }
}

#[tokio::test]
async fn a_body_that_does_not_arrive_in_time_is_answered_408() {
    let served = serve_within(Options::default(), Bounds { body_max: Duration::from_millis(100), ..patient() }).await;
    let half = without_body(&request("PUT", "/api/queues/%2F/q", ""), 10);
    let (status, _, body) = exchange(served.http, &half).await;
    assert!(status == 408 && body.contains("request_timeout"), "{status} {body}");
}

/// Returns the request with a content length of `missing` bytes that are not sent.
fn without_body(request: &str, missing: usize) -> String {
    request.replace("content-length: 0", &format!("content-length: {missing}"))
}

#[tokio::test]
async fn a_slow_body_delays_other_bodies_but_no_other_requests() {
    let bounds = Bounds { requests_max: 1, bodies_max: 1, queue_max: Duration::from_millis(50), ..patient() };
    let served = serve_within(Options::default(), bounds).await;
    let mut slow = TcpStream::connect(served.http).await.unwrap();
    slow.write_all(without_body(&request("PUT", "/api/queues/%2F/q", ""), 2).as_bytes()).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (status, answer) = served.ask("PUT", "/api/queues/%2F/other", "{}").await;
        if status == 503 {
            assert_eq!(answer["reason"], "too many requests are in progress");
            break;
        }
        assert!(Instant::now() < deadline, "no other body had to wait");
    }
    assert_eq!(served.get("/api/whoami").await["name"], "guest");
    assert_eq!(exchange(served.http, HEALTH).await.0, 200);
    slow.write_all(b"{}").await.unwrap();
    assert_eq!(read_answer(&mut slow).await.0, 201);
    assert!(matches!(served.ask("PUT", "/api/queues/%2F/other", "{}").await.0, 201 | 204));
}

#[tokio::test]
async fn the_body_of_a_request_without_a_login_is_not_waited_for() {
    let bounds = Bounds { requests_max: 1, connections_max: 4, queue_max: Duration::from_millis(50), ..patient() };
    let served = serve_within(Options::default(), bounds).await;
    for (at, path, expected) in
        [(served.http, "/x", 404), (served.http, "/health/live", 405), (served.metrics, "/metrics", 405)]
    {
        let post = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n");
        let mut half = Vec::new();
        for _ in 0..4 {
            let mut socket = TcpStream::connect(at).await.unwrap();
            socket.write_all(post.as_bytes()).await.unwrap();
            half.push(socket);
        }
        assert_eq!(exchange(served.http, HEALTH).await.0, 200);
        assert!(served.scrape("/metrics").await.contains("leveret_connections 0"));
        // Those connections had to make room for this one.
        assert_eq!(exchange(at, &post).await.0, expected, "{path}");
    }
}

#[tokio::test]
async fn a_client_whose_body_does_not_arrive_is_disconnected_for_a_new_one() {
    let served = serve_within(Options::default(), Bounds { connections_max: 4, ..patient() }).await;
    let mut half = Vec::new();
    for _ in 0..4 {
        let mut socket = TcpStream::connect(served.http).await.unwrap();
        let put = without_body(&request("PUT", "/api/queues/%2F/q", ""), 2);
        socket.write_all(put.as_bytes()).await.unwrap();
        half.push(socket);
    }
    for _ in 0..4 {
        assert_eq!(exchange(served.http, HEALTH).await.0, 200);
    }
}

#[tokio::test]
async fn answers_to_failed_logins_are_delayed_and_successful_ones_are_not() {
    let delay = Duration::from_millis(200);
    let served = serve_within(Options::default(), Bounds { login_delay: delay, ..patient() }).await;
    let began = Instant::now();
    let tries = (0..24).map(|_| tokio::spawn(exchange(served.http, WRONG)));
    for tried in tries.collect::<Vec<_>>() {
        assert_eq!(tried.await.unwrap().0, 401);
    }
    // One address has eight failing logins at a time.
    assert!(began.elapsed() >= 3 * delay, "{:?}", began.elapsed());

    let served = serve_within(Options::default(), Bounds { login_delay: FOR_EVER, ..patient() }).await;
    assert_eq!(served.get("/api/whoami").await["name"], "guest");
    let mut waiting = Vec::new();
    for _ in 0..40 {
        let mut socket = TcpStream::connect(served.http).await.unwrap();
        socket.write_all(WRONG.as_bytes()).await.unwrap();
        waiting.push(socket);
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let attempts = served.get(&format!("/api/auth/attempts/{}", served.broker.name())).await;
        if attempts[0]["auth_attempts_failed"] == 8 {
            break;
        }
        assert!(Instant::now() < deadline, "{attempts}");
    }
    assert_eq!(served.get("/api/whoami").await["name"], "guest");
}

#[tokio::test]
async fn hanging_up_does_not_let_a_client_try_more_passwords() {
    let served = serve(Options::default()).await;
    let began = Instant::now();
    for _ in 0..200 {
        let mut socket = TcpStream::connect(served.http).await.unwrap();
        socket.write_all(WRONG.as_bytes()).await.unwrap();
        let nothing = tokio::time::timeout(Duration::from_millis(2), socket.read(&mut [0])).await;
        assert!(nothing.is_err(), "no answer yet");
    }
    let attempts = served.get(&format!("/api/auth/attempts/{}", served.broker.name())).await;
    // Eight are tried at a time, each for a second or longer. The others hung up while they waited, and were not tried.
    let failed = attempts[0]["auth_attempts_failed"].as_u64().unwrap();
    let most = 8 * (1 + began.elapsed().as_secs());
    assert!((8..=most).contains(&failed), "{failed} passwords were tried, at most {most} may be");
}

#[tokio::test]
async fn a_node_that_reads_its_log_is_alive_and_not_ready() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("recovering-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let served = serve(Options { message_bytes_max: 1 << 20, ..Options::default() }).await;
    let storage =
        StorageOptions { segment_bytes: 2 << 20, log_bytes_max: 32 << 20, ..StorageOptions::in_folder(&folder) };
    let mut opening = Box::pin(served.broker.open_storage(storage));
    let first = std::future::poll_fn(|context| std::task::Poll::Ready(opening.as_mut().poll(context))).await;
    assert!(first.is_pending());
    let reason = "the log is being read: nothing is served yet";
    assert_eq!(exchange(served.http, HEALTH).await.0, 200);
    let (status, _, body) = exchange(served.http, &HEALTH.replace("live", "ready")).await;
    assert!(status == 503 && body.contains(reason), "{status} {body}");
    for (method, path) in [("PUT", "/api/queues/%2F/q"), ("GET", "/api/queues")] {
        assert_eq!(served.reason(method, path, "").await, (503, reason.to_owned()));
    }
    opening.await.unwrap();
    assert_eq!(exchange(served.http, &HEALTH.replace("live", "ready")).await.0, 200);
    assert_eq!(served.ask("PUT", "/api/queues/%2F/q", "").await.0, 201);
    served.broker.close_storage().await;
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_disconnects_leaves_no_queue_half_declared() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("half-made-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let served = serve(Options { message_bytes_max: 1 << 20, ..Options::default() }).await;
    let storage =
        StorageOptions { segment_bytes: 2 << 20, log_bytes_max: 32 << 20, ..StorageOptions::in_folder(&folder) };
    served.broker.open_storage(storage).await.unwrap();
    let names: Vec<_> = (0..150).map(|number| format!("/api/queues/%2F/q{number}")).collect();
    for (round, path) in names.iter().enumerate() {
        let mut socket = TcpStream::connect(served.http).await.unwrap();
        socket.write_all(request("PUT", path, "").as_bytes()).await.unwrap();
        for _ in 0..round * 4 {
            tokio::task::yield_now().await;
        }
    }
    for path in &names {
        let (status, _) = served.ask("PUT", path, "").await;
        assert!(matches!(status, 201 | 204), "{path}: {status}");
        assert_eq!(served.get(path).await["messages"], 0, "{path}");
        assert_eq!(served.ask("DELETE", path, "").await.0, 204, "{path}");
    }
    served.broker.close_storage().await;
    std::fs::remove_dir_all(&folder).unwrap();
}
