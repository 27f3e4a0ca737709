//! What a summary lists one by one.

use serde::{Deserialize, Serialize};

use super::fact::{Fact, Parameters, TransactionEnd};
use super::record::{RelFileLocator, Xid};
use super::timestamp::Timestamp;
use crate::postgres::types::{Lsn, TimelineId};

/// Events of a group that a summary holds at most: of those that nobody looks for, a quarter.
pub const EVENTS: usize = 512;
/// Files, tables or databases that one event names at most.
pub const NAMED: usize = 256;

/// Something worth finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalEvent {
    pub lsn: Lsn,
    /// Where the record after it begins.
    pub end: Lsn,
    /// 0 without a transaction.
    pub xid: Xid,
    #[serde(flatten)]
    pub what: EventDetail,
}

/// EventDetail happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum EventDetail {
    RestorePoint {
        name: String,
        time: Timestamp,
    },
    /// A commit that removed files: of dropped relations, or the old ones of truncated and rewritten relations.
    #[serde(rename = "dropped")]
    FilesRemoved {
        time: Timestamp,
        /// Its subtransactions, under which it may have made files.
        subxids: Vec<Xid>,
        files: Vec<RelFileLocator>,
        /// OIDs of relations that lost their statistics (15 and later): the dropped ones among them.
        relations: Vec<u32>,
        /// Some of these lists are longer than what is kept.
        cut: bool,
    },
    /// A relation's file lost blocks: by VACUUM, or TRUNCATE in the transaction that made the relation.
    FileTruncated {
        file: RelFileLocator,
        blocks: u32,
    },
    /// TRUNCATE, at `wal_level = logical`: OIDs of tables.
    TablesTruncated {
        database: u32,
        tables: Vec<u32>,
        cut: bool,
    },
    DatabaseCreated {
        database: u32,
        tablespace: u32,
    },
    /// ALTER DATABASE SET TABLESPACE made its files anew.
    DatabaseMoved {
        database: u32,
        tablespace: u32,
    },
    /// Before the transaction's commit, but final. Without a transaction what a move left behind is removed.
    DatabaseDropped {
        database: u32,
    },
    Prepared {
        gid: String,
        time: Timestamp,
    },
    TimelineBegan {
        timeline: TimelineId,
        previous: TimelineId,
    },
    ParametersChanged(Parameters),
    FullPageWrites {
        on: bool,
    },
    /// The record at `lost` was cut off by a crash and is void.
    Overwritten {
        lost: Lsn,
    },
}

impl EventDetail {
    /// EventDetail a fact is as an event.
    pub(super) fn of(fact: &Fact<'_>) -> Option<Self> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Some(match *fact {
            Fact::End(ref end) if end.committed && !end.dropped.is_empty() => Self::dropped(end),
            Fact::RestorePoint { time, name } => Self::RestorePoint {
                name: text(name),
                time,
            },
            Fact::FileTruncated { file, blocks } => Self::FileTruncated { file, blocks },
            Fact::TablesTruncated { database, tables } => {
                let (tables, cut) = named(tables.iter());
                Self::TablesTruncated {
                    database,
                    tables,
                    cut,
                }
            }
            Fact::DatabaseCreated {
                database,
                tablespace,
                source,
            } if source == Some(database) => Self::DatabaseMoved {
                database,
                tablespace,
            },
            Fact::DatabaseCreated {
                database,
                tablespace,
                ..
            } => Self::DatabaseCreated {
                database,
                tablespace,
            },
            Fact::DatabaseDropped { database } => Self::DatabaseDropped { database },
            Fact::Prepare { gid, time, .. } => Self::Prepared {
                gid: text(gid),
                time,
            },
            Fact::EndOfRecovery { timeline, previous } => {
                Self::TimelineBegan { timeline, previous }
            }
            Fact::Checkpoint { timeline, previous } if timeline != previous => {
                Self::TimelineBegan { timeline, previous }
            }
            Fact::ParameterChange(parameters) => Self::ParametersChanged(parameters),
            Fact::FullPageWrites(on) => Self::FullPageWrites { on },
            Fact::Overwritten { lsn } => Self::Overwritten { lost: lsn },
            Fact::End(_) | Fact::FileCreated { .. } | Fact::Checkpoint { .. } => return None,
            Fact::Rows { .. } | Fact::TablespaceMade { .. } | Fact::PageWritten { .. } => {
                return None;
            }
        })
    }

    /// EventDetail a commit says that removes files.
    fn dropped(end: &TransactionEnd<'_>) -> Self {
        let relations = end
            .dropped_statistics
            .iter()
            .filter(|item| item.kind == STATISTICS_OF_RELATION);
        let (subxids, cut_subxids) = named(end.subxids.iter());
        let (files, cut_files) = named(end.dropped.iter());
        let (relations, cut_relations) = named(relations.map(|item| item.object as u32));
        let cut = cut_subxids || cut_files || cut_relations || !end.whole;
        Self::FilesRemoved {
            time: end.time,
            subxids,
            files,
            relations,
            cut,
        }
    }
}

/// pgstat_kind.h, PGSTAT_KIND_RELATION.
const STATISTICS_OF_RELATION: u32 = 2;

/// The first [`NAMED`] items, and whether there are more.
fn named<T>(items: impl Iterator<Item = T>) -> (Vec<T>, bool) {
    let mut items = items;
    let kept = items.by_ref().take(NAMED).collect();
    (kept, items.next().is_some())
}
