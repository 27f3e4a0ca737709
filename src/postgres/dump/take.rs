//! A logical dump from the first question to its manifest.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use tokio::sync::watch;

use super::cleanup::{discard, remove_leftovers};
use super::command::DumpRequest;
use super::facts::{SnapshotSession, databases};
use super::latest;
use super::list::list;
use super::manifest::{DumpManifest, TableEntry};
use super::one::{OneDump, commit};
use super::programs::Programs;
use super::progress::DumpProgress;
use super::started::{Reserved, beat, reserve, taken_for_abandoned};
use crate::config;
use crate::error::{one_line, with_hint};
use crate::postgres::backup::cleanup::sweep;
use crate::postgres::backup::take::Interrupted;
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::{DumpFormat, DumpId};
use crate::postgres::replication::conninfo::{ProgramConnection, ResolveConnInfo};

pub use super::one::Drilled;

/// Which databases are dumped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Databases {
    /// All that allow connections, but no templates.
    All,
    Named(Vec<String>),
    /// The one that the connection string names.
    Connected,
}

/// How the dump of one database went.
#[derive(Debug)]
pub struct DumpOutcome {
    pub database: String,
    pub result: anyhow::Result<DumpManifest>,
}

/// What taking needs.
pub struct Taking<'a> {
    pub cluster: &'a Cluster,
    pub resolve: ResolveConnInfo<'a>,
    pub settings: &'a config::Dump,
    pub request: &'a DumpRequest,
    pub progress: &'a Arc<DumpProgress>,
    /// The server is one that a drill restored.
    pub drilled: Option<&'a Drilled>,
}

/// A dump that is stored, but for its manifest: it does not exist yet.
#[derive(Debug)]
pub struct PreparedDump {
    manifest: DumpManifest,
    tables: Vec<TableEntry>,
    _reserved: Reserved,
}

impl Taking<'_> {
    /// Dumps databases one after the other; one that fails leaves the others standing. When `stop` becomes true the dump
    /// under way is given up, what was stored of it is removed, and no other begins. Who drops this gets the same, but for
    /// what was stored, which the next dump removes. Errors: which databases there are is not known.
    pub async fn databases(
        &self,
        which: &Databases,
        stop: &mut watch::Receiver<bool>,
    ) -> anyhow::Result<Vec<DumpOutcome>> {
        let mut outcomes = Vec::new();
        for database in self.begin(which, stop).await? {
            let result = self.database(&database, stop).await;
            let result = result.with_context(|| not_dumped(&database));
            outcomes.push(DumpOutcome { database, result });
        }
        Ok(outcomes)
    }

    /// The same without the last step of each: none exists before [`commit`](Self::commit).
    pub async fn prepare_databases(
        &self,
        which: &Databases,
        stop: &mut watch::Receiver<bool>,
    ) -> anyhow::Result<Vec<(String, anyhow::Result<PreparedDump>)>> {
        let mut prepared = Vec::new();
        for database in self.begin(which, stop).await? {
            let done = self.prepare(&database, stop).await;
            let done = done.with_context(|| not_dumped(&database));
            prepared.push((database, done));
        }
        Ok(prepared)
    }

    async fn begin(
        &self,
        which: &Databases,
        stop: &mut watch::Receiver<bool>,
    ) -> anyhow::Result<Vec<String>> {
        let names = or_stop(stop, self.names(which)).await?;
        sweep(self.cluster).await;
        Ok(names)
    }

    async fn names(&self, which: &Databases) -> anyhow::Result<Vec<String>> {
        match which {
            Databases::Named(names) => Ok(names.clone()),
            Databases::Connected => Ok(vec![(self.resolve)()?.database]),
            Databases::All => {
                let (found, _) = databases(self.cluster, self.resolve).await?;
                let (open, closed): (Vec<_>, Vec<_>) =
                    found.into_iter().partition(|database| database.open);
                for database in closed {
                    tracing::warn!(
                        "database \"{}\" lets this role not connect: it is not dumped",
                        database.name
                    );
                }
                Ok(open.into_iter().map(|database| database.name).collect())
            }
        }
    }

    /// Dumps one database.
    pub async fn database(
        &self,
        database: &str,
        stop: &mut watch::Receiver<bool>,
    ) -> anyhow::Result<DumpManifest> {
        let prepared = self.prepare(database, stop).await?;
        self.commit(prepared).await
    }

    /// The same without the last step.
    async fn prepare(
        &self,
        database: &str,
        stop: &mut watch::Receiver<bool>,
    ) -> anyhow::Result<PreparedDump> {
        if *stop.borrow() {
            return Err(Interrupted.into());
        }
        self.progress
            .begin(format!("{database}: asking the server"));
        let prepared = async {
            let session = SnapshotSession::connect(self.cluster, self.resolve, database).await?;
            let programs = Programs::find(self.settings, session.major).await?;
            self.check_request(&programs)?;
            let kept = list(self.cluster, Some(database)).await?;
            remove_leftovers(self.cluster, &kept).await?;
            let reserved = reserve(
                self.cluster,
                &self.settings.file_name,
                database,
                self.request.kind,
                self.request.options.is_partial(),
            )
            .await?;
            Ok((session, programs, reserved))
        };
        let (mut session, programs, reserved) = or_stop(stop, prepared).await?;
        tracing::info!(
            "dumping database \"{database}\" of PostgreSQL {} with pg_dump {}",
            session.version,
            programs.version
        );
        if let Some(warning) = programs.warning(session.major) {
            tracing::warn!("{warning}");
        }
        let dump = OneDump {
            cluster: self.cluster,
            settings: self.settings,
            request: self.request,
            progress: self.progress,
            id: reserved.id.clone(),
            started_at: reserved.started.started_at,
            connection: self.connection(&session, database)?,
            drilled: self.drilled,
            programs,
        };
        let taken = tokio::select! {
            taken = or_stop(stop, dump.take(&mut session)) => taken,
            () = beat(self.cluster, &reserved) => Err(taken_for_abandoned(&reserved.id)),
        };
        drop(session);
        match taken {
            Ok((manifest, tables)) => Ok(PreparedDump {
                manifest,
                tables,
                _reserved: reserved,
            }),
            Err(error) => Err(give_up(self.cluster, &reserved.id, error).await),
        }
    }

    /// Makes a dump exist.
    pub async fn commit(&self, prepared: PreparedDump) -> anyhow::Result<DumpManifest> {
        let PreparedDump {
            manifest,
            tables,
            _reserved,
        } = prepared;
        let (cluster, id) = (self.cluster, &manifest.id);
        if let Err(error) = commit(cluster, &manifest, &tables).await {
            return Err(give_up(cluster, id, error).await);
        }
        if let Err(error) = latest::update(cluster, id.database(), id.kind(), &[]).await {
            tracing::warn!(
                "the dump is complete, but what names the latest one is not set: {}",
                one_line(&error)
            );
        }
        Ok(manifest)
    }

    /// Removes what was stored of a dump that is not to be; `error` says why.
    pub async fn give_up(&self, prepared: PreparedDump, error: anyhow::Error) -> anyhow::Error {
        give_up(self.cluster, &prepared.manifest.id, error).await
    }

    fn connection(
        &self,
        session: &SnapshotSession,
        database: &str,
    ) -> anyhow::Result<ProgramConnection> {
        match self.settings.dsn.expose() {
            "" => Ok(session.info.for_programs(session.server(), database)),
            dsn => ProgramConnection::elsewhere(dsn, database).context("`dump.dsn` cannot be read"),
        }
    }

    fn check_request(&self, programs: &Programs) -> anyhow::Result<()> {
        if self.request.format == DumpFormat::Directory && programs.are_elsewhere() {
            let error = anyhow!(
                "with `dump.command_prefix` the files of the directory format would lie elsewhere"
            );
            return Err(with_hint(error, "take the dump in custom format"));
        }
        Ok(())
    }
}

fn not_dumped(database: &str) -> String {
    format!("database \"{database}\" is not dumped")
}

/// The work, unless somebody asks for the end.
async fn or_stop<T>(
    stop: &mut watch::Receiver<bool>,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::select! {
        done = work => done,
        // Without a sender nobody can ask.
        () = async { if stop.wait_for(|stop| *stop).await.is_err() { std::future::pending().await } } => Err(Interrupted.into()),
    }
}

/// Removes what a failed dump has stored; the error says what became of it.
async fn give_up(cluster: &Cluster, id: &DumpId, error: anyhow::Error) -> anyhow::Error {
    match discard(cluster, id).await {
        Ok(true) => error,
        Ok(false) => error.context(format!("the dump {id} is complete all the same")),
        Err(left) => {
            tracing::warn!(
                "what is left of the dump {id} is removed by a later one: {}",
                one_line(&left)
            );
            error
        }
    }
}
