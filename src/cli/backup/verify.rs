use std::sync::Arc;

use super::super::{Context, Exit, Format, bytes, print_json, print_text};
use crate::error::with_hint;
use crate::plain::counted;
use crate::postgres::backup::verify::{Verified, verify};
use crate::postgres::catalog::load::load_backups;
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::BackupId;
use crate::postgres::trouble::Trouble;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The backups, as `walden backup list` names them, or `all`.
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
}

/// Verifies backups. Exit code 3 when anything is wrong.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let cluster = context.cluster().await?;
    let mut all = Vec::new();
    for id in chosen(&cluster, args).await? {
        let verified = verify(&cluster, &id, context.settings.restore.workers, &Arc::default()).await?;
        if context.format == Format::Table {
            print_text(&in_words(&verified))?;
        }
        all.push(verified);
    }
    if context.format == Format::Json {
        print_json(&all)?;
    }
    Ok(if all.iter().all(Verified::is_sound) { Exit::Success } else { Exit::Unsound })
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
    Ok(args.ids.iter().map(|id| id.parse()).collect::<Result<_, _>>()?)
}

fn in_words(verified: &Verified) -> String {
    let Verified { id, files, plain_bytes, wal_files, damages, more_damages } = verified;
    let read = format!("{}, {}, {}", counted(*files, "file"), bytes(*plain_bytes), counted(*wal_files, "WAL file"));
    if verified.is_sound() {
        return format!("backup {id}: sound ({read})\n");
    }
    let unread = damages.iter().all(|damage| damage.trouble == Trouble::Unread);
    let mut text = format!("backup {id}: {} ({read})\n", if unread { Trouble::Unread } else { Trouble::Damaged });
    for damage in damages {
        let file = damage.file.as_ref().map(|file| format!(", file \"{file}\"")).unwrap_or_default();
        text += &format!("  object \"{}\"{file}: {}\n", damage.object, damage.why);
    }
    if *more_damages > 0 {
        text += &format!("  and {more_damages} more\n");
    }
    text
}
