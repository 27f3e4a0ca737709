use serde::Serialize;

use super::super::{Context, Exit, Format, Table, bytes, print_json, print_text};
use super::chosen;
use crate::postgres::dump::manifest::{DumpManifest, TableEntry, read_tables};
use crate::postgres::dump::proof::{self, DumpProof};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The dump, as `walden dump list` names it; its file's name will do.
    #[arg(value_name = "ID")]
    id: String,
}

#[derive(Debug, Serialize)]
struct ShowOutput<'a> {
    #[serde(flatten)]
    manifest: &'a DumpManifest,
    /// The last restore of it.
    proof: Option<DumpProof>,
    table_list: Vec<TableEntry>,
}

/// Shows a dump's manifest.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let cluster = context.cluster().await?;
    let (dump, manifest) = chosen::with_manifest(&cluster, &args.id).await?;
    let table_list = read_tables(&cluster, &dump.id).await?.unwrap_or_default();
    let proof = proof::read(&cluster, &dump.id).await?;
    match context.format {
        Format::Json => print_json(&ShowOutput {
            manifest: &manifest,
            proof,
            table_list,
        })?,
        Format::Table => {
            print_text(&about(&manifest, proof.as_ref()))?;
            print_text(&tables(&table_list))?;
        }
    }
    Ok(Exit::Success)
}

fn globals(manifest: &DumpManifest) -> &'static str {
    match &manifest.globals {
        Some(globals) if globals.passwords => "with the roles' passwords",
        Some(_) => "without the roles' passwords",
        None => "none",
    }
}

fn snapshot(manifest: &DumpManifest) -> String {
    let snapshot = &manifest.snapshot;
    match snapshot.name.is_empty() {
        true => format!(
            "pg_dump's own, before {} and {}",
            snapshot.lsn, snapshot.time
        ),
        false => format!("{}, {}", snapshot.lsn, snapshot.time),
    }
}

fn server(manifest: &DumpManifest) -> String {
    let version = manifest.server_version.clone();
    let Some(drill) = &manifest.drill else {
        return version;
    };
    let last = match drill.last_transaction {
        Some(time) => format!("last transaction {time}"),
        None => "no transaction was replayed".into(),
    };
    format!(
        "{version}, a drill's, of backup {}, on timeline {}; {last}",
        drill.backup, drill.timeline
    )
}

fn about(manifest: &DumpManifest, proof: Option<&DumpProof>) -> String {
    let database = &manifest.database;
    let list = |names: &[String]| match names {
        [] => "none".into(),
        _ => names.join(", "),
    };
    let extensions: Vec<String> = manifest
        .extensions
        .iter()
        .map(|extension| format!("{} {}", extension.name, extension.version))
        .collect();
    let proven = proof.map_or("never".into(), |proof| {
        format!(
            "{}, on PostgreSQL {}",
            proof.proven_at, proof.server_version
        )
    });
    let mut table = Table::new(&["DUMP", &manifest.id.to_string()]);
    for (name, value) in [
        ("database", manifest.id.database().to_string()),
        ("kind", manifest.kind.as_str().into()),
        ("format", manifest.format.as_str().into()),
        ("started", manifest.started_at.to_string()),
        ("finished", manifest.finished_at.to_string()),
        ("snapshot", snapshot(manifest)),
        ("server", server(manifest)),
        ("pg_dump", manifest.pg_dump_version.clone()),
        ("owner", database.owner.clone()),
        (
            "encoding",
            format!(
                "{}, {}, {}",
                database.encoding, database.collate, database.provider
            ),
        ),
        ("database size", bytes(database.size)),
        ("dump size", bytes(manifest.size())),
        ("roles", list(&manifest.roles)),
        ("tablespaces", list(&manifest.tablespaces)),
        ("extensions", list(&extensions)),
        ("globals", globals(manifest).into()),
        ("last proven", proven),
    ] {
        table.row([name.to_string(), value]);
    }
    for object in &manifest.objects {
        table.row([
            object.path.clone(),
            format!("{}, SHA-256 {}", bytes(object.size), object.sha256),
        ]);
    }
    table.render() + "\n"
}

fn tables(entries: &[TableEntry]) -> String {
    let mut table = Table::new(&[
        "SCHEMA",
        "TABLE",
        ">ROWS (ESTIMATE)",
        ">SIZE",
        "IN THE DUMP",
    ]);
    for entry in entries {
        table.row([
            entry.schema.clone(),
            entry.name.clone(),
            entry
                .rows
                .map_or("unknown".into(), |rows| format!("{rows:.0}")),
            entry.size.map_or("unknown".into(), bytes),
            if entry.has_rows { "rows" } else { "definition" }.into(),
        ]);
    }
    table.render()
}
