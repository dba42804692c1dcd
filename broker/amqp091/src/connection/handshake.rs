//! The handshake that opens a connection: login, tuning, virtual host (0-9-1 spec 2.2.4).
//!
//! A client that has not logged in uses one small buffer, and has ten seconds. It may send three methods and a few
//! heartbeats: anything else ends the connection. The work is linear in the number of bytes that it sends.
use super::context::Capabilities;
use super::failure::Failure;
use super::output::{FRAME_MAX_UNTUNED, Output};
use crate::codec::encode;
use crate::codec::frame::{self, FrameKind};
use crate::codec::ids::MethodId;
use crate::codec::method::{self, Method};
use crate::codec::reply::ReplyCode;
use leveret_model::table::{FieldTable, FieldValue};
use leveret_model::wire::{table, text};
use leveret_node::{Broker, Connection, Hello, Identity, Permit, Tuned, WrongLogin};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A connection on its way to being open.
pub(crate) struct Handshake<'a> {
    /// Checks the login, and opens the connection.
    broker: Broker,
    /// Answers are written here.
    output: Arc<Output>,
    /// The client's place, which becomes that of an open connection.
    permit: &'a Permit,
    /// Logins are counted by the peer's address; both are shown by the management API.
    addresses: Addresses,
    /// The method that the client has to send next.
    step: Step,
    /// The capabilities that the client said it has.
    pub(crate) capabilities: Capabilities,
    /// The number of heartbeats that the client has sent; they are bounded.
    heartbeats: u32,
    /// The mechanism with which the client logged in.
    mechanism: Option<Mechanism>,
    /// True if the client asked to close the connection.
    wants_close: bool,
    /// The client's properties, as shown by the management API.
    client_properties: FieldTable,
    /// The limits that the client agreed to.
    tuned: Tuned,
}

/// The addresses of the two ends of a socket.
#[derive(Clone, Copy)]
pub(crate) struct Addresses {
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
}

/// The method that the client has to send next.
enum Step {
    /// `connection.start-ok`
    Start,
    /// `connection.tune-ok`
    Tune(Identity),
    /// `connection.open`
    Open(Identity),
}

/// The way in which a client proves its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mechanism {
    Plain,
    Amqplain,
}

impl<'a> Handshake<'a> {
    pub(crate) fn new(broker: Broker, output: Arc<Output>, permit: &'a Permit, addresses: Addresses) -> Self {
        let mechanisms = Mechanism::ALL.map(Mechanism::name).join(" ");
        output.write(|state| {
            encode::connection_start(&mut state.buffer, &server_properties(broker.name()), &mechanisms, "en_US");
        });
        Self {
            broker,
            output,
            permit,
            addresses,
            step: Step::Start,
            capabilities: Capabilities::default(),
            heartbeats: 0,
            mechanism: None,
            wants_close: false,
            client_properties: FieldTable::default(),
            tuned: Tuned { frame_max: FRAME_MAX, channel_max: CHANNEL_MAX, heartbeat: HEARTBEAT },
        }
    }

    /// Handles the complete frames in `buffer`. Returns how many bytes they were, and the connection once it is open.
    ///
    /// # Errors
    /// The failure that ends the connection.
    pub(crate) async fn advance(&mut self, buffer: &[u8]) -> Result<(usize, Option<Arc<Connection>>), Failure> {
        let mut at = 0;
        while !self.wants_close {
            let frame = frame::parse(&buffer[at..], FRAME_MAX_UNTUNED).map_err(Failure::of)?;
            let Some(frame) = frame else { break };
            at += frame.len;
            match frame.kind {
                FrameKind::Method if frame.channel == 0 => {}
                FrameKind::Heartbeat if self.heartbeats < HEARTBEATS_MAX => {
                    self.heartbeats += 1;
                    continue;
                }
                _ => {
                    let text = "expected a method on channel 0 while the connection is being opened";
                    return Err(Failure::new(ReplyCode::UnexpectedFrame, text));
                }
            }
            let id = MethodId::of(frame.payload);
            let method = method::parse(frame.payload).map_err(|error| Failure::of(error).caused_by(id))?;
            let opened = self.on_method(method).await.map_err(|failure| failure.caused_by(id))?;
            if opened.is_some() {
                return Ok((at, opened));
            }
        }
        Ok((at, None))
    }

    async fn on_method(&mut self, method: Method<'_>) -> Result<Option<Arc<Connection>>, Failure> {
        match (std::mem::replace(&mut self.step, Step::Start), method) {
            (Step::Start, Method::ConnectionStartOk { client_properties, mechanism, response, .. }) => {
                self.greet(client_properties);
                let identity = self.log_in(mechanism, response).await?;
                self.output.write(|state| {
                    encode::connection_tune(&mut state.buffer, CHANNEL_MAX, FRAME_MAX, HEARTBEAT);
                });
                self.step = Step::Tune(identity);
                Ok(None)
            }
            (Step::Tune(identity), Method::ConnectionTuneOk { channel_max, frame_max, heartbeat }) => {
                self.tune(Tuned { frame_max, channel_max, heartbeat })?;
                self.step = Step::Open(identity);
                Ok(None)
            }
            (Step::Open(identity), Method::ConnectionOpen { vhost }) => self.open(&identity, vhost).map(Some),
            (_, Method::ConnectionClose { .. }) => {
                self.wants_close = true;
                Ok(None)
            }
            _ => {
                let text = "method out of sequence while the connection is being opened";
                Err(Failure::new(ReplyCode::CommandInvalid, text))
            }
        }
    }

    /// Logs why the client is sent away. A wrong login was already logged.
    pub(crate) fn log(&self, failure: &Failure) {
        if failure.code != ReplyCode::AccessRefused {
            self.broker.log_refused(self.addresses.peer, &failure.text);
        }
    }

    /// Returns whether the client closed the connection.
    pub(crate) fn is_over(&self) -> bool {
        self.wants_close
    }

    /// Returns whether the client is told why it is sent away. A client with a wrong login is told only if it understands
    /// that (RabbitMQ's extension `authentication_failure_close`); a client with a malformed login never is told
    /// (RabbitMQ: observed).
    pub(crate) fn tells(&self, failure: &Failure) -> bool {
        match (failure.code, failure.cause) {
            (ReplyCode::AccessRefused, _) => capability(&self.client_properties, "authentication_failure_close"),
            (_, MethodId::CONNECTION_START_OK) => false,
            _ => true,
        }
    }

    fn greet(&mut self, properties: FieldTable) {
        self.capabilities = Capabilities {
            consumer_cancel_notify: capability(&properties, "consumer_cancel_notify"),
            connection_blocked: capability(&properties, "connection.blocked"),
        };
        self.client_properties = shown(properties);
    }

    async fn log_in(&mut self, mechanism: &str, response: &[u8]) -> Result<Identity, Failure> {
        let Some(mechanism) = Mechanism::ALL.into_iter().find(|known| known.name() == mechanism) else {
            let text = format!("unknown authentication mechanism {mechanism:?}");
            return Err(Failure::new(ReplyCode::CommandInvalid, text));
        };
        self.mechanism = Some(mechanism);
        let name = mechanism.name();
        let credentials = mechanism.credentials(response);
        let malformed = || Failure::new(ReplyCode::SyntaxError, format!("malformed {name} response"));
        let (user, password) = credentials.ok_or_else(malformed)?;
        let peer = self.addresses.peer;
        let Some(turn) = self.broker.login_turn(peer.ip()) else {
            self.broker.log_refused(peer, "login not tried: too many from this address were wrong");
            tokio::time::sleep(UNTRIED_WAIT).await;
            let text = "too many logins from this address were wrong: try again later";
            return Err(Failure::new(ReplyCode::AccessRefused, text));
        };
        if !turn.is_zero() {
            tokio::time::sleep(turn).await;
        }
        let WrongLogin { refusal, wait } = match self.broker.log_in(&user, &password, peer.ip()) {
            Ok(identity) => return Ok(identity),
            Err(wrong) => wrong,
        };
        // The refusal is logged before the wait, which ends early if the place is wanted for another client.
        self.broker.log_refused(peer, &format!("login refused: {}", refusal.text));
        tokio::time::sleep(wait).await;
        let text =
            format!("Login was refused using authentication mechanism {name}. For details see the broker logfile.");
        Err(Failure::new(ReplyCode::AccessRefused, text))
    }

    fn tune(&mut self, tuned: Tuned) -> Result<(), Failure> {
        let Tuned { frame_max, channel_max, .. } = tuned;
        if frame_max != 0 && frame_max < FRAME_MIN {
            let text = format!("negotiated frame_max = {frame_max} is lower than the minimum {FRAME_MIN}");
            return Err(Failure::new(ReplyCode::NotAllowed, text));
        }
        if frame_max == 0 || frame_max > FRAME_MAX {
            let text =
                format!("negotiated frame_max = {frame_max} is higher than the maximum allowed value {FRAME_MAX}");
            return Err(Failure::new(ReplyCode::NotAllowed, text));
        }
        if channel_max == 0 || channel_max > CHANNEL_MAX {
            let text = format!(
                "negotiated channel_max = {channel_max} is higher than the maximum allowed value {CHANNEL_MAX}"
            );
            return Err(Failure::new(ReplyCode::NotAllowed, text));
        }
        self.tuned = tuned;
        self.output.lock().frame_max = frame_max;
        Ok(())
    }

    fn open(&mut self, identity: &Identity, vhost: &str) -> Result<Arc<Connection>, Failure> {
        if !self.broker.has_vhost(vhost) {
            return Err(Failure::new(ReplyCode::NotAllowed, format!("vhost {vhost} not found")));
        }
        self.permit.open().map_err(|max| {
            let text = format!("connection refused: node connection limit ({max}) is reached");
            Failure::new(ReplyCode::NotAllowed, text)
        })?;
        let connection = self.broker.connected(Hello {
            peer: self.addresses.peer,
            local: self.addresses.local,
            identity: identity.clone(),
            mechanism: self.mechanism.map_or("", Mechanism::name),
            vhost: vhost.into(),
            protocol: "AMQP 0-9-1",
            client_properties: std::mem::take(&mut self.client_properties),
            tuned: self.tuned,
        });
        self.output.write(|state| encode::connection_open_ok(&mut state.buffer));
        Ok(connection)
    }
}

impl Mechanism {
    /// All mechanisms, in the order in which they are offered.
    const ALL: [Self; 2] = [Self::Plain, Self::Amqplain];

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Amqplain => "AMQPLAIN",
        }
    }

    /// Returns user and password, or `None` if the response is malformed.
    fn credentials(self, response: &[u8]) -> Option<(String, String)> {
        match self {
            Self::Plain => {
                // [authorization id] 0 user 0 password (RFC 4616)
                let mut parts = response.splitn(3, |&byte| byte == 0).skip(1).map(text::from_bytes);
                Some((parts.next()?, parts.next()?))
            }
            Self::Amqplain => {
                let table = table::parse_entries(response).ok()?;
                let field = |name| match table.get(name) {
                    Some(FieldValue::LongString(bytes)) => Some(text::from_bytes(bytes)),
                    _ => None,
                };
                Some((field("LOGIN")?, field("PASSWORD")?))
            }
        }
    }
}

/// Returns the result of `work`, or `None` if the time for the handshake is up, the client's place is wanted for another
/// client, or the broker shuts down.
pub(super) async fn in_time<T>(
    deadline: Instant,
    permit: &Permit,
    stop: &CancellationToken,
    work: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = tokio::time::sleep_until(deadline) => None,
        () = permit.withdrawn() => None,
        () = stop.cancelled() => None,
    }
}

/// Returns those entries of a client's properties that fit into the memory for them, to be shown by the management API.
fn shown(properties: FieldTable) -> FieldTable {
    let mut room = PROPERTIES_BYTES_MAX;
    let kept = properties.0.into_iter().filter_map(|entry| {
        let entry = FieldTable(vec![entry]);
        room = room.checked_sub(entry.memory_bytes())?;
        entry.0.into_iter().next()
    });
    let mut kept: Vec<_> = kept.collect();
    kept.shrink_to_fit();
    FieldTable(kept)
}

fn capability(properties: &FieldTable, name: &str) -> bool {
    match properties.get("capabilities") {
        Some(FieldValue::Table(capabilities)) => capabilities.get(name).and_then(FieldValue::as_bool).unwrap_or(false),
        _ => false,
    }
}

/// Returns the server's properties. Clients compare `product`, and branch on `version` and `capabilities`.
fn server_properties(cluster: &str) -> FieldTable {
    let capabilities = [
        "publisher_confirms",
        "exchange_exchange_bindings",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "authentication_failure_close",
        "per_consumer_qos",
    ];
    let capabilities = capabilities.into_iter().map(|name| (name, FieldValue::Boolean(true))).collect();
    FieldTable::from_iter([
        ("capabilities", FieldValue::Table(capabilities)),
        ("cluster_name", cluster.into()),
        ("copyright", "The Leveret authors".into()),
        ("information", "Licensed under the Apache License 2.0".into()),
        ("platform", concat!("Leveret ", env!("CARGO_PKG_VERSION")).into()),
        ("product", "RabbitMQ".into()),
        ("version", COMPATIBLE_VERSION.into()),
    ])
}

/// The version of RabbitMQ whose behaviour the broker offers.
const COMPATIBLE_VERSION: &str = "4.1.0";
/// The largest frame that is offered, in bytes: RabbitMQ's.
const FRAME_MAX: u32 = 131_072;
/// The smallest frame limit that is accepted, in bytes (0-9-1 spec 1.4.2.6, `frame-min-size`).
const FRAME_MIN: u32 = 4096;
/// The number of channels that is offered: RabbitMQ's.
const CHANNEL_MAX: u16 = 2047;
/// The heartbeat interval that is suggested, in seconds: RabbitMQ's.
const HEARTBEAT: u16 = 60;
/// The memory for a client's properties, in bytes.
const PROPERTIES_BYTES_MAX: usize = 16 << 10;
/// The number of heartbeats that a client may send before its connection is open.
const HEARTBEATS_MAX: u32 = 8;
/// A login that is not tried is answered after this time.
const UNTRIED_WAIT: Duration = Duration::from_secs(1);
/// A client that has not opened its connection after this time is sent away.
pub(super) const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use leveret_node::Options;
    use std::future::{pending, ready};

    #[tokio::test]
    async fn the_handshake_has_one_deadline() {
        let broker = Broker::start(Options::default());
        let permit = broker.admit().unwrap();
        let (now, stop) = (Instant::now(), CancellationToken::new());
        assert_eq!(
            in_time(now, &permit, &stop, pending::<()>()).await,
            None,
            "the time is up for whatever step is the next"
        );
        assert_eq!(in_time(now + HANDSHAKE_MAX, &permit, &stop, ready(7)).await, Some(7));
        stop.cancel();
        assert_eq!(in_time(now + HANDSHAKE_MAX, &permit, &stop, pending::<()>()).await, None);
        broker.stop();
    }

    #[test]
    fn credentials_are_found_in_both_mechanisms() {
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        for (mechanism, response, expected) in [
            (Mechanism::Plain, &b"\0guest\0pa\0ss"[..], pair("guest", "pa\0ss")),
            (Mechanism::Plain, b"role\0guest\0", pair("guest", "")),
            (Mechanism::Plain, b"guest", None),
            (Mechanism::Plain, b"\0guest", None),
            (Mechanism::Amqplain, b"\x05LOGINS\0\0\0\x01a\x08PASSWORDS\0\0\0\x01b", pair("a", "b")),
            (Mechanism::Amqplain, b"\x08PASSWORDS\0\0\0\x01b\x05LOGINS\0\0\0\x01a", pair("a", "b")),
            (Mechanism::Amqplain, b"\x05LOGINS\0\0\0\x01a", None),
            (Mechanism::Amqplain, b"\x05LOGINI\0\0\0\x01\x08PASSWORDS\0\0\0\x01b", None),
            (Mechanism::Amqplain, b"\0guest\0guest", None),
        ] {
            assert_eq!(mechanism.credentials(response), expected, "{}", response.escape_ascii());
        }
    }
}
