use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;

use super::asserts::{self, Assert};
use super::checks;
use super::command;
use super::restored::{At, Ended, RestoredServer, restored};
use super::scratch::{Scratch, remove_leftovers, stop_server};
use super::target::DrillTarget;
use super::verdict::{self, Stage};
use crate::config::Settings;
use crate::error::{one_line, with_hint};
use crate::evidence::record::{Act, Check, Evidence, Phase, Verdict};
use crate::health::Health;
use crate::postgres::catalog::{RecoveryPlan, RestoreRequest, missing_wal, windows};
use crate::postgres::planning::FreshPlanner;
use crate::postgres::restore::start::Recovered;

/// What is asked for.
#[derive(Debug)]
pub struct DrillOptions {
    pub target: DrillTarget,
    pub asserts: Vec<Assert>,
    /// Leave the restored cluster there, stopped.
    pub keep: bool,
}

/// How a drill ended.
#[derive(Debug, Serialize)]
pub struct DrillReport {
    /// What was restored, in words.
    pub target: String,
    pub verdict: Verdict,
    /// Why, unless it passed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    pub phases: Vec<Phase>,
    pub checks: Vec<Check>,
    /// From the order to a server that was checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rto_seconds: Option<f64>,
    /// How old the newest data was that could be restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rpo_seconds: Option<f64>,
    /// Where the restored cluster is, if it was to stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<PathBuf>,
    pub bytes: u64,
    #[serde(skip)]
    began: DateTime<Utc>,
    #[serde(skip)]
    details: serde_json::Value,
}

impl DrillReport {
    /// The record of it.
    pub fn evidence(&self, ended: DateTime<Utc>) -> Evidence {
        Evidence {
            act: Act::Drill,
            subject: self.target.clone(),
            began: self.began,
            ended,
            verdict: self.verdict,
            reason: self.reason.clone(),
            phases: self.phases.clone(),
            checks: self.checks.clone(),
            rto_seconds: self.rto_seconds,
            rpo_seconds: self.rpo_seconds,
            details: self.details.clone(),
        }
    }

    fn tell(&mut self, plan: &RecoveryPlan) {
        self.target = format!("{}, from backup {}", plan.target, plan.backup.id);
        self.bytes = plan.backup.plain_bytes;
        self.details = json!({
            "backup": plan.backup.id.to_string(),
            "server_version": plan.backup.server_version,
            "segments": plan.segments,
            "bytes": plan.backup.plain_bytes,
        });
    }

    fn phase(&mut self, name: &str, seconds: f64) {
        let name = name.into();
        self.phases.push(Phase { name, seconds });
    }
}

/// Restores, looks, and removes what it made. Whatever goes wrong is a verdict.
pub async fn run(
    settings: &Settings,
    planner: &FreshPlanner,
    options: &DrillOptions,
) -> DrillReport {
    let mut report = DrillReport {
        target: "nothing yet".into(),
        verdict: Verdict::CouldNotRun,
        reason: String::new(),
        phases: Vec::new(),
        checks: Vec::new(),
        rto_seconds: None,
        rpo_seconds: None,
        kept: None,
        bytes: 0,
        began: Utc::now(),
        details: serde_json::Value::Null,
    };
    let parent = &settings.drill.folder;
    let made = async {
        remove_leftovers(parent).await?;
        Scratch::make(parent)
    };
    let scratch = match made.await {
        Ok(scratch) => scratch,
        Err(error) => {
            report.reason = one_line(&error);
            return report;
        }
    };
    let clock = Instant::now();
    let done = drill(settings, planner, options, &scratch, &mut report).await;
    (report.verdict, report.reason) = match done {
        Ok(()) => {
            let seconds = clock.elapsed().as_secs_f64();
            report.rto_seconds = Some(seconds);
            let (rto, rpo) = (settings.drill.rto_target, settings.drill.rpo_target);
            report
                .checks
                .extend(verdict::within("RTO", Some(seconds), rto));
            if options.target == DrillTarget::Latest {
                let measured = report.rpo_seconds;
                report.checks.extend(verdict::within("RPO", measured, rpo));
            }
            verdict::of_checks(&report.checks)
        }
        Err(Ended(stage, error)) => verdict::of_error(stage, &error),
    };
    // A verdict is not lost because something of it stays: the next drill removes it.
    if let Err(error) = clean_up(&scratch, options.keep, &mut report).await {
        let seen = one_line(&error);
        report
            .checks
            .push(checks::check("cleaning up", Verdict::CouldNotRun, seen));
    }
    report
}

async fn clean_up(scratch: &Scratch, keep: bool, report: &mut DrillReport) -> anyhow::Result<()> {
    if !keep {
        return scratch.remove().await;
    }
    stop_server(&scratch.data()).await?;
    report.kept = Some(scratch.keep()?.to_path_buf());
    Ok(())
}

async fn drill(
    settings: &Settings,
    planner: &FreshPlanner,
    options: &DrillOptions,
    scratch: &Scratch,
    report: &mut DrillReport,
) -> Result<(), Ended> {
    let begun = Instant::now();
    let plan = plan(settings, planner, options.target, report)
        .await
        .at(Stage::Plan)?;
    report.phase("plan", begun.elapsed().as_secs_f64());
    report.tell(&plan);
    let server = restored(
        settings,
        planner.cluster(),
        plan,
        scratch,
        &mut report.phases,
    )
    .await?;
    report
        .checks
        .extend(missing_libraries(&server.missing_libraries));

    let begun = Instant::now();
    report.checks.push(stopped_as_planned(&server.recovered));
    look(settings, options, &server, report)
        .await
        .at(Stage::Start)?;
    report.phase("checks", begun.elapsed().as_secs_f64());
    Ok(())
}

fn missing_libraries(missing: &[String]) -> Option<Check> {
    let seen = || format!("not installed here: {}", missing.join(", "));
    (!missing.is_empty()).then(|| checks::check("preload libraries", Verdict::CouldNotRun, seen()))
}

async fn plan(
    settings: &Settings,
    planner: &FreshPlanner,
    target: DrillTarget,
    report: &mut DrillReport,
) -> anyhow::Result<RecoveryPlan> {
    let (facts, index) = (planner.facts().await?, planner.wal_index());
    let (limits, now) = (settings.health.clone(), report.began);
    let derive = move || {
        let told = windows(&facts, &*index);
        let health = Health::of(&facts, &told, &missing_wal(&facts), &limits, now);
        (target.choose(&told), health.protected)
    };
    let (chosen, protected) = tokio::task::spawn_blocking(derive).await?;
    if target == DrillTarget::Latest {
        report.rpo_seconds =
            protected.map(|protected| (now - protected.until).as_seconds_f64().max(0.0));
    }
    let chosen = chosen.ok_or_else(|| {
        let error = anyhow!("there is no range of moments that can be restored");
        with_hint(error, "`walden target` shows why")
    })?;
    match planner.decide(&RestoreRequest::new(chosen)).await? {
        Ok(plan) => Ok(plan),
        Err(unreachable) => Err(anyhow!(
            "the target cannot be reached: {}",
            unreachable.reason
        )),
    }
}

fn stopped_as_planned(recovered: &Recovered) -> Check {
    let name = "stopped as planned";
    match (recovered.doubts.is_empty(), &recovered.stopped) {
        (true, stopped) => {
            checks::check(name, Verdict::Passed, stopped.clone().unwrap_or_default())
        }
        (false, _) => checks::check(name, Verdict::Failed, recovered.doubts.join("; ")),
    }
}

/// Looks at what the server holds.
async fn look(
    settings: &Settings,
    options: &DrillOptions,
    server: &RestoredServer,
    report: &mut DrillReport,
) -> anyhow::Result<()> {
    let budget: Duration = settings.drill.budget;
    let door = server.door(settings, budget).await?;
    report
        .checks
        .extend(checks::all(&door, Instant::now() + budget).await);
    report
        .checks
        .extend(asserts::ask(&door, &options.asserts).await);
    if let [program, arguments @ ..] = &settings.drill.command[..] {
        let limit = settings.drill.command_timeout;
        report
            .checks
            .push(command::run(&door, program, arguments, limit).await);
    }
    Ok(())
}
