//! How a drill ended, from what was seen. Pure.

use std::io::{self, ErrorKind};

use crate::error::{DeadlineExceeded, find, one_line};
use crate::evidence::record::{Check, Verdict};
use crate::postgres::archive::{GapError, HistoryLost};
use crate::postgres::catalog::Unreachable;
use crate::postgres::dump_restore::repository::DamagedDump;
use crate::repo::ObjectError;
use crate::storage::StorageError;

/// Where a drill ended before its checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Programs, folder and room on this machine.
    Prepare,
    Plan,
    /// What the repository gives: files, and WAL that is asked for once more.
    Files,
    /// What the restored server says.
    Server,
    /// Nothing is tried: what is asked for is not to be had.
    Refused,
}

/// Why a drill ended before its checks.
#[derive(Debug)]
pub struct Ended(pub Stage, pub anyhow::Error);

/// Errors of a stage.
pub trait At<T> {
    fn at(self, stage: Stage) -> Result<T, Ended>;
}

impl<T> At<T> for anyhow::Result<T> {
    fn at(self, stage: Stage) -> Result<T, Ended> {
        self.map_err(|error| Ended(stage, error))
    }
}

/// What a server says that lacks something of this machine, and not of its data.
const LACKS: [&str; 22] = [
    "could not access file",
    "could not load library",
    "incompatible library",
    "could not open extension control file",
    "must be loaded via",
    "No space left on device",
    "Disk quota exceeded",
    "Too many open files",
    "Cannot allocate memory",
    "could not map anonymous shared memory",
    "could not resize shared memory segment",
    "signal: 9",
    // A locale; and also of a database that has one.
    "operating system",
    "could not open collator",
    "could not create locale",
    "invalid locale name",
    "invalid LC_",
    "has no actual version, but a version was recorded",
    "is not supported in this build",
    "is not supported by this build",
    "database files are incompatible with server",
    // The library of a custom resource manager is not loaded (`RmgrNotFound` in rmgr.c).
    "resource manager with ID",
];

/// Whether a server says that this machine lacks something.
pub fn is_missing(words: &str) -> bool {
    LACKS.iter().any(|lack| words.contains(lack))
}

/// What an error at a stage means: what this machine or the way to the repository lacks is no fault of the backup.
pub fn of_error(stage: Stage, error: &anyhow::Error) -> (Verdict, String) {
    let words = one_line(error);
    let lacks = match stage {
        Stage::Prepare | Stage::Refused => !is_damage(error),
        Stage::Server => is_missing(&words),
        Stage::Plan | Stage::Files => !is_damage(error) && is_of_here(error),
    };
    match lacks {
        true => (Verdict::CouldNotRun, words),
        false => (Verdict::Failed, words),
    }
}

/// Whether the repository answered, and what it has is not what was stored.
pub fn is_damage(error: &anyhow::Error) -> bool {
    let object = matches!(
        find(error),
        Some(ObjectError::Damaged { .. } | ObjectError::Absent { .. })
    );
    let stream =
        find::<io::Error>(error).is_some_and(|error| error.kind() == ErrorKind::InvalidData);
    let dump = find::<DamagedDump>(error).is_some();
    let wal = find::<GapError>(error).is_some() || find::<HistoryLost>(error).is_some();
    object || stream || dump || wal
}

/// Whether this machine, this Walden or the way to the repository is at fault.
fn is_of_here(error: &anyhow::Error) -> bool {
    let object = matches!(
        find(error),
        Some(ObjectError::Storage(_) | ObjectError::Newer { .. } | ObjectError::Unchecked { .. })
    );
    let system = find::<io::Error>(error).is_some_and(|error| {
        error.raw_os_error().is_some()
            || matches!(
                error.kind(),
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded
            )
    });
    let newer = find::<Unreachable>(error).is_some_and(|told| told.reason.is_of_newer_walden());
    let silent = find::<StorageError>(error).is_some() || find::<DeadlineExceeded>(error).is_some();
    object || system || newer || silent
}

/// What checks and targets come to. A check that could not run takes nothing from the others.
pub fn of_checks(checks: &[Check]) -> (Verdict, String) {
    let failed: Vec<String> = checks
        .iter()
        .filter(|check| check.verdict == Verdict::Failed)
        .map(|check| format!("{}: {}", check.name, check.seen))
        .collect();
    match failed.is_empty() {
        true => (Verdict::Passed, String::new()),
        false => (Verdict::Failed, failed.join("; ")),
    }
}

/// Whether a measured time is within its target; one that could not be measured never is.
pub fn within(
    name: &str,
    seconds: Option<f64>,
    target: Option<std::time::Duration>,
) -> Option<Check> {
    let target = target?.as_secs_f64();
    let (verdict, measured) = match seconds {
        Some(seconds) if seconds <= target => (Verdict::Passed, format!("{seconds:.1} s")),
        Some(seconds) => (Verdict::Failed, format!("{seconds:.1} s")),
        None => (Verdict::CouldNotRun, "not known".into()),
    };
    Some(Check {
        name: name.into(),
        verdict,
        seen: format!("{measured}, at most {target:.0} s wanted"),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use anyhow::anyhow;

    use super::*;
    use crate::codec::Damaged;
    use crate::error::with_hint;

    #[test]
    fn what_the_machine_lacks_is_no_fault_of_the_backup() {
        let verdict = |stage, words: &str| of_error(stage, &anyhow!("{words}")).0;
        assert_eq!(
            verdict(Stage::Prepare, "no program \"postgres\""),
            Verdict::CouldNotRun
        );
        for lack in [
            "FATAL: could not access file \"x\": No such file or directory",
            "FATAL: resource manager with ID 128 not registered",
            "PANIC: could not write to file \"pg_wal/xlogtemp.7\": No space left on device",
            "FATAL: database files are incompatible with server",
        ] {
            assert_eq!(verdict(Stage::Server, lack), Verdict::CouldNotRun, "{lack}");
        }
        for damage in [
            "PANIC: invalid page",
            "FATAL: could not access status of transaction 7",
            "PANIC: could not open file \"base/5/1259\": No such file or directory",
        ] {
            assert_eq!(verdict(Stage::Server, damage), Verdict::Failed, "{damage}");
        }
        assert_eq!(verdict(Stage::Files, "digest differs"), Verdict::Failed);
        assert_eq!(
            verdict(Stage::Plan, "there is no usable backup"),
            Verdict::Failed
        );
        let full = std::io::Error::from(ErrorKind::StorageFull);
        let full = anyhow::Error::new(full).context("cannot write");
        assert_eq!(of_error(Stage::Files, &full).0, Verdict::CouldNotRun);
    }

    #[test]
    fn damage_in_the_repository_is_a_failure_at_every_stage_and_its_silence_is_at_none() {
        let of = |error: ObjectError| {
            let error = with_hint(anyhow::Error::new(error), "mend it").context("cannot begin");
            [Stage::Prepare, Stage::Plan, Stage::Files].map(|stage| of_error(stage, &error).0)
        };
        let (key, store) = ("key".to_string(), "store".to_string());
        let absent = ObjectError::Absent {
            key: key.clone(),
            store: store.clone(),
        };
        assert_eq!(of(absent), [Verdict::Failed; 3]);
        let damaged = ObjectError::Damaged {
            key: key.clone(),
            store: store.clone(),
            source: Damaged("cut off".into()),
        };
        assert_eq!(of(damaged), [Verdict::Failed; 3]);
        let newer = ObjectError::Newer {
            key: key.clone(),
            store: store.clone(),
            what: "a codec".into(),
        };
        assert_eq!(of(newer), [Verdict::CouldNotRun; 3]);
        let silent = StorageError {
            operation: "get",
            key,
            store,
            lasting: false,
            source: anyhow!("connection refused"),
        };
        assert_eq!(of(silent.into()), [Verdict::CouldNotRun; 3]);
    }

    #[test]
    fn one_failed_check_fails_the_drill_and_one_that_could_not_run_does_not() {
        let check = |verdict| Check {
            name: "indexes".into(),
            verdict,
            seen: "why".into(),
        };
        assert_eq!(of_checks(&[]).0, Verdict::Passed);
        assert_eq!(
            of_checks(&[check(Verdict::Passed), check(Verdict::CouldNotRun)]).0,
            Verdict::Passed
        );
        let failed = of_checks(&[check(Verdict::Failed), check(Verdict::Passed)]);
        assert_eq!(failed, (Verdict::Failed, "indexes: why".into()));
        let limit = Some(Duration::from_secs(60));
        assert_eq!(
            within("RTO", Some(60.0), limit).unwrap().verdict,
            Verdict::Passed
        );
        assert_eq!(
            within("RTO", Some(60.1), limit).unwrap().verdict,
            Verdict::Failed
        );
        assert_eq!(
            within("RPO", None, limit).unwrap().verdict,
            Verdict::CouldNotRun
        );
        assert_eq!(within("RTO", Some(60.1), None), None);
    }
}
