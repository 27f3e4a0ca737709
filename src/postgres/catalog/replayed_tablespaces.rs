//! Tablespaces that replay of a plan makes outside the data directory: PostgreSQL makes each where the source had it.

use super::choose::{Choice, Chooser};
use super::stop_at::StopAt;
use super::wal_index::Unknown;
use super::{BackupDescription, WalPiece};
use crate::postgres::layout::BackupId;
use crate::postgres::types::SegmentName;
use crate::postgres::wal::TablespaceMade;

/// A tablespace that replay would make at its recorded place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayedTablespace {
    pub made: TablespaceMade,
    /// The first backup that has it: restored from there, it can be put elsewhere.
    pub in_backup: Option<BackupId>,
}

/// What is known of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplayedTablespaces {
    pub made: Vec<ReplayedTablespace>,
    /// The first segment that may make others: what it holds is not known.
    pub unknown: Option<SegmentName>,
}

impl ReplayedTablespaces {
    /// For who reads the plan.
    pub(super) fn warnings(&self) -> impl Iterator<Item = String> + '_ {
        let made = self.made.iter().map(|ReplayedTablespace { made, in_backup }| {
            let TablespaceMade { lsn, oid, location } = made;
            let next = match in_backup {
                Some(id) => format!("backup \"{id}\" has it"),
                None => "no backup has it yet".to_string(),
            };
            format!(
                "replay makes tablespace {oid} at \"{location}\" ({lsn}), where a copy may have it only if it is given \
                 that folder; {next}"
            )
        });
        let unknown = self.unknown.iter().map(|segment| {
            format!(
                "what segment {segment} holds is not known: a tablespace made there would lie where the source has it"
            )
        });
        made.chain(unknown)
    }
}

impl Chooser<'_> {
    /// Those that replay from the chosen backup to the place makes. Without an index nothing is known of them.
    pub fn made(&self, choice: &Choice<'_>) -> Result<ReplayedTablespaces, Unknown> {
        let (size, backup) = (self.known.facts.ranges.segment_size(), choice.backup);
        let pieces = self
            .path
            .coverage(
                &self.known.facts.ranges,
                self.start(backup),
                choice.place.until,
            )
            .pieces;
        let mut all = ReplayedTablespaces::default();
        for WalPiece { first, last, .. } in pieces {
            let told = self.known.index.tablespaces(
                first.timeline,
                first.number(size),
                last.number(size) + 1,
            );
            let told = match told {
                Err(Unknown::NoIndex) => return Ok(all),
                told => told?,
            };
            let counts = |made: &TablespaceMade| is_replayed(made, backup, choice.place.stop);
            let made = told.found.into_iter().filter(counts);
            all.made.extend(made.map(|made| ReplayedTablespace {
                in_backup: self.first_with(&made),
                made,
            }));
            match told.more {
                // Replay ends there.
                None | Some(Unknown::Broken { .. }) => (),
                Some(Unknown::Segment(segment)) => all.unknown = all.unknown.or(Some(segment)),
                Some(unknown) => return Err(unknown),
            }
        }
        Ok(all)
    }

    fn first_with(&self, made: &TablespaceMade) -> Option<BackupId> {
        let has = |backup: &&BackupDescription| {
            backup.start_lsn > made.lsn
                && backup
                    .tablespaces
                    .iter()
                    .any(|tablespace| tablespace.oid == made.oid)
                && self.path.carries(backup)
        };
        self.known
            .facts
            .backups
            .iter()
            .filter(has)
            .min_by_key(|backup| backup.start_lsn)
            .map(|backup| backup.id.clone())
    }
}

/// Whether replay comes to it: also while it only makes the backup consistent.
fn is_replayed(made: &TablespaceMade, backup: &BackupDescription, stop: StopAt) -> bool {
    made.lsn >= backup.start_lsn
        && match stop {
            StopAt::Before { lsn } => made.lsn < lsn,
            StopAt::After { lsn, .. } => made.lsn <= lsn,
            StopAt::Consistent => made.lsn < backup.stop_lsn,
            StopAt::End => true,
        }
}
