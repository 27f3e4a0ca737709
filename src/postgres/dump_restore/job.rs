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
use super::needs::{DumpContent, RestoreOptions, map_roles};
use super::outcome::Parties;
use super::phases::{Phase, PhaseName, Phases};
use super::program::{Feed, run};
use super::properties::DatabaseProperties;
use super::source::{DumpForm, DumpSource, ScriptText, rewrite};
use super::swap::{Replaced, put_in_place, take_out};
use super::target::{self, TargetFacts};
use super::toc::Toc;
use crate::error::one_line;
use crate::postgres::catalog::marks::{Mark, MarkRole, building_name, kept_name};
use crate::postgres::dump::manifest::DatabaseFacts;
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
    /// Of the dump's database, as a manifest tells them.
    pub facts: Option<&'a DatabaseFacts>,
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

/// What a restore made so far.
#[derive(Debug, Default)]
struct Made {
    /// OID of the new database.
    oid: Option<u32>,
    ended_connections: u64,
}

/// A copy of a dump with its roles mapped.
struct MappedDump {
    toc: Box<Toc>,
    /// What the copy lies in.
    folder: Spool,
    path: PathBuf,
}

/// The two names.
struct Names {
    building: String,
    replaced: Option<Replaced>,
}

impl RestoreJob<'_> {
    /// Does it. Errors: what failed, and in what state everything is.
    pub async fn restore(&self, phases: &mut Phases) -> anyhow::Result<DumpRestored> {
        let names = self.names()?;
        let mut guard = target::connect(self.info, &self.plan.database, &names.building).await?;
        let (removed_leftovers, mut notes) = building::sweep(&mut guard).await?;
        notes.splice(..0, self.plan.notes.iter().cloned());
        let mut made = Made::default();
        if let Err(error) = self.build(&mut guard, &names, phases, &mut made).await {
            drop(guard);
            let failure = one_line(&error);
            guard = self.settle(error, &names, phases, &made).await?;
            notes.push(format!(
                "the restore is complete, although its last step failed: {failure}"
            ));
        }
        let mut restored = DumpRestored {
            database: self.plan.database.clone(),
            kept_as: names.replaced.map(|replaced| replaced.mark.name),
            ended_connections: made.ended_connections,
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

    /// What became of a restore that failed.
    async fn settle(
        &self,
        error: anyhow::Error,
        names: &Names,
        phases: &Phases,
        made: &Made,
    ) -> anyhow::Result<Connection> {
        let parties = Parties {
            database: &self.plan.database,
            old: self.target.existing.as_ref().map(|existing| existing.oid),
            building: &names.building,
            new: made.oid,
        };
        let may_be_complete = phases.current() == Some(PhaseName::Swap);
        parties.settle(self.info, error, may_be_complete).await
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

    /// Up to the swap.
    async fn build(
        &self,
        guard: &mut Connection,
        names: &Names,
        phases: &mut Phases,
        made: &mut Made,
    ) -> anyhow::Result<()> {
        let building = names.building.as_str();
        phases.begin(PhaseName::Create);
        let mapped = self.mapped().await?;
        let properties = self.properties(mapped.as_ref(), building).await?;
        let mark = Mark {
            role: MarkRole::Building,
            name: building.to_string(),
            of: self.plan.database.clone(),
            since: Utc::now(),
        };
        made.oid = Some(building::create(guard, &mark, &properties).await?);
        phases.begin(PhaseName::Fill);
        let path = mapped
            .as_ref()
            .map_or(self.source.path.as_path(), |mapped| &mapped.path);
        let listed = self.list_file(mapped.as_ref().map(|mapped| &mapped.folder))?;
        let (command, feed) =
            self.command(building, path, listed.as_ref().map(|(_, path)| path))?;
        let filling = run(command, feed, self.interrupted());
        while_beating(HEARTBEAT, filling, async || {
            guard.question("SELECT 1").await.map(drop)
        })
        .await?;
        building::complete(guard, &properties).await?;
        phases.begin(PhaseName::EndConnections);
        self.check_stop()?;
        let mut helper = target::connect(self.info, &self.plan.database, building).await?;
        let replaced = names.replaced.as_ref();
        made.ended_connections = take_out(guard, &mut helper, building, replaced).await?;
        phases.begin(PhaseName::Swap);
        let database = self.plan.database.as_str();
        put_in_place(guard, &mut helper, building, database, &properties).await
    }

    /// Where roles are mapped, a copy of the dump with another table of contents.
    async fn mapped(&self) -> anyhow::Result<Option<MappedDump>> {
        let DumpContent::Archive(toc) = &self.source.content else {
            return Ok(None);
        };
        if self.options.role_map.is_empty() {
            return Ok(None);
        }
        let mut toc = toc.clone();
        if !map_roles(&mut toc, &self.options.role_map) {
            return Ok(None);
        }
        let place = self.source.place();
        let copied = match place.form {
            DumpForm::Directory => place.toc_bytes,
            _ => self.source.bytes,
        };
        let folder = spool_for(self.spool, copied)?;
        let path = folder.path().join("dump");
        let write = move || rewrite(&place, &mut toc, &path).map(|()| (toc, path));
        let written = tokio::task::spawn_blocking(write).await?;
        let (toc, path) = written.context("cannot write the dump with its roles mapped")?;
        Ok(Some(MappedDump { toc, folder, path }))
    }

    /// What the dump says of its database as a whole; a script on disk says nothing: then it stays as it was.
    async fn properties(
        &self,
        mapped: Option<&MappedDump>,
        building: &str,
    ) -> anyhow::Result<DatabaseProperties> {
        let own = match &self.source.content {
            DumpContent::Archive(toc) => Some(toc),
            DumpContent::Script(_) => None,
        };
        if let Some(toc) = mapped.map(|mapped| &mapped.toc).or(own) {
            return Ok(self.of_archive(toc, building));
        }
        if let Some(facts) = self.facts {
            return Ok(DatabaseProperties::of_manifest(
                facts,
                building,
                self.target,
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
        Ok(self.of_archive(&toc, building))
    }

    fn of_archive(&self, toc: &Toc, building: &str) -> DatabaseProperties {
        DatabaseProperties::of_archive(toc, self.options, building, self.target)
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

    /// Completes when somebody asked to give the work up.
    async fn interrupted(&self) -> anyhow::Error {
        let mut stop = self.stop.clone();
        match stop.wait_for(|stop| *stop).await {
            Ok(_) => interrupted(),
            Err(_) => std::future::pending().await,
        }
    }

    fn check_stop(&self) -> anyhow::Result<()> {
        match *self.stop.borrow() {
            true => Err(interrupted()),
            false => Ok(()),
        }
    }
}

/// Works, and meanwhile has the guarding session used. A beat under way is never dropped: its answer would be taken for that of
/// the next statement. Errors: the work's, or the server is gone.
async fn while_beating<T>(
    every: Duration,
    work: impl Future<Output = anyhow::Result<T>>,
    mut beat: impl AsyncFnMut() -> anyhow::Result<()>,
) -> anyhow::Result<T> {
    tokio::pin!(work);
    let mut worked = None;
    loop {
        tokio::select! {
            worked = &mut work => return worked,
            () = tokio::time::sleep(every) => {}
        }
        let beaten = {
            let beat = beat();
            tokio::pin!(beat);
            loop {
                tokio::select! {
                    done = &mut work, if worked.is_none() => worked = Some(done),
                    beaten = &mut beat => break beaten,
                }
            }
        };
        let beaten = beaten.context("lost the server");
        match worked {
            Some(worked) => return worked.and_then(|done| beaten.map(|()| done)),
            None => beaten?,
        }
    }
}

fn interrupted() -> anyhow::Error {
    anyhow!("interrupted")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const EVERY: Duration = Duration::from_millis(1);

    /// Waits for another future of the same task.
    async fn until(is_so: impl Fn() -> bool) {
        while !is_so() {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(EVERY).await;
    }

    #[tokio::test]
    async fn a_beat_under_way_is_let_end_when_the_work_is_done() {
        let (begun, worked, ended) = (Cell::new(false), Cell::new(false), Cell::new(false));
        let beat = async || {
            begun.set(true);
            until(|| worked.get()).await;
            ended.set(true);
            Ok(())
        };
        let work = async {
            until(|| begun.get()).await;
            worked.set(true);
            Ok("done")
        };
        assert_eq!(while_beating(EVERY, work, beat).await.unwrap(), "done");
        assert!(ended.get());
    }

    #[tokio::test]
    async fn a_lost_server_ends_the_work_and_failed_work_says_why_itself() {
        let lost = async || Err(anyhow!("gone"));
        let work = std::future::pending::<anyhow::Result<()>>();
        let error = while_beating(EVERY, work, lost).await.unwrap_err();
        assert_eq!(one_line(&error), "lost the server: gone");
        let (begun, worked) = (Cell::new(false), Cell::new(false));
        let late = async || {
            begun.set(true);
            until(|| worked.get()).await;
            Err(anyhow!("gone"))
        };
        let work = async {
            until(|| begun.get()).await;
            worked.set(true);
            Err::<(), _>(anyhow!("no such type"))
        };
        let error = while_beating(EVERY, work, late).await.unwrap_err();
        assert_eq!(one_line(&error), "no such type");
    }
}
