//! What an error says of a backup, a dump or a restore: bad is only what shows it. Pure.

use crate::codec::Damaged;
use crate::error::find;
use crate::evidence::record::Verdict;
use crate::postgres::drill::verdict::{is_damage, is_missing};
use crate::postgres::dump::archive::NotWhole;
use crate::postgres::dump_restore::digests::WrongDigest;
use crate::postgres::dump_restore::program::FillFailed;
use crate::postgres::dump_restore::repository::DamagedDump;
use crate::postgres::restore::files::NotAsManifested;
use crate::postgres::restore::start::NotAtTarget;

/// What PostgreSQL says when the server or this machine lacks something, not the dump.
const LACKS: &[&str] = &[
    "connection",
    "No space left",
    "out of memory",
    "out of shared memory",
    "permission denied",
    "must be owner",
    "must be a superuser",
    "must be superuser",
    "role \"",
    "tablespace \"",
    "is not available",
    "could not access file",
    "could not load library",
    "canceling statement",
    "terminating",
];

/// Whether an act failed, or could not run: an unreachable repository, an interruption or a refusal is no fault of what was to
/// be proven.
pub fn of_error(error: &anyhow::Error) -> Verdict {
    if let Some(NotAtTarget(said)) = find(error) {
        // The repository did not give a WAL file; whether it is bad is told with that.
        let is_open = said.contains("could not restore file")
            && !["damaged", "missing"].iter().any(|bad| said.contains(bad));
        return match is_open || is_missing(said) {
            true => Verdict::CouldNotRun,
            false => Verdict::Failed,
        };
    }
    let is_dump = find::<DamagedDump>(error).is_some()
        || find::<WrongDigest>(error).is_some()
        || matches!(
            find(error),
            Some(NotWhole::BrokenOff | NotWhole::Damaged(_))
        )
        || find::<FillFailed>(error)
            .is_some_and(|FillFailed { said, .. }| !LACKS.iter().any(|lack| said.contains(lack)));
    let is_file = find::<Damaged>(error).is_some() || find::<NotAsManifested>(error).is_some();
    match is_damage(error) || is_dump || is_file {
        true => Verdict::Failed,
        false => Verdict::CouldNotRun,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;
    use crate::repo::ObjectError;
    use crate::storage::StorageError;

    #[test]
    fn only_what_shows_that_it_is_bad_is_a_failure() {
        let unreachable = || StorageError {
            operation: "get",
            key: "key".into(),
            store: "store".into(),
            lasting: false,
            source: anyhow!("connection refused"),
        };
        let fill = |said: &str| FillFailed {
            program: "pg_restore".into(),
            said: said.into(),
        };
        let (key, store) = ("key".to_string(), "store".to_string());
        let absent = ObjectError::Absent { key, store };
        for failed in [
            anyhow::Error::from(Damaged("cut".into())).context("the backup is not whole"),
            absent.into(),
            NotAtTarget("PANIC: invalid page".into()).into(),
            NotAsManifested("file \"x\" has another digest".into()).into(),
            fill("ERROR: insert violates foreign key constraint").into(),
        ] {
            assert_eq!(of_error(&failed), Verdict::Failed, "{failed:#}");
        }
        for could_not_run in [
            unreachable().into(),
            ObjectError::from(unreachable()).into(),
            anyhow!("interrupted"),
            anyhow!("folder \"x\" is not empty"),
            NotAtTarget("FATAL: could not restore file".into()).into(),
            NotAtTarget("FATAL: could not access file \"x\"".into()).into(),
            fill("server closed the connection unexpectedly").into(),
            fill("ERROR: role \"shop\" does not exist").into(),
        ] {
            let verdict = of_error(&could_not_run);
            assert_eq!(verdict, Verdict::CouldNotRun, "{could_not_run:#}");
        }
    }
}
