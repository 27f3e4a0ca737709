//! `walden recover`: one table back, beside the present one.

mod render;

use std::time::Instant;

use anyhow::anyhow;
use clap::Subcommand;

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
use crate::postgres::catalog::RecoveryPlan;
use crate::postgres::cluster::Cluster;
use crate::postgres::drill::scratch::remove_leftovers;
use crate::postgres::recover::{RecoverOptions, recover};

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
    if !args.target.names_one() {
        return Err(wrong_usage(with_hint(
            anyhow!("the moment is missing that the table is brought back from"),
            "name it by --before EVENT or --time T; `walden find` lists events",
        )));
    }
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
    let seconds = began.elapsed().as_secs_f64();
    let cluster = planner.cluster();
    recorded(
        &context.settings,
        &cluster,
        Act::TableRecovery,
        async |told| {
            told.phase("plan", seconds);
            carry_out(context, planner.cluster(), plan, &args.options(), told).await
        },
    )
    .await
}

async fn carry_out(
    context: &Context,
    cluster: Cluster,
    plan: RecoveryPlan,
    options: &RecoverOptions,
    told: &mut Told,
) -> anyhow::Result<Exit> {
    let settings = &context.settings;
    told.subject = format!(
        "table \"{}\", from backup {}",
        options.table, plan.backup.id
    );
    let done = tokio::select! {
        done = recover(settings, cluster, plan, options, &mut told.phases) => done,
        asked = asked_to_end() => {
            asked?;
            remove_leftovers(&settings.drill.folder).await?;
            return Err(anyhow!("interrupted: what was restored for it is removed"));
        }
    };
    let report = done?;
    told.details = serde_json::to_value(&report)?;
    match context.format {
        Format::Json => print_json(&report)?,
        Format::Table => print_text(&render::in_words(&report))?,
    }
    Ok(Exit::Success)
}
