//! Which backups are restored with, and why the others are not.

use super::BackupDescription;
use super::facts::Facts;
use super::follow::paths;
use super::path::TimelinePath;

/// A complete backup that nothing is restored with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusedBackup {
    pub cause: Unused,
    pub why: String,
}

/// What keeps it from being used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unused {
    /// The server left out a part of the cluster, as it will again.
    LeftOut,
    /// The cluster itself has them, as far as is known.
    DamagedPages,
    /// WAL or a history file that it needs is missing.
    NoWal,
}

/// The newest backup that something is restored with, and those that are newer.
#[derive(Debug, Default)]
pub struct Usable<'a> {
    pub newest: Option<&'a BackupDescription>,
    pub newer: Vec<UnusedBackup>,
}

/// Finds the newest backup that can be used. Those with a manifest that cannot be read are told by the facts themselves.
pub fn newest_usable(facts: &Facts) -> Usable<'_> {
    let (paths, mut usable) = (paths(facts), Usable::default());
    for backup in facts.backups.iter().rev() {
        match unused(facts, &paths, backup) {
            Some(unused) => usable.newer.push(unused),
            None => {
                return Usable {
                    newest: Some(backup),
                    ..usable
                };
            }
        }
    }
    usable
}

/// Backups that nothing is restored with unless they are repaired or named, and why.
pub fn unused_backups(facts: &Facts) -> Vec<String> {
    let paths = paths(facts);
    let damaged = facts
        .damaged_backups
        .iter()
        .map(|(id, why)| format!("backup {id} cannot be used: {why}"));
    let unused = facts
        .backups
        .iter()
        .filter_map(|backup| unused(facts, &paths, backup));
    damaged.chain(unused.map(|unused| unused.why)).collect()
}

fn unused(
    facts: &Facts,
    paths: &[TimelinePath],
    backup: &BackupDescription,
) -> Option<UnusedBackup> {
    let (id, timeline) = (&backup.id, backup.stop_timeline);
    if let Some(part) = backup.left_out.first() {
        let why = format!("backup {id} cannot be used: it lacks \"{part}\"");
        return Some(UnusedBackup {
            cause: Unused::LeftOut,
            why,
        });
    }
    if !backup.checksum_failures.is_empty() {
        let why = format!("backup {id} has damaged pages: it is restored only when it is named");
        return Some(UnusedBackup {
            cause: Unused::DamagedPages,
            why,
        });
    }
    let carriers = || paths.iter().filter(|path| path.carries(backup));
    if carriers().any(|path| path.moments(&facts.ranges, backup).is_some()) {
        return None;
    }
    let why = match carriers().next() {
        None => format!(
            "backup {id} cannot be used: where its timeline {timeline} comes from is not known"
        ),
        Some(_) => {
            format!("backup {id} cannot be used: WAL between its start and its end is missing")
        }
    };
    Some(UnusedBackup {
        cause: Unused::NoWal,
        why,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::testing::facts;
    use super::*;

    #[test]
    fn backups_that_are_not_used_tell_why() {
        let mut facts = facts(&[]);
        Arc::make_mut(&mut facts.backups)[0]
            .checksum_failures
            .push("base/1/2 block 3".into());
        facts
            .damaged_backups
            .insert("20260102-000000Z".parse().unwrap(), "it is cut off".into());
        let told = unused_backups(&facts);
        assert!(
            told[0].ends_with("cannot be used: it is cut off")
                && told[1].contains("only when it is named"),
            "{told:?}"
        );
    }
}
