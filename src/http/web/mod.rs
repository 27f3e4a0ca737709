//! The page at `/`: what can be restored, what happened, and the command that restores to just before it. Made here as
//! HTML; the script only adds comfort.

mod alerts;
mod axis;
mod cards;
mod drills;
mod gather;
mod jobs;
mod line;
mod query;
mod sessions;
mod signs;
#[cfg(test)]
mod tests;
mod upkeep;
mod view;
mod words;

use std::sync::Arc;
use std::time::Instant;

use askama::Template;
use axum::Router;
use axum::body::Body;
use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;

use super::app::App;
use super::problem::{Problem, ProblemType};
use crate::error::one_line;
use query::PageQuery;
use sessions::{LASTS, cookie};
use view::{SignIn, WaitingPage};

pub use sessions::Sessions;

/// Where the sign-in form is sent: the one path that takes a body.
pub const SIGN_IN_PATH: &str = "/sign-in";
/// Bytes of that body.
const LONGEST_FORM: usize = 4 << 10;

const STYLE: (&str, &str, &str) = (
    "/assets/walden.css",
    "text/css; charset=utf-8",
    include_str!("assets/walden.css"),
);
const SCRIPT: (&str, &str, &str) = (
    "/assets/walden.js",
    "text/javascript; charset=utf-8",
    include_str!("assets/walden.js"),
);
const ICON: (&str, &str, &str) = (
    "/assets/walden.svg",
    "image/svg+xml",
    include_str!("assets/walden.svg"),
);

/// Nothing from elsewhere, nothing inline, in nobody's frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Whether a path is the page's, which looks itself who asks.
pub fn is_own(path: &str) -> bool {
    ["/", SIGN_IN_PATH, "/sign-out"].contains(&path) || path.starts_with("/assets/")
}

/// The page's paths.
pub fn router() -> Router<Arc<App>> {
    let asset = |(_, media_type, text): (&str, &'static str, &'static str)| {
        get(move || async move { ([(header::CONTENT_TYPE, media_type)], text) })
    };
    Router::new()
        .route("/", get(page))
        .route(SIGN_IN_PATH, post(sign_in))
        .route("/sign-out", post(sign_out))
        .route(STYLE.0, asset(STYLE))
        .route(SCRIPT.0, asset(SCRIPT))
        .route(ICON.0, asset(ICON))
}

async fn page(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let query = PageQuery::read(query.as_deref().unwrap_or_default());
    let cluster = app.cluster.name.to_string();
    if !is_signed_in(&app, &headers) {
        let query = query.unwrap_or_default().address();
        let form = SignIn {
            cluster,
            query: in_address(&query).into(),
            refused: false,
        };
        return unauthorized(&form);
    }
    match gather::page(&app, query).await {
        Ok((page, true)) => html(StatusCode::OK, &page),
        Ok((page, false)) => html(StatusCode::BAD_REQUEST, &page),
        Err(problem) => html(
            problem.status(),
            &WaitingPage {
                cluster,
                what: problem.detail().to_string(),
            },
        ),
    }
}

/// What the sign-in form sends.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Form {
    token: String,
    query: String,
}

/// A good token begins a session, so that no token lies in the browser and none is ever in an address.
async fn sign_in(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let Ok(body) = axum::body::to_bytes(request.into_body(), LONGEST_FORM).await else {
        return Problem::new(
            ProblemType::BodyNotAllowed,
            "the form is too long, or was not sent whole",
        )
        .into_response();
    };
    let Ok(form) = serde_urlencoded::from_bytes::<Form>(&body) else {
        return Problem::new(ProblemType::WrongValue, "the form cannot be read").into_response();
    };
    let address = PageQuery::read(&form.query).unwrap_or_default().address();
    if !app.tokens.admit(form.token.trim().as_bytes()) {
        let cluster = app.cluster.name.to_string();
        return unauthorized(&SignIn {
            cluster,
            query: in_address(&address).into(),
            refused: true,
        });
    }
    match app.sessions.begin(Instant::now()) {
        Ok(session) => leave(&app, &address, &session, LASTS.as_secs()),
        Err(error) => Problem::new(ProblemType::Unknown, one_line(&error)).into_response(),
    }
}

async fn sign_out(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    if let Some(session) = cookie(&headers, &cookie_name(&app)) {
        app.sessions.end(session, Instant::now());
    }
    leave(&app, "/", "", 0)
}

/// Leads to a page of ours with a new cookie. Lax: a link to an event that a colleague sends works; what it leads to
/// only shows.
fn leave(app: &App, address: &str, session: &str, seconds: u64) -> Response {
    let secure = if app.tls.is_some() { "; Secure" } else { "" };
    let name = cookie_name(app);
    let cookie =
        format!("{name}={session}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    let value =
        |text: &str| HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("/"));
    let headers = [
        (header::LOCATION, value(address)),
        (header::SET_COOKIE, value(&cookie)),
    ];
    (StatusCode::SEE_OTHER, headers).into_response()
}

/// Cookies are a host's, whatever the port: services on one host must not take each other's.
fn cookie_name(app: &App) -> String {
    format!("walden-{}", app.cluster.name)
}

fn is_signed_in(app: &App, headers: &HeaderMap) -> bool {
    let session = || {
        cookie(headers, &cookie_name(app))
            .is_some_and(|name| app.sessions.admit(name, Instant::now()))
    };
    app.tokens.is_empty() || app.tokens.admit_request(headers) || session()
}

/// The query of an address of the page.
fn in_address(address: &str) -> &str {
    address.split_once('?').map_or("", |(_, query)| query)
}

fn unauthorized(form: &SignIn) -> Response {
    let mut response = html(StatusCode::UNAUTHORIZED, form);
    response
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

fn html(status: StatusCode, template: &impl Template) -> Response {
    let headers: [(HeaderName, &'static str); 3] = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    match template.render() {
        Ok(text) => (status, headers, text).into_response(),
        Err(error) => Problem::new(
            ProblemType::Unknown,
            format!("the page cannot be made: {error}"),
        )
        .into_response(),
    }
}
