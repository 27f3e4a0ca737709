//! The end of a backup: its description, and the manifest that makes it exist.

use anyhow::{Context, anyhow, ensure};

use super::manifest::{FRAME_SIZE, KIND};
use super::packer::Totals;
use super::pipeline::Captured;
use super::start::{After, BackupServer};
use super::stream::Transferred;
use crate::codec::SealedWriter;
use crate::error::{Hint, with_hint};
use crate::postgres::catalog::BackupDescription;
use crate::postgres::cluster::Cluster;
use crate::postgres::layout::BackupId;
use crate::postgres::replication::BackupPosition;
use crate::postgres::types::{BackupLabel, ControlFile};
use crate::repo::PutSealed;

/// All that is known of a backup before its description is written.
pub struct Gathered<'a> {
    pub id: &'a BackupId,
    pub label: &'a str,
    pub server: &'a BackupServer,
    pub transferred: Transferred,
    pub captured: Captured,
    pub totals: Totals,
    pub after: After,
    pub checksums_verified: bool,
}

fn check_label(content: &[u8], start: BackupPosition) -> anyhow::Result<BackupLabel> {
    let label = BackupLabel::parse(&String::from_utf8_lossy(content))?;
    ensure!(!label.incremental, "the server sent an incremental backup");
    ensure!(
        (label.start_lsn, label.start_timeline) == (start.lsn, start.timeline),
        "backup_label begins at {} on timeline {}, the server said {} on {}",
        label.start_lsn,
        label.start_timeline,
        start.lsn,
        start.timeline
    );
    Ok(label)
}

/// The backup's description, after checking that the stream was what the server announced.
pub fn describe(cluster: &Cluster, gathered: Gathered<'_>) -> anyhow::Result<BackupDescription> {
    let Gathered {
        id,
        label,
        server,
        transferred,
        captured,
        totals,
        after,
        checksums_verified,
    } = gathered;
    let Transferred {
        start,
        end,
        tablespaces,
        checksum_failures,
        warnings,
    } = transferred;
    let left_out = captured
        .inventory
        .missing(&server.homes.throughout(&after.homes));
    let backup_label = captured
        .backup_label
        .context("the server's stream has no backup_label")?;
    let backup_label = check_label(&backup_label, start)?;
    let control = captured
        .control_file
        .context("the server's stream has no global/pg_control")?;
    let control = read_control(&control, cluster)?;
    Ok(BackupDescription {
        id: id.clone(),
        label: label.to_string(),
        system_identifier: control.system_identifier,
        major: server.major,
        server_version: server.version.clone(),
        segment_size: control.segment_size,
        data_checksums: control.data_checksum_version != 0,
        from_standby: backup_label.from_standby,
        start_lsn: start.lsn,
        timeline: start.timeline,
        stop_lsn: end.lsn,
        stop_timeline: end.timeline,
        started_at: server.started_at,
        stopped_at: after.clock,
        recovery_settings: control.settings,
        tablespaces,
        configuration_files: server
            .outside
            .files
            .iter()
            .map(|file| file.description.clone())
            .collect(),
        configuration_places: server.outside.places.clone(),
        checksum_failures,
        checksums_verified: Some(checksums_verified),
        warnings: warnings.into_iter().chain(captured.not_kept).collect(),
        left_out,
        // Only its own packs are written and named.
        earlier_backups: Some(Vec::new()),
        frame_size: FRAME_SIZE as u32,
        file_count: totals.file_count,
        plain_bytes: totals.plain_bytes,
        stored_bytes: totals.stored_bytes,
        pack_count: totals.pack_count,
        walden_version: env!("CARGO_PKG_VERSION").to_string(),
    })
}

fn read_control(content: &[u8], cluster: &Cluster) -> anyhow::Result<ControlFile> {
    let control = ControlFile::parse(content)
        .context("the copy of global/pg_control in the server's stream cannot be used")
        .hint("take the backup again: the file may have been read while it was written")?;
    ensure!(
        control.system_identifier == cluster.description.system_identifier,
        "pg_control in the stream has the system identifier {}",
        control.system_identifier
    );
    Ok(control)
}

/// Writes the manifest: from then on the backup exists. The reservation is looked at before and after: whoever takes
/// this process for dead removes it first, and then looks for a manifest.
pub async fn commit(
    cluster: &Cluster,
    description: &BackupDescription,
    manifest: SealedWriter,
) -> anyhow::Result<()> {
    let (storage, layout) = (cluster.repository.storage(), &cluster.layout);
    let (key, reservation) = (
        layout.manifest(&description.id),
        layout.started(&description.id),
    );
    let reserved = async || anyhow::Ok(storage.head(&reservation).await?.is_some());
    let taken_away = || {
        let error = anyhow!(
            "object \"{reservation}\" is gone: this backup was cleaned up while it was being taken"
        );
        with_hint(error, "find out who deleted it, and take the backup again")
    };
    if !reserved().await? {
        return Err(taken_away());
    }
    let sealed = manifest
        .finish(KIND, description)
        .context("cannot compress the manifest")?;
    match cluster.repository.put_sealed(&key, &sealed).await? {
        PutSealed::Stored | PutSealed::SameContent => {}
        PutSealed::OtherContent(_) => {
            let error = anyhow!("object \"{key}\" is there already, with other content");
            return Err(with_hint(
                error,
                "look at it with `walden backup show`, and take the backup again",
            ));
        }
    }
    if !reserved().await? {
        storage.delete(&key).await?;
        return Err(taken_away());
    }
    if let Err(error) = storage.delete(&reservation).await {
        tracing::warn!(
            "the backup is complete, only its reservation could not be removed: {error}"
        );
    }
    Ok(())
}
