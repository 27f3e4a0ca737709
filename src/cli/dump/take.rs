use std::sync::Arc;

use anyhow::anyhow;
use chrono::Utc;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::super::evidence::keep;
use super::super::exit::print_error;
use super::super::repo::asked_to_end;
use super::super::restore::refuse_root;
use super::super::{Context, Exit, Format, bytes, drill, planning, print_json, print_text};
use super::progress;
use crate::api::Dump;
use crate::config::DumpFrom;
use crate::error::one_line;
use crate::evidence::record::Verdict;
use crate::plain::counted;
use crate::postgres::drill::DrillReport;
use crate::postgres::drill::dumped::{self, DumpOrder, DumpedDrill};
use crate::postgres::drill::target::DrillTarget;
use crate::postgres::dump::command::DumpRequest;
use crate::postgres::dump::manifest::{DumpManifest, DumpOptions};
use crate::postgres::dump::progress::DumpProgress;
use crate::postgres::dump::take::{Databases, DumpOutcome, Taking};
use crate::postgres::layout::{DumpFormat, DumpKind};
use crate::postgres::replication::ConnInfo;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A database to dump; can be repeated. Else the one that `postgresql.dsn` names.
    #[arg(long, value_name = "DATABASE")]
    database: Vec<String>,
    /// Dump all databases that allow connections and are no templates.
    #[arg(long, conflicts_with = "database")]
    all: bool,
    /// Definitions without rows.
    #[arg(long, conflicts_with = "data_only")]
    schema_only: bool,
    /// Rows without definitions.
    #[arg(long)]
    data_only: bool,
    /// Only tables that match, as `pg_dump --table` takes it; can be repeated.
    #[arg(long, value_name = "PATTERN")]
    table: Vec<String>,
    /// No tables that match; can be repeated.
    #[arg(long, value_name = "PATTERN")]
    exclude_table: Vec<String>,
    /// Tables copied at once, in directory format. Else `dump.jobs` decides.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    jobs: Option<u32>,
    /// Take them from the server, or from one that a drill restores. Else `dump.source` decides.
    #[arg(long, value_name = "SOURCE", value_parser = source_parser())]
    source: Option<DumpFrom>,
}

fn source_parser() -> impl TypedValueParser<Value = DumpFrom> {
    const ALL: [DumpFrom; 2] = [DumpFrom::Server, DumpFrom::Drill];
    PossibleValuesParser::new(ALL.map(DumpFrom::as_str)).try_map(|name| {
        let found = ALL.into_iter().find(|source| source.as_str() == name);
        found.ok_or("no such source")
    })
}

/// What came of it, for `--format json`.
#[derive(Debug, Serialize)]
struct TakeOutput {
    dumps: Vec<Dump>,
    failed: Vec<FailedDump>,
    /// The drill that restored the server they were taken from.
    #[serde(skip_serializing_if = "Option::is_none")]
    drill: Option<DrillReport>,
}

#[derive(Debug, Serialize)]
struct FailedDump {
    database: String,
    error: String,
}

/// Takes dumps. Exit code 1 when one of them failed; the others are complete.
pub async fn run(
    context: &Context,
    args: Args,
    format: Option<DumpFormat>,
) -> anyhow::Result<Exit> {
    let source = args.source.unwrap_or(context.settings.dump.source);
    let (databases, request) = asked(context, args, format);
    let progress = DumpProgress::new();
    match source {
        DumpFrom::Server => of_server(context, &databases, &request, &progress).await,
        DumpFrom::Drill => {
            let order = DumpOrder {
                databases: &databases,
                request: &request,
                progress: &progress,
            };
            of_drill(context, &order).await
        }
    }
}

async fn of_server(
    context: &Context,
    databases: &Databases,
    request: &DumpRequest,
    progress: &Arc<DumpProgress>,
) -> anyhow::Result<Exit> {
    let cluster = context.cluster().await?;
    let resolve = || ConnInfo::from_process(context.settings.postgresql.dsn.expose());
    let (request_stop, mut stop) = watch::channel(false);
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    let taking = Taking {
        cluster: &cluster,
        resolve: &resolve,
        settings: &context.settings.dump,
        request,
        progress,
        drilled: None,
    };
    let work = progress::show(taking.databases(databases, &mut stop), progress);
    tokio::pin!(work);
    let outcomes = loop {
        tokio::select! {
            outcomes = &mut work => break outcomes?,
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::warn!("interrupted: giving the dump up");
        request_stop.send_replace(true);
    };
    report(context, outcomes, None)
}

/// A drill, and dumps of its server.
async fn of_drill(context: &Context, order: &DumpOrder<'_>) -> anyhow::Result<Exit> {
    let settings = &context.settings;
    refuse_root()?;
    if !settings.dump.command_prefix.is_empty() || !settings.dump.dsn.is_empty() {
        tracing::info!(
            "`dump.command_prefix` and `dump.dsn` are not used: the drill's server runs on this machine"
        );
    }
    let options = drill::options(context, DrillTarget::Latest, false)?;
    let planner = planning::open(context, true).await?;
    let work = dumped::run(settings, &planner, &options, order, asked_to_end());
    let DumpedDrill {
        report: of_drill,
        dumps,
    } = match progress::show(work, order.progress).await {
        Ok(done) => done,
        Err(refused) => return drill::refusal_of(context, &refused),
    };
    keep(settings, &planner.cluster(), of_drill.evidence(Utc::now())).await;
    if context.format == Format::Table {
        print_text(&drill::in_words(&of_drill))?;
    }
    let (outcomes, failed) = match dumps {
        Some(Ok(outcomes)) => (outcomes, None),
        Some(Err(error)) => (Vec::new(), Some(error)),
        None => (Vec::new(), Some(anyhow!("there was no server to dump"))),
    };
    let is_dumped = failed.is_none();
    if let Some(error) = failed {
        print_error(&error.context("no dump was taken"));
    }
    let verdict = of_drill.verdict;
    let exit = report(context, outcomes, Some(of_drill))?;
    Ok(match verdict {
        Verdict::Passed if !is_dumped => Exit::Failed,
        Verdict::Passed => exit,
        verdict => drill::exit(verdict),
    })
}

fn asked(context: &Context, args: Args, format: Option<DumpFormat>) -> (Databases, DumpRequest) {
    let settings = &context.settings.dump;
    let databases = match (args.all, args.database.is_empty()) {
        (true, _) => Databases::All,
        (false, true) => Databases::Connected,
        (false, false) => Databases::Named(args.database),
    };
    let kind = match (args.schema_only, args.data_only) {
        (true, _) => DumpKind::Schema,
        (_, true) => DumpKind::Data,
        _ => DumpKind::Full,
    };
    let request = DumpRequest::whole(settings);
    let request = DumpRequest {
        kind,
        format: format.unwrap_or(request.format),
        options: DumpOptions {
            tables: args.table,
            exclude_tables: args.exclude_table,
            jobs: 1,
        },
    };
    let jobs = u32::try_from(settings.jobs).unwrap_or(1);
    (databases, request.by(args.jobs.unwrap_or(jobs)))
}

fn report(
    context: &Context,
    outcomes: Vec<DumpOutcome>,
    drill: Option<DrillReport>,
) -> anyhow::Result<Exit> {
    let mut output = TakeOutput {
        dumps: Vec::new(),
        failed: Vec::new(),
        drill,
    };
    for DumpOutcome { database, result } in outcomes {
        match result {
            Ok(manifest) => {
                if context.format == Format::Table {
                    print_text(&in_words(&manifest))?;
                }
                output.dumps.push(Dump::from(&manifest));
            }
            Err(error) => {
                print_error(&error);
                output.failed.push(FailedDump {
                    database,
                    error: one_line(&error),
                });
            }
        }
    }
    if context.format == Format::Json {
        print_json(&output)?;
    }
    Ok(if output.failed.is_empty() {
        Exit::Success
    } else {
        Exit::Failed
    })
}

fn in_words(manifest: &DumpManifest) -> String {
    let seconds = (manifest.finished_at - manifest.started_at).as_seconds_f64();
    format!(
        "dump {}: {}, {} of database \"{}\", in {seconds:.1} s; everything before {}\n",
        manifest.id,
        bytes(manifest.size()),
        counted(manifest.tables, "table"),
        manifest.id.database(),
        manifest.snapshot.lsn,
    )
}
