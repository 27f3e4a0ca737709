//! `walden dump restore`: validate, then create → fill → end connections → swap.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use chrono::{DateTime, Utc};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::super::evidence::{Told, recorded};
use super::super::exit::{print_error, wrong_usage};
use super::super::{Context, Exit};
use super::chosen::with_manifest;
use super::confirm::production;
use super::found::{FoundDump, kept, on_disk};
use super::restored::{in_one_line, refusal, report, valid};
use crate::error::{self, one_line, with_hint};
use crate::evidence::record::{Act, Scope};
use crate::postgres::catalog::{parse_time, postgresql_time};
use crate::postgres::cluster::Cluster;
use crate::postgres::dump::programs::Programs;
use crate::postgres::dump::proof::{DumpProof, record};
use crate::postgres::dump_restore::digests::WrongDigest;
use crate::postgres::dump_restore::job::{DumpRestored, RestoreJob};
use crate::postgres::dump_restore::needs::RestoreOptions;
use crate::postgres::dump_restore::phases::{PhaseName, Phases};
use crate::postgres::dump_restore::repository::{DamagedDump, newest};
use crate::postgres::dump_restore::target::TargetFacts;
use crate::postgres::dump_restore::validate::{against, list};
use crate::postgres::replication::ConnInfo;
use crate::postgres::replication::conninfo::ProgramConnection;
use crate::postgres::types::MajorVersion;

/// Arguments of `walden dump restore`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true))]
pub struct Args {
    /// The dump, as `walden dump list` names it.
    #[arg(value_name = "ID", group = "which")]
    id: Option<String>,
    /// The newest complete dump of the database.
    #[arg(long, group = "which")]
    latest: bool,
    /// The newest complete dump that shows the database as it was then, or before.
    #[arg(long, value_name = "TIME", group = "which")]
    at: Option<String>,
    /// A dump on disk: a file or folder of pg_dump in custom, directory, tar or plain format (.sql, .sql.zst, .sql.gz). It is
    /// compared with PATH.sha256 or PATH.md5 if there is one.
    #[arg(long, value_name = "PATH", group = "which")]
    file: Option<PathBuf>,
    /// The database to restore; else the one that the dump is of, or with --latest and --at the one of `postgresql.dsn`.
    #[arg(long, value_name = "DATABASE")]
    database: Option<String>,
    /// Restore it under another name.
    #[arg(long = "as", value_name = "NEWNAME")]
    new_name: Option<String>,
    /// Restore a table alone, with what it needs and what is attached to it: TABLE or SCHEMA.TABLE. May be repeated.
    #[arg(long = "table", value_name = "TABLE")]
    tables: Vec<String>,
    /// Restore definitions without rows.
    #[arg(long)]
    schema_only: bool,
    /// Everything shall belong to the role that restores.
    #[arg(long)]
    no_owner: bool,
    /// Leave out what is granted to whom.
    #[arg(long)]
    no_privileges: bool,
    /// Put everything into the default tablespace.
    #[arg(long)]
    no_tablespaces: bool,
    /// What belongs to a role of the dump, or is granted to it, shall be another's. May be repeated.
    #[arg(long, value_name = "OLD=NEW", value_parser = pair)]
    role_map: Vec<(String, String)>,
    /// Connections that load data and build indexes at once.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    jobs: u32,
    /// Restore by one connection in one transaction.
    #[arg(long, conflicts_with = "jobs")]
    single_transaction: bool,
    /// Restore although the server's disk seems to be too small.
    #[arg(long)]
    ignore_free_space: bool,
    /// Have a dump in a cold storage class thawed first, and wait for it. That takes hours or days, and stores charge for it.
    #[arg(long, conflicts_with = "file")]
    thaw: bool,
    /// Validate the dump and ask the server, and restore nothing.
    #[arg(long)]
    verify_only: bool,
    /// Drop the old database once the new one is in its place.
    #[arg(long, conflicts_with = "verify_only")]
    drop_old: bool,
    /// The database's name once more: for a cluster in production, where nobody can be asked.
    #[arg(long, value_name = "DATABASE")]
    yes_restore: Option<String>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((old, new)) if !old.is_empty() && !new.is_empty() => Ok((old.into(), new.into())),
        _ => Err("expected OLD=NEW".into()),
    }
}

impl Args {
    fn options(&self) -> anyhow::Result<RestoreOptions> {
        let mut role_map = BTreeMap::new();
        for (old, new) in &self.role_map {
            if role_map
                .insert(old.clone(), new.clone())
                .is_some_and(|other| other != *new)
            {
                let error = anyhow!("role \"{old}\" is mapped to two others");
                return Err(wrong_usage(with_hint(error, "name one for each role")));
            }
        }
        Ok(RestoreOptions {
            tables: self.tables.clone(),
            schema_only: self.schema_only,
            no_owner: self.no_owner,
            no_privileges: self.no_privileges,
            no_tablespaces: self.no_tablespaces,
            role_map,
            jobs: self.jobs,
            single_transaction: self.single_transaction,
            ignore_free_space: self.ignore_free_space,
        })
    }
}

/// Runs the verb. Exit code 4 when the dump cannot be restored to this server as asked, 3 when it is damaged.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<Exit> {
    let options = args.options()?;
    let info = ConnInfo::from_process(context.settings.postgresql.dsn.expose())?;
    let (request, stop) = watch::channel(false);
    let work = restore(context, &args, &options, &info, stop);
    tokio::pin!(work);
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::warn!("interrupted: giving the restore up");
        request.send_replace(true);
    };
    match done {
        Err(error) if is_damage(&error) => {
            print_error(&error);
            Ok(Exit::Unsound)
        }
        done => done,
    }
}

fn is_damage(error: &anyhow::Error) -> bool {
    error::find::<WrongDigest>(error).is_some() || error::find::<DamagedDump>(error).is_some()
}

async fn in_repository(
    context: &Context,
    args: &Args,
    info: &ConnInfo,
    cluster: &Cluster,
    told: &mut Told,
) -> anyhow::Result<FoundDump> {
    let manifest = match &args.id {
        Some(id) => with_manifest(cluster, id).await?.1,
        None => {
            let until = args
                .at
                .as_deref()
                .map(moment)
                .transpose()
                .map_err(wrong_usage)?;
            let database = args.database.as_deref().unwrap_or(&info.database);
            newest(cluster, database, until, args.schema_only).await?
        }
    };
    told.subject = format!("dump \"{}\"", manifest.id);
    kept(context, cluster.clone(), manifest, args.thaw).await
}

/// The moment that a text names, by UTC unless it says something else.
fn moment(text: &str) -> anyhow::Result<DateTime<Utc>> {
    let (time, is_in_full) = parse_time(text, Utc::now())?;
    if !is_in_full {
        tracing::info!("\"{text}\" is taken as {}, by UTC", postgresql_time(time));
    }
    Ok(time)
}

/// Restores, and keeps a record of it, however it ends, where the dump is the repository's.
async fn restore(
    context: &Context,
    args: &Args,
    options: &RestoreOptions,
    info: &ConnInfo,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<Exit> {
    if let Some(path) = &args.file {
        let (found, told) = (on_disk(path), &mut Told::default());
        return attempt(
            (context, args, options, info),
            async |_| found.await,
            stop,
            told,
        )
        .await;
    }
    let cluster = context.cluster().await?;
    let work = async |told: &mut Told| {
        told.subject = "a dump that is to be restored".into();
        let is_whole = args.tables.is_empty() && !args.schema_only;
        told.scope = Some(if is_whole { Scope::Whole } else { Scope::Part });
        let found =
            async |told: &mut Told| in_repository(context, args, info, &cluster, told).await;
        attempt((context, args, options, info), found, stop, told).await
    };
    match args.verify_only {
        true => work(&mut Told::default()).await,
        false => recorded(&context.settings, &cluster, Act::DumpRestore, work).await,
    }
}

/// What a restore is asked for, and where.
type Asked<'a> = (&'a Context, &'a Args, &'a RestoreOptions, &'a ConnInfo);

/// What the repository keeps for the dump is given back however the restore ends.
async fn attempt(
    asked: Asked<'_>,
    find: impl AsyncFnOnce(&mut Told) -> anyhow::Result<FoundDump>,
    stop: watch::Receiver<bool>,
    told: &mut Told,
) -> anyhow::Result<Exit> {
    let mut phases = Phases::default();
    phases.begin(PhaseName::Validate);
    let mut interrupted = stop.clone();
    let found = tokio::select! {
        found = find(told) => found?,
        Ok(_) = interrupted.wait_for(|stop| *stop) => {
            return Err(anyhow!("the restore was interrupted; nothing was changed"));
        }
    };
    found
        .held(async |found| restore_found(asked, found, (phases, stop), told).await)
        .await
}

async fn restore_found(
    (context, args, options, info): Asked<'_>,
    found: &FoundDump,
    (mut phases, stop): (Phases, watch::Receiver<bool>),
    told: &mut Told,
) -> anyhow::Result<Exit> {
    let (settings, source) = (&context.settings, &found.source);
    let database = database_name(args, found)?;
    told.subject = format!("dump \"{}\" as database \"{database}\"", found.name);
    let is_remote = !settings.dump.command_prefix.is_empty();
    let wanted = found.wanted(&database, options, is_remote);
    let (target, plan) = against(info, &wanted).await?;
    let plan = match plan {
        Ok(plan) => plan,
        Err(reasons) => {
            told.reason = in_one_line(&reasons);
            return refusal(context.format, &found.name, &reasons);
        }
    };
    let programs = Programs::find(&settings.dump, MajorVersion::new(plan.program_major)?).await?;
    let dsn = settings.dump.dsn.expose();
    let server = &target.server;
    let program =
        |name: &str, database: Option<&str>| start(&programs, info, server, dsn, name, database);
    list(&program, source, is_remote).await?;
    if args.verify_only {
        return valid(context.format, &found.name, &plan, found.is_proven);
    }
    if settings.cluster.production {
        production(
            &settings.cluster.name,
            &database,
            args.yes_restore.as_deref(),
        )?;
    }
    let job = RestoreJob {
        info,
        program: &program,
        is_remote,
        source,
        target: &target,
        plan: &plan,
        options,
        facts: wanted.facts,
        drop_old: args.drop_old,
        spool: settings.dump.spool.as_deref(),
        stop,
    };
    let restored = job.restore(&mut phases).await?;
    told.details = serde_json::to_value(&restored)?;
    prove(found, options, &restored, &target).await;
    report(context.format, &found.name, &restored)
}

fn database_name(args: &Args, found: &FoundDump) -> anyhow::Result<String> {
    let named = args.new_name.as_deref().or(args.database.as_deref());
    let kept = found.kept.as_ref().map(|kept| kept.manifest.id.database());
    let own = named.or(kept).or(found.source.content.database());
    own.map(str::to_string).ok_or_else(|| {
        let error = anyhow!(
            "the dump \"{}\" does not say which database it is of",
            found.name
        );
        wrong_usage(with_hint(error, "name it with --database"))
    })
}

/// A client program, connected as the settings say.
fn start(
    programs: &Programs,
    info: &ConnInfo,
    server: &str,
    dsn: &str,
    name: &str,
    database: Option<&str>,
) -> anyhow::Result<Command> {
    let Some(database) = database else {
        return Ok(programs.command(name));
    };
    let connection = match dsn {
        "" => info.for_programs(server, database),
        dsn => ProgramConnection::elsewhere(dsn, database).context("`dump.dsn` cannot be read")?,
    };
    let mut command = programs.connecting(name, &connection);
    command.arg(format!("--dbname={}", connection.conninfo));
    Ok(command)
}

/// Records that all of a dump was restored. It is restored without, too.
async fn prove(
    found: &FoundDump,
    options: &RestoreOptions,
    restored: &DumpRestored,
    target: &TargetFacts,
) {
    let is_all = options.tables.is_empty() && !options.schema_only;
    let Some(kept) = found.kept.as_ref().filter(|_| is_all) else {
        return;
    };
    let proof = DumpProof {
        proven_at: Utc::now(),
        server_version: target.version.clone(),
        restored_as: restored.database.clone(),
    };
    if let Err(error) = record(&kept.cluster, &kept.manifest.id, &proof).await {
        tracing::warn!(
            "that the dump was proven by this restore is not recorded: {}",
            one_line(&error)
        );
    }
}
