//! A drill of a dump: into a server that is made for it.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::anyhow;
use chrono::Utc;
use serde_json::json;
use tokio::sync::watch;

use super::asserts::Assert;
use super::known::Known;
use super::look::Look;
use super::made::{SUPERUSER, made};
use super::report::DrillReport;
use super::restored::private_socket;
use super::run::Frame;
use super::scratch::Scratch;
use super::tables::ManifestTables;
use super::verdict::{At, Ended, Stage};
use crate::config::{self, Settings};
use crate::error::{one_line, with_hint};
use crate::evidence::record::Verdict;
use crate::postgres::cluster::Cluster;
use crate::postgres::dump::list::list;
use crate::postgres::dump::manifest::{self, DumpManifest};
use crate::postgres::dump::programs::Programs;
use crate::postgres::dump::proof::{DumpProof, record};
use crate::postgres::dump_restore::decide::Reason;
use crate::postgres::dump_restore::job::RestoreJob;
use crate::postgres::dump_restore::needs::{DumpContent, RestoreOptions};
use crate::postgres::dump_restore::phases::Phases;
use crate::postgres::dump_restore::repository::{FetchedDump, cold, fetch, lease, newest};
use crate::postgres::dump_restore::source::{DumpSource, open};
use crate::postgres::dump_restore::sql::quoted;
use crate::postgres::dump_restore::target::{ask, connect, gather};
use crate::postgres::dump_restore::validate::{Wanted, against};
use crate::postgres::layout::{DumpId, DumpKind};
use crate::postgres::replication::ConnInfo;
use crate::postgres::restore::start::Recovered;
use crate::postgres::restore::{programs, refuse_cold};
use crate::postgres::types::MajorVersion;

/// Connections that load data.
const JOBS: u32 = 4;

/// What is asked for.
#[derive(Debug)]
pub struct DumpDrill {
    pub database: String,
    /// Any dump of the database, chosen by this number; `None`: the newest.
    pub random: Option<u64>,
    pub asserts: Vec<Assert>,
    /// Leave the server's folder there, stopped.
    pub keep: bool,
}

/// Restores a dump, looks, and removes what it made; interrupted when `stop` completes. Whatever goes wrong is a verdict.
/// Errors: there is no dump of which one could be chosen.
pub async fn run(
    settings: &Settings,
    cluster: &Cluster,
    asked: &DumpDrill,
    stop: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<DrillReport> {
    let frame = Frame {
        settings,
        cluster,
        keep: asked.keep,
    };
    let mut proven = None;
    let work = async |scratch: &Scratch, report: &mut DrillReport| {
        let drill = Drill {
            settings,
            cluster,
            asked,
            scratch,
        };
        proven = Some(drill.run(report).await?);
        Ok(())
    };
    let report = frame.run(stop, work).await?;
    if let Some((id, proof)) = proven.filter(|_| report.verdict == Verdict::Passed)
        && let Err(error) = record(cluster, &id, &proof).await
    {
        let why = one_line(&error);
        tracing::warn!("that the dump was proven by this drill is not recorded: {why}");
    }
    Ok(report)
}

struct Drill<'a> {
    settings: &'a Settings,
    cluster: &'a Cluster,
    asked: &'a DumpDrill,
    scratch: &'a Scratch,
}

/// A server that was made for a dump.
struct Server {
    recovered: Recovered,
    info: ConnInfo,
    programs: Programs,
}

impl Drill<'_> {
    async fn run(&self, report: &mut DrillReport) -> Result<(DumpId, DumpProof), Ended> {
        private_socket(&self.scratch.data()).at(Stage::Prepare)?;
        let begun = Instant::now();
        let manifest = self.choose().await?;
        report.phase("plan", begun.elapsed().as_secs_f64());
        tell(report, &manifest);
        let lease = lease(self.cluster, &manifest.id).await.at(Stage::Plan)?;
        let work = self.restore_and_look(&manifest, report);
        let done = match &lease {
            Some(lease) => lease.while_held(work).await,
            None => work.await,
        };
        if let Some(lease) = lease {
            lease.release().await;
        }
        Ok((manifest.id.clone(), done?))
    }

    async fn choose(&self) -> Result<DumpManifest, Ended> {
        let (cluster, database) = (self.cluster, &self.asked.database);
        let Some(number) = self.asked.random else {
            let newest = newest(cluster, database, None, false).await;
            return newest.at(Stage::Plan);
        };
        let listed = list(cluster, Some(database)).await;
        let mut dumps = listed.map_err(Into::into).at(Stage::Plan)?.complete;
        dumps.retain(|dump| dump.id.kind() == DumpKind::Full && !dump.id.name().is_partial());
        let at = number.checked_rem(dumps.len() as u64).ok_or_else(|| {
            let error = anyhow!("there is no complete dump of all of database \"{database}\"");
            let hint = "`walden dump list` shows what there is";
            Ended(Stage::Refused, with_hint(error, hint))
        })?;
        let id = &dumps[at as usize].id;
        let read = manifest::read(cluster, id).await;
        let read = read.map_err(Into::into).at(Stage::Plan)?;
        let gone = || anyhow!("dump \"{id}\" was deleted meanwhile");
        read.ok_or_else(gone).at(Stage::Prepare)
    }

    async fn restore_and_look(
        &self,
        manifest: &DumpManifest,
        report: &mut DrillReport,
    ) -> Result<DumpProof, Ended> {
        let begun = Instant::now();
        let (source, _fetched) = self.read(manifest).await?;
        let expected = ManifestTables::read(self.cluster, &manifest.id).await;
        let expected = expected.at(Stage::Files)?;
        report.phase("read", begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        let server = self.serve(manifest, &source).await?;
        report.phase("server", begun.elapsed().as_secs_f64());
        let version = self.fill(manifest, &source, &server, report).await?;
        let look = Look {
            settings: self.settings,
            asserts: &self.asked.asserts,
            data: &self.scratch.data(),
            recovered: &server.recovered,
            known: &Known::default(),
            database: Some((&self.asked.database, &expected)),
        };
        look.at_all(Some(SUPERUSER.into()), report).await?;
        Ok(DumpProof {
            proven_at: Utc::now(),
            server_version: version,
            restored_as: self.asked.database.clone(),
        })
    }

    /// All of the dump, compared with its digests.
    async fn read(&self, manifest: &DumpManifest) -> Result<(DumpSource, FetchedDump), Ended> {
        let folder = self.settings.repository.url.folder();
        if folder.is_none() {
            let cold = cold(self.cluster, manifest).await.at(Stage::Plan)?;
            refuse_cold(&format!("dump \"{}\"", manifest.id), &cold).at(Stage::Prepare)?;
        }
        let spool = Some(self.scratch.path());
        let fetched = fetch(self.cluster, manifest, folder, spool).await;
        let fetched = fetched.at(Stage::Files)?;
        let path = fetched.path.clone();
        let opened = tokio::task::spawn_blocking(move || open(&path)).await;
        let source = opened.map_err(Into::into).and_then(|source| source);
        Ok((source.at(Stage::Files)?, fetched))
    }

    /// Makes a server of the dump's major, or of the newer one of its `pg_dump`: no older server takes what that wrote.
    async fn serve(&self, manifest: &DumpManifest, source: &DumpSource) -> Result<Server, Ended> {
        let major = (manifest.server_version_num / 10_000)
            .max(source.content.program_major().unwrap_or_default());
        let server = async {
            let major = MajorVersion::new(major)?;
            let folder = programs::find(major, self.settings.drill.programs.as_deref())?;
            let own = config::Dump {
                programs: Some(folder.clone()),
                command_prefix: Vec::new(),
                ..self.settings.dump.clone()
            };
            let programs = Programs::find(&own, major).await?;
            let server = made(self.settings, self.scratch, &folder, major).await?;
            anyhow::Ok((server, programs))
        };
        let (recovered, programs) = server.await.at(Stage::Prepare)?;
        let dsn = format!(
            "host='{}' port={} user={SUPERUSER} dbname=postgres sslmode=disable",
            recovered
                .socket_directory
                .display()
                .to_string()
                .replace('\\', "\\\\"),
            recovered.port
        );
        let info = ConnInfo::from_process(&dsn).at(Stage::Prepare)?;
        Ok(Server {
            recovered,
            info,
            programs,
        })
    }

    /// Restores it; the version of the server.
    async fn fill(
        &self,
        manifest: &DumpManifest,
        source: &DumpSource,
        server: &Server,
        report: &mut DrillReport,
    ) -> Result<String, Ended> {
        let options = RestoreOptions {
            // Folders of the source are none of its business.
            no_tablespaces: matches!(source.content, DumpContent::Archive(_)),
            jobs: JOBS,
            ..RestoreOptions::default()
        };
        let roles = make_roles(&server.info, manifest, source, &options).await;
        roles.at(Stage::Prepare)?;
        let database = self.asked.database.as_str();
        let wanted = Wanted {
            source,
            facts: Some(&manifest.database),
            database,
            options: &options,
            is_remote: false,
            is_partial: false,
        };
        let (target, plan) = against(&server.info, &wanted).await.at(Stage::Prepare)?;
        let plan = plan.map_err(refused)?;
        let program = |name: &str, database: Option<&str>| {
            let Some(database) = database else {
                return Ok(server.programs.command(name));
            };
            let connection = server.info.for_programs(&target.server, database);
            let mut command = server.programs.connecting(name, &connection);
            command.arg(format!("--dbname={}", connection.conninfo));
            Ok(command)
        };
        // Who gives the drill up ends the programs, too.
        let (_never, stop) = watch::channel(false);
        let job = RestoreJob {
            info: &server.info,
            program: &program,
            is_remote: false,
            source,
            target: &target,
            plan: &plan,
            options: &options,
            facts: Some(&manifest.database),
            drop_old: true,
            spool: Some(self.scratch.path()),
            stop,
        };
        let restored = job.restore(&mut Phases::default()).await;
        for phase in restored.at(Stage::Server)?.phases {
            report.phase(phase.name.as_str(), phase.seconds);
        }
        Ok(target.version)
    }
}

fn tell(report: &mut DrillReport, manifest: &DumpManifest) {
    report.target = format!("dump \"{}\"", manifest.id);
    report.bytes = manifest.database.size;
    report.details = json!({
        "dump": manifest.id.to_string(),
        "server_version": manifest.server_version,
        "pg_dump_version": manifest.pg_dump_version,
        "snapshot": manifest.snapshot,
        "objects": manifest.objects,
    });
}

fn refused(reasons: Vec<Reason>) -> Ended {
    let whats: Vec<String> = reasons.into_iter().map(|reason| reason.what).collect();
    Ended(Stage::Prepare, anyhow!("{}", whats.join("; ")))
}

/// Roles of the dump, which can do nothing. Those that own what only superusers may own were superusers on the source, too.
async fn make_roles(
    info: &ConnInfo,
    manifest: &DumpManifest,
    source: &DumpSource,
    options: &RestoreOptions,
) -> anyhow::Result<()> {
    let mut session = connect(info, "", "walden drill").await?;
    let there = gather(&mut session, "").await?;
    let needs = source
        .content
        .needs(options, None, Some(&manifest.database));
    let needed = needs.owners.iter().chain(&needs.grantees);
    let needed: BTreeSet<&String> = needed.chain(&manifest.roles).collect();
    let superusers = source
        .content
        .owners_of(&["EVENT TRIGGER", "FOREIGN DATA WRAPPER"]);
    for role in needed.difference(&there.roles.iter().collect()) {
        let may = match superusers.contains(*role) {
            true => " SUPERUSER",
            false => "",
        };
        // Where a name is reserved, that is told as a missing role.
        if !role.starts_with("pg_") {
            ask(&mut session, &format!("CREATE ROLE {}{may}", quoted(role))).await?;
        }
    }
    session.close().await
}
