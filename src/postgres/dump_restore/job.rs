//! Carries a decided restore out: builds the new database, fills it, swaps it in. What fails before the swap leaves the old one
//! as it was.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, anyhow};
use chrono::Utc;
use serde::Serialize;
use tokio::process::Command;
use tokio::sync::watch;

use super::building;
use super::decide::RestorePlan;
use super::files::{new_file, spool_for};
use super::kept::drop_kept;
use super::marks::{Mark, MarkRole, building_name, kept_name};
use super::needs::{DumpContent, RestoreOptions, map_roles};
use super::phases::{Phase, PhaseName, Phases};
use super::program::{Feed, run};
use super::properties::DatabaseProperties;
use super::source::{DumpForm, DumpSource, ScriptText, rewrite};
use super::swap::{Replaced, put_in_place, take_out};
use super::target::{self, TargetFacts};
use super::toc::Toc;
use crate::error::{Hint, one_line};
use crate::postgres::dump::manifest::DumpManifest;
use crate::postgres::dump::spool::Spool;
use crate::postgres::replication::{ConnInfo, Connection};

/// How often the guarding session is used while the database is filled: so it is not cut off as idle, and a server that is gone
/// is noticed.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// A client program of the right major version, against a database of the server if one is named; the arguments come behind.
pub type StartProgram<'a> = &'a (dyn Fn(&str, Option<&str>) -> anyhow::Result<Command> + Sync);

/// Everything that a restore needs once it is decided.
pub struct RestoreJob<'a> {
    pub info: &'a ConnInfo,
    pub program: StartProgram<'a>,
    /// The program runs elsewhere and sees no file of this machine.
    pub is_remote: bool,
    pub source: &'a DumpSource,
    pub target: &'a TargetFacts,
    pub plan: &'a RestorePlan,
    pub options: &'a RestoreOptions,
    /// Of a dump of the repository.
    pub manifest: Option<&'a DumpManifest>,
    pub drop_old: bool,
    /// Where files may be put.
    pub spool: Option<&'a Path>,
    /// True: to be given up.
    pub stop: watch::Receiver<bool>,
}

/// What was done.
#[derive(Debug, Clone, Serialize)]
pub struct DumpRestored {
    pub database: String,
    /// The name under which the old one is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept_as: Option<String>,
    pub ended_connections: u64,
    pub jobs: u32,
    pub phases: Vec<Phase>,
    /// Databases that earlier restores had left half-made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub removed_leftovers: Vec<String>,
    pub notes: Vec<String>,
}

/// The two names.
struct Names {
    building: String,
    replaced: Option<Replaced>,
}

impl RestoreJob<'_> {
    /// Does it. Errors: what failed; the old database is in its place unless the error says something else.
    pub async fn restore(&self, phases: &mut Phases) -> anyhow::Result<DumpRestored> {
        let names = self.names()?;
        let mut guard = target::connect(self.info, &self.plan.database, &names.building).await?;
        let (removed_leftovers, mut notes) = building::sweep(&mut guard).await?;
        notes.splice(..0, self.plan.notes.iter().cloned());
        let built = self.build(&mut guard, &names, phases).await;
        let ended_connections = match built {
            Ok(ended) => ended,
            Err(error) => {
                drop(guard);
                return Err(self.give_up(error, &names, phases).await);
            }
        };
        let mut restored = DumpRestored {
            database: self.plan.database.clone(),
            kept_as: names.replaced.map(|replaced| replaced.mark.name),
            ended_connections,
            jobs: self.plan.jobs,
            phases: Vec::new(),
            removed_leftovers,
            notes,
        };
        if let Some(kept) = restored.kept_as.take_if(|_| self.drop_old) {
            phases.begin(PhaseName::DropOld);
            let dropped = drop_kept(&mut guard, &kept).await;
            dropped.context("the restore is complete, and the old database is still there")?;
        }
        restored.phases = phases.finish();
        Ok(restored)
    }

    fn names(&self) -> anyhow::Result<Names> {
        let building = building_name(getrandom::u64()?);
        let (database, now) = (&self.plan.database, Utc::now());
        let replaced = self.target.existing.as_ref().map(|existing| Replaced {
            mark: Mark {
                role: MarkRole::Replaced,
                name: kept_name(database, now, |name| self.target.databases.contains(name)),
                of: database.clone(),
                since: now,
            },
            comment: existing.comment.clone(),
        });
        Ok(Names { building, replaced })
    }

    /// Up to the swap; the number of ended connections.
    async fn build(
        &self,
        guard: &mut Connection,
        names: &Names,
        phases: &mut Phases,
    ) -> anyhow::Result<u64> {
        let building = names.building.as_str();
        phases.begin(PhaseName::Create);
        let (content, spool) = self.prepared().await?;
        let properties = self.properties(&content, building).await?;
        let mark = Mark {
            role: MarkRole::Building,
            name: building.to_string(),
            of: self.plan.database.clone(),
            since: Utc::now(),
        };
        building::create(guard, &mark, &properties).await?;
        phases.begin(PhaseName::Fill);
        let path = spool
            .as_ref()
            .map_or(self.source.path.as_path(), |(_, path)| path);
        let listed = self.list_file(spool.as_ref().map(|(folder, _)| folder))?;
        let (command, feed) =
            self.command(building, path, listed.as_ref().map(|(_, path)| path))?;
        run(command, feed, self.ended(guard)).await?;
        building::complete(guard, &properties).await?;
        phases.begin(PhaseName::EndConnections);
        self.check_stop()?;
        let mut helper = target::connect(self.info, &self.plan.database, building).await?;
        let replaced = names.replaced.as_ref();
        let ended = take_out(guard, &mut helper, building, replaced).await?;
        phases.begin(PhaseName::Swap);
        let database = self.plan.database.as_str();
        put_in_place(guard, &mut helper, building, database, &properties).await?;
        Ok(ended)
    }

    /// The content as it is restored; and, where roles are mapped, a copy of the dump with another table of contents.
    async fn prepared(&self) -> anyhow::Result<(DumpContent, Option<(Spool, PathBuf)>)> {
        let mut content = self.source.content.clone();
        let changed = match &mut content {
            DumpContent::Archive(toc) => map_roles(toc, &self.options.role_map),
            DumpContent::Script(_) => false,
        };
        let DumpContent::Archive(toc) = &content else {
            return Ok((content, None));
        };
        if !changed {
            return Ok((content, None));
        }
        let copied = match self.source.form {
            DumpForm::Directory => self.source.toc_bytes,
            _ => self.source.bytes,
        };
        let folder = spool_for(self.spool, copied)?;
        let (source, toc, path) = (self.source.clone(), toc.clone(), folder.path().join("dump"));
        let write = move || rewrite(&source, &toc, &path).map(|()| path);
        let path = tokio::task::spawn_blocking(write).await?;
        let path = path.context("cannot write the dump with its roles mapped")?;
        Ok((content, Some((folder, path))))
    }

    /// What the dump says of its database as a whole; a script on disk says nothing: then it stays as it was.
    async fn properties(
        &self,
        content: &DumpContent,
        building: &str,
    ) -> anyhow::Result<DatabaseProperties> {
        if let DumpContent::Archive(toc) = content {
            let roles = &self.target.roles;
            return Ok(DatabaseProperties::of_archive(
                toc,
                self.options,
                building,
                roles,
            ));
        }
        if let Some(manifest) = self.manifest {
            return Ok(DatabaseProperties::of_manifest(
                &manifest.database,
                building,
            ));
        }
        if self.target.existing.is_none() {
            return Ok(DatabaseProperties::default_of(building));
        }
        let mut command = (self.program)("pg_dump", Some(&self.plan.database))?;
        command.args(["--format=custom", "--schema-only", "--exclude-schema=*"]);
        let output = command
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let database = &self.plan.database;
            return Err(anyhow!(
                "pg_dump does not tell the properties of \"{database}\": {}",
                said.trim()
            ));
        }
        let (toc, _) = Toc::read(output.stdout.as_slice())?;
        Ok(DatabaseProperties::of_archive(
            &toc,
            self.options,
            building,
            &self.target.roles,
        ))
    }

    /// A file with the identifiers of the chosen entries, and the folder that holds it.
    fn list_file(
        &self,
        folder: Option<&Spool>,
    ) -> anyhow::Result<Option<(Option<Spool>, PathBuf)>> {
        use std::io::Write;
        let (Some(chosen), DumpContent::Archive(toc)) = (&self.plan.chosen, &self.source.content)
        else {
            return Ok(None);
        };
        let own = match folder {
            Some(_) => None,
            None => Some(spool_for(self.spool, 0)?),
        };
        let path = own
            .as_ref()
            .or(folder)
            .map(|folder| folder.path().join("list"));
        let path = path.context("no folder for files")?;
        let ids = toc
            .entries
            .iter()
            .map(|entry| entry.id)
            .filter(|id| chosen.contains(id));
        let text: String = ids.map(|id| format!("{id};\n")).collect();
        new_file(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("cannot write \"{}\"", path.display()))?;
        Ok(Some((own, path)))
    }

    fn command(
        &self,
        building: &str,
        path: &Path,
        list: Option<&PathBuf>,
    ) -> anyhow::Result<(Command, Feed)> {
        let options = self.options;
        if let DumpForm::Script(compression) = self.source.form {
            let mut command = (self.program)("psql", Some(building))?;
            command.args([
                "--no-psqlrc",
                "--quiet",
                "--set=ON_ERROR_STOP=1",
                "--file=-",
            ]);
            if options.single_transaction {
                command.arg("--single-transaction");
            }
            return Ok((command, Feed::Script(ScriptText::open(path, compression)?)));
        }
        let mut command = (self.program)("pg_restore", Some(building))?;
        command.arg("--exit-on-error");
        let flags = [
            ("--single-transaction", options.single_transaction),
            ("--schema-only", options.schema_only),
            ("--no-owner", options.no_owner),
            ("--no-privileges", options.no_privileges),
            ("--no-tablespaces", options.no_tablespaces),
        ];
        command.args(flags.iter().filter(|(_, set)| *set).map(|(flag, _)| flag));
        if self.plan.jobs > 1 {
            command.arg(format!("--jobs={}", self.plan.jobs));
        }
        if let Some(list) = list {
            command.arg("--use-list").arg(list);
        }
        if self.is_remote {
            return Ok((command, Feed::File(File::open(path)?)));
        }
        command.arg(path);
        Ok((command, Feed::Nothing))
    }

    /// Completes when the work is to be given up: somebody asked for it, or the server is gone.
    async fn ended(&self, guard: &mut Connection) -> anyhow::Error {
        let mut stop = self.stop.clone();
        let beats = async {
            loop {
                tokio::time::sleep(HEARTBEAT).await;
                if let Err(error) = guard.question("SELECT 1").await {
                    return error.context("lost the server");
                }
            }
        };
        tokio::select! {
            asked = stop.wait_for(|stop| *stop) => match asked {
                Ok(_) => interrupted(),
                Err(_) => std::future::pending().await,
            },
            error = beats => error,
        }
    }

    fn check_stop(&self) -> anyhow::Result<()> {
        match *self.stop.borrow() {
            true => Err(interrupted()),
            false => Ok(()),
        }
    }

    /// Removes what was built, and says in what state everything is.
    async fn give_up(&self, error: anyhow::Error, names: &Names, phases: &Phases) -> anyhow::Error {
        let (database, building) = (&self.plan.database, &names.building);
        let state = match names.replaced {
            Some(_) => format!("database \"{database}\" is as it was"),
            None => format!("there is no database \"{database}\""),
        };
        let is_swapping = phases.current() == Some(PhaseName::Swap);
        match building::discard(self.info, building).await {
            Ok(true) => error.context(format!("the restore failed; {state}")),
            // COMMIT was sent, and its answer is lost.
            Ok(false) if is_swapping => error.context(format!(
                "the restore may be complete: see which database \"{database}\" is"
            )),
            Ok(false) => error.context(format!("the restore failed; {state}")),
            Err(left) => {
                let why = one_line(&left);
                let told = error.context(format!(
                    "the restore failed; {state}; the unfinished database \"{building}\" cannot be removed: {why}"
                ));
                Err::<(), _>(told)
                    .hint("the next restore removes it, or `walden dump drop-old`")
                    .unwrap_err()
            }
        }
    }
}

fn interrupted() -> anyhow::Error {
    anyhow!("interrupted")
}
