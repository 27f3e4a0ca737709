//! Routes, each described where it is answered; the OpenAPI document is made of these descriptions.
//!
//! A route reads published copies or asks the index. It never waits for the repository, and what it does not know is an
//! answer of its own.

pub mod alerts;
pub mod clusters;
pub mod events;
pub mod evidence;
pub mod jobs;
pub mod retention;
pub mod service;
pub mod target;
pub mod wal;

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Path};
use axum::http::header;
use axum::http::request::Parts;
use axum::routing::get;
use axum::{Router, middleware};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, ResponseBuilder};
use utoipa::{Modify, OpenApi as _};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::App;
use super::guard::guard;
use super::problem::{MEDIA_TYPE, Problem, ProblemType};
use super::{DOCUMENT_PATH, problem, web};
use crate::postgres::layout::ClusterName;

/// All routes behind the guard, and what there is besides.
pub fn router(app: Arc<App>) -> Router {
    let (router, mut document) = described().split_for_parts();
    add_problems(&mut document);
    // A document made of our own descriptions always makes JSON.
    let document = Bytes::from(serde_json::to_vec(&document).unwrap_or_default());
    let answer = move || async move { ([(header::CONTENT_TYPE, "application/json")], document) };
    let no_such_path =
        || async { Problem::new(ProblemType::NoSuchPath, "there is no such path").hint(WHERE) };
    let wrong_method = || async {
        Problem::new(ProblemType::MethodNotAllowed, "paths are asked by GET").hint(WHERE)
    };
    router
        .merge(web::router())
        .route(DOCUMENT_PATH, get(answer))
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(app.clone(), guard))
        .with_state(app)
}

const WHERE: &str = "/v1/openapi.json describes all there are";

fn described() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(OpenApiDocument::openapi())
        .routes(routes!(clusters::clusters))
        .routes(routes!(clusters::cluster))
        .routes(routes!(clusters::backups))
        .routes(routes!(clusters::archived))
        .routes(routes!(clusters::timelines))
        .routes(routes!(jobs::jobs))
        .routes(routes!(alerts::alerts))
        .routes(routes!(evidence::evidence))
        .routes(routes!(evidence::drills))
        .routes(routes!(retention::retention_plan))
        .routes(routes!(target::recovery_target))
        .routes(routes!(events::events))
        .routes(routes!(wal::file))
        .routes(routes!(service::healthz))
        .routes(routes!(service::readyz))
        .routes(routes!(service::metrics))
}

/// What stands above the paths.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "Walden", description = "What can be restored, to which moments, and how."),
    components(schemas(problem::Problem)),
    modifiers(&Security)
)]
struct OpenApiDocument;

struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut OpenApi) {
        let scheme =
            SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("token", scheme);
    }
}

/// What anybody may be answered, whatever the path.
const ANYWHERE: [(&str, &str); 4] = [
    ("413", "The request has a body"),
    (
        "421",
        "The service has no token, and the request is for another host than this machine",
    ),
    ("503", "It is not known yet, or could not be found out"),
    ("504", "It took too long"),
];
/// And where there is something to be read in the path or the query.
const OF_A_CLUSTER: [(&str, &str); 2] = [
    ("400", "A name or a value cannot be read"),
    ("404", "There is no such cluster here, or no such file"),
];
const OF_A_FILE: [(&str, &str); 3] = [
    ("403", "The service has no token, and gives WAL to nobody"),
    (
        "409",
        "The file was lost, or the server that asks is another cluster's",
    ),
    ("500", "The file is damaged"),
];

/// Describes the problem documents, which are the same everywhere.
fn add_problems(document: &mut OpenApi) {
    for (path, item) in &mut document.paths.paths {
        let Some(operation) = &mut item.get else {
            continue;
        };
        let needs_token = operation.security.is_some();
        let mut add = |problems: &[(&str, &str)]| {
            for (status, description) in problems {
                let content = ContentBuilder::new()
                    .schema(Some(Ref::from_schema_name("Problem")))
                    .build();
                let response = ResponseBuilder::new()
                    .description(*description)
                    .content(MEDIA_TYPE, content)
                    .build();
                operation
                    .responses
                    .responses
                    .insert(status.to_string(), response.into());
            }
        };
        add(&ANYWHERE);
        if path.contains("{cluster}") {
            add(&OF_A_CLUSTER);
        }
        if path.contains("{name}") {
            add(&OF_A_FILE);
        }
        if needs_token {
            add(&[("401", "No token, or a wrong one")]);
        }
    }
}

/// The cluster that a path names, which is the one of this service.
pub struct OfCluster;

impl FromRequestParts<Arc<App>> for OfCluster {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let name: ClusterName = path_value(parts, app, "cluster").await?;
        if name == app.cluster.name {
            return Ok(Self);
        }
        let detail = format!(
            "this service serves cluster \"{}\", not \"{name}\"",
            app.cluster.name
        );
        Err(Problem::new(ProblemType::UnknownCluster, detail)
            .hint("/v1/clusters lists what it serves"))
    }
}

/// A part of the path, read into what it stands for.
pub async fn path_value<T: std::str::FromStr<Err: std::fmt::Display>>(
    parts: &mut Parts,
    app: &Arc<App>,
    name: &str,
) -> Result<T, Problem> {
    let Path(values) = Path::<HashMap<String, String>>::from_request_parts(parts, app)
        .await
        .map_err(Problem::wrong_value)?;
    values
        .get(name)
        .map_or("", String::as_str)
        .parse()
        .map_err(Problem::wrong_value)
}

/// The query, read into what its values stand for. Unknown names and repeated ones are refused.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let read = axum::extract::Query::<T>::try_from_uri(&parts.uri);
        read.map(|query| Self(query.0)).map_err(|error| {
            let inner = std::error::Error::source(&error)
                .map_or_else(|| error.to_string(), ToString::to_string);
            Problem::wrong_value(format!("the query cannot be read: {inner}"))
        })
    }
}
