//! A restore in words.

use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

use super::super::{Exit, Format, Table, bytes, print_json, print_text};
use crate::api::{RecoveryTarget, Setting};
use crate::plain::{counted, plain};
use crate::postgres::catalog::{
    Neighbours, RecoveryPlan, Transaction, Unreachable, postgresql_time,
};
use crate::postgres::command_line::for_people;
use crate::postgres::restore::Restored;
use crate::postgres::restore::configuration::ArchivingConfig;
use crate::postgres::restore::destination::Destination;
use crate::postgres::restore::put_aside::{KeptFolder, PutAside};
use crate::postgres::restore::server_log::StartPhase;
use crate::postgres::restore::start::Recovered;
use crate::postgres::restore::target_action::TargetAction;

/// A plan and all settings that it leads to.
#[derive(Serialize)]
struct PlanOutput<'a> {
    #[serde(flatten)]
    target: RecoveryTarget,
    all_settings: Vec<Setting>,
    /// What would be kept of what is there.
    #[serde(skip_serializing_if = "<[KeptFolder]>::is_empty")]
    kept: &'a [KeptFolder],
}

/// Prints why a target cannot be reached, and what can. `command` asks for a moment by these arguments.
pub fn refusal(
    format: Format,
    refused: &Unreachable,
    command: &dyn Fn(&str) -> String,
) -> anyhow::Result<Exit> {
    if format == Format::Json {
        print_json(&RecoveryTarget::from(refused))?;
    }
    eprintln!("ERROR: {}", plain(&refused.to_string()));
    for other in &refused.other_timelines {
        eprintln!("NOTE: {other}");
    }
    for note in &refused.notes {
        eprintln!("NOTE: {}", plain(note));
    }
    for (when, nearest) in [
        ("before", &refused.nearest_before),
        ("after", &refused.nearest_after),
    ] {
        if let Some(nearest) = nearest {
            let (words, command) = (&nearest.words, command(&nearest.request.arguments()));
            eprintln!(
                "HINT: nearest reachable moment {when}: {}: {}",
                plain(words),
                plain(&command)
            );
        }
    }
    eprintln!("HINT: {}", plain(&refused.hint()));
    Ok(Exit::Refused)
}

/// Prints a plan that is not carried out.
pub fn dry_run(
    format: Format,
    plan: &RecoveryPlan,
    (destination, kept): (Option<&Destination>, &[KeptFolder]),
    settings: &[(String, String)],
) -> anyhow::Result<Exit> {
    match format {
        Format::Json => {
            print_json(&PlanOutput {
                target: plan.into(),
                all_settings: settings.iter().map(Into::into).collect(),
                kept,
            })?;
        }
        Format::Table => {
            let rows = destination.map(of_destination).unwrap_or_default();
            let rows = rows.into_iter().chain(kept.iter().map(row_of_kept));
            print_text(&in_words(plan, rows.collect(), settings))?;
        }
    }
    Ok(Exit::Success)
}

/// A name, or none for what goes on with the row before, and a value.
type Row = (&'static str, String);

fn in_words(plan: &RecoveryPlan, destination: Vec<Row>, settings: &[(String, String)]) -> String {
    let settings = settings
        .iter()
        .map(|(name, value)| ("setting", format!("{name} = '{value}'")));
    let warnings = plan
        .warnings
        .iter()
        .map(|warning| ("warning", warning.clone()));
    let mut table = Table::new(&["", ""]);
    let rows = of_target(plan).into_iter().chain(of_replay(plan));
    let rows = rows.chain(destination).chain(settings).chain(warnings);
    rows.for_each(|(name, value)| table.row([name.to_string(), value]));
    table.render().trim_start_matches('\n').to_string()
}

fn of_target(plan: &RecoveryPlan) -> Vec<Row> {
    let mut rows = vec![
        ("target", plan.target.clone()),
        ("stops", plan.stop.words()),
    ];
    if let Some(Neighbours {
        last_included,
        first_excluded,
    }) = plan.transactions
    {
        let or = |found: Option<Transaction>, why: &str| {
            found.map_or_else(|| why.to_string(), transaction)
        };
        rows.push((
            "last included",
            or(last_included, "none since the backup began"),
        ));
        rows.push((
            "first excluded",
            or(first_excluded, "none that is archived"),
        ));
    }
    rows.extend(plan.notes.iter().map(|note| ("", note.clone())));
    rows
}

fn of_replay(plan: &RecoveryPlan) -> Vec<Row> {
    let backup = &plan.backup;
    let (size, ended) = (
        bytes(backup.plain_bytes),
        postgresql_time(backup.stopped_at),
    );
    let mut rows = vec![
        ("backup", format!("{} ({})", backup.id, plan.reason)),
        (
            "",
            format!("PostgreSQL {}, {size}, ended {ended}", backup.major),
        ),
    ];
    rows.extend(plan.path.iter().map(|step| {
        let to = step
            .to
            .map_or("the target".to_string(), |to| to.to_string());
        (
            "timeline",
            format!(
                "{} from {} to {to}",
                step.timeline,
                step.from.max(backup.start_lsn)
            ),
        )
    }));
    rows.extend(
        plan.other_timelines
            .iter()
            .map(|other| ("", other.to_string())),
    );
    rows.extend(plan.wal.iter().map(|piece| {
        let (segments, stored) = (
            counted(piece.segments, "segment"),
            bytes(piece.stored_bytes),
        );
        (
            "WAL",
            format!(
                "{} to {}, {segments}, about {stored}",
                piece.first, piece.last
            ),
        )
    }));
    let end = plan
        .wal_end
        .map(|end| format!("before {end}: from there on restore_command delivers nothing"));
    rows.extend(end.map(|end| ("WAL ends", end)));
    let expected = plan.expected_seconds.map(duration);
    rows.extend(expected.map(|expected| {
        (
            "expected",
            format!("about {expected}, judging by past restores"),
        )
    }));
    rows
}

fn of_destination(destination: &Destination) -> Vec<Row> {
    let moved = destination
        .tablespaces
        .iter()
        .map(|(oid, place)| format!("{oid} to {}", place.display()));
    let made = destination
        .made
        .iter()
        .map(|place| format!("made by replay at {}", place.display()));
    let tablespaces = moved
        .chain(made)
        .map(|tablespace| ("tablespace", tablespace));
    std::iter::once(("to", destination.data_directory.display().to_string()))
        .chain(tablespaces)
        .collect()
}

fn row_of_kept(KeptFolder { was, kept_as }: &KeptFolder) -> Row {
    let (was, kept_as) = (was.display(), kept_as.display());
    ("keeps", format!("{was} as {kept_as}"))
}

/// What was there is put aside.
pub fn kept(aside: &PutAside) -> String {
    let mut text = String::new();
    if let Some(KeptFolder { was, kept_as }) = &aside.kept {
        let (was, kept_as) = (was.display(), kept_as.display());
        let kept = format!("kept \"{was}\" as \"{kept_as}\"");
        let _ = writeln!(text, "{}", plain(&kept));
    }
    let _ = writeln!(text, "  {}", plain(&aside.way_back()));
    text + "  to start the kept cluster, set archive_mode = off first: both would archive into one repository\n"
}

fn transaction(transaction: Transaction) -> String {
    let Transaction { xid, lsn, time } = transaction;
    format!(
        "transaction {xid}, committed {} at {lsn}",
        postgresql_time(time)
    )
}

/// So many seconds, as precise as an estimate is.
fn duration(seconds: f64) -> String {
    match seconds {
        ..90.0 => format!("{seconds:.0} s"),
        ..5400.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

/// The files are there.
pub fn restored(plan: &RecoveryPlan, data_directory: &Path, restored: &Restored) -> String {
    let mut text = format!(
        "restored backup {} to \"{}\": {}, {} in {:.1} s, fsync {:.1} s\n",
        plan.backup.id,
        data_directory.display(),
        counted(restored.files, "file"),
        bytes(restored.bytes),
        restored.seconds_for_files,
        restored.seconds_for_fsync,
    );
    let _ = writeln!(
        text,
        "target: {}, on timeline {}",
        plan.target, plan.timeline
    );
    if let Some(included) = plan
        .transactions
        .and_then(|transactions| transactions.last_included)
    {
        let _ = writeln!(text, "  up to and including {}", transaction(included));
    }
    for other in &plan.other_timelines {
        let _ = writeln!(text, "note: {other}");
    }
    text.push_str(&archiving(&restored.archiving));
    if restored.is_copy {
        text.push_str(
            "a copy: it listens on the socket in its folder alone and runs no subscriptions\n  to let others in: ALTER \
             SYSTEM RESET listen_addresses, then restart it; to let subscriptions run: max_logical_replication_workers\n",
        );
    }
    for warning in plan
        .notes
        .iter()
        .chain(&plan.warnings)
        .chain(&restored.notes)
    {
        let _ = writeln!(text, "note: {}", plain(warning));
    }
    text
}

fn archiving(archiving: &ArchivingConfig) -> String {
    match (&archiving.by, &archiving.off_because) {
        (Some(by), _) => format!("archiving: on, by \"{by}\": stop the original for good\n"),
        // Under the old name the repository would have two histories of one cluster; and what this one begins with, its
        // timeline's history file, is not archived later by itself.
        (None, why) => format!(
            "archiving: off ({}), so that the original's archive stays its own\n  to archive this cluster later: under a \
             new name, by a configuration of its own, with a new backup:\n  `walden --config FILE init --repository URL \
             --cluster NAME --dsn DSN --socket PATH`\n",
            why.as_deref().unwrap_or("not configured")
        ),
    }
}

/// Without `--start`.
pub fn how_to_start(
    data_directory: &Path,
    action: TargetAction,
    only_for_recovery: &[String],
) -> String {
    let start = for_people([
        Path::new("pg_ctl"),
        Path::new("-D"),
        data_directory,
        Path::new("start"),
    ]);
    let mut text = format!("next: start it, `{start}`; it replays to the target by itself\n");
    if action == TargetAction::Shutdown {
        text.push_str(&after_shutdown(data_directory));
    }
    text + &resets(only_for_recovery)
}

/// recovery.signal and the target stay when the server stopped at it.
fn after_shutdown(data_directory: &Path) -> String {
    let file = data_directory.join("postgresql.auto.conf");
    format!(
        "it shuts down at the target, at each start. To open it for writing set recovery_target_action = \
         'promote' in '{}', to go further change the target as well; then start it\n",
        file.display()
    )
}

/// How to take out what is of no use after recovery.
fn resets(only_for_recovery: &[String]) -> String {
    if only_for_recovery.is_empty() {
        return String::new();
    }
    let mut text = "once it is open for writing, remove this recovery's settings, or a standby made from it inherits \
         them:\n"
        .to_string();
    only_for_recovery
        .iter()
        .for_each(|name| text.push_str(&format!("  ALTER SYSTEM RESET {name};\n")));
    text
}

/// What the started server tells.
pub fn recovered(recovered: &Recovered, data_directory: &Path) -> String {
    let state = match recovered.phase {
        StartPhase::Promoted => "at the target and open for writing",
        StartPhase::Paused => {
            "paused at the target, read-only; SELECT pg_wal_replay_resume() opens it for writing"
        }
        StartPhase::ShutDown => "at the target and shut down",
        StartPhase::Recovering => "recovering",
    };
    let unknown = || "unknown".to_string();
    let mut text = format!("recovered: {state}\n");
    if let Some(stopped) = &recovered.stopped {
        let _ = writeln!(text, "  {stopped}");
    }
    for note in &recovered.notes {
        let _ = writeln!(text, "  note: {}", plain(note));
    }
    for doubt in &recovered.doubts {
        let _ = writeln!(text, "  WARNING: {doubt}");
    }
    let _ = writeln!(
        text,
        "  LSN {}",
        recovered.lsn.map_or_else(unknown, |lsn| lsn.to_string())
    );
    let last = recovered
        .last_transaction
        .clone()
        .unwrap_or_else(|| "none was replayed".into());
    let _ = writeln!(text, "  last transaction at {last}");
    let _ = writeln!(
        text,
        "  timeline {}",
        recovered
            .timeline
            .map_or_else(unknown, |timeline| timeline.to_string())
    );
    let control = recovered.programs.join("pg_ctl");
    let control =
        |verb: &str| for_people([&control, Path::new("-D"), data_directory, Path::new(verb)]);
    let log = recovered.log.display();
    match recovered.pid {
        Some(pid) => {
            let port = recovered.port.to_string();
            let connect = [
                Path::new("psql"),
                Path::new("-h"),
                &recovered.socket_directory,
                Path::new("-p"),
            ];
            let connect = for_people(
                connect
                    .into_iter()
                    .chain([Path::new(&port), Path::new("postgres")]),
            );
            let _ = writeln!(text, "connect: {connect}   (process {pid}, log {log})");
            let _ = writeln!(text, "stop: {}", control("stop"));
        }
        None => {
            text.push_str(&after_shutdown(data_directory));
            let _ = writeln!(text, "start: {}   (log {log})", control("start"));
        }
    }
    text + &resets(&recovered.left_settings)
}
