//! A restore of a dump in words.

use serde::Serialize;

use super::super::{Exit, Format, Table, print_json, print_text};
use crate::plain::{counted, plain};
use crate::postgres::dump_restore::decide::{Reason, RestorePlan};
use crate::postgres::dump_restore::job::DumpRestored;

/// What was found out and done, for `--format json`.
#[derive(Serialize)]
#[serde(rename_all = "snake_case", tag = "result")]
enum RestoreOutput<'a> {
    Refused {
        reasons: &'a [Reason],
    },
    Valid {
        dump: &'a str,
        plan: &'a RestorePlan,
    },
    Restored {
        dump: &'a str,
        #[serde(flatten)]
        restored: &'a DumpRestored,
    },
}

/// Tells what was done.
pub fn report(format: Format, dump: &str, restored: &DumpRestored) -> anyhow::Result<Exit> {
    match format {
        Format::Json => print_json(&RestoreOutput::Restored { dump, restored })?,
        Format::Table => print_text(&in_words(dump, restored))?,
    }
    Ok(Exit::Success)
}

/// Tells all reasons against a restore.
pub fn refusal(format: Format, dump: &str, reasons: &[Reason]) -> anyhow::Result<Exit> {
    if format == Format::Json {
        print_json(&RestoreOutput::Refused { reasons })?;
    }
    eprintln!(
        "ERROR: dump \"{}\" cannot be restored like that; nothing was changed",
        plain(dump)
    );
    for Reason { what, hint } in reasons {
        eprintln!("REASON: {}", plain(what));
        eprintln!("HINT: {}", plain(hint));
    }
    Ok(Exit::Refused)
}

/// All reasons against a restore.
pub fn in_one_line(reasons: &[Reason]) -> String {
    let all: Vec<&str> = reasons.iter().map(|reason| reason.what.as_str()).collect();
    all.join("; ")
}

/// Tells that a dump can be restored.
pub fn valid(
    format: Format,
    dump: &str,
    plan: &RestorePlan,
    is_proven: bool,
) -> anyhow::Result<Exit> {
    match format {
        Format::Json => print_json(&RestoreOutput::Valid { dump, plan })?,
        Format::Table => {
            let digest = match is_proven {
                true => "its digest is right",
                false => "it has no checksum file",
            };
            let notes = plan.notes.iter().map(|note| format!("note: {note}\n"));
            print_text(&format!(
                "dump \"{dump}\" can be restored as database \"{}\"; {digest}\n{}",
                plan.database,
                notes.collect::<String>()
            ))?;
        }
    }
    Ok(Exit::Success)
}

fn in_words(dump: &str, restored: &DumpRestored) -> String {
    let mut text = format!(
        "restored \"{dump}\" as database \"{}\"\n",
        restored.database
    );
    let mut table = Table::new(&["phase", ">seconds"]);
    for phase in &restored.phases {
        table.row([
            phase.name.as_str().to_string(),
            format!("{:.2}", phase.seconds),
        ]);
    }
    text += &table.render();
    if restored.ended_connections > 0 {
        text += &format!(
            "{} ended\n",
            counted(restored.ended_connections, "connection")
        );
    }
    for note in &restored.notes {
        text += &format!("note: {note}\n");
    }
    if let Some(kept) = &restored.kept_as {
        text +=
            &format!("the old database is kept as \"{kept}\"; `walden dump drop-old` drops it\n");
    }
    text + "the new database has no statistics yet: run `vacuumdb --analyze-in-stages`\n"
}
