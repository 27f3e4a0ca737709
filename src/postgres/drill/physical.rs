//! A drill of base backups and WAL, with the plan of a real restore.

use std::time::Instant;

use anyhow::anyhow;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use super::asserts::Asserts;
use super::canary::Expected;
use super::checks::{check, stopped_as_planned};
use super::counts::{COUNTS_OF, Counts};
use super::database::Access;
use super::known::{self, Known};
use super::look::Look;
use super::pages::check_pages;
use super::report::{DrillKind, DrillReport};
use super::restored::restored;
use super::run::Frame;
use super::scratch::Scratch;
use super::target::DrillTarget;
use super::verdict::{At, Ended, Stage, within};
use crate::config::Settings;
use crate::error::with_hint;
use crate::evidence::record::{Check, Verdict};
use crate::health::Health;
use crate::postgres::catalog::{
    BACKUP_KIND, RecoveryPlan, RestoreRequest, Target, missing_wal, windows,
};
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::BackupId;
use crate::postgres::planning::FreshPlanner;
use crate::postgres::replication::ConnInfo;
use crate::postgres::restore::start::Recovered;
use crate::postgres::types::TimelineId;

/// Counts that are tried, the newest first.
const COUNTS: usize = 20;

/// What is asked for.
#[derive(Debug)]
pub struct DrillOptions {
    pub target: DrillTarget,
    pub asserts: Asserts,
    /// How old the newest canary may be at a moment, as they are scheduled.
    pub canary_pause: fn(&Settings, DateTime<Utc>) -> Option<TimeDelta>,
    /// Leave the restored cluster there, stopped.
    pub keep: bool,
}

/// Restores, looks, and removes what it made; interrupted when `stop` completes. Whatever goes wrong is a verdict. Errors: the
/// target cannot be reached, as [`Unreachable`](crate::postgres::catalog::Unreachable) says, or there is none.
pub async fn run(
    settings: &Settings,
    planner: &FreshPlanner,
    options: &DrillOptions,
    stop: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<DrillReport> {
    let cluster = planner.cluster();
    let frame = Frame {
        settings,
        cluster: &cluster,
        kind: DrillKind::Physical,
        keep: options.keep,
    };
    let work = async |scratch: &Scratch, report: &mut DrillReport| {
        drill(settings, planner, options, scratch, report, async |_, _| {
            Ok(())
        })
        .await
    };
    frame.run(stop, work).await
}

/// What a restored server shows of the cluster.
#[derive(Debug)]
pub struct Shown<'a> {
    pub recovered: &'a Recovered,
    pub backup: BackupId,
    pub timeline: TimelineId,
    /// When the backup ended.
    pub stopped_at: DateTime<Utc>,
    /// Everything that was committed by then can be restored, as far as that is known.
    pub protected: Option<DateTime<Utc>>,
}

/// All of it in a folder that is there. `first`: what is done with the server before anything looks at it: checks may change what it
/// has.
pub async fn drill(
    settings: &Settings,
    planner: &FreshPlanner,
    options: &DrillOptions,
    scratch: &Scratch,
    report: &mut DrillReport,
    first: impl AsyncFnOnce(Shown<'_>, &mut DrillReport) -> Result<(), Ended>,
) -> Result<(), Ended> {
    let begun = Instant::now();
    let Planned {
        plan,
        protected,
        counts,
    } = planned(settings, planner, options.target, report).await?;
    report.phase("plan", begun.elapsed().as_secs_f64());
    tell(report, &plan);
    let (cluster, moment) = (planner.cluster(), plan.moment());
    let canary = canary(settings, &cluster, options, (&plan, &counts), report).await?;
    let known = Known { canary, counts };
    let (backup, timeline) = (plan.backup.id.clone(), plan.timeline);
    let stopped_at = plan.backup.stopped_at;
    let server = restored(settings, cluster, plan, scratch, &mut report.phases).await?;
    report
        .checks
        .extend(missing_libraries(&server.missing_libraries));
    let recovered = server.recovered;
    report.checks.push(stopped_as_planned(&recovered));
    let shown = Shown {
        recovered: &recovered,
        backup,
        timeline,
        stopped_at,
        protected,
    };
    first(shown, report).await?;
    let user = ConnInfo::from_process(settings.postgresql.dsn.expose()).map(|info| info.user);
    let look = Look {
        settings,
        asserts: &options.asserts,
        data: &scratch.data(),
        recovered: &recovered,
        known: &known,
        access: Access::Private,
        moment,
        database: None,
    };
    look.at_all(user.ok(), report).await?;
    pages(settings, &recovered, scratch, report).await;
    of_target(settings, options.target, report)
}

/// What is judged of a target alone. A drill that is to compare rows and could compare none has proven nothing.
fn of_target(
    settings: &Settings,
    target: DrillTarget,
    report: &mut DrillReport,
) -> Result<(), Ended> {
    if target == DrillTarget::Latest {
        let (measured, target) = (report.rpo_seconds, settings.drill.rpo_target);
        report.checks.extend(within("RPO", measured, target));
    }
    let is_compared =
        |check: &Check| check.name.starts_with(COUNTS_OF) && check.verdict != Verdict::CouldNotRun;
    match target != DrillTarget::Counted || report.checks.iter().any(is_compared) {
        true => Ok(()),
        false => {
            let error = anyhow!("no row was compared with what was counted");
            Err(Ended(Stage::Prepare, error))
        }
    }
}

/// Stops the server.
async fn pages(
    settings: &Settings,
    recovered: &Recovered,
    scratch: &Scratch,
    report: &mut DrillReport,
) {
    let begun = Instant::now();
    let (programs, budget) = (&recovered.programs, settings.drill.budget);
    let pages = check_pages(programs, &scratch.data(), budget).await;
    report.checks.push(pages);
    report.phase("page checksums", begun.elapsed().as_secs_f64());
}

/// Where canaries are, and what is expected of them. Errors: the repository does not say.
async fn canary(
    settings: &Settings,
    cluster: &Cluster,
    options: &DrillOptions,
    (plan, counts): (&RecoveryPlan, &Option<Counts>),
    report: &DrillReport,
) -> Result<Option<(String, Expected)>, Ended> {
    let Some(database) = settings.drill.canary.clone() else {
        return Ok(None);
    };
    let moment = match (&plan.request.target, counts) {
        (Target::Time(time), _) => Some(*time),
        (_, counts) => counts.as_ref().map(|counts| counts.at),
    };
    let (reference, reaches) = match (moment, report.rpo_seconds) {
        (Some(moment), _) => (moment, Some(moment)),
        (_, Some(age)) => {
            let age = TimeDelta::milliseconds((age * 1000.0) as i64);
            (report.began, Some(report.began - age))
        }
        (_, None) => (report.began, None),
    };
    let seen = known::seen_before(&cluster.journal(), &database, reference).await;
    let expected = Expected {
        reference,
        reaches,
        pause: (options.canary_pause)(settings, reaches.unwrap_or(reference)),
        rpo_target: settings.drill.rpo_target,
        seen_before: seen.at(Stage::Plan)?,
    };
    Ok(Some((database, expected)))
}

/// What is restored.
struct Planned {
    plan: RecoveryPlan,
    /// Everything that was committed by then can be restored, as far as that is known.
    protected: Option<DateTime<Utc>>,
    /// What was counted at its place.
    counts: Option<Counts>,
}

async fn planned(
    settings: &Settings,
    planner: &FreshPlanner,
    target: DrillTarget,
    report: &mut DrillReport,
) -> Result<Planned, Ended> {
    if target == DrillTarget::Counted {
        return plan_of_counts(planner).await;
    }
    let (plan, protected) = plan(settings, planner, target, report).await?;
    Ok(Planned {
        plan,
        protected,
        counts: None,
    })
}

/// The newest counts that can be restored to, and how. Errors: there are none, or the repository does not say.
async fn plan_of_counts(planner: &FreshPlanner) -> Result<Planned, Ended> {
    let journal = planner.cluster().journal();
    let counted = journal.newest(COUNTS, Counts::of_record).await;
    let mut refused = None;
    for counts in counted.at(Stage::Plan)? {
        let decided = planner.decide(&counts.request()).await;
        match decided.at(Stage::Plan)? {
            Ok(plan) => {
                return Ok(Planned {
                    plan,
                    protected: None,
                    counts: Some(counts),
                });
            }
            Err(why) => refused = refused.or(Some(why)),
        }
    }
    let error = match refused {
        Some(why) => anyhow::Error::new(*why).context("no counts can be restored to"),
        None => with_hint(
            anyhow!("nothing was counted on the source"),
            "`walden drill canary --counts` counts the tables of `drill.counts`",
        ),
    };
    Err(Ended(Stage::Prepare, error))
}

fn tell(report: &mut DrillReport, plan: &RecoveryPlan) {
    report.target = format!("{}, from backup {}", plan.target, plan.backup.id);
    report.bytes = plan.backup.plain_bytes;
    report.details = json!({
        "backup": plan.backup.id.to_string(),
        "server_version": plan.backup.server_version,
        "segments": plan.segments,
        "bytes": plan.backup.plain_bytes,
    });
}

fn missing_libraries(missing: &[String]) -> Option<Check> {
    let seen = || format!("not installed here: {}", missing.join(", "));
    (!missing.is_empty()).then(|| check("preload libraries", Verdict::CouldNotRun, seen()))
}

async fn plan(
    settings: &Settings,
    planner: &FreshPlanner,
    target: DrillTarget,
    report: &mut DrillReport,
) -> Result<(RecoveryPlan, Option<DateTime<Utc>>), Ended> {
    let (facts, index) = (planner.facts().await.at(Stage::Plan)?, planner.wal_index());
    let damaged = facts.damaged_backups.clone();
    let (limits, now) = (settings.health.clone(), report.began);
    let derive = move || {
        let told = windows(&facts, &*index);
        let health = Health::of(&facts, &told, &missing_wal(&facts), &limits, now);
        (target.choose(&told), health.protected)
    };
    let derived = tokio::task::spawn_blocking(derive).await;
    let (chosen, protected) = derived.map_err(Into::into).at(Stage::Plan)?;
    let protected = protected.map(|protected| protected.until);
    let is_latest = target == DrillTarget::Latest;
    if is_latest {
        report.rpo_seconds = protected.map(|until| (now - until).as_seconds_f64().max(0.0));
    }
    let chosen = chosen.ok_or_else(|| {
        let error = anyhow!("there is no range of moments that can be restored");
        Ended(
            Stage::Refused,
            with_hint(error, "`walden target` shows why"),
        )
    })?;
    let decided = planner.decide(&RestoreRequest::new(chosen)).await;
    let plan = decided.at(Stage::Plan)?.map_err(|unreachable| {
        // Somebody asked for too much; what the windows promise, and the latest, must be there.
        let stage = match target {
            DrillTarget::At(_) => Stage::Refused,
            _ => Stage::Plan,
        };
        Ended(stage, anyhow::Error::new(*unreachable))
    })?;
    if is_latest {
        let newer = damaged.into_iter().filter(|(id, _)| *id > plan.backup.id);
        report
            .checks
            .extend(passed_over(&planner.cluster(), newer).await);
    }
    Ok((plan, protected))
}

/// Newer backups than the one that was restored.
async fn passed_over(
    cluster: &Cluster,
    newer: impl Iterator<Item = (BackupId, String)>,
) -> Vec<Check> {
    let mut checks = Vec::new();
    for (id, why) in newer {
        let key = cluster.layout.manifest(&id);
        let read = cluster.repository.header(&key, BACKUP_KIND).await;
        let verdict = match read {
            Err(error) if error.is_damage() => Verdict::Failed,
            _ => Verdict::CouldNotRun,
        };
        checks.push(check(&format!("backup {id}"), verdict, why));
    }
    checks
}
