//! Who asks: HTTP basic authentication, the same users as AMQP's.
use crate::error::Error;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use leveret_node::{Broker, Identity};
use std::net::SocketAddr;

/// Lets a request on to its route, with the `Identity` of who asks; or refuses it with 401.
pub(crate) async fn require(
    State(broker): State<Broker>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Result<Response, Error> {
    let identity = identify(&broker, peer, request.headers()).await?;
    request.extensions_mut().insert(identity);
    Ok(next.run(request).await)
}

async fn identify(broker: &Broker, peer: SocketAddr, headers: &HeaderMap) -> Result<Identity, Error> {
    let (user, password) = credentials(headers).ok_or_else(|| Error::not_authorized("Login failed"))?;
    broker.log_in(&user, &password, peer.ip()).await.map_err(|refusal| {
        broker.log_refused(peer, &format!("login to the management API refused: {}", refusal.text));
        Error::not_authorized("Login failed")
    })
}

fn credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(BASE64_STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}
