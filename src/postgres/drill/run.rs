use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;

use super::asserts::{self, Assert};
use super::checks;
use super::command;
use super::database::Door;
use super::scratch::{Scratch, remove_leftovers, stop_server};
use super::server::configure;
use super::target::DrillTarget;
use super::verdict::{self, Stage};
use crate::config::Settings;
use crate::error::{one_line, with_hint};
use crate::evidence::record::{Act, Check, Evidence, Phase, Verdict};
use crate::health::Health;
use crate::postgres::catalog::{RecoveryPlan, RestoreRequest, missing_wal, windows};
use crate::postgres::planning::FreshPlanner;
use crate::postgres::replication::ConnInfo;
use crate::postgres::restore::job::{Order, RestoreJob, StartOptions};
use crate::postgres::restore::relocation::Relocation;
use crate::postgres::restore::start::Recovered;
use crate::postgres::restore::target_action::TargetAction;
use crate::postgres::restore::{copy_settings, programs};

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

/// Why a drill ended before its checks.
struct Ended(Stage, anyhow::Error);

/// Errors of a stage.
trait At<T> {
    fn at(self, stage: Stage) -> Result<T, Ended>;
}

impl<T> At<T> for anyhow::Result<T> {
    fn at(self, stage: Stage) -> Result<T, Ended> {
        self.map_err(|error| Ended(stage, error))
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
    private_socket(&scratch.data()).at(Stage::Prepare)?;
    let begun = Instant::now();
    let plan = plan(settings, planner, options.target, report)
        .await
        .at(Stage::Plan)?;
    report.phase("plan", begun.elapsed().as_secs_f64());
    report.tell(&plan);
    let named = settings.drill.programs.as_deref();
    let programs = programs::find(plan.backup.major, named).at(Stage::Prepare)?;
    let order = order(&plan, scratch, &programs);
    let job = RestoreJob::new(settings, planner.cluster(), plan, order).at(Stage::Prepare)?;
    job.rehearse().await.at(Stage::Prepare)?;
    let restored = job.restore(Arc::default()).await.at(Stage::Files)?;
    report.phase(
        "files",
        restored.seconds_for_files + restored.seconds_for_fsync,
    );

    let missing = set_up(settings, scratch, &programs).at(Stage::Start)?;
    report.checks.extend(missing);
    let begun = Instant::now();
    let recovered = job.start(&restored, &|_| ()).await.at(Stage::Start)?;
    report.phase("start and replay", begun.elapsed().as_secs_f64());
    let recovered = recovered
        .context("the server of the drill was not started")
        .at(Stage::Start)?;

    let begun = Instant::now();
    report.checks.push(stopped_as_planned(&recovered));
    look(settings, options, &recovered, report)
        .await
        .at(Stage::Start)?;
    report.phase("checks", begun.elapsed().as_secs_f64());
    Ok(())
}

/// The server lets everybody in who reaches its socket: it must lie where only this user can go.
fn private_socket(data: &Path) -> anyhow::Result<()> {
    let unfit = data.to_str().map_or(Some("is no text"), |path| {
        copy_settings::unfit_for_sockets(path, u16::MAX)
    });
    match unfit {
        None => Ok(()),
        Some(why) => {
            let error = anyhow!(
                "no socket can lie in \"{}\": the path {why}",
                data.display()
            );
            Err(with_hint(
                error,
                "name a folder with a short and plain path in `drill.folder`",
            ))
        }
    }
}

/// Gives the server its settings; what it does without.
fn set_up(
    settings: &Settings,
    scratch: &Scratch,
    programs: &Path,
) -> anyhow::Result<Option<Check>> {
    let libraries = programs::configured(programs, &scratch.data(), "shared_preload_libraries")?;
    let missing = configure(scratch, programs, settings.drill.memory, &libraries)?;
    let seen = || format!("not installed here: {}", missing.join(", "));
    Ok((!missing.is_empty())
        .then(|| checks::check("preload libraries", Verdict::CouldNotRun, seen())))
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

/// Beside everything, with tablespaces in the drill's folder, promoted so that checks can make what they need.
fn order(plan: &RecoveryPlan, scratch: &Scratch, programs: &Path) -> Order {
    let made = plan.backup.tablespaces.iter().map(|tablespace| Relocation {
        old: tablespace.oid.to_string(),
        new: scratch.join(&format!("tablespace-{}", tablespace.oid)),
    });
    Order {
        to_dir: Some(scratch.data()),
        relocations: made.collect(),
        action: TargetAction::Promote,
        keep_archiving: false,
        check_space: true,
        thaw: false,
        start: Some(StartOptions {
            programs: Some(programs.to_path_buf()),
            port: None,
        }),
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
    recovered: &Recovered,
    report: &mut DrillReport,
) -> anyhow::Result<()> {
    let user = ConnInfo::from_process(settings.postgresql.dsn.expose())?.user;
    let door = Door {
        socket: recovered.socket_directory.clone(),
        port: recovered.port,
        user,
        options: String::new(),
    };
    let budget: Duration = settings.drill.budget;
    let door = door.of_superuser("template1", budget).await?;
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
