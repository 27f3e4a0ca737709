//! WAL files for `restore-command --url`.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream;
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use utoipa::IntoParams;

use super::super::app::App;
use super::super::listen::Peer;
use super::super::problem::{Problem, ProblemType};
use super::super::restores::{ANSWER_HEADER, Restorer, SpooledFile};
use super::{OfCluster, Query, path_value};
use crate::postgres::types::{SegmentName, SystemIdentifier, WalFileName};

/// Bytes sent at once.
const PIECE: usize = 256 << 10;

/// The WAL file that a path names.
pub struct OfFile(WalFileName);

impl FromRequestParts<Arc<App>> for OfFile {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let name = path_value(parts, app, "name").await?;
        match name {
            WalFileName::Segment(segment) if !segment.fits(app.cluster.segment_size) => {
                let bytes = app.cluster.segment_size.bytes();
                Err(Problem::wrong_value(format!(
                    "no cluster with segments of {bytes} bytes has a \"{segment}\""
                )))
            }
            name => Ok(Self(name)),
        }
    }
}

/// What `restore-command` says of where it restores.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct FileQuery {
    /// Segments from this one on are absent without looking: where recovery ends.
    #[param(value_type = Option<String>, nullable = false, example = "00000001000000000000000A")]
    end: Option<SegmentName>,
    /// The system identifier of the server that restores: another cluster's is refused.
    #[param(nullable = false, minimum = 0)]
    system_identifier: Option<u64>,
    /// Tells restores on one machine apart, so that what is fetched ahead fits: up to 16 hexadecimal digits.
    #[param(nullable = false, pattern = "^[0-9a-f]{1,16}$")]
    session: Option<String>,
}

/// A WAL file's content, with `Content-Length` and `Repr-Digest: crc32c`. Only with a token. The header `Walden-Wal` says
/// `delivered NAME` or, with 404, `absent NAME`: the repository proves that there is no such file. Everything else is no
/// answer to the question whether there is one.
#[utoipa::path(
    get, path = "/v1/clusters/{cluster}/wal/{name}", tag = "restore", security(("token" = [])),
    params(
        ("cluster" = String, Path, description = "The cluster's name", example = "main"),
        ("name" = String, Path, example = "000000010000000000000001",
         description = "The file's name: a segment, or one with .partial or .OFFSET.backup, or TIMELINE.history"),
        FileQuery
    ),
    responses((
        status = 200, body = Vec<u8>, content_type = "application/octet-stream",
        headers(("Walden-Wal" = String), ("Repr-Digest" = String))
    ))
)]
pub async fn file(
    State(app): State<Arc<App>>,
    Extension(Peer(peer)): Extension<Peer>,
    _: OfCluster,
    OfFile(name): OfFile,
    Query(query): Query<FileQuery>,
) -> Result<Response, Problem> {
    if app.tokens.is_empty() {
        let detail =
            "WAL holds all the data, and without a token everybody on this machine could read it";
        return Err(Problem::new(ProblemType::TokenNeeded, detail)
            .hint("set http.token_file, and give the token to restore-command"));
    }
    check_system(&app, query.system_identifier)?;
    let session = match query.session.as_deref() {
        None => 0,
        Some(text) => session(text)
            .ok_or_else(|| Problem::wrong_value("session has 1 to 16 hexadecimal digits"))?,
    };
    let restorer = Restorer {
        address: peer.ip(),
        session,
    };
    match app.restores.fetch(name, query.end, restorer).await? {
        Some(fetched) => Ok(deliver(name, fetched)),
        None => {
            let detail = format!("the repository proves that there is no WAL file \"{name}\"");
            let mut response = Problem::new(ProblemType::WalAbsent, detail).into_response();
            response
                .headers_mut()
                .insert(ANSWER_HEADER, header_value(format!("absent {name}")));
            Ok(response)
        }
    }
}

fn session(text: &str) -> Option<u64> {
    let digits = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    (digits && text.len() <= 16)
        .then(|| u64::from_str_radix(text, 16).ok())
        .flatten()
}

/// "Absent" from the wrong cluster's archive would end a recovery early.
fn check_system(app: &App, asked: Option<u64>) -> Result<(), Problem> {
    match asked.map(SystemIdentifier) {
        Some(asked) if asked != app.cluster.system_identifier => {
            let (name, ours) = (&app.cluster.name, app.cluster.system_identifier);
            let detail = format!(
                "the server that restores has system identifier {asked}, cluster \"{name}\" of this service has {ours}"
            );
            Err(Problem::new(ProblemType::WrongCluster, detail)
                .hint("give restore-command the --url and --cluster of its own"))
        }
        _ => Ok(()),
    }
}

fn deliver(name: WalFileName, fetched: SpooledFile) -> Response {
    let digest = format!("crc32c=:{}:", STANDARD.encode(fetched.crc32c.to_be_bytes()));
    let headers = [
        (
            header::CONTENT_TYPE.as_str(),
            HeaderValue::from_static("application/octet-stream"),
        ),
        (
            header::CONTENT_LENGTH.as_str(),
            HeaderValue::from(fetched.bytes),
        ),
        ("repr-digest", header_value(digest)),
        (ANSWER_HEADER, header_value(format!("delivered {name}"))),
    ];
    let pieces = stream::try_unfold(
        (fetched.file, fetched.place),
        |(mut file, place)| async move {
            let mut piece = vec![0; PIECE];
            let read = file.read(&mut piece).await?;
            piece.truncate(read);
            Ok::<_, std::io::Error>((read > 0).then_some((piece, (file, place))))
        },
    );
    (headers, Body::from_stream(pieces)).into_response()
}

/// Names and digests are ASCII without control characters.
fn header_value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
