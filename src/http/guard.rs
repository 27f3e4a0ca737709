//! What every request passes: may it be asked, and is there an answer in time.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::app::App;
use super::problem::{Problem, ProblemType};
use super::{tokens, web};

/// Paths that anybody may ask for: probes, and the description of the API.
const OPEN_PATHS: [&str; 3] = ["/healthz", "/readyz", super::DOCUMENT_PATH];

/// Lets a request pass or answers it, and bounds the time that it takes.
pub async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let wants_text = request
        .headers()
        .get(header::ACCEPT)
        .is_some_and(|types| types == "text/plain");
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("none", |path| path.as_str())
        .to_string();
    let admitted = admit(&app, request.uri().path(), request.headers());
    let mut response = match admitted {
        Err(problem) => problem.into_response(),
        Ok(()) => tokio::time::timeout(app.longest, next.run(request))
            .await
            .unwrap_or_else(|_| {
                let detail = format!("there is no answer after {} s", app.longest.as_secs());
                Problem::new(ProblemType::Timeout, detail)
                    .hint("look at the service's log, and ask again")
                    .into_response()
            }),
    };
    if let Some(problem) = response.extensions_mut().remove::<Problem>()
        && wants_text
    {
        let headers = std::mem::take(response.headers_mut());
        response = problem.into_text();
        keep_walden_headers(&headers, response.headers_mut());
    }
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    let status = response.status().as_u16().to_string();
    app.requests
        .get_or_create(&[("route", route), ("status", status)])
        .inc();
    response
}

/// What tells `restore-command` that an answer is the service's.
fn keep_walden_headers(from: &HeaderMap, to: &mut HeaderMap) {
    if let Some(answer) = from.get(super::restores::ANSWER_HEADER) {
        to.insert(super::restores::ANSWER_HEADER, answer.clone());
    }
}

fn admit(app: &App, path: &str, headers: &HeaderMap) -> Result<(), Problem> {
    let length = headers
        .get(header::CONTENT_LENGTH)
        .is_some_and(|length| length != "0");
    if (length || headers.contains_key(header::TRANSFER_ENCODING)) && path != web::SIGN_IN_PATH {
        return Err(Problem::new(
            ProblemType::BodyNotAllowed,
            "the request has a body, and this path takes none",
        ));
    }
    if app.tokens.is_empty() {
        return check_host(headers);
    }
    if OPEN_PATHS.contains(&path) || web::is_own(path) || app.tokens.admit_request(headers) {
        return Ok(());
    }
    let detail = if tokens::presented(headers).is_some() {
        "the token is not one of this service"
    } else {
        "there is no token"
    };
    let hint =
        "send one that http.token_file of the service holds, as `Authorization: Bearer TOKEN`";
    Err(Problem::new(ProblemType::Unauthorized, detail).hint(hint))
}

/// Without tokens only this machine is served. A page in a browser on it must not become a way in for others, by a name
/// of theirs that leads here (DNS rebinding).
fn check_host(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(host) = headers.get(header::HOST) else {
        return Ok(());
    };
    let host = String::from_utf8_lossy(host.as_bytes()).into_owned();
    if is_local(&host) {
        return Ok(());
    }
    let detail = format!("the request is for host \"{host}\", and this service has no token");
    Err(Problem::new(ProblemType::ForeignHost, detail)
        .hint("ask for 127.0.0.1 or localhost, or set http.token_file"))
}

fn is_local(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_local() {
        for host in [
            "localhost",
            "LocalHost:8432",
            "127.0.0.1:8432",
            "127.8.8.8",
            "[::1]:8432",
        ] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "",
            "localhost.evil.example",
            "192.0.2.1",
            "[::2]",
            "evil.example:8432",
            "127.0.0.1@evil.example",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }
}
