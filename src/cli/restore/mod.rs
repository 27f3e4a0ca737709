//! `walden restore`: plan, then clean → files → recovery → finish → start.
//!
//! `postgres::planning` plans, and `postgres::restore` carries the plan out. Here are arguments, the order of the steps
//! as people see them, and the words. Exit code 4 means refused before anything was written, 3 that the server missed
//! its target or that a check failed.

mod checked;
mod progress;
pub mod render;
pub mod target;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::anyhow;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Serialize;
use target::{MEANINGS, TargetArgs};

use super::checks::asserts;
use super::evidence::{Told, recorded};
use super::planning;
use super::progress::{ProgressStep, show};
use super::{Context, Exit, Format, print_json, print_text};
use crate::api::RecoveryTarget;
use crate::error::Hint;
use crate::evidence::record::Act;
use crate::plain::counted;
use crate::postgres::command_line::shell_word;
use crate::postgres::drill::{Asserts, Checked};
use crate::postgres::restore::Restored;
use crate::postgres::restore::files::RestoreProgress;
use crate::postgres::restore::job::{Order, RestoreJob, StartOptions};
use crate::postgres::restore::put_aside::KeptFolder;
use crate::postgres::restore::recovery;
use crate::postgres::restore::relocation::Relocation;
use crate::postgres::restore::start::Recovered;
use crate::postgres::restore::target_action::TargetAction;
use crate::repo::cold::{ColdObjects, ThawProgress};

/// Arguments of `walden restore`.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("Without a target: --latest. {MEANINGS}"))]
pub struct Args {
    /// Where to restore to: a folder that does not exist or is empty.
    #[arg(long, value_name = "DIR", required_unless_present = "dry_run")]
    to_dir: Option<PathBuf>,
    #[command(flatten)]
    target: TargetArgs,
    /// Put a tablespace elsewhere; OLD is its location or OID. May be repeated.
    #[arg(long, value_name = "OLD=NEW")]
    tablespace: Vec<Relocation>,
    /// What the server does at the target. PostgreSQL's own default is pause; a cluster restored for use is promoted.
    #[arg(long, default_value = "promote", value_name = "ACTION", value_parser = action_parser())]
    target_action: TargetAction,
    /// The restored cluster replaces its source: it goes on archiving into the same repository. Else archiving is off.
    #[arg(long)]
    keep_archiving: bool,
    /// Restore although the file systems seem to be too small: where they compress.
    #[arg(long)]
    ignore_free_space: bool,
    /// Restore in place: keep what is there first, the stopped cluster's data directory and its tablespaces that are in the way,
    /// as FOLDER.before-TIME beside it.
    #[arg(long)]
    snapshot_first: bool,
    /// Have what lies in a cold storage class thawed first, and wait for it. That takes hours or days, and stores charge
    /// for it.
    #[arg(long)]
    thaw: bool,
    /// Print the plan and do nothing; refuses what the restore itself would refuse.
    #[arg(long)]
    dry_run: bool,
    /// Start the server, wait until it is at the target and tell what was recovered.
    #[arg(long, conflicts_with = "dry_run")]
    start: bool,
    /// Look at the started server as a drill does, and write nothing to it: section drill of the settings says at what.
    #[arg(long, requires = "start")]
    check: bool,
    /// The port to start on; else the configured one, or any free one when that is taken.
    #[arg(long, requires = "start", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// The folder of PostgreSQL's programs (postgres); else it is looked for on PATH and in the usual places.
    #[arg(long, requires = "start", value_name = "DIR")]
    pg_bin: Option<PathBuf>,
}

fn action_parser() -> impl TypedValueParser<Value = TargetAction> {
    PossibleValuesParser::new(TargetAction::NAMES.map(|(name, _)| name)).try_map(|name| {
        let found = TargetAction::NAMES.iter().find(|(each, _)| *each == name);
        found.map(|(_, action)| *action).ok_or("no such action")
    })
}

/// What was done, for `--format json`.
#[derive(Serialize)]
struct RestoreOutput<'a> {
    #[serde(flatten)]
    target: RecoveryTarget,
    data_directory: &'a Path,
    archiving: bool,
    /// What was there before.
    #[serde(skip_serializing_if = "<[KeptFolder]>::is_empty")]
    kept: &'a [KeptFolder],
    restored: Restored,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered: Option<Recovered>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checked: Option<Checked>,
}

impl Args {
    fn order(&self) -> Order {
        Order {
            to_dir: self.to_dir.clone(),
            relocations: self.tablespace.clone(),
            action: self.target_action,
            keep_archiving: self.keep_archiving,
            check_space: !self.ignore_free_space,
            put_aside: self.snapshot_first,
            thaw: self.thaw,
            start: self.start.then(|| StartOptions {
                programs: self.pg_bin.clone(),
                port: self.port,
            }),
        }
    }
}

/// Runs the verb. Exit code 4 when the target cannot be reached exactly, 3 when the started server is not at it or a check failed.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<Exit> {
    let asked = args.target.asked()?;
    if !args.dry_run {
        refuse_root()?;
    }
    let asserts = args.check.then(|| {
        checked::refuse_shutdown(args.target_action)?;
        asserts(context)
    });
    let asserts = asserts.transpose()?;
    let planner = planning::open(context, asked.needs_index()).await?;
    let cluster = planner.cluster();
    let work = async |told: &mut Told| {
        let to_dir = args.to_dir.as_deref().unwrap_or(Path::new(""));
        told.subject = format!("a target, in \"{}\"", to_dir.display());
        let request = target::request(asked, &planner).await?;
        let plan = match planner.decide(&request).await? {
            Ok(plan) => plan,
            Err(unreachable) => {
                told.reason = unreachable.to_string();
                let to_dir = args.to_dir.as_deref().map(Path::to_string_lossy);
                let to_dir = to_dir.map(|folder| format!(" --to-dir {}", shell_word(&folder)));
                let to_dir = to_dir.unwrap_or_default();
                let command = |arguments: &str| format!("walden restore {arguments}{to_dir}");
                return render::refusal(context.format, &unreachable, &command);
            }
        };
        let job = RestoreJob::new(&context.settings, planner.cluster(), plan, args.order())?;
        match args.dry_run {
            true => rehearse(context.format, job, args.thaw).await,
            false => carry_out((context, &args, asserts.as_ref()), &job, told).await,
        }
    };
    match args.dry_run {
        true => work(&mut Told::default()).await,
        false => recorded(&context.settings, &cluster, Act::Restore, work).await,
    }
}

async fn rehearse(format: Format, mut job: RestoreJob<'_>, thaw: bool) -> anyhow::Result<Exit> {
    let cold = match thaw {
        true => job.cold().await?,
        false => ColdObjects::default(),
    };
    let settings = job.rehearse().await?;
    if !cold.is_empty() {
        job.plan.warnings.push(cold.to_string());
    }
    let aside = job.aside.kept.as_slice();
    render::dry_run(
        format,
        &job.plan,
        (job.destination.as_ref(), aside),
        &settings,
    )
}

/// Has thawed what the restore needs.
async fn thaw(job: &RestoreJob<'_>) -> anyhow::Result<()> {
    let cold = job.cold().await?;
    if cold.is_empty() {
        return Ok(());
    }
    tracing::info!("{cold}");
    let progress = ThawProgress::default();
    let (total, thawing) = (cold.bytes(), job.thaw(&cold, &progress));
    show(thawing, "thawed", || thaw_step(&progress, total)).await
}

async fn files(job: &RestoreJob<'_>) -> anyhow::Result<Restored> {
    let shared = Arc::<RestoreProgress>::default();
    let step = || ProgressStep {
        done: shared.bytes.load(Ordering::Relaxed),
        total: job.plan.backup.plain_bytes,
        phase: String::new(),
    };
    show(job.restore(shared.clone()), "restored", step).await
}

/// How far thawing is.
pub fn thaw_step(progress: &ThawProgress, total: u64) -> ProgressStep {
    let waiting = progress.waiting.load(Ordering::Relaxed);
    ProgressStep {
        done: progress.done.load(Ordering::Relaxed),
        total,
        phase: format!("{} to thaw", counted(waiting, "object")),
    }
}

/// What is asked for, and one's own checks where the server is looked at.
type Asked<'a> = (&'a Context, &'a Args, Option<&'a Asserts>);

async fn carry_out(
    asked: Asked<'_>,
    job: &RestoreJob<'_>,
    told: &mut Told,
) -> anyhow::Result<Exit> {
    let (context, args, _) = asked;
    let data_directory = job.data_directory()?;
    let target = RecoveryTarget::from(&job.plan);
    let (backup, folder) = (&job.plan.backup.id, data_directory.display());
    told.subject = format!("backup {backup} in \"{folder}\"");
    told.details = serde_json::to_value(&target)?;
    if args.thaw {
        thaw(job).await?;
    }
    job.put_aside().await?;
    let kept = job.aside.kept.as_slice();
    if kept.is_empty() {
        return replace(asked, job, target, told).await;
    }
    told.details["kept"] = serde_json::to_value(kept)?;
    if context.format == Format::Table {
        print_text(&render::kept(&job.aside))?;
    }
    // Whatever happens from here on, it is there.
    let done = replace(asked, job, target, told).await;
    done.hint(job.aside.way_back())
}

/// Restores into folders that are free now.
async fn replace(
    (context, args, asserts): Asked<'_>,
    job: &RestoreJob<'_>,
    target: RecoveryTarget,
    told: &mut Told,
) -> anyhow::Result<Exit> {
    let data_directory = job.data_directory()?;
    let restored = files(job).await?;
    told.phase("files", restored.seconds_for_files);
    told.phase("durable", restored.seconds_for_fsync);
    let say = |text: String| match context.format {
        Format::Table => print_text(&text),
        Format::Json => Ok(()),
    };
    say(render::restored(&job.plan, data_directory, &restored))?;
    job.check_archiving(&restored)?;
    let recovered = start(job, &restored, told).await?;
    say(match &recovered {
        Some(recovered) => render::recovered(recovered, data_directory),
        None => {
            let only = recovery::only_for_recovery(&restored.settings);
            render::how_to_start(data_directory, args.target_action, &only)
        }
    })?;
    let checked = match (&recovered, asserts) {
        (Some(recovered), Some(asserts)) => {
            let checked = checked::look(context, asserts, job, recovered, told).await?;
            say(checked::in_words(&checked))?;
            Some(checked)
        }
        _ => None,
    };
    let exit = checked::exit(recovered.as_ref(), checked.as_ref());
    if context.format == Format::Json {
        let archiving = restored.archiving.on;
        print_json(&RestoreOutput {
            target,
            data_directory,
            archiving,
            kept: job.aside.kept.as_slice(),
            restored,
            recovered,
            checked,
        })?;
    }
    Ok(exit)
}

/// Starts the server, if that is asked for, and waits until it is at its target.
async fn start(
    job: &RestoreJob<'_>,
    restored: &Restored,
    told: &mut Told,
) -> anyhow::Result<Option<Recovered>> {
    let replay = progress::Replay::new();
    let began = Instant::now();
    let recovered = job.start(restored, &|log| replay.show(log)).await;
    replay.end();
    if matches!(recovered, Ok(Some(_))) {
        told.phase("start and replay", began.elapsed().as_secs_f64());
    }
    recovered
}

/// PostgreSQL does not run as root, and cannot use what root made.
pub fn refuse_root() -> anyhow::Result<()> {
    match rustix::process::geteuid().is_root() {
        true => Err(anyhow!(
            "a restore as root would make files that PostgreSQL cannot use: it does not run as root"
        ))
        .hint("run this as the server's user, such as `sudo -u postgres walden restore …`"),
        false => Ok(()),
    }
}
