//! A request whose client disconnects in the middle is carried out in full or not at all.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use leveret_e2e::broker::BrokerProcess;
use leveret_e2e::http;
use rustix::net::sockopt;

/// Sends a request, and resets the connection after `after` without reading the answer.
fn send_and_reset(address: &str, method: &str, path: &str, after: Duration) -> Result<()> {
    let mut socket = TcpStream::connect(address)?;
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
    let body = if method == "PUT" { "{\"durable\":true}" } else { "" };
    let authorization = "Authorization: Basic Z3Vlc3Q6Z3Vlc3Q=";
    let length = body.len();
    write!(socket, "{method} {path} HTTP/1.1\r\nHost: x\r\n{authorization}\r\nContent-Length: {length}\r\n\r\n{body}")?;
    std::thread::sleep(after);
    Ok(()) // dropping the socket with a linger of zero resets the connection
}

/// Checks that a queue either exists with all of its parts or does not exist, and deletes it. Returns whether it existed.
fn check_whole(broker: &BrokerProcess, path: &str) -> Result<bool> {
    let url = format!("{}{path}", broker.http());
    let found = http::get(&url)?;
    let is_there = found.status == 200;
    if is_there {
        ensure!(found.json()?["name"].is_string(), "{path} exists but is not shown as a queue: {}", found.body);
    } else {
        ensure!(found.status == 404, "{path}: {found:?}");
        let made = http::request("PUT", &url, Some(&serde_json::json!({"durable": true})))?;
        ensure!(made.status == 201, "{path} does not exist, but cannot be declared: {made:?}");
    }
    let bindings = http::get(&format!("{url}/bindings"))?.json()?;
    ensure!(bindings.as_array().is_some_and(|all| all.len() == 1), "{path}: {bindings}");
    let deleted = http::request("DELETE", &url, None)?;
    ensure!(deleted.status == 204, "{path} exists, but cannot be deleted: {deleted:?}");
    ensure!(http::get(&url)?.status == 404, "{path} still exists after its deletion");
    Ok(is_there)
}

#[test]
fn requests_whose_connection_is_reset_leave_no_partial_queues() -> Result<()> {
    const THREADS: u64 = 16;
    const REQUESTS: u64 = 25;
    let broker = BrokerProcess::start()?;
    let address = broker.http().rsplit_once('@').context("an address")?.1.to_owned();
    let path = |number: u64| format!("/api/queues/%2F/half-{number}");
    // Every second queue is declared now, to be deleted by a request whose connection is reset. The other queues are
    // declared by such requests.
    for number in (0..THREADS * REQUESTS).step_by(2) {
        let made = http::request(
            "PUT",
            &format!("{}{}", broker.http(), path(number)),
            Some(&serde_json::json!({"durable": true})),
        )?;
        ensure!(made.status == 201, "{made:?}");
    }
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|worker| {
                let address = &address;
                scope.spawn(move || {
                    (0..REQUESTS).try_for_each(|request| {
                        let number = worker * REQUESTS + request;
                        let method = if number.is_multiple_of(2) { "DELETE" } else { "PUT" };
                        let after = Duration::from_micros(number * 37 % 4000);
                        send_and_reset(address, method, &path(number), after)
                    })
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))?)
    })?;
    let mut there = 0;
    for number in 0..THREADS * REQUESTS {
        there += u64::from(check_whole(&broker, &path(number))?);
    }
    eprintln!("{there} of {} queues existed afterwards", THREADS * REQUESTS);
    broker.stop()?;
    Ok(())
}
