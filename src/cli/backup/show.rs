use std::fmt::Write;

use anyhow::Context as _;
use serde::Serialize;

use super::super::{Context, Exit, Format, bytes, print_json, print_text};
use super::list::{checksums, duration};
use crate::plain::plain;
use crate::postgres::backup::delete::NoSuchBackup;
use crate::postgres::backup::manifest::{self, ManifestEntry, entries};
use crate::postgres::catalog::BackupDescription;
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::BackupId;
use crate::repo::SealedObject;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The backup, as `walden backup list` names it.
    #[arg(value_name = "ID")]
    id: BackupId,
    /// List its files, too.
    #[arg(long)]
    files: bool,
}

/// Prints the description of a backup, found by its id.
pub async fn run(context: &Context, args: &Args) -> anyhow::Result<Exit> {
    let cluster = context.cluster().await?;
    let (description, object) = read(&cluster, &args.id).await?;
    match context.format {
        Format::Json => json(&description, &object, args.files)?,
        Format::Table => {
            print_text(&in_words(&description))?;
            if args.files {
                each_file(&object, print_text)?;
            }
        }
    }
    Ok(Exit::Success)
}

async fn read(
    cluster: &Cluster,
    id: &BackupId,
) -> anyhow::Result<(BackupDescription, SealedObject)> {
    let object = cluster
        .repository
        .get_sealed(
            &cluster.layout.manifest(id),
            manifest::KIND,
            manifest::LONGEST,
        )
        .await?;
    let Some(object) = object else {
        return NoSuchBackup::error(cluster, id);
    };
    let description = object
        .header()
        .about
        .read()
        .context("the manifest's description cannot be read")?;
    Ok((description, object))
}

fn json(description: &BackupDescription, object: &SealedObject, files: bool) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct BackupOutput<'a> {
        #[serde(flatten)]
        description: &'a BackupDescription,
        #[serde(skip_serializing_if = "Option::is_none")]
        entries: Option<Vec<ManifestEntry>>,
    }
    let entries = if files {
        Some(entries(object)?.collect::<anyhow::Result<_>>()?)
    } else {
        None
    };
    print_json(&BackupOutput {
        description,
        entries,
    })
}

fn in_words(backup: &BackupDescription) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let value = plain(&value);
        // Writing to a String does not fail.
        let _ = writeln!(text, "{name:<20} {value}");
    };
    line("backup", backup.id.to_string());
    line("label", backup.label.clone());
    line(
        "started",
        backup
            .started_at
            .format("%Y-%m-%d %H:%M:%S%.3fZ")
            .to_string(),
    );
    line(
        "stopped",
        format!(
            "{} ({})",
            backup.stopped_at.format("%Y-%m-%d %H:%M:%S%.3fZ"),
            duration(backup)
        ),
    );
    line(
        "taken from",
        if backup.from_standby {
            "a standby"
        } else {
            "a primary"
        }
        .into(),
    );
    line("server", format!("PostgreSQL {}", backup.server_version));
    line("system identifier", backup.system_identifier.to_string());
    line(
        "segment size",
        format!("{} MiB", backup.segment_size.bytes() >> 20),
    );
    line("timeline", backup.timeline.to_string());
    line("start", backup.start_lsn.to_string());
    line(
        "stop",
        format!("{} (can be restored to here and later)", backup.stop_lsn),
    );
    line("files", backup.file_count.to_string());
    line("size", bytes(backup.plain_bytes));
    line(
        "stored",
        format!(
            "{} in {} packs",
            bytes(backup.stored_bytes),
            backup.pack_count
        ),
    );
    line("data checksums", checksums(backup));
    lists(backup).for_each(|(name, value)| line(name, value));
    for (name, value) in backup.recovery_settings.named() {
        line(name, value.to_string());
    }
    line("taken by", format!("walden {}", backup.walden_version));
    text
}

/// What there can be several of.
fn lists(backup: &BackupDescription) -> impl Iterator<Item = (&'static str, String)> {
    let failures = backup
        .checksum_failures
        .iter()
        .map(|failure| ("checksum failure", failure.clone()));
    let lacks = backup
        .left_out
        .iter()
        .map(|part| ("LACKS", format!("\"{part}\": the backup cannot be used")));
    let warnings = backup
        .warnings
        .iter()
        .map(|warning| ("warning", warning.clone()));
    let tablespaces = backup
        .tablespaces
        .iter()
        .map(|one| ("tablespace", format!("{} at \"{}\"", one.oid, one.location)));
    let files = backup.configuration_files.iter();
    let files = files.map(|file| {
        (
            "configuration file",
            format!("\"{}\" as \"{}\"", file.original, file.path),
        )
    });
    failures
        .chain(lacks)
        .chain(warnings)
        .chain(tablespaces)
        .chain(files)
}

/// One line for each file and folder: mode, size, digest, path.
fn each_file(
    object: &SealedObject,
    print: impl Fn(&str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let place = |tablespace: Option<u32>| {
        tablespace
            .map(|oid| format!("pg_tblspc/{oid}/"))
            .unwrap_or_default()
    };
    for entry in entries(object)? {
        let line = match entry? {
            ManifestEntry::Folder(folder) => {
                format!(
                    "{:04o} {:>12} {:64} {}{}/\n",
                    folder.mode,
                    "",
                    "",
                    place(folder.tablespace),
                    folder.path
                )
            }
            ManifestEntry::File(file) => {
                let path = format!("{}{}", place(file.tablespace), file.path);
                format!(
                    "{:04o} {:>12} {} {path}\n",
                    file.mode, file.size, file.digest
                )
            }
        };
        print(&line)?;
    }
    Ok(())
}
