//! Answers to requests that are refused: a status code and `{"error": ..., "reason": ...}` with RabbitMQ's wording.
use axum::Json;
use axum::http::header::{HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use leveret_model::refusal::{Refusal, RefusalKind};
use serde_json::json;

/// The reason why a request is refused. As a response, 401 carries `WWW-Authenticate` and 503 carries `Retry-After`.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    error: &'static str,
    reason: String,
}

impl ApiError {
    fn new(status: StatusCode, error: &'static str, reason: impl Into<String>) -> Self {
        Self { status, error, reason: reason.into() }
    }

    pub(crate) fn bad_request(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", reason)
    }

    /// Returns a 400 whose `error` is not `bad_request`.
    pub(crate) fn invalid(error: &'static str, reason: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, reason)
    }

    /// Returns the 404 for a path that names nothing.
    pub(crate) fn no_object() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Object Not Found", "Not Found")
    }

    /// Returns the 404 for a request that needs something that does not exist.
    pub(crate) fn not_found(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", reason)
    }

    pub(crate) fn not_authorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "not_authorized", "Login failed")
    }

    pub(crate) fn method_not_allowed(reason: String) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", reason)
    }

    pub(crate) fn body_too_large(most: usize) -> Self {
        let reason = format!("the body is larger than {most} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", reason)
    }

    pub(crate) fn body_too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", "the body did not arrive in time")
    }

    /// Returns a 503: the broker cannot carry out the request now.
    pub(crate) fn unavailable(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable", reason)
    }

    pub(crate) fn internal() -> Self {
        let reason = "the request ended unexpectedly; the broker's log says more";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_server_error", reason)
    }

    /// Converts a refusal that concerns the resource named by the request's path: a missing one is [`ApiError::no_object`].
    pub(crate) fn at_path(refusal: Refusal) -> Self {
        match refusal.kind {
            RefusalKind::NotFound => Self::no_object(),
            _ => refusal.into(),
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal.kind {
            RefusalKind::NotFound => Self::not_found(refusal.text),
            RefusalKind::Stopping => Self::unavailable(refusal.text),
            _ => Self::bad_request(refusal.text),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Json(json!({"error": self.error, "reason": self.reason}));
        let mut response = (self.status, body).into_response();
        let mut add = |name: HeaderName, value| response.headers_mut().insert(name, HeaderValue::from_static(value));
        match self.status {
            StatusCode::UNAUTHORIZED => add(WWW_AUTHENTICATE, "Basic realm=\"RabbitMQ Management\""),
            StatusCode::SERVICE_UNAVAILABLE => add(RETRY_AFTER, "1"),
            _ => None,
        };
        response
    }
}
