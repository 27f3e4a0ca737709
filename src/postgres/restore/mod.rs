//! Restoring a base backup and having PostgreSQL replay to a target; one file a step: clean, files, recovery, finish,
//! start.
//!
//! [`job`] runs the steps. Nothing is written over, and `pg_control` comes last: a folder that a crash leaves either does
//! not start or is whole. What is there may be put aside before ([`put_aside`]). A copy gets settings that keep it from its source (`copy_settings`).

mod active_config;
mod cold;
mod conf;
pub mod configuration;
pub mod copy_settings;
pub mod destination;
mod fetching;
pub mod files;
mod finish;
mod includes;
pub mod job;
mod listening;
mod log_tail;
mod names;
pub mod programs;
pub mod put_aside;
mod queue;
pub mod recovery;
pub mod relocation;
mod replayed_tablespaces;
pub mod restore_history;
mod server_activity;
pub mod server_log;
mod space;
pub mod start;
pub mod target_action;
#[cfg(test)]
mod tests;
mod text;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;

use crate::error::Hint;
use crate::postgres::catalog::RecoveryPlan;
use crate::postgres::cluster::Cluster;
pub use cold::{order as thaw_order, refuse as refuse_cold, thaw};
pub use conf::assignment;
use configuration::ArchivingConfig;
use destination::Destination;
use files::RestoreProgress;
use put_aside::PutAside;
use recovery::{Choices, Configured};

/// A folder from which the server replays to the target.
#[derive(Debug, Clone, Serialize)]
pub struct Restored {
    pub files: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Name and value, in the order in which they were written.
    pub settings: Vec<(String, String)>,
    /// It is no replacement, and kept apart from its source.
    pub is_copy: bool,
    /// Whether the restored server will archive.
    pub archiving: ArchivingConfig,
    /// Sentences for the operator.
    pub notes: Vec<String>,
    /// For the files, and for making all durable.
    pub seconds_for_files: f64,
    pub seconds_for_fsync: f64,
}

/// What is refused before anything is written: folders in use or not empty, but for those that are to be put `aside`, objects
/// that must be thawed, file systems without room. Touches nothing.
pub async fn check(
    cluster: &Cluster,
    plan: &RecoveryPlan,
    destination: &Destination,
    choices: &Choices,
    aside: &PutAside,
) -> anyhow::Result<()> {
    destination::check_free(destination, &|folder| aside.has(folder))?;
    if !choices.thaw {
        cold::refuse("the backup", &cold::survey(cluster, plan).await?)?;
    }
    match choices.check_space {
        true => space::check(cluster, plan, destination).await,
        false => Ok(()),
    }
}

/// Carries out a plan: clean, files, recovery, finish. Until it returns no server starts from the folder.
pub async fn restore(
    cluster: &Cluster,
    plan: &RecoveryPlan,
    destination: &Destination,
    choices: &Choices,
    workers: usize,
    progress: Arc<RestoreProgress>,
) -> anyhow::Result<Restored> {
    check(cluster, plan, destination, choices, &PutAside::default()).await?;
    destination::prepare(destination, &plan.backup)?;
    let begun = Instant::now();
    let written = files::restore_files(
        cluster,
        &plan.backup,
        destination.clone(),
        workers,
        progress,
    )
    .await;
    let written = written.with_context(|| {
        format!(
            "the restore is not complete and no server starts from \"{}\"",
            destination.data_directory.display()
        )
    });
    let written = written.hint("fix the error above, delete the folder and restore again")?;
    let files_took = begun.elapsed();
    let (destination, plan, choices) = (destination.clone(), plan.clone(), choices.clone());
    let is_copy = !choices.keep_archiving;
    let finishing = tokio::task::spawn_blocking(move || {
        let configured = recovery::configure(&destination, &written.control_file, &plan, &choices)?;
        let begun = Instant::now();
        finish::finish(&destination, &written.control_file)?;
        anyhow::Ok((configured, begun.elapsed(), written.files, written.bytes))
    });
    let (configured, fsync_took, files, bytes): (Configured, Duration, u64, u64) =
        finishing.await??;
    Ok(Restored {
        files,
        bytes,
        is_copy,
        settings: configured.settings,
        archiving: configured.archiving,
        notes: configured.notes,
        seconds_for_files: files_took.as_secs_f64(),
        seconds_for_fsync: fsync_took.as_secs_f64(),
    })
}
