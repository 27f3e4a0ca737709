//! One dump, once its name is reserved: what is stored in which order, and when it exists.

use std::pin::pin;
use std::sync::Arc;

use anyhow::anyhow;
use chrono::{DateTime, Utc};

use super::command::{self, DumpRequest};
use super::contained::Contained;
use super::directory;
use super::facts::SnapshotSession;
use super::manifest::{
    DatabaseFacts, DrilledServer, DumpManifest, DumpOptions, Extension, Globals, Snapshot,
    StoredObject, TableEntry,
};
use super::messages::ProgramFailed;
use super::output::{OutputKind, StoreOutput, store};
use super::programs::Programs;
use super::progress::DumpProgress;
use super::read_back;
use super::spool::Spool;
use super::started::taken_for_abandoned;
use crate::config;
use crate::error::{find, with_hint};
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::{DumpFormat, DumpId, DumpObject};
use crate::postgres::replication::conninfo::ProgramConnection;
use crate::postgres::types::Lsn;
use crate::repo::PutSealed;
use crate::storage::{PutMode, PutOutcome};

/// Tries in a snapshot of our own: where a table goes before `pg_dump` has locked it, it fails.
const OWN_SNAPSHOTS: u32 = 3;
/// Tries in all. In the others `pg_dump` takes the snapshot itself, a moment before it locks.
const TRIES: u32 = 10;

/// A dump being taken.
pub(super) struct OneDump<'a> {
    pub cluster: &'a Cluster,
    pub settings: &'a config::Dump,
    pub request: &'a DumpRequest,
    pub progress: &'a Arc<DumpProgress>,
    pub id: DumpId,
    pub started_at: DateTime<Utc>,
    pub programs: Programs,
    pub connection: ProgramConnection,
    /// The server is one that a drill restored.
    pub drilled: Option<&'a Drilled>,
}

/// A server that a drill restored, and what it shows of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drilled {
    pub server: DrilledServer,
    /// Everything before was replayed.
    pub lsn: Lsn,
    /// Everything that was committed by then is there.
    pub until: DateTime<Utc>,
}

/// What the server says of the database in a snapshot.
struct Facts {
    snapshot: Snapshot,
    database: DatabaseFacts,
    roles: Vec<String>,
    tablespaces: Vec<String>,
    extensions: Vec<Extension>,
    tables: Vec<TableEntry>,
}

type StoredContent = (Vec<StoredObject>, Option<Contained>);

impl OneDump<'_> {
    /// Takes it, from the globals on; all but the manifest is stored then.
    pub async fn take(
        &self,
        session: &mut SnapshotSession,
    ) -> anyhow::Result<(DumpManifest, Vec<TableEntry>)> {
        let globals = match self.settings.globals {
            true => Some(self.globals(session).await?),
            false => None,
        };
        let (content, facts) = self.content(session).await?;
        self.put_checksums(&content.0).await?;
        let (manifest, tables) = self.manifest(session, content, facts, globals);
        self.progress
            .now(format!("{}: reading back", self.id.database()));
        let faults = read_back::check(
            self.cluster,
            &manifest,
            Some(&self.programs),
            &DumpProgress::default(),
        )
        .await?;
        if let Some(error) = read_back::error(&self.id, &faults) {
            return Err(with_hint(
                error,
                "check the repository's disk or server, then take the dump again",
            ));
        }
        Ok((manifest, tables))
    }

    fn output(&self, object: &DumpObject, kind: OutputKind) -> StoreOutput<'_> {
        StoreOutput {
            storage: self.cluster.repository.storage(),
            key: self.cluster.layout.dump(&self.id, object),
            path: object.path(self.id.name()),
            kind,
            md5: self.settings.md5,
            progress: self.progress,
        }
    }

    async fn globals(&self, session: &SnapshotSession) -> anyhow::Result<Globals> {
        let passwords = self.settings.role_passwords && session.sees_passwords;
        if self.settings.role_passwords && !passwords {
            tracing::warn!(
                "the role \"{}\" may not read pg_authid: the globals go without the roles' passwords. HINT: dump as a \
                 superuser, or set `dump.role_passwords = false`",
                session.info.user
            );
        }
        let command = command::globals(
            &self.programs,
            &self.connection,
            self.id.database(),
            passwords,
        );
        let to = self.output(&DumpObject::Globals, OutputKind::Globals);
        let stored = store(self.programs.name("pg_dumpall"), command, to).await;
        Ok(Globals {
            object: stored.map_err(explained)?.0,
            passwords,
        })
    }

    /// Dumps, again where the database changed in the middle.
    async fn content(
        &self,
        session: &mut SnapshotSession,
    ) -> anyhow::Result<(StoredContent, Facts)> {
        let mut tries = 1;
        loop {
            let tried = match tries <= OWN_SNAPSHOTS {
                true => self.in_own_snapshot(session).await,
                false => self.in_its_snapshot(session).await,
            };
            let error = match tried {
                Ok(stored) => return Ok(stored),
                Err(error) => error,
            };
            match find::<ProgramFailed>(&error)
                .filter(|failed| failed.met_a_change() && tries < TRIES)
            {
                Some(failed) => tracing::info!(
                    "the database changed while pg_dump began, it begins again: {failed}"
                ),
                None => return Err(explained(error)),
            }
            tries += 1;
        }
    }

    /// Everything that the manifest says was so in the dump's own snapshot.
    async fn in_own_snapshot(
        &self,
        session: &mut SnapshotSession,
    ) -> anyhow::Result<(StoredContent, Facts)> {
        let snapshot = session.snapshot().await?;
        let name = snapshot.name.clone();
        let mut asking = pin!(gather(session, snapshot));
        let mut dumping = pin!(self.dump(Some(&name)));
        let dumped = tokio::select! {
            facts = &mut asking => {
                let facts = facts?;
                return Ok((dumping.await?, facts));
            }
            dumped = &mut dumping => dumped,
        };
        // Also after a failure: the next try needs the session, and no answer may be under way there.
        let facts = asking.await;
        Ok((dumped?, facts?))
    }

    /// `pg_dump`'s snapshot is older than what is asked afterwards.
    async fn in_its_snapshot(
        &self,
        session: &mut SnapshotSession,
    ) -> anyhow::Result<(StoredContent, Facts)> {
        let content = self.dump(None).await?;
        let mut snapshot = session.snapshot().await?;
        snapshot.name.clear();
        Ok((content, gather(session, snapshot).await?))
    }

    async fn dump(&self, snapshot: Option<&str>) -> anyhow::Result<StoredContent> {
        self.progress
            .begin(format!("{}: pg_dump begins", self.id.database()));
        let (request, name) = (self.request, self.programs.name("pg_dump"));
        let command = |folder| {
            command::pg_dump(
                &self.programs,
                &self.connection,
                self.settings,
                request,
                snapshot,
                folder,
            )
        };
        let kind = match request.format {
            DumpFormat::Custom => OutputKind::Archive,
            DumpFormat::Plain => OutputKind::Script(self.settings.compression_level),
            DumpFormat::Directory => {
                let spool = Spool::make(self.settings.spool.as_deref())?;
                let folder = spool.path().join("dump");
                directory::write(name, command(Some(&folder)), self.progress).await?;
                return directory::store(
                    self.cluster,
                    &self.id,
                    &folder,
                    self.settings.md5,
                    self.progress,
                )
                .await;
            }
        };
        let to = self.output(&DumpObject::Whole(request.format), kind);
        let (object, contained) = store(name, command(None), to).await?;
        Ok((vec![object], contained))
    }

    /// Files that `sha256sum -c` and `md5sum -c` take.
    async fn put_checksums(&self, objects: &[StoredObject]) -> anyhow::Result<()> {
        let lines = |digest: fn(&StoredObject) -> Option<String>| -> String {
            let line =
                |object: &StoredObject| Some(format!("{}  {}\n", digest(object)?, object.path));
            objects.iter().filter_map(line).collect()
        };
        let sha256 = lines(|object| Some(object.sha256.to_string()));
        self.put(DumpObject::Sha256(self.request.format), sha256)
            .await?;
        if self.settings.md5 {
            let md5 = lines(|object| Some(object.md5?.to_string()));
            self.put(DumpObject::Md5(self.request.format), md5).await?;
        }
        Ok(())
    }

    async fn put(&self, object: DumpObject, content: String) -> anyhow::Result<()> {
        let key = self.cluster.layout.dump(&self.id, &object);
        let put = self
            .cluster
            .repository
            .storage()
            .put(&key, content.into(), PutMode::CreateOnly);
        match put.await? {
            PutOutcome::Stored => Ok(()),
            PutOutcome::AlreadyExists => Err(anyhow!("object \"{key}\" is there already")),
        }
    }

    fn manifest(
        &self,
        session: &SnapshotSession,
        (objects, contained): StoredContent,
        facts: Facts,
        globals: Option<Globals>,
    ) -> (DumpManifest, Vec<TableEntry>) {
        let options = self.request.options.clone();
        let snapshot = match self.drilled {
            // Its own clock and WAL tell nothing of the source.
            Some(Drilled { lsn, until, .. }) => Snapshot {
                lsn: *lsn,
                time: *until,
                ..facts.snapshot
            },
            None => facts.snapshot,
        };
        let tables = in_dump(facts.tables, contained.as_ref(), &options);
        let manifest = DumpManifest {
            id: self.id.clone(),
            system_identifier: self.cluster.description.system_identifier,
            kind: self.request.kind,
            format: self.request.format,
            started_at: self.started_at,
            finished_at: Utc::now(),
            snapshot,
            drill: self.drilled.map(|drilled| drilled.server.clone()),
            server_version: session.version.clone(),
            server_version_num: session.version_num,
            pg_dump_version: self.programs.version.clone(),
            database: facts.database,
            roles: facts.roles,
            tablespaces: facts.tablespaces,
            extensions: facts.extensions,
            options,
            objects,
            globals,
            tables: tables.iter().filter(|table| table.has_rows).count() as u64,
        };
        (manifest, tables)
    }
}

/// The dump exists from here on, unless somebody took it for abandoned meanwhile.
pub(super) async fn commit(
    cluster: &Cluster,
    manifest: &DumpManifest,
    tables: &[TableEntry],
) -> anyhow::Result<()> {
    let (repository, layout, id) = (&cluster.repository, &cluster.layout, &manifest.id);
    let (key, started) = (
        layout.dump(id, &DumpObject::Manifest),
        layout.dump(id, &DumpObject::Started),
    );
    match repository.put_sealed(&key, &manifest.seal(tables)?).await? {
        PutSealed::Stored | PutSealed::SameContent => (),
        PutSealed::OtherContent(_) => return Err(anyhow!("object \"{key}\" is there already")),
    }
    if repository.storage().head(&started).await?.is_none() {
        repository.storage().delete(&key).await?;
        return Err(taken_for_abandoned(id));
    }
    if let Err(error) = repository.storage().delete(&started).await {
        tracing::warn!("the dump is complete, but its reservation is left: {error}");
    }
    Ok(())
}

/// The error of a program with its next step.
fn explained(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<ProgramFailed>() {
        Ok(failed) => failed.with_hint(),
        Err(error) => error,
    }
}

async fn gather(session: &mut SnapshotSession, snapshot: Snapshot) -> anyhow::Result<Facts> {
    Ok(Facts {
        database: session.database().await?,
        roles: session.roles().await?,
        tablespaces: session.tablespaces().await?,
        extensions: session.extensions().await?,
        tables: session.tables().await?,
        snapshot,
    })
}

/// The tables that a dump holds something of. Where nothing is known of its content, those of the database.
fn in_dump(
    tables: Vec<TableEntry>,
    contained: Option<&Contained>,
    options: &DumpOptions,
) -> Vec<TableEntry> {
    let Some(contained) = contained else {
        return if options.is_partial() {
            Vec::new()
        } else {
            tables
        };
    };
    let entry = |table: TableEntry| {
        let has_rows = contained.has(&table)?;
        Some(TableEntry { has_rows, ..table })
    };
    tables.into_iter().filter_map(entry).collect()
}
