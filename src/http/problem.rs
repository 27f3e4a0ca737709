//! Errors over HTTP: problem documents (RFC 9457) with a kind for programs. The one place where they become status codes.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// The media type of problem documents.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// What went wrong, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemType {
    /// No token, or a wrong one.
    Unauthorized,
    /// Not given to anybody while the service has no token.
    TokenNeeded,
    /// The request names another host than this machine, and the service has no token.
    ForeignHost,
    /// There is no such path.
    NoSuchPath,
    MethodNotAllowed,
    /// Requests have no body.
    BodyNotAllowed,
    /// A name or a value in the path or the query cannot be read.
    WrongValue,
    /// This service does not serve that cluster.
    UnknownCluster,
    /// The server that asks belongs to another cluster.
    WrongCluster,
    /// The repository proves that there is no such WAL file.
    WalAbsent,
    /// The WAL file is missing although WAL goes on after it.
    WalLost,
    /// The WAL file is there and cannot be used.
    WalDamaged,
    /// The repository was not read yet.
    NotReadYet,
    /// Too many want the same at once.
    Busy,
    /// It took too long.
    Timeout,
    /// It could not be found out.
    Unknown,
}

impl ProblemType {
    /// The status code, and the kind in words.
    pub fn status(self) -> (StatusCode, &'static str) {
        match self {
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "A token is needed"),
            Self::TokenNeeded => (StatusCode::FORBIDDEN, "The service has no token"),
            Self::ForeignHost => (
                StatusCode::MISDIRECTED_REQUEST,
                "Not a name of this machine",
            ),
            Self::NoSuchPath => (StatusCode::NOT_FOUND, "There is no such path"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "Method not allowed"),
            Self::BodyNotAllowed => (StatusCode::PAYLOAD_TOO_LARGE, "Requests have no body"),
            Self::WrongValue => (StatusCode::BAD_REQUEST, "A value cannot be read"),
            Self::UnknownCluster => (StatusCode::NOT_FOUND, "Not a cluster of this service"),
            Self::WrongCluster => (
                StatusCode::CONFLICT,
                "The server belongs to another cluster",
            ),
            Self::WalAbsent => (StatusCode::NOT_FOUND, "There is no such WAL file"),
            Self::WalLost => (StatusCode::CONFLICT, "The WAL file was lost"),
            Self::WalDamaged => (StatusCode::INTERNAL_SERVER_ERROR, "The WAL file is damaged"),
            Self::NotReadYet => (
                StatusCode::SERVICE_UNAVAILABLE,
                "The repository was not read yet",
            ),
            Self::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Too many requests of this kind at once",
            ),
            Self::Timeout => (StatusCode::GATEWAY_TIMEOUT, "No answer in time"),
            Self::Unknown => (StatusCode::SERVICE_UNAVAILABLE, "It could not be found out"),
        }
    }
}

/// A problem document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// `urn:walden:problem:` and the kind.
    #[serde(rename = "type")]
    #[schema(example = "urn:walden:problem:wrong-value")]
    uri: String,
    kind: ProblemType,
    /// The kind in words.
    title: String,
    /// The status code of the answer.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What happened.
    detail: String,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    hint: Option<String>,
}

impl Problem {
    /// A problem without a hint.
    pub fn new(kind: ProblemType, detail: impl Into<String>) -> Self {
        let (status, title) = kind.status();
        let name = serde_json::to_value(kind).unwrap_or_default();
        Self {
            uri: format!("urn:walden:problem:{}", name.as_str().unwrap_or_default()),
            kind,
            title: title.to_string(),
            status: status.as_u16(),
            detail: detail.into(),
            hint: None,
        }
    }

    /// The same with the next step.
    pub fn hint(mut self, text: impl Into<String>) -> Self {
        self.hint = Some(text.into()).filter(|text: &String| !text.is_empty());
        self
    }

    /// The status code of the answer.
    pub fn status(&self) -> StatusCode {
        self.kind.status().0
    }

    /// What happened.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// What to do next; empty when there is nothing to say.
    pub fn next(&self) -> &str {
        self.hint.as_deref().unwrap_or_default()
    }

    /// What a name or a value should have been.
    pub fn wrong_value(error: impl std::fmt::Display) -> Self {
        Self::new(ProblemType::WrongValue, error.to_string())
            .hint("/v1/openapi.json tells what each path takes")
    }

    /// The lines that programs print for people, for who asks for plain text.
    pub fn into_text(self) -> Response {
        let hint = self
            .hint
            .as_ref()
            .map(|hint| format!("HINT: {hint}\n"))
            .unwrap_or_default();
        let text = format!("ERROR: {}\n{hint}", self.detail);
        self.respond("text/plain; charset=utf-8", text.into_bytes())
    }

    fn respond(&self, media_type: &'static str, body: Vec<u8>) -> Response {
        let mut response = (
            self.kind.status().0,
            [(header::CONTENT_TYPE, media_type)],
            body,
        )
            .into_response();
        if self.kind == ProblemType::Unauthorized {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl IntoResponse for Problem {
    /// The document; it stays with the response for who wants another form of it.
    fn into_response(self) -> Response {
        // Strings and numbers always make JSON.
        let mut response = self.respond(MEDIA_TYPE, serde_json::to_vec(&self).unwrap_or_default());
        response.extensions_mut().insert(self);
        response
    }
}
