//! A minimal HTTP client: blocking, one request per connection, with a timeout.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

const TIMEOUT: Duration = Duration::from_secs(10);

/// An answer: its status and body.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub body: String,
}

impl Response {
    /// Returns the body parsed as JSON.
    ///
    /// # Errors
    /// If it is not JSON, with status and body.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.body).with_context(|| format!("not JSON: {} {}", self.status, self.body))
    }
}

/// Sends a GET; like [`request`].
///
/// # Errors
/// If the URL is malformed, the connection fails, or a read or write takes longer than 10 seconds.
pub fn get(url: &str) -> Result<Response> {
    request("GET", url, None)
}

/// Sends a request and returns the answer, whatever its status. `url` is `http://[USER:PASSWORD@]HOST:PORT/PATH`.
///
/// # Errors
/// If the URL is malformed, the connection fails, or a read or write takes longer than 10 seconds.
pub fn request(method: &str, url: &str, body: Option<&serde_json::Value>) -> Result<Response> {
    let (place, path) = url
        .strip_prefix("http://")
        .and_then(|rest| rest.split_once('/'))
        .context("the URL is not http://HOST:PORT/PATH")?;
    let (user, host) = place.rsplit_once('@').map_or((None, place), |(user, host)| (Some(user), host));
    let authorization =
        user.map_or(String::new(), |user| format!("Authorization: Basic {}\r\n", base64(user.as_bytes())));
    let body = body.map_or(String::new(), ToString::to_string);
    let mut stream = TcpStream::connect(host).with_context(|| format!("connecting to {host}"))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // HTTP/1.0: the answer ends with the connection and is never chunked.
    write!(
        stream,
        "{method} /{path} HTTP/1.0\r\nHost: {host}\r\n{authorization}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).with_context(|| format!("reading the answer to {method} {url}"))?;
    parse(&String::from_utf8_lossy(&answer)).with_context(|| format!("{method} {url}"))
}

fn parse(answer: &str) -> Result<Response> {
    let (head, body) = answer.split_once("\r\n\r\n").context("the head of the answer has no end")?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).context("the answer has no status")?;
    ensure!(!head.to_ascii_lowercase().contains("transfer-encoding: chunked"), "a chunked answer to HTTP/1.0");
    Ok(Response { status, body: body.to_owned() })
}

/// Returns the text percent-encoded, except letters, digits and `-._~`.
pub fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = (0..3).fold(0u32, |word, index| word << 8 | u32::from(chunk.get(index).copied().unwrap_or(0)));
        for digit in 0..4 {
            let value = (word >> (18 - 6 * digit) & 63) as usize;
            text.push(if digit > chunk.len() { '=' } else { char::from(DIGITS[value]) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_is_padded() {
        for (plain, encoded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("guest:guest", "Z3Vlc3Q6Z3Vlc3Q=")]
        {
            assert_eq!(super::base64(plain.as_bytes()), encoded);
        }
    }
}
