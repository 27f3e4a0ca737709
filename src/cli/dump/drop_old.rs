use anyhow::anyhow;

use super::super::{Context, Exit, Format, Table, bytes, print_json, print_text};
use super::confirm::answer;
use crate::error::with_hint;
use crate::postgres::catalog::marks::shown;
use crate::postgres::dump_restore::kept::{KeptDatabase, drop_kept, list};
use crate::postgres::dump_restore::{building, target};
use crate::postgres::replication::ConnInfo;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only what was kept of this database.
    #[arg(long, value_name = "DATABASE")]
    database: Option<String>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Show what would be dropped, and drop nothing.
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
}

/// Drops what restores kept, after showing it; and what interrupted ones left half-made.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let info = ConnInfo::from_process(context.settings.postgresql.dsn.expose())?;
    let mut sql = target::connect(&info, "", "walden").await?;
    let kept = list(&mut sql, args.database.as_deref()).await?;
    match context.format {
        Format::Json => print_json(&kept)?,
        Format::Table => print_text(&in_words(&kept))?,
    }
    if args.dry_run {
        return Ok(Exit::Success);
    }
    let (removed, notes) = building::sweep(&mut sql).await?;
    for name in removed {
        tracing::info!("removed database \"{name}\", which an interrupted restore left");
    }
    for note in notes {
        tracing::warn!("{note}");
    }
    if kept.is_empty() {
        return Ok(Exit::Success);
    }
    if !args.yes {
        match answer("Drop these databases? Type yes:")? {
            Some(answer) if answer == "yes" => (),
            Some(_) => {
                print_text("nothing was dropped\n")?;
                return Ok(Exit::Failed);
            }
            None => {
                let error = anyhow!("dropping databases needs a confirmation");
                return Err(with_hint(error, "add --yes"));
            }
        }
    }
    for database in &kept {
        drop_kept(&mut sql, &database.name).await?;
        tracing::info!("dropped database \"{}\"", database.name);
    }
    sql.close().await?;
    Ok(Exit::Success)
}

fn in_words(kept: &[KeptDatabase]) -> String {
    if kept.is_empty() {
        return "no database is kept of an earlier restore\n".to_string();
    }
    let mut table = Table::new(&["database", "replaced", "kept as", ">size", ">connections"]);
    for database in kept {
        table.row([
            database.of.clone(),
            shown(database.replaced_at),
            database.name.clone(),
            database.size.map_or("unknown".into(), bytes),
            database.sessions.to_string(),
        ]);
    }
    table.render()
}
