use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::super::exit::print_error;
use super::super::{Context, Exit, Format, bytes, print_json, print_text};
use super::progress;
use crate::api::Dump;
use crate::config::DumpOutput;
use crate::error::one_line;
use crate::plain::counted;
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
}

/// What came of it, for `--format json`.
#[derive(Debug, Serialize)]
struct TakeOutput {
    dumps: Vec<Dump>,
    failed: Vec<FailedDump>,
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
    let cluster = context.cluster().await?;
    let (databases, request) = asked(context, args, format);
    let resolve = || ConnInfo::from_process(context.settings.postgresql.dsn.expose());
    let (request_stop, mut stop) = watch::channel(false);
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    let progress = DumpProgress::new();
    let taking = Taking {
        cluster: &cluster,
        resolve: &resolve,
        settings: &context.settings.dump,
        request: &request,
        progress: &progress,
    };
    let work = progress::show(taking.databases(&databases, &mut stop), &progress);
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
    report(context, outcomes)
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
    let format = format.unwrap_or(match settings.format {
        DumpOutput::Custom => DumpFormat::Custom,
        DumpOutput::Directory => DumpFormat::Directory,
        DumpOutput::Plain => DumpFormat::Plain,
    });
    let jobs = args
        .jobs
        .unwrap_or_else(|| u32::try_from(settings.jobs).unwrap_or(1));
    let options = DumpOptions {
        tables: args.table,
        exclude_tables: args.exclude_table,
        jobs: if format == DumpFormat::Directory {
            jobs
        } else {
            1
        },
    };
    (
        databases,
        DumpRequest {
            kind,
            format,
            options,
        },
    )
}

fn report(context: &Context, outcomes: Vec<DumpOutcome>) -> anyhow::Result<Exit> {
    let mut output = TakeOutput {
        dumps: Vec::new(),
        failed: Vec::new(),
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
