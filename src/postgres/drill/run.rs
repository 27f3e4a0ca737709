//! What all drills have in common: a folder that goes away, a verdict whatever happens, and the time that it took.

use std::time::Instant;

use anyhow::anyhow;
use rustix::process::Signal;

use super::again;
use super::checks::check;
use super::report::{DrillKind, DrillReport};
use super::round_trip::dumps;
use super::scratch::{Scratch, remove_leftovers, stop_server};
use super::verdict::{self, Ended, Stage};
use crate::config::Settings;
use crate::error::one_line;
use crate::evidence::record::Verdict;
use crate::postgres::cluster::Cluster;

/// What every drill needs.
#[derive(Debug)]
pub struct Frame<'a> {
    pub settings: &'a Settings,
    pub cluster: &'a Cluster,
    pub kind: DrillKind,
    /// Leave the restored cluster there, stopped.
    pub keep: bool,
}

impl Frame<'_> {
    /// Works in a new folder, and removes it. Whatever goes wrong is a verdict, also that `stop` completed before. Errors: it
    /// was refused; nothing was tried.
    pub async fn run(
        &self,
        stop: impl Future<Output = anyhow::Result<()>>,
        work: impl AsyncFnOnce(&Scratch, &mut DrillReport) -> Result<(), Ended>,
    ) -> anyhow::Result<DrillReport> {
        let mut report = DrillReport::begin(self.kind);
        let parent = &self.settings.drill.folder;
        let made = async {
            dumps::remove_old(self.cluster, report.began).await;
            remove_leftovers(parent).await?;
            Scratch::make(parent)
        };
        let scratch = match made.await {
            Ok(scratch) => scratch,
            Err(error) => {
                report.reason = one_line(&error);
                return Ok(report);
            }
        };
        report.clock = Instant::now();
        let done = tokio::select! {
            done = work(&scratch, &mut report) => done,
            asked = stop => {
                let why = asked.err().unwrap_or_else(|| anyhow!("interrupted"));
                Err(Ended(Stage::Prepare, why))
            }
        };
        (report.verdict, report.reason) = match done {
            Ok(()) => {
                let target = self.settings.drill.rto_target;
                let rto = verdict::within("RTO", report.rto_seconds, target);
                report.checks.extend(rto);
                verdict::of_checks(&report.checks)
            }
            Err(Ended(Stage::Refused, error)) => {
                if let Err(left) = scratch.remove().await {
                    tracing::warn!("the next drill removes what is left: {}", one_line(&left));
                }
                return Err(error);
            }
            Err(ended) => self.judge(&scratch, &report, ended).await,
        };
        // A verdict is not lost because something of it stays: the next drill removes it.
        if let Err(error) = self.clean_up(&scratch, &mut report).await {
            let seen = one_line(&error);
            report
                .checks
                .push(check("cleaning up", Verdict::CouldNotRun, seen));
        }
        Ok(report)
    }

    /// The verdict on one that ended early. What had failed until then is known.
    async fn judge(
        &self,
        scratch: &Scratch,
        report: &DrillReport,
        ended: Ended,
    ) -> (Verdict, String) {
        match verdict::of_checks(&report.checks) {
            failed @ (Verdict::Failed, _) => failed,
            _ => again::judge(self.cluster, self.settings.wal.timeout, scratch, ended).await,
        }
    }

    async fn clean_up(&self, scratch: &Scratch, report: &mut DrillReport) -> anyhow::Result<()> {
        if !self.keep {
            return scratch.remove().await;
        }
        stop_server(&scratch.data(), Signal::INT).await?;
        report.kept = Some(scratch.keep()?.to_path_buf());
        Ok(())
    }
}
