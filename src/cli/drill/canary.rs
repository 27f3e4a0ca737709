use anyhow::anyhow;
use chrono::Utc;
use serde::Serialize;

use super::super::evidence::append;
use super::super::exit::wrong_usage;
use super::super::{Context, Exit, Format, print_json, print_text};
use crate::error::with_hint;
use crate::plain::counted;
use crate::postgres::drill::{Counts, WrittenCanary, count_source, parse_table, write_canary};
use crate::postgres::replication::ConnInfo;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Before that, count the rows of the tables of `drill.counts` in one snapshot, and keep the result in the repository:
    /// `walden drill run --at counted` compares.
    #[arg(long)]
    counts: bool,
}

/// What was done.
#[derive(Serialize)]
struct Done {
    #[serde(flatten)]
    canary: WrittenCanary,
    #[serde(skip_serializing_if = "Option::is_none")]
    counts: Option<Counts>,
}

/// Writes a canary on the source.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let settings = &context.settings;
    let Some(database) = &settings.drill.canary else {
        let error = anyhow!("\"drill.canary\" is not set: nothing is written on the server");
        let hint = "set it to the database that may have a schema \"walden\"";
        return Err(wrong_usage(with_hint(error, hint)));
    };
    let counts = match args.counts {
        true => Some(count(context, database).await?),
        false => None,
    };
    // Its WAL lies behind the place of the counts, which can be restored to as soon as that is archived.
    let info = ConnInfo::from_process(settings.postgresql.dsn.expose())?;
    let canary = write_canary(info, database).await?;
    let done = Done { canary, counts };
    match context.format {
        Format::Json => print_json(&done)?,
        Format::Table => print_text(&in_words(&done))?,
    }
    Ok(Exit::Success)
}

/// Counts, and keeps a record of it. Errors: also that none can be kept.
async fn count(context: &Context, database: &str) -> anyhow::Result<Counts> {
    let settings = &context.settings;
    let wrong = |what: String| {
        let hint = "name tables as in [\"public.orders\"]";
        wrong_usage(with_hint(anyhow!(what), hint))
    };
    let names = settings.drill.counts.iter();
    let tables = names.map(|text| {
        let table = parse_table(text);
        table.ok_or_else(|| wrong(format!("\"{text}\" is no table's name with its schema")))
    });
    let tables = tables.collect::<anyhow::Result<Vec<_>>>()?;
    if tables.is_empty() {
        return Err(wrong("\"drill.counts\" names no table".into()));
    }
    let (cluster, began) = (context.cluster().await?, Utc::now());
    let info = ConnInfo::from_process(settings.postgresql.dsn.expose())?;
    let (system, limit) = (cluster.description.system_identifier, settings.drill.budget);
    let counts = count_source(info, database, &tables, system, limit).await?;
    append(settings, &cluster, counts.evidence(began, Utc::now())).await?;
    Ok(counts)
}

fn in_words(Done { canary, counts }: &Done) -> String {
    let database = &canary.database;
    let mut text = String::new();
    if let Some(counts) = counts {
        let tables = counted(counts.tables.len() as u64, "table");
        text += &format!(
            "{tables} of database \"{database}\" counted at {}\n",
            counts.lsn
        );
    }
    if canary.is_first {
        text += "table walden.canary is made\n";
    }
    let (id, at) = (&canary.id, &canary.at);
    text + &format!("canary {id} is written into database \"{database}\" at {at}\n")
}
