//! A drill of a dump: into a server that is made for it.

use std::time::Instant;

use anyhow::anyhow;
use chrono::Utc;

use super::asserts::Asserts;
use super::database::Access;
use super::filled::{Fill, details};
use super::known::Known;
use super::look::Look;
use super::made::SUPERUSER;
use super::report::{DrillKind, DrillReport};
use super::restored::private_socket;
use super::run::Frame;
use super::scratch::Scratch;
use super::tables::ManifestTables;
use super::verdict::{At, Ended, Stage};
use crate::config::Settings;
use crate::error::{one_line, with_hint};
use crate::evidence::record::Verdict;
use crate::postgres::cluster::Cluster;
use crate::postgres::dump::list::list;
use crate::postgres::dump::manifest::{self, DumpManifest};
use crate::postgres::dump::proof::{DumpProof, record};
use crate::postgres::dump_restore::repository::{lease, newest};
use crate::postgres::layout::{DumpId, DumpKind};

/// What is asked for.
#[derive(Debug)]
pub struct DumpDrill {
    pub database: String,
    /// Any dump of the database, chosen by this number; `None`: the newest.
    pub random: Option<u64>,
    pub asserts: Asserts,
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
        kind: DrillKind::Dump,
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
        let fill = Fill {
            settings: self.settings,
            cluster: self.cluster,
            scratch: self.scratch,
            database: &self.asked.database,
        };
        let (source, _fetched) = fill.read(manifest).await?;
        let expected = ManifestTables::read(self.cluster, &manifest.id).await;
        let expected = expected.at(Stage::Files)?;
        report.phase("read", begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        let server = fill.serve(manifest, &source).await?;
        report.phase("server", begun.elapsed().as_secs_f64());
        let version = fill.fill(manifest, &source, &server, report).await?;
        let look = Look {
            settings: self.settings,
            asserts: &self.asked.asserts,
            data: &self.scratch.data(),
            recovered: &server.recovered,
            known: &Known::default(),
            access: Access::Private,
            moment: self.asked.random.map(|_| manifest.snapshot.time),
            database: Some((&self.asked.database, &expected)),
        };
        look.at_all(Some(SUPERUSER.into()), report).await?;
        Ok(DumpProof {
            proven_at: Utc::now(),
            server_version: version,
            restored_as: self.asked.database.clone(),
        })
    }
}

fn tell(report: &mut DrillReport, manifest: &DumpManifest) {
    report.target = format!("dump \"{}\"", manifest.id);
    report.bytes = manifest.database.size;
    report.details = details(manifest);
}
