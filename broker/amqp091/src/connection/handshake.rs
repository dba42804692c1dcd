//! Until a connection is open: protocol header, login, tuning, virtual host (0-9-1 spec 2.2.4).
//!
//! Nothing is kept for a client before it has logged in but one small buffer, and it has ten seconds.
use super::failure::Failure;
use super::output::{FRAME_MAX_UNTUNED, Output};
use super::session::Client;
use crate::codec::encode;
use crate::codec::frame::{self, Kind};
use crate::codec::method::{self, Method};
use leveret_model::table::{FieldTable, FieldValue};
use leveret_node::{Broker, Connection, Hello, Identity};
use std::net::SocketAddr;
use std::sync::Arc;

/// A connection on its way to being open.
pub(crate) struct Handshake {
    broker: Broker,
    output: Arc<Output>,
    ends: (SocketAddr, SocketAddr),
    step: Step,
    pub(crate) client: Client,
    wants_close: bool,
    client_properties: FieldTable,
    tuned: (u32, u16, u16),
}

enum Step {
    Start,
    Tune(Identity),
    Open(Identity),
}

impl Handshake {
    pub(crate) fn new(broker: Broker, output: Arc<Output>, ends: (SocketAddr, SocketAddr)) -> Self {
        output.write(|state| {
            encode::connection_start(&mut state.buffer, &server_properties(broker.name()), "PLAIN", "en_US");
        });
        Self {
            broker,
            output,
            ends,
            step: Step::Start,
            client: Client::default(),
            wants_close: false,
            client_properties: FieldTable::default(),
            tuned: (FRAME_MAX, CHANNEL_MAX, HEARTBEAT),
        }
    }

    /// The next frame, if `buffer` holds it: how many bytes it was, and the connection once it is open.
    pub(crate) fn step(&mut self, buffer: &[u8]) -> Result<(usize, Option<Arc<Connection>>), Failure> {
        let frame_max = if matches!(self.step, Step::Open(_)) { self.tuned.0 } else { FRAME_MAX_UNTUNED };
        let frame = frame::parse(buffer, frame_max).map_err(|error| Failure::new(501, error.to_string()))?;
        let Some(frame) = frame else { return Ok((0, None)) };
        if frame.kind == Kind::Heartbeat {
            return Ok((frame.len, None));
        }
        if frame.kind != Kind::Method || frame.channel != 0 {
            return Err(Failure::new(503, "expected a method on channel 0 while the connection is being opened"));
        }
        let (class, id) = method::ids(frame.payload);
        let method = method::parse(frame.payload)
            .map_err(|error| Failure::new(error.reply_code(), error.to_string()).caused_by(class, id))?;
        let opened = self.on_method(method).map_err(|failure| failure.caused_by(class, id))?;
        Ok((frame.len, opened))
    }

    fn on_method(&mut self, method: Method<'_>) -> Result<Option<Arc<Connection>>, Failure> {
        match (std::mem::replace(&mut self.step, Step::Start), method) {
            (Step::Start, Method::ConnectionStartOk { client_properties, mechanism, response, .. }) => {
                self.greet(client_properties);
                let identity = self.log_in(mechanism, response)?;
                self.output.write(|state| {
                    encode::connection_tune(&mut state.buffer, CHANNEL_MAX, FRAME_MAX, HEARTBEAT);
                });
                self.step = Step::Tune(identity);
                Ok(None)
            }
            (Step::Tune(identity), Method::ConnectionTuneOk { channel_max, frame_max, heartbeat }) => {
                self.tune(channel_max, frame_max, heartbeat)?;
                self.step = Step::Open(identity);
                Ok(None)
            }
            (Step::Open(identity), Method::ConnectionOpen { vhost }) => self.open(&identity, vhost).map(Some),
            (_, Method::ConnectionClose { .. }) => {
                self.wants_close = true;
                Ok(None)
            }
            _ => Err(Failure::new(503, "method out of sequence while the connection is being opened")),
        }
    }

    /// Whether the client gave up.
    pub(crate) fn is_over(&self) -> bool {
        self.wants_close
    }

    /// What failed before the login is told to those clients only that know how to take it (RabbitMQ's extension
    /// `authentication_failure_close`).
    pub(crate) fn tells_refused_login(&self) -> bool {
        capability(&self.client_properties, "authentication_failure_close")
    }

    fn greet(&mut self, properties: FieldTable) {
        self.client = Client {
            consumer_cancel_notify: capability(&properties, "consumer_cancel_notify"),
            connection_blocked: capability(&properties, "connection.blocked"),
        };
        self.client_properties = properties;
    }

    fn log_in(&self, mechanism: &str, response: &[u8]) -> Result<Identity, Failure> {
        if mechanism != "PLAIN" {
            return Err(Failure::new(504, format!("unknown authentication mechanism '{mechanism}': PLAIN is offered")));
        }
        // [authorization id] 0 user 0 password (RFC 4616)
        let mut parts = response.splitn(3, |&byte| byte == 0).map(std::str::from_utf8);
        let (Some(Ok(_)), Some(Ok(user)), Some(Ok(password))) = (parts.next(), parts.next(), parts.next()) else {
            return Err(Failure::new(502, "malformed PLAIN response: expected NUL, user, NUL, password"));
        };
        self.broker.log_in(user, password, self.ends.0.ip().to_canonical().is_loopback()).map_err(|refusal| {
            tracing::warn!(peer = %self.ends.0, "login refused: {}", refusal.text);
            let text = "Login was refused using authentication mechanism PLAIN. For details see the broker logfile.";
            Failure::new(403, text)
        })
    }

    fn tune(&mut self, channel_max: u16, frame_max: u32, heartbeat: u16) -> Result<(), Failure> {
        if frame_max != 0 && frame_max < FRAME_MIN {
            let text = format!("negotiated frame_max = {frame_max} is lower than the minimum {FRAME_MIN}");
            return Err(Failure::new(530, text));
        }
        if frame_max == 0 || frame_max > FRAME_MAX {
            let text =
                format!("negotiated frame_max = {frame_max} is higher than the maximum allowed value {FRAME_MAX}");
            return Err(Failure::new(530, text));
        }
        if channel_max == 0 || channel_max > CHANNEL_MAX {
            let text = format!(
                "negotiated channel_max = {channel_max} is higher than the maximum allowed value {CHANNEL_MAX}"
            );
            return Err(Failure::new(530, text));
        }
        self.tuned = (frame_max, channel_max, heartbeat);
        self.output.lock().frame_max = frame_max;
        Ok(())
    }

    fn open(&mut self, identity: &Identity, vhost: &str) -> Result<Arc<Connection>, Failure> {
        if !self.broker.has_vhost(vhost) {
            return Err(Failure::new(530, format!("vhost {vhost} not found")));
        }
        let connection = self.broker.connected(Hello {
            peer: self.ends.0,
            local: self.ends.1,
            user: identity.user.clone(),
            vhost: vhost.into(),
            protocol: "AMQP 0-9-1",
            client_properties: std::mem::take(&mut self.client_properties),
            tuned: self.tuned,
        });
        self.output.write(|state| encode::connection_open_ok(&mut state.buffer));
        Ok(connection)
    }
}

fn capability(properties: &FieldTable, name: &str) -> bool {
    match properties.get("capabilities") {
        Some(FieldValue::Table(capabilities)) => capabilities.get(name).and_then(FieldValue::as_bool).unwrap_or(false),
        _ => false,
    }
}

/// What clients look for in a server: they compare `product`, and branch on `version` and `capabilities`.
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

/// The version of RabbitMQ whose behaviour is offered.
const COMPATIBLE_VERSION: &str = "4.1.0";
/// Largest frame offered, in bytes: RabbitMQ's.
const FRAME_MAX: u32 = 131_072;
/// Smallest frame limit accepted, in bytes (0-9-1 spec 1.4.2.6, `frame-min-size`).
const FRAME_MIN: u32 = 4096;
/// Channels offered: RabbitMQ's.
const CHANNEL_MAX: u16 = 2047;
/// Heartbeat suggested, in seconds: RabbitMQ's.
const HEARTBEAT: u16 = 60;
