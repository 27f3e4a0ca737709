//! What answers tell beside the forms of `crate::api`.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::facts::{FactsSnapshot, RepositoryFacts};
use super::options::DrillTargets;
use super::plans::MadePlan;
use super::status::LastStatus;
use crate::api::{
    Backup, EvidenceRecord, Restorable, RetentionPlan, Rpo, Standing, UnusableBackup, answer,
};
use crate::evidence::record::Record;
use crate::health::{DiskUse, NewestDump};
use crate::jobs::record::RunRecord;
use crate::jobs::status::JobStatus;
use crate::postgres::catalog::{ClusterDescription, MajorSince};
use crate::postgres::layout::{BackupId, ClusterName};
use crate::postgres::types::SystemIdentifier;
use crate::service::jobs::JobsSnapshot;
use crate::service::status::{waiting_files, waiting_since};

/// An answer out of what was read of the repository.
#[derive(Debug, Serialize, ToSchema)]
pub struct Dated<T> {
    as_of: AsOf,
    #[serde(flatten)]
    answer: T,
}

impl<T> Dated<T> {
    /// What was made of a reading.
    pub fn new(answer: T, read: &FactsSnapshot, known: &RepositoryFacts) -> Self {
        Self::of(answer, read.at, known.failed.clone())
    }

    /// What was made of what was read then, and why it could not be read since.
    pub fn of(answer: T, read_at: DateTime<Utc>, failed: Option<String>) -> Self {
        let age_seconds = (Utc::now() - read_at).as_seconds_f64().max(0.0);
        Self {
            as_of: AsOf {
                read_at,
                age_seconds,
                failed,
            },
            answer,
        }
    }
}

answer! {
    /// From when the answer is: what the repository got later is not in it yet.
    struct AsOf {
        /// When the repository was read.
        read_at: DateTime<Utc>,
        /// Seconds since then.
        age_seconds: f64,
        /// Why it could not be read anew since.
        failed?: String,
    }

    /// All clusters of this service.
    pub struct Clusters {
        pub clusters: Vec<ClusterEntry>,
    }

    /// One cluster, as it was registered.
    pub struct ClusterEntry {
        name: ClusterName,
        /// As `pg_controldata` prints it. A string, because it has more digits than JavaScript's numbers.
        system_identifier: SystemIdentifier,
        /// Size of a WAL segment in bytes.
        segment_bytes: u64,
        versions: Vec<Version>,
    }

    /// What retention would delete now, and why; nothing is deleted.
    pub struct RetentionNow {
        /// When the plan was made.
        made_at: DateTime<Utc>,
        #[serde(flatten)]
        plan: RetentionPlan,
    }

    /// A major version of PostgreSQL, and when it was first seen.
    pub struct Version {
        major: u32,
        since: DateTime<Utc>,
    }
}

impl From<&ClusterDescription> for ClusterEntry {
    fn from(cluster: &ClusterDescription) -> Self {
        let version = |seen: &MajorSince| Version {
            major: seen.major.number(),
            since: seen.since,
        };
        Self {
            name: cluster.name.clone(),
            system_identifier: cluster.system_identifier,
            segment_bytes: cluster.segment_size.bytes(),
            versions: cluster.versions.iter().map(version).collect(),
        }
    }
}

answer! {
    /// A cluster: what can be restored, and how much would be lost now.
    pub struct ClusterState {
        #[serde(flatten)]
        pub cluster: ClusterEntry,
        #[serde(flatten)]
        pub restorable: Restorable,
        /// Ranges of WAL that are missing; `wal` tells which.
        pub gaps: u64,
        /// The newest complete base backup.
        pub last_backup?: Backup,
        /// The newest complete dump of each database and kind.
        pub dumps: Vec<LastDump>,
        /// Of older ones, beyond 200.
        pub dumps_left_out: u64,
        /// Why how the dumps stand is not known.
        pub dumps_unknown?: String,
        /// Of the file system that a repository in a folder lies in.
        pub disk?: Disk,
        pub rpo: Rpo,
        pub health: Standing,
        /// Absent while the service starts or stops.
        pub archiving?: ArchivingState,
    }

    /// The newest complete dump of a database; one of some tables does not count.
    pub struct LastDump {
        /// As `walden dump list` names it.
        id: String,
        database: String,
        /// `full`, `schema` or `data`.
        kind: String,
        /// Of its snapshot.
        time: DateTime<Utc>,
        bytes: u64,
    }

    /// How full a file system is, as `df` counts.
    pub struct Disk {
        used_bytes: u64,
        free_bytes: u64,
        percent: u64,
    }

    /// Base backups, oldest first.
    pub struct Backups {
        pub backups: Vec<Backup>,
        /// Backups that cannot be used.
        pub damaged: Vec<UnusableBackup>,
        /// Being taken, or interrupted.
        pub unfinished: Vec<BackupId>,
    }

    /// What archiving is doing.
    pub struct ArchivingState {
        /// When this was so.
        seen_at: DateTime<Utc>,
        /// Files stored since the service started.
        stored_files: u64,
        /// The name of the last stored file.
        last_stored?: String,
        last_stored_at?: DateTime<Utc>,
        /// Attempts that failed since the service started.
        failed_files: u64,
        last_failed_at?: DateTime<Utc>,
        /// Files that wait on all servers that archive here; absent when that is not known.
        waiting_files?: u64,
        /// Since when the oldest of them waits.
        waiting_since?: DateTime<Utc>,
    }
}

answer! {
    /// What was done, the latest first.
    pub struct Records {
        records: Vec<EvidenceRecord>,
        /// There are older ones.
        more: bool,
    }

    /// Restores by themselves, the latest first.
    pub struct Drills {
        drills: Vec<EvidenceRecord>,
        /// There are older ones.
        more: bool,
        /// How long a restore with its checks may take.
        rto_target_seconds?: f64,
        /// How old the newest data may be.
        rpo_target_seconds?: f64,
    }
}

impl Records {
    /// Of those found at most `limit`; `has_more`: older ones were not looked at.
    pub fn new(found: &[&Record], limit: usize, has_more: bool) -> Self {
        let shown = found.iter().take(limit);
        Self {
            records: shown.map(|record| EvidenceRecord::from(*record)).collect(),
            more: has_more || found.len() > limit,
        }
    }
}

impl Drills {
    /// Of those found at most `limit`; `has_more`: older ones were not looked at.
    pub fn new(found: &[&Record], limit: usize, has_more: bool, targets: &DrillTargets) -> Self {
        let Records { records, more } = Records::new(found, limit, has_more);
        Self {
            drills: records,
            more,
            rto_target_seconds: targets.rto.map(|target| target.as_secs_f64()),
            rpo_target_seconds: targets.rpo.map(|target| target.as_secs_f64()),
        }
    }
}

impl From<MadePlan> for RetentionNow {
    fn from(made: MadePlan) -> Self {
        Self {
            made_at: made.made_at,
            plan: RetentionPlan::from(&*made.plan).shortened(),
        }
    }
}

impl From<&NewestDump> for LastDump {
    fn from(dump: &NewestDump) -> Self {
        Self {
            id: dump.id.clone(),
            database: dump.database.clone(),
            kind: dump.kind.as_str().into(),
            time: dump.time,
            bytes: dump.bytes,
        }
    }
}

impl From<DiskUse> for Disk {
    fn from(disk: DiskUse) -> Self {
        Self {
            used_bytes: disk.used_bytes,
            free_bytes: disk.free_bytes,
            percent: disk.percent(),
        }
    }
}

impl From<&LastStatus> for ArchivingState {
    fn from(seen: &LastStatus) -> Self {
        let archiving = &seen.status.archiving;
        Self {
            seen_at: seen.at,
            stored_files: archiving.stored.count,
            last_stored: archiving.stored.last.clone(),
            last_stored_at: archiving.stored.last_at,
            failed_files: archiving.failed.count.count,
            last_failed_at: archiving.failed.count.last_at,
            waiting_files: waiting_files(&archiving.backlogs),
            waiting_since: waiting_since(&archiving.backlogs),
        }
    }
}

answer! {
    /// What runs by itself.
    pub struct Jobs {
        /// When the jobs were last looked at; `null` before the first time.
        looked_at: Option<DateTime<Utc>>,
        /// Why one could not be looked at.
        failed?: String,
        jobs: Vec<JobStatus>,
        /// Runs that have ended, the newest first, at most 50.
        recent: Vec<RunRecord>,
    }
}

impl From<&JobsSnapshot> for Jobs {
    fn from(known: &JobsSnapshot) -> Self {
        Self {
            looked_at: known.looked_at,
            failed: known.failed.clone(),
            jobs: known.jobs.to_vec(),
            recent: known.recent.to_vec(),
        }
    }
}
