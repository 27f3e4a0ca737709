//! Tablespaces that replay makes. PostgreSQL makes each where the source had it, and nothing can lead it elsewhere: so a
//! copy gets one only in a folder that is given to it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::anyhow;

use super::relocation::{Relocation, is_meant};
use crate::error::with_hint;
use crate::postgres::catalog::{ReplayedTablespace, TablespaceDescription};
use crate::postgres::command_line::shell_word;
use crate::postgres::wal::TablespaceMade;

/// The folders that replay will use besides those of the backup. Errors: one would not be the restore's own.
pub fn folders(
    all: &[ReplayedTablespace],
    relocations: &[Relocation],
    is_replacement: bool,
) -> anyhow::Result<BTreeSet<PathBuf>> {
    let mut folders = BTreeSet::new();
    for one in all {
        let place = PathBuf::from(&one.made.location);
        let relocation = relocations
            .iter()
            .rev()
            .find(|relocation| is_meant(relocation, &described(one)));
        match relocation {
            // One that the summary of its segment has no room for has no OID.
            _ if one.made.oid == 0 => return Err(refused(one)),
            None if !is_replacement => return Err(refused(one)),
            Some(relocation) if !is_same(&relocation.new, &place) => {
                return Err(elsewhere(one, &relocation.new));
            }
            _ => folders.insert(place),
        };
    }
    Ok(folders)
}

/// As a backup would describe it.
pub fn described(one: &ReplayedTablespace) -> TablespaceDescription {
    TablespaceDescription {
        oid: one.made.oid,
        location: one.made.location.clone(),
    }
}

fn is_same(named: &Path, place: &Path) -> bool {
    named.components().eq(place.components())
}

fn refused(one: &ReplayedTablespace) -> anyhow::Error {
    let TablespaceMade { lsn, oid, location } = &one.made;
    if *oid == 0 {
        let error = anyhow!(
            "replay makes more tablespaces than are known, from {lsn} on: a copy must not write there"
        );
        return with_hint(error, instead(one));
    }
    let error = anyhow!(
        "replay makes tablespace {oid} at \"{location}\", where the source has it, at {lsn}: a copy must not write there"
    );
    let place = shell_word(location);
    let own = format!(
        "if \"{location}\" is free on this machine, give it to the copy: --tablespace {oid}={place}"
    );
    with_hint(with_hint(error, own), instead(one))
}

fn elsewhere(one: &ReplayedTablespace, new: &Path) -> anyhow::Error {
    let TablespaceMade { lsn, oid, location } = &one.made;
    let new = new.display();
    let error = anyhow!(
        "tablespace {oid} cannot go to \"{new}\": it was made at {lsn}, after the backup, and replay makes it at \
         \"{location}\""
    );
    with_hint(error, instead(one))
}

fn instead(one: &ReplayedTablespace) -> String {
    let before = format!(
        "restore to before it was made: --lsn {} --exclusive",
        one.made.lsn
    );
    match &one.in_backup {
        Some(id) => {
            format!("backup \"{id}\" has it: restore to that one's end or later; or {before}")
        }
        None => format!(
            "take a backup: --tablespace can move it for moments behind that one's end; or {before}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::hints;
    use crate::postgres::types::Lsn;

    fn made(oid: u32, in_backup: Option<&str>) -> ReplayedTablespace {
        let made = TablespaceMade {
            lsn: Lsn(0x3000028),
            oid,
            location: "/srv/fast".into(),
        };
        ReplayedTablespace {
            made,
            in_backup: in_backup.map(|id| id.parse().unwrap()),
        }
    }

    fn decided(
        one: ReplayedTablespace,
        relocation: Option<&str>,
        is_replacement: bool,
    ) -> Result<Vec<PathBuf>, String> {
        let relocations: Vec<Relocation> = relocation
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        let found = folders(&[one], &relocations, is_replacement);
        found
            .map(|found| found.into_iter().collect())
            .map_err(|error| format!("{error} {}", hints(&error).join(" ")))
    }

    #[test]
    fn a_copy_gets_it_only_in_a_folder_that_is_given_to_it() {
        let told = decided(made(16390, None), None, false).unwrap_err();
        for word in [
            "16390",
            "/srv/fast",
            "0/3000028",
            "take a backup",
            "--tablespace 16390=/srv/fast",
        ] {
            assert!(told.contains(word), "{told}");
        }
        let told = decided(made(16390, Some("20260101-000000Z")), None, false).unwrap_err();
        assert!(
            told.contains("backup \"20260101-000000Z\" has it"),
            "{told}"
        );
        let own = vec![PathBuf::from("/srv/fast")];
        assert_eq!(
            decided(made(16390, None), Some("16390=/srv/fast/"), false),
            Ok(own.clone())
        );
        assert_eq!(
            decided(made(16390, None), Some("/srv/fast=/srv/fast"), false),
            Ok(own.clone())
        );
        assert_eq!(decided(made(16390, None), None, true), Ok(own));
    }

    #[test]
    fn none_can_be_led_elsewhere_and_one_that_is_not_known_is_refused() {
        for is_replacement in [true, false] {
            let told =
                decided(made(16390, None), Some("16390=/srv/other"), is_replacement).unwrap_err();
            assert!(told.contains("cannot go to \"/srv/other\""), "{told}");
            assert!(
                decided(made(0, None), None, is_replacement)
                    .unwrap_err()
                    .contains("more tablespaces")
            );
        }
    }
}
