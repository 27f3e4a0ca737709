use serde::Serialize;

use super::super::evidence::{Told, recorded};
use super::super::{Context, Exit, Format, bytes, print_json, print_text};
use crate::error::with_hint;
use crate::evidence::record::{Act, Scope, Verdict};
use crate::plain::counted;
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::BackupId;
use crate::postgres::load::load_backups;
use crate::postgres::object_problem::ProblemKind;
use crate::postgres::repository::verify::{ColdFound, Damage, VerifyResult, VerifyScope, verify};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The backups, as `walden backup list` names them, or `all`.
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
}

/// What was found of one backup, as JSON names it.
#[derive(Debug, Serialize)]
struct BackupVerifyOutput<'a> {
    id: &'a BackupId,
    files: u64,
    plain_bytes: u64,
    /// Looked up.
    wal_files: u64,
    damages: Vec<Damage<'a>>,
    more_damages: u64,
    /// Not read, and no damage.
    cold: &'a ColdFound,
}

impl<'a> BackupVerifyOutput<'a> {
    fn new(id: &'a BackupId, found: &'a VerifyResult) -> Self {
        let VerifyResult {
            files,
            plain_bytes,
            looked_up: wal_files,
            ref findings,
            ref cold,
            ..
        } = *found;
        let (damages, more_damages) = (findings.damages().collect(), findings.more_damages);
        Self {
            id,
            files,
            plain_bytes,
            wal_files,
            damages,
            more_damages,
            cold,
        }
    }
}

/// Verifies backups. Exit code 3 when anything is wrong.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let cluster = context.cluster().await?;
    let ids = chosen(&cluster, args).await?;
    let work = async |told: &mut Told| run_recorded(context, &cluster, ids, told).await;
    recorded(&context.settings, &cluster, Act::Verification, work).await
}

async fn run_recorded(
    context: &Context,
    cluster: &Cluster,
    ids: Vec<BackupId>,
    told: &mut Told,
) -> anyhow::Result<Exit> {
    let names: Vec<String> = ids.iter().map(ToString::to_string).collect();
    told.subject = format!("base backups {}", names.join(", "));
    told.scope = Some(Scope::Part);
    let mut all = Vec::new();
    for id in ids {
        let found = verify(
            cluster,
            VerifyScope::Backup(id.clone()),
            context.settings.restore.workers,
        )
        .await?;
        if context.format == Format::Table {
            print_text(&in_words(&BackupVerifyOutput::new(&id, &found)))?;
        }
        all.push((id, found));
    }
    let outputs = all
        .iter()
        .map(|(id, found)| BackupVerifyOutput::new(id, found));
    let outputs: Vec<_> = outputs.collect();
    told.details = serde_json::to_value(&outputs)?;
    if context.format == Format::Json {
        print_json(&outputs)?;
    }
    let (open, sound) = (VerifyResult::is_open, VerifyResult::is_sound);
    if all.iter().any(|(_, found)| open(found))
        && all.iter().all(|(_, found)| sound(found) || open(found))
    {
        told.verdict = Some(Verdict::CouldNotRun);
        told.reason = "the repository did not give all objects".into();
    }
    Ok(if all.iter().all(|(_, found)| found.is_sound()) {
        Exit::Success
    } else {
        Exit::Unsound
    })
}

async fn chosen(cluster: &Cluster, args: &Args) -> anyhow::Result<Vec<BackupId>> {
    if args.ids.iter().any(|id| id == "all") {
        let loaded = load_backups(cluster).await?;
        let mut ids: Vec<BackupId> = loaded.unusable().map(|(id, _)| id.clone()).collect();
        ids.extend(loaded.complete.iter().map(|backup| backup.id.clone()));
        ids.sort();
        if ids.is_empty() {
            let error = anyhow::anyhow!("cluster \"{}\" has no backups", cluster.layout.cluster());
            return Err(with_hint(error, "take one with `walden backup take`"));
        }
        return Ok(ids);
    }
    Ok(args
        .ids
        .iter()
        .map(|id| id.parse())
        .collect::<Result<_, _>>()?)
}

fn in_words(verified: &BackupVerifyOutput) -> String {
    let BackupVerifyOutput {
        id,
        files,
        plain_bytes,
        wal_files,
        damages,
        more_damages,
        cold,
    } = verified;
    let read = format!(
        "{}, {}, {}",
        counted(*files, "file"),
        bytes(*plain_bytes),
        counted(*wal_files, "WAL file")
    );
    let cold = match cold.is_empty() {
        true => String::new(),
        false => format!("  cold, not read: {cold}: to read them, thaw them first\n"),
    };
    if damages.is_empty() {
        let sound = if cold.is_empty() {
            "sound"
        } else {
            "sound as far as it was read"
        };
        return format!("backup {id}: {sound} ({read})\n{cold}");
    }
    // What was found to be wrong comes before what is not known, and that before what an upgrade reads.
    let has = |kind| damages.iter().any(|damage| damage.problem == kind);
    let named = match damages.iter().all(|damage| is_open(damage.problem)) {
        false => ProblemKind::Damaged,
        true if has(ProblemKind::Unread) => ProblemKind::Unread,
        true => ProblemKind::Newer,
    };
    let mut text = format!("backup {id}: {named} ({read})\n");
    for damage in damages {
        let file = damage
            .file
            .as_ref()
            .map(|file| format!(", file \"{file}\""))
            .unwrap_or_default();
        text += &format!("  object \"{}\"{file}: {}\n", damage.object, damage.why);
    }
    if *more_damages > 0 {
        text += &format!("  and {more_damages} more\n");
    }
    text + &cold
}

/// Whether the object may be whole.
fn is_open(problem: ProblemKind) -> bool {
    matches!(problem, ProblemKind::Unread | ProblemKind::Newer)
}
