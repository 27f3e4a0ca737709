//! `walden recover`: one table back, beside the present one.

mod render;

use std::time::Instant;

use anyhow::anyhow;
use clap::Subcommand;

use super::dump::dump_of;
use super::evidence::{Told, recorded};
use super::exit::wrong_usage;
use super::planning;
use super::repo::asked_to_end;
use super::restore::refuse_root;
use super::restore::render::refusal;
use super::restore::target::{MEANINGS, TargetArgs, request};
use super::{Context, Exit, Format, print_json, print_text};
use crate::error::with_hint;
use crate::evidence::record::Act;
use crate::plain::shell_quoted;
use crate::postgres::recover::{DumpOrigin, Origin, RecoverOptions, recover};
use crate::postgres::replication::ConnInfo;

/// Arguments of `walden recover`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: RecoverVerb,
}

#[derive(Debug, Subcommand)]
enum RecoverVerb {
    /// Bring a table back as it was at a moment, beside the present one, and show how their rows differ.
    #[command(after_help = MEANINGS)]
    Table(Box<TableArgs>),
}

#[derive(Debug, clap::Args)]
struct TableArgs {
    /// The table: TABLE or SCHEMA.TABLE, as it was called at that moment.
    #[arg(value_name = "TABLE")]
    table: String,
    /// The database that it was in; else that of `postgresql.dsn`.
    #[arg(long, value_name = "DATABASE")]
    database: Option<String>,
    #[command(flatten)]
    target: TargetArgs,
    /// From a dump instead of a backup: as `walden dump list` names it, or a file or folder of pg_dump; else the newest of the
    /// database.
    #[arg(long, value_name = "DUMP", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    from_dump: Option<String>,
    /// Where it goes: a database of the same server, or a connection string; else the database that it was in.
    #[arg(long, value_name = "DATABASE")]
    into: Option<String>,
    /// What it is called there; else NAME_recovered. Nothing that exists is ever replaced.
    #[arg(long = "as", value_name = "NEWNAME")]
    new_name: Option<String>,
    /// Only rows for which this SQL holds. Outside of pg_catalog, names in it need their schema.
    #[arg(long = "where", value_name = "SQL")]
    condition: Option<String>,
    /// Bring columns and rows alone: no keys, indexes, defaults, sequences, comments.
    #[arg(long)]
    rows_only: bool,
    /// Put the missing rows back into the present table, in one transaction. A table that is gone gets its name back.
    #[arg(long)]
    put_back: bool,
}

impl TableArgs {
    fn options(&self) -> RecoverOptions {
        RecoverOptions {
            table: self.table.clone(),
            database: self.database.clone(),
            into: self.into.clone(),
            new_name: self.new_name.clone(),
            condition: self.condition.clone(),
            rows_only: self.rows_only,
            put_back: self.put_back,
        }
    }
}

/// Runs the verb. Exit code 4 when the moment cannot be reached exactly.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<Exit> {
    let RecoverVerb::Table(args) = args.verb;
    match (args.target.names_one(), &args.from_dump) {
        (true, None) => of_backup(context, &args).await,
        (false, Some(dump)) => of_dump(context, &args, dump).await,
        (true, Some(_)) => Err(wrong_usage(with_hint(
            anyhow!("a dump has one moment: its own"),
            "leave out --from-dump, or the moment",
        ))),
        (false, None) => Err(wrong_usage(with_hint(
            anyhow!("the moment is missing that the table is brought back from"),
            "name it by --before EVENT or --time T (`walden find` lists events), or use --from-dump",
        ))),
    }
}

async fn of_backup(context: &Context, args: &TableArgs) -> anyhow::Result<Exit> {
    let asked = args.target.asked()?;
    refuse_root()?;
    let began = Instant::now();
    let planner = planning::open(context, asked.needs_index()).await?;
    let request = request(asked, &planner).await?;
    let plan = match planner.decide(&request).await? {
        Ok(plan) => plan,
        Err(unreachable) => {
            let table = shell_quoted(&args.table);
            let command = |arguments: &str| format!("walden recover table {table} {arguments}");
            return refusal(context.format, &unreachable, &command);
        }
    };
    let (seconds, from) = (
        began.elapsed().as_secs_f64(),
        format!("backup {}", plan.backup.id),
    );
    let (settings, cluster) = (&context.settings, planner.cluster());
    let origin = Origin::Backup(planner.cluster(), Box::new(plan));
    recorded(settings, &cluster, Act::TableRecovery, async |told| {
        told.phase("plan", seconds);
        carry_out(context, origin, &from, args, told).await
    })
    .await
}

async fn of_dump(context: &Context, args: &TableArgs, named: &str) -> anyhow::Result<Exit> {
    refuse_root()?;
    let settings = &context.settings;
    let cluster = context.cluster().await?;
    let info = ConnInfo::from_process(settings.postgresql.dsn.expose())?;
    let database = args.database.as_deref().unwrap_or(&info.database);
    let named = Some(named).filter(|named| !named.is_empty());
    let found = dump_of(context, named, database).await?;
    let from = format!("dump {}", found.name);
    found
        .held(async |found| {
            recorded(settings, &cluster, Act::TableRecovery, async |told| {
                let (source, name) = (&found.source, found.name.as_str());
                let origin = Origin::Dump(DumpOrigin { source, name });
                carry_out(context, origin, &from, args, told).await
            })
            .await
        })
        .await
}

async fn carry_out(
    context: &Context,
    origin: Origin<'_>,
    from: &str,
    args: &TableArgs,
    told: &mut Told,
) -> anyhow::Result<Exit> {
    told.subject = format!("table \"{}\", from {from}", args.table);
    let (settings, options) = (&context.settings, args.options());
    let stop = asked_to_end();
    let report = recover(settings, origin, &options, &mut told.phases, stop).await?;
    told.details = serde_json::to_value(&report)?;
    match context.format {
        Format::Json => print_json(&report)?,
        Format::Table => print_text(&render::in_words(&report))?,
    }
    Ok(Exit::Success)
}
