//! A dump of the repository, restored into a server that is made for it.

use std::collections::BTreeSet;

use anyhow::anyhow;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::made::{SUPERUSER, made};
use super::report::DrillReport;
use super::restored::private_info;
use super::scratch::Scratch;
use super::verdict::{At, Ended, Stage};
use crate::config::{self, Settings};
use crate::postgres::cluster::Cluster;
use crate::postgres::dump::manifest::DumpManifest;
use crate::postgres::dump::programs::Programs;
use crate::postgres::dump_restore::decide::Reason;
use crate::postgres::dump_restore::job::RestoreJob;
use crate::postgres::dump_restore::needs::{DumpContent, RestoreOptions};
use crate::postgres::dump_restore::phases::Phases;
use crate::postgres::dump_restore::repository::{FetchedDump, cold, fetch};
use crate::postgres::dump_restore::source::{DumpSource, open};
use crate::postgres::dump_restore::sql::quoted;
use crate::postgres::dump_restore::target::{ask, connect, gather};
use crate::postgres::dump_restore::validate::{Wanted, against};
use crate::postgres::replication::ConnInfo;
use crate::postgres::restore::start::Recovered;
use crate::postgres::restore::{programs, refuse_cold};
use crate::postgres::types::MajorVersion;

/// Connections that load data.
const JOBS: u32 = 4;

/// A server that was made for a dump.
pub struct FilledServer {
    pub recovered: Recovered,
    pub info: ConnInfo,
    pub programs: Programs,
}

/// What is restored, and where to.
pub struct Fill<'a> {
    pub settings: &'a Settings,
    pub cluster: &'a Cluster,
    pub scratch: &'a Scratch,
    /// The name that it gets.
    pub database: &'a str,
}

impl Fill<'_> {
    /// All of the dump, compared with its digests.
    pub async fn read(&self, manifest: &DumpManifest) -> Result<(DumpSource, FetchedDump), Ended> {
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
    pub async fn serve(
        &self,
        manifest: &DumpManifest,
        source: &DumpSource,
    ) -> Result<FilledServer, Ended> {
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
        let info = private_info(&recovered, SUPERUSER, "postgres");
        let info = info.at(Stage::Prepare)?;
        Ok(FilledServer {
            recovered,
            info,
            programs,
        })
    }

    /// Restores it; the version of the server.
    pub async fn fill(
        &self,
        manifest: &DumpManifest,
        source: &DumpSource,
        server: &FilledServer,
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
        let database = self.database;
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

/// What a record says of a dump.
pub fn details(manifest: &DumpManifest) -> Value {
    json!({
        "dump": manifest.id.to_string(),
        "server_version": manifest.server_version,
        "pg_dump_version": manifest.pg_dump_version,
        "snapshot": manifest.snapshot,
        "objects": manifest.objects,
    })
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
