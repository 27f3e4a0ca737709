use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::super::{Context, Exit, Format, Table, bytes, print_json, print_text};
use crate::api::{Backup, UnusableBackup};
use crate::postgres::backup::started::{self, Reservation, Started};
use crate::postgres::catalog::BackupDescription;
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::BackupId;
use crate::postgres::load::load_backups;

/// The list, for `--format json`.
#[derive(Debug, Serialize)]
struct BackupListOutput {
    #[serde(serialize_with = "as_answers")]
    backups: Arc<Vec<BackupDescription>>,
    damaged: Vec<UnusableBackup>,
    /// The repository does not give them: whether they are whole is not known.
    unread: Vec<UnusableBackup>,
    unfinished: Vec<Unfinished>,
}

fn as_answers<S: Serializer>(
    backups: &[BackupDescription],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(backups.iter().map(Backup::from))
}

/// A backup without a manifest.
#[derive(Debug, Serialize)]
struct Unfinished {
    id: BackupId,
    /// Bytes stored so far.
    stored_bytes: u64,
    /// Who takes it; absent when that is not known.
    started: Option<Started>,
    /// The process that took it is proven to be gone.
    interrupted: bool,
}

/// Lists complete, damaged, unread and unfinished backups.
pub async fn run(context: &Context) -> anyhow::Result<Exit> {
    let cluster = context.cluster().await?;
    let loaded = load_backups(&cluster).await?;
    let mut unfinished = Vec::new();
    for id in &loaded.unfinished {
        unfinished.push(look_at(&cluster, id).await?);
    }
    let of = |all: Vec<(BackupId, String)>| {
        all.into_iter()
            .map(|(id, why)| UnusableBackup { id, why })
            .collect()
    };
    let (damaged, unread) = (of(loaded.damaged), of(loaded.unread));
    let listed = BackupListOutput {
        backups: loaded.complete,
        damaged,
        unread,
        unfinished,
    };
    match context.format {
        Format::Json => print_json(&listed)?,
        Format::Table => print_text(&table(&listed))?,
    }
    Ok(if listed.damaged.is_empty() && listed.unread.is_empty() {
        Exit::Success
    } else {
        Exit::Unsound
    })
}

async fn look_at(cluster: &Cluster, id: &BackupId) -> anyhow::Result<Unfinished> {
    let stored_bytes = cluster
        .objects_of(id)
        .await?
        .iter()
        .map(|meta| meta.size)
        .sum();
    let started = match started::read(cluster, id).await? {
        Some(Reservation::By(started)) => Some(started),
        Some(Reservation::Unreadable) | None => None,
    };
    let interrupted = started
        .as_ref()
        .is_some_and(|started| started.process.is_gone());
    Ok(Unfinished {
        id: id.clone(),
        stored_bytes,
        started,
        interrupted,
    })
}

fn table(listed: &BackupListOutput) -> String {
    let mut table = Table::new(&[
        "ID",
        "STARTED",
        ">DURATION",
        "FROM",
        ">SIZE",
        ">STORED",
        ">RATIO",
        ">TLI",
        "START",
        "STOP",
        "CHECKSUMS",
        "LABEL",
    ]);
    for backup in &*listed.backups {
        table.row(row(backup));
    }
    let state = |id: &BackupId, stored: String, state: String| {
        let mut cells = vec![String::new(); 12];
        (cells[0], cells[5], cells[11]) = (id.to_string(), stored, state);
        cells
    };
    for (word, unusable) in [("DAMAGED", &listed.damaged), ("UNREAD", &listed.unread)] {
        for one in unusable {
            table.row(state(
                &one.id,
                String::new(),
                format!("{word}: {}", one.why),
            ));
        }
    }
    for one in &listed.unfinished {
        let words = match (one.interrupted, &one.started) {
            (true, _) => "interrupted".to_string(),
            (false, Some(started)) => {
                format!(
                    "unfinished: process {} on \"{}\"",
                    started.process.pid, started.process.host
                )
            }
            (false, None) => "unfinished".to_string(),
        };
        table.row(state(&one.id, bytes(one.stored_bytes), words));
    }
    table.render()
}

fn row(backup: &BackupDescription) -> [String; 12] {
    let ratio = backup.plain_bytes as f64 / backup.stored_bytes.max(1) as f64;
    [
        backup.id.to_string(),
        backup.started_at.format("%Y-%m-%d %H:%M:%SZ").to_string(),
        duration(backup),
        if backup.from_standby {
            "standby"
        } else {
            "primary"
        }
        .to_string(),
        bytes(backup.plain_bytes),
        bytes(backup.stored_bytes),
        format!("{ratio:.1}"),
        backup.timeline.to_string(),
        backup.start_lsn.to_string(),
        backup.stop_lsn.to_string(),
        checksums(backup),
        match &backup.left_out[..] {
            [] => backup.label.clone(),
            parts => format!("UNUSABLE, lacks {}: {}", parts.join(", "), backup.label),
        },
    ]
}

/// How long the server took, in seconds.
pub fn duration(backup: &BackupDescription) -> String {
    format!(
        "{:.1} s",
        (backup.stopped_at - backup.started_at).as_seconds_f64()
    )
}

/// What is known of the pages' checksums.
pub fn checksums(backup: &BackupDescription) -> String {
    match (backup.data_checksums, backup.checksum_failures.len()) {
        (_, 1..) => format!("{} FAILURES", backup.checksum_failures.len()),
        (true, 0) if backup.checksums_verified == Some(false) => "not verified".into(),
        (true, 0) => "on".into(),
        (false, 0) => "off".into(),
    }
}
