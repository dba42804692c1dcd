//! Answers to requests that are not done: a status code and `{"error": ..., "reason": ...}`.
use axum::Json;
use axum::http::StatusCode;
use axum::http::header::WWW_AUTHENTICATE;
use axum::response::{IntoResponse, Response};
use leveret_model::refusal::{Refusal, RefusalKind};
use serde_json::json;

/// Why a request is not done.
pub(crate) struct Error {
    status: StatusCode,
    error: &'static str,
    reason: String,
}

impl Error {
    pub(crate) fn bad_request(reason: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, error: "bad_request", reason: reason.into() }
    }

    pub(crate) fn not_found(reason: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, error: "Object Not Found", reason: reason.into() }
    }

    pub(crate) fn not_authorized(reason: &str) -> Self {
        Self { status: StatusCode::UNAUTHORIZED, error: "not_authorized", reason: reason.to_owned() }
    }

    pub(crate) fn method_not_allowed(reason: String) -> Self {
        Self { status: StatusCode::METHOD_NOT_ALLOWED, error: "method_not_allowed", reason }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal.kind {
            RefusalKind::NotFound => Self::not_found(refusal.text),
            _ => Self::bad_request(refusal.text),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let body = Json(json!({"error": self.error, "reason": self.reason}));
        let mut response = (self.status, body).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let realm = axum::http::HeaderValue::from_static("Basic realm=\"RabbitMQ Management\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, realm);
        }
        response
    }
}
