//! BASE_BACKUP refused by the server: what to do about it. Pure. As with warnings, the server's C function and SQLSTATE
//! tell the kind, in each language (docs/operations/backup.md has the list).

use crate::error::{find, with_hint};
use crate::postgres::replication::ServerError;

/// ereport's own SQLSTATE for errors without one.
const INTERNAL: &str = "XX000";
/// What `errcode_for_file_access` makes of EACCES, and of errors that it does not know.
const NO_ACCESS: &str = "42501";
const IO_ERROR: &str = "58030";

/// The server's words, where verifying page checksums is what ended the backup: 13 to 16 take each file below `base/`
/// and `global/` for a relation's, and give up at the dot in the name of a foreign file (`N.bak`, an extension's cache).
pub fn verification_trips(error: &anyhow::Error) -> Option<String> {
    let refused = find::<ServerError>(error)?;
    let trips = refused.routine.as_deref() == Some("sendFile") && refused.code == INTERNAL;
    trips.then(|| refused.message.clone())
}

/// The error with a hint that gets past it, where a file in the server's folder is in the way.
pub fn with_way_out(error: anyhow::Error) -> anyhow::Error {
    let Some(refused) = find::<ServerError>(&error) else {
        return error;
    };
    let hint = match (refused.routine.as_deref(), refused.code.as_str()) {
        (Some("_tarWriteHeader"), _) => {
            "move that file out of the data directory, or shorten its name"
        }
        (_, NO_ACCESS) => {
            "let the server's operating-system user read that file, or move it out of the data directory"
        }
        (_, IO_ERROR) => "see the server's log and its disk, then take the backup again",
        _ => return error,
    };
    with_hint(error, hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::hints;

    fn refused(routine: &str, code: &str) -> anyhow::Error {
        let (code, routine) = (code.to_string(), Some(routine.to_string()));
        anyhow::Error::new(ServerError {
            code,
            routine,
            ..ServerError::default()
        })
        .context("the base backup failed")
    }

    #[test]
    fn only_a_name_that_verification_trips_over_is_worth_another_try() {
        assert!(verification_trips(&refused("sendFile", INTERNAL)).is_some());
        assert!(verification_trips(&refused("sendFile", NO_ACCESS)).is_none());
        assert!(verification_trips(&refused("sendDir", INTERNAL)).is_none());
    }

    #[test]
    fn a_file_in_the_way_is_told_with_a_way_out() {
        for (routine, code) in [
            ("_tarWriteHeader", INTERNAL),
            ("sendFile", NO_ACCESS),
            ("ReadDirExtended", NO_ACCESS),
        ] {
            assert!(
                hints(&with_way_out(refused(routine, code)))[0].contains("data directory"),
                "{routine} {code}"
            );
        }
        assert!(hints(&with_way_out(refused("sendDir", "55000"))).is_empty());
    }
}
