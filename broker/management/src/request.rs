//! Takes one request through its steps, each within its deadline: normalize the path, authenticate, read the body, wait for
//! a turn, call the route.
//!
//! A body is read only after a successful login and before the request takes a turn, so a slow sender keeps no turn from
//! others. A request that changes something runs in a task of its own, so a client that disconnects does not stop the change
//! half way. Health checks under `/health/` are answered at once, without login or turn, and read nothing behind a lock that
//! is held for long.
use crate::Bounds;
use crate::api::Api;
use crate::error::ApiError;
use crate::list;
use crate::socket::HttpClient;
use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::header::{CONNECTION, HeaderValue};
use axum::http::request::Parts;
use axum::http::uri::PathAndQuery;
use axum::http::{Method, Request, Response, Uri};
use axum::response::IntoResponse;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Frame, Incoming, SizeHint};
use leveret_node::Caller;
use std::borrow::Cow;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tower::ServiceExt;

/// Answers the requests of one listener.
pub(crate) struct Requests {
    api: Api,
    router: Router,
    /// Permits for carrying out a request: its turn.
    turns: Arc<Semaphore>,
    /// Permits for a body in memory. A request with a body holds one from before it is read until it has its turn.
    bodies: Arc<Semaphore>,
}

impl Requests {
    pub(crate) fn new(api: Api, router: Router) -> Arc<Self> {
        let [turns, bodies] = [api.bounds.requests_max, api.bounds.bodies_max].map(|max| Arc::new(Semaphore::new(max)));
        Arc::new(Self { api, router, turns, bodies })
    }

    pub(crate) fn bounds(&self) -> &Bounds {
        &self.api.bounds
    }

    /// Answers a request of `client`. Every refusal becomes a response.
    pub(crate) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: SocketAddr,
        client: Arc<HttpClient>,
    ) -> Response<AnswerBody> {
        client.asked();
        let deadline = Instant::now() + self.bounds().request_max + self.bounds().answer_max;
        let mut response = self.respond(request, peer, &client).await.unwrap_or_else(IntoResponse::into_response);
        if client.only_health {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response.map(|body| AnswerBody { body, client, deadline })
    }

    async fn respond(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        client: &HttpClient,
    ) -> Result<Response<Body>, ApiError> {
        let (mut parts, body) = request.into_parts();
        normalize(&mut parts.uri)?;
        let path = parts.uri.path();
        if path.starts_with("/health/") {
            return self.route(Request::from_parts(parts, Body::empty())).await;
        }
        if client.only_health {
            return Err(ApiError::unavailable("too many connections are open"));
        }
        let only_reads = matches!(parts.method, Method::GET | Method::HEAD);
        if path.starts_with("/api/") {
            client.logs_in();
            let identity = self.within(self.api.logins.identify(&self.api.broker, peer, &parts.headers)).await;
            client.asked();
            parts.extensions.insert(Caller::api(identity?));
            if self.api.broker.is_recovering() && !path.starts_with("/api/health/") {
                // The definitions are not known yet, and a new one would not be logged.
                return Err(ApiError::unavailable("the log is being read: nothing is served yet"));
            }
        } else if !only_reads {
            // No route outside `/api/` changes anything, so the refusal needs no body.
            let mut response = self.route(Request::from_parts(parts, Body::empty())).await?;
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            return Ok(response);
        }
        if only_reads {
            // The scarcer permit comes first, so that a request that waits for it does not hold a turn meanwhile.
            let _sort_permit = match list::is_sorted(&parts.uri) {
                true => Some(self.turn(&self.api.sort_permits).await?),
                false => None,
            };
            let _turn = self.turn(&self.turns).await?;
            return self.within(self.route(Request::from_parts(parts, Body::empty()))).await;
        }
        let body_permit = self.turn(&self.bodies).await?;
        client.awaits_body();
        let body = self.read(&parts, body).await;
        client.asked();
        let request = Request::from_parts(parts, Body::from(body?));
        let turn = self.turn(&self.turns).await?;
        drop(body_permit);
        let router = self.router.clone();
        let changing = tokio::spawn(async move {
            let response = call(router, request).await;
            drop(turn);
            response
        });
        self.within(async { changing.await.map_err(|_| ApiError::internal()) }).await
    }

    /// Waits for a permit of `turns`.
    ///
    /// # Errors
    /// 503 if none is free within `queue_max`.
    async fn turn(&self, turns: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, ApiError> {
        match timeout(self.bounds().queue_max, turns.clone().acquire_owned()).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(ApiError::unavailable("too many requests are in progress")),
        }
    }

    async fn route(&self, request: Request<Body>) -> Result<Response<Body>, ApiError> {
        Ok(call(self.router.clone(), request).await)
    }

    async fn within<T>(&self, work: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
        let most = self.bounds().request_max;
        timeout(most, work).await.unwrap_or_else(|_| {
            let reason = format!("not done within {} s; a change that has begun goes on", most.as_secs());
            Err(ApiError::unavailable(reason))
        })
    }

    async fn read(&self, parts: &Parts, body: Incoming) -> Result<Bytes, ApiError> {
        let most = self.bounds().body_bytes_max;
        if body.size_hint().lower() > most as u64 {
            return Err(ApiError::body_too_large(most));
        }
        match timeout(self.bounds().body_max, Limited::new(body, most).collect()).await {
            Err(_) => Err(ApiError::body_too_slow()),
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::body_too_large(most)),
            Ok(Err(_)) => Err(ApiError::bad_request(format!("the body of this {} ends too early", parts.method))),
        }
    }
}

async fn call(router: Router, request: Request<Body>) -> Response<Body> {
    router.oneshot(request).await.unwrap_or_else(|never| match never {})
}

/// Checks that the decoded path is UTF-8, and removes slashes from its end.
fn normalize(uri: &mut Uri) -> Result<(), ApiError> {
    let path = uri.path();
    if percent_encoding::percent_decode_str(path).decode_utf8().is_err() {
        return Err(ApiError::bad_request("the path is not UTF-8"));
    }
    let trimmed = path.trim_end_matches('/');
    if trimmed.len() == path.len() || trimmed.is_empty() {
        return Ok(());
    }
    let whole = match uri.query() {
        Some(query) => Cow::Owned(format!("{trimmed}?{query}")),
        None => Cow::Borrowed(trimmed),
    };
    let whole = PathAndQuery::try_from(&*whole).map_err(|error| ApiError::bad_request(error.to_string()))?;
    *uri = Uri::from(whole);
    Ok(())
}

/// The body of an answer. It fails if the client has not read it by the deadline, and marks the client idle when dropped.
pub(crate) struct AnswerBody {
    body: Body,
    client: Arc<HttpClient>,
    deadline: Instant,
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if Instant::now() > self.deadline {
            return Poll::Ready(Some(Err(axum::Error::new(std::io::Error::from(std::io::ErrorKind::TimedOut)))));
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.client.answered();
    }
}
