use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use anyhow::anyhow;
use chrono::Utc;
use serde::Serialize;

use super::super::context::{heir_of_cluster, open_storage};
use super::super::progress::{ProgressStep, show};
use super::super::{Context, Exit, Format, Table, bytes, gap_lines, print_json, print_text};
use super::asked_to_end;
use crate::config::{self, RepositoryUrl, Settings};
use crate::error::with_hint;
use crate::folder_place::FolderPlace;
use crate::owner;
use crate::postgres::check::{ServerFolder, ServerFolders, refuse_inside, refuse_unsafe};
use crate::postgres::layout::BackupId;
use crate::postgres::repository::copy::{
    Copied, CopyCount, CopyOptions, CopyProgress, CopySide, ProofVerdict, RecoverabilityProof,
    copy, open_destination,
};
use crate::storage::Storage;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    to: To,
    /// Copy only this backup, the WAL from its start to its stop, and the histories of its timeline.
    #[arg(long, value_name = "ID")]
    backup: Option<BackupId>,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct To {
    /// The other repository, reached with the present settings.
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// A configuration file whose repository is the other one, such as with other credentials. The environment does
    /// not override it.
    #[arg(long, value_name = "FILE")]
    to_config: Option<PathBuf>,
}

/// What was done, for `--format json`.
#[derive(Debug, Serialize)]
struct CopyOutput<'a> {
    /// The destination was made a repository now.
    repository_created: bool,
    /// All that the source had is there, and every backup can be restored from there.
    sound: bool,
    #[serde(flatten)]
    copied: &'a Copied,
}

/// Refuses a folder that lies in another one's way; makes one as root for whom the original belongs to.
async fn make_folder(settings: &Settings, to: &RepositoryUrl) -> anyhow::Result<()> {
    let mut folders = ServerFolders::gather(settings).await.0;
    // That it is the same one is told by its id.
    let is_other = |path: &&Path| {
        to.folder()
            .is_some_and(|to| FolderPlace::of(to) != FolderPlace::of(path))
    };
    let own = settings.repository.url.folder().filter(is_other);
    folders.extend(own.map(|path| ServerFolder {
        what: "repository to copy",
        path: path.to_path_buf(),
    }));
    refuse_inside(to, &folders)?;
    if let Some(path) = to.folder()
        && let Some(user) = heir_of_cluster(settings)?
    {
        owner::make_for(path, user)?;
    }
    Ok(())
}

/// Copies. Exit code 3 when anything that the source had is not at the destination, or a backup cannot be restored.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let source = context.cluster().await?;
    let (theirs, storage) = destination(&context.settings, &args.to)?;
    make_folder(&context.settings, &theirs.repository.url).await?;
    refuse_unsafe(&storage, &source.layout.folder()).await?;
    let (destination, repository_created) = open_destination(&source, storage, Utc::now()).await?;
    let settings = &context.settings.wal;
    let options = CopyOptions {
        backup: args.backup.clone(),
        workers: settings.workers,
        memory: settings.memory as u64,
    };
    let progress = Arc::new(CopyProgress::default());
    let step = || ProgressStep {
        done: progress.done.load(Ordering::Relaxed),
        total: progress.total.load(Ordering::Relaxed),
        phase: progress
            .phase
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone(),
    };
    let copied = tokio::select! {
        copied = show(copy(&source, &destination, &options, progress.clone()), "copied", step) => copied?,
        asked = asked_to_end() => {
            asked?;
            return Err(with_hint(anyhow!("interrupted"), "run the same again: what was copied is not copied again"));
        }
    };
    match context.format {
        Format::Json => print_json(&CopyOutput {
            repository_created,
            sound: copied.is_sound(),
            copied: &copied,
        })?,
        Format::Table => print_text(&in_words(&copied, repository_created))?,
    }
    Ok(if copied.is_sound() {
        Exit::Success
    } else {
        Exit::Unsound
    })
}

/// The settings of the destination, and its store.
fn destination(present: &Settings, to: &To) -> anyhow::Result<(Settings, Arc<dyn Storage>)> {
    let settings = match (&to.to, &to.to_config) {
        (Some(url), _) => {
            let mut settings = present.clone();
            settings.repository.url =
                RepositoryUrl::parse(url).map_err(|why| anyhow!("--to \"{url}\": {why}"))?;
            settings
        }
        (None, file) => {
            let file = file.as_deref().unwrap_or(Path::new(config::DEFAULT_FILE));
            let settings = config::load(Some(file), std::iter::empty::<(String, String)>())?;
            settings
                .warnings
                .iter()
                .for_each(|warning| tracing::warn!("{warning}"));
            settings
        }
    };
    let storage = open_storage(&settings)?;
    Ok((settings, storage))
}

fn in_words(copied: &Copied, created: bool) -> String {
    let Copied {
        cluster,
        source,
        destination,
        counts,
        ..
    } = copied;
    let made = if created {
        ", made a repository now"
    } else {
        ""
    };
    let mut text = format!("cluster \"{cluster}\"\nfrom {source}\nto   {destination}{made}\n\n");
    let mut table = Table::new(&["", ">COPIED", ">STORED", ">PRESENT", ">OF THESE NOT READ"]);
    let groups = [
        ("WAL files", counts.wal),
        ("packs", counts.packs),
        ("backups", counts.backups),
        ("dumps", counts.dumps),
        ("names", counts.names),
        ("idle markers", counts.idle),
        ("records", counts.evidence),
    ];
    for (
        name,
        CopyCount {
            copied,
            copied_bytes,
            present,
            not_read,
        },
    ) in groups
    {
        table.row([
            name.into(),
            copied.to_string(),
            bytes(copied_bytes),
            present.to_string(),
            not_read.to_string(),
        ]);
    }
    text += &table.render();
    if groups.iter().any(|(_, count)| count.not_read > 0) {
        text += "present, not read: WAL files and manifests compared by header, packs by size; `walden repo verify` on the \
                 copy reads them\n";
    }
    text += &proofs(&copied.continuity.proofs);
    text += &problems(copied);
    text += match (copied.complete, copied.is_sound()) {
        (true, true) => {
            "copy complete; every backup can be restored to the same points as at the source\n"
        }
        (true, false) => {
            "all that the source had is there, but NOT every backup can be restored: see above\n"
        }
        (false, _) => "NOT complete: see above\n",
    };
    text
}

/// How far each backup leads, from either repository.
fn proofs(proofs: &[RecoverabilityProof]) -> String {
    if proofs.is_empty() {
        return "\n".into();
    }
    let mut table = Table::new(&[
        "BACKUP",
        ">TLI",
        "RESTORES FROM",
        "TO, AT THE SOURCE",
        "TO, FROM THE COPY",
        "",
    ]);
    for proof in proofs {
        let end = |end: Option<crate::postgres::types::Lsn>| {
            end.map_or("nowhere".into(), |end| end.to_string())
        };
        table.row([
            proof.backup.to_string(),
            proof.timeline.to_string(),
            proof.from.to_string(),
            end(proof.source_end),
            end(proof.destination_end),
            match proof.verdict {
                ProofVerdict::Proven => "proven".into(),
                ProofVerdict::NotProven => "NOT PROVEN".into(),
                ProofVerdict::NotRestorable => "NOT RESTORABLE".into(),
            },
        ]);
    }
    format!("\n{}\n", table.render())
}

fn problems(copied: &Copied) -> String {
    let mut text = String::new();
    for failure in &copied.failures {
        let at = if failure.at == CopySide::Source {
            "source"
        } else {
            "destination"
        };
        text += &format!(
            "{}: object \"{}\" at the {at}: {}\n",
            failure.problem, failure.object, failure.why
        );
    }
    if copied.more_failures > 0 {
        text += &format!("and {} more\n", copied.more_failures);
    }
    for gap in &copied.continuity.missing_segments {
        text += &format!("NOT COPIED: {gap}\n");
    }
    for object in &copied.continuity.missing {
        text += &format!("NOT COPIED: object \"{object}\"\n");
    }
    for id in &copied.continuity.not_restorable {
        text += &format!(
            "NOT RESTORABLE: backup {id}: the source lacks WAL between its start and its stop\n"
        );
    }
    text += &gap_lines("GAP of the source", &copied.source_gaps);
    for id in &copied.unfinished {
        text += &format!("left out: backup {id} is being taken, or was interrupted\n");
    }
    for object in &copied.foreign {
        text += &format!("foreign, not copied: object \"{object}\"\n");
    }
    text
}
