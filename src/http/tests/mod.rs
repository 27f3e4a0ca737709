//! The routes over a repository in memory, asked without a socket; and the socket, asked by peers that misbehave.

mod alerts;
mod answers;
mod connections;
mod events;
mod evidence;
pub mod figures;
mod growth;
mod hostile;
mod kept;
mod refusals;
mod wal;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::ServiceExt;

use super::app::App;
use super::listen::Peer;
use super::tokens::Tokens;
use super::{HttpOptions, parts, routes};
use crate::budget::Budget;
use crate::config::Secret;
use crate::metrics::Durations;
use crate::postgres::archive::testing::{LIMIT, PgWal, cluster_in, fetcher, pusher};
use crate::postgres::cluster::Cluster;
use crate::postgres::index::Index;
use crate::service::connections::ServiceInfo;
use crate::service::{ServiceHandles, fetches, indexing, pushes};
use crate::storage::MemoryStorage;

/// What the repository of most tests has: WAL with a gap, and a timeline that forks.
pub const ARCHIVED: [&str; 4] = [
    "000000010000000000000001",
    "000000010000000000000002",
    "000000010000000000000004",
    "00000002.history",
];

pub const TOKEN: &str = "a-token-for-these-tests";

/// HTTP over a repository in memory, without a socket.
pub struct Door {
    pub router: Router,
    pub app: Arc<App>,
    pub wal: PgWal,
    pub pushes: pushes::PushHandle,
    tasks: JoinSet<anyhow::Result<()>>,
    stopping: watch::Sender<bool>,
    refresh: Option<super::facts::FactsReader>,
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answered {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answered {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// It is a problem document of this kind and says so everywhere.
    #[track_caller]
    pub fn is_problem(&self, status: u16, kind: &str) {
        let document = self.json();
        assert_eq!(
            (self.status.as_u16(), document["kind"].as_str()),
            (status, Some(kind)),
            "{document}"
        );
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(document["status"], status);
        assert_eq!(document["type"], format!("urn:walden:problem:{kind}"));
        assert!(
            document["title"].is_string() && document["detail"].is_string(),
            "{document}"
        );
    }
}

pub fn options(folder: &std::path::Path, token: &str) -> HttpOptions {
    HttpOptions {
        listen: "127.0.0.1:0".parse().ok(),
        tokens: Tokens::load(None, &Secret::new(token)).unwrap(),
        tls: None,
        max_connections: 4,
        refresh_interval: Duration::from_secs(3600),
        spool: folder.join("http"),
        wal_memory: 8 << 20,
        limits: crate::config::testing::health_limits(),
        folder: None,
        retention: crate::retention::Policy::new(&crate::config::testing::defaults()),
        drill_targets: crate::http::options::DrillTargets::default(),
        runbook_names: true,
        is_in_bucket: true,
    }
}

impl Door {
    /// With what `archived` stored, read by the service.
    pub async fn with(token: &str, archived: &[&str]) -> Self {
        let mut door = Self::unread(token, archived).await;
        door.read().await;
        door
    }

    /// Has the service read the repository.
    pub async fn read(&mut self) {
        let reader = self.refresh.take().unwrap();
        self.tasks.spawn(reader.run(self.stopping.subscribe()));
        for _ in 0..3000 {
            if self.get("/readyz").await.status == StatusCode::OK {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("waited half a minute in vain until the repository was read");
    }

    /// The same before the service has read the repository.
    pub async fn unread(token: &str, archived: &[&str]) -> Self {
        let cluster = cluster_in(Arc::new(MemoryStorage::default())).await;
        Self::over(cluster, None, token, archived).await
    }

    /// The same over what is there, which lies in a folder perhaps.
    pub async fn over(
        cluster: Cluster,
        folder: Option<PathBuf>,
        token: &str,
        archived: &[&str],
    ) -> Self {
        let wal = PgWal::new();
        for name in archived {
            let path = match name.ends_with(".history") {
                true => wal.ready(name, b"1\t0/300000\tno recovery target specified\n"),
                false => wal.segment(name, 3),
            };
            pusher(&cluster).push(&path).await.unwrap();
        }
        let mut tasks = JoinSet::new();
        let (budget, durations) = (Budget::new(8 << 20), Durations::default());
        let service_options = crate::service::ServiceOptions {
            socket: wal.0.path().join("hook.sock"),
            max_connections: 1,
            compression_level: 1,
            look_ahead: 0,
            fresh: Duration::ZERO,
            pg_wal: None,
            prefetch: 2,
            workers: 1,
            memory: 8 << 20,
            timeout: LIMIT,
            jobs: None,
            index: crate::service::IndexOptions {
                cache: wal.0.path().join("cache"),
                names_interval: Duration::ZERO,
                resolve: Arc::new(|| anyhow::bail!("no server in these tests")),
            },
        };
        let (indexing, index_owner) =
            indexing::new(cluster.clone(), service_options.index.clone()).unwrap();
        let (index, search_index) = (
            index_owner.reader().await.unwrap(),
            index_owner.reader().await.unwrap(),
        );
        let kept_index = index_owner.index();
        let (pushes, push_owner) = pushes::new(
            pusher(&cluster),
            indexing.clone(),
            &service_options,
            budget.clone(),
            durations.clone(),
        );
        tasks.spawn(index_owner.run());
        let (fetches, fetch_owner) = fetches::new(fetcher(&cluster), 2, budget, durations.clone());
        tasks.spawn(push_owner.run());
        tasks.spawn(fetch_owner.run());
        let about = ServiceInfo {
            started_at: chrono::Utc::now(),
            cluster: "main".into(),
            repository: cluster.repository.describe(),
            http: None,
        };
        let service = ServiceHandles {
            jobs: watch::channel(crate::service::jobs::JobsSnapshot::default()).1,
            cluster: cluster.clone(),
            about,
            pushes: pushes.clone(),
            fetches,
            indexing,
            index,
            search_index,
            kept_index,
            durations,
            timeout: LIMIT,
            queue_time: Duration::from_secs(20),
            prefetch: 2,
        };
        let options = HttpOptions {
            folder,
            ..options(wal.0.path(), token)
        };
        let (app, reader, watcher, http_owner, plans_owner, records, alerts) =
            parts(options, service);
        let stopping = watch::Sender::new(false);
        tasks.spawn(http_owner.run());
        tasks.spawn(plans_owner.run(stopping.subscribe()));
        tasks.spawn(records.run(stopping.subscribe()));
        tasks.spawn(alerts.run(stopping.subscribe()));
        tasks.spawn(watcher.run(stopping.subscribe()));
        let app = Arc::new(app);
        let router = routes::router(app.clone());
        Self {
            router,
            app,
            wal,
            pushes,
            tasks,
            stopping,
            refresh: Some(reader),
        }
    }

    pub fn index(&self) -> &Arc<Index> {
        self.app.planner.index.as_ref().unwrap()
    }

    /// Waits until what all of the archived WAL holds is in the index.
    pub async fn indexed(&self) {
        for _ in 0..3000 {
            if self.index().state().unwrap().is_complete() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("waited half a minute in vain until the WAL was indexed");
    }

    pub async fn get(&self, uri: &str) -> Answered {
        self.ask(Request::builder().uri(uri)).await
    }

    /// With the token.
    pub async fn get_with_token(&self, uri: &str) -> Answered {
        self.ask(
            Request::builder()
                .uri(uri)
                .header("authorization", format!("Bearer {TOKEN}")),
        )
        .await
    }

    pub async fn ask(&self, request: axum::http::request::Builder) -> Answered {
        self.send(request, "").await
    }

    /// With a body.
    pub async fn send(&self, request: axum::http::request::Builder, body: &str) -> Answered {
        let mut request = request.body(Body::from(body.to_string())).unwrap();
        request
            .extensions_mut()
            .insert(Peer("127.0.0.1:1".parse().unwrap()));
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 64 << 20).await.unwrap().to_vec();
        Answered {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }
}
