//! `walden restore`: plan, then clean → files → recovery → finish → start.

mod progress;
pub mod render;
pub mod target;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context as _, anyhow};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Serialize;
use target::{MEANINGS, TargetArgs};

use super::planning;
use super::progress::{Step, show};
use super::{Context, Exit, Format, print_json, print_text};
use crate::config::{self, Origin, RepositoryUrl, Source};
use crate::error::{Hint, with_hint};
use crate::postgres::catalog::{PastRestore, RecoveryPlan};
use crate::postgres::command_line::program;
use crate::postgres::replication::ConnInfo;
use crate::postgres::restore::clean::{self, Relocation};
use crate::postgres::restore::configuration::Archiving;
use crate::postgres::restore::recovery::{self, Choices, FetchCommand, TargetAction};
use crate::postgres::restore::start::{self, Recovered, Start};
use crate::postgres::restore::{Restored, check, files, past, programs, restore};

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
    /// Print the plan and do nothing; refuses what the restore itself would refuse.
    #[arg(long)]
    dry_run: bool,
    /// Start the server, wait until it is at the target and tell what was recovered.
    #[arg(long, conflicts_with = "dry_run")]
    start: bool,
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
struct Report<'a> {
    plan: &'a RecoveryPlan,
    data_directory: &'a Path,
    archiving: bool,
    restored: Restored,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered: Option<Recovered>,
}

/// Runs the verb. Exit code 4 when the target cannot be reached exactly, 3 when the started server is not at it.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<Exit> {
    args.target.check()?;
    if !args.dry_run {
        refuse_root()?;
    }
    let planner = planning::open(context, args.target.needs_index()).await?;
    let request = args.target.resolve(&planner).await?;
    let cluster = planner.cluster();
    let plan = match planner.decide(&request).await? {
        Ok(plan) => plan,
        Err(unreachable) => return render::refusal(context.format, &unreachable, args.to_dir.as_deref()),
    };
    check_action(&plan, args.target_action)?;
    let choices = choices(context, &args)?;
    let repository = match &context.settings.repository.url {
        RepositoryUrl::File(path) => Some(path.as_path()),
        RepositoryUrl::S3 { .. } => None,
    };
    let place = |to_dir: &PathBuf| clean::destination(to_dir, &plan, &args.tablespace, args.keep_archiving, repository);
    let destination = args.to_dir.as_ref().map(place).transpose()?;
    if args.dry_run {
        if let Some(destination) = &destination {
            check(&cluster, &plan, destination, &choices).await?;
        }
        return render::dry_run(context.format, &plan, destination.as_ref(), &recovery::settings(&plan, &choices)?);
    }
    let destination = destination.context("--to-dir is needed")?;
    let programs = args.start.then(|| programs::find(plan.backup.major, args.pg_bin.as_deref())).transpose()?;
    let shared: Arc<files::Progress> = Arc::default();
    let restoring =
        restore(&cluster, &plan, &destination, &choices, context.settings.restore.workers, Arc::clone(&shared));
    let step =
        || Step { done: shared.bytes.load(Ordering::Relaxed), total: plan.backup.plain_bytes, phase: String::new() };
    let restored = show(restoring, "restored", step).await?;
    let data_directory = destination.data_directory.as_path();
    if context.format == Format::Table {
        print_text(&render::restored(&plan, data_directory, &restored))?;
    }
    if args.keep_archiving {
        check_archiving(&restored.archiving, data_directory)?;
    }
    let recovered = match &programs {
        Some(programs) => Some(follow(context, programs, data_directory, args.port, &plan, &restored).await?),
        None => None,
    };
    let is_doubtful = recovered.as_ref().is_some_and(|recovered| !recovered.doubts.is_empty());
    match (context.format, &recovered) {
        (Format::Json, _) => {
            let archiving = restored.archiving.on;
            print_json(&Report { plan: &plan, data_directory, archiving, restored, recovered })?;
        }
        (Format::Table, Some(recovered)) => print_text(&render::recovered(recovered, data_directory))?,
        (Format::Table, None) => {
            let only = recovery::only_for_recovery(&restored.settings);
            print_text(&render::how_to_start(data_directory, args.target_action, &only))?;
        }
    }
    Ok(if is_doubtful { Exit::Unsound } else { Exit::Success })
}

async fn follow(
    context: &Context,
    programs: &Path,
    data_directory: &Path,
    port: Option<u16>,
    plan: &RecoveryPlan,
    restored: &Restored,
) -> anyhow::Result<Recovered> {
    let begun = Instant::now();
    // The role that reaches the source reaches the restored server, too.
    let user = ConnInfo::from_process(context.settings.postgresql.dsn.expose()).ok().map(|info| info.user);
    let watch = progress::Replay::new();
    let only = recovery::only_for_recovery(&restored.settings);
    let major = plan.backup.major;
    let patience = context.settings.restore.stall_timeout;
    let how = Start { programs, data_directory, major, port, user: user.as_deref(), only_for_recovery: only, patience };
    let recovered = start::start(how, &|log| watch.show(log)).await;
    watch.end();
    let mut recovered = recovered?;
    recovered.check(plan);
    let took = PastRestore {
        at: chrono::Utc::now(),
        plain_bytes: plan.backup.plain_bytes,
        seconds_for_files: restored.seconds_for_files + restored.seconds_for_fsync,
        segments: plan.segments,
        seconds_for_replay: begun.elapsed().as_secs_f64(),
    };
    // Only an estimate depends on it.
    if let Err(error) = past::add(&context.settings.catalog.cache, took) {
        tracing::debug!("{error:#}");
    }
    Ok(recovered)
}

fn refuse_root() -> anyhow::Result<()> {
    match rustix::process::geteuid().is_root() {
        true => Err(anyhow!("a restore as root would make files that PostgreSQL cannot use: it does not run as root"))
            .hint("run this as the server's user, such as `sudo -u postgres walden restore …`"),
        false => Ok(()),
    }
}

fn check_action(plan: &RecoveryPlan, action: TargetAction) -> anyhow::Result<()> {
    if action != TargetAction::Promote && !plan.has_target() {
        let error =
            anyhow!("--target-action other than promote needs a target: at the end of all WAL PostgreSQL promotes");
        return Err(with_hint(error, "name a target, such as --time, or leave out --target-action"));
    }
    Ok(())
}

/// A replacement that does not archive must not go into use unnoticed.
fn check_archiving(archiving: &Archiving, data_directory: &Path) -> anyhow::Result<()> {
    let Some(why) = &archiving.off_because else { return Ok(()) };
    let error = anyhow!("the files are restored, but with their configuration the server would not archive: {why}");
    let file = data_directory.join("postgresql.auto.conf");
    Err(with_hint(
        error,
        format!("set archive_mode = on and archive_command in \"{}\", then start the server", file.display()),
    ))
}

fn choices(context: &Context, args: &Args) -> anyhow::Result<Choices> {
    let (config, configuration) = configuration(context)?;
    let walden = std::env::current_exe().context("cannot find out where walden itself lies")?;
    Ok(Choices {
        action: args.target_action,
        keep_archiving: args.keep_archiving,
        check_space: !args.ignore_free_space,
        fetch: FetchCommand {
            restore_command: program("restore-command"),
            walden,
            config,
            socket: context.settings.service.socket.clone(),
        },
        configuration,
    })
}

/// The file with which the restored server finds the repository; its content when it is to be written. The
/// environment of this process will not be the server's.
fn configuration(context: &Context) -> anyhow::Result<(PathBuf, Option<String>)> {
    let settings = &context.settings;
    // The hook socket stands on the command line of restore_command.
    let is_decisive = |key: &str| matches!(key.split('.').next(), Some("repository" | "s3")) || key == "cluster.name";
    let is_secret = |key: &str| matches!(key, "s3.access_key_id" | "s3.secret_access_key");
    let shown = config::effective(settings);
    let given: Vec<_> =
        shown.iter().filter(|shown| is_decisive(&shown.key) && shown.origin != Origin::Default).collect();
    let of_environment: Vec<_> = given.iter().filter(|shown| shown.origin == Origin::Environment).collect();
    if let Some(secret) = of_environment.iter().find(|shown| is_secret(&shown.key)) {
        let error = anyhow!("{} is set by the environment, which the restored server will not have", secret.key);
        return Err(with_hint(
            error,
            "set it in the configuration file (mode 0600), or use credentials that the standard chain finds",
        ));
    }
    if let (Source::File(path), []) = (&settings.source, &of_environment[..]) {
        return Ok((path.clone(), None));
    }
    if let (Some(secret), Some(other)) = (given.iter().find(|shown| is_secret(&shown.key)), of_environment.first()) {
        let error = anyhow!(
            "{} is set by the environment and {} by a file: the restored server needs both from one file, and its data \
             directory must hold no secret",
            other.key,
            secret.key
        );
        return Err(with_hint(error, format!("set {} in the configuration file, too", other.key)));
    }
    let given: Vec<(&str, &str)> =
        given.iter().filter_map(|shown| Some((shown.key.as_str(), shown.value.as_deref()?))).collect();
    Ok((PathBuf::from(recovery::CONFIGURATION), Some(config::render_commented(&given)?)))
}
