//! Third step: what makes the server replay to the target and stop there, on its own, and never touch its source.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use super::configuration::{self, ArchivingConfig, CurrentConfig};
use super::destination::Destination;
use super::names::{CONFIGURATION, PG_CONTROL};
use super::target_action::TargetAction;
use super::text::{read, write_new};
use super::{active_config, copy_settings, includes};
use crate::postgres::catalog::{BackupDescription, RecoveryPlan};
use crate::postgres::command_line::for_postgresql;
use crate::postgres::types::{BackupLabel, ControlFile, SegmentName, SegmentSize, TablespaceMap};

/// The programs and settings with which the restored server fetches WAL.
#[derive(Debug, Clone)]
pub struct FetchCommand {
    /// `walden` itself.
    pub walden: PathBuf,
    /// The small hook program, when there is one.
    pub restore_command: Option<PathBuf>,
    /// The configuration file; [`CONFIGURATION`] when it is to be written.
    pub config: PathBuf,
    /// The hook socket of the service that serves this cluster.
    pub socket: PathBuf,
}

impl FetchCommand {
    /// The value of `restore_command`.
    pub fn render(&self, end: Option<SegmentName>) -> anyhow::Result<String> {
        let end = end.map(|segment| segment.to_string());
        let end: Vec<&Path> = end
            .iter()
            .flat_map(|segment| [Path::new("--end"), Path::new(segment)])
            .collect();
        let config = [Path::new("--config"), &self.config];
        match &self.restore_command {
            Some(program) => {
                let asked = [
                    Path::new("--socket"),
                    &self.socket,
                    Path::new("--walden"),
                    &self.walden,
                ];
                for_postgresql(
                    [&[program.as_path()], &asked[..], &config, &end].concat(),
                    "%f %p",
                )
            }
            None => {
                let fetch = [Path::new("wal"), Path::new("fetch")];
                for_postgresql(
                    [&[self.walden.as_path()], &config[..], &fetch, &end].concat(),
                    "-- %f %p",
                )
            }
        }
    }
}

/// Choices that are not the plan's.
#[derive(Debug, Clone)]
pub struct Choices {
    pub action: TargetAction,
    /// The restored cluster replaces its source and goes on archiving.
    pub keep_archiving: bool,
    /// Refuse what does not fit.
    pub check_space: bool,
    /// What must be thawed was told, and is not refused.
    pub thaw: bool,
    pub fetch: FetchCommand,
    /// Content of [`CONFIGURATION`], when no configuration file holds it.
    pub configuration: Option<String>,
}

/// All settings that the restored server gets, in the order in which they are written.
pub fn settings(plan: &RecoveryPlan, choices: &Choices) -> anyhow::Result<Vec<(String, String)>> {
    let mut settings = plan.settings.clone();
    let mut set = |name: &str, value: &str| settings.push((name.to_string(), value.to_string()));
    if plan.has_target() {
        set("recovery_target_action", choices.action.value());
    }
    set("restore_command", &choices.fetch.render(plan.wal_end)?);
    // The source's own recovery, if it was a standby, could remove or run what is not meant here.
    set("recovery_end_command", "");
    set("archive_cleanup_command", "");
    set("recovery_min_apply_delay", "0");
    // Only a pause needs queries during recovery. Without them replay does not depend on this server's settings being
    // as high as the source's were later than the backup. The price: of WAL written at wal_level=minimal 13 then only
    // warns.
    set(
        "hot_standby",
        if choices.action == TargetAction::Pause {
            "on"
        } else {
            "off"
        },
    );
    if !choices.keep_archiving {
        copy_settings::settings(plan.backup.major).for_each(|(name, value)| set(&name, &value));
    }
    if plan.backup.major.number() < 15 {
        // Debian points it to a folder that two servers would share.
        set("stats_temp_directory", "pg_stat_tmp");
    }
    for (name, value) in plan.backup.recovery_settings.named() {
        set(name, &value.to_string());
    }
    Ok(settings)
}

/// Which of the settings are of this recovery only: once the cluster is promoted they do nothing, but a standby made
/// from it would take them over.
pub fn only_for_recovery(settings: &[(String, String)]) -> Vec<String> {
    let is_meant = |name: &str| configuration::is_recovery_setting(name) || name == "hot_standby";
    settings
        .iter()
        .map(|(name, _)| name.clone())
        .filter(|name| is_meant(name))
        .collect()
}

/// What was written beside the files of the backup.
#[derive(Debug, Clone, Default)]
pub struct Configured {
    /// In the order in which they stand in postgresql.auto.conf.
    pub settings: Vec<(String, String)>,
    pub archiving: ArchivingConfig,
    /// Sentences for the operator.
    pub notes: Vec<String>,
}

/// Checks the restored files against the plan and writes what recovery needs.
pub fn configure(
    destination: &Destination,
    control_file: &[u8],
    plan: &RecoveryPlan,
    choices: &Choices,
) -> anyhow::Result<Configured> {
    let folder = &destination.data_directory;
    check_identity(folder, control_file, &plan.backup)?;
    make_missing_folders(folder)?;
    link_tablespaces(destination)?;
    let mut configured = Configured::default();
    let lay_outside = active_config::settle(folder, &plan.backup, &mut configured.notes)?;
    includes::bring_in(
        folder,
        &plan.backup,
        !choices.keep_archiving,
        &mut configured.notes,
    )?;
    configuration::clean(folder, &mut configured.notes)?;
    if let Some(content) = &choices.configuration {
        write_new(&folder.join(CONFIGURATION), content)?;
    }
    configured.settings = settings(plan, choices)?;
    if choices.keep_archiving && lay_outside {
        configured
            .settings
            .extend(configuration::outside_archiving(folder, &plan.backup)?);
    }
    configuration::raise(folder, &plan.backup, &mut configured.settings)?;
    let standing = CurrentConfig::of(folder)?;
    let mut more = wal_sizes(&standing, plan.backup.segment_size);
    if !choices.keep_archiving {
        more.extend(copy_settings::because_of(
            &standing,
            choices.action,
            &mut configured.notes,
        ));
        more.extend(copy_settings::sockets(folder));
    }
    configured
        .settings
        .retain(|(name, _)| !more.iter().any(|(each, _)| each == name));
    configured.settings.extend(more);
    configuration::write_settings(folder, &configured.settings, &mut configured.notes)?;
    configured.archiving = configuration::archiving(folder)?;
    write_new(&folder.join("recovery.signal"), "")?;
    Ok(configured)
}

/// Where the source set them outside: PostgreSQL's defaults are too small for large segments. As initdb has it.
fn wal_sizes(standing: &CurrentConfig, size: SegmentSize) -> Vec<(String, String)> {
    const USUAL: u64 = 16 << 20;
    let missing = |(name, _): &(&str, u64)| size.bytes() > USUAL && standing.value(name).is_none();
    let sizes = [("min_wal_size", 5), ("max_wal_size", 64)]
        .into_iter()
        .filter(missing);
    sizes
        .map(|(name, segments)| {
            (
                name.to_string(),
                format!("{}MB", segments * (size.bytes() >> 20)),
            )
        })
        .collect()
}

fn check_identity(
    folder: &Path,
    control_file: &[u8],
    backup: &BackupDescription,
) -> anyhow::Result<()> {
    let control =
        ControlFile::parse(control_file).with_context(|| format!("the backup's {PG_CONTROL}"))?;
    ensure!(
        control.system_identifier == backup.system_identifier
            && control.segment_size == backup.segment_size,
        "{PG_CONTROL} is of the cluster with system identifier {}, the manifest of that with {}",
        control.system_identifier,
        backup.system_identifier
    );
    let version = read(&folder.join("PG_VERSION"))?.context("the backup has no PG_VERSION")?;
    ensure!(
        version.trim() == backup.major.to_string(),
        "PG_VERSION is \"{}\", the manifest says {}",
        version.trim(),
        backup.major
    );
    let label = read(&folder.join("backup_label"))?.context("the backup has no backup_label")?;
    let label = BackupLabel::parse(&label)?;
    ensure!(
        !label.incremental,
        "the backup's backup_label is an incremental one's: no server starts from it"
    );
    ensure!(
        label.start_lsn == backup.start_lsn && label.start_timeline == backup.timeline,
        "backup_label begins at {} on timeline {}, the manifest at {} on timeline {}",
        label.start_lsn,
        label.start_timeline,
        backup.start_lsn,
        backup.timeline
    );
    Ok(())
}

/// Folders that a server needs and whose content a backup leaves out.
fn make_missing_folders(folder: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    const NEEDED: [&str; 21] = [
        "global",
        "pg_wal",
        "pg_wal/archive_status",
        "pg_commit_ts",
        "pg_dynshmem",
        "pg_logical",
        "pg_logical/mappings",
        "pg_logical/snapshots",
        "pg_multixact",
        "pg_multixact/members",
        "pg_multixact/offsets",
        "pg_notify",
        "pg_replslot",
        "pg_serial",
        "pg_snapshots",
        "pg_stat",
        "pg_stat_tmp",
        "pg_subtrans",
        "pg_tblspc",
        "pg_twophase",
        "pg_xact",
    ];
    for name in NEEDED {
        match fs::DirBuilder::new().mode(0o700).create(folder.join(name)) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("cannot make folder \"{name}\""));
            }
            _ => (),
        }
    }
    Ok(())
}

/// Links, and the file that replaces them at the first start: a stale one would open the source's own files.
fn link_tablespaces(destination: &Destination) -> anyhow::Result<()> {
    let folder = &destination.data_directory;
    let mut entries = Vec::new();
    // Those within the data directory are plain folders.
    for (oid, place) in destination
        .tablespaces
        .iter()
        .filter(|(_, place)| !place.starts_with(folder))
    {
        let link = folder.join("pg_tblspc").join(oid.to_string());
        symlink(place, &link)
            .with_context(|| format!("cannot make link \"{}\"", link.display()))?;
        let place = place
            .to_str()
            .with_context(|| format!("the path \"{}\" is not UTF-8", place.display()))?;
        entries.push((*oid, place.to_string()));
    }
    match entries.is_empty() {
        true => Ok(()),
        false => write_new(
            &folder.join("tablespace_map"),
            &TablespaceMap(entries).render(),
        ),
    }
}
