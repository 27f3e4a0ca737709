//! How a drill ended, from what was seen. Pure.

use std::io::ErrorKind;

use crate::error::{find, one_line};
use crate::evidence::record::{Check, Verdict};
use crate::storage::StorageError;

/// Where a drill ended before its checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Programs, folder and room on this machine.
    Prepare,
    Plan,
    Files,
    Start,
}

/// What an error at a stage means: what this machine or the way to the repository lacks is no fault of the backup.
pub fn of_error(stage: Stage, error: &anyhow::Error) -> (Verdict, String) {
    let words = one_line(error);
    let full = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| {
            matches!(
                cause.kind(),
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded
            )
        });
    let lacks = match stage {
        Stage::Prepare => true,
        Stage::Start => [
            "could not access file",
            "could not load library",
            "No space left on device",
            "could not map anonymous shared memory",
            "could not resize shared memory segment",
            "Cannot allocate memory",
            "signal: 9",
            "operating system",
        ]
        .iter()
        .any(|lack| words.contains(lack)),
        Stage::Plan | Stage::Files => full || find::<StorageError>(error).is_some(),
    };
    match lacks {
        true => (Verdict::CouldNotRun, words),
        false => (Verdict::Failed, words),
    }
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

    #[test]
    fn what_the_machine_lacks_is_no_fault_of_the_backup() {
        let verdict = |stage, words: &str| of_error(stage, &anyhow!("{words}")).0;
        assert_eq!(
            verdict(Stage::Prepare, "no program \"postgres\""),
            Verdict::CouldNotRun
        );
        assert_eq!(
            verdict(Stage::Start, "FATAL: could not access file \"x\""),
            Verdict::CouldNotRun
        );
        assert_eq!(
            verdict(Stage::Start, "PANIC: invalid page"),
            Verdict::Failed
        );
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
