//! The rules: what is judged, and how bad it is. One row each; what is told of a rule, the metric and the alerts that are
//! shipped come from that row.

use serde::Serialize;

use super::{Level, Subject};

macro_rules! rules {
    ($($(#[doc = $summary:literal])+ $rule:ident: $about:ident, $level:ident;)+) => {
        /// Something that is not good.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, utoipa::ToSchema)]
        pub enum Rule { $($(#[doc = $summary])+ $rule),+ }

        impl Rule {
            /// Every rule, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$rule),+];

            /// The name, in metrics and answers, too.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$rule => stringify!($rule)),+ }
            }

            /// What is judged.
            pub const fn about(self) -> Subject {
                match self { $(Self::$rule => Subject::$about),+ }
            }

            /// How bad it is.
            pub const fn level(self) -> Level {
                match self { $(Self::$rule => Level::$level),+ }
            }

            /// What is not good, in a sentence.
            pub const fn summary(self) -> &'static str {
                match self { $(Self::$rule => concat!($($summary),+).trim_ascii()),+ }
            }
        }
    };
}

rules! {
    /// Finished WAL waits to be archived for longer than health.wal_wait.
    WalWaits: Rpo, Critical;
    /// The last attempt to store a WAL file failed, as for want of room, or since another cluster's is there.
    StoringFails: Rpo, Critical;
    /// Another server, or a copy of this one, archives under this cluster's name: its WAL was refused.
    IdentityConflict: Rpo, Critical;
    /// More finished WAL files wait to be archived than health.backlog.
    Backlog: Rpo, Warning;
    /// What was committed longer ago than health.rpo would be lost.
    RpoExceeded: Rpo, Warning;
    /// What was committed last cannot be restored, though its WAL is archived.
    WalUnrestorable: Rpo, Critical;
    /// Nothing can be restored yet; archiving began less than health.first_backup ago.
    NothingYet: Rpo, Warning;
    /// Nothing can be restored.
    Nothing: Rpo, Critical;
    /// Nobody knows until when the newest timeline can be restored.
    NewestUnknown: Rpo, Critical;
    /// The last commit that can be restored is not known: its WAL is not indexed.
    NotIndexed: Rpo, Unknown;
    /// The last commit is further ahead of the clock than health.clock_skew.
    CommitAhead: Rpo, Unknown;
    /// The newest base backup that can be used is older than health.backup_age.
    BackupOld: Backup, Warning;
    /// The newest base backup ended further ahead of the clock than health.clock_skew.
    BackupAhead: Backup, Warning;
    /// There is no base backup yet; archiving began less than health.first_backup ago.
    NoBackupYet: Backup, Warning;
    /// There is no base backup that can be used.
    NoBackup: Backup, Critical;
    /// A base backup newer than the usable ones lacks a part.
    BackupLeftOut: Backup, Critical;
    /// A base backup newer than the usable ones has damaged pages: the server's files are damaged.
    BackupDamagedPages: Backup, Critical;
    /// A base backup newer than the usable ones lacks WAL.
    BackupWithoutWal: Backup, Warning;
    /// The description of a base backup is damaged.
    BackupDamaged: Backup, Warning;
    /// The newest base backup is less than half as large as those before it.
    BackupSmall: Backup, Critical;
    /// The size of the newest base backup differs from those before it by more than health.size_change.
    BackupSize: Backup, Warning;
    /// What can be restored of the newest timeline is not known.
    TimelineUnknown: Recovery, Critical;
    /// What can be restored of an older timeline is not known.
    OldTimelineUnknown: Recovery, Warning;
    /// Nothing of the newest timeline can be restored: no base backup leads to it.
    TimelineWithoutBackup: Recovery, Critical;
    /// A timeline began, and none of its WAL is archived.
    TimelineWithoutWal: Recovery, Warning;
    /// WAL is missing: what is archived behind the gap cannot be restored.
    WalGap: Recovery, Critical;
    /// The records of archived WAL break off: what is archived behind them cannot be restored.
    WalBroken: Recovery, Critical;
    /// Between base backups there are moments that cannot be restored.
    WindowGap: Recovery, Warning;
    /// The newest dump is older than two moments of its schedule and an hour, or than health.dump_age.
    DumpOld: Dump, Warning;
    /// A job that makes dumps ran, and there is no complete one.
    NoDump: Dump, Warning;
    /// The newest dump of a database is less than half as large as those before it.
    DumpSmall: Dump, Critical;
    /// The size of the newest dump of a database differs from those before it by more than health.size_change.
    DumpSize: Dump, Warning;
    /// How the dumps stand is not known.
    DumpsUnknown: Dump, Unknown;
    /// The last run of a scheduled job failed.
    JobFailed: Jobs, Warning;
    /// A scheduled job failed three times in a row, or more.
    JobFailsAgain: Jobs, Critical;
    /// A scheduled job is due for more than an hour, and nobody runs it.
    JobOverdue: Jobs, Warning;
    /// A job is scheduled, and no service and no cron has looked after it yet.
    JobUnattended: Jobs, Warning;
    /// Fewer runs of jobs succeeded in 30 days than health.success_rate.
    SuccessRateLow: Jobs, Warning;
    /// How the jobs stand is not known.
    JobsUnknown: Jobs, Unknown;
    /// The last drill failed.
    DrillFailed: Proof, Critical;
    /// The last drill could not run.
    DrillCouldNotRun: Proof, Warning;
    /// The last drill that passed is older than health.drill_age.
    DrillOld: Proof, Warning;
    /// The last verification found damage, or could not read all.
    VerificationFailed: Proof, Critical;
    /// The last restore or drill took longer than health.restore_time.
    RestoreSlow: Proof, Warning;
    /// The newest record of a drill, restore or verification is older than health.evidence_age.
    EvidenceOld: Proof, Warning;
    /// What was proven is not known: its records cannot be read.
    ProofUnknown: Proof, Unknown;
    /// The file system of a repository in a folder is fuller than health.disk_used.
    DiskUsed: Space, Warning;
    /// The file system of a repository in a folder is almost full.
    DiskFull: Space, Critical;
    /// How full the file system of a repository in a folder is, is not known.
    DiskUnknown: Space, Unknown;
    /// The HTTPS certificate expires within health.certificate.
    CertificateExpires: Certificate, Warning;
    /// The HTTPS certificate has expired: no client that checks it gets an answer.
    CertificateExpired: Certificate, Critical;
    /// When the HTTPS certificate expires is not known.
    CertificateUnknown: Certificate, Unknown;
}
